from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlzoo.config.model import BackboneConfig, LoraSettings
from rlzoo.engine.protocol import SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.device import resolve_compute, resolve_device
from rlzoo.model.log_probs import pad_left, policy_forward
from tests.models import random_adapter, write_model
from tests.sampling import named, sample

PROMPTS = ["3+4=", "sort 52413", "x", "12-7="]
LENGTHS = [5, 2, 7, 0]


EACH = torch.arange(len(PROMPTS))
"""Every row continues a prompt of its own."""


def batch(backbone: Backbone) -> tuple[list[list[int]], Tensor, Tensor]:
    prompts = [backbone.encode(prompt) for prompt in PROMPTS]
    response_BT = torch.randint(3, 90, (4, 7), generator=torch.Generator().manual_seed(1))
    return prompts, response_BT, torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def test_forward_is_the_hugging_face_models_log_softmax(fp32: Backbone, qwen_folder: Path) -> None:
    """Each row alone, without padding, in the model as transformers loads it, divided by the temperature by hand."""
    model = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval()
    prompts, response_BT, mask_BT = batch(fp32)
    given = {"temperature": 0.7, "entropy": True, "collision": True}
    out = policy_forward(fp32, None, None, prompts, EACH, response_BT, mask_BT, **given)
    for b, prompt in enumerate(prompts):
        n = LENGTHS[b]
        tokens = torch.tensor([prompt + response_BT[b, :n].tolist()])
        logp = (model(tokens).logits[0, len(prompt) - 1 : -1 if n else 0] / 0.7).log_softmax(1)[:n]
        torch.testing.assert_close(out.logp_BT[b, :n], logp[range(n), response_BT[b, :n]], rtol=0, atol=2e-5)
        torch.testing.assert_close(out.entropy_BT[b, :n], -(logp * logp.exp()).sum(1), rtol=0, atol=2e-5)
        torch.testing.assert_close(out.collision_BT[b, :n], logp.exp().square().sum(1), rtol=0, atol=2e-5)
    assert out.value_BT is None
    assert not out.logp_BT[~mask_BT].any() and not out.entropy_BT[~mask_BT].any()


@pytest.mark.parametrize("adapted", ["llama", "fp32"])
def test_peft_loads_what_is_saved_and_gives_the_same_logits(
    adapted: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue("llama_folder" if adapted == "llama" else "qwen_folder")
    settings = LoraSettings(r=3, alpha=5, rslora=True, target_modules=("q_proj", "down_proj"))
    ours = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu", lora=settings))
    assert ours.layout.scaling == pytest.approx(5 / math.sqrt(3))
    theta = random_adapter(ours, 5, size=0.2)
    ours.save_adapter(theta, tmp_path)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path
    ).eval()
    tokens = torch.tensor([ours.encode("what is 3+4?")])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        bare = ours.logits(ours.states(tokens, mask))
        with ours.adapters(ours.stack([theta]), torch.tensor([0])):
            logits = ours.logits(ours.states(tokens, mask))
        torch.testing.assert_close(logits, theirs(tokens).logits, rtol=0, atol=2e-5)
        assert (logits - bare).abs().max() > 0.1


def test_a_fresh_adapter_and_no_adapter_are_the_base_model(backbone: Backbone) -> None:
    prompts, response_BT, mask_BT = batch(backbone)
    base = policy_forward(backbone, None, None, prompts, EACH, response_BT, mask_BT).logp_BT
    stack = backbone.stack([backbone.new_adapter(3), random_adapter(backbone, 4)])
    with torch.no_grad():
        out = policy_forward(backbone, stack, torch.tensor([-1, 0, 0, 1]), prompts, EACH, response_BT, mask_BT)
    torch.testing.assert_close(out.logp_BT, base, rtol=0, atol=1e-5)  # the last row, which is not fresh, has no token
    changed = policy_forward(backbone, stack, torch.tensor([1, 1, 1, 1]), prompts, EACH, response_BT, mask_BT).logp_BT
    assert (changed - base).abs().max() > 0.1


def test_value_is_the_runs_own_head_on_the_state_before_the_token(fp32: Backbone, qwen_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval()
    prompts, response_BT, mask_BT = batch(fp32)
    thetas = [fp32.new_adapter(seed) for seed in (1, 2)]
    for seed, theta in enumerate(thetas):  # the adapter itself stays the base model
        theta[-65:] = torch.randn(65, generator=torch.Generator().manual_seed(seed))
    slots = [0, 0, 1, 1]
    out = policy_forward(fp32, fp32.stack(thetas), torch.tensor(slots), prompts, EACH, response_BT, mask_BT, value=True)
    for b, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt + response_BT[b, : LENGTHS[b]].tolist()])
        hidden = model.model(tokens).last_hidden_state[0, len(prompt) - 1 :][: LENGTHS[b]]
        expected = hidden @ thetas[slots[b]][-65:-1] + thetas[slots[b]][-1]
        torch.testing.assert_close(out.value_BT[b, : LENGTHS[b]], expected, rtol=0, atol=2e-5)
    assert not out.value_BT[~mask_BT].any()
    with pytest.raises(ValueError, match="no value head"):
        policy_forward(fp32, None, None, prompts, EACH, response_BT, mask_BT, value=True)


def gradients(backbone: Backbone, rows: list[int], slots: list[int], thetas: list[Tensor], pad: int = 0) -> Tensor:
    """Gradient of a weighted sum of everything the forward pass gives, over the chosen rows."""
    prompts, response_BT, mask_BT = batch(backbone)
    response_BT = torch.nn.functional.pad(response_BT, (0, pad), value=-100)
    mask_BT = torch.nn.functional.pad(mask_BT, (0, pad))
    stack = backbone.stack(thetas, requires_grad=True)
    out = policy_forward(
        backbone,
        stack,
        torch.tensor(slots),
        prompts,
        torch.tensor(rows),
        response_BT[rows],
        mask_BT[rows],
        value=True,
        entropy=True,
    )
    (out.logp_BT + 0.3 * out.value_BT.square() + 0.1 * out.entropy_BT).sum().backward()
    return stack.grads()


def test_gradients_in_a_shared_batch_are_those_of_separate_runs(backbone: Backbone) -> None:
    thetas = [random_adapter(backbone, seed) for seed in (1, 2)]
    together = gradients(backbone, [0, 1, 2], [0, 0, 1], thetas)
    alone = torch.cat([gradients(backbone, [0, 1], [0, 0], thetas[:1]), gradients(backbone, [2], [0], thetas[1:])])
    assert alone.norm(dim=1).min() > 1
    assert ((together - alone).norm(dim=1) / alone.norm(dim=1)).max() < 1e-5


def test_padding_changes_neither_output_nor_gradient(backbone: Backbone) -> None:
    theta = random_adapter(backbone, 1)
    wide = gradients(backbone, [0, 3], [0, 0], [theta], pad=6)
    narrow = gradients(backbone, [0], [0], [theta])
    assert (wide - narrow).norm() / narrow.norm() < 1e-5


def test_gradient_is_the_derivative_along_a_direction(fp32: Backbone) -> None:
    """Central difference of the summed log-probs along a random direction of theta."""
    prompts, response_BT, mask_BT = batch(fp32)
    theta = random_adapter(fp32, 1)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(8))
    direction /= direction.norm()

    def total(vector: Tensor, grad: bool = False) -> tuple[Tensor, Tensor]:
        stack = fp32.stack([vector], requires_grad=grad)
        logp = policy_forward(
            fp32, stack, torch.zeros(4, dtype=torch.long), prompts, EACH, response_BT, mask_BT
        ).logp_BT
        if grad:
            logp.sum().backward()
        return logp.detach().double().sum(), stack.grads()[0]

    step = 1e-2
    difference = (total(theta + step * direction)[0] - total(theta - step * direction)[0]) / (2 * step)
    slope = float(total(theta, grad=True)[1] @ direction)
    assert abs(slope) > 0.1 and slope == pytest.approx(float(difference), rel=2e-2)


def test_a_broken_run_does_not_reach_its_neighbours(backbone: Backbone) -> None:
    sound = random_adapter(backbone, 1)
    grads = gradients(backbone, [0, 1, 2], [0, 1, 1], [sound, sound * math.nan])
    alone = gradients(backbone, [0], [0], [sound])
    torch.testing.assert_close(grads[0], alone[0], rtol=1e-4, atol=1e-5)
    assert grads[1].isnan().any()


def test_masked_positions_cannot_leak_even_when_not_finite(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, response_BT, mask_BT = batch(fp32)
    original = fp32.states
    outside = ~mask_BT

    def poisoned(*args: object, **kwargs: object) -> Tensor:
        state = original(*args, **kwargs)
        return state + torch.nn.functional.pad(  # its gradient goes on
            torch.where(outside[:, :, None], math.inf, 0.0), (0, 0, state.shape[1] - 7, 0)
        )

    slot_B = torch.zeros(4, dtype=torch.long)
    results = []
    for states in (original, poisoned):
        monkeypatch.setattr(fp32, "states", states)
        stack = fp32.stack([random_adapter(fp32, 1)], requires_grad=True)
        out = policy_forward(fp32, stack, slot_B, prompts, EACH, response_BT, mask_BT, entropy=True)
        (out.logp_BT.sum() + out.entropy_BT.sum()).backward()
        results.append((out.logp_BT, out.entropy_BT, stack.grads()))
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*results, strict=True))


def test_head_sees_the_real_tokens_only(fp32: Backbone) -> None:
    prompts, response_BT, mask_BT = batch(fp32)
    shapes = []
    handle = fp32.model.get_output_embeddings().register_forward_hook(lambda *a: shapes.append(a[2].shape))
    policy_forward(fp32, None, None, prompts, EACH, response_BT, mask_BT)
    handle.remove()
    assert shapes == [(sum(LENGTHS), fp32.vocab_size)]


def test_gradient_after_a_rollout_is_the_gradient_before(nf4: Backbone) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes would repack the weights while sampling; see `MultiLoraLinear`."""
    thetas = [random_adapter(nf4, seed) for seed in (1, 2)]
    before = gradients(nf4, [0, 1, 2], [0, 0, 1], thetas)
    request = SampleRequest(named(thetas[0]), [nf4.encode("3+4=")], 4, 6, seed=0, step=0, prompt_keys=[0])
    sample(nf4, [request, SampleRequest(named(None), [nf4.encode("2+2=")], 2, 6, seed=0, step=0, prompt_keys=[0])])
    assert torch.equal(gradients(nf4, [0, 1, 2], [0, 0, 1], thetas), before)


def test_quantized_weights_are_small_and_the_head_is_not_quantized(nf4: Backbone, fp32: Backbone) -> None:
    small, large = nf4.describe(), fp32.describe()
    assert small["parameters"] == large["parameters"] == sum(p.numel() for p in fp32.model.parameters())
    linear = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)  # q and o, k and v, the mlp; two layers
    saved = large["weight_bytes"] - small["weight_bytes"]
    assert 3.4 * linear < saved < 3.5 * linear  # from 4 bytes to half a byte and the scales
    assert nf4.model.get_output_embeddings().weight.dtype == torch.float32
    assert json.loads(json.dumps(small)) == small
    assert small["adapter_parameters"] == nf4.layout.size == len(nf4.new_adapter(0))


def test_loading_is_quiet(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No warning and no progress bar; "shipped" is no name PEFT knows, so what it is told is the folder."""
    monkeypatch.setattr("rlzoo.model.hub.SHIPPED", qwen_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Backbone.load(BackboneConfig(device="cpu"))
    assert made.peft_config.base_model_name_or_path == str(qwen_folder)
    assert capfd.readouterr() == ("", "")


def test_held_weights_are_released(nf4: Backbone) -> None:
    tokens = torch.tensor([nf4.encode("3+4=")])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        plain = nf4.logits(nf4.states(tokens, mask))
        with pytest.raises(RuntimeError), nf4.held_weights():
            assert torch.equal(nf4.logits(nf4.states(tokens, mask)), plain)
            assert all(linear.held is not None for linear in nf4._linears)
            raise RuntimeError
        assert all(linear.held is None for linear in nf4._linears)
        with nf4.held_weights():
            held = [linear.held for linear in nf4._linears]
            with nf4.held_weights():
                pass
            assert all(linear.held is one for linear, one in zip(nf4._linears, held, strict=True))
        assert all(linear.held is None for linear in nf4._linears)
        with nf4.held_weights(limit_bytes=1000):
            assert all(linear.held is None for linear in nf4._linears)


@pytest.mark.parametrize(
    ("device", "elements", "held"),
    [("cpu", 1 << 26, True), ("cpu", (1 << 26) + 1, False), ("cuda", 1 << 28, True), ("cuda", (1 << 28) + 1, False)],
)
def test_so_much_is_held(
    device: str, elements: int, held: bool, nf4: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32, 4 bytes each: 256 MiB on a CPU, 1 GiB elsewhere."""
    linear = Mock(quantized=True)
    linear.base.weight.quant_state.shape = torch.Size([elements])
    for name, value in {"device": torch.device(device), "_linears": [linear]}.items():
        monkeypatch.setattr(nf4, name, value)
    with nf4.held_weights():
        assert linear.hold_dequantized.called is held


def test_adapters_switch_off_after_an_error(fp32: Backbone) -> None:
    stack = fp32.stack([random_adapter(fp32, 1)])
    with pytest.raises(RuntimeError), fp32.adapters(stack, torch.tensor([0])):
        raise RuntimeError
    assert fp32._switch.active is None


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_other_number_formats_stay_near_float32(precision: str, qwen_folder: Path, fp32: Backbone) -> None:
    """bf16 and nf4 weights with bf16 and float32 activations: correlated with float32, and not equal to it."""
    prompts, response_BT, mask_BT = batch(fp32)
    exact = policy_forward(fp32, None, None, prompts, EACH, response_BT, mask_BT).logp_BT[mask_BT]
    for compute in ("fp32", "bf16"):
        made = Backbone.load(BackboneConfig(model=str(qwen_folder), precision=precision, compute=compute, device="cpu"))
        stack = made.stack([made.new_adapter(1)], requires_grad=True)
        zero = torch.zeros(4, dtype=torch.long)
        out = policy_forward(made, stack, zero, prompts, EACH, response_BT, mask_BT, value=True)
        out.logp_BT.sum().backward()
        assert out.logp_BT.dtype == out.value_BT.dtype == stack.grads().dtype == torch.float32
        assert stack.grads().norm() > 1
        error = (out.logp_BT[mask_BT] - exact).abs().mean()
        assert 1e-6 < error < (0.5 if precision == "nf4" else 0.1)


def test_gpt2_with_its_own_kind_of_linear_layer(tmp_path: Path) -> None:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}
    folder = write_model(GPT2LMHeadModel, GPT2Config, tmp_path / "gpt2", **sizes)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    assert {(layer.in_features, layer.out_features) for layer in made.layout.layers} == {
        (64, 192),
        (64, 64),
        (64, 256),
        (256, 64),
    }
    theta = random_adapter(made, 1)
    made.save_adapter(theta, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    tokens = torch.tensor([made.encode("3+4=")])
    with torch.no_grad(), made.adapters(made.stack([theta]), torch.tensor([0])):
        logits = made.logits(made.states(tokens, torch.ones_like(tokens)))
        torch.testing.assert_close(logits, theirs(tokens).logits, rtol=0, atol=2e-5)
    # Positions are learned vectors here, so unlike with rotary ones, counting the padding would show.
    prompts, response_BT, mask_BT = batch(made)
    padded = policy_forward(made, None, None, prompts, EACH, response_BT, mask_BT).logp_BT
    for b in range(4):
        row = slice(b, b + 1)
        alone = policy_forward(made, None, None, prompts, EACH[row], response_BT[row], mask_BT[row]).logp_BT
        torch.testing.assert_close(padded[row], alone, rtol=0, atol=2e-5)


def test_text_and_chat_become_tokens_and_back(qwen_folder: Path, tmp_path: Path, fp32: Backbone) -> None:
    text = "12 + 30 = 42\nYes!"
    assert len(fp32.encode(text)) == len(text)
    assert fp32.decode([*fp32.encode(text), fp32.end_ids[0], fp32.pad_id]) == text
    messages = [{"role": "user", "content": "2+2?"}]
    with pytest.raises(UserError, match="has no chat template"):
        fp32.encode(messages)
    folder = copy_with(qwen_folder, tmp_path / "chat")
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    chat = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    assert chat.decode(chat.encode(messages)) == "<user>2+2?<me>"


def test_padding_is_on_the_left() -> None:
    tokens_BP, mask_BP = pad_left([[5], [6, 7, 8]], 9, torch.device("cpu"))
    assert tokens_BP.tolist() == [[9, 9, 5], [6, 7, 8]]
    assert mask_BP.tolist() == [[False, False, True], [True, True, True]]


def test_every_end_token_counts(qwen_folder: Path, tmp_path: Path) -> None:
    folder = copy_with(qwen_folder, tmp_path / "ends", "generation_config.json", eos_token_id=[1, 7])
    assert Backbone.load(BackboneConfig(model=str(folder), device="cpu")).end_ids == [1, 7]


def copy_with(model: Path, folder: Path, file: str = "config.json", **changes: object) -> Path:
    """Copy a model folder and set keys of one of its JSON files; None removes a key."""
    shutil.copytree(model, folder)
    settings = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "'./nowhere' is not a folder"),
        ("/no/such/folder", "not a folder: give an existing one, a .gguf file, a name on the Hub, or 'shipped'"),
        ("nobody/not-a-model-of-anyone", "neither a local folder nor a model that can be loaded from the Hub"),
    ],
)
def test_a_model_that_is_not_there(model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Backbone.load(BackboneConfig(model=model, device="cpu"))


def test_a_folder_or_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="cannot be loaded as a model"):
        Backbone.load(BackboneConfig(model=str(tmp_path), device="cpu"))
    with pytest.raises(UserError, match="not a folder"):
        Backbone.load(BackboneConfig(model=str(tmp_path / "notes.txt"), device="cpu"))


def test_a_missing_shipped_model_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rlzoo.model.hub.SHIPPED", tmp_path / "base")
    with pytest.raises(UserError, match="rlzoo warmstart"):
        Backbone.load(BackboneConfig())


def test_no_pad_token_asks_for_one(qwen_folder: Path, tmp_path: Path) -> None:
    folder = copy_with(qwen_folder, tmp_path / "padless", "tokenizer_config.json", pad_token=None)
    with pytest.raises(UserError, match=r"no pad token: set backbone.pad_token .*'<end>' is safe"):
        Backbone.load(BackboneConfig(model=str(folder), device="cpu"))
    made = Backbone.load(BackboneConfig(model=str(folder), device="cpu", pad_token="<end>"))
    assert made.pad_id == made.end_ids[0]
    with pytest.raises(UserError, match="'nonsense' is not in the vocabulary"):
        Backbone.load(BackboneConfig(model=str(folder), device="cpu", pad_token="nonsense"))


def test_no_end_token(qwen_folder: Path, tmp_path: Path) -> None:
    folder = copy_with(qwen_folder, tmp_path / "endless", "tokenizer_config.json", eos_token=None)
    for file in ("config.json", "generation_config.json"):
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | {"eos_token_id": None}))
    with pytest.raises(UserError, match="has no end token, so no response could end"):
        Backbone.load(BackboneConfig(model=str(folder), device="cpu"))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("query",), "Linear layers here: down_proj, gate_proj, k_proj, o_proj"),
        (("embed_tokens",), "'model.embed_tokens', a Embedding; only linear layers"),
        (("q_proj", "lm_head"), "'lm_head', the output head"),
    ],
)
def test_target_modules_that_cannot_be_adapted(targets: tuple[str, ...], message: str, qwen_folder: Path) -> None:
    config = BackboneConfig(model=str(qwen_folder), device="cpu", lora=LoraSettings(target_modules=targets))
    with pytest.raises(UserError, match=message):
        Backbone.load(config)


def test_a_model_without_linear_layers(tmp_path: Path) -> None:
    folder = write_model(Qwen2ForCausalLM, Qwen2Config, tmp_path / "empty", num_hidden_layers=0)
    with pytest.raises(UserError, match="cannot have an adapter with target_modules"):
        Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))


def test_target_modules_may_be_some_layers_only(qwen_folder: Path) -> None:
    """Layers without an adapter are MultiLoraLinear too, as they would repack their weights no less."""
    lora = LoraSettings(target_modules=r".*\.1\.mlp\.(up|down)_proj")
    made = Backbone.load(BackboneConfig(model=str(qwen_folder), device="cpu", lora=lora))
    assert [layer.name for layer in made.layout.layers] == [
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]
    before = gradients(made, [0, 1], [0, 0], [random_adapter(made, 1)])
    sample(made, [SampleRequest(named(None), [[5, 6]], 2, 3, seed=0, step=0, prompt_keys=[0])])
    assert torch.equal(gradients(made, [0, 1], [0, 0], [random_adapter(made, 1)]), before)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="choose precision bf16"):
        BackboneConfig(precision="fp32", compute="bf16")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        BackboneConfig(quantization="nf4")
    with pytest.raises(UserError, match="'quantum' cannot be used"):
        resolve_device(BackboneConfig(device="quantum"))
    assert resolve_compute(BackboneConfig(precision="bf16"), torch.device("cuda")) == torch.bfloat16
    assert resolve_compute(BackboneConfig(precision="fp32"), torch.device("cuda")) == torch.float32
    assert resolve_compute(BackboneConfig(), torch.device("cpu")) == torch.float32


def test_an_end_token_that_is_not_declared_special_is_no_text(tmp_path: Path) -> None:
    folder = write_model(Qwen2ForCausalLM, Qwen2Config, tmp_path, vocab_size=128)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<|turn|>", special=False)])
    tokenizer.save_pretrained(folder)
    end, (five,) = tokenizer.convert_tokens_to_ids("<|turn|>"), tokenizer("5")["input_ids"]
    config = BackboneConfig(model=str(folder), precision="fp32", device="cpu")
    assert Backbone.load(config).decode([five, end]) == "5<|turn|>"
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, end, five]}))
    backbone = Backbone.load(config)
    assert backbone.decode([five, end]) == backbone.decode(torch.tensor([five, end])) == "5"  # a letter, though it ends
