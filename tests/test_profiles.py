"""Each row of each profile against its framework's formulas (`tests/frameworks.py`), loss and gradient.

They agree to 1e-7 and not to 1e-12 because we leave out what only guards against a division by zero. Two rollouts: one
update away, where clips of 0.2 act here and there, and far away, where dual clips and bounds of the KL act too, with a
group of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import objectives
from objectives import Objective, get, names, page
from objectives.ablate import FAMILIES
from objectives.conformance import failures
from objectives.conformance import world as zoo
from objectives.profiles import profile
from tests.frameworks import FORMULAS, VALUE_DIFFERS, Rows
from tests.test_papers import floats, scalars

CLOSE = {"rtol": 1e-7, "atol": 1e-11}


def near(seed: int) -> zoo.World:
    return zoo.world(seed)


def far(seed: int) -> zoo.World:
    """Log-ratios eight times as large and more, a reference three nats away here and there, and a group of one."""
    w = zoo.world(seed)
    sign_N1 = torch.where(torch.arange(16) % 2 == 0, -1.0, 1.0)[:, None].double()
    logp_NT = w.old_logp_NT + 8 * (w.logp_NT - w.old_logp_NT) + 0.06 * sign_N1
    away_NT = torch.where(torch.arange(7) % 3 == 0, 3.0, 0.0)
    group_N = w.group_N.clone()
    group_N[8] = 4  # a right answer whose ratio is below 1, so that no clip acts on it
    return replace(
        w,
        logp_NT=torch.where(w.mask_NT, logp_NT, 0),
        group_N=group_N,
        ref_logp_NT=torch.where(w.mask_NT, w.ref_logp_NT + away_NT, 0),
    )


def strayed(seed: int) -> zoo.World:
    """Far, and at every fifth token the reference is 12 nats further away: bounds of 10 on k1 act."""
    w = far(seed)
    away_NT = torch.where(torch.arange(7) % 5 == 0, 12.0, 0.0)
    return replace(w, ref_logp_NT=torch.where(w.mask_NT, w.ref_logp_NT - away_NT, 0))


def theirs(name: str, w: zoo.World) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of the framework's formula."""
    rows = Rows(
        reward=w.reward_N.tolist(),
        group=w.group_N.tolist(),
        old=floats(w.old_logp_NT, w.mask_NT),
        ref=floats(w.ref_logp_NT, w.mask_NT),
        old_value=floats(w.old_value_NT, w.mask_NT),
        max_length=w.max_length,
    )
    logp_NT, value_NT = zoo.leaf(w.logp_NT), zoo.leaf(w.value_NT)
    loss = FORMULAS[name](rows, scalars(logp_NT, w.mask_NT), scalars(value_NT, w.mask_NT))
    loss.backward()
    gradients = {"logp_BT": logp_NT.grad, "value_BT": value_NT.grad}
    return loss.detach(), {key: g for key, g in gradients.items() if g is not None}


def ours(objective: Objective, w: zoo.World) -> tuple[Tensor, dict[str, Tensor]]:
    """Our loss and gradients over the whole rollout; a group of one counts as a prompt with one response."""
    groups = w.group_N.unique().tolist()
    keep = {g: bool(objective.select(w.reward_N[w.group_N == g][None])) for g in groups}
    keep_N = torch.tensor([keep[g] for g in w.group_N.tolist()])
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, w.rows(keep_N)))
    return loss, {key: torch.zeros_like(w.logp_NT).index_put((keep_N,), g) for key, g in gradients.items()}


def uneven(w: zoo.World) -> zoo.World:
    """All-right groups become groups with small differences of reward, which select still takes for all right."""
    reward_N = w.reward_N.clone()
    reward_N[8:12] = torch.tensor([1.0, 0.999, 0.998, 1.001], dtype=torch.float64)
    return replace(w, reward_N=reward_N)


@pytest.mark.parametrize("world", [near, far, strayed], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FORMULAS)
def test_profile_is_its_frameworks_formula(name: str, world: Callable[[int], zoo.World]) -> None:
    for seed in range(2):
        w = world(seed)
        loss, gradients = ours(get(name), w)
        their_loss, their_gradients = theirs(name, w)
        torch.testing.assert_close(gradients, {key: their_gradients[key] for key in gradients}, **CLOSE)
        assert gradients["logp_BT"].abs().max() > 1e-5
        same = math.isclose(loss.item(), their_loss.item(), rel_tol=1e-7, abs_tol=1e-11)
        assert same != (name in VALUE_DIFFERS), (loss, their_loss)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_change_of_a_profile_matters(name: str) -> None:
    """Without any one of its changes a row misses its framework, near or far. The exceptions say where they would."""
    loss, _, where = name.partition("@")
    row = profile(where)[loss]
    for left_out in row.changes:
        rest = {key: value for key, value in row.changes.items() if key != left_out}
        try:
            poorer = get(row.base).but(**rest)
        except ValueError:
            continue  # one change needs another
        apart = max(
            (ours(get(name), w)[1][key] - g).abs().max().item()
            for w in (near(0), far(0), uneven(far(0)), strayed(0))
            for key, g in ours(poorer, w)[1].items()
        )
        assert apart > 1e-9, left_out


@pytest.mark.parametrize("name", FORMULAS)
def test_profiles_pass_the_conformance_suite(name: str) -> None:
    assert failures(get(name)) == {}


@pytest.mark.parametrize("name", FORMULAS)
def test_names_of_profiles_read_back(name: str) -> None:
    objective = get(name)
    assert objective.name == name
    assert Objective.model_validate_json(objective.model_dump_json()) == objective
    row = profile(name.partition("@")[2])[name.partition("@")[0]]
    assert objective == get(row.base).but(**row.changes, name=name)
    assert page(name) == page(row.base)
    assert row.base in names() and {key.partition(".")[0] for key in row.changes} <= set(FAMILIES)
    ablated = get(f"{name}[aggregate=sequence_sum,surrogate=linear]")
    assert ablated.name == f"{name}[aggregate=sequence_sum,surrogate=linear]"
    assert get(ablated.name) == ablated
    assert page(ablated.name) == page(name)
    assert ablated.but(kl="k2").name == f"{name}[aggregate=sequence_sum,surrogate=linear,kl=k2]"


def test_a_profile_is_a_mapping_of_ablations() -> None:
    row = objectives.profile("verl")["grpo"]
    assert get(row.base).but(**row.changes).row() == get("grpo@verl").row()


def test_unknown_profiles_and_losses_name_the_nearest() -> None:
    for name, message in {
        "grpo@vrl": "unknown profile 'vrl'; did you mean 'verl'",
        "ppo@trl": "profile 'trl' has no 'ppo'",
        "grop@verl": "profile 'verl' has no 'grop'; did you mean 'grpo'",
        "grpo@": "unknown profile ''",
    }.items():
        with pytest.raises(ValueError) as refusal:
            get(name)
        assert message in str(refusal.value)


def test_the_same_name_means_different_bounds() -> None:
    """CISPO's epsilon_high 0.2 is the cap 1.2 in verl and the cap 0.2 in TRL; where r = 1 that is a factor of 5."""
    one, a = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True), torch.ones(1, 1, dtype=torch.float64)
    slopes = []
    for name in ("cispo@verl", "cispo@trl[surrogate.cap=0.2]", "cispo@trl"):
        (slope,) = torch.autograd.grad(get(name).surrogate(one, a).sum(), one)
        slopes.append(slope.item())
    assert slopes == pytest.approx([1, 0.2, 1])
