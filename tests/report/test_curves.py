"""Learning curves: what is averaged, what is drawn, and that files come out as asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rlzoo.report.curves import draw, plot
from rlzoo.report.palette import looks
from rlzoo.report.series import POINTS, Curves, band, grid, half_way, held_out, smooth, smoothing_window
from rlzoo.stats.intervals import interval


def run(algorithm: str, seed: int, steps: int = 12, **fixed: Any) -> Curves:
    """A run whose held-out accuracy is (step + seed) / 100 and whose reward is step / steps."""
    records: list[dict[str, Any]] = []
    for step in range(steps + 1):
        tokens = step * (100 + seed)
        if step % 4 == 0:
            records.append(
                {"kind": "eval", "step": step, "tokens_sampled": tokens, "accuracy": (step + seed) / 100, **fixed}
            )
        records.append(
            {"kind": "train", "step": step, "tokens_sampled": tokens, "reward": step / steps, "entropy": None, **fixed}
        )
    return Curves(algorithm, seed, records)


def test_smooth_by_hand() -> None:
    y = np.array([1.0, 2.0, 6.0, math.nan, 4.0])
    assert smooth(y, 1) == pytest.approx(y, nan_ok=True)
    # the middle one: (2 + 6) / 2, the missing value counts for nothing
    assert smooth(y, 3) == pytest.approx([1.5, 3.0, 4.0, math.nan, 4.0], nan_ok=True)
    assert smooth(np.array([3.0]), 5) == pytest.approx([3.0])


def test_smoothing_window_is_odd_and_grows_with_the_run() -> None:
    assert [smoothing_window([run("a", 0, steps)]) for steps in (10, 60, 200)] == [1, 3, 9]


def test_band_is_the_interval_over_seeds_at_each_point() -> None:
    x = np.array([0.0, 10.0])
    curves = [(x, np.array([0.0, 10.0])), (x, np.array([1.0, 11.0])), (np.array([0.0, 4.0]), np.array([2.0, 6.0]))]
    mean, low, high = band(curves, np.array([2.0, 8.0, 12.0]))
    three, two = interval([2.0, 3.0, 4.0]), interval([8.0, 9.0])
    assert mean == pytest.approx([three.mean, two.mean, math.nan], nan_ok=True)
    assert low == pytest.approx([three.low, two.low, math.nan], nan_ok=True)
    assert high == pytest.approx([three.high, two.high, math.nan], nan_ok=True)


def test_one_curve_has_no_band() -> None:
    mean, low, high = band([(np.array([0.0, 1.0]), np.array([5.0, 7.0]))], np.array([0.5]))
    assert mean == pytest.approx([6.0])
    assert np.isnan(low).all() and np.isnan(high).all()


def test_grid_ends_where_more_than_half_of_the_runs_are() -> None:
    curves = [(np.arange(0.0, end + 1), np.zeros(end + 1)) for end in (3, 8, 9, 10)]
    assert half_way(curves) == 8
    assert grid(curves, 8, exact=True).tolist() == list(range(9))
    even, ratios = grid(curves, 8, exact=False), grid(curves, 8, exact=False, log=True)
    assert even == pytest.approx(np.linspace(0, 8, POINTS))
    assert (ratios[0], ratios[1], ratios[-1]) == (0, 1, 8)
    assert ratios[2:] / ratios[1:-1] == pytest.approx(8 ** (1 / (POINTS - 1)))


def test_lines_show_the_mean_and_have_their_algorithm_s_colour() -> None:
    runs = [run(algorithm, seed) for algorithm in ("zeta", "alpha") for seed in (0, 1, 2)]
    figure = plot(runs)
    accuracy = figure.axes[0]
    assert accuracy.get_title(loc="left") == "Held-out accuracy"
    assert [line.get_color() for line in accuracy.get_lines()] == [
        look.colour for look in looks(["zeta", "alpha"]).values()
    ]
    line = accuracy.get_lines()[0]
    assert line.get_xdata() == pytest.approx([0, 4, 8, 12])
    assert line.get_ydata() == pytest.approx([0.01, 0.05, 0.09, 0.13])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["zeta", "alpha"]


def test_two_seeds_are_drawn_themselves_and_three_have_an_interval() -> None:
    two, three = (plot([run("a", seed) for seed in range(count)]) for count in (2, 3))
    assert [len(line.get_ydata()) for line in two.axes[0].get_lines()] == [4, 4, 4]
    assert [line.get_ydata()[0] for line in two.axes[0].get_lines()] == pytest.approx([0, 0.01, 0.005])
    assert not two.axes[0].collections and "thin: each seed" in two.texts[0].get_text()
    assert len(three.axes[0].get_lines()) == 1
    assert len(three.axes[0].collections) == 1 and "95% t interval" in three.texts[0].get_text()


def test_nothing_overlaps_or_leaves_the_paper() -> None:
    runs = [run(f"algorithm-{i}", s, kl_old=2e-5, length=1234.5) for i in range(9) for s in range(3)]
    figure = plot(runs, title="a title")
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    boxes += [figure.legends[0].get_window_extent(renderer), figure.texts[0].get_window_extent(renderer)]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_panels_without_a_number_are_left_out() -> None:
    titles = [ax.get_title(loc="left") for ax in plot([run("a", 0)]).axes]
    assert titles == ["Held-out accuracy", "Training reward"]  # entropy is null throughout, the others are not there


@pytest.mark.parametrize("x", ["step", "tokens_sampled"])
def test_files_of_a_single_run_and_of_many(tmp_path: Path, x: Any) -> None:
    draw([run("a", 0)], [tmp_path / "one.png"], x=x)
    many = [run(f"algorithm-{i}", seed, length=float(i), clip_fraction=0.1) for i in range(9) for seed in range(2)]
    draw(many, [tmp_path / "many.png", tmp_path / "many.svg"], x=x, title="many")
    for name in ("one", "many"):
        pixels = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05  # there is something on the paper
    assert (tmp_path / "many.svg").read_text().startswith("<?xml")


def test_the_same_curves_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw([run("a", 0)], [tmp_path / name])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_dollar_in_a_title_or_a_name_is_no_mathematics(tmp_path: Path) -> None:
    draw([run(r"grpo$\frac{$", 0)], [tmp_path / "a.svg"], title=r"/home/$USER/$\bad{")
    drawn = (tmp_path / "a.svg").read_text()
    assert r"/home/$USER/$\bad{" in drawn and r"grpo$\frac{$" in drawn


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([Curves("a", 0, [{"kind": "train", "step": 1}])], [tmp_path / "x.png"])


def test_a_failed_run_stays_in_the_mean_with_its_last_accuracy() -> None:
    """Seeds 0 and 2 reach step 12, seed 1 fails after step 4 with 5%: the mean at 12 is (12 + 5 + 14) / 3."""
    whole, lost = [run("a", 0), run("a", 2)], run("a", 1, steps=4)
    lost = Curves("a", 1, lost.records, failed=True)
    curves, end = held_out([*whole, lost], "step")
    assert end == 12 and curves[2][0].tolist() == [0, 4, 12] and curves[2][1] == pytest.approx([0.01, 0.05, 0.05])
    figure = plot([*whole, lost])
    mean = figure.axes[0].lines[-1]
    assert mean.get_xdata()[-1] == 12 and mean.get_ydata()[-1] == pytest.approx(0.31 / 3)
