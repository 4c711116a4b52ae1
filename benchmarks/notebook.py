"""Run a notebook's code cells in order and put their outputs into it, without Jupyter.

    python -m benchmarks.notebook benchmarks/first_steps.ipynb

A cell's output is what it prints and the value of its last line: its `_repr_html_` and its text, or a figure as PNG.
Runs go below the working folder, so an executed notebook is checked by executing it again somewhere else.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DOTS_PER_INCH = 60


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook (nbformat 4, as JSON types) with new outputs; what a cell raises is raised."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = run_cell("".join(cell["source"]), scope, count)
            cell = cell | {"execution_count": count, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def run_cell(source: str, scope: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run one cell in `scope` and return its outputs."""
    module = ast.parse(source)
    last = module.body.pop() if module.body and isinstance(module.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(module, f"<cell {count}>", "exec"), scope)
        value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), scope) if last else None
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        data = shown(value)
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    return outputs


def shown(value: Any) -> dict[str, Any]:
    """Return a value's representations by MIME type."""
    if isinstance(value, Figure):
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=DOTS_PER_INCH)
        return {"image/png": base64.b64encode(file.getvalue()).decode("ascii"), "text/plain": ["<Figure>"]}
    html = value._repr_html_() if hasattr(value, "_repr_html_") else None
    return {**({} if html is None else {"text/html": lines(html)}), "text/plain": lines(str(value))}


def lines(text: str) -> list[str]:
    """Return text as a notebook stores it: lines with their ends."""
    return text.splitlines(keepends=True)


def main() -> None:
    """Execute the notebooks that are named, in place."""
    for path in map(Path, sys.argv[1:]):
        made = execute(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
