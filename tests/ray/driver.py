"""Train a fleet as a driver of its own, which a test may kill: python -m tests.ray.driver configs.json folder"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rlzoo.config.run import RunConfig
from rlzoo.training.launch import train_fleet
from tests import runs as runs  # has the task


def main(configs: Path, folder: Path) -> None:
    """Train what `configs` has, name -> configuration."""
    named = {name: RunConfig.model_validate(values) for name, values in json.loads(configs.read_text()).items()}
    train_fleet({name: (config, folder / name) for name, config in named.items()})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
