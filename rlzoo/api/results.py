"""Results of the Python API: comparisons, ablations and runs, read from their folders."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.api.frames import frame, run_records, summary_records, verdict_records
from rlzoo.api.notebook import show_figures
from rlzoo.experiments import ablate, compare, tasks
from rlzoo.report.outputs import collect_curves
from rlzoo.report.tasks import write_report
from rlzoo.stats.sentences import sentences
from rlzoo.store.run_folder import CONFIG, METRICS, SAMPLES, SUMMARY, RunFolder, read_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Folder:
    """Common to all results: the folder, its curves as data and as a figure, and its report."""

    folder: Path

    def __repr__(self) -> str:
        """Return the folder's name only; settings and results would fill the screen."""
        return f"<{type(self).__name__} {self.folder}>"

    @property
    def curves(self) -> Any:
        """All records of all runs, as in metrics.jsonl, with the run's `row` and `seed`."""
        records = []
        for run in collect_curves([self.folder]):
            records += [{"row": run.algorithm, "seed": run.seed, **record} for record in run.records]
        return frame(records)

    def plot(self, x: str = "step") -> Figure:
        """Return the learning curves as a matplotlib figure, over `step` or `tokens_sampled`."""
        from rlzoo.report.curves import plot

        show_figures()
        return plot(collect_curves([self.folder]), x)  # type: ignore[arg-type]

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report to `out` (default: report.html in the folder) and return its path.

        Raises:
            UserError: there is nothing to report, or the file cannot be written.
        """
        return write_report(self.folder, None if out is None else Path(out))


@dataclass(frozen=True, repr=False)
class Comparison(_Folder, compare.Comparison):
    """A comparison: `summary`, `runs`, `curves` and `verdicts` as DataFrames (without pandas: lists of records).

    An interrupted comparison has the runs that have ended. More fields: `rlzoo.experiments.compare.Comparison`.
    """

    @classmethod
    def of(cls, comparison: compare.Comparison) -> Comparison:
        """Return a comparison with these views."""
        return cls(**vars(comparison))

    @property
    def summary(self) -> Any:
        """A record per row: `after` is the mean held-out accuracy, `after.low` and `after.high` its 95% interval."""
        return frame(summary_records(self.rows))

    @property
    def runs(self) -> Any:
        """A record per run."""
        return frame(run_records(self.summaries))

    @property
    def verdicts(self) -> Any:
        """A record per pair: `a` is better or worse than `b`, equivalent, inconclusive, or None with the reason."""
        return frame(verdict_records(self.judgement))

    def __str__(self) -> str:
        """Return the verdicts in words, one per line."""
        return "\n".join(sentences(self.judgement) or [f"no run in {self.folder} has ended"])

    def _repr_html_(self) -> str:
        cells = [
            [row.objective, _share(row.before), _share(row.after), _share(row.gain, "+"), f"{row.tokens_sampled:,.0f}"]
            for row in self.rows
        ]
        words = "".join(f"<p>{html.escape(line)}</p>" for line in str(self).splitlines())
        ended = len(self.summaries)
        wanted = len(self.config.runs())
        note = "" if ended == wanted else f"<p>{ended} of {wanted} runs have ended.</p>"
        table = html_table(["", "before, %", "after, %", "gain, points", "sampled tokens"], cells)
        return table + words + note


@dataclass(frozen=True, repr=False)
class TaskComparison(_Folder, tasks.TaskComparison):
    """A comparison over tasks: `summary`, `runs`, `curves`, `verdicts` and `by_task` as DataFrames.

    `result["add:medium"]` is the comparison on one task. See also `rlzoo.experiments.tasks.TaskComparison`.
    """

    @classmethod
    def of(cls, made: tasks.TaskComparison) -> TaskComparison:
        """Return a comparison over tasks with these views."""
        return cls(**{field.name: getattr(made, field.name) for field in fields(tasks.TaskComparison)})

    def __getitem__(self, task: str) -> Comparison:
        """Return the comparison on one task, by its label.

        Raises:
            KeyError: no run on this task has started.
        """
        return Comparison.of(self.comparisons[task])

    @property
    def summary(self) -> Any:
        """A record per row: `mean` and `iqm` over tasks, `tasks.NAME` the mean accuracy on each, with intervals."""
        records = ({k: v for k, v in row.as_dict().items() if k != "profile"} for row in self.rows)
        return frame(run_records(records))

    @property
    def runs(self) -> Any:
        """A record per run, with its `task`."""
        return frame(run_records(self.summaries))

    @property
    def verdicts(self) -> Any:
        """A record per pair, judged by the mean over tasks; see `Comparison.verdicts`."""
        return frame(verdict_records(self.judgement))

    @property
    def by_task(self) -> Any:
        """A record per pair and task."""
        of_each = ((name, verdict_records(one.judgement)) for name, one in self.comparisons.items())
        return frame({"task": name, **record} for name, records in of_each for record in records)

    @property
    def curves(self) -> Any:
        """All records of all runs, as in metrics.jsonl, with `task`, `row` and `seed`."""
        of_each = ((name, collect_curves([one.folder])) for name, one in self.comparisons.items())
        return frame(
            {"task": name, "row": run.algorithm, "seed": run.seed, **record}
            for name, runs in of_each
            for run in runs
            for record in run.records
        )

    def plot(self, x: str = "step", task: str | None = None) -> Figure:
        """Return the learning curves on one task as a matplotlib figure; `task` None: on the first."""
        return self[task or next(iter(self.comparisons))].plot(x)

    def __str__(self) -> str:
        """Return the verdicts over tasks in words, one per line."""
        return "\n".join(sentences(self.judgement) or [f"no row in {self.folder} has a run on every task"])

    def _repr_html_(self) -> str:
        names = list(self.config.by_task())
        cells = [
            [row.row, _share(row.mean), _share(row.iqm), *(_share(row.tasks[name]) for name in names)]
            for row in self.rows
        ]
        words = "".join(f"<p>{html.escape(line)}</p>" for line in str(self).splitlines())
        return html_table(["", "mean, %", "IQM, %", *(f"{name}, %" for name in names)], cells) + words


@dataclass(frozen=True, repr=False)
class Ablation(Comparison):
    """An ablation: a comparison of its rows, and the effect of each changed column."""

    measured: Sequence[ablate.Measured] = ()

    @classmethod
    def of_ablation(cls, ablation: ablate.Ablation) -> Ablation:
        """Return an ablation with these views."""
        return cls(**vars(ablation.comparison), measured=ablation.measured)

    @property
    def contrasts(self) -> Any:
        """A record per contrast: its label, the difference with its 95% interval, the verdict."""
        records = []
        for one in self.measured:
            found = one.difference
            limits = (None, None, None) if found is None else (found.mean, found.low, found.high)
            named = dict(zip(("difference", "difference.low", "difference.high"), limits, strict=True))
            records.append({"block": one.contrast.block, "label": one.contrast.label, **named, "verdict": one.verdict})
        return frame(records)

    def _repr_html_(self) -> str:
        cells = [[m.contrast.block, m.contrast.label, _share(m.difference, "+"), m.told] for m in self.measured]
        return super()._repr_html_() + html_table(["block", "what changes", "points", "verdict"], cells)


@dataclass(frozen=True, repr=False)
class Run(_Folder):
    """One run: its stored `config`, its `outcome` (None until it ends), `metrics` and `samples`."""

    folder: Path
    config: Mapping[str, Any]
    outcome: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run from its folder.

        Raises:
            UserError: the folder has no run.
        """
        run = RunFolder.open(folder)
        outcome = run.read_json(SUMMARY) if (folder / SUMMARY).is_file() else None
        return cls(folder, run.read_json(CONFIG), outcome)

    @property
    def summary(self) -> Mapping[str, Any]:
        """The outcome; empty until the run ends."""
        return self.outcome or {}

    @property
    def metrics(self) -> Any:
        """The records of metrics.jsonl: `kind` is train or eval."""
        return frame(read_lines(self.folder / METRICS))

    @property
    def samples(self) -> Any:
        """Some prompts with their responses, rewards and accuracies, from training and evaluations."""
        return frame(read_lines(self.folder / SAMPLES))

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter, in PEFT's format."""
        return self.folder / "adapter"

    def _repr_html_(self) -> str:
        ends = [(self.summary.get(end) or {}).get("accuracy") for end in ("before", "after")]
        before, after = ("" if value is None else f"{value:.1%}" for value in ends)
        state = self.summary.get("state", "not ended")
        name = f"{self.config['objective']['name']}/seed{self.config['seed']}"
        return html_table(["run", "state", "before", "after", "folder"], [[name, state, before, after, self.folder]])


def html_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in HTML, with escaped cells."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _share(found: Any, sign: str = "") -> str:
    if found is None:
        return ""
    width = f" ± {100 * found.half_width:.1f}" if found.half_width else ""
    return f"{100 * found.mean:{sign}.1f}{width}"
