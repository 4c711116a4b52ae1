"""Symptoms: each is told with its step where it is put in, and a healthy run has none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rlzoo.stats.symptoms import FEWEST, LEAST_AT_THE_EDGE, Told, symptoms

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


def told(columns: dict[str, list[float | None]]) -> list[str]:
    """The symptoms; every finding of these columns is one."""
    found = symptoms(columns)
    assert all(one.symptom for one in found), found
    return [one.text for one in found]


@pytest.mark.parametrize("steps", [20, 60, 300])
def test_of_a_hundred_healthy_runs_at_most_five_have_an_alarm(steps: int) -> None:
    alarms = {seed: found for seed in range(100) if (found := told(healthy(seed, steps)))}
    assert len(alarms) <= 5, alarms


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("silent_groups", [1.0] * STEPS, "100% of the groups have equal rewards"),
        ("ratio_first", [1.2] * STEPS, r"never 1 \(nearest: 1\.200\)"),
        ("clip_fraction", [0.5] * STEPS, "50% of the tokens are clipped"),
        ("kl_old", [0.01] * 70 + [3.0] + [0.01] * 29, "KL spikes in 1 of 100 steps, highest at step 71: 3"),
        ("gradient_norm", [1.0] * 40 + [0.0] * 60, "from step 41 on every gradient is exactly 0"),
        ("kl", [0.01] * 70 + [3.0] + [0.01] * 29, "KL spikes in 1 of 100 steps, highest at step 71: 3"),
    ],
)
def test_each_symptom_is_told(column: str, values: list[float], said: str) -> None:
    found = told({k: v for k, v in healthy(1).items() if k != "kl" or column == "kl"} | {column: list(values)})
    assert len(found) == 1 and re.search(said, found[0]), found


def test_a_collapse_is_told_with_its_step() -> None:
    """Entropy 1 until step 40, then 0.001, while the reward falls from 0.8 back to 0.1."""
    run = healthy(1) | {"entropy": [1.0] * 40 + [0.001] * 60, "reward": [0.8] * 40 + [0.1] * 60}
    assert [one.partition(",")[0] for one in told(run)] == ["the entropy collapsed at step 41"]
    solved = run | {"reward": [0.1] * 40 + [1.0] * 60}  # sure of the right answer: nothing more to explore
    assert symptoms(solved) == []


def test_drift_is_told_unless_the_reward_rose() -> None:
    run = healthy(1) | {"length": [float(10 + n) for n in range(STEPS)], "reward": [0.3] * STEPS}
    (drift,) = told(run)
    assert "length drift" in drift
    assert symptoms(run | {"reward": [n / STEPS for n in range(STEPS)]}) == []


FLAT = [0.3] * STEPS


def test_a_critic_below_its_mean_is_a_symptom_where_the_reward_does_not_rise() -> None:
    """In the second half -0.5; before that it does not count."""
    run = healthy(1) | {"explained_variance": [-9.0] * 50 + [-0.5] * 50}
    said = (
        "the critic's explained variance is -0.50 in the second half of training: its values are worse than their mean"
    )
    assert symptoms(run) == [Told(said, symptom=False)]
    assert symptoms(run | {"reward": FLAT}) == [Told(said)]


def test_a_narrow_clip_is_a_symptom_where_the_reward_does_not_rise_or_nothing_is_left() -> None:
    """A token clipped at 1.2 is 0.2 - log 1.2 = 0.01768 nats away, so half of them are 0.00884 on average, or more."""
    assert pytest.approx(0.017678, abs=1e-6) == LEAST_AT_THE_EDGE

    def found(share: float, kl: float, **columns: list[float]) -> list[Told]:
        return symptoms(healthy(1) | {"clip_fraction": [share] * STEPS, "kl_old": [kl] * STEPS} | columns)

    (narrow,) = found(0.5, 0.0088)
    assert (
        not narrow.symptom
        and "50% of the tokens are clipped on average, though the policy moves only 0.0088" in narrow.text
    )
    (wide,) = found(0.5, 0.0089)
    assert wide.symptom and "rate too high" in wide.text
    assert [one.symptom for one in found(0.5, 0.0088, reward=FLAT)] == [True]
    assert [one.symptom for one in found(0.95, 0.0088)] == [True]


def test_steps_without_an_update_have_no_entropy_and_are_no_collapse() -> None:
    run = healthy(1) | {"entropy": [1.0] * 40 + [None] * 60, "reward": [0.8] * 40 + [0.1] * 60}
    assert symptoms(run) == []


def test_a_solved_task_is_not_dead() -> None:
    """Every group is silent, so there is nothing to have a gradient of; two dead steps are fewer than three."""
    solved = healthy(1) | {"silent_groups": [0.5] * 40 + [1.0] * 60, "gradient_norm": [1.0] * 40 + [0.0] * 60}
    assert symptoms(solved) == []
    assert symptoms(healthy(1) | {"gradient_norm": [1.0] * 98 + [0.0] * 2}) == []
    (never,) = told(healthy(1) | {"gradient_norm": [0.0] * 100})
    assert never.startswith("from step 1 on every gradient is exactly 0")


def test_of_few_steps_and_unknown_columns_nothing_is_said() -> None:
    assert symptoms({"silent_groups": [1.0] * (FEWEST - 1)}) == []
    assert symptoms({"whatever": [1.0] * 50}) == [] and symptoms({}) == []
    assert symptoms({"silent_groups": [None] * 50, "kl": [None] * 50}) == []


def test_the_ratio_nearest_to_1_is_told() -> None:
    run = healthy(1) | {"ratio_first": [1.9, 1.2] * (STEPS // 2)}
    assert [one for one in told(run) if "nearest: 1.200" in one]


def test_without_a_share_of_silent_groups_equal_rewards_show_in_their_deviation() -> None:
    run = {name: values for name, values in healthy(1).items() if name != "silent_groups"}
    assert told(run | {"reward_std": [0.0] * STEPS}) == [
        "the rewards of every step are all equal: there is nothing to learn from"
    ]
    assert told(healthy(1) | {"reward_std": [0.0] * STEPS}) == []
