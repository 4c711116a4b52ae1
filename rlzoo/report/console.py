"""The terminal: every text is printed through this console, which makes control characters visible.

Names, failures, prompts and paths come from run folders, data and user code. A control character among them could move
the cursor, colour the following text or change the window's title.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rlzoo.report.text import visible


class Terminal(Console):
    """A rich console whose segments hold no control characters but those of rich itself."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield a renderable's segments without control characters: text is cleaned before wrapping, the rest after."""
        if isinstance(renderable, Text) and visible(renderable.plain) != renderable.plain:
            renderable = self._visible(renderable)
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(self._encodable(visible(segment.text)), segment.style)

    def _visible(self, text: Text) -> Text:
        """Return a copy of styled text with every control character as its code."""
        made = Text("", text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end)
        for place, letter in enumerate(text.plain):
            shown = visible(letter)
            made.append(text[place] if shown == letter else Text(shown, text.get_style_at_offset(self, place)))
        return made

    def _encodable(self, text: str) -> str:
        """Replace what the stream's encoding lacks by question marks: no locale ends a command with an error."""
        encoding = self.encoding
        return text if encoding == "utf-8" else text.encode(encoding, "replace").decode(encoding)

    def on_broken_pipe(self) -> None:
        """Continue without output; rich would end the process."""
        self.quiet = True
        forget_stdout()


def terminal(stderr: bool = False, **options: Any) -> Terminal:
    """Return a console on stdout, or on stderr."""
    return Terminal(stderr=stderr, **options)


def forget_stdout() -> None:
    """Discard all further output to stdout, including what Python flushes at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # stdout is no file: a test replaced it
        return
