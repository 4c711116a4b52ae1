"""`rlzoo lab` and `rlzoo claims` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from objectives import get
from rlzoo.cli.app import app
from rlzoo.cli.shell import BAD_INPUT
from rlzoo.lab.figure import AXES, along, draw
from rlzoo.lab.measure import Setting, sweep


def rlzoo(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


def test_lab_prints_a_table() -> None:
    result = rlzoo("lab", "grpo[kl=none]", "reinforce", "--longest", "3", "--updates", "2", "-g", "4")
    assert result.exit_code == 0, result.output
    assert "grpo[kl=none]" in result.stdout
    assert "~" not in result.stdout  # both are exact
    assert "1.0000" in result.stdout  # REINFORCE's cosine


def test_what_the_laboratory_has_not_is_refused() -> None:
    result = rlzoo("lab", "grpo", "sft")
    assert result.exit_code == BAD_INPUT
    assert "sft needs demonstration, which the laboratory cannot supply: leave it out" in result.output


def test_groups_too_large_to_measure_are_refused() -> None:
    result = rlzoo("lab", "grpo", "-g", "100000")
    assert result.exit_code == BAD_INPUT
    assert "'--group-size' / '-g': Input should be less than or equal to 1024" in result.output


def test_lab_fits_a_narrow_terminal_and_says_what_was_sampled() -> None:
    arguments = ["lab", "ppo", "dapo", "--updates", "3", "--groups", "60"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    assert "~0." in result.stdout and "sampled (60 groups)" in result.stdout


def test_lab_prints_json_with_every_update() -> None:
    result = rlzoo("lab", "reinforce", "--longest", "3", "--updates", "2", "--policy", "transformer", "--json")
    rows = json.loads(result.stdout)
    assert [row["update"] for row in rows] == [1, 2]
    assert rows[0]["cosine"] == pytest.approx(1, abs=1e-9)
    assert rows[0]["scale"] == pytest.approx(7 / 8, abs=1e-9)
    assert rows[0]["setting"]["policy"] == "transformer"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("lab", "grop"), "did you mean 'grpo'"),
        (("lab", "grpo", "--success", "1.5"), "above 0 and below 1"),
        (("lab", "grpo", "--out", "figure.txt"), ".png, .svg or .pdf"),
        (("lab", "grpo", "--longest", "30"), "smaller length"),
        (("lab", "dapo", "-g", "1"), "use larger groups"),
        (("claims", "zero-objectiv"), "did you mean 'zero-objective'"),
        (("lab", "--table", "belman"), "did you mean 'bellman'"),
        (("lab", "grpo", "--table", "bellman"), "leave out grpo"),
        (("lab", "--table", "bellman", "--out", "x.txt"), ".md file"),
        (("lab", "--table", "all"), "add --out PAGE.md"),
    ],
)
def test_bad_input_says_what_to_do(arguments: tuple[str, ...], hint: str) -> None:
    result = rlzoo(*arguments)
    assert result.exit_code == BAD_INPUT
    assert hint in " ".join(result.stderr.split())


def test_claims_prints_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "claims.md"
    result = rlzoo("claims", "zero-objective", "k3-in-the-loss-is-reverse-kl", "--out", str(path))
    assert result.exit_code == 0, result.output
    assert "supported" in result.stdout and "refuted" in result.stdout
    text = path.read_text()
    assert "| often said | 0 | 1 | 0 | 0 |" in text and "| our lemma | 1 | 0 | 0 | 0 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == 2 and all(line.replace("\\|", "").count("|") == 7 for line in rows)
    (only,) = json.loads(rlzoo("claims", "zero-objective", "--json").stdout)
    assert only["verdict"] == "supported" and only["numbers"]["objective"] < 1e-12


def test_a_named_claim_prints_its_card_and_draws_its_figure(tmp_path: Path) -> None:
    path = tmp_path / "card.png"
    result = rlzoo("claims", "shaped-rewards-need-selection", "--out", str(path))
    assert result.exit_code == 0, result.output
    for word in (
        "our lemma: derived",
        "conditions",
        "-7w/8",
        "-7 / sqrt 8 = -2.475",
        "true under the stated conditions",
    ):
        assert word in " ".join(result.stdout.split())
    assert path.stat().st_size > 10_000
    assert "name them" in " ".join(rlzoo("claims", "--out", str(path)).stderr.split())
    assert ".md file" in " ".join(rlzoo("claims", "zero-objective", "--out", "x.txt").stderr.split())


def test_a_table_by_name(tmp_path: Path) -> None:
    listed = rlzoo("lab", "--table", "list")
    assert listed.exit_code == 0 and "bellman" in listed.stdout and "length-normalizations" in listed.stdout
    result = rlzoo("lab", "--table", "credit", "--out", str(tmp_path / "deep" / "credit.png"))
    assert result.exit_code == 0, result.output
    assert "G_t (from t on)" in result.stdout and "E[(G - G_t) grad log pi(a_t|s_t)] = 0" in result.stdout
    assert (tmp_path / "deep" / "credit.png").stat().st_size > 10_000
    page = tmp_path / "share.md"
    found = json.loads(rlzoo("lab", "--table", "token-share", "--json", "--out", str(page)).stdout)
    assert found["rows"][0][:3] == ["gamma 1", 1.0, 0.5]
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 and all(line.count("|") == 8 for line in rows)


def test_the_figure_shows_what_the_sweep_measured(tmp_path: Path) -> None:
    centre = Setting(longest=3, updates=2, group_size=4)
    rows = sweep([get("reinforce"), get("grpo")], centre, {"group_size": (2, 4), "success": (0.1,)})
    own = [row for row in rows if row.objective == "grpo"]
    assert [row.setting.group_size for row in along(own, centre, "group_size")] == [2, 4]
    assert [row.setting.success for row in along(own, centre, "success")] == [0.1, 0.25]
    assert [row.update for row in along(own, centre, "update")] == [1, 2]
    assert set(AXES) == {"group_size", "longest", "success"}
    draw(rows, centre, 1000, tmp_path / "lab.png")
    assert (tmp_path / "lab.png").stat().st_size > 10_000
