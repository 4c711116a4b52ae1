r"""The verdict on real data: the final answer of a completion equals the answer given, as text or as a number.

The final answer is what the last of these marks holds, or the whole text where there is none:

    \boxed{72}        #### 72        <answer>72</answer>

For mathematics with many spellings of one answer (1/2, 0.5, \frac{1}{2}), name a checker such as math-verify by import
path: `accuracy = "my_checks.py:equivalent"`.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOXED = re.compile(r"\\boxed\s*\{")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def final_answer(text: str) -> str:
    """The content of the last mark, stripped; the text itself, stripped, where there is no mark."""
    marked = [(m.start(), m.group(1)) for pattern in (_TAGGED, _HASHES) for m in pattern.finditer(text)]
    marked += [(m.start(), _until_closed(text, m.end())) for m in _BOXED.finditer(text)]
    return max(marked)[1].strip() if marked else text.strip()


def matches(completion: str, answer: str) -> bool:
    """Whether the final answers are the same text or number (`1,000.0` is `1000`; `$` and a last `.` do not count)."""
    found, wanted = _plain(final_answer(completion)), _plain(final_answer(answer))
    if found == wanted:
        return wanted != ""
    a, b = _number(found), _number(wanted)
    return a is not None and a == b


def _until_closed(text: str, start: int) -> str:
    """The text from `start` to the brace that closes the one before it, or to the end."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def _plain(answer: str) -> str:
    return answer.strip().strip("$").strip().removesuffix(".")


def _number(answer: str) -> Decimal | None:
    try:
        number = Decimal(_THOUSANDS.sub("", answer))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
