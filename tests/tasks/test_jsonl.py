"""Tasks from JSON-lines files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import load_task
from rlzoo.tasks.table import held_out, last_reply

ROWS: list[dict[str, Any]] = [{"prompt": f"{i}+1=", "answer": i + 1, "source": "made"} for i in range(40)]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_rows_become_problems(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", [*ROWS[:30], ""]), write(tmp_path / "b.jsonl", ROWS[30:])
    task = load_task(TaskConfig(name=f"jsonl:{train}", test_path=test))
    assert (task.size("train"), task.size("test")) == (30, 10)
    problem = task.problem("train", 4)
    assert (problem.prompt, problem.answer) == ("4+1=", "5")
    assert problem.columns == {"answer": 5, "source": "made"}
    assert task.score([problem] * 3, ["5", "#### 5.0", "6"]).accuracy == [1, 1, 0]
    with pytest.raises(IndexError):
        task.problem("train", 30)


def test_held_out_rows_are_few_and_always_the_same(tmp_path: Path) -> None:
    name = "jsonl:" + write(tmp_path / "a.jsonl", ROWS + ROWS)
    task = load_task(TaskConfig(name=name, test_fraction=0.25))
    prompts = {s: {str(task.problem(s, i).prompt) for i in range(task.size(s) or 0)} for s in ("train", "test")}
    assert (task.size("train"), task.size("test")) == (60, 20)  # every row is there twice, and stays with its twin
    assert not prompts["train"] & prompts["test"]
    shuffled = load_task(TaskConfig(name="jsonl:" + write(tmp_path / "b.jsonl", ROWS[::-1]), test_fraction=0.25))
    assert {shuffled.problem("test", i).prompt for i in range(10)} == prompts["test"]
    assert load_task(name).size("test") == 8  # a tenth, if nothing is said


def test_held_out_is_never_empty() -> None:
    assert sorted(held_out(["a", "b"], 0.01)) == ["test", "train"]


def test_columns_and_chats(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "1+1="}]
    rows = [{"q": messages, "a": "2"}, {"q": "2+2=", "a": "4"}]
    path = write(tmp_path / "a.jsonl", rows)
    config = TaskConfig(
        name=f"jsonl:{path}", test_path=path, prompt_column="q", answer_column="a", system="Be brief."
    )  # fmt: skip
    task = load_task(config)
    system = {"role": "system", "content": "Be brief."}
    assert task.problem("train", 0).prompt == [system, *messages]
    assert task.problem("train", 1).prompt == [system, {"role": "user", "content": "2+2="}]
    plain = load_task(config.model_copy(update={"system": None}))
    assert plain.problem("train", 0).prompt == messages
    assert plain.problem("train", 1).prompt == "2+2="


def test_an_accuracy_function_needs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text("def brief(completions, **columns): return [len(c) < 3 for c in completions]")
    path = write(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    task = load_task(TaskConfig(name=f"jsonl:{path}", accuracy=f"{tmp_path}/checks.py:brief"))
    assert task.score([task.problem("train", 0)] * 2, ["ab", "abcd"]).accuracy == [1, 0]
    with pytest.raises(UserError, match="no column 'answer'"):
        load_task(f"jsonl:{path}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (["", "  "], "has no rows"),
        ([ROWS[0], "{nonsense"], "line 2: not JSON"),
        ([ROWS[0], "", "[1]"], "line 3: a JSON object is needed"),
        ([ROWS[0], {"promt": "a", "answer": "b"}], "line 2: no column 'prompt'.*did you mean 'promt'"),
        ([ROWS[0], {"prompt": "a"}], "line 2: no column 'answer'"),
        ([ROWS[0], {"prompt": "a", "answer": None}], "line 2: column 'answer' is empty"),
        ([ROWS[0], {"prompt": 3, "answer": "b"}], "line 2: the prompt is '3'; it has to be text or chat messages"),
        ([ROWS[0], {"prompt": [], "answer": "b"}], "line 2: the prompt is"),
        ([ROWS[0], {"prompt": [{"role": "user"}], "answer": "b"}], "line 2: the prompt is"),
        ([ROWS[0]], "the train split is empty"),
        ([ROWS[0], '{"prompt": "smile \\ud83d", "answer": "4"}'], "line 2: character 6 is U\\+D83D, half of one"),
        ([ROWS[0], {"prompt": [{"role": "user", "content": "\ud83d"}], "answer": "4"}], "line 2: character 0 is U"),
        ([ROWS[0], '{"prompt": "big", "answer": ' + "1" * 5000 + "}"], "line 2: not JSON: Exceeds the limit"),
        ([ROWS[0], "[" * 100_000], "line 2: nested too deep"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task("jsonl:" + write(tmp_path / "a.jsonl", rows))


def test_bad_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(UserError, match=r"cannot read .*none\.jsonl: .*No such file"):
        load_task(f"jsonl:{tmp_path}/none.jsonl")
    with pytest.raises(UserError, match="cannot read"):
        load_task(f"jsonl:{tmp_path}")
    with pytest.raises(UserError, match="write jsonl:PATH"):
        load_task("jsonl")
    with pytest.raises(UserError, match="test_path or test_fraction, not both"):
        load_task(TaskConfig(name=f"jsonl:{path}", test_path=path, test_fraction=0.1))
    with pytest.raises(UserError, match="a system message needs a chat"):
        load_task(TaskConfig(name=f"jsonl:{path}", system="Be brief.", chat=False))
    with pytest.raises(ValueError, match="less than 1"):
        TaskConfig(name=f"jsonl:{path}", test_fraction=1.0)


def test_a_suffix_stands_behind_every_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    text = load_task(TaskConfig(name=f"jsonl:{path}", suffix=" Think.")).problem("train", 0)
    assert str(text.prompt).endswith("= Think.")
    chat = load_task(TaskConfig(name=f"jsonl:{path}", suffix=" Think.", system="Brief.")).problem("train", 0)
    assert chat.prompt == [{"role": "system", "content": "Brief."}, {"role": "user", "content": text.prompt}]


def test_a_reply_at_the_end_of_messages_is_what_is_asked_for(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"{i}+2?"}, {"role": "assistant", "content": str(i + 2)}] for i in range(20)]
    path = write(tmp_path / "a.jsonl", [{"messages": chat, "answer": 4} for chat in chats])
    config = TaskConfig(name=f"jsonl:{path}", prompt_column="messages", demonstration_column="messages")
    problem = load_task(config).problem("train", 2)
    (question,) = problem.prompt
    assert question in [chat[0] for chat in chats]
    answer = str(int(question["content"].partition("+")[0]) + 2)
    assert load_task(config).demonstration(problem, Random(0)) == answer
    with pytest.raises(UserError, match="do not end with a reply"):
        last_reply(chats[0][:1], "row 0")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\u00a0"])
def test_a_line_ends_at_a_line_feed_only(tmp_path: Path, separator: str) -> None:
    text = json.dumps({"prompt": f"say{separator}hi", "answer": "4"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text("\r\n".join([text, *map(json.dumps, ROWS)]) + "\n", encoding="utf-8", newline="")
    task = load_task(TaskConfig(name=f"jsonl:{tmp_path}/a.jsonl", test_path=f"{tmp_path}/a.jsonl"))
    assert task.size("train") == 41 and task.problem("train", 0).prompt == f"say{separator}hi"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "half\ud800"])
def test_a_path_that_cannot_be_is_said(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot read|has a NUL or half a character"):
        load_task(f"jsonl:{name}")


def test_only_prompts_that_may_not_fit_are_looked_at(tmp_path: Path) -> None:
    rows = [{"prompt": "é" * n, "answer": "1"} for n in (1, 5, 6, 50)] + [{"prompt": "", "answer": "1"}]
    rows += [{"prompt": [{"role": "user", "content": "é" * n}], "answer": "1"} for n in (1, 30)]
    path = write(tmp_path / "a.jsonl", rows)
    task = load_task(TaskConfig(name=f"jsonl:{path}", test_path=path))
    assert list(task.doubtful("train", 10)) == [2, 3, 4, 5, 6]  # 2 bytes a letter; a message counts for 64 more
    assert list(task.doubtful("train", 66)) == [3, 4, 6]
    assert list(load_task("sort").doubtful("train", 0)) == []
