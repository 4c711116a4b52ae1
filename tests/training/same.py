"""When two run folders hold the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.model.adapters import load_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder, read_lines
from rlzoo.training.run import TIMES

TOLERANCE = 2e-4  # float32 sums in another order, through a few Adam steps


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in TIMES}
        for record in RunFolder.open(folder).read_metrics()
    ]


def assert_same_run(one: Path, other: Path, backbone: Backbone, tolerance: float = TOLERANCE) -> None:
    """Same samples exactly; same metrics and adapter to tolerance."""
    assert read_lines(one / "samples.jsonl") == read_lines(other / "samples.jsonl")
    records, others = untimed(one), untimed(other)
    assert [list(r) for r in records] == [list(r) for r in others]
    for record, twin in zip(records, others, strict=True):
        for key, value in record.items():
            if isinstance(value, float):
                assert twin[key] == pytest.approx(value, rel=tolerance, abs=tolerance), (key, record["step"])
            else:
                assert twin[key] == value, (key, record["step"])
    mine, theirs = (load_adapter(backbone.layout, folder / "adapter") for folder in (one, other))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
