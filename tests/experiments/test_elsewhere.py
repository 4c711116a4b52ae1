"""Experiments on an engine that has the model itself load none here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.experiments.compare import compare
from rlzoo.experiments.tasks import compare_tasks
from rlzoo.model.backbone import Backbone


@pytest.mark.parametrize(
    ("table", "run"),
    [
        ({"tasks": ["add:easy", "sort:easy"]}, compare_tasks),
        ({"task": "add:easy", "tune": {"values": [1e-3, 2e-3]}}, compare),
    ],
    ids=["several tasks", "a search"],
)
def test_the_server_is_asked_first_and_no_model_is_loaded(
    table: dict[str, Any], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: object) -> None:
        raise AssertionError("loaded here")

    monkeypatch.setattr(Backbone, "load", load)
    there = {"objectives": ["grpo"], "engine": {"name": "tinker", "url": "http://127.0.0.1:9"}}
    with pytest.raises(UserError, match="no Tinker server can be reached"):
        run(CompareConfig.model_validate(there | table), tmp_path)
