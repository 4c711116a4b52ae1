"""A claim is a card: what is said, by whom, how it is checked, what is expected; its verdict is computed.

@claim(name=..., statement=..., source=..., how=..., expected="supported")
def check() -> Finding: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["supported", "refuted", "not resolvable"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        holds: whether the statement came out true; None if the numbers cannot tell.
        measured: the numbers, in words.
        numbers: the same for a machine.
    """

    holds: bool | None
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """The card. `expected` is what its source or a derivation leads one to expect; the verdict does not look at it."""

    name: str
    statement: str
    source: str
    how: str
    expected: Verdict
    check: Callable[[], Finding]


@dataclass(frozen=True)
class Result:
    """A checked claim."""

    claim: Claim
    verdict: Verdict
    measured: str
    numbers: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the card and its outcome as JSON types."""
        c = self.claim
        card = {"name": c.name, "statement": c.statement, "source": c.source, "how": c.how, "expected": c.expected}
        return {**card, "verdict": self.verdict, "measured": self.measured, "numbers": self.numbers}


CLAIMS: dict[str, Claim] = {}
"""All claims, in the order in which they are told."""


def claim(
    *, name: str, statement: str, source: str, how: str, expected: Verdict
) -> Callable[[Callable[[], Finding]], Callable[[], Finding]]:
    """Register a check under its card."""

    def register(check: Callable[[], Finding]) -> Callable[[], Finding]:
        if name in CLAIMS:
            raise ValueError(f"claim {name!r} exists already")
        CLAIMS[name] = Claim(name, statement, source, how, expected, check)
        return check

    return register


def run(card: Claim) -> Result:
    """Check a claim."""
    finding = card.check()
    verdict: Verdict = "supported" if finding.holds else "refuted"
    return Result(card, "not resolvable" if finding.holds is None else verdict, finding.measured, finding.numbers)
