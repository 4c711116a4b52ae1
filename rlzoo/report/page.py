"""The report: one HTML file with everything in it. It loads nothing and runs one script, which sorts tables.

Its own policy forbids everything else, and every script but the one with that script's hash.

Every text on it is escaped by the template engine, whoever wrote it, and what cannot be seen is made visible.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

import objectives
from rlzoo.errors import UserError
from rlzoo.report import svg
from rlzoo.report.charts import METRICS, Charts
from rlzoo.report.notes import controls, misfits, unspent
from rlzoo.report.palette import Look, looks
from rlzoo.report.read import (
    CONFIG,
    Study,
    circumstances,
    command,
    configuration,
    read_responses,
    read_study,
    rows_of_parts,
    settings,
)
from rlzoo.report.remarks import remarks
from rlzoo.report.results import ablation, equal_cost, judge_runs, pairs, results
from rlzoo.report.sensitivity import curve_table, range_table, read_search
from rlzoo.report.tables import FORMATS, shown, sort_key
from rlzoo.report.text import paragraphs, visible
from rlzoo.stats.sentences import sentences
from rlzoo.stats.verdicts import Judgement, Pair
from rlzoo.store.run_folder import REPORT, RunFolder

FOREST = 12  # pairs drawn; of more, those with the best algorithm


def write_report(folder: Path, out: Path | None = None, refresh: int | None = None) -> Path:
    """Make the report of a comparison, or of one run, also while it trains.

    Args:
        folder: of the comparison or run.
        out: the file; None: report.html in the folder.
        refresh: seconds after which a page that is open loads itself again.

    Raises:
        UserError: there is no run in the folder, or the file cannot be written.
    """
    page = render(read_study(folder, METRICS), refresh)
    path = out or folder / REPORT
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
    found = [results(study), pairs(judged), equal_cost(study), ablation(study)]
    search = read_search(study)
    found += [curve_table(search), range_table(search)] if search else []
    target = RunFolder(out)
    with target.safely("make the folder"):
        out.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in found:
        for suffix, form in FORMATS.items():
            if table.rows:
                target.write_text(f"{table.name}.{suffix}", form(table))
                paths.append(out / f"{table.name}.{suffix}")
    return paths


def render(study: Study, refresh: int | None = None) -> str:
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
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    return _template().render(
        study=study,
        title=f"{study.task}: {', '.join(study.algorithms[:6])}" + (" and more" if len(study.algorithms) > 6 else ""),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        refresh=refresh,
        style=Markup(_style(look)),
        number=charts.number,
        look=look,
        key=lambda name: svg.key(charts.number[name], look[name].marker),
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
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}",
        forest=_forest(judgement, ranking),
        scale=svg.scale(_limit(judgement)),
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
        download="data:application/json;base64," + base64.b64encode(stored.encode()).decode("ascii"),
    )


def _template() -> jinja2.Template:
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
    return environment.get_template("page.html")


def _style(look: Mapping[str, Look]) -> str:
    """Return the style sheet with the algorithms' colours in it, light and dark, and what their switches do."""
    light, dark, rest = [], [], []
    for number, one in enumerate(look.values()):
        light.append(f".a{number}{{--c:{one.colour}}}")
        dark.append(f".a{number}{{--c:{one.on_black}}}")
        if one.dashes:
            rest.append(f".line.a{number}{{stroke-dasharray:{' '.join(f'{2 * length:g}' for length in one.dashes)}}}")
        rest.append(f"body:has(#show{number}:not(:checked)) .s.a{number}{{display:none}}")
    colours = [*light, f"@media screen and (prefers-color-scheme:dark){{{''.join(dark)}}}", *rest]
    return (Path(__file__).parent / "page.css").read_text(encoding="utf-8") + "\n".join(colours)


def _forest(judgement: Judgement, ranking: list[str]) -> list[tuple[Pair, Markup]]:
    """Return the pairs to draw, each with its interval on one common scale."""
    chosen = list(judgement.pairs)
    if len(chosen) > FOREST:
        chosen = [pair for pair in chosen if ranking[0] in (pair.a, pair.b)]
    limit = _limit(judgement)
    drawn = []
    for pair in chosen:
        one, kind = pair.difference, pair.verdict or "none"
        drawn.append((pair, svg.interval(one.mean, one.low, one.high, judgement.margin, limit, kind)))
    return drawn


def _limit(judgement: Judgement) -> float:
    """Return the largest distance from zero of any difference's interval, and at least twice the margin."""
    ones = [pair.difference for pair in judgement.pairs]
    ends = [abs(x) for one in ones for x in (one.mean, one.low, one.high) if x is not None]
    return max([2 * judgement.margin, *ends])


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
