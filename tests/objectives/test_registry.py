"""Objectives by name, our own and other people's."""

from __future__ import annotations

import types
from importlib.metadata import EntryPoint

import pytest

import objectives
from objectives import Objective, families, get, names, page, parent, register
from objectives import registry as module


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registered."""
    monkeypatch.setattr(module, "_registry", dict(module._registry))
    monkeypatch.setattr(module, "_pages", dict(module._pages))


def offer(monkeypatch: pytest.MonkeyPatch, **loaded: object) -> None:
    """Pretend that packages with these entry points are installed. A value that is a function is called to load."""
    entries: list[EntryPoint] = []
    for name, value in loaded.items():

        class Entry(EntryPoint):
            _loads = staticmethod(value if isinstance(value, types.FunctionType) else lambda value=value: value)

            def load(self) -> object:
                return self._loads()

        entries.append(Entry(name=name, value=f"somewhere:{name}", group="rlzoo.objectives"))
    monkeypatch.setattr(module, "entry_points", lambda group: entries if group == "rlzoo.objectives" else [])
    module._entry_points.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    yield lambda **loaded: offer(monkeypatch, **loaded)
    monkeypatch.undo()
    module._entry_points.cache_clear()


def test_the_five_stand_in_the_order_of_the_table() -> None:
    five = ["reinforce", "ppo", "grpo", "dapo", "gspo"]
    assert [name for name in names() if name in five] == five
    assert get("gspo") is objectives.gspo.GSPO


@pytest.mark.parametrize("name", names())
def test_every_page_has_equation_source_constants(name: str) -> None:
    text = page(name)
    for part in ("    ", "Source: ", "Constants: ", "When it is inert: ", "Disputed: "):
        assert part in text, part
    title = text.partition(":")[0].lower().replace("++", "pp")
    letters = [sorted(c for c in words if c.isalnum()) for words in (title, name)]
    assert letters[0] == letters[1], "the page is headed by the objective's name (2-GRPO for grpo_2)"


def test_an_ablation_has_its_bases_page() -> None:
    assert page("gspo[ratio=token]") == page("gspo")


def test_unknown_names_suggest_the_nearest() -> None:
    hint = "unknown objective 'gpso'; did you mean 'gspo'\\? known: .*dapo, .*grpo, .*gspo"
    with pytest.raises(ValueError, match=hint):
        get("gpso")
    with pytest.raises(ValueError, match="unknown objective 'zzz'; known: "):
        page("zzz[ratio=token]")


@pytest.mark.parametrize(
    "name", ["gspo[ratio", "gspo[ratio=token", "gspo]", "gspo[ratio=token]x", "gspo[kl=k3][ratio=token"]
)
def test_brackets_come_in_one_pair_at_the_end(name: str) -> None:
    with pytest.raises(ValueError, match=r"an ablation ends with its changes in brackets: NAME\[COLUMN=VALUE,\.\.\.\]"):
        get(name)


def test_a_duplicate_raises_and_the_same_again_does_not() -> None:
    with pytest.raises(ValueError, match="objective 'gspo' exists already; give yours another name"):
        register(get("gspo").but(name="gspo", ratio="token"))
    assert register(get("gspo")) == get("gspo")
    assert page("gspo") == objectives.gspo.__doc__.strip()


@pytest.mark.parametrize("name", ["gspo[ratio=token]", "", "a b", "2fast", "a,b"])
def test_names_must_not_read_as_ablations(name: str) -> None:
    with pytest.raises(ValueError, match="must be letters, digits and underscores"):
        register(get("gspo").but(name=name or " "))


def test_registered_is_known() -> None:
    mine = register(get("gspo").but(name="mine", ratio="token"), page="Mine.\n")
    assert names()[-1] == "mine"
    assert get("mine") is mine
    assert page("mine") == "Mine."
    assert get("mine[kl=k3]").name == "mine[kl=k3]"
    assert families()["more"] == ["mine"]
    assert parent("mine") is None
    assert (parent("dapo"), parent("dapo[kl=k3]"), parent("cispo@trl")) == ("grpo", "grpo", "cispo")
    assert [name for family in families().values() for name in family] == names()


def test_entry_points_may_be_an_objective_or_a_module_that_registers(installed) -> None:
    def third_party_module() -> types.ModuleType:
        register(get("dapo").but(name="theirs", select="all"))  # asks the registry while it is being loaded
        return types.ModuleType("theirs")

    installed(direct=get("gspo").but(name="direct", kl="k3"), theirs=third_party_module)
    assert names()[-2:] == ["direct", "theirs"]
    assert get("theirs").select == objectives.grpo.GRPO.select
    assert get("direct[kl=k2]").name == "direct[kl=k2]"


def test_an_entry_point_that_is_neither_is_named(installed) -> None:
    installed(odd={"kind": "clip"})
    with pytest.raises(TypeError, match=r"entry point 'odd' = 'somewhere:odd'.* is a dict: expected an Objective"):
        names()


def test_an_entry_point_that_fails_is_named_every_time(installed) -> None:
    def broken() -> Objective:
        raise ImportError("no module named their_dependency")

    installed(broken=broken)
    for _ in range(2):
        with pytest.raises(ImportError, match="their_dependency") as failure:
            get("gspo")
        assert any("entry point 'broken'" in note for note in failure.value.__notes__)


def test_an_entry_point_may_not_replace_ours(installed) -> None:
    installed(gspo=get("gspo").but(name="gspo", ratio="token"))
    with pytest.raises(ValueError, match="objective 'gspo' exists already"):
        names()
