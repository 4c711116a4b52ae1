"""A fleet: many runs on one backbone, in one process. Whatever the runs are waiting for is computed together.
(Several processes with a fleet each: `rlzoo.engine.forked`.)

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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from objectives import PolicyOutput, TokenBatch
from rlzoo.config.engine import EngineSettings
from rlzoo.engine.micro_batches import Pass, passes, passes_together
from rlzoo.engine.optimizer import NotFinite
from rlzoo.engine.protocol import Call, Engine, Kind, Scored, ScoreRequest, Updated, UpdateRequest
from rlzoo.engine.sampler import SampleRequest, Samples, sample
from rlzoo.engine.tokens import Tokens
from rlzoo.model import profiler
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward

Job = Callable[[Engine], Coroutine[Any, Any, Any]]
ORDER: tuple[Kind, ...] = ("score", "update", "sample")


class Fleet:
    """Drives runs to their ends."""

    def __init__(self, backbone: Backbone, settings: EngineSettings | None = None) -> None:
        self.backbone = backbone
        self.settings = settings or EngineSettings()
        backbone.use_fast_path(self.settings.fast_path)

    def run(self, jobs: Mapping[str, Job], each_turn: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Run all jobs to their ends and return what each returned. An error that a job lets out ends them all.

        Args:
            each_turn: called before each piece of work that is done for jobs; an error that it lets out ends them too.
        """
        coroutines = {name: job(Engine()) for name, job in jobs.items()}
        with self.backbone.working():
            try:
                results = self._drive(coroutines, each_turn)
            finally:
                for coroutine in coroutines.values():
                    coroutine.close()
        return {name: results[name] for name in jobs}

    def _drive(
        self, coroutines: Mapping[str, Coroutine[Any, Any, Any]], each_turn: Callable[[], None]
    ) -> dict[str, Any]:
        answers: dict[str, Any] = dict.fromkeys(coroutines)
        waiting: dict[str, Call[Any]] = {}
        results: dict[str, Any] = {}
        while True:
            profiler.enter("rest")
            for name, answer in answers.items():
                try:
                    resume = coroutines[name].throw if isinstance(answer, NotFinite) else coroutines[name].send
                    waiting[name] = resume(answer)
                except StopIteration as stop:
                    results[name] = stop.value
            if not waiting:
                return results
            each_turn()
            kind = next(kind for kind in ORDER if any(call.kind == kind for call in waiting.values()))
            due = {name: waiting.pop(name) for name in list(waiting) if waiting[name].kind == kind}
            answers = dict(zip(due, self._answer(kind, list(due.values())), strict=True))

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
        samples = sample(self.backbone, distinct, self.settings.sample_rows)
        sizes = [int(answer.mask_NT.sum()) for answer in samples]
        answers = [[samples[i] for i in mine] for mine in places]
        whole = [answer if isinstance(call, list) else answer[0] for call, answer in zip(calls, answers, strict=True)]
        return whole, [sum(sizes[i] for i in mine) for mine in places]

    @torch.no_grad()
    def _score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Score the rows of each request; reference rows, which need no adapter, go in passes that all share."""
        profiler.enter("score")
        answers: dict[int, Scored] = {}
        for adapted in (False, True):
            mine = [i for i, request in enumerate(requests) if (request.theta is not None) is adapted]
            if not mine:
                continue
            chosen = [requests[i] for i in mine]
            value, entropy = any(request.value for request in chosen), any(request.entropy for request in chosen)
            outputs = [Gathered(request.tokens.learn_NT) for request in chosen]
            for chunk in self._passes([request.tokens for request in chosen], together=not adapted):
                thetas = [theta for k in chunk if (theta := chosen[k].theta) is not None]
                stack = self.backbone.stack(thetas) if adapted else None
                for k, out in self._forward(stack, chosen, chunk, value=value, entropy=entropy).items():
                    outputs[k].put(chunk[k], out)
            for i, request, whole in zip(mine, chosen, outputs, strict=True):
                wanted = {"value_BT": request.value, "entropy_BT": request.entropy}
                more = (whole.column(name) if asked else None for name, asked in wanted.items())
                answers[i] = Scored(whole.column("logp_BT"), *more)
        return [answers[i] for i in range(len(requests))]

    def _update(self, requests: list[UpdateRequest]) -> list[Updated | NotFinite]:
        """Make one optimizer step of each request's run; all runs share each forward and backward pass."""
        profiler.enter("forward")
        requests = [_only_what_is_learned_from(request) for request in requests]
        losses = [0.0] * len(requests)
        gradients: list[list[Tensor]] = [[] for _ in requests]
        outputs = [Gathered(request.tokens.learn_NT) for request in requests]
        for chunk in self._passes([request.tokens for request in requests]):
            for k, part in self._learn(requests, chunk).items():
                losses[k] += part.loss
                more = part.gradients
                gradients[k] = [a + b for a, b in zip(gradients[k], more, strict=True)] if gradients[k] else more
                outputs[k].put(chunk[k], part.policy)
        profiler.enter("optimizer")
        return [_step(*of_one) for of_one in zip(requests, losses, gradients, outputs, strict=True)]

    def _learn(self, requests: Sequence[UpdateRequest], chunk: Pass) -> dict[int, _Learned]:
        """One forward and backward pass. The next begins when this has returned: no graph is there beside another."""
        profiler.enter("forward")
        needs = frozenset[str]().union(*(request.objective.needs for request in requests))
        learners = {k: requests[k].learner for k in chunk}
        own = {k: rows for k, rows in chunk.items() if learners[k].critic is not learners[k].theta}
        policies = self.backbone.stack([learner.theta for learner in learners.values()], requires_grad=True)
        out = self._forward(policies, requests, chunk, value="value" in needs, entropy="entropy" in needs)
        trained = [(policies, chunk)]
        if own:
            critics = self.backbone.stack([learners[k].critic for k in own], requires_grad=True)
            critic = self._forward(critics, requests, own, value=True)
            out |= {k: PolicyOutput(out[k].logp_BT, critic[k].value_BT, out[k].entropy_BT) for k in own}
            trained.append((critics, own))
        losses = {k: requests[k].objective.loss(out[k], _narrow(requests[k], chunk[k], out[k])) for k in chunk}
        profiler.enter("backward")
        torch.stack(list(losses.values())).sum().backward()
        learned = {k: _Learned(float(losses[k].detach()), [], out[k].detach()) for k in chunk}
        for stack, runs in trained:
            for k, gradient in zip(runs, stack.grads(), strict=True):
                learned[k].gradients.append(gradient)
        return learned

    def _passes(self, tokens: Sequence[Tokens], together: bool = False) -> Iterator[Pass]:
        cut = passes_together if together else passes
        return cut(tokens, self.settings.micro_batch_tokens, self.backbone.packs)

    def _forward(
        self,
        stack: Any,
        requests: Sequence[ScoreRequest | UpdateRequest],
        chunk: Pass,
        **want: bool,
    ) -> dict[int, PolicyOutput]:
        """One forward pass over the chosen rows of several requests; the stack has an adapter for each, in order."""
        parts = {k: requests[k].tokens.rows(rows) for k, rows in chunk.items()}
        tokens = Tokens.cat(list(parts.values()))
        counts = torch.tensor([len(part) for part in parts.values()])
        slot_B = torch.arange(len(parts)).repeat_interleave(counts)
        temperature_B = torch.tensor([requests[k].temperature for k in parts]).repeat_interleave(counts)
        out = policy_forward(
            self.backbone,
            stack,
            None if stack is None else slot_B,
            tokens.prompts,
            tokens.group_N,
            tokens.token_NT,
            tokens.exists_NT,
            tokens.learn_NT,
            temperature=temperature_B.to(self.backbone.device),
            **want,
        )
        columns = [
            [None] * len(parts) if x is None else x.split(counts.tolist())
            for x in (out.logp_BT, out.value_BT, out.entropy_BT)
        ]
        widths = [part.token_NT.shape[1] for part in parts.values()]
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


class Gathered:
    """Outputs [B, T] of a request, put together from its passes; 0 where no pass has been."""

    def __init__(self, mask_BT: Tensor) -> None:
        self.mask_BT = mask_BT
        self._columns: dict[str, Tensor] = {}

    def put(self, rows: Tensor, part: PolicyOutput) -> None:
        """Take over what a pass said of some rows."""
        for name, x in vars(part).items():
            if x is not None:
                whole = self._columns.setdefault(name, x.new_zeros(self.mask_BT.shape))
                whole[rows.to(x.device), : x.shape[1]] = x

    def column(self, name: str) -> Tensor:
        """One output [B, T]; zeros if there was no pass."""
        return self._columns.get(name, torch.zeros(self.mask_BT.shape, device=self.mask_BT.device))

    def policy(self) -> PolicyOutput:
        """All of them."""
        return PolicyOutput(self.column("logp_BT"), self._columns.get("value_BT"), self._columns.get("entropy_BT"))


@dataclass(frozen=True)
class _Learned:
    """What one request has of one pass.

    Attributes:
        loss: over its rows of the pass.
        gradients: of what its learner trains.
        policy: what the policy said of the rows, detached.
    """

    loss: float
    gradients: list[Tensor]
    policy: PolicyOutput


def _only_what_is_learned_from(request: UpdateRequest) -> UpdateRequest:
    """The request without the rows whose gradient is zero whatever the policy says; their weights stay as they were."""
    rows = request.objective.learns_from(request.batch).nonzero().flatten()
    if len(rows) == len(request.tokens):
        return request
    return replace(request, tokens=request.tokens.rows(rows, trim=False), batch=request.batch.rows(rows))


def _step(request: UpdateRequest, loss: float, gradients: list[Tensor], outputs: Gathered) -> Updated | NotFinite:
    learner = request.learner
    gradients = gradients or [torch.zeros_like(theta) for theta in learner.parameters]  # there was no pass
    try:
        return Updated(outputs.policy(), request.batch, learner.step(gradients, loss))
    except NotFinite as error:
        return error


def _narrow(request: UpdateRequest, rows: Tensor, out: PolicyOutput) -> TokenBatch:
    """The rows of a request's batch, cut to the width of what was computed for them (beyond it is padding)."""
    batch = request.batch.rows((rows, slice(0, out.logp_BT.shape[1])))
    return replace(batch, old_logp_BT=out.logp_BT.detach()) if request.starts_here else batch
