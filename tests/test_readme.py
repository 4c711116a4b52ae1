"""The README is correct: its table is the registry's, its Python runs, its commands exist."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rlzoo
from objectives import get, names, registry
from objectives.parts import Surrogate
from rlzoo.cli import app, zoo
from rlzoo.tasks import load_task
from rlzoo.tasks import registry as task_registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CALLS = ("compare", "ablate", "train", "evaluate", "load")


def test_the_table_is_the_registrys() -> None:
    table = re.search(r"<!-- table: rlzoo list --markdown -->\n(.*?)<!-- /table -->", README, re.DOTALL)
    assert table is not None and table[1].strip() == zoo.markdown().strip()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=lambda c: c.split("\n")[0])
def test_python_blocks_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    monkeypatch.setattr(registry, "_pages", dict(registry._pages))
    monkeypatch.setattr(Surrogate, "members", dict(Surrogate.members))
    monkeypatch.setattr(task_registry, "_TASKS", dict(task_registry._TASKS))
    scope: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), scope)
    if "loss" in scope:
        # Rewards 1, 0, 1, 0: mean 1/2, std sqrt(4 * 1/4 / 3); at ratio 1 the loss is minus the mean advantage, 0.
        assert scope["loss"].item() == pytest.approx(0)  # type: ignore[attr-defined]
        advantage = 0.5 / ((1 / 3) ** 0.5 + 1e-6)
        gradient = scope["logp_BT"].grad  # type: ignore[attr-defined]
        assert gradient[:, 0].tolist() == pytest.approx([-advantage / 12, advantage / 12] * 2)
    if "graded" in scope:
        assert scope["graded"](["it is 12", "no", " "], answer=["12", "3", "4"]) == [1.0, 0.1, 0.0]  # type: ignore[operator]
    if "Bounded" in scope:
        assert get("grpo[surrogate=bounded]").surrogate.kind == "bounded"
    if "Double" in scope:
        task = load_task("double")
        assert task.grade(task.problem("test", 0), f"1>{task.problem('test', 0).answer}") == 1


def test_commands_exist() -> None:
    said = set(re.findall(r"^rlzoo (\w+)", README, re.MULTILINE))
    assert said >= {"list", "show", "compare", "train", "evaluate", "curves", "warmstart"}
    for name in said:
        assert CliRunner().invoke(app.app, [name, "--help"]).exit_code == 0
    for name in re.findall(r"--import mine.py (\w+)", README):
        assert CliRunner().invoke(app.app, [name, "--help"]).exit_code == 0
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert all(name in README for name in names() if name in ("reinforce", "ppo", "grpo", "dapo", "gspo"))


def test_the_python_api_is_as_shown() -> None:
    """Every call of `rlzoo` takes its arguments, and every attribute of a result is there. The notebook runs them."""
    (code,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    ours = [call for call in calls if ast.unparse(call.func).startswith("rlzoo.")]
    assert {ast.unparse(call.func) for call in ours} == {f"rlzoo.{n}" for n in CALLS}
    for call in ours:
        function = getattr(rlzoo, ast.unparse(call.func).removeprefix("rlzoo."))
        inspect.signature(function).bind(*call.args, **{keyword.arg or "": keyword for keyword in call.keywords})
    for owner, kind in (("result", rlzoo.Comparison), ("run", rlzoo.Run)):
        names = set(re.findall(rf"\b{owner}\.(\w+)", code))
        assert names and all(hasattr(kind, name) for name in names)
    assert hasattr(rlzoo.Ablation, "contrasts")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links if "://" not in link)
