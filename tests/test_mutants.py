"""Every single changed cell or field of the presets below is detected: in selection, loss, gradients or states.

The mutants come from the registry of parts, so a new part or field is covered the day it exists. What is refused at
construction counts as noticed. The few changes that rightly alter nothing here are listed with their reason, and the
list is checked too.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from advantages import Part
from objectives import Objective, get, names
from objectives.ablate import FAMILIES
from objectives.conformance import world as zoo

MISFITS = (
    "needs a trained critic: set value=",
    "never uses: set advantage='gae', or value='none'",
    "is inert: set surrogate='linear', or ratio='token'",
    "is inert: set tokens='none', or ratio='token'",
    "ignores rewards, so shape does nothing: set shape='none'",
    "rate does nothing without a target: set target",
    "ddof does nothing without whitening: set whiten=true",
    "does nothing with scale='none': leave it out",
    "greater than or equal to 1",  # all has one round, no more and no fewer
)
"""The only reasons to refuse a mutant."""

REQUIRED = {"constant": "aggregate.budget=7", "clip_cov": "tokens.low=0.1"}
"""Kind -> fields that have no default, or one that finds nothing in this world."""

PRESETS = (
    *("reinforce", "ppo", "grpo", "dapo", "gspo"),
    *("rloo", "opo", "a2c", "vapo", "dr_grpo", "lite_ppo", "gmpo", "luspo", "cispo", "sapo"),
)
GROUPED = [name for name in PRESETS if "size" in type(get(name).advantage).model_fields]

INERT = {
    **{
        (name, "select.max_rounds=11"): "how often to resample is the sampling loop's business, not the tensors'"
        for name in ("dapo", "cispo")
    },
    **{
        (name, "surrogate.drift=1.0002"): "no response of this world drifts so far; see test_new_presets"
        for name in PRESETS
        if get(name).surrogate.kind == "clip"
    },
    **{
        (name, "shape.bound=1.0002"): "no token of this world is that far from the reference; see test_profiles"
        for name in ("ppo", "rloo")
    },
    ("grpo", "kl.bound=1.0002"): "no token of this world is as unlikely beside the reference; see the test below",
    **{(name, "advantage.single=keep"): "no group of one here; see the test below" for name in GROUPED},
    **{(name, "advantage.empty=count"): "no empty response here; see test_estimate" for name in GROUPED},
    **{
        (name, "advantage.size=5"): "a demand on the schedule, which its settings check; see test_config"
        for name in GROUPED
    },
}


def spread(w: zoo.World, factor: float) -> zoo.World:
    """The world with log-ratios that much larger."""
    return dataclasses.replace(w, logp_NT=w.old_logp_NT + factor * (w.logp_NT - w.old_logp_NT))


def stretched(w: zoo.World, times: int) -> zoo.World:
    """The world with every token repeated so often."""
    names = [field.name for field in dataclasses.fields(w) if field.name.endswith("_NT")]
    longer = {name: getattr(w, name).repeat_interleave(times, dim=1) for name in names}
    return dataclasses.replace(w, **longer, max_length=times * w.max_length)


WORLDS: dict[str, Callable[[zoo.World], zoo.World]] = {
    "luspo": lambda w: spread(w, 10),  # its edges, 2e-3 and 2.5e-3, lie beyond this world's 5e-4
    "cispo": lambda w: spread(w, 6),  # as does its cap, 5
    "vapo": lambda w: stretched(w, 5),  # up to 20 tokens its lambda is 0, whatever alpha is near 0.05
}
"""Presets whose constants are out of the reach of `zoo.world()`, and what brings it there."""


def world_of(name: str) -> zoo.World:
    return WORLDS.get(name.partition("[")[0], lambda w: w)(zoo.world())


def mutants(objective: Objective) -> list[str]:
    """All single changes, in the notation of ablations."""
    changes: list[str] = []
    for column, family in FAMILIES.items():
        here = [part for part in objective.parts if isinstance(part, family)]
        kinds = [kind for kind in family.members if kind not in [part.kind for part in here]]
        changes += [f"{column}={kind}" + (f",{REQUIRED[kind]}" if kind in REQUIRED else "") for kind in kinds]
        if here and column in ("shape", "tokens", "correction", "kl", "value", "entropy", "imitation"):
            changes.append(f"{column}=none")
        for part in here:
            changes += [
                f"{column}.{field}={value}" for field in type(part).model_fields for value in other(part, field)
            ]
    return changes


def other(part: Part, field: str) -> list[str]:
    """Other values for a field: every other word, the other truth, off or on, a number half as large again."""
    value, annotation = getattr(part, field), type(part).model_fields[field].annotation
    if typing.get_origin(annotation) is typing.Literal:
        return [str(word) for word in typing.get_args(annotation) if word != value]
    if isinstance(value, bool):
        return [str(not value).lower()]
    if value is None:
        assert isinstance(annotation, types.UnionType)
        return ["1.0002" if float in typing.get_args(annotation) else "5"]
    if value == 0.0 and isinstance(value, float):
        return ["0.5"]
    if isinstance(value, int):
        return [str(value + 1 if allowed(part, field, value + 1) else value - 1)]
    return [f"{value * 1.5:g}" if allowed(part, field, value * 1.5) else f"{value / 2:g}"]


def allowed(part: Part, field: str, value: float) -> bool:
    try:
        type(part)(**{**{name: getattr(part, name) for name in type(part).model_fields}, field: value})
    except ValueError:
        return False
    return True


def outcome(objective: Objective) -> dict[str, Tensor]:
    """All that an objective decides about one rollout and one update, row by row of the whole rollout."""
    w = world_of(objective.name)
    keep_N = objective.select(w.accuracy_PG).repeat_interleave(4)
    chosen = zoo.kept(objective, w)
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, chosen))
    states = [state for state in zoo.next_states(objective, chosen).values() if isinstance(state, float)]
    return {
        "keep": keep_N.double(),
        "states": torch.tensor(states, dtype=torch.float64),
        "loss": loss,
        **{name: torch.zeros_like(w.logp_NT).index_put((keep_N,), g) for name, g in gradients.items()},
    }


@functools.cache
def outcome_of(name: str) -> dict[str, Tensor]:
    return outcome(get(name))


def differs(name: str, mutant: str) -> bool:
    before = outcome_of(name)
    after = outcome(get(f"{name.removesuffix(']')},{mutant}]" if "[" in name else f"{name}[{mutant}]"))
    if before.keys() != after.keys():
        return True
    return any(x.shape != after[key].shape or (x - after[key]).abs().sum() > 1e-9 for key, x in before.items())


CASES = [(name, mutant) for name in PRESETS for mutant in mutants(get(name))]


@pytest.mark.parametrize(("name", "mutant"), CASES, ids=lambda x: x)
def test_mutant_is_noticed(name: str, mutant: str) -> None:
    try:
        noticed = differs(name, mutant)
    except ValueError as refusal:
        assert any(reason in str(refusal) for reason in MISFITS), refusal
        return
    assert noticed != ((name, mutant) in INERT)


def test_every_inert_change_is_a_mutant() -> None:
    assert INERT.keys() <= set(CASES)


def test_mutants_cover_the_table() -> None:
    """At least one mutant per column of every preset, and one per field of every part in its row."""
    for name in PRESETS:
        changed = {mutant.partition("=")[0] for preset, mutant in CASES if preset == name}
        assert changed >= set(FAMILIES), name
        for part in get(name).parts:
            column = next(column for column, family in FAMILIES.items() if isinstance(part, family))
            assert changed >= {f"{column}.{field}" for field in type(part).model_fields}
    assert len(CASES) > 550
    assert set(PRESETS) <= set(names())


@pytest.mark.parametrize(("name", "mutant"), CASES, ids=lambda x: x)
def test_mutants_name_reads_back(name: str, mutant: str) -> None:
    full = f"{name}[{mutant}]"
    try:
        mutated = get(full)
    except ValueError:
        return  # refused, which the test above looks at
    assert get(mutated.name) == mutated
    assert Objective.model_validate_json(mutated.model_dump_json()) == mutated
    assert mutated.name.startswith(f"{name}[")


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_straight_through_is_noticed(kind: str) -> None:
    """Fields of parts that no preset has: the estimators' gradients differ though the values of k1 and k3 stay."""
    if kind == "k2":
        with pytest.raises(ValueError, match="kl 'k2' has no field 'straight_through'"):
            get("grpo[kl=k2,kl.straight_through=true]")
        return
    plain, through = outcome_of(f"grpo[kl={kind}]"), outcome_of(f"grpo[kl={kind},kl.straight_through=true]")
    torch.testing.assert_close(plain["loss"], through["loss"], rtol=1e-12, atol=1e-14)
    assert (plain["logp_BT"] - through["logp_BT"]).abs().max() > 1e-5


@pytest.mark.parametrize("change", ["floor=0.9", "cap=1.1"])
def test_bounds_of_clipped_weight_are_noticed(change: str) -> None:
    plain = outcome_of("grpo[surrogate=clipped_weight]")
    bounded = outcome_of(f"grpo[surrogate=clipped_weight,surrogate.{change}]")
    assert (plain["logp_BT"] - bounded["logp_BT"]).abs().max() > 1e-3


def test_a_tight_bound_of_the_kl_is_noticed() -> None:
    plain, bounded = outcome_of("grpo"), outcome_of("grpo[kl.bound=0.01]")
    assert (plain["logp_BT"] - bounded["logp_BT"]).abs().max() > 1e-4


@pytest.mark.parametrize("preset", ["grpo", "dapo", "gspo"])
def test_a_single_response_that_keeps_its_reward_is_noticed(preset: str) -> None:
    reward_N1, mask_N1 = torch.tensor([[1.0], [0.0], [3.0]]), torch.ones(3, 1, dtype=torch.bool)
    group_N = torch.tensor([0, 0, 1])
    zero, kept = (
        get(name).advantage(reward_N1, mask_N1, group_N) for name in (preset, f"{preset}[advantage.single=keep]")
    )
    assert torch.equal(zero.advantage_NT[:2], kept.advantage_NT[:2])
    assert (zero.advantage_NT[2].item(), kept.advantage_NT[2].item()) == (0, pytest.approx(3))


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ("reinforce[advantage.whiten=true]", "advantage.ddof=0"),
        ("grpo[advantage=group_others]", "advantage.scale=none"),
        ("grpo[advantage=group_others]", "advantage.eps=0.1"),
        ("grpo[surrogate=soft_gate]", "surrogate.positive=1.5"),
        ("grpo[surrogate=soft_gate]", "surrogate.negative=1.5"),
        ("grpo[surrogate=geometric_mean]", "surrogate.low=0.1"),
        ("grpo[surrogate=geometric_mean]", "surrogate.high=0.1"),
        ("grpo[tokens=clip_cov,tokens.low=0.1]", "tokens.share=0.05"),
        ("grpo[tokens=clip_cov,tokens.low=0.1]", "tokens.low=0.3"),
        ("grpo[tokens=clip_cov,tokens.low=0.1]", "tokens.high=0.5"),
        ("grpo[tokens=kl_cov]", "tokens.share=0.05"),
        ("grpo[tokens=kl_cov]", "tokens.coef=2"),
        ("grpo[correction=token]", "correction.cap=1.5"),
        ("grpo[correction=token]", "correction.cap=none"),
        ("grpo[correction=token]", "correction.beyond=mask"),
        ("grpo[correction=sequence]", "correction.cap=1.5"),
        ("grpo[correction=sequence]", "correction.beyond=mask"),
    ],
)
def test_fields_of_parts_that_no_preset_has_are_noticed(base: str, change: str) -> None:
    assert differs(base, change)


def test_a_second_mutant_is_not_hidden_by_the_first() -> None:
    assert not torch.equal(outcome_of("gspo[ratio=token]")["loss"], outcome_of("gspo[ratio=token,kl=k3]")["loss"])
