"""Which prompts are trained on."""

from __future__ import annotations

import math

import pytest
import torch

from advantages import All, Mixed, Select

NAN = math.nan


@pytest.mark.parametrize(
    ("accuracy", "mixed", "every"),
    [
        ([0, 0, 0, 0], False, True),
        ([1, 1, 1, 1], False, True),
        ([0, 1, 0, 0], True, True),
        ([1, 1, 0, 1], True, True),
        ([0.3, 0.3, 0.3, 0.3], False, True),
        ([0.3, 0.3, 0.5, 0.3], True, True),  # partial marks that differ are something to learn from
        ([NAN, 1, 1, 1], False, True),  # no verdict is not a wrong answer
        ([NAN, 0, 0, 0], False, True),  # nor a right one
        ([NAN, 1, 0, NAN], True, True),
        ([NAN, NAN, NAN, 1], False, True),
        ([NAN, NAN, NAN, NAN], False, False),
    ],
)
def test_mixed_and_all(accuracy: list[float], mixed: bool, every: bool) -> None:
    accuracy_PG = torch.tensor([accuracy, [0, 1, 0, 1]])  # the second prompt shows that prompts do not touch
    assert Mixed()(accuracy_PG).tolist() == [mixed, True]
    assert All()(accuracy_PG).tolist() == [every, True]


def test_group_of_one_is_never_mixed() -> None:
    assert Mixed()(torch.tensor([[1.0], [0.0]])).tolist() == [False, False]


def test_only_mixed_needs_a_group_and_rounds() -> None:
    assert (All().needs, Mixed().needs) == (frozenset(), {"group"})
    assert (All().max_rounds, Mixed().max_rounds) == (1, 10)
    assert Select.parse({"kind": "mixed", "max_rounds": 3}) == Mixed(max_rounds=3)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Select.parse({"kind": "all", "max_rounds": 3})
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Mixed(max_rounds=0)
