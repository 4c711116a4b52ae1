"""A claim is a card: what is said, where, under which conditions, how it is checked; its verdict is computed.

@claim(name=..., statement=..., conditions=..., origin="paper", source=..., quote=..., how=..., expected="supported")
def check() -> Finding: ...

A card can be read alone. `origin` says whose statement it is, and the page counts the three apart: refuting what
nobody said is no finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlzoo.lab.plots import Plot

Verdict = Literal["supported", "refuted", "depends", "inconclusive"]
Origin = Literal["paper", "often said", "lemma"]

ORIGINS: dict[Origin, str] = {"paper": "said in a paper", "often said": "often said", "lemma": "our lemma"}
VERDICTS: dict[Verdict, str] = {
    "supported": "true under the stated conditions",
    "refuted": "false under the stated conditions",
    "depends": "not the same in all measured cases; the card says which is which",
    "inconclusive": "the random draws do not agree",
}
LEAST_DRAWS = 20
"""A verdict that depends on a random draw is over at least this many."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        holds: whether the statement came out true; "depends" if the measured cases differ, None if the random draws
            do not agree.
        measured: the numbers, in words.
        numbers: the same for a machine.
        arithmetic: the calculation, line by line, with its numbers.
        plot: what the card's figure shows.
    """

    holds: bool | Literal["depends"] | None
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)
    arithmetic: Sequence[str] = ()
    plot: Plot | None = None


@dataclass(frozen=True)
class Claim:
    """The card. `expected` is what its source or a derivation leads one to expect; the verdict never reads it.

    Attributes:
        conditions: where the statement is checked; what it would need elsewhere.
        origin: whose statement it is; source: paper and section, or where it is said; quote: at most one line of it.
    """

    name: str
    statement: str
    conditions: str
    origin: Origin
    source: str
    how: str
    expected: Verdict
    check: Callable[[], Finding]
    quote: str = ""


@dataclass(frozen=True)
class Result:
    """A checked claim."""

    claim: Claim
    verdict: Verdict
    finding: Finding

    @property
    def measured(self) -> str:
        return self.finding.measured

    @property
    def numbers(self) -> dict[str, Any]:
        return self.finding.numbers

    def as_dict(self) -> dict[str, Any]:
        """Return the card and its outcome as JSON types."""
        c = self.claim
        keys = ("name", "statement", "conditions", "origin", "source", "quote", "how", "expected")
        found = {"measured": self.measured, "numbers": self.numbers, "arithmetic": list(self.finding.arithmetic)}
        return {**{key: getattr(c, key) for key in keys}, "verdict": self.verdict, **found}


CLAIMS: dict[str, Claim] = {}
"""All claims, in the order in which they are told."""


def claim(
    *,
    name: str,
    statement: str,
    conditions: str,
    origin: Origin,
    source: str,
    how: str,
    expected: Verdict,
    quote: str = "",
) -> Callable[[Callable[[], Finding]], Callable[[], Finding]]:
    """Register a check under its card."""

    def register(check: Callable[[], Finding]) -> Callable[[], Finding]:
        if name in CLAIMS:
            raise ValueError(f"claim {name!r} exists already")
        CLAIMS[name] = Claim(name, statement, conditions, origin, source, how, expected, check, quote)
        return check

    return register


def run(card: Claim) -> Result:
    """Check a claim."""
    finding = card.check()
    words: dict[object, Verdict] = {True: "supported", False: "refuted", "depends": "depends", None: "inconclusive"}
    return Result(card, words[finding.holds], finding)


def over_draws(shares: Sequence[float], *, most: float = 0.9) -> bool | Literal["depends"] | None:
    """The verdict of shares of draws, one share per setting.

    True where at least `most` of the draws agree in every setting, False where at most 1 - `most` do in every one;
    "depends" where settings differ; None where no setting is clear.
    """
    clear = [True if share >= most else False if share <= 1 - most + 1e-9 else None for share in shares]
    if len(set(clear)) == 1:
        return clear[0]
    return "depends"
