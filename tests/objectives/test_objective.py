"""Rows: what fits together, what each needs, how an ablation is named and read back."""

from __future__ import annotations

import pytest

from advantages import GAE, Group, KLInReward, SoftOverlong
from objectives import Objective, get
from objectives.parts import K3, Clip, Constant, Linear, NoRatio, SequenceSum, Token


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("reinforce", set()),
        ("reinforce[advantage.baseline=leave_one_out]", {"group"}),
        ("ppo", {"value", "logp", "ref_logp"}),
        ("ppo[shape=none]", {"value"}),
        ("ppo[entropy=bonus]", {"value", "logp", "ref_logp", "entropy"}),
        ("grpo", {"group", "ref_logp"}),
        ("grpo[kl=none]", {"group"}),
        ("dapo", {"group"}),
        ("gspo", {"group"}),
        ("reinforce[select=mixed]", {"group"}),
    ],
)
def test_needs_are_the_union_of_the_parts(name: str, needs: set[str]) -> None:
    assert get(name).needs == needs


def test_rows_of_the_table() -> None:
    table = {
        name: {k: v for k, v in get(name).row().items() if v} for name in ("reinforce", "ppo", "grpo", "dapo", "gspo")
    }
    group = {"advantage": "group(std)", "select": "all"}
    assert table == {
        "reinforce": {
            "select": "all",
            "advantage": "reward_to_go(batch_mean)",
            "ratio": "none",
            "surrogate": "linear",
            "aggregate": "sequence_sum",
        },
        "ppo": {
            "select": "all",
            "shape": "kl(0.05)",
            "advantage": "gae(1, 0.95)",
            "ratio": "token",
            "surrogate": "clip(0.2, 0.2)",
            "aggregate": "token_mean",
            "value": "clipped(0.5, 0.2)",
        },
        "grpo": group
        | {"ratio": "token", "surrogate": "clip(0.2, 0.2)", "aggregate": "sequence_mean", "kl": "k3(0.04)"},
        "dapo": group
        | {"select": "mixed", "shape": "soft_overlong"}
        | {"ratio": "token", "surrogate": "clip(0.2, 0.28)", "aggregate": "token_mean"},
        "gspo": group | {"ratio": "sequence", "surrogate": "clip(0.0003, 0.0004)", "aggregate": "sequence_mean"},
    }
    assert tuple(get("gspo").row()) == Objective.columns


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppo[value=none]", "ppo: advantage 'gae' needs a trained critic: set value='clipped' or value='plain'"),
        ("grpo[advantage=gae]", "grpo: advantage 'gae' needs a trained critic"),
        ("grpo[value=plain]", "value 'plain' trains a critic that advantage 'group' never uses: set advantage='gae'"),
        (
            "grpo[ratio=none]",
            "with ratio 'none' every ratio is 1 and surrogate 'clip' is inert: set surrogate='linear'",
        ),
        ("reinforce[surrogate=clipped_weight]", "surrogate 'clipped_weight' is inert"),
        ("ppo[shape=kl+kl]", "shape has a part twice"),
        ("grpo[rato=token]", "an objective has no column 'rato'; did you mean 'ratio'"),
        ("grpo[surrogate.hihg=1]", "surrogate 'clip' has no field 'hihg'; did you mean 'high'"),
        ("grpo[surrogate=clop]", "unknown surrogate 'clop'; did you mean 'clip'"),
        ("gspo[kl.coef=1]", "kl.coef: column 'kl' is empty; give it a part first, kl=KIND"),
        ("grpo[ratio]", "'ratio' is not column=value"),
        ("grpo[ratio=token+sequence]", "column 'ratio' takes one part, got token and sequence"),
        ("dapo[shape=kl+soft_overlong,shape.coef=1]", "several parts; say shape.kl.coef or shape.soft_overlong.coef"),
        ("grpo[surrogate.high=wide]", "unable to parse string as a number"),
        ("grpo[aggregate=constant]", "Field required"),
        ("grpo[advantage=none]", "advantage: expected a kind or a table with a kind, got None"),
    ],
)
def test_misfits_and_misspellings_say_the_way_out(name: str, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        get(name)
    assert message in str(refusal.value)


def test_two_cells_may_change_together_where_one_would_not_fit() -> None:
    plain = get("ppo").but(ratio="none", surrogate="linear", advantage="group", value=None)
    assert plain.name == "ppo[ratio=none,surrogate=linear,advantage=group,value=none]"
    assert (plain.ratio, plain.surrogate, plain.value) == (NoRatio(), Linear(), None)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"ratio": "token"}, "gspo[ratio=token]"),
        ({"ratio": Token()}, "gspo[ratio=token]"),
        ({"surrogate": Clip(high=0.28)}, "gspo[surrogate=clip,surrogate.high=0.28]"),
        ({"surrogate": {"kind": "clip", "low": 0.1}}, "gspo[surrogate=clip,surrogate.low=0.1]"),
        ({"surrogate.high": 0.28, "kl": K3()}, "gspo[surrogate.high=0.28,kl=k3]"),
        ({"surrogate.high": "0.280"}, "gspo[surrogate.high=0.28]"),
        ({"surrogate.dual": 3}, "gspo[surrogate.dual=3]"),
        ({"surrogate.low": 1 / 3}, f"gspo[surrogate.low={1 / 3!r}]"),
        ({"aggregate": Constant(budget=1)}, "gspo[aggregate=constant,aggregate.budget=1]"),
        ({"kl": K3(straight_through=True)}, "gspo[kl=k3,kl.straight_through=true]"),
        ({"shape": "kl+soft_overlong"}, "gspo[shape=kl+soft_overlong]"),
        (
            {"shape": (KLInReward(target=6), SoftOverlong(cache=0.1))},
            "gspo[shape=kl+soft_overlong,shape.kl.target=6,shape.soft_overlong.cache=0.1]",
        ),
        ({"shape": KLInReward(coef=0.1)}, "gspo[shape=kl,shape.kl.coef=0.1]"),
        ({"shape": ["kl"], "shape.coef": 0.1}, "gspo[shape=kl,shape.coef=0.1]"),
        ({"shape": ()}, "gspo[shape=none]"),
        ({"advantage": GAE(lam=1, whiten=False), "value": "plain"}, None),
        ({"advantage": Group(scale="none")}, "gspo[advantage=group,advantage.scale=none]"),
        ({}, "gspo"),
    ],
)
def test_an_ablation_names_itself_and_reads_back(changes: dict[str, object], name: str | None) -> None:
    ablation = get("gspo").but(**changes)
    assert ablation.name == (name or "gspo[advantage=gae,advantage.lam=1,advantage.whiten=false,value=plain]")
    assert get(ablation.name) == ablation
    assert Objective.model_validate_json(ablation.model_dump_json()) == ablation
    assert get("gspo").but(name=ablation.name) == get("gspo").but(name=ablation.name)


def test_later_changes_replace_earlier_ones_in_the_name() -> None:
    first = get("gspo").but(**{"surrogate": "clip", "surrogate.high": 0.3, "ratio": "token"})
    assert first.but(ratio="sequence").name == "gspo[surrogate=clip,surrogate.high=0.3,ratio=sequence]"
    assert first.but(surrogate="linear").name == "gspo[ratio=token,surrogate=linear]"
    assert first.but(surrogate="linear").surrogate == Linear()
    again = get("gspo[surrogate=clip,surrogate.high=0.3,surrogate=clip]")
    assert again.surrogate == Clip()
    assert again.name == "gspo[surrogate=clip]"


def test_name_renames_instead() -> None:
    mine = get("gspo").but(name="mine", ratio="token")
    assert mine.name == "mine"
    assert mine.but(kl="k3").name == "mine[kl=k3]"


def test_but_leaves_the_original_alone() -> None:
    before = get("ppo").model_dump()
    get("ppo").but(**{"shape.coef": 0.5, "advantage.lam": 0.5})
    assert get("ppo").model_dump() == before
    with pytest.raises(ValueError, match="frozen"):
        get("ppo").name = "other"


def test_parts_stand_in_order_of_execution() -> None:
    assert [part.kind for part in get("ppo").parts] == ["all", "kl", "gae", "token", "clip", "token_mean", "clipped"]


def test_an_objective_by_hand_accepts_kinds_tables_and_values() -> None:
    mine = Objective(
        name="mine", advantage="group", ratio="none", surrogate={"kind": "linear"}, aggregate=SequenceSum(), kl="none"
    )
    assert (mine.advantage, mine.ratio, mine.kl, mine.shape) == (Group(), NoRatio(), None, ())
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Objective(name="mine", advantage="group", ratio="none", surrogate="linear", aggregate="token_mean", clip=0.2)


def test_changes_are_the_cells_that_differ() -> None:
    dapo, grpo = get("dapo"), get("grpo")
    assert dapo.changes_from(grpo) == {
        "select": "mixed",
        "shape": "soft_overlong",
        "surrogate": "clip(0.2, 0.28)",
        "aggregate": "token_mean",
        "kl": "none",
    }
    assert grpo.changes_from(grpo) == {}
    assert set(grpo.changes_from(dapo)) == set(dapo.changes_from(grpo))
