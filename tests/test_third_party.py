"""A third-party package: a part, a preset and a task through entry points, built, installed and run.

It stands in tests/third_party and is installed into a folder of its own, so that no other test sees it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import objectives

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "tests" / "third_party" / "rlzoo_tilted"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip built the package from source into."""
    folder = tmp_path_factory.mktemp("installed")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(folder), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, in a folder, with what that folder has."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


RLZOO = """
import json
from typer.testing import CliRunner
import objectives
from rlzoo.cli.app import app

def rlzoo(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout

small = ["train.steps=2", "train.prompts_per_step=4", "train.group_size=4", "evaluation.prompts=4"]
small = [part for text in [*small, "train.minibatches=2", "evaluation.every=2"] for part in ("--set", text)]
"""
USE = """
from objectives.conformance import CHECKS, failures

assert failures(objectives.get("tilted[advantage.temperature=0.5]")) == {}
print(json.dumps({
    "list": rlzoo("list"),
    "parts": [row for row in json.loads(rlzoo("list", "parts", "--json")) if row["kind"] == "tilted"],
    "tasks": [row for row in json.loads(rlzoo("list", "tasks", "--json")) if row["kind"] == "double"],
    "show": json.loads(rlzoo("show", "tilted", "--json")),
    "family": objectives.families()["tilted"],
    "parent": objectives.parent("tilted"),
    "train": json.loads(rlzoo("train", "tilted", "--task", "double", "--out", "run", "--json", *small)),
    "checks": len(CHECKS),
}))
"""


def test_an_installed_package_adds_a_part_a_preset_and_a_task(installed: Path) -> None:
    """It is listed and shown, passes the conformance suite, and trains on its own task with the shipped model."""
    found = json.loads(python(installed, RLZOO + USE).stdout.splitlines()[-1])
    assert "tilted" in found["list"]
    assert found["parts"][0]["fields"] == {"temperature": 1.0} and found["parts"][0]["column"] == "advantage"
    assert found["tasks"][0]["form"] == "double" and found["tasks"][0]["about"].startswith("the double of a number")
    assert found["show"]["page"].startswith("Tilted: ") and found["show"]["row"]["advantage"] == "tilted(1)"
    assert (found["family"], found["parent"]) == (["tilted"], "grpo")
    assert found["checks"] > 10
    assert found["train"]["state"] == "done"
    config = json.loads((installed / "run" / "config.json").read_text())
    assert config["objective"]["name"] == "tilted" and config["task"]["name"] == "double"
    metrics = [json.loads(line) for line in (installed / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "tilted" not in objectives.names()  # nobody installed it here
    assert metrics and all(row["step"] <= 2 for row in metrics)


def test_its_advantage_by_hand(installed: Path) -> None:
    """Rewards 1, 0, 0 at T = 1: G e / (e + 2) - 1 and G / (e + 2) - 1, which sum to 0."""
    code = """
import json, torch
from rlzoo_tilted.objective import Tilted
from rlzoo_tilted.task import Double
reward_NT = torch.tensor([[1.0], [0], [0]], dtype=torch.float64)
credit = Tilted()(reward_NT, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, dtype=torch.long))
task = Double("double")
splits = {split: {task.problem(split, i).prompt for i in range(300)} for split in ("train", "test")}
problem = task.problem("train", 0)
print(json.dumps({"advantage": credit.advantage_NT.flatten().tolist(),
    "disjoint": not splits["train"] & splits["test"], "sizes": [len(splits["train"]), len(splits["test"])],
    "right": task.grade(problem, "9>" + problem.answer), "wrong": task.grade(problem, "1")}))
"""
    found = json.loads(python(installed, code).stdout)
    e = 2.718281828459045
    assert found["advantage"] == pytest.approx([3 * e / (e + 2) - 1, 3 / (e + 2) - 1, 3 / (e + 2) - 1], rel=1e-12)
    assert found["disjoint"] and found["sizes"][1] <= 18 < found["sizes"][0] <= 72
    assert (found["right"], found["wrong"]) == (1.0, 0.0)


def test_the_readme_is_such_a_package_in_one_file(tmp_path: Path) -> None:
    """Its section's Python, put into mine.py as it says, and the command that it gives; its entry points are these."""
    section = (ROOT / "README.md").read_text().partition("## Add your algorithm")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "mine.py").write_text("\n\n".join(blocks))
    (command,) = re.findall(r"`rlzoo (--import mine.py compare .*?)`", section)
    code = f"""
print(rlzoo(*{shlex.split(command)!r}, "--seeds", "1", "--out", "runs", "--json", *small))
"""
    rows = json.loads(python(tmp_path, RLZOO + code).stdout)["rows"]
    assert {row["objective"] for row in rows} == {"my_grpo", "grpo[surrogate=bounded]", "grpo"}
    (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    own = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    assert tomllib.loads(toml)["project"]["entry-points"].keys() == own["project"]["entry-points"].keys()
