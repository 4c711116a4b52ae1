"""`rlzoo values`: value-based, policy-based and actor-critic learners on one page, against the exact optimum."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

import objectives
from objectives import Objective
from rlzoo.cli.console import terminal
from rlzoo.config.messages import find_objective
from rlzoo.errors import UserError
from rlzoo.lab.families import Row, ValueSetting, checkpoints, race
from rlzoo.lab.group import SUPPLIED
from rlzoo.report.palette import looks
from rlzoo.stats.intervals import Interval
from rlzoo.store.provenance import environment

COLUMNS = {
    "reward": "reward of\nits policy",
    "greedy": "of the\ngreedy one",
    "q_error": "max\n|Q - Q*|",
    "over": "over-\nestimate",
    "critic_error": "critic's\nerror",
}


def first_of_each_family() -> list[Objective]:
    """Return the first objective of every family whose needs this world can supply."""
    found = ([objectives.get(name) for name in names] for names in objectives.families().values())
    usable = ([objective for objective in family if objective.needs <= SUPPLIED] for family in found)
    return [family[0] for family in usable if family]


def values_command(names: Sequence[str], setting: ValueSetting, out: Path | None) -> list[Row]:
    """Let the learners learn; with `out` write the page, and the figure beside it.

    Raises:
        UserError: an unknown objective, a setting out of range, or an `out` that is no Markdown file.
    """
    if out is not None and out.suffix != ".md":
        raise UserError(f"--out {out}: the page is a .md file; the figure goes beside it as .png")
    chosen = [find_objective(name) for name in names] or first_of_each_family()
    with terminal(stderr=True).status("learning") as status:
        rows = race(chosen, setting, progress=lambda name: status.update(f"learning: {name}"))
    if out is not None:
        from rlzoo.lab.values_figure import draw

        draw(rows, out.with_suffix(".png"))
        out.write_text(page(rows, setting, out))
    return rows


def shown(setting: ValueSetting) -> list[int]:
    """Return the checkpoints that tables show: the last one, an eighth of it, and an eighth of that."""
    return sorted(checkpoints(setting)[::-1][:7:3])


def values_table(rows: Sequence[Row], setting: ValueSetting, width: int = 120) -> Table:
    """Return a line per learner and shown checkpoint; a terminal of less than 110 columns gets the means alone."""
    table = Table(box=None, pad_edge=False, padding=(0, 1 if width < 110 else 3, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")
    table.add_column("\nepisodes", justify="right", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    points = shown(setting)
    for name, look in looks(row.learner for row in rows).items():
        for row in (row for row in rows if row.learner == name and row.episodes in points):
            label = Text(name if row.episodes == points[0] else "", style=look.ink)
            table.add_row(label, str(row.episodes), *(cell(row.measures[measure], width >= 110) for measure in COLUMNS))
    return table


def cell(found: Interval | None, with_interval: bool = True) -> str:
    """Return mean ± half width, three decimals; nothing where a learner has no such measure."""
    if found is None:
        return ""
    mean = 0.0 if abs(found.mean) < 5e-4 else found.mean  # no -0.000
    return f"{mean:.3f}" + ("" if found.half_width is None or not with_interval else f" ±{found.half_width:.3f}")


def values_notes(setting: ValueSetting) -> list[str]:
    """Return the notes below the table: the world, the learners and the measures."""
    sampler = (
        "uniform tokens"
        if setting.epsilon == 1
        else f"their best token, a uniform one {setting.epsilon:.0%} of the time"
    )
    return [
        f"One prompt, responses of at most {setting.longest} of {setting.vocabulary} tokens, right if finished with an "
        "odd number of token 1; the optimum is 1. Every learner begins without knowledge and sees rewards from a "
        f"judge whose error has a standard deviation of {setting.judge:g}. Mean over {setting.seeds} seeds, ± 95% t "
        "interval.",
        f"Value-based learners sample {sampler} and answer greedily. Objectives are trained on responses of their own "
        f"policy in rollouts of {setting.group_size}, one Adam step each, from a uniform tabular policy. Their reward "
        "is that of sampling, which a KL term or an entropy bonus keeps below 1.",
        "Rewards, optimum and V of a policy are exact; only episodes are sampled. max |Q - Q*|: over all tokens and "
        "prefixes. Overestimate: mean over prefixes of the value that the learner bootstraps from, minus V*. Critic's "
        "error: mean |V - V of the policy and its shaped reward|, weighted by the policy's visits.",
        f"± 0.000 means that all {setting.seeds} seeds agree, not that every seed would: an exception of probability "
        f"{unseen(setting.seeds):.0%} per seed is absent from {setting.seeds} seeds with probability 5%.",
    ]


def unseen(seeds: int) -> float:
    """Return the share q with (1-q)^seeds = 5%: the rate of exceptions that a sample without one cannot exclude."""
    return 1 - 0.05 ** (1 / seeds)


def page(rows: Sequence[Row], setting: ValueSetting, out: Path) -> str:
    """Return the page in Markdown."""
    made, points = environment(), shown(setting)
    command = " ".join(["rlzoo", *sys.argv[1:]])
    headings = [text.replace("-\n", "").replace("\n", " ").replace("|", "\\|") for text in COLUMNS.values()]
    gpu = ", ".join(made["gpu"]) or "no GPU"
    lines = [
        "# Value-based, policy-based and actor-critic learners against the exact optimum",
        "",
        f"- command: `{command}`",
        f"- commit: {made['commit']}, {made['started'][:10]}",
        f"- hardware: {made['cpu']}, {made['cores']} cores, {gpu}; torch {made['torch']}",
        "",
        *(line for note in values_notes(setting) for line in (note, "")),
        f"![Reward, error of Q, overestimate and critic's error]({out.with_suffix('.png').name})",
        "",
        "| family | learner | episodes | " + " | ".join(headings) + " |",
        "|---" * (3 + len(COLUMNS)) + "|",
    ]
    for row in rows:
        if row.episodes in points:
            first = row.episodes == points[0]
            label = (row.family, f"`{row.learner}`" if first and row.family != "value-based" else row.learner)
            cells = (*(label if first else ("", "")), f"{row.episodes}", *(cell(row.measures[m]) for m in COLUMNS))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
