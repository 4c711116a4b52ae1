"""The tinker engine: a client of a server that speaks the Tinker API. The model and its adapters are there.

    forward_backward(run, rows, objective):   the server's log-probs, then here  d_nt = d loss / d logp_nt
    optim_step(run):                          one linear loss  sum_nt d_nt logp_nt  on the server, then its Adam

This is the SDK's `forward_backward_custom`, cut in two between its passes. So any objective on log-probs runs, parts of
a step add up before anything is averaged, and a loss that is not finite never reaches the server. What the server
averages (`rlzoo.engine.tinker_probe`) is undone in d. The linear loss is the API's `importance_sampling` at ratio 1:
`cross_entropy` divides by its weights on some servers, and d has both signs.

Sampling has the server's own noise. Seeds are pure functions of the request, but no server promises what they do.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from objectives import Objective, PolicyOutput
from rlzoo import noise
from rlzoo.config.engine import EngineSettings
from rlzoo.engine.batches import Learning
from rlzoo.engine.protocol import (
    BASE,
    AdamSettings,
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
from rlzoo.engine.sampler import check_request
from rlzoo.engine.tinker_model import TinkerModel
from rlzoo.engine.tinker_probe import datum
from rlzoo.engine.tinker_rows import Rows
from rlzoo.engine.tinker_sampler import LARGEST_SEED, respond, scores
from rlzoo.engine.tinker_states import Kept
from rlzoo.errors import UserError

ADAPTER = "adapter"
KEPT = 2
"""States of a run that stay on the server, as many as a run folder has checkpoints."""


@asynccontextmanager
async def opened(model: TinkerModel, settings: EngineSettings) -> AsyncIterator[TinkerEngine]:
    """Within: an engine on the model; afterwards its adapters are unloaded from the server."""
    engine = TinkerEngine(model, settings.fleet)
    try:
        yield engine
    finally:
        for run in list(engine.runs):
            await engine.release(run)


@dataclass
class _Part:
    """Rows of a step that wait for it: their sequences, and per target the log-prob and the slope of the loss."""

    sequences: list[list[int]]
    logp: list[Tensor]
    slope: list[Tensor]
    loss: float


@dataclass
class _Run:
    spec: RunSpec
    client: Any
    version: int = 0
    parts: list[_Part] = field(default_factory=list)
    sampler: Any = None
    """Of the current version; None: not made yet."""
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    saved: list[str] = field(default_factory=list)
    """Paths of its states on the server, oldest first."""

    @property
    def policy(self) -> PolicyRef:
        return PolicyRef(self.spec.run, self.version)


class TinkerEngine:
    """Implements `rlzoo.engine.protocol.Engine` by requests to a server."""

    def __init__(self, model: TinkerModel, places: int | None = None) -> None:
        """`places`: number of steady runs that the server has room for; more of them wait in `create`."""
        self.model, self.server, self.types = model, model.server, model.server.types
        self.runs: dict[str, _Run] = {}
        self._queued: set[str] = set()
        self._places = asyncio.Semaphore(sys.maxsize if places is None else places)
        self._base: Any = None
        self._making = asyncio.Lock()
        self._meeting: dict[str, asyncio.Future[None]] = {}

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self.model.info()

    async def create(self, spec: RunSpec) -> PolicyRef:
        """See `Engine.create`. An adapter can only be one that this server keeps: its folder names it."""
        if spec.run in self.runs.keys() | self._queued or not spec.run:
            raise UserError(f"a run needs a name of its own, and {spec.run!r} is taken")
        if spec.critic != "head":
            raise UserError("a Tinker server trains no critic: train this run with engine.name = 'local'")
        if spec.optimizer is not None and not isinstance(spec.optimizer, AdamSettings):
            raise UserError("a Tinker server has AdamW only: set optimizer.kind = 'adamw'")
        kept = None
        if spec.adapter is not None:
            kept = Kept.read(Path(spec.adapter), self.model.config, f"no adapter in {spec.adapter}")
        self._queued.add(spec.run)
        try:
            if spec.steady:
                await self._places.acquire()
        finally:
            self._queued.remove(spec.run)
        run = self.runs[spec.run] = _Run(spec, None)
        try:
            asked = self.server.service.create_lora_training_client_async(
                self.model.config.model,
                rank=self.model.config.lora.r,
                seed=noise.derive(spec.seed, "adapter", "policy") % LARGEST_SEED,
                train_unembed=False,
            )
            run.client = await self.server.answer("creating an adapter (engine.fleet limits the runs at a time)", asked)
            if kept is not None:
                await self.server.ask("loading an adapter", run.client.load_state_async(kept.state))
                run.version = 1
        except BaseException:
            await self.release(spec.run)
            raise
        return run.policy

    async def release(self, run: str) -> None:
        """See `Engine.release`."""
        held = self.runs.pop(run, None)
        self._meet_if_all_wait()
        if held is None:
            return
        if held.client is not None:
            await self.server.unload(held.client.model_id)
        if held.spec.steady:
            self._places.release()

    async def meet(self, run: str) -> None:
        """See `Engine.meet`. The batches are the server's, so this has no effect on results."""
        self._held(run)
        waits = self._meeting[run] = asyncio.get_running_loop().create_future()
        self._meet_if_all_wait()
        await waits

    def _meet_if_all_wait(self) -> None:
        if all(name in self._meeting for name, run in self.runs.items() if run.spec.steady):
            for waits in self._meeting.values():
                if not waits.done():
                    waits.set_result(None)
            self._meeting.clear()

    async def sample(self, request: SampleRequest) -> Samples:
        """See `Engine.sample`."""
        check_request(request, self.model.context_length)
        self._check_temperature(request.temperature)
        sampler = await self._sampler(self._known(request.policy))
        return await respond(self.server, sampler, request, self.model.end_ids)

    async def score(self, request: ScoreRequest) -> Scored:
        """See `Engine.score`. The base's log-probs are the sampler's (`compute_logprobs`), a run's the trainer's."""
        if request.policy == BASE and "value" in request.want:
            raise UserError("values of the base model were asked for: it has no critic")
        if request.want - self.model.info().gives:
            raise UserError(
                f"a Tinker server gives log-probs, and no {' and no '.join(sorted(request.want - {'logp'}))}: "
                "train this run with engine.name = 'local'"
            )
        self._check_temperature(request.temperature)
        self._known(request.policy)
        started = time.monotonic()
        rows = Rows.of(request.tokens)
        if not rows.sequences:
            found = []
        elif request.policy == BASE:
            found = await scores(self.server, await self._sampler(BASE), rows)
        else:
            found = await self._logp(self._held(request.policy.run), rows)
        return Scored(rows.responses(found), seconds=time.monotonic() - started)

    async def _logp(self, run: _Run, rows: Rows) -> list[Tensor]:
        """Log-probs of every target under a run's policy."""
        data = [datum(self.server, tokens, weights=[0.0] * (len(tokens) - 1)) for tokens in rows.sequences]
        out = await self.server.ask("computing log-probs", run.client.forward_async(data, "cross_entropy"))
        return [torch.tensor(row["logprobs"].tolist(), dtype=torch.float32) for row in out.loss_fn_outputs]

    async def forward_backward(self, request: LearnRequest) -> Learned:
        """See `Engine.forward_backward`. The gradient reaches the server with the step."""
        run, started = self._held(request.run), time.monotonic()
        objective = Objective.model_validate(request.objective)
        if "value" in objective.needs or objective.entropy is not None:
            raise UserError(f"{objective.name} learns from values or entropies, and a Tinker server has log-probs only")
        self._check_temperature(request.temperature)
        part = Learning.of(request, objective)
        rows = Rows.of(part.tokens)
        found = await self._logp(run, rows) if rows.sequences else []
        logp_BT = rows.responses(found).requires_grad_()
        policy = PolicyOutput(logp_BT)
        batch = replace(part.batch, old_logp_BT=logp_BT.detach()) if request.starts_here else part.batch
        loss = objective.loss(policy, batch)
        (slope_BT,) = torch.autograd.grad(loss, logp_BT, materialize_grads=True)
        self._held(request.run).parts.append(_Part(rows.sequences, found, rows.targets(slope_BT), float(loss.detach())))
        return Learned(part.rows, policy.detach(), float(loss.detach()), time.monotonic() - started)

    async def optim_step(self, run: str, settings: StepSettings) -> Stepped:
        """See `Engine.optim_step`. The norm is nan if the server does not tell it."""
        held, started = self._held(run), time.monotonic()
        adam = held.spec.optimizer
        if not isinstance(adam, AdamSettings):
            raise UserError(f"{run!r} is a fixed policy: it has no optimizer and cannot be trained")
        if settings.trains == "critic":
            raise UserError("a Tinker server trains no critic: leave train.value_warmup_steps out")
        parts, held.parts = held.parts, []
        loss, slopes = sum(part.loss for part in parts), [slope for part in parts for slope in part.slope]
        if not math.isfinite(loss) or not all(bool(slope.isfinite().all()) for slope in slopes):
            norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
            raise NotFinite(f"loss {loss:g}, gradient norm {norm:g} (of the log-probs)")
        norm = math.nan
        if settings.trains == "all":
            if slopes:
                await self.server.ask("computing a gradient", held.client.forward_backward_async(*self._linear(parts)))
            params = self.types.AdamParams(
                learning_rate=settings.lr,
                beta1=adam.betas[0],
                beta2=adam.betas[1],
                eps=adam.eps,
                weight_decay=adam.weight_decay,
                grad_clip_norm=settings.max_grad_norm,
            )
            stepped = await self.server.ask("taking an optimizer step", held.client.optim_step_async(params))
            norm = _norm(stepped.metrics or {}, norm)
            if math.isinf(norm):
                raise UserError(f"a step of {run!r} had an infinite gradient on the server: go back with --resume")
            held.sampler = None
        held.version += 1
        return Stepped(norm, held.policy, time.monotonic() - started)

    def _linear(self, parts: Sequence[_Part]) -> tuple[list[Any], str]:
        """The step's linear loss: its gradient is that of the parts' losses at the present log-probs."""
        count = sum(len(part.sequences) for part in parts)
        data = []
        for part in parts:
            for tokens, logp, slope in zip(part.sequences, part.logp, part.slope, strict=True):
                advantage = -slope * self.model.conventions.undone(count, len(slope))
                data.append(datum(self.server, tokens, logprobs=logp.tolist(), advantages=advantage.tolist()))
        return data, "importance_sampling"

    async def save(self, run: str, folder: str, optimizer: bool = True) -> None:
        """See `Engine.save`. The state stays on the server and the folder names it; without the optimizer, as at the
        end of a run, the adapter is downloaded as well."""
        held = self._held(run)
        name = f"v{held.version}-{uuid.uuid4().hex[:12]}"
        state = (await self.server.ask("saving the state", held.client.save_state_async(name))).path
        place = Path(folder) / ADAPTER
        place.mkdir(exist_ok=True)
        if not optimizer:
            await self.server.ask("saving the adapter", held.client.save_weights_for_sampler_async(name))
            await self.server.download(held.client.model_id, name, place)
        kept = Kept(state, self.model.config.model, self.model.config.lora.r, held.version, self.server.url)
        kept.write(place)
        if optimizer:
            kept.write(Path(folder))
            held.saved.append(state)
            await self._forget(held)

    async def _forget(self, held: _Run) -> None:
        """Delete states of checkpoints that are no longer in the run's folder; a server may keep them all the same."""
        while len(held.saved) > KEPT:
            old = held.saved.pop(0)
            rest = self.server.service.create_rest_client()
            try:
                await self.server.answer("deleting a state", rest.delete_checkpoint_from_tinker_path_async(old))
            except UserError:
                return

    async def load(self, run: str, folder: str) -> PolicyRef:
        """See `Engine.load`."""
        held = self._held(run)
        kept = Kept.read(Path(folder), self.model.config, f"{folder} cannot be read")
        await self.server.ask("loading the state", held.client.load_state_with_optimizer_async(kept.state))
        held.version, held.parts, held.sampler, held.saved = kept.version, [], None, [kept.state]
        return held.policy

    async def _sampler(self, policy: PolicyRef) -> Any:
        """The client that samples a policy. Making one for a run transfers its weights to the server's sampler."""
        if policy == BASE:
            async with self._making:
                if self._base is None:
                    asked = self.server.service.create_sampling_client_async(base_model=self.model.config.model)
                    self._base = await self.server.answer("opening the base model", asked)
                return self._base
        run = self._held(policy.run)
        async with run.making:
            if run.sampler is None:
                asked = run.client.save_weights_and_get_sampling_client_async()
                run.sampler = await self.server.answer("handing the adapter to the sampler", asked)
            return run.sampler

    def _held(self, run: str) -> _Run:
        if run not in self.runs:
            raise UserError(f"there is no run {run!r}: create it first; there are {', '.join(self.runs) or 'none'}")
        return self.runs[run]

    def _known(self, policy: PolicyRef) -> PolicyRef:
        """Check a policy, and rename version 0 to the base model."""
        if policy == BASE:
            return BASE
        now = self._held(policy.run).policy
        if policy != now:
            raise StalePolicy(f"{policy.run!r} is at version {now.version}; version {policy.version} was asked for")
        return policy if policy.version else BASE

    def _check_temperature(self, temperature: float) -> None:
        if temperature != self.model.info().temperature:
            raise UserError(f"a Tinker server gives log-probs at temperature 1, and {temperature:g} was asked for")


def _norm(metrics: dict[str, Any], unknown: float) -> float:
    """The gradient's norm among a server's own metrics, whatever it prefixes the name with."""
    return next((float(x) for name, x in metrics.items() if name.endswith("grad_norm")), unknown)
