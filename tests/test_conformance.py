"""The conformance suite on everything that is registered, on the other parts, and on broken ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import objectives
from advantages import Part
from objectives import registry as objective_registry
from objectives.conformance import CHECKS, failures
from objectives.parts import Aggregate, Ratio, Surrogate


@pytest.mark.parametrize("name", objectives.names())
def test_registered(name: str) -> None:
    assert failures(objectives.get(name)) == {}


@pytest.mark.parametrize(
    "name",
    [
        "reinforce[advantage.baseline=leave_one_out,entropy=bonus]",
        "ppo[shape.target=6,surrogate.dual=3,entropy=bonus,value=plain]",
        "grpo[surrogate=clipped_weight,aggregate=constant,aggregate.budget=7,advantage.scale=none]",
        "dapo[kl=k1,kl.straight_through=true,shape=kl+soft_overlong]",
        "gspo[kl=k2,surrogate=linear,aggregate=sequence_sum]",
        "gspo[advantage=gae,value=clipped,kl=k3,kl.straight_through=true,select=mixed]",
        "reinforce[advantage.whiten=true,advantage.ddof=0,ratio=response,surrogate=soft_gate,kl=k2,kl.correction=score]",
        "grpo[advantage=group_others,kl.correction=ratio,kl.bound=0.1]",
        "grpo[correction=token,tokens=clip_cov,tokens.share=0.1,tokens.low=0.1]",
        "gspo[correction=sequence,correction.beyond=mask,tokens=kl_cov,tokens.share=0.1]",
        "ppo[correction=sequence,correction.cap=none,surrogate=geometric_mean]",
        "gspo[imitation=positive_likelihood,imitation.coef=2]",
    ],
)
def test_ablations_with_every_other_part(name: str) -> None:
    assert failures(objectives.get(name)) == {}


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch):
    """A registry and families that forget what the test added."""
    monkeypatch.setattr(objective_registry, "_registry", dict(objective_registry._registry))
    for family in (Surrogate, Aggregate):
        monkeypatch.setattr(family, "members", dict(family.members))


def test_third_party_objective_inherits_the_suite(third_party: None) -> None:
    class Soft(Surrogate, kind="soft"):
        """sigmoid(tau (r - 1)) 4 / tau A: a smooth clip, whose slope at ratio 1 is A."""

        tau: float = 1.0

        def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
            ratio_BT = log_ratio_BT.clamp(max=20).exp()
            return torch.sigmoid(self.tau * (ratio_BT - 1)) * (4 / self.tau) * advantage_BT

    class Root(Aggregate, kind="root"):
        """1 / (B sqrt(n_i)): between the sum and the mean of a response."""

        def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
            return mask_BT.to(dtype) / length_B1.to(dtype).sqrt() / mask_BT.any(dim=1).sum().clamp(min=1)

    mine = objectives.register(
        objectives.get("gspo").but(name="mine", ratio="token", surrogate="soft", aggregate="root")
    )
    assert "mine" in objectives.names()  # which is what parametrizes `test_registered`
    assert objectives.get("mine[surrogate.tau=2]").surrogate == Soft(tau=2)
    assert failures(mine) == {}


def test_garbage_stays_out_when_a_ratio_ties_the_tokens_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """GSPO's plain form lets the gradient through the mean: nan in a weight outside would reach every token."""
    monkeypatch.setattr(Ratio, "members", dict(Ratio.members))

    class PlainSequence(Ratio, kind="plain_sequence"):
        def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
            length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
            mean_B1 = torch.where(mask_BT, logp_BT - old_logp_BT, 0).sum(dim=1, keepdim=True) / length_B1
            return mean_B1.expand_as(logp_BT)

    CHECKS["nothing_outside_the_mask"](objectives.get("gspo[ratio=plain_sequence]"))


class BatchScaled(Surrogate, kind="test_batch_scaled"):
    """Divides by the largest advantage of whatever batch it is handed: micro-batches do not add up."""

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return log_ratio_BT.exp() * advantage_BT / advantage_BT.abs().amax().clamp(min=1)


class PaddedWidth(Aggregate, kind="test_padded_width"):
    """Divides by the padded width, as some frameworks do."""

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return mask_BT.to(dtype) / mask_BT.numel()


class Halved(Surrogate, kind="test_halved"):
    """Right in every respect but one: its gradient at ratio 1 is half the policy gradient."""

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return 0.5 * log_ratio_BT.clamp(max=20).exp() * advantage_BT


class Unbounded(Surrogate, kind="test_unbounded"):
    """exp without a bound."""

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return log_ratio_BT.exp() * advantage_BT


for broken in (BatchScaled, PaddedWidth, Halved, Unbounded):
    del broken.members[broken.kind]  # no other test should meet them


@pytest.mark.parametrize(
    ("part", "caught_by"),
    [
        (BatchScaled(), "micro_batches_add_up"),
        (PaddedWidth(), "padding_grows"),
        (PaddedWidth(), "masked_rows_are_not_there"),
        (Halved(), "exact_policy_gradient"),
        (Halved(), "ratio_one_is_the_weighted_score"),
        (Unbounded(), "huge_log_ratios_stay_finite"),
    ],
    ids=lambda x: getattr(x, "kind", x),
)
def test_the_suite_catches_what_it_is_for(monkeypatch: pytest.MonkeyPatch, part: Part, caught_by: str) -> None:
    monkeypatch.setitem(part.members, part.kind, type(part))
    objective = objectives.get("grpo").but(**{part.family(): part})
    assert caught_by in failures(objective)
