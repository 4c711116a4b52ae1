"""Verdicts in words: one pair a line, and nothing that the data do not say."""

from __future__ import annotations

import numpy as np
import pytest

from rlzoo.stats.judge import judge
from rlzoo.stats.sentences import _left_out, listed, points, sentences
from rlzoo.stats.verdicts import Refusal
from tests.stats.simulated import runs
from tests.stats.test_judge import exact, scores


def test_two_algorithms() -> None:
    assert sentences(judge(exact(0.05, 0.02), problems=10_000)) == [
        "a is better than b: 55.0%.",
        "a is better than b: +5.0 points [3.2, 6.8], 8 seeds.",
    ]
    assert sentences(judge(exact(0.005, 0.005), problems=10_000)) == [
        "No row is better than all others. Mean held-out accuracy: a 50.5% and b 50.0%.",
        "a and b are equivalent within 2.0 points: +0.5 points [0.1, 0.9], 8 seeds.",
    ]
    lead, line = sentences(judge(exact(0.03, 0.05), problems=10_000))
    assert lead.startswith("No row is better than all others.")
    assert line.startswith("a against b is inconclusive: +3.0 points [-1.5, 7.5], 8 seeds. About ")
    assert line.endswith(" seeds would settle it; more problems alone would not.")


def test_problems_are_told_where_they_count() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 1.5, 1024)
    rows = {"a": runs(rng, 8, difficulty, 2.5), "b": runs(rng, 8, difficulty, 1.5)}
    assert sentences(judge(rows))[1].endswith("], 8 seeds, 1,024 problems.")


def test_one_algorithm_one_seed_and_no_score() -> None:
    assert sentences(judge({})) == []
    assert sentences(judge({"a": {0: 0.5, 1: 0.6}})) == ["a: mean held-out accuracy 55.0% (2 seeds)."]
    assert sentences(judge({"a": {0: 0.9}, "b": {0: 0.1}}))[1] == "No verdict on a against b: one seed has no interval."


def test_a_refusal_of_everything_comes_first_and_alone() -> None:
    lines = sentences(judge(exact(0.05, 0.02), refusal=Refusal("no update", "no run made an update")))
    assert lines == ["No verdict: no run made an update."]


def test_several_algorithms() -> None:
    lines = sentences(judge(scores(a=0.6, b=0.8, c=0.805, d=0.9, std=0.005), problems=10_000))
    assert lines[0] == "d is better than each of the other 3 rows: 89.9%."
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "d is better than c",
        "d is better than b",
        "d is better than a",
        "c is better than a",
        "b is better than a",
        "c and b are equivalent within 2.0 points",
    ]


def test_the_ceiling_is_told() -> None:
    lines = sentences(judge(scores(a=0.97, b=0.96)))
    assert any(line.startswith("Ceiling: the best row has 97.") for line in lines)
    assert not any("Ceiling" in line for line in sentences(judge(scores(a=0.94, b=0.9))))


def test_collapses_and_seeds_of_their_own() -> None:
    table = exact(0.05, 0.02)
    table["b"] = {s + 100: score for s, score in table["b"].items()}
    lines = sentences(judge(table, collapsed={"b": [100, 103]}))
    assert "8 seeds of its own each" in lines[1] and lines[-1] == "Collapsed: b on 25% of its seeds."


def test_nothing_is_called_best() -> None:
    for table in (exact(0.05, 0.02), exact(0.03, 0.05), scores(a=0.6, b=0.8, c=0.805, d=0.9, std=0.005)):
        assert not any("best in" in line or "is best" in line for line in sentences(judge(table)))


def test_twenty_algorithms_fit_on_a_screen() -> None:
    many = judge(scores(seeds=20, std=0.01, **{f"x{i:02}": 0.5 + 0.01 * i for i in range(20)}))
    lines = sentences(many)
    assert len(lines) <= 20 and sum(map(len, lines)) < 100 * 30
    assert any(line.endswith("more pairs are better.") for line in lines)


def test_amounts() -> None:
    assert (points(0.01), points(-0.0001), points(0.046)) == ("1.0 point", "0.0 points", "4.6 points")
    assert listed(list("abcde")) == "a, b, c, d and e"  # five are listed whole
    assert listed(["a"]) == "a" and listed(list("abcdefg")) == "a, b, c, d, e, and 2 more"


@pytest.mark.parametrize(("count", "said"), [(0, []), (1, ["1 more pair is alike."]), (2, ["2 more pairs are alike."])])
def test_pairs_that_are_not_listed_are_counted(count: int, said: list[str]) -> None:
    assert _left_out(count, "alike") == said
