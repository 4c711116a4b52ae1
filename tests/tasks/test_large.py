"""Large data stay on the disk: what a million lines take before the first step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_app import ENVIRONMENT

LINES = 1_000_000
START = """
import sys, time
from pathlib import Path
from rlzoo.config.model import BackboneConfig
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import load_task
from rlzoo.training.rollout import check_prompts, draw

def megabytes():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

backbone = Backbone.load(BackboneConfig(device="cpu"))
before, started = megabytes(), time.process_time()
task = load_task("jsonl:" + sys.argv[1])
check_prompts(backbone, task, 32, backbone.context_length)
draw(task, 0, 0, 0, 8)
print(task.size("train") + task.size("test"), time.process_time() - started, megabytes() - before)
"""


@pytest.mark.slow
def test_a_million_lines_take_seconds_and_little_memory(tmp_path: Path) -> None:
    with open(tmp_path / "big.jsonl", "w") as file:
        file.writelines(f'{{"prompt": "{i}+{i % 97}=", "answer": "{i + i % 97}"}}\n' for i in range(LINES))
    command = [sys.executable, "-c", START, str(tmp_path / "big.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    rows, seconds, megabytes = map(float, done.stdout.split())
    assert rows == LINES
    assert seconds < 20 and megabytes < 300
