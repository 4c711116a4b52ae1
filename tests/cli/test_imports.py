"""What a command waits for: help for nothing, looking things up and refusing settings for torch alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
MODELS = ("transformers", "peft", "bitsandbytes", "tokenizers", "accelerate")
SLOW = (*MODELS, "datasets", "matplotlib", "scipy", "jinja2")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_settings_load_no_model_library() -> None:
    folders = "config.run, config.comparison, config.warmstart, config.sources, tasks"
    modules = ", ".join(f"rlzoo.{name.strip()}" for name in folders.split(","))
    loaded = run(f"import sys, {modules}; print(*sys.modules)").split()
    assert not set(SLOW) & set(loaded)


def test_looking_up_and_refusing_wait_for_no_slow_library() -> None:
    """Each command in turn, in one process; none of them may bring a slow library."""
    commands = [
        *("list", "list parts", "list tasks", "list settings", "show gspo", "show gspo[ratio=token]", "show grppo"),
        *("train grppo", "train grpo --set train.group_sise=4", "compare grpo grpo", "compare grpo --seeds 2 --lr -1"),
        *(
            "ablate dapo --dry-run",
            "ablate grpo --set train.stepz=3",
            "evaluate --set train.stepz=3",
            "warmstart --out x --set stepz=3",
        ),
    ]
    code = f"""
import sys
from typer.testing import CliRunner
from rlzoo.cli.app import app
for command in {commands!r}:
    result = CliRunner().invoke(app, command.split())
    slow = {set(SLOW)!r} & sys.modules.keys()
    print(command, "|", result.exit_code, "|", *sorted(slow))
"""
    lines = [line.split("|") for line in run(code).splitlines() if "|" in line]
    assert [line[0].strip() for line in lines] == commands
    assert [int(line[1]) for line in lines] == [0] * 6 + [2] * 5 + [0] + [2] * 3
    assert {line[0]: line[2].strip() for line in lines if line[2].strip()} == {}


def test_importing_rlzoo_is_quick_and_knows_its_version() -> None:
    code = "import sys, rlzoo; print(*{'torch', 'pydantic', 'numpy', 'typer'} & sys.modules.keys()); rlzoo.__version__"
    assert run(code).strip() == ""
