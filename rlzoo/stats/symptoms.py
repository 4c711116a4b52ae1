"""What is wrong with a training run, told from its curves: one sentence per symptom, with the step where it shows.

Every rule looks at windows of steps. Its threshold is our choice, which healthy runs pass: the test simulates them. A
column that a log does not have is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST = 5
"""Steps below which nothing is said."""
SILENT = 0.98
CLIPPED = 0.30
COLLAPSED, NO_ENTROPY = 0.1, 0.02
DRIFT = 3.0
SPIKE, LEAST_KL = 20.0, 0.2

Columns = Mapping[str, Sequence[float | None]]


def symptoms(columns: Columns) -> list[str]:
    """Return what is wrong.

    Args:
        columns: metric -> one value per training step, None where a step has none. Known are step, reward,
            reward_std, silent_groups, ratio_first, clip_fraction, entropy, explained_variance, length, kl.
    """
    table = {name: np.array([math.nan if x is None else float(x) for x in xs]) for name, xs in columns.items()}
    count = max((len(values) for values in table.values()), default=0)
    if count < FEWEST:
        return []
    step = table.get("step", np.arange(1.0, count + 1))
    return [
        sentence
        for rule in (_silent, _off_policy, _clipped, _collapse, _critic, _drift, _spikes)
        for sentence in rule(table, step)
    ]


def _known(table: Mapping[str, NDArray[np.float64]], *names: str) -> NDArray[np.float64] | None:
    """The first of some columns that has enough numbers."""
    for name in names:
        if name in table and np.isfinite(table[name]).sum() >= FEWEST:
            return table[name]
    return None


def _window(values: NDArray[np.float64]) -> int:
    return max(3, len(values) // 10)


def _silent(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    silent = _known(table, "silent_groups")
    if silent is not None and np.nanmean(silent) >= SILENT:
        yield (
            f"{np.nanmean(silent):.0%} of the groups have equal rewards: there is nothing to learn from. The task is "
            "too hard or too easy, or the reward never finds an answer"
        )
    reward_std = _known(table, "reward_std")
    if silent is None and reward_std is not None and np.nanmax(reward_std) == 0:
        yield "the rewards of every step are all equal: there is nothing to learn from"


def _off_policy(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    """At the first update the policy is the one that sampled, so every ratio is 1 but for rounding."""
    first = _known(table, "ratio_first")
    if first is not None and np.nanmin(np.abs(first - 1)) > 0.01:
        nearest = first[np.nanargmin(np.abs(first - 1))]
        yield (
            f"the ratio at the first update of a step is never 1 (nearest: {nearest:.3f}): "
            "the trainer's log-probs are not those of the sampler (temperature, precision, or stale weights)"
        )


def _clipped(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    clipped = _known(table, "clip_fraction")
    if clipped is not None and np.nanmean(clipped) > CLIPPED:
        yield (
            f"{np.nanmean(clipped):.0%} of the tokens are clipped on average: the clip is too narrow for these "
            "responses, or the rate too high"
        )


def _collapse(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    """Entropy that falls below a tenth of where it began and stays there, while the run had nothing more to gain."""
    entropy = _known(table, "entropy")
    if entropy is None:
        return
    start = np.nanmean(entropy[: _window(entropy)])
    low = (entropy < max(COLLAPSED * start, 0)) & (entropy < NO_ENTROPY)
    if start > 0 and low[-_window(entropy) :].all():
        since = len(low) - int(np.argmin(low[::-1])) if not low.all() else 0
        reward = _known(table, "reward")
        if reward is None or np.nanmean(reward[-_window(reward) :]) < 0.9 * max(np.nanmax(reward), 1e-9):
            yield (
                f"the entropy collapsed at step {step[min(since, len(step) - 1)]:g}, from {start:.3g} to "
                f"{np.nanmean(entropy[-_window(entropy) :]):.3g} nats per token: the policy explores no more"
            )


def _critic(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    explained = _known(table, "explained_variance")
    if explained is not None and np.nanmean(explained[len(explained) // 2 :]) < 0:
        yield (
            f"the critic's explained variance is {np.nanmean(explained[len(explained) // 2 :]):.2f} in the second half "
            "of training: its values are worse than their mean"
        )


def _drift(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    length, reward = _known(table, "length"), _known(table, "reward")
    if length is None:
        return
    n = _window(length)
    before, after = np.nanmean(length[:n]), np.nanmean(length[-n:])
    gained = reward is not None and np.nanmean(reward[-n:]) > np.nanmean(reward[:n]) + 0.02
    if before > 0 and after > 0 and max(after / before, before / after) > DRIFT and not gained:
        yield f"responses went from {before:.3g} to {after:.3g} tokens while the reward did not rise: length drift"


def _spikes(table: Mapping[str, NDArray[np.float64]], step: NDArray[np.float64]) -> Iterator[str]:
    kl = _known(table, "kl", "kl_old", "kl_ref")
    if kl is None:
        return
    usual = np.nanmedian(kl)
    high = np.flatnonzero(np.nan_to_num(kl) > max(SPIKE * usual, LEAST_KL))
    if len(high):
        worst = high[np.argmax(kl[high])]
        yield (
            f"the KL spikes in {len(high)} of {len(kl)} steps, highest at step {step[worst]:g}: {kl[worst]:.3g}, where "
            f"{usual:.3g} is usual"
        )
