"""Losses and gradient norms of the five presets, pinned: a number that drifts is noticed.

The equations are proved elsewhere (`test_papers.py`). This one says that today's numbers are yesterday's. After a
change that is meant to move them, print the new table with

    python -m tests.test_golden_objectives

paste it, and name the change in the commit. (The world is drawn by torch's generator, so a torch that draws other
numbers moves all five at once.)
"""

from __future__ import annotations

import pytest

from objectives import get, names
from tests import zoo

GOLDEN: dict[str, tuple[float, float]] = {
    "reinforce": (0.11328125, 0.26685720630083704),
    "ppo": (0.11254089258014835, 0.10891965047167367),
    "grpo": (0.009000549280962554, 0.09714735260458725),
    "dapo": (0.2859528387433238, 0.1526344518871666),
    "gspo": (-6.006279221079658e-06, 0.07601860922075766),
}
"""Preset -> loss, norm of the gradient by log-probs (and values), on `zoo.world(seed=0)` after selection."""


def measured(name: str) -> tuple[float, float]:
    objective = get(name)
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, zoo.kept(objective, zoo.world(seed=0))))
    return loss.item(), sum(g.square().sum().item() for g in gradients.values()) ** 0.5


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    assert measured(name) == pytest.approx(GOLDEN[name], rel=1e-10, abs=1e-14)


def test_every_preset_is_pinned() -> None:
    assert set(GOLDEN) == set(names()) & {"reinforce", "ppo", "grpo", "dapo", "gspo"}


if __name__ == "__main__":
    for preset in ("reinforce", "ppo", "grpo", "dapo", "gspo"):
        print(f'    "{preset}": {measured(preset)},')
