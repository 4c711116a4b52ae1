"""What is wrong with a training run, told from its curves: one sentence per finding, with the step where it shows.

Every rule looks at windows of steps; its threshold is our choice, or derived below. A column that a log does not have
is not judged. A finding is a symptom, or only a remark, where a run that does well has it too:

    clip        a band of +-20% cannot clip a share c of the tokens below KL(old || pi) = c (r - 1 - log r) at r = 1.2,
                which is 0.0177 c nats. Below that the band is narrow by design (sequence ratios: GSPO's is 3e-4), and
                clips of above 30% are a symptom only where the reward does not rise, or where hardly a token is left
    critic      an explained variance below 0 is a symptom where the reward does not rise: in short runs a value head
                on the policy stays there, and a constant would do as well
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 5
"""Steps below which nothing is said."""
SILENT = 0.98
CLIPPED, ALL_CLIPPED = 0.30, 0.90
LEAST_AT_THE_EDGE = 1.2 - 1 - math.log(1.2)
"""r - 1 - log r at r = 1.2, the nearer edge of a band of +-20%: the least KL, in nats, of a token that it clips."""
COLLAPSED, NO_ENTROPY = 0.1, 0.02
DRIFT = 3.0
SPIKE, LEAST_KL = 20.0, 0.2
GAIN = 0.02

Columns = Mapping[str, Sequence[float | None]]
Table = Mapping[str, NDArray[np.float64]]


class Told(NamedTuple):
    """One finding: a sentence, and whether it is a symptom. Otherwise it is a remark."""

    text: str
    symptom: bool = True


def symptoms(columns: Columns) -> list[Told]:
    """Return what was found.

    Args:
        columns: metric -> one value per training step, None where a step has none. Known are step, reward,
            reward_std, silent_groups, ratio_first, clip_fraction, entropy, explained_variance, length, kl, kl_old,
            kl_ref, gradient_norm.
    """
    table = {name: np.array([math.nan if x is None else float(x) for x in xs]) for name, xs in columns.items()}
    count = max((len(values) for values in table.values()), default=0)
    if count < FEWEST:
        return []
    step = table.get("step", np.arange(1.0, count + 1))
    rules: tuple[Callable[[Table, NDArray[np.float64]], Iterator[Told]], ...] = (
        *(_silent, _dead, _off_policy, _clipped, _collapse, _critic, _drift, _spikes),
    )
    return [told for rule in rules for told in rule(table, step)]


def _known(table: Table, *names: str) -> NDArray[np.float64] | None:
    """The first of some columns that has enough numbers."""
    for name in names:
        if name in table and np.isfinite(table[name]).sum() >= FEWEST:
            return table[name]
    return None


def _window(values: NDArray[np.float64]) -> int:
    return max(3, len(values) // 10)


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of the first and of the last window; steps without a value are left out."""
    known = values[np.isfinite(values)]
    n = _window(known)
    return float(known[:n].mean()), float(known[-n:].mean())


def _rose(table: Table) -> bool:
    """Whether the reward is known and ends higher than it began."""
    reward = _known(table, "reward")
    if reward is None:
        return False
    before, after = _ends(reward)
    return after > before + GAIN


def _silent(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    silent = _known(table, "silent_groups")
    if silent is not None and np.nanmean(silent) >= SILENT:
        yield Told(
            f"{np.nanmean(silent):.0%} of the groups have equal rewards: there is nothing to learn from. The task is "
            "too hard or too easy, or the reward never finds an answer"
        )
    reward_std = _known(table, "reward_std")
    if silent is None and reward_std is not None and np.nanmax(reward_std) == 0:
        yield Told("the rewards of every step are all equal: there is nothing to learn from")


def _dead(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    """Rewards that differ and a gradient of exactly 0, up to the last step: float32 has overflowed."""
    norm, silent = _known(table, "gradient_norm"), _known(table, "silent_groups")
    if norm is None or silent is None:
        return
    dead = (norm == 0) & (silent < 1)
    last = len(dead) - int(np.argmin(dead[::-1])) if not dead.all() else 0
    if len(dead) - last >= 3:
        yield Told(
            f"from step {step[last]:g} on every gradient is exactly 0 although rewards differ: the policy no longer "
            "depends on its parameters (a learning rate, a temperature or a coefficient is far out of range)"
        )


def _off_policy(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    """At the first update the policy is the one that sampled, so every ratio is 1 but for rounding."""
    first = _known(table, "ratio_first")
    if first is not None and np.nanmin(np.abs(first - 1)) > 0.01:
        nearest = first[np.nanargmin(np.abs(first - 1))]
        yield Told(
            f"the ratio at the first update of a step is never 1 (nearest: {nearest:.3f}): "
            "the trainer's log-probs are not those of the sampler (temperature, precision, or stale weights)"
        )


def _clipped(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    clipped = _known(table, "clip_fraction")
    if clipped is None or np.nanmean(clipped) <= CLIPPED:
        return
    share = np.nanmean(clipped)
    moved = _known(table, "kl_old")
    if moved is not None and np.nanmean(moved) < LEAST_AT_THE_EDGE * share:
        yield Told(
            f"{share:.0%} of the tokens are clipped on average, though the policy moves only {np.nanmean(moved):.2g} "
            "nats per token: the band is narrow, by design of a sequence ratio, or too narrow for these responses",
            symptom=bool(share > ALL_CLIPPED) or not _rose(table),
        )
    else:
        yield Told(
            f"{share:.0%} of the tokens are clipped on average: the clip is too narrow for these responses, or the "
            "rate too high"
        )


def _collapse(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    """Entropy that falls below a tenth of where it began and stays there, while the run had nothing more to gain."""
    entropy = _known(table, "entropy")
    if entropy is None:
        return
    step, entropy = step[np.isfinite(entropy)], entropy[np.isfinite(entropy)]  # a step without an update has none
    start, end = _ends(entropy)
    low = (entropy < COLLAPSED * start) & (entropy < NO_ENTROPY)
    if start > 0 and low[-_window(entropy) :].all():
        since = len(low) - int(np.argmin(low[::-1]))  # not all are low: each is below a tenth of the first ones' mean
        reward = _known(table, "reward")
        if reward is None or _ends(reward)[1] < 0.9 * max(np.nanmax(reward), 1e-9):
            yield Told(
                f"the entropy collapsed at step {step[since]:g}, from {start:.3g} to {end:.3g} "
                "nats per token: the policy explores no more"
            )


def _critic(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    explained = _known(table, "explained_variance")
    if explained is None:
        return
    known = explained[np.isfinite(explained)]
    late = float(known[len(known) // 2 :].mean())
    if late < 0:
        yield Told(
            f"the critic's explained variance is {late:.2f} in the second half of training: its values are worse than "
            "their mean",
            symptom=not _rose(table),
        )


def _drift(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    length = _known(table, "length")
    if length is None:
        return
    before, after = _ends(length)
    if before > 0 and after > 0 and max(after / before, before / after) > DRIFT and not _rose(table):
        yield Told(
            f"responses went from {before:.3g} to {after:.3g} tokens while the reward did not rise: length drift"
        )


def _spikes(table: Table, step: NDArray[np.float64]) -> Iterator[Told]:
    kl = _known(table, "kl", "kl_old", "kl_ref")
    if kl is None:
        return
    usual = np.nanmedian(kl)
    high = np.flatnonzero(np.nan_to_num(kl) > max(SPIKE * usual, LEAST_KL))
    if len(high):
        worst = high[np.argmax(kl[high])]
        yield Told(
            f"the KL spikes in {len(high)} of {len(kl)} steps, highest at step {step[worst]:g}: {kl[worst]:.3g}, where "
            f"{usual:.3g} is usual"
        )
