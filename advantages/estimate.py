"""Advantage estimators: rewards of a rollout in, credit of every token out. No gradient flows here.

    reward_to_go    A_t = G_t - b,                 G_t = sum_k gamma^k r_{t+k}
    group           A_i = (r_i - mean) / (std + eps),   over the responses to one prompt
    group_others    the same with mean and std of the other responses to the prompt
    gae             A_t = sum_k (gamma lambda)^k d_{t+k},   d_t = r_t + gamma V_{t+1} - V_t

An estimator is called as `advantage(reward_NT, mask_NT, group_N, value_NT)`; a member defines `estimate(view)`. Time t
counts only the tokens inside the mask: tokens that the policy did not choose are skipped, so inserting them changes no
advantage.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages.credit import Credit
from advantages.needs import Need
from advantages.part import Part
from advantages.statistics import group_spread, group_sum, whiten
from advantages.view import RolloutView


class Advantage(Part):
    """Family of estimators."""

    @property
    def group_size(self) -> int | None:
        """Responses per prompt that the estimator is meant for; a schedule with another number is refused."""
        return None

    def __call__(
        self, reward_NT: Tensor, mask_NT: Tensor, group_N: Tensor, value_NT: Tensor | None = None, **given: Any
    ) -> Credit:
        """Estimate the credit of every token from tensors.

        Args:
            reward_NT: reward of every token; a response's reward stands on its last token.
            mask_NT: bool, true at tokens the policy chose.
            group_N: id of the prompt that each row answers.
            value_NT: V(s_t) before token t, where the estimator needs it.
            given: other fields of `RolloutView` that it needs, by name: `greedy_N=...`.

        Raises:
            ValueError: something that the estimator needs is not given.
        """
        view = RolloutView.of(reward_NT, mask_NT, group_N, value_NT=value_NT, **given)
        return self.estimate(self.sees(view))

    def estimate(self, view: RolloutView) -> Credit:
        """Estimate the credit of every token of a rollout. Members define this.

        A member that needs only rewards, mask, groups and values may define `__call__` with these four tensors instead.
        """
        if type(self).__call__ is Advantage.__call__:
            raise TypeError(f"{type(self).__name__} does not define estimate")
        value_NT = view.value_NT if Need.VALUE in self.needs else None
        return self(view.reward_NT, view.mask_NT, view.group_N, value_NT)


def reward_to_go(reward_NT: Tensor, mask_NT: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1} over the masked-in tokens, [N, T]; a masked-out token carries its successor's G."""
    return_N = torch.zeros_like(reward_NT[:, 0])
    returns: list[Tensor] = []
    for t in reversed(range(reward_NT.shape[1])):
        return_N = torch.where(mask_NT[:, t], reward_NT[:, t] + gamma * return_N, return_N)
        returns.append(return_N)
    return torch.stack(returns[::-1], dim=1)


def generalized_advantage(reward_NT: Tensor, mask_NT: Tensor, value_NT: Tensor, gamma: float, lam_N: Tensor) -> Tensor:
    """sum_k (gamma lambda)^k d_{t+k} over the masked-in tokens, a lambda for each row, [N, T]; 0 outside the mask."""
    next_value_N = torch.zeros_like(value_NT[:, 0])
    running_N = torch.zeros_like(value_NT[:, 0])
    advantages: list[Tensor] = []
    for t in reversed(range(reward_NT.shape[1])):
        delta_N = reward_NT[:, t] + gamma * next_value_N - value_NT[:, t]
        running_N = torch.where(mask_NT[:, t], delta_N + gamma * lam_N * running_N, running_N)
        next_value_N = torch.where(mask_NT[:, t], value_NT[:, t], next_value_N)
        advantages.append(running_N)
    return torch.where(mask_NT, torch.stack(advantages[::-1], dim=1), 0)


Estimator = TypeVar("Estimator", bound=Advantage)


def ddof_is_used(part: Estimator, whitens: bool, ddof: int) -> Estimator:
    """Return the part. Raises `ValueError` if it sets `ddof` without whitening."""
    if not whitens and ddof != 1:
        raise ValueError(
            f"advantage {part.kind!r}: ddof does nothing without whitening: set whiten=true, or leave it out"
        )
    return part


class RewardToGo(Advantage, kind="reward_to_go"):
    """REINFORCE's return minus a baseline (Williams 1992; Sutton & Barto, 2nd ed., section 13.4).

    The baseline is one number per response, taken from returns G_0:
    `none` 0; `batch_mean` the mean over all N responses of the rollout, which at gamma 1 scales the expected gradient
    by (N-1)/N; `leave_one_out` the mean of the other responses to the same prompt (RLOO, 2402.14740), unbiased.
    `group_mean` is the mean of all responses to the prompt, `group_length_mean` their mean with lengths as weights,
    sum l_i G_i / sum l_i (OPO, 2505.23585). A response alone in its group gets advantage 0.
    `greedy` is the task's reward of the greedy response to the same prompt (ReMax, 2310.10505), unbiased; a greedy
    response without a reward is a baseline of 0.
    `whiten` shifts and scales A over the tokens of the rollout (REINFORCE++, 2501.03262).
    """

    shown: ClassVar[tuple[str, ...]] = ("baseline",)

    baseline: Literal["none", "batch_mean", "leave_one_out", "group_mean", "group_length_mean", "greedy"] = "none"
    gamma: float = Field(default=1.0, ge=0, le=1)
    whiten: bool = False
    ddof: int = Field(default=1, ge=0, le=1)
    """Of the variance that whitens: 1 divides squares by n-1, 0 by n."""

    @model_validator(mode="after")
    def _whitens(self) -> Self:
        return ddof_is_used(self, self.whiten, self.ddof)

    @property
    def needs(self) -> frozenset[Need]:
        if self.baseline in ("none", "batch_mean"):
            return frozenset()
        return frozenset({Need.GREEDY if self.baseline == "greedy" else Need.GROUP})

    def estimate(self, view: RolloutView) -> Credit:
        mask_NT = view.mask_NT
        return_NT = reward_to_go(view.reward_NT, mask_NT, self.gamma)
        if self.baseline == "greedy":
            baseline_N = view.greedy_N.nan_to_num(0.0)
        else:
            baseline_N = self._baseline(return_NT[:, 0], mask_NT.sum(dim=1), view.group_N)
        advantage_NT = torch.where(mask_NT, return_NT - baseline_N[:, None], 0)
        return Credit(whiten(advantage_NT, mask_NT, self.ddof) if self.whiten else advantage_NT)

    def _baseline(self, return_N: Tensor, length_N: Tensor, group_N: Tensor) -> Tensor:
        valid_N = length_N > 0
        return_N = torch.where(valid_N, return_N, 0)
        if self.baseline == "none":
            return torch.zeros_like(return_N)
        if self.baseline == "batch_mean":
            return (return_N.sum() / valid_N.sum().clamp(min=1)).expand_as(return_N)
        if self.baseline == "leave_one_out":
            others_N = group_sum(valid_N.to(return_N.dtype), group_N) - 1
            alone_N = others_N < 1  # nothing to compare with: the response is its own baseline
            return torch.where(alone_N, return_N, (group_sum(return_N, group_N) - return_N) / others_N.clamp(min=1))
        weight_N = (length_N if self.baseline == "group_length_mean" else valid_N).to(return_N.dtype)
        return group_sum(weight_N * return_N, group_N) / group_sum(weight_N, group_N).clamp(min=1)


class Group(Advantage, kind="group"):
    """A_i = (r_i - mean) / (std + eps) over the responses to one prompt, the same at every token of response i.

    Source: GRPO, DeepSeekMath 2402.03300, section 4.1.2. The paper fixes neither the kind of std nor eps. Our choice:
    the unbiased std (n-1), as torch.std, verl, TRL and OpenRLHF; eps 1e-6 as verl (TRL 1e-4). If all rewards of a
    group are equal, its advantages are exactly 0, not rounding noise; so are those of a group of one. `scale="none"`
    keeps r_i - mean.
    `scale="batch_std"` divides by the std of the rewards of all responses of the rollout (Lite PPO, 2508.08221), so
    that prompts keep their relative weights. `scale="mean"` divides by the group's mean reward; the advantage is 0 if
    that is not above 0 (MaxRL, 2602.02710). `scale="mixed_share"` divides by the share of the rollout's responses whose
    group has a spread (GPG, 2504.02546), so that silent groups do not shrink the step.
    `single="keep"` gives a group of one mean 0 and std 1, which trains on its raw reward, as verl does.
    `empty="count"` counts a response without any token in its group, with reward 0, as verl does; a response that
    cannot be graded then counts as wrong.
    `size` changes no number: it requires this many responses per prompt (2-GRPO, 2510.00977).
    """

    shown: ClassVar[tuple[str, ...]] = ("scale",)

    scale: Literal["std", "batch_std", "mean", "mixed_share", "none"] = "std"
    ddof: int = Field(default=1, ge=0, le=1)
    """1: divide squares by n-1 (unbiased variance). 0: by n (population)."""
    eps: float = Field(default=1e-6, ge=0)
    single: Literal["zero", "keep"] = "zero"
    empty: Literal["leave_out", "count"] = "leave_out"
    size: int | None = Field(default=None, ge=2)

    @property
    def group_size(self) -> int | None:
        return self.size

    @model_validator(mode="after")
    def _divides(self) -> Self:
        unused = [name for name in ("ddof", "eps") if getattr(self, name) != type(self).model_fields[name].default]
        if self.scale not in ("std", "batch_std") and unused:
            raise ValueError(
                f"advantage 'group': {' and '.join(unused)} does nothing with scale={self.scale!r}: leave it out"
            )
        return self

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def estimate(self, view: RolloutView) -> Credit:
        mask_NT, group_N, reward_N = view.mask_NT, view.group_N, view.reward_N
        valid_N = torch.ones_like(view.valid_N) if self.empty == "count" else view.valid_N
        count_N = group_sum(valid_N.to(reward_N.dtype), group_N).clamp(min=1)
        centred_N = torch.where(valid_N, reward_N - group_sum(reward_N, group_N) / count_N, 0)
        spread_N = group_spread(reward_N, valid_N, group_N)
        advantage_N = torch.where(valid_N & (spread_N > 0), centred_N, 0)
        if self.scale == "mean":
            mean_N = group_sum(reward_N, group_N) / count_N
            advantage_N = torch.where(mean_N > 0, advantage_N / torch.where(mean_N > 0, mean_N, 1), 0)
        elif self.scale == "mixed_share":
            mixed_N = valid_N & (spread_N > 0)
            advantage_N = advantage_N * valid_N.sum() / mixed_N.sum().clamp(min=1)
        elif self.scale != "none":
            std_N = self._std(reward_N, centred_N, valid_N, count_N, group_N)
            advantage_N = torch.where(spread_N > 0, advantage_N / (std_N + self.eps), 0)
        if self.single == "keep":
            raw_N = reward_N if self.scale not in ("std", "batch_std") else reward_N / (1 + self.eps)
            advantage_N = torch.where(count_N == 1, raw_N, advantage_N)
        return Credit(torch.where(mask_NT, advantage_N[:, None], 0))

    def _std(self, reward_N: Tensor, centred_N: Tensor, valid_N: Tensor, count_N: Tensor, group_N: Tensor) -> Tensor:
        """Of each row's group, or of all rewards of the rollout."""
        if self.scale == "std":
            return (group_sum(centred_N.square(), group_N) / (count_N - self.ddof).clamp(min=1)).sqrt()
        count = valid_N.sum()
        deviation_N = torch.where(valid_N, reward_N - reward_N.sum() / count.clamp(min=1), 0)
        return (deviation_N.square().sum() / (count - self.ddof).clamp(min=1)).sqrt()


class GroupOthers(Advantage, kind="group_others"):
    """A_i = (r_i - mean_i) / (std_i + eps), mean and unbiased std of the OTHER responses to the prompt, as NeMo RL.

    If the others all have the same reward (always so in groups of one or two), nothing is divided: A_i = r_i - mean_i.
    A group without spread, or of one, gets exactly 0. `scale="none"` is RLOO (2402.14740) with one advantage per
    response: a reward that shaping puts on any token counts for all tokens of the response, as in TRL.
    Computed on the N x N table of pairs, because rows of a group may be in any order.
    """

    shown: ClassVar[tuple[str, ...]] = ("scale",)

    scale: Literal["std", "none"] = "std"
    eps: float = Field(default=1e-6, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.scale == "none" and self.eps != type(self).model_fields["eps"].default:
            raise ValueError("advantage 'group_others': eps does nothing with scale='none': leave it out")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def estimate(self, view: RolloutView) -> Credit:
        mask_NT, group_N, valid_N, reward_N = view.mask_NT, view.group_N, view.valid_N, view.reward_N
        itself_NN = torch.eye(len(reward_N), dtype=torch.bool, device=mask_NT.device)
        other_NN = (group_N[:, None] == group_N) & valid_N & ~itself_NN
        count_N = other_NN.sum(dim=1)
        mean_N = torch.where(other_NN, reward_N, 0).sum(dim=1) / count_N.clamp(min=1)
        spread_N = group_spread(reward_N, valid_N, group_N)
        advantage_N = torch.where(valid_N & (spread_N > 0), reward_N - mean_N, 0)
        if self.scale == "std":
            # From deviations, not as E[x^2] - E[x]^2, and only where the others differ: otherwise a rounding error
            # under the root would act as a spread to divide by.
            square_N = torch.where(other_NN, (reward_N - mean_N[:, None]).square(), 0).sum(dim=1)
            std_N = (square_N / (count_N - 1).clamp(min=1)).sqrt()
            low_N = torch.where(other_NN, reward_N, torch.inf).amin(dim=1)
            high_N = torch.where(other_NN, reward_N, -torch.inf).amax(dim=1)
            advantage_N = torch.where(high_N > low_N, advantage_N / (std_N + self.eps), advantage_N)
        return Credit(torch.where(mask_NT, advantage_N[:, None], 0))


class GAE(Advantage, kind="gae"):
    """Generalized advantage estimation (Schulman et al. 1506.02438), computed backwards.

    The value after the last token is 0 (the episode ends there). Returns are A + V, taken before whitening. lambda 0 is
    the TD residual, lambda 1 is reward-to-go minus V. `whiten` shifts and scales A over the tokens of the rollout.
    """

    shown: ClassVar[tuple[str, ...]] = ("gamma", "lam")

    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    whiten: bool = True
    ddof: int = Field(default=1, ge=0, le=1)
    """Of the variance that whitens: 1 divides squares by n-1, 0 by n."""

    @model_validator(mode="after")
    def _whitens(self) -> Self:
        return ddof_is_used(self, self.whiten, self.ddof)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.VALUE})

    def estimate(self, view: RolloutView) -> Credit:
        lam_N = torch.full_like(view.value_NT[:, 0], self.lam)
        return credit_from_values(view, self.gamma, lam_N, lam_N, self.ddof if self.whiten else None)


def credit_from_values(
    view: RolloutView, gamma: float, lam_N: Tensor, critic_lam_N: Tensor, ddof: int | None
) -> Credit:
    """GAE with one lambda per row for the advantages and one for the critic's targets A + V.

    Args:
        lam_N, critic_lam_N: lambdas in 0 .. 1; the same tensor for one GAE.
        ddof: of the variance that whitens the advantages; None: no whitening.
    """
    given = view.reward_NT, view.mask_NT, view.value_NT, gamma
    advantage_NT = generalized_advantage(*given, lam_N)
    critic_NT = advantage_NT if critic_lam_N is lam_N else generalized_advantage(*given, critic_lam_N)
    return_NT = torch.where(view.mask_NT, critic_NT + view.value_NT, 0)
    return Credit(advantage_NT if ddof is None else whiten(advantage_NT, view.mask_NT, ddof), return_NT)
