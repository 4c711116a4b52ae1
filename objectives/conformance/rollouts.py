"""Checks from the rewards to the loss: selection, shaping, advantage, weights, states."""

from __future__ import annotations

import dataclasses
import json
import math

import torch
from torch import Tensor

from advantages import Need
from advantages.needs import FIELDS
from objectives.conformance import world as zoo
from objectives.conformance.assertions import holds, same, same_gradients
from objectives.metrics import ROLLOUT_KEYS, rollout_metrics
from objectives.objective import Objective


def check_rows_permute(objective: Objective) -> None:
    """The order of responses in the batch changes nothing, from the rewards on."""
    w = zoo.world()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w))
    moved, moved_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w.rows(order)))
    same(moved, loss, "loss of permuted rows")
    same_gradients(moved_gradients, {name: g[order] for name, g in gradients.items()}, "permuted rows")


def check_padding_grows(objective: Objective) -> None:
    """Columns of padding on both sides, with any content, change nothing, from the rewards on."""
    w = zoo.world()
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w))

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (2, 3), value=False if x.dtype == torch.bool else -3.0)

    wide = {f.name: pad(getattr(w, f.name)) for f in dataclasses.fields(w) if f.name.endswith("_NT")}
    padded, padded_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, dataclasses.replace(w, **wide)))
    same(padded, loss, "loss of padded rows")
    same_gradients({name: g[:, 2:-3] for name, g in padded_gradients.items()}, gradients, "padded rows")


def check_garbage_in_a_rollout(objective: Objective) -> None:
    """Rewards, values and log-probs outside the mask change no advantage and no state; there the advantage is 0."""
    w = zoo.world()
    clean, states = zoo.credit(objective, w), zoo.next_states(objective, w)
    spoiled = {
        f.name: torch.where(w.mask_NT, getattr(w, f.name), math.nan)
        for f in dataclasses.fields(w)
        if f.name.endswith("_NT") and f.name != "mask_NT"
    }
    dirty = zoo.credit(objective, dataclasses.replace(w, **spoiled))
    same(dirty.advantage_NT, clean.advantage_NT, "advantages with nan outside the mask")
    holds(zoo.next_states(objective, dataclasses.replace(w, **spoiled)) == states, "states with nan outside the mask")
    holds((clean.advantage_NT[~w.mask_NT] == 0).all(), "a token outside the mask has an advantage")
    holds(clean.advantage_NT.isfinite().all(), "an advantage is not finite")


def check_masked_rows_are_not_there(objective: Objective) -> None:
    """A response without a token (its reward is unknown) has no credit and weight and does not change any other's."""
    w = zoo.world()
    there = torch.tensor([i for i in range(16) if i not in (2, 7)])
    masked_NT = w.mask_NT.clone()
    masked_NT[2], masked_NT[7] = False, False
    unknown_N = w.reward_N.clone()
    unknown_N[2] = math.nan
    out, batch = zoo.step(objective, dataclasses.replace(w, mask_NT=masked_NT, reward_N=unknown_N))
    loss, gradients = zoo.loss_and_gradients(objective, out, batch)
    alone, alone_gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w.rows(there)))
    same(loss, alone, "loss with two rows masked")
    same_gradients({name: g[there] for name, g in gradients.items()}, alone_gradients, "two rows masked")


def check_several_rewards(objective: Objective) -> None:
    """With three named rewards the credit is finite, and permuting the rows permutes it."""
    w = zoo.world()
    length_N = w.mask_NT.sum(dim=1).double()
    named_NK = torch.stack([w.reward_N, -0.1 * length_N, (length_N % 2)], dim=1)
    several = w.with_rewards(("right", "length", "even"), named_NK)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    credit_NT = zoo.credit(objective, several).advantage_NT
    holds(credit_NT.isfinite().all(), "an advantage is not finite")
    same(zoo.credit(objective, several.rows(order)).advantage_NT, credit_NT[order], "advantages of permuted rows")


def check_needs_are_declared(objective: Objective) -> None:
    """The objective declares every field of a rollout that it reads; if one is missing, the error names it."""
    view = zoo.world().view(objective)
    for part in (*objective.shape, objective.advantage):
        for need in sorted(part.needs):
            name = FIELDS.get(Need(need))
            if name is None or Need(need) is Need.NEW_LOGP:
                continue
            less = dataclasses.replace(view, given={key: x for key, x in view.given.items() if key != name})
            try:
                objective.credit(less)
            except ValueError as error:
                holds(name in str(error), f"without {name} the error says {str(error)!r}")


def check_states_are_carried(objective: Objective) -> None:
    """A part's state is plain data that survives JSON, its update is deterministic, and restoring it takes effect."""
    w = zoo.world()
    states = objective.initial_states()
    after = zoo.next_states(objective, w)
    holds(after.keys() == states.keys(), f"states of {sorted(after)} after a rollout, of {sorted(states)} before")
    holds(zoo.next_states(objective, w) == after, "the same rollout led to two states")
    holds(json.loads(json.dumps(after)) == after, f"a state is no plain data: {after!r}")
    moved = objective.at(after)
    holds(moved.initial_states() == states, "a state changed what the part begins with")
    read = type(objective).model_validate_json(moved.model_dump_json())
    holds({place: part.state for place, part in read.placed().items() if place in after} == after, "lost in JSON")
    same(zoo.credit(read, w).advantage_NT, zoo.credit(moved, w).advantage_NT, "advantages after JSON")
    empty = dataclasses.replace(w, mask_NT=torch.zeros_like(w.mask_NT))
    holds(zoo.next_states(objective, empty).keys() == states.keys(), "a rollout without a token broke the states")


def check_json_round_trip(objective: Objective) -> None:
    """The objective survives JSON and its own table."""
    holds(type(objective).model_validate_json(objective.model_dump_json()) == objective, "JSON changed the objective")
    holds(type(objective)(**objective.model_dump()) == objective, "its table changed the objective")


def check_rollout_metrics_are_common(objective: Objective) -> None:
    """All objectives have the same metrics of a rollout."""
    w = zoo.world()
    metrics = rollout_metrics(w.reward_N, w.mask_NT, w.group_N, zoo.credit(objective, w))
    holds(tuple(metrics) == ROLLOUT_KEYS, f"metrics are {tuple(metrics)}")


def check_select_decides_per_prompt(objective: Objective) -> None:
    """Prompts with right and wrong responses are kept, and the decision on a prompt does not depend on the others."""
    accuracy_PG = zoo.world().accuracy_PG
    keep_P = objective.select(accuracy_PG)
    holds(keep_P.dtype == torch.bool, f"select returns {keep_P.dtype}, expected bool")
    holds(keep_P.shape == (4,), f"select returns shape {tuple(keep_P.shape)} for four prompts")
    holds(bool(keep_P[0] & keep_P[3]), "a prompt with right and wrong responses is dropped: there is most to learn")
    for p in range(4):
        alone = objective.select(accuracy_PG[p : p + 1])
        holds(alone.item() == keep_P[p], f"prompt {p} alone is selected differently than among others")
