"""A fleet: many runs on one backbone, in one process. Whatever the runs are waiting for is computed together.

    gradient of sum_k loss_k(theta_k)  =  the gradients of the K separate runs

because every loss is a plain sum and rows of different runs never touch. A run in a fleet is the same run as alone, to
float tolerance; a single run is a fleet of one.

Order: runs are resumed until each waits for something; then one kind of work is done for all that wait for it, scores
first, then updates, samples last. So the runs meet at the most expensive work, sampling, however many updates or
rounds each one takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from objectives import PolicyOutput
from rlzoo import stages
from rlzoo.backbone import Backbone
from rlzoo.config import EngineSettings
from rlzoo.engine import Call, Engine, Kind, Scored, ScoreRequest, Tokens, Updated, UpdateRequest, cat_padded
from rlzoo.forward import policy_forward
from rlzoo.learner import NotFinite
from rlzoo.sampler import SampleRequest, Samples, sample

Job = Callable[[Engine], Coroutine[Any, Any, Any]]
ORDER: tuple[Kind, ...] = ("score", "update", "sample")


class Fleet:
    """Drives runs to their ends."""

    def __init__(self, backbone: Backbone, settings: EngineSettings | None = None) -> None:
        self.backbone = backbone
        self.settings = settings or EngineSettings()

    def run(self, jobs: Mapping[str, Job]) -> dict[str, Any]:
        """Run all jobs to their ends and return what each returned. An error that a job lets out ends them all."""
        coroutines = {name: job(Engine()) for name, job in jobs.items()}
        answers: dict[str, Any] = dict.fromkeys(coroutines)
        waiting: dict[str, Call[Any]] = {}
        results: dict[str, Any] = {}
        try:
            while True:
                stages.enter("rest")
                for name, answer in answers.items():
                    try:
                        resume = coroutines[name].throw if isinstance(answer, NotFinite) else coroutines[name].send
                        waiting[name] = resume(answer)
                    except StopIteration as stop:
                        results[name] = stop.value
                if not waiting:
                    return {name: results[name] for name in jobs}
                kind = next(kind for kind in ORDER if any(call.kind == kind for call in waiting.values()))
                due = {name: waiting.pop(name) for name in list(waiting) if waiting[name].kind == kind}
                answers = dict(zip(due, self._answer(kind, list(due.values())), strict=True))
        finally:
            for coroutine in coroutines.values():
                coroutine.close()

    def _answer(self, kind: Kind, calls: list[Call[Any]]) -> Sequence[Any]:
        start = time.perf_counter()
        requests = [call.request for call in calls]
        if kind == "sample":
            answers, sizes = self._sample(requests)
        elif kind == "score":
            answers, sizes = self._score(requests), [request.tokens.size for request in requests]
        else:
            answers, sizes = self._update(requests), [request.tokens.size for request in requests]
        elapsed, total = time.perf_counter() - start, max(sum(sizes), 1)
        for call, size in zip(calls, sizes, strict=True):
            call.engine.seconds += elapsed * size / total
        return answers

    def _sample(
        self, calls: list[SampleRequest | list[SampleRequest]]
    ) -> tuple[list[Samples | list[Samples]], list[int]]:
        """Sample for calls of one or of several requests; equal requests are sampled once."""
        distinct: list[SampleRequest] = []
        places: list[list[int]] = []
        for call in calls:
            places.append([_place(request, distinct) for request in (call if isinstance(call, list) else [call])])
        samples = sample(self.backbone, distinct, max_rows=self.settings.sample_rows)
        sizes = [int(answer.mask_NT.sum()) for answer in samples]
        answers = [[samples[i] for i in mine] for mine in places]
        whole = [answer if isinstance(call, list) else answer[0] for call, answer in zip(calls, answers, strict=True)]
        return whole, [sum(sizes[i] for i in mine) for mine in places]

    @torch.no_grad()
    def _score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Score the rows of each request; reference rows, which need no adapter, go in passes of their own."""
        stages.enter("score")
        answers: list[Scored | None] = [None] * len(requests)
        for adapted in (False, True):
            mine = [i for i, request in enumerate(requests) if (request.theta is not None) is adapted]
            if not mine:
                continue
            stack = self.backbone.stack([requests[i].theta for i in mine]) if adapted else None
            value = any(requests[i].value for i in mine)
            logp: list[list[Tensor]] = [[] for _ in mine]
            values: list[list[Tensor]] = [[] for _ in mine]
            with self.backbone.held_weights():
                for chunk in micro_batches([requests[i].tokens for i in mine], self.settings.micro_batch_tokens):
                    out = self._forward(stack, [requests[i] for i in mine], chunk, value=value)
                    for k, part in out.items():
                        logp[k].append(part.logp_BT)
                        if part.value_BT is not None:
                            values[k].append(part.value_BT)
            for k, i in enumerate(mine):
                mask_NT = requests[i].tokens.mask_NT
                answers[i] = Scored(_whole(logp[k], mask_NT), _whole(values[k], mask_NT) if requests[i].value else None)
        return [answer for answer in answers if answer is not None]

    def _update(self, requests: list[UpdateRequest]) -> list[Updated | NotFinite]:
        """Make one optimizer step of each request's run; all runs share each forward and backward pass."""
        stages.enter("forward")
        learners = [request.learner for request in requests]
        thetas = [learner.theta for learner in learners]
        own = [k for k, learner in enumerate(learners) if learner.critic is not learner.theta]
        stack = self.backbone.stack([*thetas, *(learners[k].critic for k in own)], requires_grad=True)
        critic_slot = {k: len(thetas) + j for j, k in enumerate(own)}
        needs = frozenset[str]().union(*(request.objective.needs for request in requests))
        outputs: list[list[PolicyOutput]] = [[] for _ in requests]
        losses = [0.0] * len(requests)
        with self.backbone.held_weights():
            for chunk in micro_batches([request.tokens for request in requests], self.settings.micro_batch_tokens):
                out = self._forward(stack, requests, chunk, value="value" in needs, entropy="entropy" in needs)
                critic_chunk = {k: rows for k, rows in chunk.items() if k in critic_slot}
                if critic_chunk:
                    critic = self._forward(stack, requests, critic_chunk, value=True, slots=critic_slot)
                    out |= {k: PolicyOutput(out[k].logp_BT, critic[k].value_BT, out[k].entropy_BT) for k in critic}
                parts = {
                    k: requests[k].objective.loss(out[k], _narrow(requests[k].batch, chunk[k], out[k])) for k in out
                }
                stages.enter("backward")
                torch.stack(list(parts.values())).sum().backward()
                stages.enter("forward")
                for k, part in parts.items():
                    losses[k] += float(part.detach())
                    outputs[k].append(out[k].detach())
        stages.enter("optimizer")
        gradients = stack.grads()
        return [
            self._step(request, losses[k], [gradients[k], *gradients[critic_slot.get(k, len(gradients)) :][:1]], part)
            for k, (request, part) in enumerate(zip(requests, outputs, strict=True))
        ]

    def _step(
        self, request: UpdateRequest, loss: float, gradients: list[Tensor], outputs: list[PolicyOutput]
    ) -> Updated | NotFinite:
        fields = [[getattr(out, name) for out in outputs] for name in ("logp_BT", "value_BT", "entropy_BT")]
        policy = PolicyOutput(
            *(None if parts[0] is None else _whole(parts, request.tokens.mask_NT) for parts in fields)
        )
        try:
            return Updated(policy, request.learner.step(gradients, loss))
        except NotFinite as error:
            return error

    def _forward(
        self,
        stack: Any,
        requests: Sequence[ScoreRequest | UpdateRequest],
        chunk: dict[int, Tensor],
        slots: Mapping[int, int] | None = None,
        **want: bool,
    ) -> dict[int, PolicyOutput]:
        """One forward pass over the chosen rows of several requests; request k uses slot `slots[k]`, by default k."""
        parts = {k: requests[k].tokens.rows(rows) for k, rows in chunk.items()}
        tokens = Tokens.cat(list(parts.values()))
        counts = torch.tensor([len(part) for part in parts.values()])
        slot_B = torch.tensor([slots[k] if slots else k for k in parts]).repeat_interleave(counts)
        temperature_B = torch.tensor([requests[k].temperature for k in parts]).repeat_interleave(counts)
        device = self.backbone.device
        out = policy_forward(
            self.backbone,
            stack,
            None if stack is None else slot_B,
            tokens.prompts,
            tokens.response_NT,
            tokens.mask_NT,
            temperature=temperature_B.to(device),
            **want,
        )
        columns = [
            [None] * len(parts) if x is None else x.split(counts.tolist())
            for x in (out.logp_BT, out.value_BT, out.entropy_BT)
        ]
        widths = [part.mask_NT.shape[1] for part in parts.values()]
        rows = zip(widths, *columns, strict=True)  # each request is cut back to its own width
        outputs = [PolicyOutput(*(None if x is None else x[:, :width] for x in row)) for width, *row in rows]
        return dict(zip(parts, outputs, strict=True))


def _place(request: SampleRequest, distinct: list[SampleRequest]) -> int:
    """Where a request stands among the distinct ones; one that equals none of them is put at their end."""
    bare = replace(request, theta=None)
    for place, other in enumerate(distinct):
        if request.theta is other.theta and bare == replace(other, theta=None):
            return place
    distinct.append(request)
    return len(distinct) - 1


def micro_batches(tokens: Sequence[Tokens], budget: int) -> Iterator[dict[int, Tensor]]:
    """Cut the rows of several requests into passes of about `budget` tokens; every pass has a share of each request.

    Yields request index -> row indices, so that the runs of a pass have about as many rows each. A request may be empty
    (a step may keep no prompt); if all are, there is no pass.
    """
    size = sum(part.size for part in tokens)
    longest = max(len(part) for part in tokens)
    passes = min(max(-(-size // budget), 1), max(longest, 1))
    shares = [torch.arange(len(part)).tensor_split(passes) for part in tokens]
    for j in range(passes if longest else 0):
        yield {k: share[j] for k, share in enumerate(shares) if len(share[j])}


def _narrow(batch: Any, rows: Tensor, out: PolicyOutput) -> Any:
    """The rows of a batch, cut to the width of what was computed for them (beyond it is padding)."""
    return batch.rows((rows, slice(0, out.logp_BT.shape[1])))


def _whole(parts: Sequence[Tensor], mask_NT: Tensor) -> Tensor:
    """Put the rows of all passes below each other, padded to the mask's width; there may be no row at all."""
    return cat_padded([*parts, torch.zeros_like(mask_NT[:0], dtype=torch.float32)])
