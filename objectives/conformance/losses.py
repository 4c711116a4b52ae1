"""Checks of the loss: from an optimizer step's batch to its gradient."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from objectives.conformance import world as zoo
from objectives.conformance.assertions import holds, refuses, same, same_gradients, same_numbers
from objectives.metrics import UPDATE_KEYS, update_metrics
from objectives.objective import Objective
from objectives.parts import KL, Correction, Entropy, Imitation, ValueLoss
from objectives.types import PolicyOutput, TokenBatch


def tensors(record: PolicyOutput | TokenBatch) -> dict[str, Tensor]:
    """The fields of a record that are there."""
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: x for name, x in found.items() if x is not None}


def changed_policy(out: PolicyOutput, change: Callable[[Tensor], Tensor]) -> PolicyOutput:
    """The same output with every tensor changed, as fresh leaves."""
    return dataclasses.replace(out, **{name: zoo.leaf(change(x.detach())) for name, x in tensors(out).items()})


def changed_batch(batch: TokenBatch, change: Callable[[Tensor], Tensor]) -> TokenBatch:
    """The same batch with every tensor changed."""
    return dataclasses.replace(batch, **{name: change(x) for name, x in tensors(batch).items()})


def narrow(out: PolicyOutput, index: Tensor | slice) -> PolicyOutput:
    """Some rows of a policy output, still connected to the leaves."""
    return dataclasses.replace(out, **{name: x[index] for name, x in tensors(out).items()})


def check_micro_batches_add_up(objective: Objective) -> None:
    """Every way to cut six rows into consecutive micro-batches gives the same loss, terms and gradients."""
    w = zoo.world().rows(torch.tensor([0, 1, 3, 12, 13, 14]))
    out, batch = zoo.step(objective, w)
    whole = {name: term.item() for name, term in objective.terms(out, batch).items()}
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    same_numbers(loss.item(), sum(whole.values()), "the loss is not the sum of its terms")
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, 6), n) for n in range(1, 6)):
        pieces = [slice(a, b) for a, b in itertools.pairwise((0, *cuts, 6))]
        out, _ = zoo.step(objective, w)
        terms = [objective.terms(narrow(out, piece), batch.rows(piece)) for piece in pieces]
        for name, value in whole.items():
            same_numbers(sum(term[name].item() for term in terms), value, f"term {name} of rows cut at {cuts}")
        for piece in pieces:
            objective.loss(narrow(out, piece), batch.rows(piece)).backward()
        same_gradients(zoo.gradients(out), gradients, f"rows cut at {cuts}")


def check_rows_that_are_not_learned_from_have_no_gradient(objective: Objective) -> None:
    """The first group is silent: its rows either have no gradient, or are among those that are learned from."""
    out, batch = zoo.step(objective, zoo.world())
    advantage_BT = batch.advantage_BT.clone()
    advantage_BT[:4] = 0
    batch = dataclasses.replace(batch, advantage_BT=advantage_BT)
    learned_B = objective.learns_from(batch)
    loss, whole = zoo.loss_and_gradients(objective, out, batch)
    for name, gradient in whole.items():
        holds(not gradient[~learned_B].any(), f"rows that `learns_from` leaves out have a gradient of {name}")
    out, _ = zoo.step(objective, zoo.world())
    rows = learned_B.nonzero().flatten()
    part = objective.loss(narrow(out, rows), batch.rows(rows))
    part.backward()
    same_numbers(part.item(), loss.item(), "loss of the rows that are learned from")
    same_gradients(zoo.gradients(out), whole, "rows that are learned from")
    others = (objective.kl, objective.value, objective.entropy, objective.imitation, objective.tokens)
    if not any(others):
        alive_B = (batch.mask_BT & (advantage_BT != 0)).any(1)
        holds(learned_B.equal(alive_B), "`learns_from` differs from the rows with an advantage")


def check_nothing_outside_the_mask(objective: Objective) -> None:
    """nan and inf outside the mask, in every field, reach neither loss nor gradient; nor do they get a gradient."""
    out, batch = zoo.step(objective, zoo.world())
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    for garbage in (math.nan, math.inf, -math.inf, 1e30):

        def spoil(x: Tensor, garbage: float = garbage) -> Tensor:
            return x if x.dtype == torch.bool else torch.where(batch.mask_BT, x, garbage)

        dirty, dirty_gradients = zoo.loss_and_gradients(
            objective, changed_policy(out, spoil), changed_batch(batch, spoil)
        )
        same(dirty, loss, f"loss with {garbage} outside the mask")
        same_gradients(dirty_gradients, gradients, f"{garbage} outside the mask")
        outside = all(bool((g[~batch.mask_BT] == 0).all()) for g in dirty_gradients.values())
        holds(outside, "a token outside the mask has a gradient")


def check_all_masked_is_silent(objective: Objective) -> None:
    """A step in which nothing may be learned has loss 0, gradient 0 and metrics that say so."""
    w = zoo.world()
    out, batch = zoo.step(objective, dataclasses.replace(w, mask_NT=torch.zeros_like(w.mask_NT)))
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    holds(loss.item() == 0, f"the loss of a step without a token is {loss.item()}")
    holds(all(bool((g == 0).all()) for g in gradients.values()), "a step without a token has a gradient")
    unknown = all(math.isnan(x) for x in update_metrics(objective, out, batch).values())
    holds(unknown, "metrics of a step without a token are not nan")


def check_exact_policy_gradient(objective: Objective) -> None:
    """At ratio 1, with the return as advantage, the expected surrogate gradient is that of J = E[reward], exactly.

    The sampler is the trainer itself, and no token has a special treatment. The expectation runs over all 15 responses
    of a tabular policy: each one's weight is its probability.
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
    same(gradient, -t.true_gradient(), "expected gradient at ratio 1", rtol=1e-10, atol=1e-13)


def check_ratio_one_is_the_weighted_score(objective: Objective) -> None:
    """At ratio 1 each token's surrogate gradient is -weight * advantage, also for advantages that differ in a row.

    Here no token has a special treatment.
    """
    w = zoo.world().on_policy()
    out, batch = zoo.step(objective, w)
    advantage_BT = torch.where(w.mask_NT, torch.linspace(-2, 2, w.mask_NT.numel()).double().view_as(w.logp_NT), 0)
    batch = dataclasses.replace(batch, advantage_BT=advantage_BT, chosen_BT=torch.zeros_like(w.mask_NT))
    (gradient,) = torch.autograd.grad(objective.terms(out, batch)["surrogate"], out.logp_BT)
    same(gradient, -batch.weight_BT * advantage_BT, "surrogate gradient at ratio 1")


def check_huge_log_ratios_stay_finite(objective: Objective) -> None:
    """Ratios of e^±1000 (a diverged run) give a finite loss and finite gradients, also in float32."""
    for dtype in (torch.float64, torch.float32):
        out, batch = zoo.step(objective, zoo.world())
        sign_BT = torch.where(torch.arange(7) % 2 == 0, 1.0, -1.0).expand(16, 7)
        far = dataclasses.replace(out, logp_BT=zoo.leaf(torch.where(batch.mask_BT, 1000 * sign_BT, 0).to(dtype)))
        cast = changed_batch(batch, lambda x, dtype=dtype: x if x.dtype == torch.bool else x.to(dtype))
        loss, gradients = zoo.loss_and_gradients(objective, far, cast)
        holds(loss.isfinite(), f"the loss at log-ratios of 1000 is {loss.item()} ({dtype})")
        for name, gradient in gradients.items():
            holds(gradient.isfinite().all(), f"the gradient of {name} at log-ratios of 1000 is not finite ({dtype})")


def check_float32_agrees(objective: Objective) -> None:
    """In float32 the loss is that of float64 to 1e-4, the gradients to 2e-3."""
    out, batch = zoo.step(objective, zoo.world())
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)

    def single(x: Tensor) -> Tensor:
        return x if x.dtype == torch.bool else x.float()

    loss32, gradients32 = zoo.loss_and_gradients(objective, changed_policy(out, single), changed_batch(batch, single))
    holds(loss32.dtype == torch.float32, f"the loss of float32 tensors is {loss32.dtype}")
    same(loss32.double(), loss, "loss in float32", rtol=1e-4, atol=1e-6)
    same_gradients({k: g.double() for k, g in gradients32.items()}, gradients, "float32", rtol=2e-3, atol=1e-5)


def check_inputs_are_left_alone(objective: Objective) -> None:
    """Loss and metrics change none of the tensors they are given."""
    out, batch = zoo.step(objective, zoo.world())
    before = {name: x.detach().clone() for record in (out, batch) for name, x in tensors(record).items()}
    objective.loss(out, batch)
    update_metrics(objective, out, batch)
    for record in (out, batch):
        for name, x in tensors(record).items():
            holds(torch.equal(x, before[name]), f"{name} was changed in place")


def check_loss_needs_are_honoured(objective: Objective) -> None:
    """A missing field that the loss needs raises an error that names it; fields that it does not need are not read."""
    out, batch = zoo.step(objective, zoo.world())
    costs = (Correction, KL, ValueLoss, Entropy, Imitation)
    in_loss = {need for part in objective.parts if isinstance(part, costs) for need in part.needs}
    for need, names in zoo.LOSS_FIELDS.items():
        for name in names if need in in_loss else ():
            missing = dataclasses.replace(batch, **{name: None})
            refuses(lambda m=missing: objective.loss(out, m), f"{objective.name} needs TokenBatch.{name}")
    for need, name in zoo.POLICY_FIELDS.items():
        if need in in_loss:
            less = dataclasses.replace(out, **{name: None})
            refuses(lambda x=less: objective.loss(x, batch), f"{objective.name} needs PolicyOutput.{name}")
    loss = objective.loss(out, batch)
    nonsense_BT = torch.full_like(batch.weight_BT, math.nan)
    extra = {name: nonsense_BT for need, names in zoo.LOSS_FIELDS.items() if need not in in_loss for name in names}
    more = {name: nonsense_BT for need, name in zoo.POLICY_FIELDS.items() if need not in in_loss}
    told = objective.loss(dataclasses.replace(out, **more), dataclasses.replace(batch, **extra))
    holds(told.equal(loss), "the loss reads a field that no part needs")


def check_shapes_are_checked(objective: Objective) -> None:
    """A log-prob per row would broadcast over the tokens; it is refused."""
    out, batch = zoo.step(objective, zoo.world())
    narrowed = dataclasses.replace(out, logp_BT=out.logp_BT[:, :1])
    refuses(lambda: objective.loss(narrowed, batch), "logp_BT has shape (16, 1)")


def check_update_metrics_are_common(objective: Objective) -> None:
    """All objectives have the same metrics of an update, within their bounds."""
    w = zoo.world()
    out, batch = zoo.step(objective, w)
    metrics = update_metrics(objective, out, batch)
    holds(tuple(metrics) == UPDATE_KEYS, f"metrics are {tuple(metrics)}")
    same_numbers(metrics["loss"], objective.loss(out, batch).item(), "metric loss", rtol=1e-6)
    holds(0 <= metrics["clip_low"] <= metrics["clip_fraction"] <= 1, "clip_low and clip_fraction are no shares")
    same_numbers(metrics["clip_fraction"], metrics["clip_low"] + metrics["clip_high"], "clip_fraction", rtol=1e-6)
    holds(0 < metrics["ess"] <= 1 + 1e-12, f"ess is {metrics['ess']}")
    holds(metrics["ratio_min"] <= metrics["ratio_mean"] <= metrics["ratio_max"], "the mean ratio is not between")
    refers = objective.kl is not None and objective.kl.anchor == "ref_logp_BT"
    holds(not refers or not math.isnan(metrics["kl_ref"]), "kl_ref is nan with a KL to the reference")
    holds(math.isnan(metrics["explained_variance"]) == (objective.value is None), "explained_variance without a critic")
    first = update_metrics(objective, *zoo.step(objective, w.on_policy()))
    told = (first["ratio_min"], first["ratio_max"], first["kl_old"])
    holds(told == (1, 1, 0), f"ratio_min, ratio_max, kl_old are {told} before the first update")
