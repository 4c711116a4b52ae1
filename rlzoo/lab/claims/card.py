"""A claim: statement, conditions, origin, source and method of the check. The verdict is computed.

@claim(name=..., statement=..., conditions=..., origin="paper", source=..., quote=..., how=..., expected="supported")
def check() -> Finding: ...

A claim can be read alone. `origin` is the kind of source; the page counts the three kinds separately, because
refuting a statement that nobody made is not a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlzoo.lab.plots import Plot

Verdict = Literal["supported", "refuted", "depends", "inconclusive"]
Origin = Literal["paper", "often said", "lemma"]

ORIGINS: dict[Origin, str] = {"paper": "stated in a paper", "often said": "often said", "lemma": "our lemma"}
VERDICTS: dict[Verdict, str] = {
    "supported": "true under the stated conditions",
    "refuted": "false under the stated conditions",
    "depends": "true in some measured cases and false in others; `measured` lists them",
    "inconclusive": "the random draws disagree",
}
LEAST_DRAWS = 20
"""Minimum number of random draws behind a verdict that depends on them."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        holds: whether the statement is true; "depends" if the measured cases differ, None if the random draws disagree.
        measured: the numbers in a sentence.
        numbers: the same as JSON types.
        arithmetic: the calculation with its numbers, line by line.
        plot: data of the claim's figure.
    """

    holds: bool | Literal["depends"] | None
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)
    arithmetic: Sequence[str] = ()
    plot: Plot | None = None


@dataclass(frozen=True)
class Claim:
    """A registered claim.

    Attributes:
        conditions: the conditions of the check, and what the statement would need elsewhere.
        origin: the kind of source.
        source: paper and section, or where it is said.
        how: the method of the check.
        expected: the verdict that the source or a derivation predicts; the check does not use it.
        check: computes the finding.
        quote: at most one line of the source.
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
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict
    finding: Finding

    @property
    def measured(self) -> str:
        """The numbers in a sentence."""
        return self.finding.measured

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers as JSON types."""
        return self.finding.numbers

    def as_dict(self) -> dict[str, Any]:
        """Return the claim and its outcome as JSON types."""
        c = self.claim
        keys = ("name", "statement", "conditions", "origin", "source", "quote", "how", "expected")
        found = {"measured": self.measured, "numbers": self.numbers, "arithmetic": list(self.finding.arithmetic)}
        return {**{key: getattr(c, key) for key in keys}, "verdict": self.verdict, **found}


CLAIMS: dict[str, Claim] = {}
"""All claims, in order of presentation."""


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
    """Register a check as a claim; the arguments are the fields of `Claim`.

    Raises:
        ValueError: the name is taken.
    """

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
    """Return what `Finding.holds` is for the shares of draws in which a statement is true, one share per setting.

    True if every share is at least `most`, False if every share is at most 1 - `most`, None if every share lies between
    the two, else "depends".
    """
    clear = [True if share >= most else False if share <= 1 - most + 1e-9 else None for share in shares]
    if len(set(clear)) == 1:
        return clear[0]
    return "depends"
