"""Training goes on when nobody listens: stderr closed or full, its reader gone; the results are in the folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_console import ENVIRONMENT

SETTINGS = (
    "--task sort:easy --steps 3 --set train.prompts_per_step=2 --set train.group_size=2 --set train.minibatches=1 "
    "--set train.max_new_tokens=8 --set evaluation.prompts=4 --set backbone.device=cpu"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "code"),
    [("2>&-", 0), ("2>/dev/full", 0), ("2>&1 >/dev/null | head -c 1", 0), (">/dev/full", 1), (">&-", 0)],
)
def test_a_run_ends_whoever_listens(redirection: str, code: int, tmp_path: Path) -> None:
    line = (
        f"{sys.executable} -m rlzoo train grpo {SETTINGS} --out {tmp_path}/run {redirection}; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT, timeout=280)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "done"
