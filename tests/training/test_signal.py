"""Settings that break float32 end a run as failed or with a warning in its outcome, never silently."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.evaluate import evaluate_policy
from rlzoo.training.failure import RunFailed
from rlzoo.training.launch import train
from rlzoo.training.signal import DEAD, Signal
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]

FAILING: list[tuple[str, dict[str, Any], str]] = [
    ("grpo", {"optimizer": {"lr": 1e6}}, "2 steps in a row .train.silent_steps., from step 2 on: every gradient is"),
    ("grpo", {"optimizer": {"lr": 1e30}}, "step 0: loss nan"),
    ("grpo", {"optimizer": {"lr": 3e38}, "train": {"minibatches": 1}}, "step 1: the policy's log-probs are not finite"),
    ("grpo", {"optimizer": {"weight_decay": 1e30}}, "step 0: loss nan"),
    ("grpo", {"train": {"temperature": 1e30}}, "2 steps in a row .train.silent_steps., from step 1 on: every gradient"),
    ("grpo", {"train": {"temperature": 1e-30}}, "none of the first 2 steps had a signal"),
    ("grpo", {"train": {"temperature": 1e-44}}, "step 0: the policy's log-probs are not finite"),
    ("grpo[kl.coef=1e38]", {}, "step 0: loss .*, gradient norm inf"),
    ("ppo[value.coef=1e38]", {}, "step 0: loss .*, gradient norm inf"),
]


@pytest.mark.parametrize(("objective", "tables", "reason"), FAILING, ids=lambda x: str(x) if x else "")
def test_settings_far_out_of_range_fail_with_a_reason(
    objective: str, tables: dict[str, Any], reason: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """`final`: the same numbers would come out again, so resuming does not try."""
    train_table = {"silent_steps": 2, **tables.get("train", {})}
    config = make_config(objective, **{**tables, "train": train_table}, evaluation={"prompts": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = train(config, tmp_path / "run", backbone=backbone)
    assert (summary["state"], summary["ended"]) == ("failed", "failure")
    assert re.search(reason, summary["failure"]), summary["failure"]


def test_a_policy_that_is_dead_at_the_end_says_so(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Three steps are fewer than `silent_steps`, so the run is done; its outcome carries the warning."""
    config = make_config(optimizer={"lr": 1e6}, evaluation={"prompts": 4})
    with pytest.warns(UserWarning, match=r"grpo: step 2: every gradient is exactly 0"):
        summary = train(config, tmp_path, backbone=backbone)
    assert summary["state"] == "done" and summary["warnings"][-1] == f"grpo: from step 2 to the end {DEAD}"
    norms = [record["gradient_norm"] for record in RunFolder.open(tmp_path).read_metrics() if record["kind"] == "train"]
    assert norms[0] > 0 and norms[1:] == [0.0, 0.0]


def test_the_last_update_may_break_the_policy(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """No step samples from it any more: the last evaluation finds it, and so does `rlzoo evaluate`."""
    config = make_config(
        train={"steps": 1, "minibatches": 1}, optimizer={"lr": 1e30}, evaluation={"prompts": 4, "every": 1}
    )
    summary = train(config, tmp_path, backbone=backbone)
    assert (summary["state"], summary["step"]) == ("failed", 1)
    assert "log-probs are not finite" in summary["failure"] and summary["after"]["entropy"] is None
    with pytest.raises(UserError, match="log-probs are not finite"):
        evaluate_policy(
            backbone, EvenTask("even"), tmp_path / "adapter", config.evaluation, max_new_tokens=4, temperature=1.0
        )


def test_a_dead_step_is_one_with_advantages_and_no_gradient() -> None:
    """Two dead steps, one that lives, three dead ones: only the last three are in a row."""
    heard = Signal()
    live = {"signal": True, "norms": [0.0, 1e-30]}
    dead = {"signal": True, "norms": [0.0, 0.0]}
    heard.hear("a", 1, 3, **live)
    with pytest.warns(UserWarning, match="a: step 2"):
        heard.hear("a", 2, 3, **dead)
    heard.hear("a", 3, 3, **dead)
    assert heard.remarks("a")[0].startswith("a: from step 2 to the end")
    heard.hear("a", 4, 3, **live)
    assert heard == Signal(silent=False, dead=0, died=2) and heard.remarks("a") == []
    with pytest.warns(UserWarning, match="a: step 5"):
        heard.hear("a", 5, 3, **dead)
    heard = Signal(**heard.stored())  # as after a checkpoint
    heard.hear("a", 6, 3, **dead)
    with pytest.raises(RunFailed, match=r"3 steps in a row .*, from step 5 on") as failed:
        heard.hear("a", 7, 3, **dead)
    assert failed.value.final


@pytest.mark.parametrize("norms", [[], [0.0]])
def test_a_solved_task_is_not_dead(norms: list[float]) -> None:
    """Equal rewards have no gradient, and that is right."""
    heard = Signal(silent=False)
    for step in range(2, 40):
        heard.hear("a", step, 5, signal=False, norms=norms)
    assert heard.dead == 0 and not heard.silent


def test_no_limit_never_fails() -> None:
    heard = Signal()
    with pytest.warns(UserWarning, match=f"step 1: {DEAD[:20]}"):
        for step in range(1, 60):
            heard.hear("a", step, None, signal=True, norms=[0.0])
    assert (heard.dead, heard.died) == (59, 1)
