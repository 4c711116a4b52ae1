"""The allowed imports. Read the tables below before adding an import, and change them only deliberately."""

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
    "rlzoo/model/backbone.py",  # the base model
    "rlzoo/model/attach.py",  # PEFT chooses the adapted layers
    "rlzoo/model/checkpoints.py",  # runs layers again
    "rlzoo/model/hub.py",  # finds it and its tokenizer
    "rlzoo/model/quiet.py",  # switches their progress bars off
    "rlzoo/model/gguf.py",  # converts GGUF files
    "rlzoo/model/cpu/llama.py",  # the layers of Llama-like models
    "rlzoo/model/adapters.py",  # PEFT owns the adapter's targets and format
    "rlzoo/model/multi_lora.py",  # the quantized matrix product
    "rlzoo/model/packing.py",  # attention of several sequences in one packed row
    "rlzoo/warmstart/train.py",  # builds and trains a base model
    "rlzoo/model/char_tokenizer.py",  # builds its tokenizer
}
# Inside rlzoo: a folder may import itself and what is listed for it. So all arrows point one way, and to see what a
# folder can know of, one reads its line.
FOLDERS = {
    "config": {"errors"},
    "store": {"errors"},
    "stats": {"errors", "noise", "config", "store"},
    "tasks": {"errors", "noise", "config"},
    "model": {"errors", "noise", "config"},
    "engine": {"errors", "noise", "config", "model"},
    "training": {"errors", "noise", "config", "store", "tasks", "engine"},
    "warmstart": {"errors", "config", "tasks", "model", "engine"},
    "experiments": {"errors", "config", "stats", "store", "tasks", "model", "training", "warmstart"},
    "report": {"errors", "config", "stats", "store", "experiments"},
    # The laboratory is exact mathematics on small worlds. It borrows intervals and the drawing of figures.
    "lab": {"errors", "noise", "stats", "report"},
    "api": {"errors", "config", "stats", "store", "tasks", "model", "training", "experiments", "report"},
    "cli": {
        *("errors", "config", "stats", "store", "tasks", "warmstart"),
        *("experiments", "report", "lab", "api", "__init__"),
    },
}
ROOT_MODULES = {"__init__": {"api", "errors"}, "__main__": {"cli"}, "errors": set[str](), "noise": set[str]()}
NOT_CODE = {"py.typed", "assets"}

MOST_LINES = 350

DATA_LIBRARIES = {"datasets": "rlzoo/tasks/", "reasoning_gym": "rlzoo/tasks/", "ray": "rlzoo/engine/ray_"}


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


def part(path: Path) -> str:
    """Return the folder of rlzoo that a file is in, or the name of a module at its root."""
    head, *rest = path.relative_to(ROOT / "rlzoo").parts
    return head if rest else head.removesuffix(".py")


def of_rlzoo(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every module of rlzoo that a file imports, functions and TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else node.module for name in inner]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "rlzoo")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_folders_import_what_their_line_allows() -> None:
    allowed = FOLDERS | ROOT_MODULES
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("rlzoo")
        for line, name in of_rlzoo(path)
        if [*name.split("."), "__init__"][1] not in {part(path), *allowed[part(path)]}
    ]
    assert found == []


def test_the_story_of_a_run_knows_the_protocol_alone() -> None:
    """Which engine answers is chosen where runs are launched, and nowhere else."""
    chooses = {"launch.py", "on_ray.py", "fleet_worker.py", "evaluate.py", "teacher.py"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / "rlzoo" / "training").glob("*.py")
        if path.name not in chooses
        for line, name in of_rlzoo(path)
        if name.startswith("rlzoo.engine") and name not in ("rlzoo.engine.protocol", "rlzoo.engine.tokens")
    ]
    assert found == []


def test_the_table_of_folders_has_one_direction() -> None:
    """Every folder can be given a place such that all it imports stands before it."""
    placed: set[str] = set()
    left = FOLDERS | ROOT_MODULES
    while left:
        ready = [name for name, allowed in left.items() if allowed <= placed]
        assert ready, f"a cycle among {sorted(left)}"
        placed |= set(ready)
        left = {name: allowed for name, allowed in left.items() if name not in placed}


def test_modules_have_no_cycles() -> None:
    """Not even one that is only for type checkers, or hidden in a function."""
    name_of = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources("rlzoo")}
    left = {
        name.removesuffix(".__init__"): {target for _, target in of_rlzoo(path)} - {name.removesuffix(".__init__")}
        for path, name in name_of.items()
    }
    while ready := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in ready}
    assert sorted(left) == [], "some of these import each other"


def test_the_root_has_no_module_that_is_not_named_here() -> None:
    there = {path.name.removesuffix(".py") for path in (ROOT / "rlzoo").iterdir() if path.name != "__pycache__"}
    assert there <= {*FOLDERS, *ROOT_MODULES, *NOT_CODE}
    assert {*FOLDERS, "__main__", "errors", "noise"} <= there


def test_only_the_model_knows_its_cpu_paths() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources("rlzoo")
        for _, name in of_rlzoo(path)
        if name.startswith("rlzoo.model.cpu") and part(path) != "model"
    }
    assert found == set()


@pytest.mark.parametrize("folder", sorted([*FOLDERS, "model/cpu"]))
def test_a_folder_says_what_lives_there(folder: str) -> None:
    """The first paragraph or two: what lives here, what does not. Three lines are enough for most."""
    said = ast.get_docstring(ast.parse((ROOT / "rlzoo" / folder / "__init__.py").read_text()))
    assert said is not None and len(said.split()) >= 15, f"rlzoo/{folder}/__init__.py: say what is here and what is not"


def test_files_are_short() -> None:
    """One job each: a file that grows beyond this is two."""
    longest = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources("rlzoo")}
    assert {name: lines for name, lines in longest.items() if lines > MOST_LINES} == {}


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
