"""Selection of the prompts of a rollout to train on, by the task's own accuracy, before any shaping.

all      every prompt with a verdict
mixed    0 < number right < G     (dynamic sampling, DAPO 2503.14476, section 3.2)

Accuracy is 0 or 1, or between for tasks with partial marks; nan: no verdict.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from advantages.needs import Need
from advantages.part import Part


class Select(Part):
    """Family: accuracy_PG -> keep_P (bool). `max_rounds` rollouts at most are sampled to fill one training step."""

    max_rounds: int = 1

    def __call__(self, accuracy_PG: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


class All(Select, kind="all"):
    """Keep every prompt that has a verdict on at least one response; one round fills the step."""

    max_rounds: int = Field(default=1, ge=1, le=1)

    def __call__(self, accuracy_PG: Tensor) -> Tensor:
        return accuracy_PG.isfinite().any(dim=1)


class Mixed(Select, kind="mixed"):
    """Keep prompts whose responses differ in accuracy; ask for replacements until the step is full.

    Each round samples as many new prompts as are missing; after `max_rounds` the step trains on the prompts it has
    (verl's max_num_gen_batches is 10 and raises instead). Discarded prompts count towards the cost. A response without
    a verdict (nan) is ignored in the decision.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    # A step whose groups all stay silent must end. A prompt that one round in 100 would keep is still empty after 1,000
    # with probability 0.99^1000 = 4e-5: who needs more rounds has no signal to wait for.
    max_rounds: int = Field(default=10, ge=1, le=1000)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def __call__(self, accuracy_PG: Tensor) -> Tensor:
        known_PG = accuracy_PG.isfinite()
        low_P = accuracy_PG.where(known_PG, float("inf")).amin(dim=1)
        high_P = accuracy_PG.where(known_PG, -float("inf")).amax(dim=1)
        return low_P < high_P
