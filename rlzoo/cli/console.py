"""Output of commands: JSON, error messages, and streams that never fail. `terminal` is `rlzoo.report.console`'s.

A broken output stream never stops work. Text that cannot be written to stderr is dropped; if the reader of stdout is
gone, such as a pager, only the output ends.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import warnings
from typing import Any, TextIO

from rich.text import Text

from rlzoo.report.console import forget_stdout, terminal


def complain(message: str, kind: str = "error") -> None:
    """Print a message for a person on stderr: wrapped at words, but an indented line (a command, say) stays whole."""
    console = terminal(stderr=True, highlight=False)
    first, *rest = message.split("\n")
    style = "bold yellow" if kind == "warning" else "bold red"
    console.print(Text(f"{kind}: ", style=style) + Text(first), soft_wrap=not console.is_terminal)
    for line in rest:
        console.print(Text(line), soft_wrap=line.startswith(" ") or not console.is_terminal)


def unable(error: OSError | MemoryError | RecursionError) -> str:
    """Return a message for a resource error."""
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        hint = ". Allow more with ulimit -n" if error.errno == errno.EMFILE else ""
        return f"{error.strerror or error}{where}{hint}. Everything up to the last checkpoint of a run is safe"
    if isinstance(error, MemoryError):
        return "the memory of this machine is exhausted: ask for less at once (runs, prompts, tokens, a smaller model)"
    return "the input is nested too deep"


_INVISIBLE = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout; control characters and those the stream cannot encode are escaped.

    nan and inf become null.
    """
    from rlzoo.store.run_folder import finite  # here: it brings torch

    ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower() != "utf-8"
    text = json.dumps(finite(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    write_stdout(_INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def write_stdout(text: str) -> None:
    """Write to stdout; if its reader has gone, do nothing."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()


class Unheard:
    """A stream whose writes never fail, even if the device is full, closed, or has no reader."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or drop, a text."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):
            return len(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody is there."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def prepare() -> None:
    """Prepare a command's process: a stderr that never fails, plain warnings, an immediate exit on a second Ctrl-C."""
    if sys.stderr is not None:
        sys.stderr = Unheard(sys.stderr)  # type: ignore[assignment]
    warnings.showwarning = lambda message, *_, **__: complain(str(message), kind="warning")

    def at_once(*_: object) -> None:
        os._exit(130)

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, at_once)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where Ctrl-C is to be ignored: nohup
        signal.signal(signal.SIGINT, interrupted)


def finish() -> None:
    """Write what stdout still holds, so that Python has nothing left to fail with when it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        forget_stdout()
