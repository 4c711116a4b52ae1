"""The laboratory on the command line: `rlzoo lab` measures gradients exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

import objectives
from rlzoo.cli.console import terminal
from rlzoo.config.messages import find_objective
from rlzoo.errors import UserError
from rlzoo.lab.group import SUPPLIED
from rlzoo.lab.measure import Measurement, Setting, measure, sweep
from rlzoo.report.palette import looks


def lab_command(
    names: Sequence[str], centre: Setting, groups: int, budget: float, out: Path | None
) -> list[Measurement]:
    """Measure objectives (all that can be, if none is named) at `centre`; with `out` sweep and draw as well.

    Raises:
        UserError: an unknown objective, one with a need that the laboratory cannot supply, or an unknown figure format.
    """
    chosen = [find_objective(name) for name in names or objectives.names()]
    missing = {objective.name: objective.needs - SUPPLIED for objective in chosen if objective.needs - SUPPLIED}
    if names and missing:
        name, needs = next(iter(missing.items()))
        raise UserError(f"{name} needs {' and '.join(sorted(needs))}, which the laboratory cannot supply: leave it out")
    chosen = [objective for objective in chosen if objective.name not in missing]
    if out is None:
        return [row for objective in chosen for row in measure(objective, centre, groups)]
    from rlzoo.lab.figure import AXES, draw

    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out {out}: a figure is .png, .svg or .pdf")
    with terminal(stderr=True).status("measuring") as status:
        rows = sweep(chosen, centre, AXES, groups, progress=lambda what: status.update(f"measuring {what}"))
    draw(rows, centre, budget, out)
    return rows


def lab_table(rows: Sequence[Measurement], centre: Setting, budget: float, width: int = 100) -> Table:
    """Return two lines per objective, the first and the last update of the centre.

    Args:
        width: columns of the terminal; the table fits 80.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 3 if width >= 100 else 1, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")
    headings = ("up-\ndate", "\ncosine", "\nscale", "\nbias", "noise\ntokens", f"error at\n{_short(budget)} tok.")
    for heading in (*headings, "clipped\n%", "KL old\nnats", "kept\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    here = [row for row in rows if row.setting == centre]
    for name, look in looks(row.objective for row in here).items():
        own = [row for row in here if row.objective == name]
        for row in own if len(own) < 3 else (own[0], own[-1]):
            table.add_row(
                Text(name if row.update == 1 else "", style=look.ink),
                str(row.update),
                ("~" if sampled(row) else "") + f"{row.cosine:.{3 if sampled(row) else 4}f}",
                *(_number(x) for x in (row.scale, row.bias, row.noise, row.error(budget))),
                f"{100 * row.clip_fraction:.1f}",
                f"{row.kl_old:.3f}",
                f"{100 * row.kept:.0f}",
            )
    return table


def sampled(row: Measurement) -> bool:
    """Whether the moments come from sampled groups, because no exact sum applies."""
    return row.cosine_low != row.cosine_high


def lab_notes(rows: Sequence[Measurement], centre: Setting, out: Path | None) -> list[str]:
    """Return the notes below the table: the world, the measures, and what was sampled."""
    notes = [
        f"Groups of {centre.group_size} on one prompt, responses of at most {centre.longest} of {centre.vocabulary} "
        f"tokens, {centre.policy} policy that is right {centre.success:.1%} of the time; each update moves it "
        f"{centre.step:g} in parameters along the objective's own expected gradient.",
        "Bias and error are relative to the squared true gradient, after the best rescaling (which a learning rate "
        "could do). Noise: the number of sampled tokens at which noise equals signal; - where the expected "
        "gradient does not point uphill. A shaped reward or a KL term has another aim than the reward, which "
        "counts as bias.",
    ]
    demanded = {row.objective: find_objective(row.objective).group_size for row in rows}
    if any(size not in (None, centre.group_size) for size in demanded.values()):
        sizes = ", ".join(f"{name} {size}" for name, size in demanded.items() if size is not None)
        notes.append(f"Objectives with a fixed group size: {sizes}.")
    estimates = [row for row in rows if row.setting == centre and sampled(row)]
    if estimates:
        widest = max(row.cosine_high - row.cosine_low for row in estimates) / 2
        notes.append(
            f"~ {estimates[0].method}: the objective depends on more of a batch than can be enumerated; cosines are "
            f"±{widest:.1g} (95%). All other numbers are exact."
        )
    return [*notes, f"Figure: {out}" if out else "--out FIGURE.png sweeps group size, length and success rate as well."]


def _number(x: float) -> str:
    if math.isnan(x):
        return "-"
    return "0" if abs(x) < 1e-10 else f"{x:.0f}" if abs(x) >= 100 else f"{x:.2g}" if abs(x) < 0.1 else f"{x:.3g}"


def _short(x: float) -> str:
    return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"
