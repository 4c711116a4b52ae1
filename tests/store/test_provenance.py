"""What a result was made with."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from rlzoo.store.provenance import LIBRARIES, commit, environment

ROOT = Path(__file__).parents[2]


def test_versions_hardware_and_command() -> None:
    made_with = environment()
    assert made_with["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in set(LIBRARIES) - {"rlzoo"}:  # which may be used from its checkout, uninstalled
        assert made_with[name] == version(name)
    assert made_with["threads"] == torch.get_num_threads()
    assert made_with["command"] == sys.argv
    assert made_with["cores"] >= 1 and made_with["memory_gib"] > 0
    assert json.loads(json.dumps(made_with)) == made_with


def test_commit_is_that_of_our_own_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(commit(ROOT / "rlzoo" / "store")).removesuffix("+changes") == head.strip()


def test_git_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = environment()["commit"]
    monkeypatch.setattr(subprocess, "run", None)
    assert environment()["commit"] == known


def test_a_repository_that_tracks_something_else_is_not_ours(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert commit(tmp_path) is None
