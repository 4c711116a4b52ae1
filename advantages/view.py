"""`RolloutView`: the view of a rollout for reward shapers and advantage estimators. No gradient.

    reward_NK --sum over K, on the last token--> reward_NT --shape--> reward_NT --advantage--> Credit

Shape letters: N responses, T tokens, K rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from advantages.needs import FIELDS, Need

_NEED = {name: need for need, name in FIELDS.items()}


@dataclass(frozen=True)
class RolloutView:
    """A rollout as a part sees it: the fields that are always there, and those that the part declared in `needs`.

    Attributes:
        reward_NT: reward of every token. For a shaper: the task's reward after the earlier shapers.
        mask_NT: bool, true at tokens the policy chose. A response whose reward is unknown has none.
        group_N: index of the prompt that each row answers, any integers.
        reward_NK: the task's rewards, before shaping, one column per name; their sum is the reward of a response. 0
            where it is unknown.
        names: the K names.
        max_length: tokens a response may have.
        step: rollouts that the run has trained on before this one.
        given: the fields that the part declared, by name; read them as attributes (`view.ref_logp_NT`).
        metrics: means over the rollout's updates; empty except in `next_state`.
        reader: name of the part that reads the view, for error messages.
    """

    reward_NT: Tensor
    mask_NT: Tensor
    group_N: Tensor
    reward_NK: Tensor
    names: tuple[str, ...] = ("reward",)
    max_length: int = 0
    step: int = 0
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    reader: str = "a part"

    @classmethod
    def of(
        cls,
        reward_NT: Tensor,
        mask_NT: Tensor,
        group_N: Tensor,
        *,
        reward_NK: Tensor | None = None,
        names: tuple[str, ...] = ("reward",),
        max_length: int | None = None,
        step: int = 0,
        **given: Any,
    ) -> RolloutView:
        """Make a view by hand: `RolloutView.of(reward_NT, mask_NT, group_N, value_NT=...)`. None is "not given".

        Raises:
            ValueError: a field has no such name, or the number of rewards is not that of their names.
        """
        unknown = given.keys() - _NEED.keys()
        if unknown:
            raise ValueError(f"a rollout has no field {min(unknown)!r}; known: {', '.join(sorted(_NEED))}")
        if reward_NK is None:
            reward_NK = torch.where(mask_NT, reward_NT, 0).sum(dim=1, keepdim=True)
        if reward_NK.shape != (len(mask_NT), len(names)):
            raise ValueError(f"reward_NK has shape {tuple(reward_NK.shape)}, expected {(len(mask_NT), len(names))}")
        reward_NK = torch.where(mask_NT.any(dim=1, keepdim=True), reward_NK, 0)
        known = {name: x for name, x in given.items() if x is not None}
        longest = mask_NT.shape[1] if max_length is None else max_length
        return cls(reward_NT, mask_NT, group_N, reward_NK, names, longest, step, known)

    def only(self, needs: Iterable[str], reader: str = "a part") -> RolloutView:
        """The same view without the fields that are not among `needs`."""
        allowed = {FIELDS[Need(need)] for need in needs if Need(need) in FIELDS}
        given = {name: x for name, x in self.given.items() if name in allowed}
        return replace(self, given=given, reader=reader)

    def but(self, *, metrics: Mapping[str, float] | None = None, **given: Any) -> RolloutView:
        """The same view with more fields given."""
        known = {name: x for name, x in given.items() if x is not None}
        return replace(self, given={**self.given, **known}, metrics=self.metrics if metrics is None else metrics)

    def rows(self, index: Tensor) -> RolloutView:
        """The view of some of the responses."""
        tensors = {name: getattr(self, name)[index] for name in ("reward_NT", "mask_NT", "group_N", "reward_NK")}
        chosen = {
            name: x[index] if isinstance(x, Tensor) else [x[int(i)] for i in index] for name, x in self.given.items()
        }
        return replace(self, **tensors, given=chosen)

    @property
    def valid_N(self) -> Tensor:
        """bool: the responses that count, which have a token to learn from."""
        return self.mask_NT.any(dim=1)

    @property
    def reward_N(self) -> Tensor:
        """The shaped reward of each response: the sum over its tokens."""
        return torch.where(self.mask_NT, self.reward_NT, 0).sum(dim=1)

    @property
    def logp_NT(self) -> Tensor:
        """Log-probs of the sampled tokens under the policy that sampled them (need "logp")."""
        return self._tensor("logp_NT")

    @property
    def ref_logp_NT(self) -> Tensor:
        """The same under the reference policy (need "ref_logp")."""
        return self._tensor("ref_logp_NT")

    @property
    def teacher_logp_NT(self) -> Tensor:
        """The same under the teacher (need "teacher_logp")."""
        return self._tensor("teacher_logp_NT")

    @property
    def sampler_logp_NT(self) -> Tensor:
        """The same as the sampler gave them (need "sampler_logp")."""
        return self._tensor("sampler_logp_NT")

    @property
    def new_logp_NT(self) -> Tensor:
        """The same under the policy after the updates, in `next_state` only (need "new_logp")."""
        return self._tensor("new_logp_NT")

    @property
    def value_NT(self) -> Tensor:
        """V(s_t) before each token (need "value")."""
        return self._tensor("value_NT")

    @property
    def entropy_NT(self) -> Tensor:
        """Entropy of the distribution each token was drawn from, in nats (need "entropy")."""
        return self._tensor("entropy_NT")

    @property
    def collision_NT(self) -> Tensor:
        """Sum over the vocabulary of the squared probabilities each token was drawn with (need "collision")."""
        return self._tensor("collision_NT")

    @property
    def turn_NT(self) -> Tensor:
        """Turn in which each token was written, from 0 (need "turn")."""
        return self._tensor("turn_NT")

    @property
    def accuracy_N(self) -> Tensor:
        """The task's verdict on each response (need "accuracy")."""
        return self._tensor("accuracy_N")

    @property
    def finished_N(self) -> Tensor:
        """bool: the response ended by itself (need "finished")."""
        return self._tensor("finished_N")

    @property
    def greedy_N(self) -> Tensor:
        """Reward of the greedy response to each row's prompt, nan where it has none (need "greedy")."""
        return self._tensor("greedy_N")

    @property
    def prompt_N(self) -> tuple[str, ...]:
        """A string per row that names its prompt, the same in every step (need "prompt")."""
        return tuple(self._get("prompt_N"))

    def _tensor(self, name: str) -> Tensor:
        return cast("Tensor", self._get(name))

    def _get(self, name: str) -> Any:
        if name not in self.given:
            raise ValueError(
                f"{self.reader} needs {name}, which is not there: a part declares {str(_NEED[name])!r} in its `needs`, "
                f"and whoever calls it gives {name}"
            )
        return self.given[name]
