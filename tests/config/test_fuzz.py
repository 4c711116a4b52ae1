"""Whatever can be typed as a setting ends in settings or in one clear sentence: strategies made from the schema."""

from __future__ import annotations

import json
import types
import typing
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from objectives import Objective, names
from rlzoo.config import limits
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import model_in, validate
from rlzoo.config.model import LoraSettings
from rlzoo.config.run import RunConfig
from rlzoo.config.sources import override
from rlzoo.config.warmstart import WarmstartConfig
from rlzoo.errors import UserError

ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [0, -1, 2**31, 2**63 - 1, 2**63, 10**20, -(10**400), 1e308, 1e-308, 5e-324, float("inf"), float("nan")]
    ),
    st.sampled_from(
        ["", " ", ".", "..", "../x", "/x", "a/b", "tune", "nul\0l", "\ud800", "x" * 300, "é", "\x1b[31m", "$x$"]
    ),
    st.sampled_from(
        [None, True, [], {}, [[]], {"": 1}, "[", "(", "a{1000000000000}", "seconds=0.00001", "tokens=10000000000M"]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
"""Values of any kind: ends of ranges, other types, names that lead elsewhere, text that no file holds."""


def plausible(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a setting's own type, most of them in its range."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return st.one_of([plausible(one) for one in (inner[:1] if origin is typing.Annotated else inner)])
    if origin in (tuple, list):
        return st.lists(plausible(inner[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(st.sampled_from(["grpo", "sort:easy", "x"]), plausible(inner[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, Objective):
        return st.sampled_from([*names(), "grpo[kl=none]", "nothing", "grpo["])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.fixed_dictionaries(
            {}, optional={n: plausible(f.annotation) for n, f in annotation.model_fields.items()}
        )
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(0, 64),
        float: st.floats(0, 4),
        str: st.sampled_from(["sort", "add:hard", "grpo", "auto", "tokens=200k", "updates=5", "cpu", "lr"]),
        type(None): st.none(),
    }
    return simple.get(annotation, st.none())


def places(model: type[BaseModel], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every setting of a model, by its path, with its type; those in tables and the tables themselves."""
    found: dict[tuple[str, ...], Any] = {}
    for name, field in model.model_fields.items():
        found[*above, name] = field.annotation
        inner = model_in(field.annotation)
        if inner is not None and not issubclass(inner, Objective):
            found |= places(inner, (*above, name))
    return found


def tables(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables of up to six settings, of which every few are odd; sometimes with one that is unknown.

    More settings at once would hardly ever fit together, and it is what is accepted that goes on to be stored.
    """
    known = places(model)
    known["unknwon",] = None
    drawn = st.sampled_from(list(known)).flatmap(
        lambda path: st.tuples(st.just(path), st.integers(0, 5).flatmap(lambda n: plausible(known[path]) if n else ODD))
    )
    start = {"objective": "grpo"} if "objective" in model.model_fields else {"objectives": ["grpo", "ppo"]}
    start = {name: value for name, value in start.items() if name in model.model_fields}
    return st.lists(drawn, max_size=6).map(lambda pairs: nested(start, pairs))


def nested(start: dict[str, Any], pairs: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Values by path as tables in tables; a value that stands where a table must is replaced by it."""
    table: dict[str, Any] = dict(start)
    for (*above, last), value in pairs:
        inner = table
        for name in above:
            if not isinstance(inner.get(name), dict):
                inner[name] = {}
            inner = inner[name]
        inner[last] = value
    return table


def ends_well(model: type[BaseModel], table: Any) -> None:
    try:
        made = validate(model, table, "x")
    except UserError as error:
        assert 0 < len(str(error)) < 20_000
        return
    if isinstance(made, RunConfig):
        stored = json.dumps(made.stored(), allow_nan=False, ensure_ascii=False).encode()  # what config.json holds
        assert RunConfig.model_validate(json.loads(stored)).stored() == made.stored()


CASES = [RunConfig, CompareConfig, WarmstartConfig]
CALM = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=150, derandomize=True)


def test_the_strategy_makes_settings_that_are_accepted_too() -> None:
    """What is refused is never stored, so a strategy whose tables are all refused would test half of `ends_well`."""
    accepted = {True: 0, False: 0}

    def count(table: dict[str, Any]) -> None:
        try:
            accepted[validate(RunConfig, table, "x") is not None] += 1
        except UserError:
            accepted[False] += 1

    CALM(given(table=tables(RunConfig))(count))()
    assert min(accepted.values()) >= 15, accepted


@pytest.mark.parametrize("model", CASES)
def test_settings_of_every_kind_end_in_settings_or_a_sentence(model: type[BaseModel]) -> None:
    CALM(given(table=tables(model))(lambda table: ends_well(model, table)))()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 40 s each on a quiet machine
@pytest.mark.parametrize("model", CASES)
def test_settings_of_every_kind_in_full(model: type[BaseModel]) -> None:
    full = settings(CALM, max_examples=5000, derandomize=False, phases=[Phase.generate, Phase.shrink])
    full(given(table=st.one_of(tables(model), ODD))(lambda table: ends_well(model, table)))()


@settings(CALM, max_examples=100)
@given(name=st.sampled_from(["train.steps", "objective", "task.name", "seed", "backbone.lora.r", "x"]), value=st.text())
def test_assignments_end_in_settings_or_a_sentence(name: str, value: str) -> None:
    try:
        table = override({"objective": "grpo"}, [f"{name}={value}"])
    except UserError:
        return
    ends_well(RunConfig, table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"group_size": 2_000_000_000}},
            "responses of up to 32 tokens need at least .* GiB, and this machine",
        ),
        ({"train": {"prompts_per_step": 2**63}}, "prompts_per_step has more than 64 bits|need at least"),
        ({"evaluation": {"prompts": 10**11}}, "an evaluation's 100,000,000,000 responses need at least"),
        ({"seed": 10**20}, "seed has more than 64 bits"),
        ({"backbone": {"lora": {"alpha": 1e308}}}, "beyond float32"),
        ({"backbone": {"lora": {"target_modules": "("}}}, "is no regular expression"),
        ({"optimizer": {"lr": 1e39}}, "beyond float32"),
        ({"objective": "dapo[select.max_rounds=1000000]"}, "max_rounds.*less than or equal to 1000"),
        ({"task": {"name": "sort\0"}}, "has a NUL"),
        ({"train": {"budget": "seconds=0"}}, "finite and above 0"),
    ],
)
def test_what_no_machine_can_do_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(RunConfig, {"objective": "grpo", **changes}, "x")


@pytest.mark.parametrize("budget", ["seconds=0.00001", "tokens=10000000000M", "updates=1e3"])
def test_a_budget_is_read_back_from_how_it_is_stored(budget: str) -> None:
    made = validate(RunConfig, {"objective": "grpo", "train": {"budget": budget}}, "x")
    assert RunConfig.model_validate(made.stored()).stored() == made.stored()


def test_a_regular_expression_is_still_one() -> None:
    assert LoraSettings(target_modules=r".*\.(q|v)_proj").target_modules == r".*\.(q|v)_proj"


def test_runs_beyond_memory_and_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"1000000 runs of 1,000,000 trained parameters each need at least 14,901 GiB"):
        limits.check_runs(1_000_000, 1_000_000)  # 16 bytes each: 1.6e13 / 2^30
    allowed = [(100, 200)]
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: allowed[-1])
    monkeypatch.setattr(limits.resource, "setrlimit", lambda _, pair: allowed.append(pair))
    limits.allow_files(30)
    limits.allow_files(60)
    assert allowed == [(100, 200), (124, 200)]  # 60 and the 64 beside them
    with pytest.raises(UserError, match="200 runs together keep about 264 files open, and the system allows 200"):
        limits.allow_files(200)
