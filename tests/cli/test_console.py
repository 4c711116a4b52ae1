"""What a terminal is given: no control character of others. And work goes on when nobody listens."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.table import Table
from rich.text import Text

from rlzoo.cli.console import Unheard, complain, print_json, terminal
from rlzoo.cli.shell import guarded
from tests.cli.test_app import rlzoo

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[31mb\x07c\x9b2Jd\u202ee\rf\ud800g"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def printed(thing: Any, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    console = terminal(file=io.TextIOWrapper(raw, encoding=encoding), width=300, color_system=None)
    console.print(thing)
    console.file.flush()
    return raw.getvalue().decode(encoding)


def in_a_table() -> Table:
    table = Table(HOSTILE)
    table.add_row(Text(HOSTILE))
    return table


@pytest.mark.parametrize("thing", [HOSTILE, Text(HOSTILE), in_a_table()], ids=["text", "Text", "table"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_control_character_reaches_the_terminal(thing: Any, encoding: str) -> None:
    text = printed(thing, encoding)
    assert not any(c in text for c in "\x1b\x07\x9b\u202e\r\ud800")
    assert "U+001B" in text
    assert isinstance(thing, Table) or text.rstrip().endswith("g")  # a narrow cell may be cut


def test_colours_of_ours_are_left() -> None:
    file = io.StringIO()
    console = terminal(file=file, force_terminal=True, color_system="standard", no_color=False, width=80)
    console.print(Text("a\x1b[31mb", style="red"))
    assert re.sub("\x1b\\[(31|0)m", "", file.getvalue()) == "a⟨U+001B⟩[31mb\n"
    assert file.getvalue().startswith("\x1b[31ma") and file.getvalue().endswith("b\x1b[0m\n")


def test_an_error_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"reward raised {HOSTILE}\n  second")
    assert "\x1b[31mb" not in capsys.readouterr().err


def test_json_is_the_same_value_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": HOSTILE + "é", "x": float("nan")}
    print_json(value)
    text = capsys.readouterr().out
    assert not any(c in text for c in "\x1b\x07\x9b\u202e\r\ud800") and "é" in text
    assert json.loads(text) == {"name": HOSTILE + "é", "x": None}


def test_only_the_console_module_makes_consoles() -> None:
    made = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "rlzoo").rglob("*.py")
        if path.name != "console.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Console", "print")
    ]
    assert made == [], "print with rlzoo.cli.console.terminal: it shows no control characters of others"


def test_a_stream_that_nobody_reads_takes_everything() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = Unheard(os.fdopen(writer, "w"))
    assert stream.write("x" * 100_000) == 100_000
    stream.flush()
    full = Unheard(os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", closefd=False))
    assert full.write("x" * 100_000) == 100_000
    full.flush()


def shell(command: str) -> subprocess.CompletedProcess[str]:
    line = command.replace("rlzoo", f"{sys.executable} -m rlzoo")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("rlzoo list | head -1; exit ${PIPESTATUS[0]}", 0),
        ("rlzoo list --json | head -1; exit ${PIPESTATUS[0]}", 0),
        ("rlzoo list >&-", 0),
        ("rlzoo list 2>&-", 0),
        ("rlzoo show nothing 2>/dev/full", 2),
        ("rlzoo list --json >/dev/full", 1),
    ],
)
def test_who_listens_makes_no_traceback(command: str, code: int) -> None:
    done = shell(command)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_second_interruption_ends_at_once_and_without_a_traceback() -> None:
    code = (
        "import os, signal\nfrom rlzoo.cli.console import prepare\nprepare()\n"
        "def press(): os.kill(os.getpid(), signal.SIGINT)\n"
        "try:\n  press()\nexcept KeyboardInterrupt:\n  press()\n"
        "print('still here')"
    )
    preexec = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, preexec_fn=preexec
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("values", "--judge", "nan"), "--judge must be a finite number, got nan"),
        (("lab", "grpo", "--step", "inf"), "--step must be a finite number, got inf"),
        (("lab", "grpo", "--step", "1e308", "-g", "2", "--longest", "2"), "beyond what floating-point numbers hold"),
    ],
)
def test_extreme_options_are_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    assert said in " ".join(rlzoo(*arguments, code=2, width=300).output.split())


def test_exhausted_memory_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> None:
        torch.empty(2**62, dtype=torch.uint8)  # more than any machine has: torch raises a RuntimeError

    with pytest.raises(typer.Exit) as ended:
        guarded(ask)()
    assert ended.value.exit_code == 1 and "the memory of this machine is exhausted" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        guarded(lambda: (_ for _ in ()).throw(RuntimeError("a mistake of ours")))()
