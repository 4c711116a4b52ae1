"""What every objective owes its trainer, whoever wrote it.

A check is a function of an objective. All of them run on every registered objective: a new entry, also one that came
through an entry point, inherits the suite without a line of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import objectives
from advantages import Part
from objectives import ROLLOUT_KEYS, UPDATE_KEYS, Objective, PolicyOutput, TokenBatch, rollout_metrics, update_metrics
from objectives import registry as objective_registry
from objectives.parts import KL, Aggregate, Correction, Entropy, Imitation, Ratio, Surrogate, ValueLoss
from tests import zoo

Check = Callable[[Objective], None]
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def tensors(record: PolicyOutput | TokenBatch) -> dict[str, Tensor]:
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: x for name, x in found.items() if x is not None}


def changed(record: PolicyOutput | TokenBatch, change: Callable[[Tensor], Tensor]):
    """The same record with every tensor changed; tensors of a policy output become fresh leaves."""
    new = {name: change(x.detach()) for name, x in tensors(record).items()}
    return dataclasses.replace(record, **({k: zoo.leaf(x) for k, x in new.items()} if is_policy(record) else new))


def is_policy(record: PolicyOutput | TokenBatch) -> bool:
    return isinstance(record, PolicyOutput)


def narrow(out: PolicyOutput, index: Tensor | slice) -> PolicyOutput:
    """Some rows of a policy output, still connected to the leaves."""
    return dataclasses.replace(out, **{name: x[index] for name, x in tensors(out).items()})


def check_micro_batches_add_up(objective: Objective) -> None:
    """Every way to cut six rows into consecutive micro-batches gives the same loss, terms and gradients."""
    rows = torch.tensor([0, 1, 3, 12, 13, 14])
    w = zoo.world().rows(rows)
    out, batch = zoo.step(objective, w)
    whole = {name: term.item() for name, term in objective.terms(out, batch).items()}
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    assert loss.item() == pytest.approx(sum(whole.values()), rel=1e-12)
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, 6), n) for n in range(1, 6)):
        pieces = [slice(a, b) for a, b in itertools.pairwise((0, *cuts, 6))]
        out, _ = zoo.step(objective, w)
        terms = [objective.terms(narrow(out, piece), batch.rows(piece)) for piece in pieces]
        for name, value in whole.items():
            assert sum(term[name].item() for term in terms) == pytest.approx(value, rel=1e-12, abs=1e-14), (name, cuts)
        for piece in pieces:
            objective.loss(narrow(out, piece), batch.rows(piece)).backward()
        torch.testing.assert_close(zoo.gradients(out), gradients, **CLOSE)


def check_rows_that_are_not_learned_from_have_no_gradient(objective: Objective) -> None:
    """The first group is silent: its rows either have no gradient, or are among those that are learned from."""
    out, batch = zoo.step(objective, zoo.world())
    advantage_BT = batch.advantage_BT.clone()
    advantage_BT[:4] = 0
    batch = dataclasses.replace(batch, advantage_BT=advantage_BT)
    learned_B = objective.learns_from(batch)
    loss, whole = zoo.loss_and_gradients(objective, out, batch)
    assert all(not gradient[~learned_B].any() for gradient in whole.values())
    out, _ = zoo.step(objective, zoo.world())
    rows = learned_B.nonzero().flatten()
    part = objective.loss(narrow(out, rows), batch.rows(rows))
    part.backward()
    assert part.item() == pytest.approx(loss.item(), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(zoo.gradients(out), whole, **CLOSE)
    others = (objective.kl, objective.value, objective.entropy, objective.imitation, objective.tokens)
    if not any(others):
        assert not learned_B[:4].any() and bool((learned_B == (batch.mask_BT & (advantage_BT != 0)).any(1)).all())


def check_rows_permute(objective: Objective) -> None:
    """The order of responses in the batch changes nothing, from the rewards on."""
    w = zoo.world()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w))
    moved, moved_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w.rows(order)))
    torch.testing.assert_close(moved, loss, **CLOSE)
    torch.testing.assert_close(moved_gradients, {name: g[order] for name, g in gradients.items()}, **CLOSE)


def check_padding_grows(objective: Objective) -> None:
    """Columns of padding, left and right, whatever stands in them, change nothing, from the rewards on."""
    w = zoo.world()
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w))

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (2, 3), value=False if x.dtype == torch.bool else -3.0)

    wide = {f.name: pad(getattr(w, f.name)) for f in dataclasses.fields(w) if f.name.endswith("_NT")}
    padded, padded_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, dataclasses.replace(w, **wide)))
    torch.testing.assert_close(padded, loss, **CLOSE)
    torch.testing.assert_close({name: g[:, 2:-3] for name, g in padded_gradients.items()}, gradients, **CLOSE)


def check_nothing_outside_the_mask(objective: Objective) -> None:
    """nan and inf outside the mask, in every field, reach neither loss nor gradient; nor do they get a gradient."""
    out, batch = zoo.step(objective, zoo.world())
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    for garbage in (math.nan, math.inf, -math.inf, 1e30):

        def spoil(x: Tensor, garbage: float = garbage) -> Tensor:
            return x if x.dtype == torch.bool else torch.where(batch.mask_BT, x, garbage)

        dirty, dirty_gradients = zoo.loss_and_gradients(objective, changed(out, spoil), changed(batch, spoil))
        torch.testing.assert_close(dirty, loss, **CLOSE)
        torch.testing.assert_close(dirty_gradients, gradients, **CLOSE)
        assert all((g[~batch.mask_BT] == 0).all() for g in dirty_gradients.values())


def check_garbage_in_a_rollout(objective: Objective) -> None:
    """Rewards, values and log-probs outside the mask change no advantage; outside the mask the advantage is 0."""
    w = zoo.world()
    clean, states = zoo.credit(objective, w)
    spoiled = {
        name: torch.where(w.mask_NT, getattr(w, name), math.nan)
        for name in ("old_logp_NT", "ref_logp_NT", "teacher_logp_NT", "old_value_NT")
    }
    dirty, dirty_states = zoo.credit(objective, dataclasses.replace(w, **spoiled))
    torch.testing.assert_close(dirty.advantage_NT, clean.advantage_NT, **CLOSE)
    assert dirty_states == states
    assert (clean.advantage_NT[~w.mask_NT] == 0).all()
    assert clean.advantage_NT.isfinite().all()


def check_masked_rows_are_not_there(objective: Objective) -> None:
    """A response without a token (its reward is unknown) changes no other's credit and weight, and has none."""
    w = zoo.world()
    there = torch.tensor([i for i in range(16) if i not in (2, 7)])
    masked_NT = w.mask_NT.clone()
    masked_NT[2], masked_NT[7] = False, False
    unknown_N = w.reward_N.clone()
    unknown_N[2] = math.nan
    out, batch = zoo.step(objective, dataclasses.replace(w, mask_NT=masked_NT, reward_N=unknown_N))
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    alone, alone_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w.rows(there)))
    torch.testing.assert_close(loss, alone, **CLOSE)
    torch.testing.assert_close({name: g[there] for name, g in gradients.items()}, alone_gradients, **CLOSE)


def check_all_masked_is_silent(objective: Objective) -> None:
    """A step in which nothing may be learned has loss 0, gradient 0 and metrics that say so."""
    w = zoo.world()
    out, batch = zoo.step(objective, dataclasses.replace(w, mask_NT=torch.zeros_like(w.mask_NT)))
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    assert loss.item() == 0
    assert all((g == 0).all() for g in gradients.values())
    assert all(math.isnan(x) for x in update_metrics(objective, out, batch).values())


def check_exact_policy_gradient(objective: Objective) -> None:
    """At ratio 1, with the return as advantage, the expected surrogate gradient is that of J = E[reward], exactly.

    The sampler is the trainer itself, and no token is treated apart. The expectation runs over all 15 responses of a
    tabular policy: each one's weight is its probability.
    """
    t = zoo.tabular()
    logp_RT, reward_RT = t.logp_RT, t.reward_R[:, None].expand_as(t.mask_RT).contiguous()
    constant_RT = torch.full_like(logp_RT, 0.5).detach()
    batch = TokenBatch(
        mask_BT=t.mask_RT,
        weight_BT=t.probability_R.detach()[:, None] * t.mask_RT,
        advantage_BT=reward_RT,
        old_logp_BT=logp_RT.detach(),
        ref_logp_BT=logp_RT.detach(),
        old_value_BT=constant_RT,
        return_BT=constant_RT,
        sampler_logp_BT=logp_RT.detach(),
        chosen_BT=torch.zeros_like(t.mask_RT),
        imitation_BT=constant_RT,
    )
    surrogate = objective.terms(PolicyOutput(logp_RT, constant_RT, constant_RT), batch)["surrogate"]
    (gradient,) = torch.autograd.grad(surrogate, t.logits_SV)
    torch.testing.assert_close(gradient, -t.true_gradient(), rtol=1e-10, atol=1e-13)


def check_ratio_one_is_the_weighted_score(objective: Objective) -> None:
    """At ratio 1 each token's surrogate gradient is -weight * advantage, also for advantages that differ in a row.

    Unless the token is treated apart: none is, here.
    """
    w = zoo.world().on_policy()
    out, batch = zoo.step(objective, w)
    advantage_BT = torch.where(w.mask_NT, torch.linspace(-2, 2, w.mask_NT.numel()).double().view_as(w.logp_NT), 0)
    batch = dataclasses.replace(batch, advantage_BT=advantage_BT, chosen_BT=torch.zeros_like(w.mask_NT))
    (gradient,) = torch.autograd.grad(objective.terms(out, batch)["surrogate"], out.logp_BT)
    torch.testing.assert_close(gradient, -batch.weight_BT * advantage_BT, **CLOSE)


def check_huge_log_ratios_stay_finite(objective: Objective) -> None:
    """A run that has gone astray by e^±1000 gives a finite loss and finite gradients, also in float32."""
    for dtype in (torch.float64, torch.float32):
        out, batch = zoo.step(objective, zoo.world())
        sign_BT = torch.where(torch.arange(7) % 2 == 0, 1.0, -1.0).expand(16, 7)
        far = dataclasses.replace(out, logp_BT=zoo.leaf(torch.where(batch.mask_BT, 1000 * sign_BT, 0).to(dtype)))
        cast = changed(batch, lambda x, dtype=dtype: x if x.dtype == torch.bool else x.to(dtype))
        loss, gradients = zoo.loss_and_gradients(objective, far, cast)
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in gradients.values())


def check_float32_agrees(objective: Objective) -> None:
    out, batch = zoo.step(objective, zoo.world())
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)

    def single(x: Tensor) -> Tensor:
        return x if x.dtype == torch.bool else x.float()

    loss32, gradients32 = zoo.loss_and_gradients(objective, changed(out, single), changed(batch, single))
    assert loss32.dtype == torch.float32
    torch.testing.assert_close(loss32.double(), loss, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close({k: g.double() for k, g in gradients32.items()}, gradients, rtol=2e-3, atol=1e-5)


def check_inputs_are_left_alone(objective: Objective) -> None:
    out, batch = zoo.step(objective, zoo.world())
    before = {name: x.detach().clone() for record in (out, batch) for name, x in tensors(record).items()}
    objective.loss(out, batch)
    update_metrics(objective, out, batch)
    for record in (out, batch):
        for name, x in tensors(record).items():
            assert torch.equal(x, before[name]), name


def check_json_round_trip(objective: Objective) -> None:
    assert type(objective).model_validate_json(objective.model_dump_json()) == objective
    assert type(objective)(**objective.model_dump()) == objective


def check_needs_are_honoured(objective: Objective) -> None:
    """What is asked for and missing is an error that names it; what is not asked for is not looked at."""
    told = {"group", "greedy", "demonstration", "teacher_logp", "accuracy"}
    assert objective.needs <= told | {"value", "ref_logp", "sampler_logp", "entropy"}
    out, batch = zoo.step(objective, zoo.world())
    in_loss = frozenset[str]().union(
        *(part.needs for part in objective.parts if isinstance(part, (Correction, KL, ValueLoss, Entropy, Imitation)))
    )
    for need in sorted(in_loss):
        for field in zoo.LOSS_FIELDS.get(need, ()):
            with pytest.raises(ValueError, match=re.escape(f"{objective.name} needs TokenBatch.{field}")):
                objective.loss(out, dataclasses.replace(batch, **{field: None}))
        for field in [zoo.POLICY_FIELDS[need]] if need in zoo.POLICY_FIELDS else []:
            with pytest.raises(ValueError, match=re.escape(f"{objective.name} needs PolicyOutput.{field}")):
                objective.loss(dataclasses.replace(out, **{field: None}), batch)
    loss = objective.loss(out, batch)
    nonsense_BT = torch.full_like(batch.weight_BT, math.nan)
    extra = {field: nonsense_BT for need in zoo.LOSS_FIELDS.keys() - in_loss for field in zoo.LOSS_FIELDS[need]}
    more = {zoo.POLICY_FIELDS[need]: nonsense_BT for need in zoo.POLICY_FIELDS.keys() - in_loss}
    assert objective.loss(dataclasses.replace(out, **more), dataclasses.replace(batch, **extra)).equal(loss)


def check_shapes_are_checked(objective: Objective) -> None:
    """A log-prob per row would broadcast over the tokens; it is refused."""
    out, batch = zoo.step(objective, zoo.world())
    with pytest.raises(ValueError, match=r"logp_BT has shape \(16, 1\)"):
        objective.loss(dataclasses.replace(out, logp_BT=out.logp_BT[:, :1]), batch)


def check_metrics_are_common(objective: Objective) -> None:
    w = zoo.world()
    out, batch = zoo.step(objective, w)
    metrics = update_metrics(objective, out, batch)
    assert tuple(metrics) == UPDATE_KEYS
    assert metrics["loss"] == pytest.approx(objective.loss(out, batch).item())
    assert 0 <= metrics["clip_low"] <= metrics["clip_fraction"] <= 1
    assert metrics["clip_fraction"] == pytest.approx(metrics["clip_low"] + metrics["clip_high"])
    assert 0 < metrics["ess"] <= 1 + 1e-12
    assert metrics["ratio_min"] <= metrics["ratio_mean"] <= metrics["ratio_max"]
    assert math.isnan(metrics["kl_ref"]) == ("ref_logp" not in objective.needs)
    assert math.isnan(metrics["explained_variance"]) == ("value" not in objective.needs)
    assert tuple(rollout_metrics(w.reward_N, w.mask_NT, w.group_N, zoo.credit(objective, w)[0])) == ROLLOUT_KEYS
    first = update_metrics(objective, *zoo.step(objective, w.on_policy()))
    assert (first["ratio_min"], first["ratio_max"], first["kl_old"]) == (1, 1, 0)


def check_select_decides_per_prompt(objective: Objective) -> None:
    accuracy_PG = zoo.world().accuracy_PG
    keep_P = objective.select(accuracy_PG)
    assert keep_P.dtype == torch.bool
    assert keep_P.shape == (4,)
    assert keep_P[0] and keep_P[3], "prompts with right and wrong responses are what there is to learn from"
    for p in range(4):  # a prompt's fate does not depend on the others
        assert objective.select(accuracy_PG[p : p + 1]).item() == keep_P[p]


CHECKS: list[Check] = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", objectives.names())
def test_registered(name: str, check: Check) -> None:
    check(objectives.get(name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
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
def test_ablations_with_every_other_part(name: str, check: Check) -> None:
    check(objectives.get(name))


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
    for check in CHECKS:
        check(mine)


def test_garbage_stays_out_when_a_ratio_ties_the_tokens_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """GSPO's plain form lets the gradient through the mean: nan in a weight outside would reach every token."""
    monkeypatch.setattr(Ratio, "members", dict(Ratio.members))

    class PlainSequence(Ratio, kind="plain_sequence"):
        def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
            length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
            mean_B1 = torch.where(mask_BT, logp_BT - old_logp_BT, 0).sum(dim=1, keepdim=True) / length_B1
            return mean_B1.expand_as(logp_BT)

    check_nothing_outside_the_mask(objectives.get("gspo[ratio=plain_sequence]"))


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
        (BatchScaled(), check_micro_batches_add_up),
        (PaddedWidth(), check_padding_grows),
        (PaddedWidth(), check_masked_rows_are_not_there),
        (Halved(), check_exact_policy_gradient),
        (Halved(), check_ratio_one_is_the_weighted_score),
        (Unbounded(), check_huge_log_ratios_stay_finite),
    ],
    ids=lambda x: getattr(x, "kind", None) or x.__name__,
)
def test_the_suite_catches_what_it_is_for(monkeypatch: pytest.MonkeyPatch, part: Part, caught_by: Check) -> None:
    monkeypatch.setitem(part.members, part.kind, type(part))
    objective = objectives.get("grpo").but(**{part.family(): part})
    with pytest.raises(AssertionError):
        caught_by(objective)
