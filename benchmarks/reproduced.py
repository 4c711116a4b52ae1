"""The page of published results that were run again, written from the folders that `rlzoo reproduce` made.

rlzoo reproduce parity-grpo-25 --out runs/reproduce/parity-grpo-25
python -m benchmarks.reproduced runs/reproduce/* --write benchmarks/results/reproduced.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli.shell import guarded
from rlzoo.errors import UserError
from rlzoo.experiments.reproduce import RESULT, Reproduction, compared, find
from rlzoo.report.reproduction import draw
from rlzoo.store.run_folder import RunFolder

HEAD = """# Published results run again

Each row of `benchmarks/published/` was run by `rlzoo reproduce NAME` with the settings that its file holds, once, one
seed. *inside* and *outside* are about the tolerance that the file states, with its reason, before the run.
Minutes are of a machine that did other work beside. Written by `python -m benchmarks.reproduced`."""


def read(folder: Path) -> Reproduction:
    """Compare a finished run with its row as it stands now."""
    path = folder / RESULT
    if not path.is_file():
        raise UserError(f"{folder} holds no {RESULT}: run rlzoo reproduce first")
    stored = json.loads(path.read_text(encoding="utf-8"))
    made = compared(stored["name"], find(stored["name"]), folder)
    if stored["points"] != made.as_dict()["points"]:
        raise UserError(f"{folder} was compared with other reference numbers than {made.name} has now: run it again")
    return made


def summary(made: list[Reproduction]) -> str:
    """Return one line per row: how many of its numbers are inside."""
    lines = ["| row | published | inside |", "|---|---|---|"]
    for one in made:
        inside = sum(point.outcome == "inside" for point in one.points)
        lines.append(f"| [{one.name}](#{one.name}) | {one.row.title} | {inside} of {len(one.points)} |")
    return "\n".join(lines)


def section(made: Reproduction, picture: str) -> str:
    """Return a row's sources, numbers, curve, cost, tolerance and differences."""
    machine = RunFolder(made.folder / "run").read_json("environment.json")
    records = RunFolder.open(made.folder / "run").read_metrics()
    minutes = max(record["elapsed_s"] for record in records) / 60
    base = made.folder / "base" / "warmstart.json"
    trained = f", after {json.loads(base.read_text())['seconds'] / 60:.1f} for the base model" if base.is_file() else ""
    points = [
        f"| {point.reference.step} | {point.reference.label} | {point.reference.wanted} | {shown(point.found)} | "
        f"{point.outcome} |"
        for point in made.points
    ]
    return "\n".join(
        [
            f"## {made.name}\n\n{made.row.title}.\n",
            *(f"- {one.what}: {one.where}." for one in made.row.sources),
            "\n| step | metric | published | ours | |\n|---|---|---|---|---|",
            *points,
            f"\n![{made.name}]({picture})\n",
            *([f"{made.row.remark}\n"] if made.row.remark else []),
            f"The run took {minutes:.1f} minutes{trained} ({machine['cpu']}, {machine['cores']} cores, shared).\n",
            f"Tolerance: {' '.join(made.row.tolerance.split())}\n",
            *(f"- Differs: {one}" for one in made.row.differs),
        ]
    )


def shown(found: float | None) -> str:
    """Return a number of ours as text."""
    return "-" if found is None else f"{found:.4g}"


@guarded
def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of rlzoo reproduce.")],
    write_to: Annotated[Path, typer.Option("--write", help="Markdown file to write; curves go beside it.")],
) -> None:
    """Write the page and one figure per row."""
    made = [read(folder) for folder in folders]
    parts = [HEAD, summary(made)]
    for one in made:
        picture = write_to.with_name(f"{write_to.stem}-{one.name}.png")
        draw(one, picture)
        parts.append(section(one, picture.name))
    write_to.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
