"""`rlzoo values` as a user types it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import objectives
from rlzoo.cli import values
from rlzoo.cli.app import app
from rlzoo.cli.shell import BAD_INPUT
from rlzoo.lab.families import ValueSetting
from rlzoo.stats.intervals import interval

QUICK = ("--episodes", "32", "--seeds", "3", "--longest", "3")


def rlzoo(*arguments: str, columns: int = 160) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})


@pytest.mark.parametrize("columns", [80, 120])
def test_values_prints_every_family(columns: int) -> None:
    result = rlzoo("values", "reinforce", "ppo[entropy=bonus]", *QUICK, columns=columns)
    assert result.exit_code == 0, result.output
    for learner in ("Q-learning, double", "double DQN", "reinforce", "ppo[entropy=bonus]"):
        assert learner in result.stdout
    assert "…" not in result.stdout and ("±0." in result.stdout) == (columns == 120)


def test_values_prints_json() -> None:
    rows = json.loads(rlzoo("values", "grpo", *QUICK, "--json").stdout)
    assert [row["episodes"] for row in rows[:2]] == [16, 32]
    last = rows[-1]
    assert (last["learner"], last["family"], last["episodes"]) == ("grpo", "policy-based", 32)
    assert 0 < last["measures"]["reward"]["mean"] < 1 and last["measures"]["q_error"] is None


def test_values_writes_a_page_and_its_figure(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "values.md"
    result = rlzoo("values", "reinforce", *QUICK, "--out", str(path))
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert "- commit: " in text and "- hardware: " in text and "](values.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 11  # the heading, and each of eleven learners at the last checkpoint
    assert all(line.replace("\\|", "").count("|") == 9 for line in rows)
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_nobody_named_is_the_first_of_each_family() -> None:
    firsts = {names[0] for names in objectives.families().values()}
    assert {objective.name for objective in values.first_of_each_family()} >= {"reinforce", "ppo", "grpo"} & firsts


def test_shown_checkpoints_and_cells() -> None:
    assert values.shown(ValueSetting(episodes=4096)) == [64, 512, 4096]
    assert values.shown(ValueSetting(episodes=32)) == [32]
    assert values.cell(interval([0.5, 0.5])) == "0.500 ±0.000"
    assert values.cell(interval([-1e-5])) == "0.000" and values.cell(None) == ""


def test_agreement_of_all_seeds_is_no_certainty() -> None:
    """If 9 seeds in 10 answer right, 16 all do with probability 0.9^16 = 18.5%: the t interval is then 1 to 1.

    So it holds the true 0.9 far less often than 95% of the time, which the page's note makes up for.
    """
    p, seeds = 0.9, 16
    covered = 0.0
    for right in range(seeds + 1):
        found = interval([1.0] * right + [0.0] * (seeds - right))
        chance = math.comb(seeds, right) * p**right * (1 - p) ** (seeds - right)
        covered += chance * (found.low <= p <= found.high)
    assert covered < 0.82 and 1 - covered >= p**seeds > 0.18
    assert (1 - values.unseen(seeds)) ** seeds == pytest.approx(0.05)
    (note,) = [note for note in values.values_notes(ValueSetting(seeds=16)) if note.startswith("± 0.000")]
    assert "all 16 seeds" in note and "17%" in note


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("grop",), "did you mean 'grpo'"),
        (("--out", "page.png"), ".md file"),
        (("--epsilon", "2"), "between 0 and 1"),
        (("--judge", "-1"), "0 or more"),
        (("--longest", "1"), "length 2"),
    ],
)
def test_bad_input_says_what_to_do(arguments: tuple[str, ...], hint: str) -> None:
    result = rlzoo("values", *arguments)
    assert result.exit_code == BAD_INPUT
    assert hint in " ".join(result.stderr.split())
