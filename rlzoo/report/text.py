"""Text that others wrote (a model's above all), made fit to be shown: nothing in it may act, hide, or break a file."""

from __future__ import annotations

import re
import unicodedata

HARMLESS = {"\n", "\t", "\u200c", "\u200d"}  # the two joiners are part of Persian and of emoji
LABEL = re.compile(r"[A-Z][a-z ]+: ")
"""How a labelled paragraph begins: `Constants: `."""


def visible(text: str) -> str:
    """Return text with every control, format, separator and half character as its code, such as ⟨U+202E⟩.

    So a response cannot reorder the line that it stands in, end a line, or contain what no file can hold.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in HARMLESS or _printed(c) else f"⟨U+{ord(c):04X}⟩" for c in text)


def _printed(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def paragraphs(text: str) -> list[str]:
    """Return text with each paragraph on one line, to be wrapped anew; an indented line (an equation) stays as it is.

    A paragraph ends at an empty line, at an equation, and before a line that begins with a label (`Constants: `).
    """
    result: list[str] = []
    for line in text.split("\n"):
        previous = result[-1] if result else ""
        if previous and line and not (line.startswith(" ") or previous.startswith(" ") or LABEL.match(line)):
            result[-1] = f"{previous} {line}"
        else:
            result.append(line)
    return result
