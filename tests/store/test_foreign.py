"""Logs of other trainers are read under our names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.experiments.doctor import examine
from rlzoo.store.foreign import read_log
from rlzoo.store.run_folder import RunFolder
from tests.cli.test_app import rlzoo

ROWS: list[dict[str, Any]] = [
    {"reward": 0.1 * n, "kl": 0.01, "entropy": 1.0, "frac_reward_zero_std": 1.0} for n in range(8)
]


RECORDING = Path(__file__).parents[1] / "recordings" / "trl_trainer_state.json"


def read(tmp_path: Path, *rows: dict[str, Any]) -> dict[str, list[float | None]]:
    """Rows as JSON lines, read."""
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return read_log(tmp_path / "log.jsonl")


def test_trl() -> None:
    """A real one: GRPOTrainer of TRL 1.16.0, 16 optimizer steps of a random model, two for each generation.

    TRL logs reward, silence and length with a generation alone, so every second step has none.
    """
    columns = read_log(RECORDING)
    assert columns["step"] == list(range(1, 17)) and set(columns) == {
        *("step", "reward", "reward_std", "silent_groups", "clip_fraction", "entropy", "length", "kl", "gradient_norm")
    }
    history = json.loads(RECORDING.read_text())["log_history"]
    theirs = {"reward": "reward", "length": "completions/mean_length", "clip_fraction": "clip_ratio/region_mean"}
    for ours, name in theirs.items():
        assert columns[ours] == [row.get(name) for row in history]
    assert [value is None for value in columns["reward"]] == [False, True] * 8
    assert not any(value is None for value in columns["kl"] + columns["entropy"])


def test_verl(tmp_path: Path) -> None:
    """verl's file logger writes {"step": ..., "data": {...}}, and since 2026 "elapsed_seconds" between them."""
    told = {"actor/pg_clipfrac": 0.4, "actor/ppo_kl": 0.1, "critic/rewards/mean": 0.5, "response_length/mean": 9.0}
    told |= {"critic/vf_explained_var": -0.1, "actor/entropy": 1.5, "actor/grad_norm": 0.25}
    columns = read(tmp_path, *({"step": n, "elapsed_seconds": 5.5, "data": told} for n in range(6)))
    assert columns["clip_fraction"] == [0.4] * 6 and columns["kl_old"] == [0.1] * 6 and columns["length"] == [9.0] * 6
    assert columns["explained_variance"] == [-0.1] * 6 and columns["gradient_norm"] == [0.25] * 6
    assert columns["step"] == list(range(6)) and columns["entropy"] == [1.5] * 6


PRIME_RL = [
    {
        "train/agg/effective/reward/mean": 0.5,
        "train/agg/all/reward/mean": 0.4,
        "train/agg/all/num_output_tokens/mean": 7.0,
    },
    {"train/agg/all/reward/mean": 0.5, "train/agg/effective/num_output_tokens/mean": 7.0},
    {"reward/all/mean": 0.5, "seq_len/all/mean": 30.0, "decode_len/all/mean": 7.0, "effective_batch_size/all": 0.25},
]


@pytest.mark.parametrize("told", PRIME_RL)
def test_prime_rl(told: dict[str, float], tmp_path: Path) -> None:
    """Its orchestrator of three ages; the trainer's own keys beside them."""
    trainer = {"entropy/all/mean": 0.2, "mismatch_kl/all/mean": 0.001, "optim/grad_norm": 1.0, "is_masked/mean": 0.01}
    columns = read(tmp_path, *({"step": n, **told, **trainer} for n in range(6)))
    assert columns["reward"] == [0.5] * 6 and columns["length"] == [7.0] * 6
    assert columns["entropy"] == [0.2] * 6 and columns["kl"] == [0.001] * 6 and columns["clip_fraction"] == [0.01] * 6
    assert columns.get("silent_groups") == ([0.75] * 6 if "effective_batch_size/all" in told else None)


def test_wandb(tmp_path: Path) -> None:
    lines = [
        '"Step","my run - train/kl","my run - train/reward"',
        *(f'"{n}","0.01","{n / 10}"' for n in range(6)),
        '"6","",""',
    ]
    (tmp_path / "export.csv").write_text("\n".join(lines))
    columns = read_log(tmp_path / "export.csv")
    assert columns["kl"] == [0.01] * 6 and columns["reward"][-1] == 0.5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[1]"),
        ("a.json", "{}"),
        ("a.jsonl", "x"),
        ("a.jsonl", '{"loss": 1}'),
        ("a.csv", "a,b\n1,2"),
        ("a.csv", ""),
    ],
)
def test_what_is_no_log_is_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        read_log(tmp_path / name)


def test_the_doctor_reads_them(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": ROWS}))
    told = " ".join(rlzoo("doctor", tmp_path / "trainer_state.json", width=300).output.split())
    assert "symptom: 100% of the groups have equal rewards" in told
    (found,) = json.loads(rlzoo("doctor", tmp_path / "trainer_state.json", "--json").stdout)
    assert found["damage"] == [] and len(found["symptoms"]) == 1
    rlzoo("doctor", tmp_path, code=2)


def test_the_doctor_finds_nothing_in_a_healthy_run_of_trl() -> None:
    (found,) = json.loads(rlzoo("doctor", RECORDING, "--json").stdout)
    assert found["symptoms"] == [] and found["notes"][-1].startswith("columns read: clip_fraction, entropy")


@pytest.mark.parametrize(("objective", "symptoms"), [("sft", 0), ("grpo", 1)])
def test_equal_rewards_are_no_symptom_where_demonstrations_are_learned_from(
    objective: str, symptoms: int, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path / "run", validate(RunConfig, {"objective": objective}, "x").stored())
    for step in range(1, 9):
        folder.log({"kind": "train", "step": step, "silent_groups": 1.0, "gradient_norm": 0.5})
    (found,) = examine([tmp_path / "run"])
    assert (len(found.symptoms), found.damage) == (symptoms, []), found
