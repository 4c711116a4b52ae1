"""Verdicts over seeds, in numbers and in words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlzoo.stats.intervals import paired
from rlzoo.stats.tests import detectable, equivalence_p
from rlzoo.stats.verdicts import Judgement, judge


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
    judgement = judge(exact(0.05, 0.02))
    (pair,) = judgement.pairs
    assert (pair.a, pair.b, pair.n, pair.same_seeds, pair.verdict) == ("a", "b", 8, True, "better")
    assert pair.p == pair.p_holm == pytest.approx(2 * scipy_stats.t.sf(2.5 * math.sqrt(7), 7))
    assert pair.difference.mean == pytest.approx(0.05)
    assert pair.difference.half_width == pytest.approx(scipy_stats.t.ppf(0.975, 7) * 0.02 / math.sqrt(7))
    assert pair.detectable == pytest.approx(detectable(0.02 * math.sqrt(8 / 7), 8))
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
        (0.05, 0.0, "better"),  # eight equal differences: p = 2 / 2^8
        (0.0, 0.0, "equivalent"),
    ],
)
def test_verdicts(difference: float, step: float, verdict: str) -> None:
    assert judge(exact(difference, step)).pairs[0].verdict == verdict


def test_the_margin_and_the_confidence_decide() -> None:
    narrow = exact(0.015, 0.002)
    assert judge(narrow, margin=0.01).pairs[0].verdict == "better"
    wide = exact(0.03, 0.03)  # t = sqrt 7 = 2.65, p = 0.033
    assert judge(wide).pairs[0].verdict == "better"
    assert judge(wide, confidence=0.99).pairs[0].verdict == "inconclusive"
    assert judge(wide, confidence=0.99).pairs[0].difference.half_width == pytest.approx(
        scipy_stats.t.ppf(0.995, 7) * 0.03 / math.sqrt(7)
    )


def test_few_equal_differences_are_no_proof() -> None:
    """Without a spread t would be sure of everything; two seeds that differ alike are a coin that fell twice."""
    assert judge(exact(0.05, 0.0, seeds=2)).pairs[0].verdict == "inconclusive"
    assert judge(exact(0.0, 0.0, seeds=2)).pairs[0].verdict == "inconclusive"
    assert judge(exact(0.05, 0.0, seeds=6)).pairs[0].verdict == "better"  # 2 / 2^6 = 0.031


def test_verdicts_allow_for_the_number_of_pairs() -> None:
    table = scores(a=0.8, b=0.81, c=0.82, d=0.85, e=0.86)
    judgement = judge(table)
    assert len(judgement.pairs) == 10
    p = [pair.p for pair in judgement.pairs]
    for pair in judgement.pairs:
        differences = [table[pair.a][s] - table[pair.b][s] for s in range(8)]
        assert pair.p == pytest.approx(scipy_stats.ttest_1samp(differences, 0).pvalue)
        assert pair.difference == paired(table[pair.a], table[pair.b])
        assert pair.p_holm is not None and pair.p_equivalent is not None
        assert pair.p_holm >= pair.p and pair.p_equivalent >= equivalence_p(differences, 0.02)
        assert pair.detectable == pytest.approx(detectable(float(np.std(differences, ddof=1)), 8, 0.05 / 10))
    smallest = min(range(10), key=lambda i: p[i])
    assert judgement.pairs[smallest].p_holm == pytest.approx(10 * p[smallest])


def test_a_pair_from_the_other_side() -> None:
    judgement = judge(exact(0.05, 0.02))
    here, there = judgement.pair("a", "b"), judgement.pair("b", "a")
    assert there.verdict == "worse" and there.difference.mean == -here.difference.mean
    assert (there.difference.low, there.bootstrap.high) == (-here.difference.high, -here.bootstrap.low)
    assert there.improvement.mean == 0.0 and there.improvement.high == pytest.approx(1 - here.improvement.low)
    assert there.flipped() == here
    swapped = judge({"b": {0: 0.3, 1: 0.2}, "a": {0: 0.3, 1: 0.1}}).pair("a", "b")
    assert swapped.improvement.mean == 0.25  # a tie, and a loss
    with pytest.raises(KeyError, match="a and c"):
        judgement.pair("a", "c")


def test_one_seed_gives_no_verdict() -> None:
    (pair,) = judge({"a": {0: 0.9}, "b": {0: 0.1}}).pairs
    assert pair.verdict == "inconclusive" and pair.n == 1 and pair.difference.low is None
    assert pair.p is pair.p_holm is pair.p_equivalent is pair.detectable is None


def test_pairs_use_the_seeds_that_both_have() -> None:
    table = exact(0.05, 0.02)
    del table["b"][7], table["a"][0]
    (pair,) = judge(table).pairs
    assert pair.n == 6 and pair.same_seeds
    assert pair.difference.mean == pytest.approx(sum(table["a"][s] - table["b"][s] for s in range(1, 7)) / 6)


def test_algorithms_without_a_common_seed_are_paired_in_order() -> None:
    table = exact(0.05, 0.02)
    table["b"] = {s + 100: score for s, score in table["b"].items()}
    (pair,) = judge(table).pairs
    assert pair.n == 8 and not pair.same_seeds and pair.verdict == "better"


def test_a_single_seed_among_others_does_not_count_as_a_comparison() -> None:
    judgement = judge(exact(0.05, 0.02) | {"c": {0: 0.1}})
    pair = judgement.pair("a", "b")
    assert pair.p == pair.p_holm and judgement.pair("a", "c").verdict == "inconclusive"


def test_collapse_rate_counts_seeds_without_a_score() -> None:
    judgement = judge({"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": {}}, collapsed={"a": [1, 9]})
    assert [s.algorithm for s in judgement.standings] == ["a"]
    assert judgement.standings[0].collapse_rate == 0.5


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": math.nan}, {"confidence": 95}])
def test_refuses_settings_without_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        judge(exact(0.05, 0.02), **wrong)


def test_refuses_a_score_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="finite"):
        judge({"a": {0: math.nan}})


def test_as_data() -> None:
    data = judge(exact(0.05, 0.02)).as_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["pairs"][0]["verdict"] == "better" and data["pairs"][0]["difference"]["n"] == 8
    assert data["sentences"] and data["margin"] == 0.02 and data["standings"][0]["algorithm"] == "a"


def test_two_algorithms_in_words() -> None:
    assert judge(exact(0.05, 0.02)).sentences() == [
        "a is best in held-out accuracy, 55.0%: better than b by 5.0 points (95% interval 3.2 to 6.8, 8 seeds)."
    ]
    assert judge(exact(0.005, 0.005), measure="area").sentences() == [
        "a has the highest mean area, 50.5%; b has 50.0%.",
        "a and b are equivalent: less than 2.0 points apart (95% interval 0.1 to 0.9, 8 seeds).",
    ]
    # s = 0.05 sqrt(8 / 7) = 0.0535; noncentrality 3.27 for n = 8: 3.27 s / sqrt 8 = 0.062
    assert judge(exact(0.03, 0.05)).sentences() == [
        "a has the highest mean held-out accuracy, 53.0%; b has 50.0%.",
        "a against b is inconclusive: 3.0 points (95% interval -1.5 to 7.5, 8 seeds). "
        "A true difference of 6.2 points would be found with probability 0.8.",
    ]


def test_one_algorithm_or_seed_in_words() -> None:
    assert judge({}).sentences() == []
    assert judge({"a": {0: 0.5, 1: 0.6}}).sentences() == ["a has a mean held-out accuracy of 55.0% (2 seeds)."]
    assert judge({"a": {0: 0.9}, "b": {0: 0.1}}).sentences() == [
        "a has the highest mean held-out accuracy, 90.0%, but one seed each allows no verdict."
    ]


def test_ties_and_equal_differences_in_words() -> None:
    assert judge({"a": {0: 0.5}, "b": {0: 0.5}, "c": {0: 0.4}}).sentences() == [
        "a shares the highest mean held-out accuracy, 50.0%, but one seed each allows no verdict."
    ]
    # Two equal differences: the sign test's p is 1/2, and the interval has no width to show.
    assert judge(exact(0.125, 0.0, seeds=2)).sentences()[1] == (
        "a against b is inconclusive: 12.5 points (the same on each of 2 seeds)."
    )
    assert judge(exact(0.05, 0.0)).sentences() == [
        "a is best in held-out accuracy, 55.0%: better than b by 5.0 points (the same on each of 8 seeds)."
    ]


def test_several_algorithms_in_words() -> None:
    judgement = judge(scores(a=0.6, b=0.8, c=0.805, d=0.9, std=0.005))
    verdicts = {(pair.a, pair.b): pair.verdict for pair in judgement.pairs}
    assert verdicts[("c", "b")] == "equivalent" and sum(v == "better" for v in verdicts.values()) == 5
    lines = judgement.sentences()
    assert lines[0].startswith("d is best in held-out accuracy, ")
    assert "better than each of the other 3, than c by " in lines[0]
    assert [line.partition(" by ")[0] for line in lines[1:-1]] == [
        "d is better than b",
        "d is better than a",
        "c is better than a",
        "b is better than a",
    ]
    assert lines[-1].startswith("c and b are equivalent: less than 2.0 points apart (95% interval ")
    assert lines == judge(scores(a=0.6, b=0.8, c=0.805, d=0.9, std=0.005)).sentences()


def test_inconclusive_pairs_in_words() -> None:
    lines = judge(scores(seeds=2, a=0.5, b=0.51, c=0.52, std=0.02)).sentences()
    assert lines[0].startswith("c has the highest mean held-out accuracy, ")
    assert lines[0].endswith("%: inconclusive against b and a.")
    assert lines[1].startswith("All 3 pairs are inconclusive with 2 seeds. A true difference of ")
    # n = 2 at 5% / 3: no difference of accuracies is large enough to be found from two seeds this far apart.
    (pair,) = judge({"a": {0: 0.1, 1: 0.9}, "b": {0: 0.5, 1: 0.5}}).pairs
    assert pair.detectable is not None and pair.detectable > 1
    lines = judge({"a": {0: 0.1, 1: 0.9}, "b": {0: 0.5, 1: 0.5}}).sentences()
    assert lines[1].endswith(" Not even a difference from 0% to 100% would be found with probability 0.8.")


def test_collapses_and_seeds_of_their_own_in_words() -> None:
    table = exact(0.05, 0.02)
    table["b"] = {s + 100: score for s, score in table["b"].items()}
    lines = judge(table, collapsed={"b": [100, 103]}).sentences()
    assert "8 seeds of its own each)" in lines[0]
    assert lines[-1] == "Collapsed: b on 25% of its seeds."


def many(n: int) -> Judgement:
    return judge(scores(seeds=20, std=0.01, **{f"x{i:02}": 0.5 + 0.01 * i for i in range(n)}))


def test_twenty_algorithms_fit_on_a_screen() -> None:
    lines = many(20).sentences()
    assert len(lines) <= 15 and sum(map(len, lines)) < 80 * 24
    assert any(line.endswith("more pairs are better or worse.") for line in lines)
    assert any(" of 190 pairs are inconclusive with 20 seeds: " in line for line in lines)
