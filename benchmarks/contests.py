"""Comparisons and ablations as one page of results: verdicts, tables, commands and hardware.

    python -m benchmarks.contests runs/zoo-add runs/zoo-sort --title "The whole zoo" --write benchmarks/results/zoo.md

It reads run folders, like their reports, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli.shell import guarded
from rlzoo.errors import UserError
from rlzoo.report.read import Study, command, read_study
from rlzoo.report.results import ablation, equal_cost, judge_runs, pairs, results
from rlzoo.report.tables import Table, as_markdown
from rlzoo.stats.sentences import sentences
from rlzoo.stats.verdicts import Judgement

SHOWN = ("algorithm", "seeds", "before", "after", "gain", "worst", "collapse", "length_after", "tokens_sampled")
PAIRS = 12
"""Largest number of pairs in a table; with more, only the sentences name the most important ones."""


def section(study: Study) -> Iterator[str]:
    """Yield the paragraphs about one comparison."""
    judged = judge_runs(study)
    if not judged.standings:
        raise UserError(f"no run in {study.folder} has ended yet")
    env = study.runs[0].environment
    train = study.runs[0].config["train"]
    level = study.runs[0].config["task"].get("level")
    task = study.task if level is None or ":" in study.task else f"{study.task}:{level}"
    yield f"## {task}, {len(study.algorithms)} rows, {len(study.seeds)} seeds"
    yield (
        f"{train['steps']} steps of {train['prompts_per_step']} prompts x {train['group_size']} samples, "
        f"{train['minibatches'] * train['epochs']} updates per rollout, lr {study.runs[0].config['optimizer']['lr']:g}."
    )
    yield (
        f"- command: `{command(study)}`\n- commit: {env['commit']}, {env['started'][:10]}\n"
        f"- hardware: {env['cpu']}, {env['cores']} cores; torch {env['torch']}"
    )
    yield told(judged.scope, judged)
    yield as_markdown(only(results(study)))
    if study.contrasts:
        yield as_markdown(ablation(study))
    if len(judged.pairs) <= PAIRS:
        yield as_markdown(pairs(judged))
    yield as_markdown(equal_cost(study))


def told(heading: str, judgement: Judgement) -> str:
    """Return the verdicts in words, one per line."""
    return "\n".join([heading, "", *(f"- {_plain(sentence)}" for sentence in sentences(judgement))])


def _plain(text: str) -> str:
    """Escape the brackets of ablations, which Markdown would read as links."""
    return text.replace("[", "\\[").replace("]", "\\]")


def only(table: Table) -> Table:
    """Return the columns of the results that fit a page, best row first."""
    columns = [column for column in table.columns if column.key in SHOWN or column.key.startswith("pass_")]
    return replace(table, columns=columns, rows=sorted(table.rows, key=lambda row: -row["after"].mean))


@guarded
def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of comparisons and ablations.")],
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Contests",
    intro: Annotated[str, typer.Option(help="A paragraph below the heading.")] = "",
    write: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Write one page about finished comparisons."""
    studies = [read_study(folder, ()) for folder in folders]
    parts = [f"# {title}", *([intro] if intro else []), *(part for study in studies for part in section(study))]
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    if write:
        write.write_text(text)
    else:
        typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
