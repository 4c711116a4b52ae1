"""Reward shaping: the task's reward in, the reward of every token out. Accuracy is never touched.

soft_overlong   r_T + R_len(|y|)              (DAPO 2503.14476, section 3.4)
kl              r_t - beta (log pi - log ref)  (PPO for language models, Ziegler et al. 1909.08593)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages.part import Part


@dataclass(frozen=True)
class ShapeContext:
    """What shaping may look at.

    Attributes:
        mask_NT: bool, true at response tokens.
        logp_NT: log-probs of the sampled tokens under the policy that sampled them.
        ref_logp_NT: the same under the reference policy; None unless a part needs it.
        max_length: tokens a response may have.
        state: this part's own number carried from step to step (an adaptive coefficient), None if it has none.
        teacher_logp_NT: log-probs of the same tokens under a teacher; None unless a part needs them.
    """

    mask_NT: Tensor
    logp_NT: Tensor
    ref_logp_NT: Tensor | None
    max_length: int
    state: float | None = None
    teacher_logp_NT: Tensor | None = None


class Shape(Part):
    """Family: (reward_NT, context) -> reward_NT."""

    replaces: ClassVar[bool] = False
    """True if the part does not look at the rewards it is given, so that what stands before it is lost."""

    def __call__(self, reward_NT: Tensor, context: ShapeContext) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def check(self, max_length: int) -> None:
        """Refuse settings that do nothing to responses of at most `max_length` tokens.

        Raises:
            ValueError: says from where on they would act.
        """

    def initial_state(self) -> float | None:
        """Number carried from step to step; None if the part is stateless."""
        return None

    def next_state(self, context: ShapeContext) -> float | None:
        """The carried number after this rollout."""
        return context.state


def shape_reward(
    parts: Sequence[Shape], reward_NT: Tensor, context: ShapeContext, states: Sequence[float | None]
) -> tuple[Tensor, tuple[float | None, ...]]:
    """Apply the parts in order. Returns the shaped reward_NT and the states for the next step."""
    following: list[float | None] = []
    for part, state in zip(parts, states, strict=True):
        own = replace(context, state=state)
        reward_NT = part(reward_NT, own)
        following.append(part.next_state(own))
    return reward_NT, tuple(following)


def at_last_token(x_N: Tensor, mask_NT: Tensor) -> Tensor:
    """Put one number per row on the row's last masked-in token, 0 elsewhere; a fully masked row stays 0."""
    steps = torch.arange(mask_NT.shape[1], device=mask_NT.device)
    last_N = torch.where(mask_NT, steps, -1).amax(dim=1)
    return torch.where(steps == last_N[:, None], x_N[:, None], 0)


class SoftOverlong(Shape, kind="soft_overlong"):
    """Soft overlong punishment: 0 up to Lmax - Lcache tokens, linear to -weight at Lmax, -weight beyond.

    DAPO's constants are Lmax 20480 and Lcache 4096 (section 4.1), a fifth: `cache` is that share. The paper's rewards
    are +1 and -1; beside rewards of 1 and 0 the same punishment weighs twice as much.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    cache: float = Field(default=0.2, gt=0, le=1)
    """Lcache as a share of Lmax."""
    weight: float = Field(default=1.0, gt=0)
    max_length: int | None = Field(default=None, ge=1)
    """Lmax in tokens; None takes the longest response that the run allows."""

    def check(self, max_length: int) -> None:
        begin = (1 - self.cache) * (self.max_length or max_length)
        if begin >= max_length:
            raise ValueError(
                f"shape 'soft_overlong': with max_length {self.max_length} it punishes beyond {begin:g} tokens, which "
                f"no response of at most {max_length} has: lower max_length, or leave it out"
            )

    def __call__(self, reward_NT: Tensor, context: ShapeContext) -> Tensor:
        longest = self.max_length or context.max_length
        cache = self.cache * longest
        length_N = context.mask_NT.sum(dim=1).to(reward_NT.dtype)
        penalty_N = ((longest - cache - length_N) / cache).clamp(-1.0, 0.0) * self.weight
        return reward_NT + at_last_token(penalty_N, context.mask_NT)


class KLInReward(Shape, kind="kl"):
    """Charge every token beta * k1, k1 = log pi - log ref, so that the return carries KL(pi || ref) without bias.

    With `target` (nats per response) beta adapts once per rollout: beta <- beta (1 + rate * clip(KL / target - 1, -0.2,
    0.2)), Ziegler et al. 1909.08593 with K_beta = `rate` = 0.1. Without it beta stays `coef`, and `rate` is refused.
    """

    shown: ClassVar[tuple[str, ...]] = ("coef",)

    coef: float = Field(default=0.05, ge=0)
    target: float | None = Field(default=None, gt=0)
    rate: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _adapts(self) -> Self:
        if self.target is None and self.rate != type(self).model_fields["rate"].default:
            raise ValueError("shape 'kl': rate does nothing without a target: set target (nats per response) too")
        if self.target is not None and self.coef == 0:
            raise ValueError("shape 'kl': a coef of 0 stays 0 however it adapts: start above 0, or leave target out")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"ref_logp"})

    def initial_state(self) -> float | None:
        return self.coef

    def __call__(self, reward_NT: Tensor, context: ShapeContext) -> Tensor:
        beta = self.coef if context.state is None else context.state
        return reward_NT - beta * self._k1(context)

    def next_state(self, context: ShapeContext) -> float | None:
        beta = self.coef if context.state is None else context.state
        rows = int(context.mask_NT.any(dim=1).sum())
        if self.target is None or rows == 0:
            return beta
        kl = float(self._k1(context).sum()) / rows
        return beta * (1 + self.rate * min(max(kl / self.target - 1, -0.2), 0.2))

    def _k1(self, context: ShapeContext) -> Tensor:
        if context.ref_logp_NT is None:
            raise ValueError("shape 'kl' needs ref_logp_NT, the reference policy's log-probs")
        return torch.where(context.mask_NT, context.logp_NT - context.ref_logp_NT, 0)
