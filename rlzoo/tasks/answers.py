r"""Extraction of the answer from a completion, and comparison of two answers as text or number.

The final answer is the content of the last of these marks, or the whole text if there is none:

    \boxed{72}    \boxed 72    \fbox{72}        #### 72        <answer>72</answer>

Thinking does not count: only the text after the last `</think>` does, and nothing if `<think>` is never closed.
All functions take time linear in the text, for any input.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

LONGEST_NUMBER = 400
"""Maximum characters of a number; longer text is not read as one (our choice)."""

_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\b")
_BARE = re.compile(r"\s*([^\s{}$]*)")
_NUMBER = re.compile(r"-?\$?\.?\d[\d,]*(?:\.\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LATEX_SPACE = re.compile(r"\\[,;:! ]|~")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LOOSE_SPACE = re.compile(r"(?<=[^\w\s])\s+|\s+(?=[^\w\s])")
_CHOICE = re.compile(r"\(\s*(\w+)\s*\)")
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_BOOLEANS = ("true", "false")


def spoken(text: str) -> str:
    """Return the text after the thinking; empty if the thinking does not end."""
    _, closed, rest = text.rpartition("</think>")
    if closed:
        return rest
    return text.partition("<think>")[0]


def final_answer(text: str) -> str:
    """Return the stripped content of the last mark; without a mark, the stripped text after the thinking."""
    text = spoken(text)
    marked = [mark for mark in (_tagged(text), _boxed(text)) if mark is not None]
    hashes = [(m.start(), m.group(1)) for m in _HASHES.finditer(text)]
    # `#### Explanation` is a heading: a line of words counts only where no mark holds anything else.
    with_digits = [mark for mark in hashes if any(letter.isdigit() for letter in mark[1])]
    marked += with_digits if marked or with_digits else hashes
    return max(marked)[1].strip() if marked else text.strip()


def last_number(text: str) -> str | None:
    """Return the last number after the thinking, as written; None without one."""
    found = _NUMBER.findall(spoken(text).translate(_SPELLINGS).replace("{,}", ","))
    return found[-1].replace("$", "").rstrip(",") if found else None


def same(found: str, wanted: str) -> bool:
    r"""Return whether two answers are one text, or one number, up to spelling.

    `1,000.0` is `1000` and so are `1{,}000` and `1\,000`; `$`, `\$`, a last `.`, `**`, `\text{}`, the brackets of `(A)`
    and spaces beside signs do not count, `−` is `-`, `True` is `true`. Nothing is the same as an empty answer.
    """
    found, wanted = plain(found), plain(wanted)
    if found == wanted or (found.lower() == wanted.lower() and wanted.lower() in _BOOLEANS):
        return wanted != ""
    a, b = number(found), number(wanted)
    return a is not None and a == b


def plain(answer: str) -> str:
    """Return an answer without decoration such as `$`, `**` and `\\text{}`."""
    text = _LATEX_SPACE.sub("", answer.translate(_SPELLINGS)).replace("{,}", ",")
    text = _TEXT.sub(r"\1", text).replace("\\$", "$").replace("\\%", "%").replace("\\left", "").replace("\\right", "")
    text = text.strip().strip("*`").strip().strip("$").strip().removesuffix(".").strip("*`$").strip()
    text = _LOOSE_SPACE.sub("", text)
    choice = _CHOICE.fullmatch(text)
    return choice.group(1) if choice else text


def number(answer: str) -> Decimal | None:
    """Return a plain answer as a number; None if it is none, or not finite."""
    if len(answer) > LONGEST_NUMBER:
        return None
    try:
        found = Decimal(_THOUSANDS.sub("", answer.replace("$", "")))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _tagged(text: str) -> tuple[int, str] | None:
    """The last `<answer>` that is closed: where it begins, and what it holds."""
    lower = text.lower()
    end = lower.rfind("</answer>")
    start = lower.rfind("<answer>", 0, end) if end >= 0 else -1
    return None if start < 0 or len(lower) != len(text) else (start, text[start + len("<answer>") : end])


def _boxed(text: str) -> tuple[int, str] | None:
    r"""The last box: where it begins, and what it holds up to the brace that closes it; of `\boxed 5` the next word."""
    *_, found = None, *_BOXED.finditer(text)
    if found is None:
        return None
    rest = text[found.end() :]
    inner = rest.lstrip()
    if not inner.startswith("{"):
        word = _BARE.match(rest)
        return found.start(), word.group(1) if word else ""
    depth = 0
    for place, letter in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return found.start(), inner[1:place]
    return found.start(), inner[1:]
