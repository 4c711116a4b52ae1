"""The conformance suite for objectives: micro-batches add up, the order of rows and the amount of padding do not
matter, nothing outside the mask counts, and states survive a checkpoint.

    rlzoo check my_objective --import mine.py          # or: from objectives.conformance import failures

A check is a function of an objective that raises AssertionError; `CHECKS` has them all. Torch and pydantic only.
"""

from __future__ import annotations

from collections.abc import Callable

from objectives.conformance import losses, rollouts
from objectives.objective import Objective

Check = Callable[[Objective], None]

CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): value
    for module in (losses, rollouts)
    for name, value in vars(module).items()
    if name.startswith("check_")
}
"""Every check by its name."""


def failures(objective: Objective) -> dict[str, str]:
    """Run all checks on an objective: name -> what went wrong, for those that failed. Empty if it conforms."""
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            check(objective)
        except AssertionError as error:
            found[name] = str(error)
        except Exception as error:  # a part of somebody else's may raise anything
            found[name] = f"{type(error).__name__}: {error}"
    return found
