"""A run with one seed gives the samples and metrics that it gave when the recording was made.

`tests/recordings/runs.json`: five algorithms, three steps on the shipped base in float32 on a CPU, recorded before the
engine became a protocol. A change that is meant to move these numbers says so and records them anew.

Evaluations were the recorded ones too, until they were given other problems (`rlzoo.training.held_out`): what is
compared here is training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.store.run_folder import read_lines
from rlzoo.training.launch import train
from tests.training.same import untimed

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "recordings" / "runs.json").read_text())
ROUNDING = {"sampler_gap": 1e-4}
"""Metrics that measure rounding itself: they stay below a bound, and no more can be said of them."""


@pytest.mark.parametrize("name", list(RECORDED))
def test_a_run_is_the_recorded_run(name: str, tmp_path: Path) -> None:
    recorded = RECORDED[name]
    train(RunConfig.model_validate(recorded["config"]), tmp_path)

    def of_training(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [record for record in records if record["kind"] == "train"]

    samples = of_training(recorded["samples"])
    assert len(samples) == 12 and of_training(read_lines(tmp_path / "samples.jsonl")) == samples
    records, recorded_records = of_training(untimed(tmp_path)), of_training(recorded["metrics"])
    assert len(records) == len(recorded_records) == 3
    for record, before in zip(records, recorded_records, strict=True):
        assert before.keys() <= record.keys()
        for key, value in before.items():
            if key in ROUNDING:
                assert (record[key] is None) == (value is None) and max(record[key] or 0, value or 0) < ROUNDING[key]
            elif isinstance(value, float):
                assert record[key] == pytest.approx(value, rel=1e-4, abs=1e-6), (key, record["step"])
            else:
                assert record[key] == value, (key, record["step"])
