"""The table on the page about conventions is correct: it is computed here. To print it:

python -m tests.test_profiles_page
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives import Objective, get
from objectives.conformance import world as zoo
from objectives.profiles import PROFILES
from tests import test_profiles

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks/results/conventions.md"
HEAD = "| loss | changed | length, near | angle, near | length, far | angle, far |\n|---|---|---|---|---|---|"
World = Callable[[int], zoo.World]


def gradient(objective: Objective, world: World) -> Tensor:
    """Gradients by log-probs, and by values if there are any, of three rollouts."""
    return torch.cat([g.flatten() for seed in range(3) for g in test_profiles.ours(objective, world(seed))[1].values()])


def distance(changed: Objective, base: Objective, world: World) -> str:
    """How much longer the gradient is, and the angle between the two, in degrees."""
    a, b = gradient(changed, world), gradient(base, world)
    if torch.equal(a, b):
        return "1 | 0.0"
    cosine = torch.dot(a, b) / a.norm() / b.norm()
    return f"{a.norm() / b.norm():.3g} | {math.degrees(math.acos(min(1.0, cosine.item()))):.1f}"


def written(key: str, value: object) -> str:
    if isinstance(value, dict):
        fields = ", ".join(f"{name}={x}" for name, x in value.items() if name != "kind")
        return f"{key}={value['kind']}({fields})"
    return f"{key}={'none' if value is None else value}"


def table() -> str:
    """All rows, each with its changes one at a time where they can stand alone."""
    lines = [HEAD]
    for framework, rows in PROFILES.items():
        for loss, row in rows.items():
            base = get(row.base)
            cells = {"all": get(f"{loss}@{framework}")}
            for key, value in row.changes.items() if len(row.changes) > 1 else ():
                try:
                    cells[f"`{written(key, value)}`"] = base.but(**{key: value})
                except ValueError:
                    continue  # it needs another change
            for change, objective in cells.items():
                near, far = (distance(objective, base, world) for world in (test_profiles.near, test_profiles.far))
                name = f"**{loss}@{framework}**" if change == "all" else ""
                text = "all, beside `" + row.base + "`" if change == "all" and len(row.changes) > 1 else change
                if change == "all" and len(row.changes) == 1:
                    text = "`" + " ".join(written(key, value) for key, value in row.changes.items()) + "`"
                lines.append(f"| {name} | {text} | {near} | {far} |")
    return "\n".join(lines)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]


def test_the_pages_table_is_what_is_computed() -> None:
    shown = re.search(r"<!-- table -->\n(.*?)<!-- /table -->", PAGE.read_text(), re.DOTALL)
    assert shown is not None, "run python -m tests.test_profiles_page and paste what it prints between the marks"
    ours, theirs = cells(shown[1]), cells(table())
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    for row, truth in zip(ours, theirs, strict=True):
        assert [float(x) for x in row[2:]] == pytest.approx([float(x) for x in truth[2:]], abs=0.15, rel=2e-3), row


def test_the_page_names_every_row_and_its_settings() -> None:
    text = PAGE.read_text()
    for framework, rows in PROFILES.items():
        for loss, row in rows.items():
            assert f"`{loss}@{framework}`" in text, (loss, framework)
            assert row.means in text, row.means


def test_tests_that_the_page_names_exist() -> None:
    for path, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE.read_text()):
        assert f"def {name}(" in (ROOT / path).read_text(), (path, name)


if __name__ == "__main__":
    print(table())
