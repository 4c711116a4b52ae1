"""Claims: every verdict is pinned, so that a change of the mathematics is noticed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from objectives.parts import Aggregate, SequenceMean, SequenceSum, TokenMean
from rlzoo.lab.claims import CLAIMS, ORIGINS, VERDICTS, Claim, Finding, claim, run
from rlzoo.lab.claims.card import over_draws
from rlzoo.lab.claims.groups import STD, closed_form, drawn_noise, measured_weight
from rlzoo.lab.claims.lengths import expected_gradient, own
from rlzoo.lab.claims.shaping import long_one
from rlzoo.lab.moments import moments
from rlzoo.lab.plots import draw, plot_of
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world

PINNED = {
    "sft-is-importance-sampled": "refuted",
    "two-is-as-good-as-sixteen": "depends",
    "a-baseline-cuts-variance": "refuted",
    "ratio-of-sums-is-unbiased": "depends",
    "one-over-length-shortens-right-answers": "depends",
    "right-answers-shorten-more": "depends",
    "max-clip-stands-still": "refuted",
    "upper-clip-hits-rare-tokens": "depends",
    "ppo-low-variance-high-bias": "depends",
    "smaller-lambda-less-variance": "depends",
    "all-right-batch-teaches-nothing": "depends",
    "k2-in-the-loss-is-reverse-kl": "refuted",
    "k3-in-the-loss-is-reverse-kl": "refuted",
    "token-weights-vary-less": "depends",
    "masking-beats-truncation": "depends",
    "pass-at-1-training-lowers-pass-at-k": "depends",
    "two-grpo-is-online-dpo": "depends",
    "the-entropy-law-is-one-for-all": "inconclusive",
    "negatives-keep-entropy": "refuted",
    "a-fifth-of-the-tokens-suffices": "refuted",
}
"""Verdicts other than supported."""


@pytest.mark.parametrize("name", CLAIMS)
def test_verdict(name: str) -> None:
    result = run(CLAIMS[name])
    assert result.verdict == PINNED.get(name, "supported"), result.measured
    assert result.measured and set(result.as_dict()) >= {"statement", "conditions", "origin", "quote", "arithmetic"}
    plot = result.finding.plot or plot_of(result.numbers)
    assert plot.series and all(len(y) == len(plot.x) for y in plot.series.values())


def test_the_pinned_names_exist() -> None:
    assert set(CLAIMS) >= set(PINNED)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_card_can_be_read_alone(name: str) -> None:
    card = CLAIMS[name]
    assert card.origin in ORIGINS and card.expected in VERDICTS and card.conditions
    assert not re.match(r"(It|That|This|Hence|They|The same|The effect)\b", card.statement)
    assert not re.match(r"the same\b", card.how)
    assert len(card.quote) <= 120 and "\n" not in card.quote
    if card.origin == "paper":  # where in it
        assert re.search(r"\d{4}\.\d{4,5}|19\d\d|20\d\d", card.source)
        assert re.search(r"section|abstract|equation|figure|introduction|theorem", card.source)
    else:
        assert not card.quote


def test_the_published_table_is_up_to_date() -> None:
    """Made by: rlzoo claims --out benchmarks/results/claims.md"""
    text = (Path(__file__).parents[2] / "benchmarks" / "results" / "claims.md").read_text()
    published = dict(re.findall(r"^\| `([\w-]+)`: .*? \| \*\*([\w ]+)\*\*", text, flags=re.MULTILINE))
    assert published == {name: PINNED.get(name, "supported") for name in CLAIMS}
    assert all(CLAIMS[name].statement.replace("|", "\\|") in text for name in published)
    for origin, label in ORIGINS.items():  # counted apart
        (row,) = re.findall(rf"^\| {label} \| (.*) \|$", text, flags=re.MULTILINE)
        mine = [published[card.name] for card in CLAIMS.values() if card.origin == origin]
        assert [int(n) for n in row.split(" | ")] == [mine.count(verdict) for verdict in VERDICTS]


def test_the_verdict_does_not_look_at_what_was_expected() -> None:
    for holds, verdict in ((True, "supported"), (False, "refuted"), ("depends", "depends"), (None, "inconclusive")):
        for expected in VERDICTS:
            card = Claim("x", "s", "c", "lemma", "s", "h", expected, lambda holds=holds: Finding(holds, "measured"))
            assert run(card).verdict == verdict


def test_a_name_is_taken_once() -> None:
    name = next(iter(CLAIMS))
    with pytest.raises(ValueError, match="exists already"):
        claim(name=name, statement="", conditions="", origin="lemma", source="", how="", expected="supported")(
            lambda: Finding(True, "")
        )


@pytest.mark.parametrize(
    ("shares", "holds"),
    [
        ((1.0, 0.95), True),
        ((0.1, 0.0), False),
        ((0.5, 0.7), None),
        ((1.0, 0.5), "depends"),
        ((1.0, 0.0), "depends"),
        ((0.05, 0.5), "depends"),
    ],
)
def test_draws_decide_where_nine_in_ten_agree(shares: tuple[float, ...], holds: object) -> None:
    assert over_draws(shares) is holds or over_draws(shares) == holds


@pytest.mark.parametrize(
    ("size", "p", "weight"), [(4, 0.001, 1.732), (8, 0.1, 2.328), (16, 0.05, 3.267), (64, 0.25, 2.285)]
)
def test_difficulty_weights_of_the_closed_form(size: int, p: float, weight: float) -> None:
    """Numbers worked out by hand from the binomial sum, and the limit 1 / sqrt(p (1-p)) of large groups."""
    assert closed_form(size, p) == pytest.approx(weight, abs=5e-4)
    assert measured_weight(STD, size, p)[0] == pytest.approx(weight, abs=5e-4)
    assert closed_form(4000, 0.25) == pytest.approx(1 / math.sqrt(0.25 * 0.75), rel=1e-3)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("aggregate", [TokenMean(), SequenceMean(), SequenceSum()])
def test_an_expected_gradient_is_that_of_its_moments(aggregate: Aggregate, size: int) -> None:
    at = first_update(make_world(success=0.3, longest=3))
    found, known = expected_gradient(at, aggregate, size), moments(own(aggregate), at, size).mean_SV
    torch.testing.assert_close(found, known, rtol=1e-10, atol=1e-14)


def test_noise_over_a_pool_of_one_prompt_is_that_of_the_prompt() -> None:
    """With one prompt in the pool nothing is drawn: (variance + |E|^2) / |E|^2 - 1 = variance / |E|^2, per response."""
    from rlzoo.lab.claims.groups import at_rate, with_advantage

    found = moments(with_advantage(STD), at_rate(0.25, 3), 4)
    alone = found.variance / found.mean_SV.square().sum().item() * 4
    assert drawn_noise(STD, 4, (0.25,)) == pytest.approx(alone, rel=1e-9)


def test_a_punishment_cancels_in_an_all_right_group() -> None:
    """-7/sqrt 8 = -2.475 whatever the punishment; mean only, 1 - w/8 below 1-w: -7w/8."""
    assert long_one(1, 0, 0, "std", 1.0) == pytest.approx(-7 / math.sqrt(8), rel=1e-5)
    assert long_one(1, 0, 0, "std", 0.1) == pytest.approx(-7 / math.sqrt(8), rel=1e-4)
    assert long_one(1, 0, 0, "none", 0.1) == pytest.approx(-0.0875, rel=1e-6)


def test_a_figure_shows_numbers_by_name(tmp_path: Path) -> None:
    plot = plot_of({"bias": [0.5, 1.0], "flag": True, "deep": {"x": 2}, "text": "no", "nan": math.nan})
    assert list(zip(plot.x, plot.series["measured"], strict=True)) == [
        ("bias 1", 0.5),
        ("bias 2", 1.0),
        ("flag", 1.0),
        ("deep x", 2.0),
    ]
    draw({"one": plot, "two": plot}, tmp_path / "deep" / "x.png")
    assert (tmp_path / "deep" / "x.png").stat().st_size > 5_000
