"""Train a fleet in a process of its own, on a device that this process may have to make first: for `test_devices.py`.

python -m tests.engine.train_there configs.json folder pretend-build
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rlzoo.config.run import RunConfig
from rlzoo.training.launch import train_fleet
from tests.training import conftest as conftest  # has the task
from tests.training import pretend


class Interrupted(Exception):
    """By whoever heard of the first step."""


def interrupt(name: str, record: dict[str, Any]) -> None:
    if record["kind"] == "train":
        raise Interrupted


def main(configs: Path, folder: Path, build: Path) -> None:
    """Train what `configs` has, name -> configuration, until the first step is made; then to the end."""
    named = {name: RunConfig.model_validate(values) for name, values in json.loads(configs.read_text()).items()}
    if any(config.backbone.device == pretend.NAME for config in named.values()):
        pretend.register(build)
    runs: dict[str, tuple[RunConfig, str | Path]] = {name: (config, folder / name) for name, config in named.items()}
    try:
        train_fleet(runs, on_record=interrupt)
    except Interrupted:
        train_fleet(runs, resume=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
