"""Small worlds to check objectives in: a rollout, an optimizer step, a policy small enough to enumerate.

Everything is float64, so that equal means equal to 1e-12.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from advantages import Credit, Need, RolloutView, at_last_token
from objectives.objective import Objective
from objectives.types import PolicyOutput, TokenBatch

LOSS_FIELDS: dict[Need, tuple[str, ...]] = {
    Need.REF_LOGP: ("ref_logp_BT",),
    Need.SAMPLER_LOGP: ("sampler_logp_BT",),
    Need.ACCURACY: ("imitation_BT",),
    Need.VALUE: ("old_value_BT", "return_BT"),
}
"""Need -> the batch fields that the trainer supplies for it."""
POLICY_FIELDS: dict[Need, str] = {Need.VALUE: "value_BT", Need.ENTROPY: "entropy_BT"}


@dataclass(frozen=True)
class World:
    """A rollout of P prompts with G responses each, and its log-probs and values one update later."""

    mask_NT: Tensor
    group_N: Tensor
    accuracy_PG: Tensor
    accuracy_N: Tensor
    finished_N: Tensor
    reward_N: Tensor
    greedy_N: Tensor
    logp_NT: Tensor
    old_logp_NT: Tensor
    ref_logp_NT: Tensor
    teacher_logp_NT: Tensor
    value_NT: Tensor
    old_value_NT: Tensor
    entropy_NT: Tensor
    old_entropy_NT: Tensor
    sampler_logp_NT: Tensor
    max_length: int
    named_NK: Tensor | None = None
    names: tuple[str, ...] = ("reward",)
    step: int = 0

    def with_rewards(self, names: tuple[str, ...], named_NK: Tensor) -> World:
        """The same rollout with several rewards, whose sum is the reward."""
        return replace(self, reward_N=named_NK.sum(dim=1), named_NK=named_NK, names=names)

    def on_policy(self) -> World:
        """The same rollout before the first update: every ratio is 1, and sampler and critic are the trainer's own."""
        return replace(self, logp_NT=self.old_logp_NT, sampler_logp_NT=self.old_logp_NT, value_NT=self.old_value_NT)

    def rows(self, index: Tensor) -> World:
        """Some of the responses; the accuracies stay those of all prompts."""
        tensors = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name.endswith(("_N", "_NT"))}
        tensors |= {} if self.named_NK is None else {"named_NK": self.named_NK[index]}
        return replace(self, **tensors)

    def view(self, objective: Objective) -> RolloutView:
        """The rollout as an objective sees it: only the fields that its parts declared."""
        return RolloutView.of(
            at_last_token(self.reward_N, self.mask_NT),
            self.mask_NT,
            self.group_N,
            reward_NK=self.reward_N[:, None] if self.named_NK is None else self.named_NK,
            names=self.names,
            max_length=self.max_length,
            step=self.step,
            logp_NT=self.old_logp_NT,
            ref_logp_NT=self.ref_logp_NT,
            teacher_logp_NT=self.teacher_logp_NT,
            sampler_logp_NT=self.sampler_logp_NT,
            value_NT=self.old_value_NT,
            entropy_NT=self.old_entropy_NT,
            collision_NT=torch.maximum(self.old_logp_NT.exp().square(), (-self.old_entropy_NT).exp()) * self.mask_NT,
            turn_NT=torch.zeros_like(self.mask_NT, dtype=torch.long),
            accuracy_N=self.accuracy_N,
            finished_N=self.finished_N,
            greedy_N=self.greedy_N,
            prompt_N=[f"prompt {int(group)}" for group in self.group_N],
        ).only(objective.needs)


SEQUENCE_LOG_RATIOS = (
    *(4.5e-4, -1e-4, 3.5e-4, -3.5e-4),  # mixed group, right on even places: clipped, alive, alive, clipped
    *(-5e-4, -1e-4, 1e-4, 5e-4),  # all wrong
    *(-5e-4, -1e-4, 1e-4, 5e-4),  # all right
    *(-5e-4, 5e-4, -5e-4, 1e-4),  # mixed, right on the first place: alive below, alive above, clipped, alive
)
"""Per-token means of the responses' log-ratios, on both sides of GSPO's edges, log(1 - 3e-4) and log(1 + 4e-4)."""

UNEQUAL_LENGTHS = (3, 7, 5, 1, 6, 2, 4, 7, 5, 7, 3, 6, 2, 4, 6, 7)


def world(seed: int = 0) -> World:
    """Four prompts with four responses each: mixed, all wrong, all right, mixed. Lengths 1 to 7 of at most 7.

    Single tokens' log-ratios spread by 0.25, so clips of 0.2 act on some of them; their means per response are set to
    `SEQUENCE_LOG_RATIOS`, so that GSPO's clip acts on some responses and not on others.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, steps = 16, 7
    right_PG = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.float64)
    length_N = torch.tensor(UNEQUAL_LENGTHS)
    mask_NT = torch.arange(steps) < length_N[:, None]
    old_logp_NT = torch.where(mask_NT, -normal(rows, steps).abs() - 0.1, 0)
    noise_NT = torch.where(mask_NT, 0.25 * normal(rows, steps), 0)
    noise_NT = noise_NT - noise_NT.sum(dim=1, keepdim=True) / length_N[:, None]
    mean_N = torch.tensor(SEQUENCE_LOG_RATIOS, dtype=torch.float64)

    def inside(x_NT: Tensor) -> Tensor:
        return torch.where(mask_NT, x_NT, 0)

    old_value_NT = inside(normal(rows, steps) * 0.3 + 0.5)
    return World(
        mask_NT=mask_NT,
        group_N=torch.arange(4).repeat_interleave(4),
        accuracy_PG=right_PG,
        accuracy_N=right_PG.flatten(),
        finished_N=length_N < steps,
        reward_N=right_PG.flatten(),
        greedy_N=torch.tensor([1, 0, 1, 0], dtype=torch.float64).repeat_interleave(4),
        logp_NT=inside(old_logp_NT + noise_NT + mean_N[:, None]),
        old_logp_NT=old_logp_NT,
        ref_logp_NT=inside(old_logp_NT + 0.3 * normal(rows, steps)),
        value_NT=inside(old_value_NT + 0.3 * normal(rows, steps)),
        old_value_NT=old_value_NT,
        entropy_NT=inside(normal(rows, steps).abs()),
        sampler_logp_NT=inside(old_logp_NT + 0.5 * normal(rows, steps)),
        teacher_logp_NT=inside(old_logp_NT + 0.5 * normal(rows, steps)),
        old_entropy_NT=inside(normal(rows, steps).abs()),
        max_length=steps,
    )


def credit(objective: Objective, w: World) -> Credit:
    """Shape the rewards and estimate the advantages."""
    return objective.credit(w.view(objective))


def next_states(objective: Objective, w: World) -> dict[str, Any]:
    """The states of the objective's parts after this rollout, whose updates led to the policy of `logp_NT`."""
    metrics = {"entropy": 1.0, "clip_fraction": 0.1, "kl_old": 0.01}
    return objective.next_states(w.view(objective).but(metrics=metrics, new_logp_NT=w.logp_NT))


def kept(objective: Objective, w: World) -> World:
    """The rows that the objective trains on."""
    keep_P = objective.select(w.accuracy_PG)
    return w.rows(keep_P.repeat_interleave(w.accuracy_PG.shape[1]))


def step(objective: Objective, w: World) -> tuple[PolicyOutput, TokenBatch]:
    """The whole optimizer step of a trainer that supplies exactly what the objective needs. Selection comes before."""
    needs = objective.needs
    assigned = credit(objective, w)
    mask_NT = assigned.mask(w.mask_NT)
    batch = TokenBatch(
        mask_BT=mask_NT,
        weight_BT=objective.weigh(mask_NT, w.group_N, torch.float64),
        advantage_BT=assigned.advantage_NT,
        old_logp_BT=w.old_logp_NT,
        ref_logp_BT=w.ref_logp_NT if Need.REF_LOGP in needs else None,
        old_value_BT=w.old_value_NT if Need.VALUE in needs else None,
        return_BT=assigned.return_NT,
        sampler_logp_BT=w.sampler_logp_NT if Need.SAMPLER_LOGP in needs else None,
        chosen_BT=objective.choose(w.old_logp_NT, assigned.advantage_NT, mask_NT, w.old_entropy_NT),
        imitation_BT=objective.imitate(w.accuracy_N, mask_NT, torch.float64),
    )
    return policy(objective, w), batch


def policy(objective: Objective, w: World) -> PolicyOutput:
    """Fresh leaves with gradients, for exactly what the objective needs."""
    needs = objective.needs
    return PolicyOutput(
        logp_BT=leaf(w.logp_NT),
        value_BT=leaf(w.value_NT) if Need.VALUE in needs else None,
        entropy_BT=leaf(w.entropy_NT) if Need.ENTROPY in needs else None,
    )


def leaf(x: Tensor) -> Tensor:
    """Return a copy that collects gradients."""
    return x.detach().clone().requires_grad_()


def gradients(out: PolicyOutput) -> dict[str, Tensor]:
    """Return the gradient of every field that is not None; zeros for a field without one."""
    leaves = {f.name: getattr(out, f.name) for f in fields(out) if getattr(out, f.name) is not None}
    return {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}


def loss_and_gradients(objective: Objective, out: PolicyOutput, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss, and its gradient with respect to every field of the policy output."""
    loss = objective.loss(out, batch)
    loss.backward()
    return loss.detach(), gradients(out)


@dataclass(frozen=True)
class Tabular:
    """Every response of a policy over the tokens (a, b, end), at most `longest` long, and its exact probability.

    A response ends with the end token, or is cut at `longest`. One row of logits per prefix.
    """

    logits_SV: Tensor
    token_RT: Tensor
    state_RT: Tensor
    mask_RT: Tensor
    reward_R: Tensor

    @property
    def logp_RT(self) -> Tensor:
        """Log-probs of the responses' tokens; has the gradient of the logits."""
        return torch.where(self.mask_RT, self.logits_SV.log_softmax(dim=1)[self.state_RT, self.token_RT], 0)

    @property
    def probability_R(self) -> Tensor:
        """Probability of every response; has the gradient of the logits."""
        return self.logp_RT.sum(dim=1).exp()

    def true_gradient(self) -> Tensor:
        """Gradient of J = E[reward], by enumeration."""
        (gradient,) = torch.autograd.grad((self.probability_R * self.reward_R).sum(), self.logits_SV)
        return gradient


def tabular(seed: int = 0, longest: int = 3, binary: bool = False) -> Tabular:
    """Return a random policy with random rewards, normal ones or with `binary` 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    end = 2
    prefixes: list[tuple[int, ...]] = [p for n in range(longest) for p in itertools.product((0, 1), repeat=n)]
    responses = [(*p, end) for p in prefixes] + list(itertools.product((0, 1), repeat=longest))
    shape = (len(responses), longest)
    token_RT, state_RT, mask_RT = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for i, response in enumerate(responses):
        for t, token in enumerate(response):
            token_RT[i, t], state_RT[i, t], mask_RT[i, t] = token, prefixes.index(response[:t]), 1
    reward_R = torch.randn(len(responses), generator=generator, dtype=torch.float64)
    logits_SV = torch.randn(len(prefixes), 3, generator=generator, dtype=torch.float64).requires_grad_()
    return Tabular(logits_SV, token_RT, state_RT, mask_RT.bool(), (reward_R > 0).double() if binary else reward_R)
