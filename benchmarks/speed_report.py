"""Tables of the speed benchmark: medians of ratios with their spread, stages with their share of the limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.speed_roofline import STAGES, Rates, operations
from benchmarks.speed_work import Measured, Work

TOLERANCE = 4.0
"""Largest relative difference in tokens, times the square root of the samples, if responses end by chance.

Four standard errors of a difference of two means, for lengths with a standard deviation of 0.7 of their mean."""
ORDER = ("prefill", "decode", "score", "forward", "backward", "optimizer", "rest")


@dataclass
class Series:
    """Repeated measurements of one piece of work."""

    work: Work
    measured: list[Measured] = field(default_factory=list)
    rates: Rates | None = None
    """The machine's rates, for work with stages."""

    def median(self, name: str) -> float:
        """Return the median of a field of `Measured`."""
        return median(getattr(m, name) for m in self.measured)


@dataclass
class Table:
    """Head and rows of text, for the terminal and for Markdown."""

    title: str
    head: Sequence[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as a section in Markdown."""
        lines = [f"## {self.title}", ""]
        lines += [self.note, ""] if self.note else []
        lines += ["| " + " | ".join(self.head) + " |", "|---" * len(self.head) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def ratio(of: Series, to: Series, name: str) -> str:
    """Return the median of the ratios of consecutive measurements, with the smallest and the largest."""
    ratios = [getattr(a, name) / getattr(b, name) for a, b in zip(of.measured, to.measured, strict=True)]
    return f"{median(ratios):.2f}x ({min(ratios):.2f}..{max(ratios):.2f})"


def rates_table(title: str, series: Sequence[Series]) -> Table:
    """Return the medians of each piece of work."""
    rows = [
        [
            s.work.side,
            str(s.work.runs),
            f"{s.median('samples_per_s'):.0f}",
            f"{s.median('tokens_per_s'):.0f}",
            f"{median(m.tokens_sampled / m.samples for m in s.measured):.1f}",
            f"{median(m.seconds for m in s.measured) / s.work.steps:.2f}",
            f"{s.median('memory') / 2**20:.0f}",
            f"{median(m.peak_bytes - m.loaded_bytes for m in s.measured) / 2**20:.0f}",
        ]
        for s in series
    ]
    head = ["", "runs", "samples/s", "tokens/s", "tokens/sample", "s/step", "peak MiB", "resident MiB above loading"]
    return Table(title, head, rows)


def ratios_table(title: str, series: Sequence[Series]) -> Table:
    """Return the ratios of runs together to TRL's and to our own runs one after the other."""
    ours = [s for s in series if s.work.side == "rlzoo"]
    solo = next(s for s in ours if s.work.runs == 1)
    trl = next((s for s in series if s.work.side == "trl"), None)
    rows: list[list[str]] = []
    for s in ours:
        runs = "1 run" if s is solo else f"{s.work.runs} runs together"
        others = [(trl, "TRL", s.work.runs)] if trl is not None else []
        others += [(solo, "ours", s.work.runs)] if s is not solo else []
        for other, name, count in others:
            versus = f"{count} of {name}, one after the other" if count > 1 else name
            cells = [ratio(s, other, key) for key in ("samples_per_s", "tokens_per_s", "memory")]
            rows.append([f"{runs} / {versus}", *cells])
    return Table(title, ["", "samples per second", "sampled tokens per second", "peak memory"], rows)


def stage_table(title: str, series: Series) -> Table:
    """Return time per step by stage, and each stage's share of the rate of matrix products."""
    work, rates = series.work, series.rates
    measured = next(m for m in series.measured if m.stages is not None)
    assert rates is not None and measured.stages is not None
    needed = operations(rates.sizes, work, measured)
    total = sum(measured.stages.values())
    rows = [
        [
            stage,
            f"{1000 * seconds / work.steps:.0f}",
            f"{seconds / total:.0%}",
            *_limit(needed.get(stage), seconds, rates.square, rates.own.get(stage)),
        ]
        for stage in ORDER
        if (seconds := measured.stages.get(stage))
    ]
    own_limit = sum(needed[stage] / rates.own[stage] for stage in STAGES)
    needed_total = sum(needed.values())
    whole = _limit(needed_total, total, rates.square, needed_total / own_limit)
    rows.append(["whole step", f"{1000 * total / work.steps:.0f}", "100%", *whole])
    head = ["stage", "ms/step", "time", "GFLOP/s", "of the large product's rate", "of the model's own products' rate"]
    note = (
        ("One process on one core; the measurements above use all cores. " if work.device == "cpu" else "")
        + f"Large product {rates.square / 1e9:.0f} GFLOP/s ({rates.dtype}); the model's own: "
        + ", ".join(f"{stage} {rates.own[stage] / 1e9:.0f}" for stage in STAGES)
        + f". Padding is {measured.padding or 0:.0%} of the scored and trained tokens."
    )
    return Table(title, head, rows, note)


def _limit(needed: float | None, seconds: float, square: float, own: float | None) -> list[str]:
    if needed is None or own is None:
        return ["-", "-", "-"]
    rate = needed / seconds
    return [f"{rate / 1e9:.1f}", f"{rate / square:.1%}", f"{rate / own:.1%}"]


def different_work(ours: Series, theirs: Series) -> Iterator[str]:
    """Yield the differences in work of the two sides over all turns; tokens may differ by chance if responses do."""
    for name in ("samples", "updates", "adapter_parameters", "prompt_tokens", "tokens_sampled", "tokens_trained"):
        one, other = (sum(getattr(m, name) for m in side.measured) for side in (ours, theirs))
        by_chance = name.startswith("tokens") and ours.work.ends == "model"
        allowed = TOLERANCE / math.sqrt(sum(m.samples for m in ours.measured)) if by_chance else 0
        if abs(one - other) > allowed * other:
            yield f"{name} {one:g} against TRL's {other:g}"
