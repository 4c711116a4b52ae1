"""A new engine needs no other change: one of seventy lines, which implements only the protocol, trains whole runs.

Its model has one parameter per token of a small vocabulary: pi(token) = softmax(theta / temperature), whatever stands
before the token. So no model of rlzoo, no batcher and no optimizer of rlzoo takes part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives import Objective, PolicyOutput
from rlzoo import noise
from rlzoo.config.run import RunConfig
from rlzoo.engine.driver import drive, together
from rlzoo.engine.protocol import (
    BASE,
    Engine,
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
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.loop import run_to_end
from rlzoo.training.rollout import draw
from rlzoo.training.run import Run
from tests.runs import EvenTask

VOCABULARY = "\0abcdefgh="
"""Token 0 pads, 1 ("a") ends. Right by `EvenTask` are b, d, f and h: half of the letters."""
MakeConfig = Callable[..., RunConfig]


class Letters:
    """The codec: a token per letter; other characters of a prompt are `=`."""

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        assert isinstance(prompt, str)
        return [max(VOCABULARY.find(letter), 9) for letter in prompt]

    def decode(self, ids: list[int] | Tensor) -> str:
        return "".join(VOCABULARY[int(i)] for i in ids if int(i) > 1)

    encode_continuation = encode_response = encode


class Unigram:
    """The engine: theta [V] per run, plain gradient ascent. Seventy lines with all that the protocol asks for."""

    def __init__(self) -> None:
        self.theta: dict[str, Tensor] = {"": torch.zeros(10)}
        self.version = {"": 0}

    def _logp(self, policy: PolicyRef, temperature: float) -> Tensor:
        if self.version.get(policy.run) != policy.version:
            raise StalePolicy(f"no {policy}")
        forbid = torch.tensor([-1e9] + [0.0] * 8 + [-1e9])  # neither padding nor `=`
        return ((self.theta[policy.run] + forbid) / temperature).log_softmax(0)

    async def create(self, spec: RunSpec) -> PolicyRef:
        self.theta[spec.run], self.version[spec.run] = torch.zeros(10, requires_grad=True), 0
        return PolicyRef(spec.run)

    async def sample(self, request: SampleRequest) -> Samples:
        logp_V = self._logp(request.policy, request.temperature).detach()
        key_P = torch.tensor(list(request.prompt_keys))
        sample_G, place_T = torch.arange(request.group_size), torch.arange(request.max_new_tokens)
        u_NT = noise.uniform(
            request.seed, "unigram", request.step, key_P[:, None, None], sample_G[:, None], place_T
        ).flatten(0, 1)
        token_NT = torch.searchsorted(logp_V.exp().cumsum(0), u_NT.float().contiguous()).clamp(1, 8)
        if request.greedy:
            token_NT = logp_V.argmax().expand_as(token_NT)
        ended_NT = (token_NT == 1).cumsum(1)
        mask_NT = (ended_NT - (token_NT == 1).long()) == 0  # up to the first end token, which counts
        return Samples(token_NT * mask_NT, mask_NT, logp_V[token_NT] * mask_NT, ended_NT[:, -1] > 0, seconds=0.5)

    async def score(self, request: ScoreRequest) -> Scored:
        logp_V = self._logp(request.policy, request.temperature).detach()
        learn_NT = request.tokens.learn_NT
        entropy = -(logp_V.exp() * logp_V).sum()
        return Scored(logp_V[request.tokens.token_NT] * learn_NT, None, entropy * learn_NT)

    async def forward_backward(self, request: LearnRequest) -> Learned:
        logp_V = self._logp(PolicyRef(request.run, self.version[request.run]), request.temperature)
        policy, batch = PolicyOutput(logp_V[request.tokens.token_NT] * request.tokens.learn_NT), request.batch
        if request.starts_here:
            batch = replace(batch, old_logp_BT=policy.logp_BT.detach())
        loss = Objective.model_validate(request.objective).loss(policy, batch)
        loss.backward()
        return Learned(torch.arange(len(request.tokens)), policy.detach(), loss.item())

    async def optim_step(self, run: str, settings: StepSettings) -> Stepped:
        theta, gradient = self.theta[run], self.theta[run].grad
        assert gradient is not None
        theta.grad = None
        if not gradient.isfinite().all():
            raise NotFinite("the gradient is not finite")
        theta.data -= settings.lr * gradient
        self.version[run] += 1
        return Stepped(float(gradient.norm()), PolicyRef(run, self.version[run]))

    async def save(self, run: str, folder: str, optimizer: bool = True) -> None:
        (Path(folder) / "adapter").mkdir(exist_ok=True)
        torch.save((self.theta[run].detach(), self.version[run]), Path(folder) / "adapter" / "theta.pt")

    async def load(self, run: str, folder: str) -> PolicyRef:
        theta, self.version[run] = torch.load(Path(folder) / "adapter" / "theta.pt")
        self.theta[run] = theta.requires_grad_()
        return PolicyRef(run, self.version[run])

    async def meet(self, run: str) -> None:
        """At once: it computes every request by itself, so it does not matter who else is saved at this moment."""

    async def release(self, run: str) -> None:
        self.theta.pop(run, None)

    async def info(self) -> EngineInfo:
        return EngineInfo("unigram", "float32", "cpu", None, 10, 0, (1,), 10, shared_noise=True, repeats=True)


def train_there(configs: dict[str, RunConfig], root: Path, task: EvenTask) -> dict[str, Any]:
    """Train runs on one such engine, as `rlzoo.training.launch` does on ours; folders that are there go on."""
    engine: Engine = Unigram()
    runs = {name: Run.create(config, root / name, True, name, None) for name, config in configs.items()}
    for run in runs.values():
        run.restore()
    return drive(together({name: run_to_end(run, engine, Letters(), task) for name, run in runs.items()}))


@pytest.mark.parametrize("row", ["reinforce", "dapo", "grpo"])
def test_an_engine_of_seventy_lines_trains_runs(row: str, make_config: MakeConfig, tmp_path: Path) -> None:
    """From half right to better, with all that a run of ours records."""
    sizes = {"steps": 12, "prompts_per_step": 8}
    config = make_config(row, train=sizes, optimizer={"lr": 2.0}, evaluation={"every": 4})
    summary = train_there({"run": config}, tmp_path, EvenTask("even"))["run"]
    assert (summary["state"], summary["step"], summary["updates"]) == ("done", 12, 24)
    assert summary["after"]["accuracy"] > summary["before"]["accuracy"] + 0.15
    assert summary["engine_s"] >= 12 * 0.5  # what the engine says a request took
    records = RunFolder.open(tmp_path / "run").read_metrics()
    assert [r["step"] for r in records if r["kind"] == "eval"] == [0, 4, 8, 12]
    gaps = [r["sampler_gap"] for r in records if r["kind"] == "train"]
    assert max(gap for gap in gaps if gap is not None) < 1e-5  # it scores as it samples


def test_a_run_that_fails_there_ends_alone_and_goes_on(make_config: MakeConfig, tmp_path: Path) -> None:
    """The reward raises once, for one of two runs; the other is as alone, and the first goes on when resumed."""

    class Once(EvenTask):
        left = 1

        def score(self, problems: Any, completions: Any) -> Any:
            if self.left and bad in problems[0].prompt:
                self.left -= 1
                raise LookupError("no judge today")
            return super().score(problems, completions)

    configs = {"good": make_config("grpo", 0), "bad": make_config("grpo", 1)}
    task = Once("even")
    bad = draw(task, 1, 2, 0, 4)[0].prompt  # the first problem of seed 1's third step
    made = train_there(configs, tmp_path, task)
    assert made["good"]["state"] == "done"
    assert made["bad"]["failure"] == "step 2: grading raised LookupError: no judge today"
    again = train_there(configs, tmp_path, task)
    assert (again["bad"]["state"], again["bad"]["step"]) == ("done", 3)
    alone = train_there({"good": configs["good"], "bad": configs["bad"]}, tmp_path / "alone", EvenTask("even"))
    for name in configs:
        assert again[name]["after"] == alone[name]["after"]


def test_the_base_is_version_zero_of_every_run() -> None:
    engine = Unigram()

    async def job() -> list[Samples]:
        own = await engine.create(RunSpec("run"))
        return [await engine.sample(SampleRequest(policy, [[9]], 4, 3, 0, 0, [0])) for policy in (BASE, own)]

    base, own = drive(job())
    assert torch.equal(base.response_NT, own.response_NT) and torch.equal(base.logp_NT, own.logp_NT)
