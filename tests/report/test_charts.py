"""Charts: what is drawn where, by hand; what an <svg> of the page has; and which lines a report draws from records."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from rlzoo.report.chart import BOTTOM, LEFT, MARKED, RIGHT, STYLE, TOP, log_ticks, single
from rlzoo.report.charts import LEGIBLE, LOUD, METRICS, Charts, Drawn
from rlzoo.report.inline import chart, key, keys
from rlzoo.report.lines import Frame, Line, finding, shown
from rlzoo.report.page import write_report
from rlzoo.report.palette import MARKERS, Look, looks
from rlzoo.report.panels import PAGE, PANELS, PICTURE
from rlzoo.report.read import read_study
from rlzoo.report.series import POINTS
from tests.report.folders import write_run, write_study

SIZE = (200, 100)
FRAME = Frame("x", "y")


def line(mean: list[float], half: float = math.nan, **kwargs: object) -> Line:
    y = np.array(mean)
    return Line("one", Look(3), np.arange(len(y), dtype=float), y, y - half, y + half, **kwargs)  # type: ignore[arg-type]


def drawn(lines: list[Line], frame: Frame = FRAME) -> Axes:
    with matplotlib.rc_context(STYLE):
        return single(lines, frame, SIZE).axes[0]


def labels(ax: Axes, axis: str = "x") -> list[str]:
    return [tick.get_text() for tick in getattr(ax, f"get_{axis}ticklabels")()]


def svg_of(lines: list[Line], frame: Frame = FRAME) -> str:
    return str(chart("title", lines, frame, "chart1", SIZE))


def paths(svg: str, *kinds: str) -> list[list[tuple[float, float]]]:
    """The points of the first path of every group that has all these classes."""
    found = [g for g in ElementTree.fromstring(svg).iter("g") if set(kinds) <= set(g.get("class", "").split())]
    lines = [group.find(".//path") for group in found]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", one.attrib["d"])]
        for one in lines
        if one is not None
    ]


def charts_of(folder: Path) -> Charts:
    study = read_study(folder, METRICS)
    return Charts(study, looks(study.algorithms), study.algorithms)


def by_title(figures: list[Drawn]) -> dict[str, str]:
    return {figure.title: str(figure.svg) for figure in figures}


def test_a_line_goes_from_edge_to_edge_of_its_frame() -> None:
    """The script of the page reads values with these numbers: 0, 0.5 and 1 stand at equal distances."""
    svg = svg_of([line([0, 0.5, 1])])
    ((left, middle, right),) = paths(svg, "line")
    box = [float(x) for x in re.findall(r'data-box="([^"]*)"', svg)[0].split()]
    assert box == [LEFT, TOP, SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM]
    low, high = (float(x) for x in re.findall(r'data-y="([^"]*)"', svg)[0].split())
    for (_, y), value in zip((left, middle, right), (0, 0.5, 1), strict=True):
        assert low + (TOP + box[3] - y) / box[3] * (high - low) == pytest.approx(value, abs=1e-3)
    low, high = (float(x) for x in re.findall(r'data-x="([^"]*)"', svg)[0].split())
    for (x, _), value in zip((left, middle, right), (0, 1, 2), strict=True):
        assert low + (x - LEFT) / box[2] * (high - low) == pytest.approx(value, abs=1e-3)


def test_intervals_are_cut_off_at_the_frame_and_missing_points_left_out() -> None:
    svg = svg_of([line([0.2, math.nan, 0.4], half=9)])
    ((first, last),) = paths(svg, "line")
    assert first[0] < last[0]
    (area,) = paths(svg, "band")  # matplotlib places it by a <use> that is SIZE[1] lower
    assert {SIZE[1] + y for _, y in area} == {TOP, SIZE[1] - BOTTOM}


def test_quiet_lines_lie_behind_and_have_no_interval() -> None:
    svg = svg_of([line([1, 2], half=1, marked=True), line([2, 3], half=1, quiet=True)])
    assert svg.count('class="quiet"') == 1 and svg.count("band") == 1
    assert len(re.findall(r"<use [^>]*var\(--p3\)[^>]*/>", svg)) == 1 + 2  # the band, and a marker at both points
    assert svg.index("quiet") < svg.index("s a3 line")
    many = line(list(range(MARKED + 1)), marked=True)
    assert "<use" not in re.findall(r'<g class="s a3 line"[^>]*>.*?</g>', svg_of([many]))[0]


def test_no_chart_of_nothing_and_one_of_a_constant() -> None:
    assert chart("t", [line([math.nan, math.nan])], FRAME, "c", SIZE) is None
    assert chart("t", [line([2.0])], FRAME, "c", SIZE) is not None


def test_an_svg_has_the_style_sheet_s_colours_ids_of_its_own_and_escaped_text() -> None:
    one = Line("<b>", Look(2), *([np.arange(3.0)] * 2), *([np.full(3, math.nan)] * 2), marked=True)
    svg = str(chart('"><script>', [one], Frame("<x>", "&y"), "chart7", SIZE))
    assert set(re.findall(r"#[0-9a-fA-F]{6}", svg)) == set() and "var(--p2)" in svg and "font" not in svg
    assert all(found.startswith("chart7-") for found in re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r'href="#([^"]*)"', svg)) <= set(re.findall(r'\bid="([^"]*)"', svg))
    assert "<script" not in svg and "&lt;x&gt;" in svg and "&amp;y" in svg and 'data-label="&lt;b&gt;"' in svg
    assert ElementTree.fromstring(svg).attrib["aria-label"].startswith('"><script>')
    assert svg == str(chart('"><script>', [one], Frame("<x>", "&y"), "chart7", SIZE))  # the same every time


def test_the_axis_shows_the_action() -> None:
    """From 95 to 99% is not drawn on an axis from 0 to 100%; beside 0 an axis begins at 0, and ends at 100%."""
    low, high = drawn([line([0.95, 0.99])], Frame("x", "y", y_form="percent")).get_ylim()
    assert (low, high) == pytest.approx((0.95 - 0.0016, 0.99 + 0.0016))
    assert drawn([line([0.1, 1.0])], Frame("x", "y", y_form="percent")).get_ylim() == (0, 1)
    assert drawn([line([0.5, 0.9], half=0.5)], Frame("x", "y", y_form="percent")).get_ylim()[1] == 1  # no 110%
    low, high = drawn([line([0.25, 0.25])], Frame("x", "y", y_form="percent")).get_ylim()  # a tenth, and headroom
    assert (low, high) == pytest.approx((0.225 - 0.002, 0.275 + 0.002))
    assert drawn([line([0.0, 0.0])]).get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (1000, 50_000, [1000, 2000, 5000, 10_000, 20_000, 50_000]),
        (10, 1e6, [10, 100, 1000, 10_000, 100_000, 1e6]),
        (29_000, 33_000, [29_000, 30_000, 31_000, 32_000, 33_000]),  # 1, 2, 5 have none here
        (3, 8, [3, 4, 5, 6, 7, 8]),
    ],
)
def test_a_logarithmic_axis_names_at_least_two_numbers(low: float, high: float, wanted: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize("ratio", [1.01, 1.3, 1.9, 2.1, 7, 40, 900, 1e5])
@pytest.mark.parametrize("low", [1.0, 37.0, 29_000.0, 6.4e6])
def test_ticks_of_any_logarithmic_axis_are_two_to_ten_inside_it(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 10 and all(low <= tick <= low * ratio * (1 + 1e-9) for tick in ticks)


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios_and_zero_at_its_edge() -> None:
    one = Line("one", Look(3), np.array([0.0, 10, 100, 1000]), *([np.arange(4.0)] * 3))
    frame = Frame("x", "y", log=True)
    (points,) = paths(svg_of([one], frame), "line")
    x = [x for x, _ in points]
    assert x[0] < x[1] and x[2] - x[1] == pytest.approx(x[3] - x[2], abs=0.02)
    assert labels(drawn([one], frame))[0] == "0"
    assert {"10", "100", "1k"} <= set(labels(drawn([one], frame)))


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


def test_the_words_of_a_chart_say_who_ends_highest() -> None:
    x = np.arange(2.0)
    none = np.full(2, math.nan)
    two = [Line(n, Look(i), x, np.array([0.4, y]), none, none) for i, (n, y) in enumerate((("a", 0.6), ("b", 0.8)))]
    frame = Frame("steps", "y", y_form="percent")
    assert finding("Accuracy", two, frame) == (
        "Accuracy, over steps. Highest at the end: b 80% (from 40%), a 60% (from 40%)."
    )
    assert finding("Accuracy", two[:1], frame) == "Accuracy, over steps: a 60% (from 40%)."
    many = [Line(f"r{i}", Look(i), x, np.array([0.0, i / 10]), none, none) for i in range(9)]
    assert finding("A", many, frame).endswith("r5 50% (from 0%), r4 40% (from 0%), the lowest is r0 0% (from 0%).")


def test_every_look_of_a_page_has_a_sample() -> None:
    look = {f"row{i}": Look(i) for i in range(len(MARKERS) + 1)}
    svg = str(keys(look))
    assert [one.attrib["id"] for one in ElementTree.fromstring(svg).iter("symbol")] == [f"key{i}" for i in range(8)]
    assert str(key(look["row7"])) == '<svg class="key" aria-hidden="true"><use href="#key7"/></svg>'
    assert len(set(re.findall(r'id="(keys-\w+)"', svg))) == len(look)  # each has its own marker and colour


def test_accuracy_is_drawn_over_every_budget_and_each_seed_as_far_as_it_got(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8), tokens=100)  # at 0, 200 and 400 tokens
    write_run(tmp_path, "grpo", 1, (0.0, 0.4, 0.8), tokens=50)  # at 0, 100 and 200
    figures = charts_of(tmp_path).accuracy()
    assert list(dict.fromkeys(figure.axis for figure in figures)) == [
        *("step", "tokens_sampled", "prompts_sampled", "updates", "tokens_trained", "engine_s")
    ]
    svg = by_title(figures)["Accuracy over sampled tokens"]
    one, two = paths(svg, "thin")
    (mean,) = paths(svg, "line")
    assert one[-1][0] > two[-1][0] == pytest.approx(mean[-1][0], abs=0.02)  # the mean ends where every seed got
    assert "grpo 60% (from 0%)" in svg  # (0.4 + 0.8) / 2 at 200 tokens
    assert mean[0][0] == pytest.approx(one[0][0])  # 0 tokens, at the left edge of the logarithmic axis


def test_the_end_of_training_is_enlarged_where_the_whole_hides_it(tmp_path: Path) -> None:
    """From 20 to 90% in the first half, then 90 to 92%: 0.02 of 0.72. Both got to step 4, the first to step 8."""
    write_run(tmp_path, "grpo", 0, (0.2, 0.9, 0.92, 0.9, 0.92))  # steps 0, 2, ..., 8
    write_run(tmp_path, "dapo", 0, (0.2, 0.9, 0.91))
    figures = by_title(charts_of(tmp_path).accuracy())
    assert "Accuracy over training steps, enlarged" in figures
    first, second = paths(figures["Accuracy over training steps, enlarged"], "line")
    assert (len(first), len(second)) == (2, 2)  # steps 2 and 4
    even = charts_of(write_study(tmp_path / "even", ("grpo",), 1)).accuracy()  # 25, 40, 60%
    assert [figure.title for figure in even if "enlarged" in figure.title] == []


def test_a_failed_run_stays_where_it_was(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8))
    write_run(tmp_path, "grpo", 1, (0.0, 0.2), state="failed")
    assert "grpo 50% (from 0%)" in charts_of(tmp_path).accuracy()[0].svg  # (0.8 + 0.2) / 2


def test_intervals_begin_at_three_seeds(tmp_path: Path) -> None:
    two, three = (charts_of(write_study(tmp_path / str(n), ("grpo",), n)).accuracy()[0].svg for n in (2, 3))
    assert "band" not in two and two.count("thin") == 2
    assert "band" in three and three.count("thin") == 3  # every seed can be seen


def test_diagnostics_that_no_run_has_are_left_out(tmp_path: Path) -> None:
    titles = [figure.title for figure in charts_of(write_study(tmp_path)).diagnostics()]
    assert titles == ["Training reward", "Entropy"]
    assert {*PAGE, *PICTURE} == set(PANELS)


def test_matched_reward_takes_what_was_first_reached(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.0, 0.4, 0.8))  # reward step/4, entropy 1/step at steps 1 to 4
    entropy, length = charts_of(tmp_path).matched()
    assert entropy.title == "Entropy at matched reward" and length.title == "Length at matched reward"
    (points,) = paths(str(entropy.svg), "line")
    assert len(points) == POINTS
    heights = [y for _, y in points]
    assert heights == sorted(heights)  # on the page downwards: entropy falls as reward rises
    assert "grpo 0.25 (from 1)" in entropy.svg


def test_of_many_algorithms_the_best_are_in_colour_and_each_has_a_chart(tmp_path: Path) -> None:
    names = [f"grpo[surrogate.high={0.3 + i / 100:.2f}]" for i in range(LEGIBLE + 1)]
    charts = charts_of(write_study(tmp_path, names, 1))
    svg = str(charts.accuracy()[0].svg)
    assert (svg.count('class="quiet"'), len(paths(svg, "s", "line"))) == (len(names) - LOUD, LOUD)
    alone = charts.one_by_one()
    assert [figure.title for figure in alone] == names
    assert all(figure.svg.count('class="quiet"') == len(names) - 1 for figure in alone)
    assert charts_of(write_study(tmp_path / "few", names[:2], 1)).one_by_one() == []


def test_ids_of_a_page_are_its_elements_own(tmp_path: Path) -> None:
    page = write_report(write_study(tmp_path)).read_text().partition("<script>")[0]
    found = re.findall(r'\sid="([^"]*)"', page)
    assert len(found) == len(set(found)) > 30
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(found)
