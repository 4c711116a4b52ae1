"""The installed package: every subpackage, the shipped model, all imported dependencies, pinned versions."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("advantages", "objectives", "rlzoo")

RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]
PINS = {
    canonicalize_name(pin.name): pin
    for pin in map(Requirement, re.findall(r"^[^#\s].*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
}


def imported_distributions() -> set[str]:
    """Return the distributions of all modules that the packages import, their own and Python's left out."""
    heads = set()
    for path in [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                heads |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                heads.add(node.module.partition(".")[0])
    heads.discard("pydantic_core")  # pydantic's own, which pins the version that it needs
    known = importlib.metadata.packages_distributions()
    foreign = heads - set(sys.stdlib_module_names) - set(PACKAGES)
    return {canonicalize_name(known.get(head, [head])[0]) for head in foreign}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    optional = {canonicalize_name(r.name) for r in EXTRAS}
    declared = {canonicalize_name(r.name) for r in RUNTIME}
    assert imported_distributions() - declared - optional == set()
    assert declared - imported_distributions() == set()


@pytest.mark.parametrize("requirement", [*RUNTIME, *EXTRAS], ids=lambda requirement: requirement.name)
def test_every_dependency_is_bounded_and_pinned_inside_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier, "give a lower bound"
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)


def test_nothing_is_pinned_that_is_not_needed() -> None:
    assert set(PINS) == {canonicalize_name(r.name) for r in [*RUNTIME, *EXTRAS]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert "rlzoo/cli/app.py" in held and "rlzoo/tasks/sort.py" in held


def test_the_wheel_carries_the_shipped_model(wheel: zipfile.ZipFile) -> None:
    assert "rlzoo/assets/base/model.safetensors" in wheel.namelist()


def test_the_wheel_names_script_and_licence(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "rlzoo = rlzoo.cli.app:main" in wheel.read(entry_points).decode()
    (licence,) = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert "Apache License" in wheel.read(licence).decode()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_files_that_the_makefile_names_are_there() -> None:
    named = re.findall(r"\b[\w./-]+\.(?:toml|txt)\b", (ROOT / "Makefile").read_text())
    assert "benchmarks/recipes/demo.toml" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []
