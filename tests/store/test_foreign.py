"""Logs of other trainers are read under our names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlzoo.errors import UserError
from rlzoo.store.foreign import read_log
from tests.cli.test_app import rlzoo

ROWS: list[dict[str, Any]] = [
    {"reward": 0.1 * n, "kl": 0.01, "entropy": 1.0, "frac_reward_zero_std": 1.0} for n in range(8)
]


def test_trl(tmp_path: Path) -> None:
    history = [{"step": n, "completions/mean_length": 7.5, **row} for n, row in enumerate(ROWS, start=1)]
    history.append({"train_runtime": 12.0, "step": 8})  # what it ends with is no step
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    columns = read_log(tmp_path / "trainer_state.json")
    assert columns["step"] == list(range(1, 9)) and columns["silent_groups"] == [1.0] * 8
    assert columns["length"] == [7.5] * 8 and columns["reward"][3] == pytest.approx(0.3)


def test_verl_and_prime_rl(tmp_path: Path) -> None:
    verl = [
        {"step": n, "data": {"actor/pg_clipfrac": 0.4, "actor/ppo_kl": 0.1, "critic/rewards/mean": 0.5}}
        for n in range(6)
    ]
    (tmp_path / "verl.jsonl").write_text("\n".join(map(json.dumps, verl)))
    assert read_log(tmp_path / "verl.jsonl")["clip_fraction"] == [0.4] * 6
    prime = [{"step": n, "reward/mean": 0.5, "entropy/mean": 0.2, "mismatch_kl/mean": 0.001} for n in range(6)]
    (tmp_path / "prime.jsonl").write_text("\n".join(map(json.dumps, prime)) + "\n")
    columns = read_log(tmp_path / "prime.jsonl")
    assert columns["entropy"] == [0.2] * 6 and columns["kl"] == [0.001] * 6


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
