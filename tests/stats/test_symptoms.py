"""Symptoms: each is told with its step where it is put in, and a healthy run has none."""

from __future__ import annotations

import numpy as np
import pytest

from rlzoo.stats.symptoms import FEWEST, symptoms

STEPS = 100


def healthy(seed: int, steps: int = STEPS) -> dict[str, list[float | None]]:
    """A run as ours are: reward rises along a logistic curve, entropy falls with it, everything is noisy."""
    chance = np.random.default_rng(seed)
    t = np.linspace(0, 1, steps)
    reward = 0.1 + chance.uniform(0.1, 0.85) / (1 + np.exp(-chance.uniform(4, 14) * (t - chance.uniform(0.2, 0.7))))
    entropy = chance.uniform(0.2, 1.5) * (1 - chance.uniform(0.3, 0.97) * reward)
    length = chance.uniform(4, 300) * (1 + chance.uniform(-0.4, 1.0) * t)
    noise = lambda scale: np.exp(scale * chance.standard_normal(steps))  # noqa: E731
    columns = {
        "step": 1.0 + np.arange(steps),
        "reward": np.clip(reward + 0.08 * chance.standard_normal(steps), 0, 1),
        "entropy": entropy * noise(0.15),
        "length": length * noise(0.1),
        "kl": chance.uniform(1e-4, 0.02) * noise(0.5),
        "clip_fraction": np.clip(chance.uniform(0, 0.2) * noise(0.4), 0, 1),
        "silent_groups": np.clip(chance.uniform(0.1, 0.7) + 0.1 * chance.standard_normal(steps), 0, 1),
        "explained_variance": np.clip(0.6 * t - 0.05 + 0.1 * chance.standard_normal(steps), -1, 1),
        "ratio_first": 1 + 1e-6 * chance.standard_normal(steps),
    }
    return {name: list(map(float, values)) for name, values in columns.items()}


@pytest.mark.parametrize("steps", [20, 60, 300])
def test_of_a_hundred_healthy_runs_at_most_five_have_an_alarm(steps: int) -> None:
    alarms = {seed: found for seed in range(100) if (found := symptoms(healthy(seed, steps)))}
    assert len(alarms) <= 5, alarms


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("silent_groups", [1.0] * STEPS, "100% of the groups have equal rewards"),
        ("ratio_first", [1.2] * STEPS, r"never 1 \(nearest: 1\.200\)"),
        ("clip_fraction", [0.5] * STEPS, "50% of the tokens are clipped"),
        ("explained_variance", [-0.5] * STEPS, r"explained variance is -0\.50"),
        ("kl", [0.01] * 70 + [3.0] + [0.01] * 29, "KL spikes in 1 of 100 steps, highest at step 71: 3"),
    ],
)
def test_each_symptom_is_told(column: str, values: list[float], said: str) -> None:
    import re

    found = symptoms(healthy(1) | {column: list(values)})
    assert len(found) == 1 and re.search(said, found[0]), found


def test_a_collapse_is_told_with_its_step() -> None:
    """Entropy 1 until step 40, then 0.001, while the reward falls from 0.8 back to 0.1."""
    run = healthy(1) | {"entropy": [1.0] * 40 + [0.001] * 60, "reward": [0.8] * 40 + [0.1] * 60}
    assert [one.partition(",")[0] for one in symptoms(run)] == ["the entropy collapsed at step 41"]
    solved = run | {"reward": [0.1] * 40 + [1.0] * 60}  # sure of the right answer: nothing more to explore
    assert symptoms(solved) == []


def test_drift_is_told_unless_the_reward_rose() -> None:
    run = healthy(1) | {"length": [float(10 + n) for n in range(STEPS)], "reward": [0.3] * STEPS}
    assert len(symptoms(run)) == 1 and "length drift" in symptoms(run)[0]
    assert symptoms(run | {"reward": [n / STEPS for n in range(STEPS)]}) == []


def test_of_few_steps_and_unknown_columns_nothing_is_said() -> None:
    assert symptoms({"silent_groups": [1.0] * (FEWEST - 1)}) == []
    assert symptoms({"whatever": [1.0] * 50}) == [] and symptoms({}) == []
    assert symptoms({"silent_groups": [None] * 50, "kl": [None] * 50}) == []
