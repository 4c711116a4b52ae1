"""Outcomes of problems in a record: what goes in comes out, in an eighth of a byte each."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rlzoo.store.outcomes import pack, unpack


@pytest.mark.parametrize("count", [1, 7, 8, 1024])
def test_right_and_wrong_are_bits(count: int) -> None:
    values = np.random.default_rng(count).integers(0, 2, count).astype(float)
    stored = pack(values.tolist())
    assert unpack(json.loads(json.dumps(stored))).tolist() == values.tolist()
    assert len(stored["right"]) == 4 * math.ceil(math.ceil(count / 8) / 3)  # base64: four letters for three bytes


def test_graded_outcomes_are_numbers() -> None:
    stored = pack([0.5, 1.0, 1 / 3])
    assert stored == {"problems": 3, "scores": [0.5, 1.0, 0.333333]}
    assert unpack(stored).tolist() == stored["scores"]
    assert unpack(None) is None
