"""The report: one HTML file with everything in it. It loads nothing and runs one script, `page.js`.

The script shows values under the pointer, sorts tables, and while runs train brings in the newer versions of the file.
The page's own policy forbids every script but the one with that script's hash, and every other source.

The template engine escapes every text, whoever wrote it; characters that cannot be seen are made visible.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

import objectives
from rlzoo.errors import UserError
from rlzoo.report import inline
from rlzoo.report.charts import METRICS, Charts
from rlzoo.report.notes import controls, misfits, unspent
from rlzoo.report.palette import ON_BLACK, PALETTE, Look, looks
from rlzoo.report.read import (
    CONFIG,
    Study,
    circumstances,
    command,
    configuration,
    read_study,
    rows_of_parts,
    settings,
)
from rlzoo.report.remarks import remarks
from rlzoo.report.responses import read_responses
from rlzoo.report.results import LABELS, ablation, curve_values, equal_cost, judge_runs, pairs, results
from rlzoo.report.sensitivity import curve_table, range_table, read_search
from rlzoo.report.tables import FORMATS, Table, as_csv, shown, sort_key
from rlzoo.report.text import paragraphs, visible
from rlzoo.stats.sentences import sentences
from rlzoo.stats.verdicts import Judgement, Pair
from rlzoo.store.run_folder import REPORT, RunFolder

FOREST = 12  # pairs drawn; of more, those with the best algorithm


def write_report(folder: Path, out: Path | None = None, live: bool = False) -> Path:
    """Make the report of a comparison, or of one run, also while it trains.

    Args:
        folder: of the comparison or run.
        out: the file; None: report.html in the folder.
        live: a page that is open shows later versions of the file by itself.

    Raises:
        UserError: there is no run in the folder, or the file cannot be written.
    """
    return write_page(render(read_study(folder, METRICS), live), out or folder / REPORT)


def write_page(page: str, path: Path) -> Path:
    """Write a page into a file and return the file; raises UserError if it cannot be written."""
    target = RunFolder(path.parent)
    with target.safely("make the folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(path.name, page)
    return path


def write_tables(folder: Path, out: Path) -> list[Path]:
    """Write the report's tables as Markdown, CSV and LaTeX into a folder; returns the files.

    Raises:
        UserError: there is no run in the folder, none has ended, or a file cannot be written.
    """
    study = read_study(folder, METRICS)
    judged = judge_runs(study)
    if not judged.standings:
        raise UserError(f"no run in {folder} has ended yet: there is nothing to put into tables")
    found = [results(study), pairs(judged), equal_cost(study), curve_values(study), ablation(study)]
    search = read_search(study)
    found += [curve_table(search), range_table(search)] if search else []
    return write_files(found, out)


def write_files(tables: Sequence[Table], out: Path) -> list[Path]:
    """Write tables that have rows as Markdown, CSV and LaTeX into a folder and return the files."""
    target = RunFolder(out)
    with target.safely("make the folder"):
        out.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        for suffix, form in FORMATS.items():
            if table.rows:
                target.write_text(f"{table.name}.{suffix}", form(table))
                paths.append(out / f"{table.name}.{suffix}")
    return paths


def render(study: Study, live: bool = False) -> str:
    """Return the page."""
    judgement = judge_runs(study)
    outcomes = [run.summary for run in study.ended if run.summary is not None]
    look = looks(study.algorithms)
    ranking = [standing.algorithm for standing in judgement.standings]
    ranking += [name for name in study.algorithms if name not in ranking]
    charts = Charts(study, look, ranking)
    seed, problems = read_responses(study)
    columns, rows = rows_of_parts(study)
    stored = json.dumps(configuration(study), indent=2, ensure_ascii=False)
    single = (study.folder / CONFIG).is_file()
    search = read_search(study)
    text, allowed = script()
    now = datetime.now(UTC)
    tokens = study.declared is not None and study.declared.plan.endpoint == "tokens"
    return template("page.html").render(
        study=study,
        title=f"{study.task}: {', '.join(study.algorithms[:6])}" + (" and more" if len(study.algorithms) > 6 else ""),
        made=now.strftime("%Y-%m-%d %H:%M UTC"),
        stamp=now.isoformat(),
        live=live,
        style=Markup(style(look)),
        look=look,
        keys=inline.keys(look),
        key=lambda name: inline.key(look[name]),
        axis="tokens_sampled" if tokens else "step",
        labels=LABELS,
        curve_values=curve_values(study),
        judgement=judgement,
        verdicts=sentences(judgement),
        remarks=[
            *remarks(study),
            *(study.declared.notes if study.declared else []),
            *misfits(outcomes),
            *controls(outcomes),
            *unspent(outcomes),
        ],
        results=results(study),
        pairs=pairs(judgement),
        equal_cost=equal_cost(study),
        ablation=ablation(study),
        search=search,
        search_curves=curve_table(search) if search else None,
        search_range=range_table(search) if search else None,
        script=Markup(text),
        script_hash=allowed,
        forest=Forest.of(judgement, ranking),
        matrix=_matrix(judgement),
        charts=charts,
        seed=seed,
        problems=problems,
        columns=columns,
        parts=rows,
        base=study.algorithms[0],
        pages={name: _page(study, name) for name in study.algorithms},
        settings=settings(study),
        circumstances=circumstances(study),
        command=command(study),
        again="rlzoo train --config config.json" if single else "rlzoo compare --config comparison.json --out again",
        file="config.json" if single else "comparison.json",
        stored=stored,
        download=_inline("application/json", stored),
    )


def script() -> tuple[str, str]:
    """Return the script of a page, and how the page's policy names it."""
    text = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    return text, f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def template(name: str) -> jinja2.Template:
    """Return a template of this folder, which escapes every text."""
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=here,
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is made of such text already
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "sort_key": sort_key, "paragraphs": paragraphs}
    environment.filters["csv"] = lambda table: _inline("text/csv", as_csv(table))
    return environment.get_template(name)


def _inline(kind: str, text: str) -> str:
    """Return a file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode('ascii')}"


def style(look: Mapping[str, Look]) -> str:
    """Return the style sheet with the colours, light and dark, and what the switches of algorithms and axes do."""
    light, dark = ("".join(f"--p{i}:{one};" for i, one in enumerate(all_of)) for all_of in (PALETTE, ON_BLACK))
    colours = f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    hidden = [f"body:has(#show{one.number}:not(:checked)) .s.a{one.number}{{display:none}}" for one in look.values()]
    axes = "".join(f"body:has(#axis-{axis}:not(:checked)) .axis-{axis}{{display:none}}" for axis in LABELS)
    sheet = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return "\n".join([sheet, colours, *hidden, f"@media screen{{{axes}}}"])


@dataclass(frozen=True)
class Forest:
    """The pairs to draw below each other, on one scale from -limit to limit."""

    pairs: Sequence[Pair]
    limit: float

    @classmethod
    def of(cls, judgement: Judgement, ranking: Sequence[str]) -> Forest:
        """Return all pairs; of many, those with the best algorithm."""
        chosen = list(judgement.pairs)
        if len(chosen) > FOREST:
            chosen = [pair for pair in chosen if ranking[0] in (pair.a, pair.b)]
        ones = [pair.difference for pair in judgement.pairs]
        ends = [abs(x) for one in ones for x in (one.mean, one.low, one.high) if x is not None]
        return cls(chosen, max([2 * judgement.margin, *ends]))

    def at(self, value: float) -> float:
        """Return where a difference stands, in percent of the width."""
        return round(50 + 48 * value / self.limit, 2)


def _matrix(judgement: Judgement) -> list[tuple[str, list[Pair | None]]]:
    """Return a row per algorithm, the best first: its pairs with each of them, None where there is no such question."""
    names = [standing.algorithm for standing in judgement.standings]
    asked = {(pair.a, pair.b) for pair in judgement.pairs} | {(pair.b, pair.a) for pair in judgement.pairs}
    return [(a, [judgement.pair(a, b) if (a, b) in asked else None for b in names]) for a in names]


def _page(study: Study, name: str) -> str | None:
    """Return an objective's page; None for one that is not registered here, as the files alone do not have it."""
    stored = study.of(name)[0].config["objective"]["name"]
    try:
        return objectives.page(stored) or None
    except ValueError:
        return None
