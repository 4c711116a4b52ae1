"""The cards: every verdict is pinned, so that a change in the mathematics that turns one is noticed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from rlzoo.lab.claims import CLAIMS, Claim, Finding, claim, run
from rlzoo.lab.claims.groups import STD, closed_form, measured_weight

REFUTED = {
    "sft-is-importance-sampled",
    "std-weight-is-unbounded",
    "two-is-as-good-as-sixteen",
    "a-baseline-cuts-variance",
    "hence-its-gradient-is-biased",
    "ratio-of-sums-is-unbiased",
    "statistics-differ-unless-equal",
    "right-answers-shorten-more",
    "token-mean-removes-the-length-bias",
    "soft-overlong-is-soft",
    "max-clip-stands-still",
    "clip-higher-frees-the-rarest",
    "ppo-low-variance-high-bias",
    "smaller-lambda-less-variance",
    "all-right-batch-teaches-nothing",
    "k2-in-the-loss-is-reverse-kl",
    "k3-in-the-loss-is-reverse-kl",
    "k3-in-the-reward-is-as-good",
    "the-double-estimator-is-unbiased",
    "policy-gradient-needs-no-ratio",
    "values-of-the-base-will-do",
}
NOT_RESOLVABLE = {"one-over-length-shortens-right-answers", "upper-clip-hits-rare-tokens"}


@pytest.mark.parametrize("name", CLAIMS)
def test_verdict(name: str) -> None:
    result = run(CLAIMS[name])
    verdict = "refuted" if name in REFUTED else "not resolvable" if name in NOT_RESOLVABLE else "supported"
    assert result.verdict == verdict, result.measured
    assert result.measured and set(result.as_dict()) >= {"name", "statement", "source", "how", "expected", "numbers"}


def test_the_pinned_names_exist() -> None:
    assert set(CLAIMS) >= REFUTED | NOT_RESOLVABLE


def test_the_published_table_is_up_to_date() -> None:
    """Made by: rlzoo claims --out benchmarks/results/claims.md"""
    text = (Path(__file__).parents[2] / "benchmarks" / "results" / "claims.md").read_text()
    published = dict(re.findall(r"^\| `([\w-]+)`: .*? \| \*\*([\w ]+)\*\*", text, flags=re.MULTILINE))
    assert list(published) == list(CLAIMS)
    assert {name for name, verdict in published.items() if verdict == "refuted"} == REFUTED
    assert {name for name, verdict in published.items() if verdict == "not resolvable"} == NOT_RESOLVABLE
    assert all(CLAIMS[name].statement.replace("|", "\\|") in text for name in published)


def test_the_verdict_does_not_look_at_what_was_expected() -> None:
    for holds, verdict in ((True, "supported"), (False, "refuted"), (None, "not resolvable")):
        for expected in ("supported", "refuted", "not resolvable"):
            card = Claim("x", "s", "s", "h", expected, lambda holds=holds: Finding(holds, "measured"))
            assert run(card).verdict == verdict


def test_a_name_is_taken_once() -> None:
    name = next(iter(CLAIMS))
    with pytest.raises(ValueError, match="exists already"):
        claim(name=name, statement="", source="", how="", expected="supported")(lambda: Finding(True, ""))


@pytest.mark.parametrize(
    ("size", "p", "weight"), [(4, 0.001, 1.732), (8, 0.1, 2.328), (16, 0.05, 3.267), (64, 0.25, 2.285)]
)
def test_difficulty_weights_of_the_closed_form(size: int, p: float, weight: float) -> None:
    """Numbers worked out by hand from the binomial sum, and the limit 1 / sqrt(p (1-p)) of large groups."""
    assert closed_form(size, p) == pytest.approx(weight, abs=5e-4)
    assert measured_weight(STD, size, p)[0] == pytest.approx(weight, abs=5e-4)
    assert closed_form(4000, 0.25) == pytest.approx(1 / math.sqrt(0.25 * 0.75), rel=1e-3)
