"""The notebook that shows the Python API runs, and its committed outputs are those of its cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.notebook import execute, run_cell

NOTEBOOK = Path(__file__).parents[2] / "benchmarks" / "first_steps.ipynb"


def kinds(notebook: dict[str, Any]) -> list[list[list[str]]]:
    """The MIME types of every output of every cell with code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[sorted(output.get("data", {"stdout": 0})) for output in cell["outputs"]] for cell in cells]


def text(notebook: dict[str, Any], cell: int) -> str:
    outputs = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][cell]["outputs"]
    return "".join("".join(output.get("text") or output["data"]["text/plain"]) for output in outputs)


def test_the_notebook_runs_and_holds_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    committed = json.loads(NOTEBOOK.read_text())
    made = execute(committed)
    assert kinds(made) == kinds(committed)
    assert ["image/png", "text/plain"] in [kind for cell in kinds(committed) for kind in cell]
    assert all(cell for cell in kinds(committed))
    for cell in (0, 1):  # rows, seeds and words; digits may differ between machines
        words = [{word for word in text(nb, cell).split() if word.isalpha()} for nb in (made, committed)]
        assert words[0] >= {"grpo", "reinforce"} and (cell == 0 or words[0] == words[1])
    assert (tmp_path / "runs/first_steps/report.html").is_file()


def test_a_cell_has_what_it_prints_and_its_last_value() -> None:
    scope: dict[str, Any] = {}
    assert run_cell("x = 2\nprint('a')\nx + 1", scope, 3) == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n"]},
        {"output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": {"text/plain": ["3"]}},
    ]
    assert run_cell("y = x", scope, 4) == [] and scope["y"] == 2
    with pytest.raises(ZeroDivisionError):
        run_cell("1 / 0", scope, 5)
