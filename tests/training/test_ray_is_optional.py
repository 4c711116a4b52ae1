"""Without Ray: nothing imports it until it is chosen, and then a sentence says how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlzoo.config.run import RunConfig, SharedConfig
from rlzoo.errors import UserError
from rlzoo.experiments.evaluate import evaluate_jobs
from rlzoo.experiments.evaluation_jobs import Job
from rlzoo.training.launch import train

MakeConfig = Callable[..., RunConfig]


def test_without_the_extra_the_message_has_the_command(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "rlzoo.engine.ray_cluster" not in sys.modules
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"engine\.name = 'ray' needs a package: pip install 'rlzoo\[ray\]'"):
        train(make_config("grpo", engine={"name": "ray"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_elsewhere_is_refused() -> None:
    job = Job("base", None, SharedConfig(engine="ray"))
    with pytest.raises(UserError, match=r"computed here: leave out engine\.name = 'ray'"):
        evaluate_jobs([job])


def test_a_bucket_is_no_folder(make_config: MakeConfig) -> None:
    """Before, a folder `s3:` was made here."""
    with pytest.raises(UserError, match=r"s3:// is an object store.*mount the bucket"):
        train(make_config("grpo"), "s3://bucket/run")
    assert not Path("s3:").exists()
