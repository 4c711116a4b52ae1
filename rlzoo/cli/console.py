"""The terminal: the one place where text is printed on it, and so the one where text of others is made harmless.

Names, failures, prompts and paths come from run folders, data and user code. A control character among them would move
the cursor, colour what follows or write the window's title: whatever is printed goes through `visible`.

Nor does work depend on who listens. What cannot be written to stderr is dropped; a reader of stdout that has gone, a
pager say, ends the output and nothing else.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rlzoo.report.text import visible


class Terminal(Console):
    """A rich console whose segments hold no control characters but those of rich itself."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to print, made visible: text before it is wrapped, the rest after."""
        if isinstance(renderable, Text) and visible(renderable.plain) != renderable.plain:
            renderable = self._visible(renderable)
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(self._encodable(visible(segment.text)), segment.style)

    def _visible(self, text: Text) -> Text:
        """A copy of styled text with every control character written out."""
        made = Text("", text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end)
        for place, letter in enumerate(text.plain):
            shown = visible(letter)
            made.append(text[place] if shown == letter else Text(shown, text.get_style_at_offset(self, place)))
        return made

    def _encodable(self, text: str) -> str:
        """With question marks for what the stream's encoding lacks: a locale is no reason to end in an error."""
        encoding = self.encoding
        return text if encoding == "utf-8" else text.encode(encoding, "replace").decode(encoding)

    def on_broken_pipe(self) -> None:
        """Go on without a listener; rich would end the process."""
        self.quiet = True
        _forget_stdout()


def terminal(stderr: bool = False, **options: Any) -> Terminal:
    """Return a console on stdout, or on stderr."""
    return Terminal(stderr=stderr, **options)


def complain(message: str, kind: str = "error") -> None:
    """Print a message for a person on stderr: wrapped at words, but an indented line (a command, say) stays whole."""
    console = terminal(stderr=True, highlight=False)
    first, *rest = message.split("\n")
    style = "bold yellow" if kind == "warning" else "bold red"
    console.print(Text(f"{kind}: ", style=style) + Text(first), soft_wrap=not console.is_terminal)
    for line in rest:
        console.print(Text(line), soft_wrap=line.startswith(" ") or not console.is_terminal)


def unable(error: OSError | MemoryError | RecursionError) -> str:
    """Say what the machine refused."""
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
    """Print a value as JSON on stdout, with escapes for what a terminal would obey or the stream cannot hold.

    A number that JSON cannot hold is null.
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
        _forget_stdout()


def _forget_stdout() -> None:
    """Send what is still written to stdout nowhere, what Python writes at its end included."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # not a file of the system: a test's
        return


class Unheard:
    """A stream whose writes never fail: full, closed, or read by nobody any more."""

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
    """Ready the process of a command: a stderr that never fails, warnings in words, a second Ctrl-C that is at once."""
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
        _forget_stdout()
