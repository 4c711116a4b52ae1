"""The engine reports its stages, the clock adds up, and profiling changes no number."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlzoo.config.run import RunConfig
from rlzoo.model import profiler
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from rlzoo.model.profiler import StageClock
from rlzoo.training.launch import train
from tests.training.same import untimed


def test_seconds_of_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """rest 0-1, decode 1-3, score 3-6, decode 6-10, read at 10 and again, still decoding, at 15."""
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    waited: list[None] = []
    clock = StageClock(wait=lambda: waited.append(None))
    with profiler.watch(clock):
        profiler.enter("decode")
        profiler.enter("score")
        profiler.enter("decode")
    profiler.enter("prefill")  # nobody watches any more
    assert clock.read() == {"rest": 1.0, "decode": 2.0 + 4.0, "score": 3.0}
    assert clock.read() == {"rest": 1.0, "decode": 2.0 + 4.0 + 5.0, "score": 3.0}
    assert len(waited) == 5


def test_a_run_goes_through_all_stages(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("grpo")  # its KL needs reference log-probs: a score
    train(config, tmp_path / "unwatched", backbone=backbone)
    clock, start = StageClock(), time.perf_counter()
    with profiler.watch(clock):
        train(config, tmp_path / "watched", backbone=backbone)
    seconds, elapsed = clock.read(), time.perf_counter() - start
    assert set(seconds) == {"prefill", "decode", "score", "forward", "backward", "optimizer", "rest"}
    assert all(seconds.values())
    assert sum(seconds.values()) == pytest.approx(elapsed, abs=0.5)
    assert untimed(tmp_path / "watched") == untimed(tmp_path / "unwatched")


def test_padding_is_counted_while_somebody_watches(backbone: Backbone) -> None:
    """Responses of 3 tokens and 1 to a prompt of 3, no row's last token fed: 3 + 2 and 3 + 0 of 2 x 5 tokens. Packed,
    the prompt counts once: 3 + 2 + 0."""
    prompts, group_B, mask_BT = (
        [backbone.encode("3+4")],
        torch.zeros(2, dtype=torch.long),
        torch.tensor([[True, True, True], [True, False, False]]),
    )
    for share, real, computed in ((False, 8, 10), (True, 5, 5)):
        clock = StageClock()
        with profiler.watch(clock):
            policy_forward(backbone, None, None, prompts, group_B, mask_BT.long(), mask_BT, packed=share)
        assert (clock.real, clock.computed) == (real, computed)
        assert clock.padding == pytest.approx(1 - real / computed)
    policy_forward(backbone, None, None, prompts, group_B, mask_BT.long(), mask_BT)
    assert clock.computed == 5 and StageClock().padding == 0
