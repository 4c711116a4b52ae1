"""The tinker engine against a real server: its gradients are the local engine's, it learns, and it outlives the server.

Run with: make tinker-server, then pytest -n 0 -m tinker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from advantages import RolloutView
from objectives import Objective, TokenBatch, get
from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import RunConfig
from rlzoo.engine import load_model, open_engine
from rlzoo.engine.driver import drive
from rlzoo.engine.protocol import BASE, AdamSettings, Engine, LearnRequest, RunSpec, ScoreRequest, StepSettings
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train, train_fleet
from tests.engine import skyrl

pytestmark = skyrl.MARKS
DESCENT = AdamSettings(betas=(0.0, 0.0), eps=1e6)
"""Adam with these moves by lr / eps times the gradient: plain gradient descent."""
PLAIN = StepSettings(lr=1e6, max_grad_norm=1e9)
"""At this rate, by the gradient itself."""
FIRST = AdamSettings(eps=1e-3)


@pytest.fixture(scope="module")
def local() -> Backbone:
    """The server's model here."""
    return Backbone.load(skyrl.server().backbone().model_copy(update={"device": "cpu"}))


def two_groups() -> Tokens:
    """Four responses to each of two prompts, of 2 to 7 tokens."""
    lengths = torch.tensor([7, 3, 5, 2, 4, 6, 2, 3])
    exists_NT = torch.arange(7) < lengths[:, None]
    token_NT = (torch.arange(56).view(8, 7) * 7 % 90 + 5) * exists_NT
    return Tokens([[5, 6, 7], [8, 9]], torch.arange(2).repeat_interleave(4), token_NT, exists_NT, exists_NT)


def request_of(objective: Objective, run: str, old_logp_NT: Tensor, ref_logp_NT: Tensor | None = None) -> LearnRequest:
    """The update on both groups; one reward in four, and three in four. Ratios are far enough from 1 to be clipped."""
    tokens = two_groups()
    mask_NT = tokens.learn_NT
    reward_N = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 1])
    reward_NT = torch.zeros(mask_NT.shape).scatter(1, mask_NT.sum(1, keepdim=True) - 1, reward_N[:, None])
    view = RolloutView.of(
        reward_NT,
        mask_NT,
        tokens.group_N,
        max_length=8,
        accuracy_N=reward_N,
        finished_N=torch.ones(8, dtype=torch.bool),
    )
    credit = objective.credit(view.only(objective.needs))
    learn_NT = credit.mask(mask_NT)
    batch = TokenBatch(
        learn_NT,
        objective.weigh(learn_NT, tokens.group_N),
        credit.advantage_NT,
        old_logp_NT,
        ref_logp_NT,
        chosen_BT=objective.choose(old_logp_NT, credit.advantage_NT, learn_NT),
    )
    return LearnRequest(run, tokens, batch, objective.model_dump(mode="json"), 1.0)


async def step(
    engine: Engine, objective: Objective, adapter: Path, old_logp_NT: Tensor, out: Path
) -> tuple[float, ...]:
    """One step of gradient descent from a stored adapter; returns loss and gradient norm."""
    await engine.create(RunSpec(objective.name, optimizer=DESCENT, adapter=str(adapter)))
    reference = (await engine.score(ScoreRequest(BASE, two_groups(), 1.0))).logp_NT
    learned = await engine.forward_backward(request_of(objective, objective.name, old_logp_NT, reference))
    stepped = await engine.optim_step(objective.name, PLAIN)
    out.mkdir(parents=True)
    await engine.save(objective.name, str(out), optimizer=False)
    await engine.release(objective.name)
    return learned.loss, stepped.gradient_norm


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """An adapter that has moved from where it began, kept by the server and downloaded; and log-probs under it."""
    folder = tmp_path_factory.mktemp("adapter")

    async def job() -> Tensor:
        async with open_engine(skyrl.connected(), skyrl.server().settings()) as engine:
            await engine.create(RunSpec("a", 3, optimizer=FIRST))
            await engine.forward_backward(request_of(get("reinforce"), "a", torch.zeros(8, 7)))
            policy = (await engine.optim_step("a", StepSettings(lr=1e-2, max_grad_norm=1e9))).policy
            await engine.save("a", str(folder), optimizer=False)
            scored = await engine.score(ScoreRequest(policy, two_groups(), 1.0))
            assert scored.logp_NT is not None
            return scored.logp_NT

    return folder / "adapter", drive(job())


@pytest.mark.parametrize("row", ["grpo", "dapo", "gspo", "cispo"])
def test_the_gradient_is_the_local_engines(
    row: str, local: Backbone, adapter: tuple[Path, Tensor], tmp_path: Path
) -> None:
    """Of one step on two groups: loss, norm, and every number of the adapter after a step by the gradient itself.
    GRPO has a KL to the reference, which each engine scores for itself."""
    folder, logp_NT = adapter
    noise_NT = torch.randn(logp_NT.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    old_logp_NT = torch.where(two_groups().learn_NT, logp_NT + noise_NT, 0)
    engines: dict[str, Any] = {
        "there": (skyrl.connected(), skyrl.server().settings()),
        "here": (local, EngineSettings()),
    }

    async def on(model: Any, settings: EngineSettings, out: Path) -> tuple[float, ...]:
        async with open_engine(model, settings) as engine:
            return await step(engine, get(row), folder, old_logp_NT, out)

    told = {name: drive(on(*engine, tmp_path / name)) for name, engine in engines.items()}
    assert told["there"] == pytest.approx(told["here"], rel=1e-3)
    before = load_file(folder / "adapter_model.safetensors")
    after = {name: load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in engines}
    moved = {name: torch.cat([(x[key] - before[key]).flatten() for key in sorted(before)]) for name, x in after.items()}
    assert float(moved["here"].norm()) == pytest.approx(told["here"][1], rel=1e-3)
    error = (moved["there"] - moved["here"]).norm() / moved["here"].norm()
    print(f"{row}: gradient norm {told['here'][1]:.4g}, relative difference {error:.2g}")
    assert error < 1e-3


def test_the_reference_is_the_model_without_an_adapter(local: Backbone) -> None:
    """`compute_logprobs` on the server and the local engine's base agree."""

    async def job(model: Any, settings: EngineSettings) -> Tensor:
        async with open_engine(model, settings) as engine:
            logp_NT = (await engine.score(ScoreRequest(BASE, two_groups(), 1.0))).logp_NT
            assert logp_NT is not None
            return logp_NT

    there, here = drive(job(skyrl.connected(), skyrl.server().settings())), drive(job(local, EngineSettings()))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-3)


def test_a_model_that_the_server_lacks_is_named_with_those_it_has() -> None:
    server = skyrl.server()
    other = server.backbone().model_copy(update={"model": "Qwen/Qwen3-8B"})
    with pytest.raises(UserError, match=f"does not have the model 'Qwen/Qwen3-8B'.*{server.model}"):
        load_model(other, server.settings())


def test_a_clip_that_the_server_ignores_is_refused() -> None:
    """Measured: a step with grad_clip_norm 1e-6 was as large as one without."""
    assert not skyrl.connected().conventions.clips
    with pytest.raises(UserError, match=r"no gradient would be clipped at optimizer.max_grad_norm = 1: set it"):
        skyrl.connected().check([1e9, 1.0])


def config_there(seed: int, patience: float | None = None, **tables: Any) -> RunConfig:
    """GRPO on `add`; two updates a step."""
    server = skyrl.server()
    train = {"steps": 5, "prompts_per_step": 8, "group_size": 8, "minibatches": 2, "max_new_tokens": 24}
    return RunConfig.model_validate(
        {
            "objective": "grpo",
            "seed": seed,
            "task": "add:easy",
            "backbone": server.backbone(),
            "engine": server.settings(patience=patience),
            "train": train | tables.get("train", {}),
            "optimizer": {"lr": 3e-3, "max_grad_norm": 1e9},
            "evaluation": {"every": 5, "prompts": 64, "final_prompts": 0} | tables.get("evaluation", {}),
        }
    )


def test_five_steps_learn_to_add(tmp_path: Path) -> None:
    """From one right answer in four. Two seeds train there at once. What differs from an engine here is recorded."""
    configs = {f"seed{seed}": config_there(seed) for seed in (0, 1)}
    made = train_fleet({name: (config, tmp_path / name) for name, config in configs.items()})
    for name, summary in made.items():
        print(f"{name}: {summary['before']['accuracy']:.3f} -> {summary['after']['accuracy']:.3f}")
        assert (summary["state"], summary["step"], summary["updates"]) == ("done", 5, 10)
        assert summary["after"]["accuracy"] > summary["before"]["accuracy"] + 0.2
        assert any("share their prompts, not their noise" in warning for warning in summary["warnings"])
        environment = RunFolder.open(tmp_path / name).read_json("environment.json")["backbone"]
        assert environment["server"] == skyrl.server().url and "means over rows and tokens" in environment["loss"]
        records = [r for r in RunFolder.open(tmp_path / name).read_metrics() if r["kind"] == "train"]
        assert max(r["sampler_gap"] for r in records) < 1e-3  # the server samples as it trains
        assert all(r["gradient_norm"] > 0 for r in records)


def test_a_server_that_goes_away_stops_the_run_which_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """It is killed after the second step, and comes back with what it has on its disk."""
    config = config_there(2, patience=10, train={"steps": 4, "save_every": 1}, evaluation={"every": 4, "prompts": 8})
    server = skyrl.server()

    def kill(name: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2 and server.process is not None:
            server.stop()

    try:
        stopped = train(config, tmp_path / "run", on_record=kill)
    finally:
        if server.process is None:
            server.start()
    assert stopped["state"] == "failed" and "has gone away: no answer for 10 s" in stopped["failure"]
    assert "--resume" in stopped["failure"]
    resumed = train(config, tmp_path / "run", resume=True)
    assert (resumed["state"], resumed["step"], resumed["updates"]) == ("done", 4, 8)
    steps = [r["step"] for r in RunFolder.open(tmp_path / "run").read_metrics() if r["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert max(float(x.abs().max()) for name, x in adapter.items() if "lora_B" in name) > 0
