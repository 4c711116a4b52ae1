"""The Python API: arguments, results, and continuation after an interruption."""

from __future__ import annotations

import _thread
import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlzoo
from objectives import get
from rlzoo.api import frames
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from tests.runs import EvenTask

SIZES = {"steps": 2, "prompts_per_step": 2, "group_size": 2, "minibatches": 2, "max_new_tokens": 6, "save_every": 1}
SMALL = {"train": SIZES, "evaluation": {"every": 2, "prompts": 4}, "progress": False}


def always(completions: list[str], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


@pytest.fixture
def result(backbone: Backbone, tmp_path: Path) -> rlzoo.Comparison:
    return rlzoo.compare(["grpo", "reinforce"], task="even", seeds=2, model=backbone, out=tmp_path / "out", **SMALL)  # type: ignore[arg-type]


def test_a_comparison_has_tables_figure_and_report(result: rlzoo.Comparison) -> None:
    assert result.summary["objective"].tolist() == ["grpo", "reinforce"]
    assert result.summary["seeds"].tolist() == [2, 2]
    runs = result.runs
    assert list(zip(runs["objective"], runs["seed"], strict=True)) == [
        (name, seed) for name in ("grpo", "reinforce") for seed in (0, 1)
    ]
    means = runs.groupby("objective")["after.accuracy"].mean()
    assert result.summary["after"].tolist() == pytest.approx([means["grpo"], means["reinforce"]])
    curves = result.curves
    assert set(curves["row"]) == {"grpo", "reinforce"} and set(curves["kind"]) == {"train", "eval", "test"}
    assert len(curves[curves["kind"] == "train"]) == 8  # 2 rows x 2 seeds x 2 steps
    final = result.verdicts
    assert len(final) == 1 and final["measure"].item() == "held-out accuracy after 2 steps"
    assert final["verdict"].item() is None and final["refusal.name"].item() == "too few problems"
    assert final["difference"].item() == pytest.approx(abs(means["grpo"] - means["reinforce"]))
    assert len(result.plot("tokens_sampled").axes) > 3
    assert repr(result) == f"<Comparison {result.folder}>"  # not all its settings and summaries
    page = result._repr_html_()
    assert "<td>reinforce</td>" in page and str(result).splitlines()[0] in page.replace("&#x27;", "'")
    assert result.report() == result.folder / "report.html" and result.report().stat().st_size > 10_000


def test_without_pandas_tables_are_records(result: rlzoo.Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = result.summary
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [row["objective"] for row in result.summary] == ["grpo", "reinforce"]
    assert list(result.summary[0]) == list(frame.columns)


def test_what_has_ended_answers_from_its_folder(result: rlzoo.Comparison, backbone: Backbone) -> None:
    files = {path: path.stat().st_mtime_ns for path in result.folder.glob("*/*/[ms]*")}  # metrics, samples, state
    arguments: Mapping[str, Any] = {"task": "even", "seeds": 2, "model": backbone, "out": result.folder, **SMALL}
    again = rlzoo.compare(["grpo", "reinforce"], **arguments)
    assert again.as_dict() == result.as_dict() == rlzoo.load(result.folder).as_dict()  # type: ignore[union-attr]
    assert len(files) >= 12 and files == {path: path.stat().st_mtime_ns for path in files}
    with pytest.raises(UserError, match="already holds a comparison"):
        rlzoo.compare(["grpo", "reinforce"], resume=False, **arguments)
    with pytest.raises(UserError, match=r"optimizer.lr: 0.0007 in the folder, 0.001 asked for"):
        rlzoo.compare(["grpo", "reinforce"], lr=1e-3, **arguments)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts its background jobs with Ctrl-C ignored, and so the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_goes_on(backbone: Backbone, tmp_path: Path) -> None:
    """Ctrl-C comes while its third batch of responses is scored; called again it makes the same run."""
    calls = []

    def reward(completions: list[str], **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(calls) == 3:
            _thread.interrupt_main()
        return [float(len(text) % 2) for text in completions]

    arguments: Mapping[str, Any] = {"task": "even", "model": backbone, "reward": reward, **SMALL}
    with pytest.raises(KeyboardInterrupt, match=r"saved up to its last checkpoint in .*repeat the call to continue"):
        rlzoo.train("grpo", out=tmp_path / "run", **arguments)
    assert rlzoo.load(tmp_path / "run").summary == {}
    run = rlzoo.train("grpo", out=tmp_path / "run", **arguments)
    whole = rlzoo.train("grpo", out=tmp_path / "whole", **arguments)
    untimed = [run.metrics.drop(columns=["elapsed_s", "engine_s"]) for run in (run, whole)]
    pandas.testing.assert_frame_equal(*untimed)
    assert run.summary["state"] == "done" and "grpo/seed0" in run._repr_html_()
    assert {"prompt", "completion", "reward"} <= set(run.samples.columns)


def test_objects_are_taken_in_the_place_of_names(backbone: Backbone, tmp_path: Path) -> None:
    """An objective made here, a task made here, a reward function: the folder says their names."""
    mine = get("grpo").but(name="mine", kl="none")
    task = EvenTask("even", level="own")
    run = rlzoo.train(mine, task=task, reward=always, model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]
    stored = RunFolder(tmp_path).read_json("config.json")
    assert stored["objective"]["name"] == "mine" and stored["objective"]["kl"] is None
    assert (stored["task"]["name"], stored["task"]["level"]) == ("even", "own")
    assert stored["task"]["reward"] == f"{__name__}:always"
    measured = rlzoo.evaluate(run, model=backbone, task="even", reward=always, prompts=4)
    assert (measured["reward"].item(), measured["task"].item()) == (1.0, "even")
    with pytest.raises(UserError, match=r"names code to run: task.reward"):
        rlzoo.evaluate(run, model=backbone)
    rewards = run.metrics.query("kind == 'train'")["reward"]
    assert set(rewards) == {1.0} and set(run.metrics["accuracy"]) != {1.0}
    assert task.score([task.problem("test", 0)], ["1"]).reward == [0.0]  # the user's own object is as it was


def test_a_function_that_no_import_finds_is_named_with_its_source(backbone: Backbone, tmp_path: Path) -> None:
    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [0.0] * len(completions)

    rlzoo.train("grpo", task="even", reward=reward, model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    with pytest.raises(UserError, match=r"task.reward: .*reward@\w{8}. in the folder, .*reward@\w{8}. asked for"):
        rlzoo.train("grpo", task="even", reward=reward, model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]


def test_a_loaded_model_with_its_tokenizer_is_taken(model_folder: Path, tmp_path: Path) -> None:
    """The same samples as of the model that is loaded by name, whose weights are float32 too; used twice."""
    loaded = AutoModelForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    by_name: dict[str, Any] = {"model": str(model_folder), "backbone": {"precision": "fp32", "device": "cpu"}}
    first = rlzoo.train("grpo", task="even", model=loaded, out=tmp_path / "a", **SMALL)  # type: ignore[arg-type]
    second = rlzoo.train("grpo", task="even", out=tmp_path / "b", **by_name, **SMALL)
    assert first.samples["completion"].tolist() == second.samples["completion"].tolist()
    table = rlzoo.evaluate(task="even", model=loaded, prompts=3, samples=2)
    assert (table["policy"].item(), table["prompts"].item()) == ("base", 3) and 0 <= table["pass@2"].item() <= 1
    trained = rlzoo.evaluate(first, model=loaded, base=True)
    assert trained["policy"].tolist() == ["base", str(first.folder)]
    assert trained["accuracy"].tolist() == pytest.approx(first.metrics.query("kind == 'test'")["accuracy"].tolist())


def test_an_ablation_has_contrasts(backbone: Backbone, tmp_path: Path) -> None:
    arguments: Mapping[str, Any] = {"task": "even", "seeds": 2, "model": backbone, "out": tmp_path, **SMALL}
    made = rlzoo.ablate("grpo[kl=none]", "grpo", only="ladder", **arguments)
    (contrast,) = made.contrasts.to_dict("records")
    means = made.runs.groupby("objective")["after.accuracy"].mean()
    assert contrast["difference"] == pytest.approx(means["grpo[kl=none]"] - means["grpo"])
    assert (contrast["block"], contrast["label"]) == ("ladder", "kl: k3(0.04) → none")
    again = rlzoo.load(tmp_path)
    assert isinstance(again, rlzoo.Ablation) and again.contrasts.equals(made.contrasts)
    assert "kl: k3(0.04)" in made._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlzoo.compare(["grppo"]), r"did you mean 'grpo'"),
        (lambda: rlzoo.compare("grpo", train={"group_sise": 4}), r"did you mean 'group_size'"),
        (lambda: rlzoo.train("grpo", lr=-1.0), "greater than 0"),
        (lambda: rlzoo.train("grpo", model=3), r"model must be a name, a folder, a Backbone, or \(model, tokenizer\)"),
        (lambda: rlzoo.train("grpo", task="sorrt"), "did you mean 'sort'"),
        (lambda: rlzoo.compare("grpo", tune={"lr": [1e-3, 2e-3], "betas": [1, 2]}), "one setting with its values"),
        (lambda: rlzoo.load("nowhere"), "neither a comparison"),
        (lambda: rlzoo.reproduce("parity-grpo-52"), "did you mean 'parity-grpo-25'"),
        (lambda: rlzoo.reproduce("verl-grpo-lora-gsm8k-0.5b"), "needs data"),
        (lambda: rlzoo.evaluate("nowhere"), "there is no run"),
        (lambda: rlzoo.evaluate("nowhere", train={}), "runs have their own settings: leave out train"),
    ],
)
def test_bad_input_is_a_user_error(
    call: Callable[[], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        call()


def test_it_works_inside_a_running_event_loop(backbone: Backbone, tmp_path: Path) -> None:
    """A notebook's cells run inside one."""

    async def cell() -> rlzoo.Run:
        return rlzoo.train("grpo", task="even", model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]

    assert asyncio.run(cell()).summary["state"] == "done"


def test_settings_from_a_file_lie_under_the_arguments(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text("objective = 'gspo'\nseed = 3\n[train]\nsteps = 9\ngroup_size = 4\n")
    tables = {key: value for key, value in SIZES.items() if key not in ("steps", "group_size")}
    run = rlzoo.train(
        "grpo", config=tmp_path / "small.toml", task="even", steps=1, train=tables, out=tmp_path / "run",
        model=backbone, evaluation=SMALL["evaluation"], progress=False,
    )  # fmt: skip
    config = run.config
    assert (config["objective"]["name"], config["seed"]) == ("grpo", 3)
    assert (config["train"]["steps"], config["train"]["group_size"]) == (1, 4)


def test_flat_tables() -> None:
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    assert frames._flat({"a": interval, "b": {"c": {"d": 1}}, "e": None}) == {
        "a": 0.5,
        "a.low": 0.25,
        "a.high": 0.75,
        "b.c.d": 1,
        "e": None,
    }


def test_all_names_are_there_and_others_are_not() -> None:
    assert set(rlzoo.__all__) <= set(dir(rlzoo))
    assert all(getattr(rlzoo, name) for name in rlzoo.__all__)
    with pytest.raises(AttributeError, match="module 'rlzoo' has no attribute 'comparee'"):
        _ = rlzoo.comparee


def test_several_tasks_in_one_call(backbone: Backbone, tmp_path: Path) -> None:
    """Two tasks by object and by name: tables over tasks, one task by its name, and load gives the same."""
    rows = ["grpo", "reinforce"]
    tasks = [EvenTask("even"), {"name": "even", "accuracy": "tests.api.test_calls:always"}]
    with pytest.raises(UserError, match="tasks must each be named once: even, even"):
        rlzoo.compare(rows, task=tasks, model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]
    made = rlzoo.compare(rows, task="even,even:x", seeds=2, model=backbone, out=tmp_path, **SMALL)  # type: ignore[arg-type]
    assert isinstance(made, rlzoo.TaskComparison) and list(made.comparisons) == ["even", "even:x"]
    summary = made.summary
    assert sorted(summary["row"]) == sorted(rows) and {"mean.low", "iqm", "tasks.even"} <= set(summary.columns)
    assert set(made.runs["task"]) == {"even", "even:x"} and len(made.runs) == 8
    assert set(made.curves["task"]) == {"even", "even:x"}
    assert made.by_task["task"].tolist() == ["even", "even:x"] and len(made.verdicts) == 1
    assert isinstance(made["even"], rlzoo.Comparison) and len(made["even"].runs) == 4
    assert made.plot(task="even:x").axes and "<table>" in made._repr_html_() and str(made).startswith("No verdict: ")
    assert made.report().read_text().startswith("<!DOCTYPE html>")
    again = rlzoo.load(tmp_path)
    assert isinstance(again, rlzoo.TaskComparison) and again.as_dict() == made.as_dict()
    assert len(rlzoo.evaluate(made, model=backbone)) == 8
