"""Requests to a local engine: the same answers together as alone, each with its own adapter and share of the time."""

from __future__ import annotations

import asyncio

import pytest
import torch

from objectives import TokenBatch, get
from rlzoo.engine.local import LocalEngine
from rlzoo.engine.protocol import BASE, Learned, LearnRequest, PolicyRef, Scored, ScoreRequest, StepSettings
from rlzoo.engine.tokens import Tokens
from rlzoo.model.backbone import Backbone
from tests.engine.clients import hold, on_local
from tests.models import random_adapter

VALUES = frozenset({"logp", "value"})


def test_scores_together_are_scores_alone(backbone: Backbone) -> None:
    """Values are given to whom asks for them, whoever else is in the batch; the reference's rows of several requests,
    of other widths and temperatures, may share a pass."""
    mask_NT = torch.arange(4) < torch.tensor([[4], [2], [3]])
    token_NT = torch.arange(20, 32).view(3, 4) * mask_NT
    tokens = Tokens([[5, 6], [7], [8, 9, 10]], torch.arange(3), token_NT, mask_NT, mask_NT)

    async def job(engine: LocalEngine) -> tuple[list[Scored], list[Scored]]:
        one, two = [await hold(engine, str(seed), random_adapter(backbone, seed)) for seed in (1, 2)]
        requests = [
            ScoreRequest(one, tokens, 0.7),
            ScoreRequest(BASE, tokens, 1.0, frozenset({"logp", "entropy"})),
            ScoreRequest(two, tokens, 1.3, VALUES),
            ScoreRequest(BASE, tokens.rows(torch.tensor([2, 1])), 0.5),
            ScoreRequest(BASE, tokens.rows(torch.tensor([], dtype=torch.int64)), 1.0),
        ]
        together = await asyncio.gather(*(engine.score(request) for request in requests))
        return together, [await engine.score(request) for request in requests]

    for budget in (1, 12, 10**4):
        together, alone = on_local(backbone, job, micro_batch_tokens=budget)
        for one, other in zip(together, alone, strict=True):
            for name in ("logp_NT", "value_NT", "entropy_NT"):
                torch.testing.assert_close(getattr(one, name), getattr(other, name))
        assert [scored.value_NT is not None for scored in together] == [False, False, True, False, False]
        assert [scored.entropy_NT is not None for scored in together] == [False, True, False, False, False]
        assert together[2].value_NT is not None and together[2].value_NT.abs().max() > 0


def test_values_and_their_gradients_are_the_critic_adapters(backbone: Backbone) -> None:
    """In company of a run whose value head is on its policy."""
    mask_NT = torch.arange(3) < torch.tensor([[3], [2]])
    tokens = Tokens([[5, 6], [7]], torch.arange(2), torch.arange(20, 26).view(2, 3) * mask_NT, mask_NT, mask_NT)
    ones, zeros = mask_NT.float(), torch.zeros(2, 3)
    batch = TokenBatch(mask_NT, ones / 5, ones, zeros - ones, zeros - ones, zeros, ones)
    objective = get("ppo[value=plain]").model_dump(mode="json")
    own, critic, head = (random_adapter(backbone, seed) for seed in range(3))

    async def job(engine: LocalEngine) -> list[tuple[Scored, Learned, list[torch.Tensor]]]:
        policies = await hold(engine, "own", own, critic, critic="adapter"), await hold(engine, "head", head, seed=1)

        async def update(run: str, policy: PolicyRef) -> tuple[Scored, Learned, list[torch.Tensor]]:
            scored = await engine.score(ScoreRequest(policy, tokens, 1.0, VALUES))
            learned = await engine.forward_backward(LearnRequest(run, tokens, batch, objective, 1.0))
            await engine.optim_step(run, StepSettings(lr=3e-3))
            return scored, learned, [p.detach().clone() for p in engine.runs[run].parameters]

        return await asyncio.gather(*(update(policy.run, policy) for policy in policies))

    outcomes = on_local(backbone, job)
    for scored, learned, _ in outcomes:
        torch.testing.assert_close(learned.policy.logp_BT, scored.logp_NT)
        torch.testing.assert_close(learned.policy.value_BT, scored.value_NT)
    assert not torch.allclose(outcomes[0][0].value_NT, outcomes[1][0].value_NT)
    value_head = backbone.hidden_size + 1  # the end of theta
    now = [theta for *_, parameters in outcomes for theta in parameters]
    moved = [after - before for after, before in zip(now, (own, critic, head), strict=True)]
    assert not moved[0][-value_head:].any() and moved[0][:-value_head].any()
    for critic_moved in moved[1:]:
        assert critic_moved[-value_head:].all() and critic_moved[:-value_head].any()


def test_engine_time_is_shared_by_tokens(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 8 seconds: 1 row beside 3 rows of the same size pays 2 of them. The clock is read when the device has
    nothing left to do."""
    clock = iter([0.0, 8.0])
    order: list[str] = []
    monkeypatch.setattr("rlzoo.engine.local.time.perf_counter", lambda: order.append("clock") or next(clock))
    monkeypatch.setattr(LocalEngine, "_synchronize", lambda self: order.append("wait"))

    async def job(engine: LocalEngine) -> list[Scored]:
        def request(rows: int) -> ScoreRequest:
            mask_NT = torch.ones(rows, 2) > 0
            return ScoreRequest(
                BASE, Tokens([[1, 2]] * rows, torch.arange(rows), mask_NT.long(), mask_NT, mask_NT), 1.0
            )

        return await asyncio.gather(engine.score(request(1)), engine.score(request(3)))

    small, large = on_local(backbone, job)
    assert (small.seconds, large.seconds) == (2.0, 6.0) and order == ["wait", "clock", "wait", "clock"]
    assert small.logp_NT is not None and small.logp_NT.shape == (1, 2) and small.value_NT is None
