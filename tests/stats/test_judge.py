"""Verdicts over seeds and problems: rules, families, refusals and the ceiling."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlzoo.stats.crossed import noncentrality
from rlzoo.stats.judge import decide, judge, relative
from rlzoo.stats.verdicts import Refusal
from tests.stats.simulated import runs, solved


def scores(seeds: int = 8, std: float = 0.01, noise: int = 0, **means: float) -> dict[str, dict[int, float]]:
    """Normal scores, the same for the same arguments."""
    rng = np.random.default_rng(noise)
    return {name: {s: float(mean + rng.normal(0, std)) for s in range(seeds)} for name, mean in means.items()}


def exact(difference: float, step: float, seeds: int = 8) -> dict[str, dict[int, float]]:
    """Two algorithms, a above b by `difference` on average, and by `step` more or less on every second seed."""
    return {
        "a": {s: 0.5 + difference + (step if s % 2 else -step) for s in range(seeds)},
        "b": dict.fromkeys(range(seeds), 0.5),
    }


def test_one_pair_by_hand() -> None:
    # d = 0.05 +- 0.02, n = 8: s = 0.02 sqrt(8 / 7), t = 0.05 / (s / sqrt 8) = 2.5 sqrt 7 = 6.614
    judgement = judge(exact(0.05, 0.02), problems=10_000)
    (pair,) = judgement.pairs
    assert (pair.a, pair.b, pair.n, pair.same_seeds, pair.verdict) == ("a", "b", 8, True, "better")
    assert pair.p == pair.p_holm == pytest.approx(2 * scipy_stats.t.sf(2.5 * math.sqrt(7), 7))
    assert pair.difference.mean == pytest.approx(0.05)
    assert pair.difference.half_width == pytest.approx(scipy_stats.t.ppf(0.975, 7) * 0.02 / math.sqrt(7))
    error = 0.02 * math.sqrt(8 / 7) / math.sqrt(8)
    assert pair.detectable == pytest.approx(noncentrality(7, 0.05, 0.8) * error)
    assert pair.improvement.mean == 1.0 and pair.improvement.low == pytest.approx(0.025 ** (1 / 8))
    first, second = judgement.standings
    assert (first.algorithm, first.n, first.collapse_rate) == ("a", 8, None)
    assert first.worst == pytest.approx(0.53) and first.iqm.mean == pytest.approx(0.55)
    assert second.mean.mean == second.worst == 0.5


@pytest.mark.parametrize(
    ("difference", "step", "verdict"),
    [
        (0.05, 0.02, "better"),
        (0.005, 0.005, "equivalent"),  # (0.02 - 0.005) / (0.005 / sqrt 7) = 7.9 errors within the margin
        (0.015, 0.002, "equivalent"),  # surely above 0 as well, but the margin says what matters
        (0.03, 0.05, "inconclusive"),
        (0.0, 0.0, "inconclusive"),  # the error of two shares of 128 problems is 2.4 points at the floor
    ],
)
def test_verdicts(difference: float, step: float, verdict: str) -> None:
    assert judge(exact(difference, step), problems=10_000 if step else 128).pairs[0].verdict == verdict


def test_equal_differences_are_no_proof() -> None:
    """Five points on each of four seeds, and almost the same: there is no jump between the two."""
    same, almost = exact(0.05, 0.0, seeds=4), exact(0.05, 0.0, seeds=4)
    almost["a"][3] += 0.004
    p = [judge(table).pairs[0].p for table in (same, almost)]
    assert p[0] == pytest.approx(p[1], rel=0.3) and p[0] is not None and 0.005 < p[0] < 0.3


def test_the_margin_and_the_level_decide() -> None:
    narrow = exact(0.015, 0.002)
    assert judge(narrow, margin=0.01, problems=10_000).pairs[0].verdict == "better"
    wide = exact(0.03, 0.03)  # t = sqrt 7 = 2.65, p = 0.033
    assert judge(wide, problems=10_000).pairs[0].verdict == "better"
    strict = judge(wide, level=0.01, problems=10_000).pairs[0]
    assert strict.verdict == "inconclusive"
    assert strict.difference.half_width == pytest.approx(scipy_stats.t.ppf(0.995, 7) * 0.03 / math.sqrt(7))


def test_verdicts_allow_for_the_family() -> None:
    table = scores(a=0.8, b=0.81, c=0.82, d=0.85, e=0.86)
    every = judge(table)
    assert len(every.pairs) == 10
    smallest = min(every.pairs, key=lambda pair: pair.p or 1)
    assert smallest.p is not None and smallest.p_holm == pytest.approx(10 * smallest.p)
    against = judge(table, questions=[(name, "a") for name in "bcde"])
    assert [{pair.a, pair.b} for pair in against.pairs] == [{name, "a"} for name in "edcb"]
    best = against.pair("e", "a")
    assert best.p is not None and best.p == every.pair("e", "a").p and (best.p_holm or 0) <= 4 * best.p + 1e-12
    with pytest.raises(KeyError, match="e and d"):
        against.pair("e", "d")


def test_the_drawn_interval_agrees_with_the_verdict() -> None:
    """Intervals of each pair by itself leave out 0 where Holm's verdict is inconclusive; these do not."""
    rng = np.random.default_rng(11)
    disagreed = 0
    for _ in range(30):
        table = {name: {s: 0.5 + 0.01 * i + rng.normal(0, 0.02) for s in range(6)} for i, name in enumerate("abcd")}
        for pair in judge(table, margin=1e-9).pairs:
            assert (pair.difference.sign != 0) == (pair.verdict != "inconclusive")
            disagreed += (pair.found.interval().sign != 0) != (pair.verdict != "inconclusive")
    assert disagreed > 2


def test_a_third_row_leaves_the_verdict_of_a_pair_by_itself() -> None:
    table = exact(0.05, 0.02)
    alone = judge(table).pair("a", "b")
    beside = judge(table | {"c": {s: 0.1 + 0.01 * (s % 3) for s in range(8)}}).pair("a", "b")
    assert (alone.p, alone.found) == (beside.p, beside.found) and alone.verdict == beside.verdict


def test_a_pair_from_the_other_side() -> None:
    judgement = judge(exact(0.05, 0.02))
    here, there = judgement.pair("a", "b"), judgement.pair("b", "a")
    assert there.verdict == "worse" and there.difference.mean == -here.difference.mean
    assert there.difference.low == -(here.difference.high or 0)
    assert there.improvement.mean == 0.0 and there.flipped() == here
    with pytest.raises(KeyError, match="a and c"):
        judgement.pair("a", "c")


def test_one_seed_has_no_verdict() -> None:
    (pair,) = judge({"a": {0: 0.9}, "b": {0: 0.1}}).pairs
    assert pair.verdict is None and pair.told == "no verdict" and pair.n == 1 and pair.difference.low is None
    assert pair.refusal is not None and pair.refusal.name == "one seed"
    assert pair.p is pair.p_holm is pair.p_equivalent is pair.detectable is None


def test_pairs_use_the_seeds_that_both_have() -> None:
    table = exact(0.05, 0.02)
    del table["b"][7], table["a"][0]
    (pair,) = judge(table).pairs
    assert pair.n == 6 and pair.same_seeds
    assert pair.difference.mean == pytest.approx(sum(table["a"][s] - table["b"][s] for s in range(1, 7)) / 6)
    table["b"] = {s + 100: score for s, score in table["b"].items()}
    (pair,) = judge(table).pairs
    assert pair.n == 7 and not pair.same_seeds


def test_problems_are_a_sample_too() -> None:
    """Eight seeds agree on 128 problems that one algorithm happens to be better at; on others it is not."""
    rng = np.random.default_rng(3)
    tables = solved(rng, 100, 8, 128, 2.0, seeds=0.02, problems=0.8)
    both = {"better": 0, "worse": 0, "inconclusive": 0, "equivalent": 0}
    seeds_only = 0
    for d in tables:
        rows = {"a": {s: d[s].clip(0) for s in range(8)}, "b": {s: (-d[s]).clip(0) for s in range(8)}}
        both[judge(rows).pairs[0].verdict or ""] += 1
        means = {name: {s: float(one.mean()) for s, one in row.items()} for name, row in rows.items()}
        seeds_only += judge(means, problems=10**9).pairs[0].verdict in ("better", "worse")
    assert both["better"] + both["worse"] <= 0.05 * 100 + 3 * math.sqrt(0.05 * 0.95 * 100)
    assert seeds_only > 0.15 * 100


def test_near_the_ceiling_errors_are_compared() -> None:
    """98.2% against 99.9%: under 2 points apart, and more than ten times the errors."""
    rng = np.random.default_rng(1)
    difficulty = np.random.default_rng(2).normal(0, 1.5, 4000)
    rows = {"a": runs(rng, 6, difficulty, 9.0), "b": runs(rng, 6, difficulty, 5.5)}
    pair = judge(rows).pair("a", "b")
    assert 0 < pair.difference.mean < 0.02 and pair.verdict == "better"
    assert pair.errors is not None and pair.errors.low is not None and pair.errors.mean > 3 > 1 < pair.errors.low
    other = judge(rows).pair("b", "a")
    assert other.errors is not None and other.errors.mean == pytest.approx(1 / pair.errors.mean)
    # At 90% the two scales agree: 2 points are a fifth of the errors.
    assert relative(0.02) == pytest.approx(math.log(1.2))


def test_no_error_at_all_near_the_ceiling() -> None:
    rows = {"a": {s: np.ones(500) for s in range(4)}, "b": {s: np.ones(500) for s in range(4)}}
    pair = judge(rows).pairs[0]
    assert pair.errors is not None and pair.errors.mean == 1.0 and pair.p == 1.0


def test_refusals_stand_in_the_place_of_verdicts_and_still_count() -> None:
    table = scores(a=0.5, b=0.6, c=0.7)
    judgement = judge(table, refuse=lambda a, b: Refusal("silent", "x") if "a" in (a, b) else None)
    assert [pair.verdict for pair in judgement.pairs] == ["better", None, None]
    (pair,) = [pair for pair in judgement.pairs if pair.verdict]
    assert pair.p is not None and pair.p_holm is not None and pair.p_holm >= pair.p
    everything = judge(table, refusal=Refusal("no update", "nothing was trained"))
    assert all(pair.verdict is None and pair.told == "no verdict" for pair in everything.pairs)
    assert everything.as_dict()["refusal"] == {"name": "no update", "reason": "nothing was trained"}


def test_decisions_about_a_family_with_one_that_is_missing() -> None:
    found = [pair.found for pair in judge(scores(a=0.5, b=0.6, c=0.7)).pairs]
    decided = decide(found, 0.02, 0.05, refused=[True, False, False])
    assert [one.verdict for one in decided] == [None, "better", "better"]


def test_collapse_rate_counts_seeds_without_a_score() -> None:
    judgement = judge({"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": {}}, collapsed={"a": [1, 9]})
    assert [s.algorithm for s in judgement.standings] == ["a"]
    assert judgement.standings[0].collapse_rate == 0.5


def test_correlation_over_seeds() -> None:
    a = {s: 0.5 + 0.01 * s for s in range(5)}
    assert judge({"a": a, "b": {s: 0.9 * x for s, x in a.items()}}).pairs[0].correlation == pytest.approx(1.0)
    assert judge({"a": a, "b": dict.fromkeys(range(5), 0.4)}).pairs[0].correlation is None


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": math.nan}, {"level": 95}])
def test_refuses_settings_without_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        judge(exact(0.05, 0.02), **wrong)


def test_refuses_a_score_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="finite"):
        judge({"a": {0: math.nan}})


def test_as_data() -> None:
    rng = np.random.default_rng(0)
    rows = {"a": runs(rng, 4, rng.normal(0, 1, 300), 1.0), "b": runs(rng, 4, rng.normal(0, 1, 300), 0.9)}
    data = judge(rows).as_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["pairs"][0]["found"]["problems"] == 300 and data["margin"] == 0.02
    assert set(data["pairs"][0]["found"]["shares"]) == {"seeds", "problems", "rest"}
