"""What a GPU has to be asked, in at most ten minutes: tests, speed, and ten steps of a published row's shape.

    python -m benchmarks.gpu_check --out runs/gpu_check          one CUDA device
    python -m benchmarks.gpu_check --out runs/dry --dry-run      every command, tiny and on the CPU

Each part is a process with a limit of its own; a part that is stopped keeps what it wrote. The row is verl's GRPO with
LoRA on GSM8K at 1.5B, its settings unchanged, on random weights of that shape: prompts of 120 tokens, responses of 280
on average, as its log has them. It says how fast a step is, and nothing of accuracy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer

from benchmarks.speed_models import SHAPES, Shape, write
from rlzoo.cli.shell import guarded
from rlzoo.config.run import RunConfig
from rlzoo.engine import load_model
from rlzoo.errors import UserError
from rlzoo.experiments.reproduce import find
from rlzoo.store.provenance import environment
from rlzoo.store.run_folder import read_lines
from rlzoo.training.launch import train

ROW, ROW_STEPS = "verl-grpo-lora-gsm8k-1.5b", 10
PROMPT_TOKENS, RESPONSE_TOKENS = 120, 280
LIMITS = {"tests": 150, "speed": 150, "row": 270}
"""Seconds for each part; 30 are left for starting."""
TINY = Shape(hidden_size=64, layers=2, heads=2, kv_heads=2, mlp_size=64, context=2048)
RESULT = "gpu_check.json"


@dataclass(frozen=True)
class Part:
    """One process of the check."""

    name: str
    command: list[str]


def parts(out: Path, dry: bool) -> list[Part]:
    """Return the processes of a check; of a dry one, on the CPU and small."""
    tests = ["-m", "pytest", "-m", "gpu", "-n", "0", "-q", "tests", *(["--collect-only"] if dry else [])]
    model = ["--quick"] if dry else ["--model", "qwen2.5-0.5b-shape", "--steps", "2", "--warmup", "1"]
    speed = ["-m", "benchmarks.speed", "--device", "cpu" if dry else "cuda", "--runs", "4", "--repeats", "1", *model]
    row = ["-m", "benchmarks.gpu_check", "--out", str(out), "--row", *(["--dry-run"] if dry else [])]
    made = {"tests": tests, "speed": [*speed, "--out", str(out / "speed")], "row": row}
    return [Part(name, [sys.executable, *command]) for name, command in made.items()]


def row_config(folder: Path, dry: bool) -> RunConfig:
    """Return the published row's settings on a random model and random prompts, all written into a folder.

    A dry row has a tiny model on the CPU, 1 step, 4 prompts and 4 new tokens.
    """
    row = find(ROW)
    shape = TINY if dry else SHAPES["qwen2.5-1.5b-shape"]
    model = write(shape, folder / "model", RESPONSE_TOKENS, torch.float32 if dry else torch.bfloat16)
    rng = Random(0)
    for name, count in (("gsm8k_train.jsonl", 64 * ROW_STEPS), ("gsm8k_test.jsonl", 16)):
        rows = [{"question": "".join(rng.choices("0123456789 +", k=PROMPT_TOKENS)), "answer": "#### 1"}] * count
        (folder / name).write_text("".join(f"{json.dumps(one)}\n" for one in rows), encoding="utf-8")
    table = row.config(ROW_STEPS, data=str(folder)).model_dump()
    table["task"] |= {"chat": None, "suffix": None}  # characters are the tokens of this model, which has no template
    table["backbone"] |= {"model": str(model)}
    table["evaluation"] |= {"every": ROW_STEPS}
    table["train"] |= {"silent_steps": None, "save_every": ROW_STEPS}  # every reward is 0
    if dry:
        table["backbone"] |= {"device": "cpu"}
        table["train"] |= {"steps": 1, "prompts_per_step": 4, "max_new_tokens": 4}
    return RunConfig.model_validate(table)


def run_row(out: Path, dry: bool) -> None:
    """Train the row; its records have the seconds and tokens of every step."""
    with tempfile.TemporaryDirectory() as folder:
        config = row_config(Path(folder), dry)
        train(config, out / "run", backbone=load_model(config.backbone))


def run_part(part: Part, limit: float, out: Path) -> dict[str, Any]:
    """Run a process with its output in `NAME.txt`; returns exit status (None: stopped at its limit) and seconds."""
    began = time.monotonic()
    with (out / f"{part.name}.txt").open("w", encoding="utf-8") as file:
        process = subprocess.Popen(part.command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
            status = None
    return {"command": part.command[1:], "status": status, "seconds": round(time.monotonic() - began, 1)}


def steps_of(out: Path) -> list[dict[str, Any]]:
    """Return what each step of the row cost, of those that were finished."""
    metrics = out / "run" / "metrics.jsonl"
    records = read_lines(metrics) if metrics.is_file() else []
    kept = ("step", "elapsed_s", "engine_s", "tokens_sampled", "tokens_trained", "length")
    return [{key: record.get(key) for key in kept} for record in records if record["kind"] == "train"]


@guarded
def main(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for outputs and the result.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="On the CPU, tiny: does every command start?")] = False,
    row: Annotated[bool, typer.Option("--row", hidden=True, help="Only the published row, in this process.")] = False,
) -> None:
    """Run all parts one after another and write gpu_check.json."""
    if not (dry_run or torch.cuda.is_available()):
        raise UserError("there is no CUDA device here: give --dry-run")
    if row:
        run_row(out, dry_run)
        return
    out.mkdir(parents=True, exist_ok=False)
    result: dict[str, Any] = {"environment": environment(), "parts": {}}
    for part in parts(out, dry_run):
        result["parts"][part.name] = run_part(part, LIMITS[part.name], out)
        result["steps"] = steps_of(out)
        (out / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(part.name, json.dumps(result["parts"][part.name]), flush=True)
    for step in result["steps"]:
        print(json.dumps(step))
    if any(one["status"] not in (0, None) for one in result["parts"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
