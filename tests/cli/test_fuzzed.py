"""Each kind of setting that once gave way to fuzzing: a traceback, or a run without end. Now one clear sentence.

The kind, not the case: each has a neighbour that is as wrong, or one that is right and must be accepted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlzoo.cli.app import app
from rlzoo.config import limits
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.tasks import load_task
from rlzoo.training.held_out import MANY, held_out
from tests.cli.test_app import rlzoo

TRAIN, SET = ("train", "grpo"), "--set"
DEEP = 100_000

KINDS: list[tuple[tuple[str, ...], str]] = [
    # numbers beyond memory
    ((*TRAIN, SET, "train.group_size=2000000000"), "responses of up to 32 tokens need at least"),
    ((*TRAIN, SET, "train.max_new_tokens=2000000000000"), "need at least"),
    (("evaluate", "--task", "add:hard", "--prompts", "100000000000"), "an evaluation's 100,000,000,000 responses need"),
    (("compare", "grpo", "--seeds", "2000000000"), "the settings of 2,000,000,000 seeds need at least"),
    # numbers beyond 64 bits, or beyond float32
    ((*TRAIN, SET, "train.prompts_per_step=9223372036854775808"), "prompts_per_step"),
    ((*TRAIN, SET, "backbone.lora.r=9223372036854775808"), "64 bits"),
    ((*TRAIN, "--seed", "100000000000000000000"), "seed has more than 64 bits"),
    ((*TRAIN, SET, f"train.steps={'9' * 5000}"), "train.steps"),
    ((*TRAIN, SET, "backbone.lora.alpha=1e308"), "beyond float32"),
    ((*TRAIN, SET, "backbone.lora.alpha=1e-300"), "alpha"),
    ((*TRAIN, SET, "optimizer.lr=1e39"), "beyond float32"),
    ((*TRAIN, SET, "optimizer.lr=nan"), "finite number"),
    ((*TRAIN, SET, "train.temperature=inf"), "finite number"),
    (("train", "grpo[kl.coef=1e400]"), "kl.coef: should be a finite number"),
    (("train", "dapo[select.max_rounds=1000000]"), "max_rounds"),
    # text that is no regular expression, no device, no budget, no name
    ((*TRAIN, SET, "backbone.lora.target_modules=("), "is no regular expression"),
    ((*TRAIN, SET, "backbone.lora.target_modules=a{1000000000000}"), "is no regular expression"),
    ((*TRAIN, "--budget", "seconds=0"), "above 0"),
    ((*TRAIN, "--budget", "tokens=1e400"), "tokens"),
    # nested too deep
    ((*TRAIN, SET, f"task.columns={'[' * DEEP}"), "nested too deep"),
    ((*TRAIN, SET, f"train.steps={'{a=' * DEEP}"), "nested too deep"),
    # paths
    ((*TRAIN, "--out", "x" * 5000), "x" * 40),
    ((*TRAIN, "--task", "jsonl:a\0b"), "NUL"),
    ((*TRAIN, "--task", f"jsonl:{'x' * 5000}.jsonl"), "x" * 40),
    (("report", "/"), "/"),
    (("report", ""), "no run"),
    # options of the laboratory and of figures
    (("lab", "grpo", "--step", "1e308", "-g", "2", "--longest", "2"), "floating-point"),
    (("lab", "grpo", "--step", "nan"), "Invalid value for '--step'"),
    (("lab", "grpo", "-g", "100000"), "less than or equal to 1024"),
    (("lab", "grpo", "--success", "nan"), "--success must be a finite number"),
    (("values", "--judge", "nan"), "--judge must be a finite number"),
    (("values", "--epsilon", "inf"), "--epsilon must be a finite number"),
    (("warmstart", "--out", "out", SET, "tasks={'sort:easy' = 0}"), "every share must be above 0"),
    (("warmstart", "--out", "out", SET, "tasks={'sort:easy' = inf}"), "finite number"),
]


@pytest.mark.parametrize(("arguments", "said"), KINDS, ids=lambda x: " ".join(x)[:60] if isinstance(x, tuple) else "")
def test_every_kind_that_gave_way_is_a_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, nothing on stdout, no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)
    result = rlzoo(*arguments, code=2, width=300)
    assert result.stdout == "" and said in " ".join(result.stderr.split()), result.stderr[:2000]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_that_is_nested_too_deep_is_a_sentence(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"deep{suffix}"
    file.write_text(("a = " if suffix == ".toml" else "") + "[" * DEEP)
    assert "nested too deep" in rlzoo("train", "--config", file, "--out", tmp_path / "run", code=2).stderr
    assert not (tmp_path / "run").exists()


def test_a_figure_of_a_format_that_cannot_be_drawn_is_a_sentence(tmp_path: Path) -> None:
    for suffix in ("pgf", "exe", ""):
        assert "figure" in rlzoo("curves", tmp_path, "-o", tmp_path / f"x.{suffix}", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "grpo", SET, "backbone.device=meta"), "'meta' cannot be used (tensors on it have no data)"),
        (("train", "grpo", SET, "backbone.device=nowhere"), "'nowhere' cannot be used"),
        (("train", "grpo", "--out", ""), ". is not empty and holds no run"),
        (("train", "grpo", "--out", "a\0b"), "a"),
        (("evaluate", "x" * 5000), "File name too long"),
        (("report", "x" * 5000), "x" * 40),
    ],
)
def test_what_only_the_system_or_the_model_knows_is_a_sentence_too(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are found later than a setting; an empty --out is the folder where one stands, not empty here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
    assert shown.exit_code in (1, 2) and isinstance(shown.exception, SystemExit), shown.exception
    assert said in shown.stderr and "Traceback" not in shown.output
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"budget": "seconds=0.00001"}},
        {"train": {"budget": "tokens=10000000000M"}},
        {"backbone": {"lora": {"target_modules": r".*\.(q|v)_proj"}}},
        {"objective": "dapo[select.max_rounds=1000]"},
        {"evaluation": {"prompts": 1_000_000}},
        {"seed": 2**63 - 3_000_000},
        {"optimizer": {"lr": 3e38}},
    ],
)
def test_the_neighbour_that_is_possible_is_accepted(changes: dict[str, object]) -> None:
    """And it is read back from what config.json holds."""
    made = validate(RunConfig, {"objective": "grpo", **changes}, "x")
    assert RunConfig.model_validate(made.stored()).stored() == made.stored()


def test_seeds_and_problems_are_limited_by_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1 GiB holds the settings of 536,870 seeds and 3,579,139 problems: 2^30 / 2,000 and 2^30 / 300."""
    monkeypatch.setattr(limits, "memory_bytes", lambda: 2**30)
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (1024, limits.resource.RLIM_INFINITY))
    limits.check_seeds(536_870)
    with pytest.raises(ValueError, match="the settings of 536,871 seeds need at least 1 GiB, and this machine has"):
        limits.check_seeds(536_871)
    limits.check_problems(3_579_139, "add")
    with pytest.raises(UserError, match="3,579,140 problems of task 'add' need at least 1 GiB"):
        limits.check_problems(3_579_140, "add")
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (1024, 3000))
    assert len(validate(CompareConfig, {"objectives": ["grpo"], "seeds": 2936}, "x").seeds) == 2936
    with pytest.raises(UserError, match="2937 runs together keep about 3001 files open, and the system allows 3000"):
        validate(CompareConfig, {"objectives": ["grpo"], "seeds": 2937}, "x")
    stored = {"objectives": ["grpo"], "seeds": list(range(2937))}  # of another machine: still to be read
    assert len(validate(CompareConfig, stored, "x").seeds) == 2937


def test_an_endless_task_is_asked_for_no_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that runs out before may be asked for any number: it gives all that it has."""
    monkeypatch.setattr(limits, "memory_bytes", lambda: 2**20)
    with pytest.raises(UserError, match="4,000 problems of task 'add' need at least 0 GiB"):
        held_out(load_task("add:hard"), "test", 4000)
    few = held_out(load_task("sort:easy"), "test", 100_000_000)
    assert 0 < len(few) < MANY
