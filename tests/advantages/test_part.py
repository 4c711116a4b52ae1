"""Parts are open, closed to misspelling, and readable by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advantages import Advantage, All, Group, KLInReward, Mixed, Part, Select, Shape, SoftOverlong


def test_parse_reads_value_kind_and_table() -> None:
    assert Select.parse("mixed") == Mixed()
    assert Select.parse({"kind": "mixed", "max_rounds": 2}) == Mixed(max_rounds=2)
    assert Select.parse(All()) == All()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mixt", "unknown select 'mixt'; did you mean 'mixed'\\? known: all, mixed"),
        ({"kind": "mixed", "max_round": 2}, "select 'mixed' has no field 'max_round'; did you mean 'max_rounds'"),
        ({"max_rounds": 2}, "select: expected a kind or a table with a kind"),
        (7, "select: expected a kind or a table with a kind, got 7; known: all, mixed"),
        (SoftOverlong(), "select: expected a kind or a table with a kind"),
    ],
)
def test_parse_refuses(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Select.parse(value)


@pytest.mark.parametrize("part", [Mixed(max_rounds=2), Group(ddof=0), KLInReward(coef=0.1, target=6), SoftOverlong()])
def test_spec_is_what_parse_reads(part: Part) -> None:
    family = next(base for base in type(part).__mro__ if Part in base.__bases__)
    assert family.parse(part.spec()) == part
    assert family.family() == family.__name__.lower()


def test_parts_are_frozen_hashable_and_closed() -> None:
    assert len({Group(), Group(ddof=0), Group()}) == 2
    with pytest.raises(ValueError, match="frozen"):
        Group().ddof = 0
    with pytest.raises(ValueError, match="Extra inputs"):
        Group(dof=0)


def test_one_line_form_shows_what_matters() -> None:
    assert str(KLInReward()) == "kl(0.05)"
    assert str(KLInReward(target=6)) == "kl(0.05, target=6)"
    assert str(SoftOverlong()) == "soft_overlong"
    assert str(SoftOverlong(cache=0.1)) == "soft_overlong(cache=0.1)"
    assert str(Group(ddof=0)) == "group(std, ddof=0)"


def test_text_switches_optional_fields_off() -> None:
    assert Shape.parse({"kind": "kl", "target": "none"}).target is None
    assert Shape.parse({"kind": "kl", "target": "6"}).target == 6
    assert Advantage.parse({"kind": "group", "scale": "none"}).scale == "none"  # a word of its own


def test_a_member_defined_anywhere_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Select, "members", dict(Select.members))

    class First(Select, kind="first"):
        def __call__(self, accuracy_PG: Tensor) -> Tensor:
            return accuracy_PG[:, 0] > 0

    assert Select.parse("first") == First()
    assert "first" not in Shape.members

    with pytest.raises(ValueError, match=r"select 'first' exists already: .*First"):

        class Other(Select, kind="first"):
            pass


@pytest.mark.parametrize("base", [Select, Mixed])
def test_a_member_needs_a_kind_of_its_own(base: type[Select]) -> None:
    """A subclass of a member without a kind would be read back as its parent: another algorithm, silently."""
    with pytest.raises(ValueError, match="select Nameless needs a kind"):

        class Nameless(base):
            pass


def test_a_kind_is_a_word() -> None:
    with pytest.raises(ValueError, match="needs a kind, a word to name it by"):

        class Bad(Select, kind="a,b=c"):
            pass


def test_a_family_is_not_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="select: expected a kind"):
        Select()
    monkeypatch.setattr(Select, "members", dict(Select.members))

    class Idle(Select, kind="idle"):
        pass

    with pytest.raises(TypeError, match="Idle does not define __call__"):
        Idle()(torch.zeros(1, 1))
