"""Our profile against TRL: TRL's own code computes advantages, loss and gradient on the same rollout.

float32, loss and gradient to 1e-6. Where we differ on purpose a test says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from advantages import RolloutView, at_last_token
from objectives import Objective, PolicyOutput, TokenBatch, get
from objectives.conformance import world as zoo
from objectives.profiles import profile

pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed: pip install -c constraints.txt -e .[trl]")
from trl.trainer.rloo_trainer import RLOOTrainer

from tests.trl_trainers import Rollout, rollout, theirs

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "beta": 0.04},
    "bnpo": {"loss_type": "bnpo", "beta": 0.04},
    "dr_grpo": {"loss_type": "dr_grpo", "beta": 0.04, "scale_rewards": "none"},
    "dapo": {"epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "sapo": {"loss_type": "sapo"},
    "gspo": {
        "loss_type": "grpo",
        "importance_sampling_level": "sequence",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
    },
    "luspo": {
        "loss_type": "luspo",
        "importance_sampling_level": "sequence",
        "epsilon": 2e-3,
        "epsilon_high": 2.5e-3,
    },
}
"""Row of the profile -> TRL's settings that it stands for."""


def ours(
    objective: Objective, r: Rollout, weight_NT: Tensor | None = None, advantage_NT: Tensor | None = None
) -> tuple[Tensor, Tensor, TokenBatch]:
    """Our loss and its gradient by log-probs, from the same rewards; advantages are in the batch."""
    if advantage_NT is None:
        policies = {"logp_NT": r.old_logp_NT, "ref_logp_NT": r.ref_logp_NT}
        reward_NT = at_last_token(r.reward_N, r.mask_NT)
        view = RolloutView.of(reward_NT, r.mask_NT, r.group_N, max_length=7, **policies)
        advantage_NT = objective.credit(view).advantage_NT
    batch = TokenBatch(
        mask_BT=r.mask_NT,
        weight_BT=objective.aggregate(r.mask_NT) if weight_NT is None else weight_NT,
        advantage_BT=advantage_NT,
        old_logp_BT=r.old_logp_NT,
        ref_logp_BT=r.ref_logp_NT,
    )
    leaf = zoo.leaf(r.logp_NT)
    loss = objective.loss(PolicyOutput(leaf), batch)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad, batch


def row(name: str) -> Objective:
    """The profile's row. The length punishment is a reward function in TRL; without one there is none here either."""
    return get(f"{name}@trl[shape=none]") if name == "dapo" else get(f"{name}@trl")


CASES = {
    "near": {"spread": 0.05},
    "off-policy": {"spread": 0.4},
    "far": {"spread": 2.0},
    "dense rewards": {"spread": 0.4, "dense": True},
}


def test_every_row_of_the_profile_is_compared() -> None:
    assert {*LOSSES, "reinforce"} == set(profile("trl"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_trls(name: str, case: str) -> None:
    for seed in range(3):
        r = rollout(seed, **CASES[case])
        loss, gradient, batch = ours(row(name), r)
        their_loss, their_gradient, their_advantage_N = theirs(r, LOSSES[name])
        same(batch.advantage_BT, spread(their_advantage_N, r))
        same(gradient, their_gradient)
        assert gradient.abs().max() > 1e-5
        if name == "cispo":  # TRL shows -w A log pi, we -w A
            w_NT = (r.logp_NT - r.old_logp_NT).exp().clamp(max=5)
            loss = -(batch.weight_BT * w_NT * batch.advantage_BT * r.logp_NT).sum()
        same_loss(loss, their_loss, gradient)


@pytest.mark.parametrize("case", CASES)
def test_rloo_gradient_is_trls(case: str) -> None:
    for seed in range(3):
        r = rollout(seed, **CASES[case])
        _, gradient, batch = ours(row("reinforce"), r)
        _, their_gradient, their_advantage_N = theirs(r, {"beta": 0.05}, RLOOTrainer)
        same(batch.advantage_BT, spread(their_advantage_N, r))
        # Within rounding of an edge the last bit of the advantage decides which side wins.
        r_N1 = (r.logp_NT - r.old_logp_NT).sum(dim=1, keepdim=True).exp()
        sure_N1 = ((r_N1 - 0.8).abs() > 1e-6) & ((r_N1 - 1.2).abs() > 1e-6)
        assert (~sure_N1).sum() <= 1
        same(torch.where(sure_N1, gradient, 0), torch.where(sure_N1, their_gradient, 0))
        assert gradient.abs().max() > 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_rewards_that_do_not_differ_teach_nothing(name: str) -> None:
    r = replace(rollout(0), reward_N=torch.ones(16))
    settings = {**LOSSES[name], "beta": 0.0}
    loss, gradient, _ = ours(row(name).but(kl="none"), r)
    their_loss, their_gradient, _ = theirs(r, settings)
    assert (loss, their_loss) == (0, 0)
    assert not gradient.any() and not their_gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_tokens_has_loss_0(name: str) -> None:
    r = replace(rollout(0), cut=tuple(range(16)))
    their_loss, their_gradient, _ = theirs(r, {**LOSSES[name], "mask_truncated_completions": True})
    loss, gradient, _ = ours(row(name), replace(r, mask_NT=torch.zeros_like(r.mask_NT)))
    assert (loss, their_loss) == (0, 0)
    assert not gradient.any() and not their_gradient.any()


def test_delta_is_dual_clip() -> None:
    """min(min(c, delta) A, clip(c) A) = max(min(c A, clip(c) A), delta A) for A < 0, as delta > 1 + epsilon."""
    for seed in range(3):
        r = rollout(seed, spread=2.0)
        loss, gradient, _ = ours(row("grpo").but(**{"surrogate.dual": 3.0}), r)
        their_loss, their_gradient, _ = theirs(r, {**LOSSES["grpo"], "delta": 3.0})
        same(gradient, their_gradient)
        same_loss(loss, their_loss, gradient)
        assert (gradient - ours(row("grpo"), r)[1]).abs().max() > 1e-3


HALVES = [slice(0, 8), slice(8, 16)]


@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches(name: str) -> None:
    """Two halves accumulated are our whole step, but for bnpo, whose token mean TRL takes per micro-batch."""
    r = rollout(1)
    accumulated = {**LOSSES[name], "gradient_accumulation_steps": 2, "steps_per_generation": 2}
    _, their_gradient, _ = theirs(r, accumulated, micro=HALVES)
    _, gradient, _ = ours(row(name), r)
    if name == "bnpo":
        assert (gradient - their_gradient).abs().max() > 1e-3
        halves_NT = torch.cat([row(name).aggregate(r.mask_NT[half]) for half in HALVES]) / 2
        _, gradient, _ = ours(row(name), r, weight_NT=halves_NT)
    same(gradient, their_gradient)


# Where we differ on purpose.


@pytest.mark.parametrize("name", ["dapo", "cispo"])
def test_several_steps_per_generation(name: str) -> None:
    """TRL divides each step by the average token count of the generation's steps, we by the step's own.

    Weights made over the generation and sliced, times the number of steps, are TRL's.
    """
    r = rollout(1)
    half, steps = HALVES[0], 2
    _, their_gradient, _ = theirs(r, {**LOSSES[name], "steps_per_generation": steps}, micro=[half])
    inside_N1 = (torch.arange(16) < 8)[:, None]
    generation_NT = torch.where(inside_N1, row(name).aggregate(r.mask_NT) * steps, 0)
    own_NT = torch.where(inside_N1, row(name).aggregate(r.mask_NT & inside_N1), 0)
    same(ours(row(name), r, weight_NT=generation_NT)[1], their_gradient)
    own_gradient = ours(row(name), r, weight_NT=own_NT)[1]
    average, tokens = r.mask_NT.sum() / steps, r.mask_NT[half].sum()
    assert average != tokens
    same(own_gradient, their_gradient * average / tokens)


@pytest.mark.parametrize("name", LOSSES)
def test_truncated_responses(name: str) -> None:
    """`mask_truncated_completions` masks tokens, but TRL counts such responses in means over responses and baselines.

    For us a response without tokens is not there. Given TRL's advantages, means over tokens agree, and those over
    responses are TRL's times 16 / 13.
    """
    r = replace(rollout(2), cut=(1, 6, 14))
    their_loss, their_gradient, their_advantage_N = theirs(r, {**LOSSES[name], "mask_truncated_completions": True})
    live_N1 = torch.tensor([i not in r.cut for i in range(16)])[:, None]
    live = replace(r, mask_NT=r.mask_NT & live_N1)
    loss, gradient, batch = ours(row(name), live, advantage_NT=spread(their_advantage_N, live))
    factor = 1 if row(name).aggregate.kind == "token_mean" else 16 / 13
    same(gradient, torch.where(live_N1, their_gradient * factor, 0))
    assert not torch.where(live_N1, 0, their_gradient).any()
    if name != "cispo":
        same_loss(loss, their_loss * factor, gradient)
    same(ours(row(name), r)[2].advantage_BT, spread(their_advantage_N, r))  # as if they were responses like others
    own_NT = ours(row(name), live)[2].advantage_BT
    assert (own_NT - batch.advantage_BT)[live.mask_NT].abs().max() > 0.1


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo"])
def test_responses_without_a_reward(name: str) -> None:
    """Neither counts them in the baseline. TRL keeps them in the denominator (and in the KL), we do not."""
    r = rollout(2)
    r.reward_N[14] = math.nan
    settings = {**LOSSES[name], "beta": 0.0}
    _, their_gradient, their_advantage_N = theirs(r, settings)
    scored_N1 = (torch.arange(16) != 14)[:, None]
    scored = replace(r, mask_NT=r.mask_NT & scored_N1)
    _, gradient, batch = ours(row(name).but(kl="none"), scored)
    same(batch.advantage_BT, spread(their_advantage_N, scored))
    lost = r.mask_NT.sum() / scored.mask_NT.sum() if name == "dapo" else 16 / 15
    same(gradient, their_gradient * lost)


def test_rounding_is_no_spread() -> None:
    """Five equal rewards and a mean that rounds: TRL divides the residue by 1e-4, we say 0."""
    generator = torch.Generator().manual_seed(0)
    first = slice(0, 15)
    r = rollout(0)
    r = Rollout(r.mask_NT[first], r.reward_N[first], r.logp_NT[first], r.old_logp_NT[first], r.ref_logp_NT[first], G=5)
    worst = 0.0
    for value in (100 * torch.rand(20, generator=generator)).tolist():
        r = replace(r, reward_N=torch.full((15,), value))
        worst = max(worst, theirs(r, LOSSES["dapo"])[2].abs().max().item())
        assert not ours(row("dapo"), r)[2].advantage_BT.any()
    assert worst > 1e-2


def test_cispo_with_epsilon_high_unset_is_capped_at_a_fifth() -> None:
    """epsilon_high defaults to epsilon, 0.2, and is the cap itself: every gradient is a fifth at ratio 1. Ours is 5."""
    r = rollout(0)
    r = replace(r, logp_NT=r.old_logp_NT)
    _, trapped, _ = theirs(r, {"loss_type": "cispo"})
    _, gradient, _ = ours(row("cispo"), r)
    same(trapped, gradient / 5)
    same(trapped, ours(get("cispo@trl[surrogate.cap=0.2]"), r)[1])


def test_kl_beside_a_sequence_ratio() -> None:
    """TRL's correction lets each token's cost pull on every token of its response (#6586); ours on its own token."""
    r = rollout(0)
    settings = {**LOSSES["gspo"], "beta": 0.04}
    plain = row("gspo").but(kl={"kind": "k3", "coef": 0.04})
    same(ours(plain, r)[1], theirs(r, {**settings, "use_bias_correction_kl": False})[1])
    corrected = plain.but(**{"kl.correction": "ratio"})
    loss, gradient, _ = ours(corrected, r)
    their_loss, their_gradient, _ = theirs(r, settings)
    same_loss(loss, their_loss, gradient)
    assert (gradient - their_gradient).abs().max() > 1e-4


def same(x: Tensor, y: Tensor) -> None:
    """Equal to 1e-6 of the largest element: the gradient of a loss over a budget of 512 tokens is small."""
    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6 * y.abs().max().item())


def same_loss(x: Tensor, y: Tensor, gradient: Tensor) -> None:
    """Equal to 1e-6 of the terms' size, which the gradient tells: losses are sums that nearly cancel."""
    torch.testing.assert_close(x, y, rtol=0, atol=1e-6 * gradient.abs().sum().item())


def spread(advantage_N: Tensor, r: Rollout) -> Tensor:
    """TRL's advantage of a response at each of its tokens."""
    return torch.where(r.mask_NT, advantage_N[:, None], 0)
