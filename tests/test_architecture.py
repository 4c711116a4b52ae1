"""What may import what. Read the tables below before adding an import, and change them only on purpose."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import objectives

ROOT = Path(__file__).parent.parent

# advantages <- objectives <- rlzoo <- benchmarks: a package may import itself and what is listed for it.
PACKAGES = {
    "advantages": set(),
    "objectives": {"advantages"},
    "rlzoo": {"advantages", "objectives"},
    "benchmarks": {"advantages", "objectives", "rlzoo"},
}

# The pure packages are usable in anybody's trainer: tensors and settings, nothing else from outside.
PURE = {"advantages": {"torch", "pydantic", "pydantic_core"}, "objectives": {"torch", "pydantic", "pydantic_core"}}

# The libraries that change most often, and the only files that know them.
MODEL_LIBRARIES = {"transformers", "peft", "bitsandbytes", "tokenizers", "accelerate"}
MODEL_FILES = {
    "rlzoo/model/backbone.py",  # loads the base model
    "rlzoo/model/hub.py",  # finds it and its tokenizer
    "rlzoo/model/cpu/llama.py",  # the layers of one kind of model, written out
    "rlzoo/model/kv_cache.py",  # keys and values while decoding
    "rlzoo/model/adapters.py",  # PEFT owns the adapter's targets and format
    "rlzoo/model/multi_lora.py",  # the quantized matrix product
    "rlzoo/model/packing.py",  # attention of several sequences in one packed row
    "rlzoo/warmstart/train.py",  # builds and trains a base model
    "rlzoo/model/char_tokenizer.py",  # builds its tokenizer
}
DATA_LIBRARIES = {"datasets": "rlzoo/tasks/", "reasoning_gym": "rlzoo/tasks/"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the full name, not a relative import"
            yield node.lineno, node.module or ""


def offences(package: str, allowed: set[str], heads: set[str] | None = None) -> list[str]:
    """Return 'file:line imports name' for each import of a package that is not allowed (of `heads`, if given)."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for line, name in imports(path)
        if (head := name.partition(".")[0]) not in allowed and (heads is None or head in heads)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    assert offences(package, PACKAGES[package] | {package}, heads={*PACKAGES, "tests"}) == []


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_import_torch_and_pydantic_only(package: str) -> None:
    assert sources(package)
    allowed = PURE[package] | PACKAGES[package] | {package} | set(sys.stdlib_module_names)
    assert offences(package, allowed) == []


def test_model_libraries_are_known_to_few_files() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in sources("rlzoo")
        for _, name in imports(path)
        if name.partition(".")[0] in MODEL_LIBRARIES
    }
    assert found - MODEL_FILES == set()


def test_the_list_of_model_files_is_up_to_date() -> None:
    for name in MODEL_FILES:
        heads = {module.partition(".")[0] for _, module in imports(ROOT / name)}
        assert heads & MODEL_LIBRARIES, f"{name} knows none of the model libraries any more: take it off the list"


@pytest.mark.parametrize(("library", "folder"), DATA_LIBRARIES.items())
def test_data_libraries_are_known_to_tasks_only(library: str, folder: str) -> None:
    found = offences("rlzoo", set(), heads={library})
    assert [line for line in found if not line.startswith(folder)] == []


def presets() -> set[str]:
    """Return the files of objectives/ that register something on module level."""
    return {
        path.stem
        for path in (ROOT / "objectives").glob("*.py")
        for statement in ast.parse(path.read_text()).body
        for node in ast.walk(statement)
        if not isinstance(statement, ast.FunctionDef)
        and isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "register"
    }


def test_each_preset_is_registered_under_the_name_of_its_file() -> None:
    assert len(presets()) >= 5
    assert presets() <= set(objectives.names())


def test_nothing_outside_the_objectives_names_an_algorithm() -> None:
    """The trainer asks what an objective needs; it does not branch on who it is."""
    algorithms = presets()
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} says {node.value!r}"
        for path in [*sources("rlzoo"), *sources("advantages")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in algorithms
    ]
    assert found == []
