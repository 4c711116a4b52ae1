r"""Graders: functions (completion, answer) -> bool that decide whether a response to a row of data is right.

| name        | right where                                                                                       |
|-------------|---------------------------------------------------------------------------------------------------|
| strict      | the final answer (`\boxed{}`, `####`, `<answer>`, or the whole text) is the same text or number     |
| flexible    | the last number of the response is the answer; an answer that is no number is graded strictly       |
| math-verify | math-verify parses both to the same expression: 1/2, 0.5 and \frac{1}{2} are one (extra `math`)      |
| gsm8k       | the last `#### N` of the last 300 characters is the answer's string, commas removed; as verl grades |

Early gains of reinforcement learning are often gains in format. So evaluations report the accuracy of the same samples
under the first three graders; `task.grader` chooses the one that counts.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence

from rlzoo.errors import UserError, nearest
from rlzoo.tasks import math_verify
from rlzoo.tasks.answers import final_answer, last_number, number, plain, same

Grader = Callable[[str, str], bool]

LAST_CHARACTERS = 300
_VERL_ANSWER = re.compile(r"#### (\-?[0-9\.\,]+)")


def strict(completion: str, answer: str) -> bool:
    """Whether the final answers of both are the same text or number; an answer may be a whole solution with a mark."""
    return same(final_answer(completion), final_answer(answer))


def flexible(completion: str, answer: str) -> bool:
    """Whether the last number of the response is the answer; strict for an answer that is no number."""
    wanted = plain(final_answer(answer))
    if number(wanted) is None:
        return strict(completion, answer)
    found = last_number(completion)
    return found is not None and same(found, wanted)


def gsm8k(completion: str, answer: str) -> bool:
    """Whether verl's strict grader for GSM8K gives 1 (verl/utils/reward_score/gsm8k.py, commit 1dda039).

    The last `#### N` within the last 300 characters, commas (and `$`, which the pattern lets no number have) removed,
    has to be the answer's string: `72.0` and `72.` are not `72`.
    """
    found = _VERL_ANSWER.findall(completion[-LAST_CHARACTERS:])
    return bool(found) and found[-1].replace(",", "") == final_answer(answer).replace(",", "")


GRADERS: dict[str, Grader] = {
    "strict": strict,
    "flexible": flexible,
    "math-verify": math_verify.equivalent,
    "gsm8k": gsm8k,
}
REPORTED = ("strict", "flexible", "math-verify")
"""Graders whose accuracy evaluations report; math-verify if it is installed."""


def grader(name: str, where: str) -> Grader:
    """Return a grader by name.

    Raises:
        UserError: there is none of this name, or its package is missing.
    """
    if name not in GRADERS:
        raise UserError(f"{where}: unknown grader {name!r}; {nearest(name, GRADERS)}")
    if name == "math-verify" and not installed():
        raise UserError(f"{where}: the grader math-verify needs a package of that name: pip install 'rlzoo[math]'")
    return GRADERS[name]


def installed() -> bool:
    """Whether math-verify can be imported."""
    return importlib.util.find_spec("math_verify") is not None


def right(grade: Grader, completion: str, answers: Sequence[str]) -> float:
    """Return 1 where the response is right by any of the answers, else 0."""
    return float(any(grade(completion, answer) for answer in answers))
