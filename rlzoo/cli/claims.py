"""`rlzoo claims`: statements about the algorithms, each with a verdict that is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlzoo.cli.console import terminal
from rlzoo.errors import UserError, nearest
from rlzoo.lab.claims import CLAIMS, ORIGINS, VERDICTS, Result, run
from rlzoo.lab.plots import FORMATS, draw, plot_of, scalars

STYLES = {"supported": "green", "refuted": "red", "depends": "yellow", "inconclusive": "yellow"}
MOST_NUMBERS = 60
MOST_PANELS = 8


def claims_command(names: Sequence[str], out: Path | None) -> list[Result]:
    """Check claims (all if none is named); with `out` write the page (.md) or the figure of the named ones.

    Raises:
        UserError: an unknown claim, or an `out` that is neither a page nor a figure.
    """
    for name in names:
        if name not in CLAIMS:
            raise UserError(f"unknown claim {name!r}; {nearest(name, CLAIMS)}")
    if out is not None and out.suffix not in (".md", *FORMATS):
        raise UserError(f"--out {out}: the page is a .md file, the figure of named claims .png, .svg or .pdf")
    if out is not None and out.suffix in FORMATS and not 0 < len(names) <= MOST_PANELS:
        raise UserError(f"--out {out}: a figure shows one to {MOST_PANELS} claims: name them")
    results: list[Result] = []
    with terminal(stderr=True).status("checking") as status:
        for claim in [CLAIMS[name] for name in names or CLAIMS]:
            status.update(f"checking {claim.name}")
            results.append(run(claim))
    if out is not None and out.suffix == ".md":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(markdown(results, names))
    elif out is not None:
        draw({r.claim.name: r.finding.plot or plot_of(r.numbers) for r in results}, out)
    return results


def show(results: Sequence[Result], in_full: bool) -> None:
    """Print each card in full, or all of them as a table."""
    for result in results if in_full else ():
        terminal().print(claim_card(result), "")
    if not in_full:
        terminal().print(claims_table(results))


def claims_table(results: Iterable[Result]) -> Table:
    """Return one line per claim: verdict, statement, measured numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=2)
    table.add_column("measured", ratio=3)
    for result in results:
        claim = result.claim
        verdict = Text(result.verdict, style=STYLES[result.verdict])
        verdict.append(f"\n{ORIGINS[claim.origin]}", style="dim")
        if result.verdict != claim.expected:
            verdict.append("\nexpected:\n" + claim.expected, style="dim")
        table.add_row(verdict, Text(claim.name, style="bold") + Text(f"\n{claim.statement}"), Text(result.measured))
    return table


def claim_card(result: Result) -> Group:
    """Return a claim in full: statement, origin, conditions, method, numbers, arithmetic and verdict."""
    claim = result.claim
    said = f"{ORIGINS[claim.origin]}: {claim.source}" + (f' ("{claim.quote}")' if claim.quote else "")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {"statement": claim.statement, "origin": said, "conditions": claim.conditions, "how": claim.how}
    for name, text in {**rows, "measured": result.measured}.items():
        table.add_row(name, Text(text))
    for place, line in enumerate(result.finding.arithmetic or list(numbers(result))):
        table.add_row("arithmetic" if place == 0 else "", Text(line))
    verdict = Text(result.verdict, style=STYLES[result.verdict]) + Text(f": {VERDICTS[result.verdict]}")
    table.add_row("verdict", verdict)
    return Group(Text(claim.name, style="bold"), table)


def numbers(result: Result) -> Iterable[str]:
    """Yield the numbers of a claim without arithmetic, one per line."""
    found = list(scalars(result.numbers))
    yield from (f"{name} = {x:.6g}" for name, x in found[:MOST_NUMBERS])
    if len(found) > MOST_NUMBERS:
        yield f"and {len(found) - MOST_NUMBERS} more: use --json for all of them"


def markdown(results: Sequence[Result], names: Sequence[str] = ()) -> str:
    """Return the page of results, benchmarks/results/claims.md."""
    lines = [
        "# Claims",
        "",
        f"Made by `{' '.join(['rlzoo claims', *names])} --out benchmarks/results/claims.md`.",
        "Every verdict is computed. One that depends on random draws uses at least 20 of them, and its line gives",
        "the share. A line can be read alone. `rlzoo claims NAME` prints its arithmetic, `--out NAME.png` its figure.",
        "",
        "Worlds are small (at most a few hundred responses, float64), so that everything can be enumerated. They show",
        "properties of an estimator, not how much these matter for a large model.",
        "",
        "| origin | " + " | ".join(VERDICTS) + " |",
        "|---" * (1 + len(VERDICTS)) + "|",
    ]
    for origin, label in ORIGINS.items():
        count = Counter(r.verdict for r in results if r.claim.origin == origin)
        lines.append(f"| {label} | " + " | ".join(str(count[verdict]) for verdict in VERDICTS) + " |")
    lines += ["", *(f"- **{verdict}**: {meaning}." for verdict, meaning in VERDICTS.items())]
    for origin, label in ORIGINS.items():
        mine = [r for r in results if r.claim.origin == origin]
        if mine:
            lines += ["", f"## {label.capitalize()}", ""]
            lines += ["| claim | verdict | conditions | measured | how | source |", "|---|---|---|---|---|---|"]
            lines += map(_row, mine)
    return "\n".join(lines) + "\n"


def _row(r: Result) -> str:
    verdict = f"**{r.verdict}**"
    if r.verdict != r.claim.expected:
        verdict += f" (expected: {r.claim.expected})"
    source = r.claim.source + (f': "{r.claim.quote}"' if r.claim.quote else "")
    statement = f"`{r.claim.name}`: {r.claim.statement}"
    cells = (statement, verdict, r.claim.conditions, r.measured, r.claim.how, source)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
