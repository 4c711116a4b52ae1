"""The local engine: many runs on one backbone, in one process. Requests that wait at the same time share a batch.
(Several processes with an engine each: `rlzoo.engine.forked`.)

    gradient of sum_k loss_k(theta_k)  =  the gradients of the K separate runs

because every loss is a plain sum and rows of different runs do not interact. A run gives the same results in a fleet as
alone, to float tolerance; a single run is a fleet of one. `rlzoo.engine.batcher` decides what is computed when.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from objectives import Objective
from rlzoo.config.engine import EngineSettings
from rlzoo.engine.batcher import Batcher, Kind
from rlzoo.engine.batches import Gathered, LearnedPart, Learning, PassOutput, Scoring
from rlzoo.engine.memory import affordable_tokens, free_bytes, halving
from rlzoo.engine.micro_batches import Pass, halves, passes, passes_together
from rlzoo.engine.optimizer import Trainable
from rlzoo.engine.protocol import (
    BASE,
    EngineInfo,
    Learned,
    LearnRequest,
    NotFinite,
    PolicyRef,
    RunSpec,
    SampleRequest,
    Samples,
    Scored,
    ScoreRequest,
    StalePolicy,
    Stepped,
    StepSettings,
)
from rlzoo.engine.sampler import check_request, sample
from rlzoo.engine.samplers import Sampler, open_sampler
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.model import profiler
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward


@asynccontextmanager
async def opened(backbone: Backbone, settings: EngineSettings) -> AsyncIterator[LocalEngine]:
    """Within: an engine on the backbone, in the event loop of this thread. See `open_sampler` for its errors."""
    with open_sampler(backbone, settings) as sampler, backbone.working():
        yield LocalEngine(backbone, settings, sampler)


def info_of(backbone: Backbone, settings: EngineSettings) -> EngineInfo:
    """What an engine on the backbone computes with, and promises."""
    local = settings.sampler == "local"
    return EngineInfo(
        model=backbone.config.model,
        dtype=str(backbone.dtype).removeprefix("torch."),
        device=str(backbone.device),
        context_length=settings.context_length(backbone.context_length),
        vocab_size=backbone.vocab_size,
        pad_id=backbone.pad_id,
        end_ids=tuple(backbone.end_ids),
        adapter_parameters=backbone.layout.size,
        shared_noise=True,
        repeats=local and backbone.dtype == torch.float32 and backbone.device.type == "cpu",
        sampler=settings.sampler,
    )


class LocalEngine:
    """Implements `rlzoo.engine.protocol.Engine` on a backbone in this process."""

    def __init__(
        self, backbone: Backbone, settings: EngineSettings | None = None, sampler: Sampler | None = None
    ) -> None:
        self.backbone, self.sampler = backbone, sampler
        self.settings = settings or EngineSettings()
        backbone.use_fast_path(self.settings.fast_path)
        backbone.use_checkpoints(self.settings.gradient_checkpointing)
        self.runs: dict[str, Trainable] = {}
        self._batcher = Batcher(self._compute)

    async def create(self, spec: RunSpec) -> PolicyRef:
        """See `Engine.create`."""
        if spec.run in self.runs or not spec.run:
            raise UserError(f"a run needs a name of its own, and {spec.run!r} is taken")
        self.runs[spec.run] = Trainable(self.backbone, spec)
        if spec.steady:
            self._batcher.hold_for(spec.run)
        return self.runs[spec.run].policy

    async def release(self, run: str) -> None:
        """See `Engine.release`."""
        self.runs.pop(run, None)
        self._batcher.forget(run)
        if self.sampler is not None:
            self.sampler.forget(run)

    async def save(self, run: str, folder: str, optimizer: bool = True) -> None:
        """See `Engine.save`."""
        self._held(run).save(Path(folder), optimizer)

    async def meet(self, run: str) -> None:
        """See `Engine.meet`."""
        self._held(run)
        await self._batcher.ask("meet", run, None)

    async def load(self, run: str, folder: str) -> PolicyRef:
        """See `Engine.load`."""
        held = self._held(run)
        held.load(Path(folder))
        if self.sampler is not None:
            self.sampler.forget(run)
        return held.policy

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return info_of(self.backbone, self.settings)

    async def sample(self, request: SampleRequest) -> Samples:
        """See `Engine.sample`."""
        check_request(request, self.settings.context_length(self.backbone.context_length))
        request = replace(request, policy=self._known(request.policy))
        return await self._batcher.ask("sample", request.run, request)

    async def score(self, request: ScoreRequest) -> Scored:
        """See `Engine.score`."""
        # Version 0 has the values of a fresh critic, which the base model has not.
        policy = request.policy if "value" in request.want else self._known(request.policy)
        if policy == BASE and "value" in request.want:
            raise UserError("values of the base model were asked for: it has no critic")
        self._known(policy)
        return await self._batcher.ask("score", request.run, replace(request, policy=policy))

    async def forward_backward(self, request: LearnRequest) -> Learned:
        """See `Engine.forward_backward`."""
        self._held(request.run)
        objective = Objective.model_validate(request.objective)
        return await self._batcher.ask("learn", request.run, Learning.of(request, objective))

    async def optim_step(self, run: str, settings: StepSettings) -> Stepped:
        """See `Engine.optim_step`."""
        self._held(run)
        return await self._batcher.ask("step", run, (run, settings))

    def _held(self, run: str) -> Trainable:
        if run not in self.runs:
            raise UserError(f"there is no run {run!r}: create it first; there are {', '.join(self.runs) or 'none'}")
        return self.runs[run]

    def _known(self, policy: PolicyRef) -> PolicyRef:
        """Check a policy, and rename version 0 to the base model, so that equal requests are sampled once."""
        if policy == BASE:
            return BASE
        now = self._held(policy.run).policy
        if policy != now:
            raise StalePolicy(f"{policy.run!r} is at version {now.version}; version {policy.version} was asked for")
        return policy if policy.version else BASE

    def _compute(self, kind: Kind, requests: list[Any]) -> Sequence[Any]:
        """Answer requests of one kind; each is charged its share of the time, by tokens."""
        self._synchronize()
        start = time.perf_counter()
        try:
            if kind == "sample":
                answers = self._sample(requests)
                sizes = [int(answer.mask_NT.sum()) for answer in answers]
            elif kind == "step":
                answers, sizes = [self._step(*request) for request in requests], [1] * len(requests)
            else:
                answers = self._score(requests) if kind == "score" else self._learn(requests)
                sizes = [request.tokens.size for request in requests]
        finally:
            profiler.enter("rest")
        self._synchronize()
        elapsed, total = time.perf_counter() - start, max(sum(sizes), 1)
        return [
            answer if isinstance(answer, Exception) else replace(answer, seconds=elapsed * size / total)
            for answer, size in zip(answers, sizes, strict=True)
        ]

    def _synchronize(self) -> None:
        """Wait for the device: what it still computes belongs to the batch that asked for it."""
        wait = getattr(torch.get_device_module(self.backbone.device), "synchronize", None)
        if wait is not None:
            wait()

    def _sample(self, requests: list[SampleRequest]) -> list[Samples]:
        """Sample; equal requests of different runs are sampled once."""
        asked = [replace(request, run="") for request in requests]
        distinct = [request for i, request in enumerate(asked) if request not in asked[:i]]
        thetas = {p: self.runs[p.run].theta for request in distinct if (p := request.policy) != BASE}
        if self.sampler is None:
            samples = sample(self.backbone, distinct, self.settings.sample_rows, thetas)
        else:
            samples = self.sampler.sample(distinct, thetas)
        return [samples[distinct.index(request)] for request in asked]

    @torch.no_grad()
    def _score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Score the rows of each request; reference rows, which need no adapter, go in passes that all share."""
        profiler.enter("score")
        found: list[dict[str, Tensor]] = [{} for _ in requests]
        adapted = [part for i, request in enumerate(requests) for part in self._adapters(i, request)]
        bare = [Scoring(i, request, None, request.want) for i, request in enumerate(requests) if request.policy == BASE]
        for parts in filter(None, (bare, adapted)):
            chosen = [part.request for part in parts]
            want = frozenset[str]().union(*(part.want for part in parts))
            outputs = [Gathered(request.tokens.learn_NT) for request in chosen]

            def score(chunk: Pass, parts: Any = parts, chosen: Any = chosen, want: Any = want) -> Any:
                stack = None if parts is bare else self.backbone.stack([parts[k].theta for k in chunk])
                extras = {name: name in want for name in ("value", "entropy", "collision")}
                return self._forward(stack, chosen, chunk, **extras)

            cut = self._passes([request.tokens for request in chosen], together=parts is bare)
            for chunk, out in halving(cut, score, halves):
                for k, of_one in out.items():
                    outputs[k].put(chunk[k], of_one)
            for part, whole in zip(parts, outputs, strict=True):
                found[part.index] |= {name: whole.column(f"{name}_BT") for name in part.want}
        return [Scored(*(of_one.get(name) for name in ("logp", "value", "entropy", "collision"))) for of_one in found]

    def _adapters(self, index: int, request: ScoreRequest) -> Iterator[Scoring]:
        """The adapters that a request is scored with: one, or the policy's and then the critic's own."""
        if request.policy == BASE:
            return
        run = self.runs[request.policy.run]
        own_critic = run.critic is not run.theta and "value" in request.want
        of_policy = request.want - {"value"} if own_critic else request.want
        if of_policy:
            yield Scoring(index, request, run.theta, of_policy)
        if own_critic:
            yield Scoring(index, request, run.critic, frozenset({"value"}))

    def _learn(self, requests: list[Learning]) -> list[Learned]:
        """Add to the gradient of each request's run; all runs share each forward and backward pass."""
        profiler.enter("forward")
        losses = [0.0] * len(requests)
        gradients: list[list[Tensor] | None] = [None] * len(requests)
        outputs = [Gathered(request.tokens.learn_NT) for request in requests]
        graphs = 2 if any(self.runs[r.run].critic is not self.runs[r.run].theta for r in requests) else 1
        free = free_bytes(self.backbone.device)
        fits = affordable_tokens(self.backbone, free, self.settings.gradient_checkpointing, graphs)
        cut = self._passes([request.tokens for request in requests], most=fits)
        for chunk, learned in halving(cut, lambda chunk: self._learn_pass(requests, chunk), halves):
            for k, part in learned.items():
                losses[k] += part.loss
                known, more = gradients[k], part.gradients
                gradients[k] = more if known is None else [a + b for a, b in zip(known, more, strict=True)]
                outputs[k].put(chunk[k], part.policy)
        for request, gradient, loss in zip(requests, gradients, losses, strict=True):
            self.runs[request.run].add(gradient, loss)
        return [
            Learned(request.rows, output.policy(), loss)
            for request, output, loss in zip(requests, outputs, losses, strict=True)
        ]

    def _learn_pass(self, requests: Sequence[Learning], chunk: Pass) -> dict[int, LearnedPart]:
        """One forward and backward pass. The next begins when this has returned: no graph is there beside another."""
        profiler.enter("forward")
        needs = frozenset[str]().union(*(request.objective.needs for request in requests))
        runs = {k: self.runs[requests[k].run] for k in chunk}
        own = {k: rows for k, rows in chunk.items() if runs[k].critic is not runs[k].theta}
        policies = self.backbone.stack([run.theta for run in runs.values()], requires_grad=True)
        out = self._forward(policies, requests, chunk, value="value" in needs, entropy="entropy" in needs)
        trained = [(policies, chunk)]
        if own:
            critics = self.backbone.stack([runs[k].critic for k in own], requires_grad=True)
            critic = self._forward(critics, requests, own, value=True)
            out |= {k: PassOutput(out[k].logp_BT, critic[k].value_BT, out[k].entropy_BT) for k in own}
            trained.append((critics, own))
        losses = {k: requests[k].objective.loss(out[k], requests[k].narrow(chunk[k], out[k])) for k in chunk}
        profiler.enter("backward")
        torch.stack(list(losses.values())).sum().backward()
        learned = {k: LearnedPart(float(losses[k].detach()), [], out[k].detach()) for k in chunk}
        for stack, those in trained:
            for k, gradient in zip(those, stack.grads(), strict=True):
                learned[k].gradients.append(gradient)
        return learned

    def _step(self, run: str, settings: StepSettings) -> Stepped | Exception:
        profiler.enter("optimizer")
        try:
            norm = self.runs[run].step(settings)
        except (NotFinite, UserError) as error:
            return error
        return Stepped(norm, self.runs[run].policy)

    def _passes(self, tokens: Sequence[Tokens], together: bool = False, most: int = 1 << 30) -> Iterator[Pass]:
        """Cut rows into passes of at most `engine.micro_batch_tokens` tokens, and at most `most`."""
        cut = passes_together if together else passes
        return cut(tokens, min(self.settings.micro_batch_tokens, most), self.backbone.packs)

    def _forward(
        self,
        stack: Any,
        requests: Sequence[ScoreRequest | Learning],
        chunk: Pass,
        **want: bool,
    ) -> dict[int, PassOutput]:
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
            for x in (out.logp_BT, out.value_BT, out.entropy_BT, out.collision_BT)
        ]
        widths = [part.token_NT.shape[1] for part in parts.values()]
        rows = zip(widths, *columns, strict=True)  # each request is cut back to its own width
        outputs = [PassOutput(*(None if x is None else x[:, :width] for x in row)) for width, *row in rows]
        return dict(zip(parts, outputs, strict=True))
