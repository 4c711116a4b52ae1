"""`rlzoo check` as a user types it: the conformance suite on an objective of one's own, without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MINE = '''
from objectives import get, register
from objectives.parts import Surrogate


class Bounded(Surrogate, kind="bounded"):
    """tanh(r - 1) A."""

    def __call__(self, log_ratio_BT, advantage_BT):
        return (log_ratio_BT.clamp(max=20).exp() - 1).tanh() * advantage_BT


class Scaled(Surrogate, kind="scaled"):
    """Divides by the largest advantage of whatever batch it is given."""

    def __call__(self, log_ratio_BT, advantage_BT):
        return log_ratio_BT.clamp(max=20).exp() * advantage_BT / advantage_BT.abs().amax().clamp(min=1)


register(get("grpo").but(name="my_objective", surrogate="bounded"))
register(get("grpo").but(name="broken", surrogate="scaled"))
'''


def rlzoo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as what the module registers stays."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "rlzoo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_an_objective_of_ones_own_is_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = rlzoo(tmp_path, "check", "my_objective", "--import", "mine.py")
    assert done.returncode == 0, done.stderr
    assert "    ok  micro batches add up\n" in done.stdout and "FAILED" not in done.stdout
    assert done.stdout.endswith("checks passed.\n")


def test_what_fails_is_named_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = rlzoo(tmp_path, "--import", "mine.py", "check", "broken", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["name"] == "broken" and len(found["checks"]) > 15
    assert "rows cut at" in found["failures"]["micro_batches_add_up"]


def test_an_unknown_objective_is_an_error_in_the_input(tmp_path: Path) -> None:
    done = rlzoo(tmp_path, "check", "grop")
    assert done.returncode == 2 and "did you mean 'grpo'" in done.stderr
