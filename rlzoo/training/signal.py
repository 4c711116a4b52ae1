"""Whether a run can still learn: steps without a signal, gradients that are exactly 0, log-probs that are no numbers.

    silent    no update, or equal rewards in every group
    dead      an advantage is not 0, and the gradient of every update is

A float32 policy is dead when its distribution no longer depends on its parameters: the hidden states have overflowed
(`optimizer.lr` 1e6), or the temperature has divided all differences away (1e30). It then repeats one fixed distribution
to the end of the run, so its accuracy says nothing about the algorithm.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlzoo.training.failure import RunFailed
from rlzoo.training.trajectories import Rollout

NO_SIGNAL = (
    "the task is too hard or too easy, the reward never finds an answer, or all responses to a prompt are the same"
)
DEAD = (
    "every gradient is exactly 0 although responses have different advantages: in float32 the policy no longer depends "
    "on its parameters (a learning rate, a temperature or a coefficient is far out of range)"
)


WARNING = "warning"
"""Kind of the records with which runs warn: they are announced, never stored, and each cause is told once."""


def warn(cause: str, text: str) -> None:
    """Warn at once, of a run by itself."""
    warnings.warn(text, stacklevel=3)


@dataclass
class Signal:
    """What the steps of a run so far had to learn from.

    Attributes:
        silent: no step so far had a signal.
        dead: number of steps, up to the last one, that were dead in a row.
        died: the first of these.
    """

    silent: bool = True
    dead: int = 0
    died: int = 0

    def stored(self) -> dict[str, Any]:
        """As JSON types, for a checkpoint: `Signal(**stored)`."""
        return asdict(self)

    def hear(
        self,
        row: str,
        step: int,
        most: int | None,
        *,
        signal: bool,
        norms: Sequence[float],
        warn: Callable[[str, str], None] = warn,
    ) -> None:
        """Take in a step. Warns at a first step without a signal, and at the first dead one of several.

        Args:
            row: name of the run's row, for the warnings.
            step: number of the step, from 1.
            most: `train.silent_steps`; None: never fail.
            signal: whether rewards or teaching gave the step something to learn from.
            norms: gradient norm of each of its updates; empty where no advantage differs from 0.
            warn: called with the cause, `silent` or `dead`, and the text.

        Raises:
            RunFailed: none of the first `most` steps had a signal (later a solved task may well be silent), or the last
                `most` were dead.
        """
        self.silent = self.silent and not signal
        dead = signal and bool(norms) and not any(norms)
        self.dead = self.dead + 1 if dead else 0
        ends = "" if most is None else f"; a run ends as failed after {most} such steps (train.silent_steps)"
        if self.silent and step == 1:
            warn("silent", f"{row}: the first step has no signal: {NO_SIGNAL}{ends}")
        if self.dead == 1:
            self.died = step
            warn("dead", f"{row}: step {step}: {DEAD}{ends}")
        if self.silent and step == most:
            reason = f"none of the first {most} steps had a signal (train.silent_steps): {NO_SIGNAL}"
            raise RunFailed(reason, final=True)
        if self.dead and self.dead == most:
            raise RunFailed(f"{most} steps in a row (train.silent_steps), from step {self.died} on: {DEAD}", final=True)

    def remarks(self, row: str) -> list[str]:
        """Return what a reader of the outcome has to know."""
        return [f"{row}: from step {self.died} to the end {DEAD}"] if self.dead else []


def refuse_broken(rollout: Rollout) -> None:
    """Refuse responses of a policy whose log-probs are not finite.

    Raises:
        RunFailed: a sampled token's log-prob is nan or infinite.
    """
    if not rollout.logp_NT[rollout.tokens.learn_NT].isfinite().all():
        raise RunFailed(
            "the policy's log-probs are not finite: its parameters or logits are beyond float32 (a learning rate, a "
            "weight decay or a temperature far out of range?)",
            final=True,
        )
