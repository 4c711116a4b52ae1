"""The command line as its users have it: output, exit codes, files, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import objectives
from objectives.ablate import FAMILIES
from rlzoo.cli.app import app
from rlzoo.cli.names import toml
from rlzoo.cli.shell import with_shortcuts
from rlzoo.cli.zoo import markdown
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.config.sources import settings
from rlzoo.report.text import paragraphs
from rlzoo.store.run_folder import METRICS, RunFolder
from rlzoo.tasks import task_kinds

# A run of seconds: a tiny random model, few prompts.
SMALL = {
    "train.steps": 2,
    "train.prompts_per_step": 2,
    "train.group_size": 2,
    "train.minibatches": 2,
    "train.max_new_tokens": 6,
    "train.save_every": 1,
    "evaluation.every": 2,
    "evaluation.prompts": 4,
}

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def rlzoo(*arguments: object, code: int = 0, width: int = 100) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner(env={"COLUMNS": str(width), "NO_COLOR": "1"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def small(model: Path, **changes: Any) -> list[str]:
    """The --set arguments of a small run; `train__steps=5` sets train.steps."""
    table = SMALL | {"backbone.model": model, "backbone.device": "cpu"}
    table |= {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in table.items() for part in ("--set", f"{key}={value}")]


def test_list_for_machines_is_the_registry() -> None:
    rows = json.loads(rlzoo("list", "--json").stdout)
    assert [row["name"] for row in rows] == [name for family in objectives.families().values() for name in family]
    for row in rows:
        name = row.pop("name")
        assert name in objectives.families()[row.pop("family")]
        assert row.pop("parent") == objectives.parent(name)
        assert row == objectives.get(name).row()


@pytest.mark.parametrize("width", [80, 140, 220])
def test_list_shows_every_cell_whole(width: int) -> None:
    """Roots with every cell, the others with every cell that differs from their parent's."""
    lines = rlzoo("list", width=width).stdout.splitlines()
    assert max(map(len, lines)) <= width
    shown = "".join(" ".join(lines).split())
    assert "…" not in shown
    for row in json.loads(rlzoo("list", "--json").stdout):
        parent = objectives.get(row["parent"]).row() if row["parent"] else {}
        cells = {column: row[column] or "none" for column in FAMILIES if row[column] != parent.get(column, "")}
        assert row["name"] in shown
        assert bool(parent) <= (row["family"].replace(" ", "") in shown)
        for column, cell in cells.items():
            for word in [f"{column}={cell}"] if parent else cell.replace("(", " (").split():
                assert word.replace(" ", "") in shown


def test_list_for_the_readme() -> None:
    """Two tables: the roots in full; the others below their family's heading, each once."""
    text = rlzoo("list", "--markdown").stdout
    assert text == markdown()
    full, changed = (table.splitlines() for table in text.split("\n\n"))
    for lines in (full, changed):
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    names = [name for family in objectives.families().values() for name in family]
    assert [line.split("|")[1].strip() for line in full[2:]] == [n for n in names if objectives.parent(n) is None]
    headed = [f"**{f}**" for f, members in objectives.families().items() if any(map(objectives.parent, members))]
    below = [line.split("|")[1].strip() for line in changed[2:]]
    assert [line for line in below if line.startswith("**")] == headed
    assert [line for line in below if not line.startswith("**")] == [n for n in names if objectives.parent(n)]


def test_show_says_what_an_objective_changes() -> None:
    """Two clips and one KL: gspo is grpo with three cells changed; an ablation is its base with the cells it names."""
    shown = json.loads(rlzoo("show", "gspo", "--json").stdout)
    assert shown["parent"] == "grpo"
    assert shown["changes"] == {"ratio": "sequence", "surrogate": "clip(0.0003, 0.0004)", "kl": "none"}
    lines = [line.split() for line in rlzoo("show", "gspo[kl=k3]").stdout.splitlines()]
    assert ["what", "changes", "gspo", "gspo[kl=k3]"] in lines and ["kl", "none", "k3(0.04)"] in lines
    assert json.loads(rlzoo("show", "grpo@verl", "--json").stdout)["parent"] == "grpo"
    root = json.loads(rlzoo("show", "grpo", "--json").stdout)
    assert (root["parent"], root["changes"]) == (None, {})
    assert "what changes" not in rlzoo("show", "grpo").stdout


def test_show_has_equation_paper_and_settings() -> None:
    shown = rlzoo("show", "gspo").stdout
    assert "exp(" in shown or "^(1/|y_i|)" in shown  # the equation
    assert "2507.18071" in shown
    assert "low = 0.0003, high = 0.0004" in shown


def test_show_of_an_ablation_has_its_settings() -> None:
    table = json.loads(rlzoo("show", "gspo[ratio=token]", "--json").stdout)
    assert table["name"] == "gspo[ratio=token]"
    assert table["settings"]["ratio"] == {"kind": "token"}
    assert table["page"] == objectives.page("gspo")
    assert "gspo[ratio=token]" in rlzoo("show", "gspo[ratio=token]").stdout


def test_pages_are_wrapped_anew_and_equations_are_not() -> None:
    text = "\n    a = b\n    c\n\nSource: one\ntwo.\n\nConstants: x\ny\nDisputed: z"
    assert paragraphs(text) == ["", "    a = b", "    c", "", "Source: one two.", "", "Constants: x y", "Disputed: z"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "grppo"], "unknown objective 'grppo'; did you mean 'grpo'?"),
        (["show", "gspo[ratio=tokn]"], "did you mean 'token'?"),
        (["train", "grppo"], "did you mean 'grpo'?"),
        (["train", "grpo", "--task", "sorrt"], "did you mean 'sort'?"),
        (["train", "grpo", "--set", "train.group_sise=4"], "did you mean 'group_size'?"),
        (["train", "grpo", "--set", "steps=5"], "did you mean train.steps?"),
        (["train", "grpo[surrogate.high=abc]"], "surrogate.high: should be a valid number"),
        (["show", "grpo[surrogate.high=abc]"], "surrogate.high: should be a valid number"),
        (["list", "parts", "--markdown"], "--markdown is for the table of objectives"),
        (["train", "grpo", "--set", "train.group_size=1"], "2 or more"),
        (["train", "grpo", "--config", "nowhere.toml"], "there is no file nowhere.toml"),
        (["train"], "objective: is missing"),
        (["compare", "grpo", "grpo"], "named once"),
        (["compare", "grpo", "--tune", "train.steps=1,2"], "'train.steps' cannot be tuned, only optimizer.lr"),
        (["compare", "grpo", "--tune", "lr"], "names no values to choose from"),
        (["compare", "grpo", "--tune-seeds", "3"], "name the values too, --tune lr=3e-4,7e-4,2e-3"),
        (["compare", "grpo", "--control", "frosen"], "'same', 'random_reward' or 'frozen', got 'frosen'"),
        (["compare"], "name at least one, or all for all of rlzoo list"),
        (["train", "grpo", "--budget", "token=5"], "did you mean 'tokens'?"),
        (["evaluate", "nowhere"], "there is no run (no config.json) in or below nowhere"),
        (["curves", "nowhere", "--out", "x.png"], "there is no run"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")] if arguments[0] in ("train", "compare") else []
    result = rlzoo(*arguments, *out, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_module_of_ones_own_brings_an_objective(tmp_path: Path) -> None:
    (tmp_path / "my_zoo_for_the_test.py").write_text(
        "from objectives import get, register\nregister(get('grpo').but(name='mine', kl='none'))\n"
    )
    command = [sys.executable, "-m", "rlzoo", "--import", str(tmp_path / "my_zoo_for_the_test.py"), "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert [row["name"] for row in json.loads(done.stdout)] == [*objectives.names(), "mine"]
    assert "--import nowhere: ModuleNotFoundError" in rlzoo("--import", "nowhere", "list", code=2).stderr


def test_list_of_parts_has_every_part_with_its_fields() -> None:
    rows = json.loads(rlzoo("list", "parts", "--json").stdout)
    assert {(row["column"], row["kind"]) for row in rows} == {
        (column, kind) for column, family in FAMILIES.items() for kind in family.members
    }
    assert all(row["about"] for row in rows)
    (clip,) = [row for row in rows if row["kind"] == "clip"]
    assert clip["fields"] == {"low": 0.2, "high": 0.2, "dual": None, "drift": None}
    shown = " ".join(rlzoo("list", "parts", width=200).stdout.split())
    assert "low = 0.2 min(r A" in shown and "grpo[kl=none]" in shown


def test_list_of_tasks_has_levels_and_settings() -> None:
    rows = {row["kind"]: row for row in json.loads(rlzoo("list", "tasks", "--json").stdout)}
    assert rows.keys() == task_kinds().keys()
    assert rows["sort"]["levels"] == ["easy", "medium", "hard", "mixed"]
    assert rows["jsonl"]["form"] == "jsonl:PATH" and "test_path" in rows["jsonl"]["settings"]
    shown = rlzoo("list", "tasks").stdout
    assert "jsonl:PATH" in shown and "level = easy, medium, hard, mixed" in shown


def test_every_listed_setting_can_be_set() -> None:
    rows = json.loads(rlzoo("list", "settings", "--json").stdout)
    known = {row["name"]: row for row in rows if "train" in row["commands"]}
    assert known["train.steps"]["default"] == 60 and known["train.steps"]["about"] == "Rollouts."
    assert known["backbone.precision"]["choices"] == ["nf4", "bf16", "fp32"]
    assert known["task.name"]["default"] == "sort" and known["objective"]["required"]
    texts = [
        f"{name}={toml(row['default'])}"
        for name, row in known.items()
        if row["default"] is not None and name not in ("backbone.lora.target_modules",)
        # There is no teacher unless one is named, and no vLLM unless it samples, so no field of them stands alone.
        if not name.startswith(("train.teacher.", "engine.vllm."))
    ]
    assert settings(RunConfig, None, ["objective=grpo", *texts], {}) == RunConfig(objective="grpo")  # type: ignore[arg-type]
    shown = rlzoo("list", "settings", width=140).stdout
    assert all(row["name"] in shown for row in rows)


def test_a_task_by_name_takes_settings_too() -> None:
    config = settings(RunConfig, None, ["task.level=hard", "task.reward=my:own"], {"objective": "grpo", "task": "add"})
    assert (config.task.name, config.task.level, config.task.reward) == ("add", "hard", "my:own")


def test_a_reward_function_lies_where_the_user_is(
    qwen_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards_for_the_test.py").write_text("def half(completions, **_): return [0.5] * len(completions)")
    (tmp_path / "problems.jsonl").write_text(
        "".join(f'{{"prompt": "S{n}=", "answer": "{n}"}}\n' for n in range(100, 200))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    task = ["--task", "jsonl:problems.jsonl", "--set", "task.reward=rewards_for_the_test:half"]
    rlzoo("train", "grpo", *task, *small(qwen_folder))
    records = RunFolder.open(tmp_path / "runs" / "jsonl-problems.jsonl" / "grpo" / "seed0").read_metrics()
    assert {record["reward"] for record in records} == {0.5}


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given: str | None, used: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = "import os, sys, rlzoo.cli.app; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == used, done.stderr


def test_help_waits_for_no_library() -> None:
    command = "import sys; from rlzoo.cli.app import app; app(['train', '--help'], standalone_mode=False)"
    code = f"{command}; assert not {{'torch', 'transformers', 'rlzoo.errors'}} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0 and "--resume" in done.stdout, done.stderr


def test_the_version_is_printed() -> None:
    assert rlzoo("--version").stdout.strip() == version("rlzoo")


@pytest.mark.parametrize("name", ["list", "show", "train", "compare", "ablate", "evaluate", "curves", "report", "lab"])
def test_help_has_examples_and_defaults(name: str) -> None:
    text = rlzoo(name, "--help", width=140).stdout
    assert f"$ rlzoo {name} " in text
    if "--lr" in text:
        defaults = RunConfig(objective="grpo")  # type: ignore[arg-type]
        assert f"[default: ({defaults.optimizer.lr:g})]" in text and f"[default: ({defaults.train.steps})]" in text
    if "--tune-seeds" in text:
        compared = CompareConfig(objectives=("grpo",))  # type: ignore[arg-type]
        assert f"[default: ({len(compared.seeds)})]" in text and f"[default: ({compared.tune.seeds})]" in text


def test_every_option_tells_its_default_and_a_switch_no_type() -> None:
    for name, command in get_command(app).commands.items():
        for param in command.params:
            if param.required:
                continue
            told = isinstance(param.show_default, str) or param.default is not None
            assert told and param.help, f"rlzoo {name} {param.name}"
    assert "<bool>" not in rlzoo("compare", "--help").stdout + rlzoo("--help").stdout


def test_every_example_in_the_help_is_a_command_line() -> None:
    """Its options exist and take its values; nothing is run."""
    group = get_command(app)
    examples = [
        line.strip().removeprefix("$ rlzoo ").replace("\\[", "[")
        for command in group.commands.values()
        for line in (command.epilog or "").splitlines()
        if line.strip().startswith("$ rlzoo ")
    ]
    assert len(examples) > 2 * len(group.commands) - 5
    for example in examples:
        name, *arguments = shlex.split(example)
        group.commands[name].make_context(name, arguments)


def test_shortcuts_are_settings(tmp_path: Path) -> None:
    shown = json.loads(rlzoo("ablate", "gspo", "--lr", "1e-3", "--steps", 7, "--dry-run", "--json").stdout)
    assert len(shown["rows"]) > 2
    assert with_shortcuts(["train.steps=9"], budget="tokens=2k", lr=1e-3, steps=7) == [
        *('train.budget="tokens=2k"', "optimizer.lr=0.001", "train.steps=7", "train.steps=9")
    ]
    assert "greater than 0, got -1" in rlzoo("train", "grpo", "--lr", -1, code=2).stderr


def test_unknown_command() -> None:
    assert "No such command" in rlzoo("trian", code=2).stderr


def test_train_fills_a_folder_and_prints_its_outcome(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = rlzoo("train", "grpo", "--task", "sort:easy", *small(qwen_folder), "--out", out, "--json")
    summary = json.loads(result.stdout)
    assert (summary["objective"], summary["seed"], summary["step"], summary["state"]) == ("grpo", 0, 2, "done")
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        METRICS,
        "samples.jsonl",
        "summary.json",
        "adapter",
    }
    assert "held-out: grpo" in result.stderr

    result = rlzoo("train", "grpo", "--task", "sort:easy", *small(qwen_folder), "--out", out, code=2)
    assert "already holds a run" in result.stderr and "--resume" in result.stderr
    result = rlzoo("train", "grpo", "--task", "sort", *small(qwen_folder), "--out", out, "--resume", code=2)
    assert 'task.name: "sort:easy" in the folder, "sort" asked for' in result.stderr
    before = (out / METRICS).read_bytes()
    assert "grpo/seed0" in rlzoo("train", "-c", out / "config.json", "--out", out, "--resume").stdout
    assert (out / METRICS).read_bytes() == before

    again = tmp_path / "again"
    rlzoo("train", "-c", out / "config.json", "--out", again)
    assert without_times(RunFolder.open(again)) == without_times(RunFolder.open(out))


def without_times(folder: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("elapsed_s", "engine_s")} for r in folder.read_metrics()]


def test_compare_then_evaluate_and_draw(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    (tmp_path / "small.toml").write_text('objectives = ["grpo", "gspo"]\nseeds = 3\ntask = "sort:easy"\n')
    arguments = ["compare", "-c", tmp_path / "small.toml", "--seeds", 2, *small(qwen_folder), "--out", out]
    table = rlzoo(*arguments).stdout
    assert [line.split()[0] for line in table.splitlines()[2:4]] == ["grpo", "gspo"]
    assert "over 2 seeds" in table
    data = json.loads(rlzoo(*arguments, "--resume", "--json").stdout)
    assert [row["objective"] for row in data["rows"]] == ["grpo", "gspo"]
    assert {(run["objective"], run["seed"]) for run in data["runs"]} == {
        (name, seed) for name in ("grpo", "gspo") for seed in (0, 1)
    }

    runs = [out / "grpo" / "seed0", out / "gspo" / "seed1"]
    results = json.loads(rlzoo("evaluate", *runs, "--base", "--samples", 4, "--prompts", 3, "--json").stdout)
    assert [result["policy"] for result in results] == ["base", *map(str, runs)]
    for result in results:
        assert (result["prompts"], result["samples"]) == (3, 4)
        assert result["metrics"]["accuracy"] <= result["metrics"]["pass@2"] <= result["metrics"]["pass@4"]
    assert "greedy" in rlzoo("evaluate", runs[0], "--greedy").stdout
    below = json.loads(rlzoo("evaluate", out, "--prompts", 2, "--json").stdout)
    assert [result["policy"] for result in below] == [
        str(out / a / f"seed{s}") for a in ("grpo", "gspo") for s in (0, 1)
    ]

    drawn = rlzoo("curves", out, "--out", tmp_path / "all.png", "--tokens").stdout
    assert "all.svg" in drawn
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_compare_tunes_controls_and_budgets(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    options = ["--tune", "lr=1e-3,3e-3", "--tune-seeds", 1, "--control", "frozen", "--budget", "updates=2"]
    arguments = ["compare", "grpo", "--seeds", 2, "--task", "sort:easy", *options, *small(qwen_folder), "--out", out]
    shown = rlzoo(*arguments, width=140).stdout
    assert "lr" in shown and "grpo+frozen" in shown and "2 runs" in shown
    data = json.loads(rlzoo(*arguments, "--resume", "--json").stdout)
    assert data["tune"]["setting"] == "optimizer.lr" and data["tune"]["chosen"]["grpo"] in (1e-3, 3e-3)
    assert {run["ended"] for run in data["runs"]} == {"budget"} and {run["step"] for run in data["runs"]} == {1}
    assert [row["objective"] for row in data["rows"]] == ["grpo", "grpo+frozen"]


def test_names_and_folders_stand_whole_in_a_narrow_terminal(qwen_folder: Path, tmp_path: Path) -> None:
    arguments = ["compare", "grpo[kl=none]", "--task", "sort:easy", "--seeds", 1, *small(qwen_folder)]
    shown = rlzoo(*arguments, "--out", tmp_path / "out", width=80).stdout
    assert "grpo[kl=none] " in shown and "one seed" in shown
    shown = rlzoo("evaluate", tmp_path / "out", "--samples", 8, "--prompts", 2, width=80).stdout
    assert "[kl=none]" in "".join(shown.split()) and "2 x 8" in shown and "pass@8" in shown and "…" not in shown
    run = RunFolder.open(tmp_path / "out" / "grpo[kl=none]" / "seed0")
    assert run.read_json("config.json")["objective"]["name"] == "grpo[kl=none]"


def test_the_last_evaluation_of_a_run_can_be_repeated(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rlzoo("train", "grpo", "--task", "sort:easy", *small(qwen_folder), "--out", out)
    (result,) = json.loads(
        rlzoo("evaluate", out, "--json").stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")
    )
    recorded = RunFolder.open(out).read_metrics()[-1]
    for key in ("accuracy", "length", "entropy"):
        assert result["metrics"][key] == pytest.approx(recorded[key], rel=1e-5)


def test_warmstart_makes_a_model_that_evaluate_takes(tmp_path: Path) -> None:
    out = tmp_path / "model"
    tiny = ["steps=2", "batch_size=4", "hidden_size=64", "mlp_size=64", "layers=1", "evaluate_prompts=0"]
    arguments = [part for text in tiny for part in ("--set", text)]
    summary = json.loads(rlzoo("warmstart", "--out", out, *arguments, "--json").stdout)
    assert summary["config"]["steps"] == 2
    assert "not empty" in rlzoo("warmstart", "--out", out, *arguments, code=2).stderr
    (result,) = json.loads(
        rlzoo("evaluate", "--set", f"backbone.model={out}", "--task", "sort:easy", "--prompts", 3, "--json").stdout
    )
    assert (result["policy"], result["task"], result["prompts"]) == ("base", "sort:easy", 3)


def test_a_failed_run_is_told_and_exits_with_1(qwen_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "def alternate(completions, **_): return [i % 2 for i, _ in enumerate(completions)]"
    )
    task = f"{{name = 'sort:easy', reward = '{tmp_path / 'rewards.py'}:alternate'}}"
    explosive = small(qwen_folder, optimizer__lr=1e30, task=task)
    out = tmp_path / "run"
    result = rlzoo("train", "reinforce", *explosive, "--out", out, code=1)
    assert "FAILED reinforce/seed0: step 0: loss" in result.stdout
    assert json.loads((out / "summary.json").read_text())["state"] == "failed"
    result = rlzoo("compare", "reinforce", "--seeds", 2, *explosive, "--out", tmp_path / "both", code=1)
    assert "2 of 2" in result.stdout and "failed" in result.stdout and "FAILED reinforce/seed1" in result.stdout


def test_ctrl_c_says_how_to_go_on_and_going_on_works(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "grpo", "--task", "sort:easy", *small(qwen_folder, train__steps=300), "--out", str(out)]
    command = [sys.executable, "-m", "rlzoo", *arguments]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A shell's background jobs ignore Ctrl-C, and so would whatever tests started from one start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (out / "state.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == "" and "Traceback" not in stderr
    assert f"safe in {out}" in stderr
    assert stderr.rstrip().splitlines()[-1].strip() == shlex.join(["python", "-m", "rlzoo", *arguments, "--resume"])
    reached = RunFolder.open(out).read_metrics()[-1]["step"]
    assert 1 <= reached < 300
    differs = rlzoo(*arguments, "--set", f"train.steps={reached + 1}", "--resume", code=2)
    assert f"train.steps: 300 in the folder, {reached + 1} asked for" in differs.stderr
