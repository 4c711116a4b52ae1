"""Cost curves: seconds per step and peak memory over one varied quantity, on models with random weights.

All responses run to the limit, so that the work of a point does not depend on sampling.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.speed_models import Shape, write
from benchmarks.speed_probe import probe
from benchmarks.speed_report import Table
from benchmarks.speed_work import COIN, Measured, Work
from rlzoo.report.palette import Look

COMMON = {"task": COIN, "ends": "never", "prompts_per_step": 4, "group_size": 8, "steps": 1, "warmup": 1}
SMALLER = {"group_size": 4, "max_new_tokens": 16}
"""For axes whose largest point is slow."""


@dataclass(frozen=True)
class Axis:
    """A varied quantity: a setting of the work, or a size of the model."""

    name: str
    values: tuple[Any, ...]
    work: str = ""
    shape: tuple[str, ...] = ()
    """Fields of `Shape` that a value (a tuple for several fields) sets."""
    fixed: tuple[tuple[str, Any], ...] = ()

    def works(self, value: Any) -> dict[str, Any]:
        """Return the settings of the work at a value."""
        return {**COMMON, **dict(self.fixed), **({self.work: value} if self.work else {})}

    def shapes(self, value: Any) -> Shape:
        """Return the model's shape at a value."""
        return Shape(**dict(zip(self.shape, value if isinstance(value, tuple) else (value,), strict=False)))


AXES = (
    Axis("runs together", (1, 2, 5, 10, 20), work="runs"),
    Axis("response length", (16, 32, 64, 128), work="max_new_tokens"),
    Axis("group size", (2, 4, 8, 16, 32), work="group_size"),
    Axis("vocabulary", (128, 1000, 10_000, 50_000, 150_000), shape=("vocabulary",), fixed=tuple(SMALLER.items())),
    Axis(
        "model size",
        ((64, 2, 192), (128, 4, 384), (256, 4, 768), (512, 8, 1536)),
        shape=("hidden_size", "layers", "mlp_size"),
        fixed=tuple(SMALLER.items()),
    ),
)


@dataclass(frozen=True)
class Point:
    """One measurement on a curve; x is the value, or for the model size the parameters in linear layers."""

    label: str
    x: float
    measured: Measured

    @property
    def memory(self) -> int:
        """Peak bytes: above the loaded model, or on a GPU in total."""
        m = self.measured
        return m.peak_bytes - m.loaded_bytes if m.gpu_peak_bytes is None else m.gpu_peak_bytes


def measure(axis: Axis, base: Work, points: int | None = None) -> Iterator[Point]:
    """Measure the first `points` values of an axis (None: all), each in a fresh process."""
    for value in axis.values[:points]:
        shape = axis.shapes(value)
        with tempfile.TemporaryDirectory() as folder:
            model = str(write(shape, Path(folder)))
            work = Work(device=base.device, threads=base.threads, model=model, **axis.works(value))
            measured = probe(work, Measured)
        if isinstance(value, tuple):
            yield Point(f"{shape.layers} layers of {shape.hidden_size}", parameters(shape), measured)
        else:
            yield Point(str(value), float(value), measured)


def parameters(shape: Shape) -> int:
    """Return the number of parameters in linear layers."""
    width = shape.hidden_size // shape.heads
    attention = 2 * shape.hidden_size * width * (shape.heads + shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden_size * shape.mlp_size)


def table(axis: Axis, points: list[Point]) -> Table:
    """Return the numbers of a curve."""
    rows = [
        [
            point.label,
            f"{point.measured.seconds:.2f}",
            f"{point.measured.samples_per_s:.1f}",
            f"{point.measured.tokens_per_s:.0f}",
            f"{point.memory / 2**20:.0f}",
        ]
        for point in points
    ]
    work = Work(**axis.works(axis.values[0]))
    fixed = {
        "runs": f"{work.runs} run",
        "prompts_per_step": f"{work.prompts_per_step} prompts",
        "group_size": f"groups of {work.group_size}",
        "max_new_tokens": f"{work.max_new_tokens} tokens",
    }
    note = "Fixed: " + ", ".join(text for name, text in fixed.items() if name != axis.work) + "."
    return Table(f"Against {axis.name}", [axis.name, "s/step", "samples/s", "tokens/s", "peak MiB"], rows, note)


def draw(curves: dict[Axis, list[Point]], path: Path) -> None:
    """Draw time and memory against each axis, on logarithmic scales."""
    figure = Figure(figsize=(3 * len(curves), 5), layout="constrained")
    panels = figure.subplots(2, len(curves), sharex="col", squeeze=False)
    for column, (axis, points) in enumerate(curves.items()):
        x = [point.x for point in points]
        time, memory = panels[0][column], panels[1][column]
        time.plot(x, [point.measured.seconds for point in points], marker="o", color=Look(0).colour)
        memory.plot(x, [point.memory / 2**20 for point in points], marker="o", color=Look(1).colour)
        for panel in (time, memory):
            panel.set(xscale="log", yscale="log")
            panel.grid(alpha=0.3)
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        memory.set_xticks(x, [point.label for point in points], rotation=40, ha="right", fontsize=8)
        memory.set_xticks([], minor=True)
        memory.set_xlabel(axis.name)
    panels[0][0].set_ylabel("seconds per step")
    panels[1][0].set_ylabel("peak memory, MiB")
    figure.savefig(path, dpi=150)
