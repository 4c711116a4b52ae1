"""Mutation testing by forking: which changed functions does no test notice?

    pip install cosmic-ray && cosmic-ray init tests/mutation.toml mutants.sqlite
    python -m benchmarks.mutation mutants.sqlite advantages --count 50 >> results.jsonl

cosmic-ray makes the mutants and would start Python for each, which imports torch for seconds. Here the tests of a
package are imported and collected once. For each mutant a child is forked, in which the code objects of the mutated
functions replace the originals; the tests run, those that name the module first, until one fails. So a killed mutant
takes some 0.2 s of CPU. Only mutants inside functions can be run in this way: not those of class bodies, defaults of
fields and constants. Tests of trained models are left out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Annotated, Any, Literal

import pytest
import typer

BESIDE = ["test_mutants.py", "test_papers.py", "test_reductions.py", "test_golden_objectives.py"]
TESTS = {
    "advantages": ["advantages", *BESIDE, "test_papers_baselines.py", "test_reductions_baselines.py"],
    "objectives": ["objectives", *BESIDE],
    "rlzoo/stats": ["stats"],
}
"""Package -> its tests below tests/."""
MODELS = {"model_folder", "make_config", "backbone", "qwen_folder", "llama_folder", "fp32", "nf4", "llama"}
"""Fixtures of tests that need a model."""
SINGLE = (
    *("NumberReplacer", "AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse"),
    *("ReplaceFalseWithTrue", "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceContinueWithBreak", "ReplaceBreakWithContinue", "ZeroIterationForLoop"),
)
BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "FloorDiv_Div", "Mod_FloorDiv", "BitAnd_BitOr")
COMPARISON = (
    *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE", "LtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq"),
    *("Is_IsNot", "IsNot_Is", "In_NotIn", "NotIn_In"),
)
OPERATORS = {
    *SINGLE,
    *(f"ReplaceBinaryOperator_{pair}" for pair in BINARY),
    *(f"ReplaceComparisonOperator_{pair}" for pair in COMPARISON),
}
"""Those of cosmic-ray's some 130 operators that make a plausible mistake."""
LEFT_OUT = ("conformance", "names.py", "registry.py")
"""Modules that are tests themselves, or write messages."""


def functions(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """The code objects of a module's functions, by name and first line; class bodies are gone through."""
    found: dict[tuple[str, int], CodeType] = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 1:  # CO_OPTIMIZED: a function's
                found[inner.co_name, inner.co_firstlineno] = inner
            found |= functions(inner)
    return found


class Mutations:
    """pytest plugin: runs the collected tests once for each mutant, each time in a forked child.

    Attributes:
        specs: module, operator, its arguments and occurrence, of each mutant.
    """

    def __init__(self, specs: list[tuple[str, str, str, int]], count: int, seconds: float) -> None:
        self.specs, self.count, self.seconds = specs, count, seconds
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if not MODELS & set(getattr(item, "fixturenames", ()))]
        gc.disable()  # so that a child does not go through, and so copy, the memory of its parent
        results = (result for spec in self.specs if (result := self._run(spec, items)) is not None)
        for _, result in zip(range(self.count), results, strict=False):
            print(json.dumps(result), file=sys.__stdout__, flush=True)
        return True

    def _run(self, spec: tuple[str, str, str, int], items: list[pytest.Item]) -> dict[str, Any] | None:
        """Run one mutant; None if it changes no function of an imported module."""
        path, name, arguments, occurrence = spec
        module = sys.modules.get(path.removesuffix(".py").replace("/", "."))
        mutating = importlib.import_module("cosmic_ray.mutating")  # nothing else needs cosmic-ray
        operator = importlib.import_module("cosmic_ray.plugins").get_operator(name)(**_loaded(arguments))
        source = Path(path).read_text(encoding="utf-8")
        mutated = mutating.mutate_code(source, operator, occurrence)
        if module is None or mutated is None:
            return None
        old, new = (functions(compile(text, str(module.__file__), "exec")) for text in (source, mutated))
        if old.keys() != new.keys() or old == new:
            return None
        began, child = time.monotonic(), os.fork()
        if child == 0:
            self._test(module, new, items)
        status, used = self._wait(child, began)
        lines = zip(source.splitlines(), mutated.splitlines(), strict=False)
        changed = [f"{n}: {a.strip()}  ->  {b.strip()}" for n, (a, b) in enumerate(lines, start=1) if a != b]
        verdict = "survived" if status == 0 else "killed"
        return {"module": path, "operator": name, "verdict": verdict, "cpu_s": round(used, 2), "change": changed[:2]}

    def _test(self, module: Any, code: dict[tuple[str, int], CodeType], items: list[pytest.Item]) -> None:
        """In the child: put the mutated code in place and run the tests; ends the process."""
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1), os.dup2(silent, 2)
        for one in _functions_of(str(module.__file__)):
            one.__code__ = code.get((one.__code__.co_name, one.__code__.co_firstlineno), one.__code__)
        for item in sorted(items, key=lambda item: _distance(item, module.__name__)):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if self.failed:
                os._exit(1)
        os._exit(0)

    def _wait(self, child: int, began: float) -> tuple[int, float]:
        """Exit status and CPU seconds of a child, which is ended after `seconds`."""
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                return status, usage.ru_utime + usage.ru_stime
            if time.monotonic() - began > self.seconds:
                os.kill(child, 9)
            time.sleep(0.02)


def _loaded(arguments: str) -> dict[str, Any]:
    found = json.loads(arguments)
    return json.loads(found) if isinstance(found, str) else found


def _functions_of(file: str) -> Iterator[FunctionType]:
    return (one for one in gc.get_objects() if isinstance(one, FunctionType) and one.__code__.co_filename == file)


def _distance(item: pytest.Item, module: str) -> tuple[bool, bool]:
    """Order of tests: those of the module's own file first, then those of files that import it."""
    own = item.path.stem == f"test_{module.rpartition('.')[2]}"
    return not own, module not in item.path.read_text(encoding="utf-8")


def main(
    database: Annotated[Path, typer.Argument(help="Mutants of `cosmic-ray init tests/mutation.toml`.")],
    package: Annotated[Literal["advantages", "objectives", "rlzoo/stats"], typer.Argument(help="Whose mutants.")],
    count: Annotated[int, typer.Option(help="Number of mutants, drawn at random.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 5,
    seconds: Annotated[float, typer.Option(help="A mutant that takes longer counts as killed.")] = 1200.0,
) -> None:
    """Print a line of JSON for each mutant of a random sample: its change, and whether a test noticed it."""
    query = "select module_path, operator_name, operator_args, occurrence from mutation_specs order by 1, 2, 4"
    specs = sqlite3.connect(database).execute(query).fetchall()
    specs = [one for one in specs if one[0].startswith(package) and one[1].rpartition("/")[2] in OPERATORS]
    specs = [one for one in specs if not any(word in one[0] for word in LEFT_OUT)]
    random.Random(seed).shuffle(specs)
    tests = [f"tests/{name}" for name in TESTS[package]]
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow", "--capture=no"]
    code = pytest.main([*options, *tests], plugins=[Mutations(specs, count, seconds)])
    raise typer.Exit(int(code))


if __name__ == "__main__":
    typer.run(main)
