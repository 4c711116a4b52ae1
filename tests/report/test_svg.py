"""Charts: what is drawn where, by hand; and which lines a report draws from which records."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from rlzoo.report.charts import LEGIBLE, LOUD, METRICS, PANELS, POINTS, Charts, Figure
from rlzoo.report.palette import MARKERS, looks
from rlzoo.report.read import read_study
from rlzoo.report.svg import BOTTOM, LEFT, RIGHT, TOP, Axes, Line, chart, interval, marker, shown
from tests.report.folders import write_run, write_study


def line(mean: list[float], half: float = math.nan, **kwargs: object) -> Line:
    y = np.array(mean)
    return Line("one", 3, np.arange(len(y), dtype=float), y, y - half, y + half, **kwargs)  # type: ignore[arg-type]


def paths(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    """The points of the paths of a class."""
    tree = ElementTree.fromstring(svg)
    found = [p for p in tree.iter("path") if kind in p.attrib["class"].split()]
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", p.attrib["d"])] for p in found]


def charts_of(folder: Path) -> Charts:
    study = read_study(folder, METRICS)
    return Charts(study, looks(study.algorithms), study.algorithms)


def polyline(figure: Figure, number: int) -> list[tuple[float, float]]:
    (found,) = [p for p in paths(figure.svg, f"a{number}") if p in paths(figure.svg, "line")]
    return found


def test_a_line_goes_from_corner_to_corner_of_its_frame() -> None:
    svg = chart([line([0, 0.5, 1])], Axes("x", "y", y_range=(0, 1)), "title", (200, 100))
    ((left, middle, right),) = paths(str(svg), "line")
    assert left == (LEFT, 100 - BOTTOM) and right == (200 - RIGHT, TOP)
    assert middle == pytest.approx(((LEFT + 200 - RIGHT) / 2, (100 - BOTTOM + TOP) / 2), abs=0.06)


def test_intervals_are_cut_off_at_the_frame_and_missing_points_left_out() -> None:
    svg = chart([line([0.2, math.nan, 0.4], half=9)], Axes("x", "y", y_range=(0, 1)), "title", (200, 100))
    ((first, last),) = paths(str(svg), "line")
    assert (first[0], last[0]) == (LEFT, 200 - RIGHT)
    (area,) = paths(str(svg), "band")
    assert {y for _, y in area} == {TOP, 100 - BOTTOM}


def test_quiet_lines_lie_behind_and_have_no_interval() -> None:
    svg = str(chart([line([1, 2], half=1, marker="o"), line([2, 3], half=1, quiet=True)], Axes("x", "y"), "t"))
    assert svg.count('"quiet line"') == 1 and svg.count("band") == 1
    assert svg.count(" mark") == 2 and "<title>one: 2 at 1</title>" in svg  # each mark says its value
    assert svg.index("quiet") < svg.index("s a3 line")


def test_no_chart_of_nothing_and_one_of_a_constant() -> None:
    assert chart([line([math.nan, math.nan])], Axes("x", "y"), "t") is None
    assert chart([line([2.0])], Axes("x", "y"), "t") is not None


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.25, "percent", "25%"),
        (40, "count", "40"),
        (1000, "count", "1k"),
        (20000, "count", "20k"),
        (100000, "count", "100k"),
        (1.5e6, "count", "1.5M"),
        (90, "seconds", "1:30"),
        (-1e-17, "number", "0"),
        (0.002, "number", "0.002"),
    ],
)
def test_ticks(value: float, form: str, text: str) -> None:
    assert shown(value, form) == text  # type: ignore[arg-type]


def test_every_marker_can_be_drawn() -> None:
    assert len({marker(name, 1, 2) for name in MARKERS}) == len(MARKERS)


def test_an_interval_on_its_scale() -> None:
    svg = str(interval(0.1, 0.05, 0.2, margin=0.02, limit=0.2, kind="better"))
    assert 'd="M124.0 15H196.0"' in svg and 'cx="148.0"' in svg  # 100 + 96 * (0.05, 0.2, 0.1) / 0.2
    assert "bar" not in str(interval(0.1, None, None, margin=0.02, limit=0.2, kind="better"))


def test_accuracy_is_drawn_over_every_budget_as_far_as_all_seeds_got(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8), tokens=100)  # at 0, 200 and 400 tokens
    write_run(tmp_path, "grpo", 1, (0.0, 0.4, 0.8), tokens=50)  # at 0, 100 and 200
    figures = {figure.title: figure for figure in charts_of(tmp_path).accuracy()}
    assert list(figures) == [
        f"Against {what}" for what in ("optimizer updates", "sampled tokens", "trained tokens", "engine time")
    ]
    svg = figures["Against sampled tokens"].svg
    thin, other, mean = paths(svg, "line")
    assert thin != other and svg.count("thin") == 2
    # Where every seed got: (0.4 + 0.8) / 2 at 200 tokens. A screen reader is told.
    assert "sampled tokens. Last: grpo 60%" in svg
    assert mean[0][0] == LEFT  # 0 tokens are at the left edge of the logarithmic axis


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios() -> None:
    one = Line("one", 3, np.array([0.0, 10, 100, 1000]), *([np.arange(4.0)] * 3))
    (points,) = paths(str(chart([one], Axes("x", "y", log=True), "t")), "line")
    x = [x for x, _ in points]
    assert x[0] == LEFT and x[2] - x[1] == pytest.approx(x[3] - x[2], abs=0.11)
    svg = str(chart([one], Axes("x", "y", log=True), "t"))
    assert [label for label in ("10", "100", "1k") if f">{label}</text>" in svg] == ["10", "100", "1k"]


def test_a_failed_run_stays_where_it_was(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8))
    write_run(tmp_path, "grpo", 1, (0.0, 0.2), state="failed")
    assert "Last: grpo 50%" in charts_of(tmp_path).accuracy()[0].svg  # (0.8 + 0.2) / 2


def test_intervals_begin_at_three_seeds(tmp_path: Path) -> None:
    two, three = (charts_of(write_study(tmp_path / str(n), ("grpo",), n)).accuracy()[0].svg for n in (2, 3))
    assert "band" not in two and two.count("thin") == 2
    assert "band" in three and three.count("thin") == 3  # every seed can be seen


def test_diagnostics_that_no_run_has_are_left_out(tmp_path: Path) -> None:
    titles = [figure.title for figure in charts_of(write_study(tmp_path)).diagnostics()]
    assert titles == ["Training reward", "Entropy"]
    assert len({panel.key for panel in PANELS}) == len(PANELS)


def test_matched_reward_takes_what_was_first_reached(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8))  # reward step/4, entropy 1/step at steps 1 to 4
    entropy, length = charts_of(tmp_path).matched()
    assert entropy.title == "Entropy at matched reward" and length.title == "Length at matched reward"
    points = polyline(entropy, 0)
    assert len(points) == POINTS
    heights = [y for _, y in points]
    assert heights == sorted(heights)  # on the page downwards: entropy falls as reward rises


def test_of_many_algorithms_the_best_are_in_colour_and_each_has_a_chart(tmp_path: Path) -> None:
    names = [f"grpo[surrogate.high={0.3 + i / 100:.2f}]" for i in range(LEGIBLE + 1)]
    charts = charts_of(write_study(tmp_path, names, 1))
    svg = charts.accuracy()[0].svg
    assert (svg.count('"quiet line"'), len(paths(svg, "s"))) == (len(names) - LOUD, 4 * LOUD)  # line and 3 marks
    alone = charts.one_by_one()
    assert [figure.title for figure in alone] == names
    assert all(figure.svg.count('"quiet line"') == len(names) - 1 for figure in alone)
    assert charts_of(write_study(tmp_path / "few", names[:2], 1)).one_by_one() == []
