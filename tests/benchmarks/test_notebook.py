"""The notebook that shows the Python API runs in a Jupyter kernel, and its committed outputs are those of its cells.

To make it anew, from the root of the checkout: `jupyter execute --inplace benchmarks/first_steps.ipynb`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "benchmarks" / "first_steps.ipynb"


def kinds(notebook: Any) -> list[list[list[str]]]:
    """The MIME types of every output of every cell with code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[sorted(output.get("data", {"stdout": 0})) for output in cell["outputs"]] for cell in cells]


def text(notebook: Any, cell: int) -> str:
    outputs = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][cell]["outputs"]
    return "".join(output.get("text") or output["data"]["text/plain"] for output in outputs)


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "runs/first_steps/report.html").is_file()
    return notebook


def test_the_notebook_holds_the_outputs_of_its_cells(made: Any, committed: Any) -> None:
    assert kinds(made) == kinds(committed)
    assert ["image/png", "text/plain"] in [kind for cell in kinds(committed) for kind in cell]
    assert all(cell for cell in kinds(committed))
    for cell in (0, 1):  # rows, seeds and words; digits may differ between machines
        words = [{word for word in text(notebook, cell).split() if word.isalpha()} for notebook in (made, committed)]
        assert words[0] == words[1]


def test_a_table_follows_the_runs_below_their_cell(made: Any) -> None:
    """Its last version, as the kernel sent it: one row per algorithm, every run ended, every step made."""
    outputs = next(cell for cell in made["cells"] if cell["cell_type"] == "code")["outputs"]
    live = [output["data"]["text/html"] for output in outputs if output["output_type"] == "display_data"]
    assert len(live) == 1
    assert "2 of 2" in live[0] and "elapsed" in live[0] and "grpo" in live[0] and "reinforce" in live[0]
