from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from bitsandbytes.nn import Linear4bit
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from rlzoo.config.model import LoraSettings
from rlzoo.errors import UserError
from rlzoo.model import multi_lora
from rlzoo.model.adapters import AdaptedLayer, AdapterLayout, AdapterStack, init_adapter, load_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.model.multi_lora import AdapterBatch, AdapterSwitch, MultiLoraLinear
from tests.models import random_adapter

R, SCALING = 4, 0.5
LAYOUT = AdapterLayout((AdaptedLayer("first", 5, 7), AdaptedLayer("second", 3, 2)), R, SCALING, hidden_size=6)
SECOND_A, SECOND_B = slice(48, 60), slice(60, 68)  # the first layer takes 4 * 5 + 7 * 4 = 48 numbers

ROWS = {
    "one run": [0, 0, 0],
    "equal blocks": [0, 0, 1, 1, 2, 2],
    "equal blocks, a run absent": [0, 0, 2, 2],
    "unequal blocks": [0, 0, 0, 1, 2, 2],
    "unequal blocks, a run absent": [1, 2, 2],
    "bare rows in front": [-1, -1, 0, 0, 1, 2, 2],
    "bare rows, equal blocks": [-1, 1, 1, 2, 2],
    "bare rows only": [-1, -1],
}


def thetas() -> list[Tensor]:
    return [torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def second_layer(switch: AdapterSwitch) -> MultiLoraLinear:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return MultiLoraLinear(nn.Linear(3, 2).requires_grad_(False), "second", 1, switch)


def row_by_row(linear: MultiLoraLinear, x_BTI: Tensor, slots: list[int], vectors: list[Tensor]) -> Tensor:
    """y_b = W x_b + scaling * B_k A_k x_b, one row at a time, from offsets counted by hand."""
    rows = []
    for x, slot in zip(x_BTI, slots, strict=True):
        y = linear.base(x)
        if slot >= 0:
            a, b = vectors[slot][SECOND_A].view(R, 3), vectors[slot][SECOND_B].view(2, R)
            y = y + SCALING * torch.stack([b @ (a @ token) for token in x])
        rows.append(y)
    return torch.stack(rows)


def inputs(rows: int) -> Tensor:
    return torch.randn(rows, 4, 3, generator=torch.Generator().manual_seed(9))


@pytest.fixture(params=[1, 10**9], ids=["own weights", "shared weights"])
def merge_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From how many rows an adapter's own weight is made."""
    monkeypatch.setattr(multi_lora, "MERGE_ROWS", request.param)
    return request.param


@pytest.mark.parametrize("slots", ROWS.values(), ids=ROWS.keys())
def test_each_row_goes_through_its_own_adapter(slots: list[int], merge_rows: int) -> None:
    switch = AdapterSwitch()
    linear, x = second_layer(switch), inputs(len(slots)).requires_grad_()
    stack = AdapterStack.of(LAYOUT, thetas(), requires_grad=True)
    switch.active = AdapterBatch(stack, torch.tensor(slots))
    y = linear(x)
    leaves, same_x = [theta.requires_grad_() for theta in thetas()], inputs(len(slots)).requires_grad_()
    expected = row_by_row(linear, same_x, slots, leaves)
    torch.testing.assert_close(y, expected)

    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, same_x.grad)
    by_hand = [torch.zeros(LAYOUT.size) if leaf.grad is None else leaf.grad for leaf in leaves]
    torch.testing.assert_close(stack.grads(), torch.stack(by_hand))
    frozen = AdapterStack.of(LAYOUT, thetas())
    switch.active = AdapterBatch(frozen, torch.tensor(slots))
    torch.testing.assert_close(linear(x), y)
    assert torch.equal(linear(x), linear(x))  # from what the plan kept


@pytest.mark.parametrize("slots", [[0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1], [-1, 0, 1, 1]])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_nan_in_one_run_stays_in_that_run(slots: list[int], broken: int, merge_rows: int) -> None:
    switch, vectors = AdapterSwitch(), thetas()[:2]
    vectors[broken] = vectors[broken] * math.nan
    linear, x = second_layer(switch), inputs(len(slots)).requires_grad_()
    stack = AdapterStack.of(LAYOUT, vectors, requires_grad=True)
    switch.active = AdapterBatch(stack, torch.tensor(slots))
    y = linear(x)
    y.square().sum().backward()
    sound = torch.tensor(slots) != broken
    assert y[sound].isfinite().all() and y[~sound].isnan().all()
    assert x.grad[sound].isfinite().all() and x.grad[~sound].isnan().all()
    assert stack.grads()[1 - broken].isfinite().all() and stack.grads()[broken].isnan().any()


def test_no_plan_is_the_bare_layer_and_so_is_a_layer_without_adapter() -> None:
    switch = AdapterSwitch()
    linear, x = second_layer(switch), inputs(2)
    assert torch.equal(linear(x), linear.base(x))
    switch.active = AdapterBatch(AdapterStack.of(LAYOUT, thetas()), torch.tensor([0, 1]))
    assert not torch.allclose(linear(x), linear.base(x))
    linear.index = None
    assert torch.equal(linear(x), linear.base(x))


def test_bfloat16_activations_are_updated_in_float32() -> None:
    switch, x = AdapterSwitch(), inputs(2).bfloat16()
    linear = second_layer(switch)
    linear.base.bfloat16()
    base = linear(x).float()
    switch.active = AdapterBatch(AdapterStack.of(LAYOUT, thetas()), torch.tensor([0, 1]))
    vectors = zip(x.float(), thetas(), strict=False)
    update = [SCALING * row @ theta[SECOND_A].view(R, 3).T @ theta[SECOND_B].view(2, R).T for row, theta in vectors]
    y = linear(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, (base + torch.stack(update)).bfloat16())


def test_rows_out_of_order_or_of_unknown_runs_are_refused() -> None:
    stack = AdapterStack.of(LAYOUT, thetas())
    with pytest.raises(ValueError, match="sorted"):
        AdapterBatch(stack, torch.tensor([0, 2, 1]))
    for slots in ([0, 3], [-2, 0]):
        with pytest.raises(ValueError, match="stack of 3"):
            AdapterBatch(stack, torch.tensor(slots))
    switch = AdapterSwitch()
    switch.active = AdapterBatch(stack, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"second received .* leave it out of target_modules"):
        second_layer(switch)(inputs(3))


def test_layout_counts_every_number_once_and_splits_into_views() -> None:
    assert LAYOUT.size == 48 + 20 + 6 + 1
    theta_KN = torch.arange(2 * LAYOUT.size).view(2, -1)
    pieces = LAYOUT.split(theta_KN)
    assert [tuple(piece.shape[1:]) for piece in pieces] == [(4, 5), (7, 4), (4, 3), (2, 4), (6,), (1,)]
    assert torch.equal(torch.cat([piece.reshape(2, -1) for piece in pieces], dim=1), theta_KN)
    assert all(piece.untyped_storage().data_ptr() == theta_KN.untyped_storage().data_ptr() for piece in pieces)


def test_fresh_adapter_is_pefts_and_a_function_of_the_seed_alone() -> None:
    layout = AdapterLayout((AdaptedLayer("wide", 400, 30),), r=16, scaling=2.0, hidden_size=8)
    state = torch.random.get_rng_state()
    made = init_adapter(layout, 5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert made.dtype == torch.float32 and torch.equal(made, init_adapter(layout, 5))
    a, rest = made[: 16 * 400], made[16 * 400 :]
    assert torch.equal(rest, torch.zeros_like(rest))
    bound = 1 / math.sqrt(400)  # kaiming_uniform with a = sqrt(5): sqrt(6 / (1 + 5) / fan_in)
    assert 0.99 * bound < a.abs().max() <= bound
    assert abs(float(a.std()) / (bound / math.sqrt(3)) - 1) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([a, init_adapter(layout, 6)[: 16 * 400]]))[0, 1])) < 0.06


def test_stack_is_a_copy_whose_gradients_accumulate() -> None:
    vectors = thetas()
    stack = AdapterStack.of(LAYOUT, vectors, requires_grad=True)
    vectors[0].zero_()
    assert len(stack) == 3 and stack.a[0][0].abs().min() > 0
    assert torch.equal(stack.grads(), torch.zeros(3, LAYOUT.size))
    for _ in range(2):
        (stack.value_weight[1].sum() * 3).backward()
    expected = torch.zeros(3, LAYOUT.size)
    expected[1, 68:74] = 6
    assert torch.equal(stack.grads(), expected)


@pytest.mark.parametrize("changed", [{"dropout": 0.1}, {"r": 0}, {"alpha": -1}])
def test_settings_refuse_what_is_not_supported(changed: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LoraSettings(**changed)


def test_saved_adapter_comes_back_with_its_value_head(fp32: Backbone, tmp_path: Path) -> None:
    theta = random_adapter(fp32, 3)
    fp32.save_adapter(theta, tmp_path / "new" / "adapter")
    assert torch.equal(fp32.load_adapter(tmp_path / "new" / "adapter"), theta)
    names = {file.name for file in (tmp_path / "new" / "adapter").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "value_head.safetensors"}
    assert not any(file.is_dir() for file in (tmp_path / "new" / "adapter").iterdir())
    fp32.save_adapter(2 * theta, tmp_path / "new" / "adapter")
    assert torch.equal(fp32.load_adapter(tmp_path / "new" / "adapter"), 2 * theta)
    (tmp_path / "new" / "adapter" / "value_head.safetensors").unlink()
    bare = fp32.load_adapter(tmp_path / "new" / "adapter")
    assert torch.equal(bare[:-65], 2 * theta[:-65]) and not bare[-65:].any()


def test_an_adapter_that_does_not_fit_says_how(fp32: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter in"):
        fp32.load_adapter(tmp_path)
    fp32.save_adapter(random_adapter(fp32, 3), tmp_path)
    config = tmp_path / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"lora_alpha": 8}))
    with pytest.raises(UserError, match=r"scaling 0.5, the backbone rank 16 and scaling 2"):
        fp32.load_adapter(tmp_path)
    config.write_text(json.dumps(settings))
    small = AdapterLayout(fp32.layout.layers[1:], 16, 2.0, 64)
    first = fp32.layout.layers[0].name
    with pytest.raises(UserError, match=f"2 tensors differ, first .*{first}.lora_A.* wanted not at all"):
        load_adapter(small, tmp_path)


def test_saved_names_and_shapes_are_pefts(fp32: Backbone, tmp_path: Path) -> None:
    fp32.save_adapter(random_adapter(fp32, 3), tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert len(stored) == 2 * 2 * 7  # A and B, 2 layers, 7 linear layers each
    assert stored["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"].shape == (16, 128)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (
        "LORA",
        16,
        32,
        0,
    )
    assert "lm_head" not in settings["target_modules"]


def linear4bit() -> Linear4bit:
    made = Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made.weight.data.normal_()
    return made.to("cpu").eval().requires_grad_(False)


@pytest.mark.skipif(not has_avx512bf16(), reason="the repacking happens on CPUs with AVX512-BF16 only")
def test_the_trap_is_real_a_plain_linear4bit_leaves_autograd_after_a_rollout() -> None:
    """If this fails, bitsandbytes has mended it, and `MultiLoraLinear` may call the layer's own forward again."""
    plain = linear4bit()
    before, after = (torch.ones(2, 64).requires_grad_() for _ in range(2))
    plain(before).sum().backward()
    with torch.no_grad():
        plain(torch.ones(2, 64))
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        plain(after).sum().backward()
    assert before.grad is not None and before.grad.abs().max() > 0
    assert after.grad is None


def test_multi_lora_linear_keeps_the_gradient_and_the_weight_after_a_rollout() -> None:
    linear, x = MultiLoraLinear(linear4bit(), "x", None, AdapterSwitch()).eval(), torch.randn(2, 64)

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        linear(leaf).square().sum().backward()
        return leaf.grad

    packed, before = linear.base.weight.data.clone(), gradient()
    with torch.no_grad():
        y = linear(x)
        weight = linear.dequantized(torch.float32).clone()
        linear.hold_dequantized(True)
        assert torch.equal(linear.dequantized(torch.float32), weight)
        torch.testing.assert_close(linear(x), y)
        linear.hold_dequantized(False)
    assert torch.equal(gradient(), before)
    assert torch.equal(linear.base.weight.data, packed)


def test_which_adapters_have_weights_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 rows of each, or a single one without gradient; never beside bare rows, in unequal numbers, or without room:
    three adapters of a layer 64 x 64 take 3 * 4096 * 4 = 49152 bytes."""
    layout = AdapterLayout((AdaptedLayer("x", 64, 64),), 4, 2.0, 8)
    frozen, trained = (AdapterStack.of(layout, [torch.zeros(layout.size)] * 3, grad) for grad in (False, True))

    def merges(stack: AdapterStack, *count: int, bare: int = 0) -> bool:
        slots = [-1] * bare + [slot for slot, rows in enumerate(count) for _ in range(rows)]
        return AdapterBatch(stack, torch.tensor(slots)).merges

    assert merges(frozen, 1) and not merges(trained, 1)
    for stack in (frozen, trained):
        assert merges(stack, 64, 64, 64) and merges(stack, 64)
        assert not merges(stack, 63, 63, 63)
        assert not merges(stack, 64, 64, 65)
        assert not merges(stack, 64, 64, 64, bare=1)
    monkeypatch.setattr(multi_lora, "MERGED_BYTES", 49151)
    assert not merges(frozen, 64, 64, 64) and merges(frozen, 64, 64)


def test_a_plan_that_is_used_often_merges_and_the_next_one_takes_over() -> None:
    """From 8 rows of each on, in about equal numbers; not beside bare rows, and not with gradient. While the stack and
    its adapters are the same, what was merged is."""
    layout = AdapterLayout((AdaptedLayer("x", 64, 64),), 4, 2.0, 8)
    frozen, other, trained = (
        AdapterStack.of(layout, [torch.ones(layout.size)] * 3, grad) for grad in (False, False, True)
    )
    linear = MultiLoraLinear(linear4bit(), "x", 0, AdapterSwitch())

    def plan(stack: AdapterStack, *count: int, bare: int = 0, before: AdapterBatch | None = None) -> AdapterBatch:
        slots = [-1] * bare + [slot for slot, rows in enumerate(count) for _ in range(rows)]
        return AdapterBatch(stack, torch.tensor(slots), decoding=True, before=before)

    def merged(made: AdapterBatch) -> Tensor:
        return made.merged(linear, *made.adapters(0))

    first = plan(frozen, 8, 12)
    assert first.merges and plan(frozen, 1).merges
    assert not plan(frozen, 7, 8).merges  # 15 rows of two
    assert not plan(frozen, 5, 25).merges  # padded to 50 for 30
    assert not plan(trained, 8, 12).merges and not plan(frozen, 8, 12, bare=1).merges
    assert merged(plan(frozen, 9, 9, before=first)) is merged(first)
    assert merged(plan(other, 9, 9, before=first)) is not merged(first)
    torch.testing.assert_close(merged(plan(frozen, 9, before=first)), merged(first)[:1])


def test_a_4bit_weight_that_was_stored_as_bfloat16_is_merged_in_float32() -> None:
    """As in models that were quantized by others."""
    layout = AdapterLayout((AdaptedLayer("x", 64, 64),), 4, 2.0, 8)
    numbers = torch.Generator().manual_seed(0)
    stack = AdapterStack.of(layout, [0.1 * torch.randn(layout.size, generator=numbers)])
    switch = AdapterSwitch()
    linear, x = MultiLoraLinear(linear4bit(), "x", 0, switch).eval(), torch.randn(2, 5, 64, generator=numbers)
    linear.base.weight.quant_state.dtype = torch.bfloat16
    switch.active = plan = AdapterBatch(stack, torch.tensor([0, 0]))
    with torch.no_grad():
        together = linear(x)
        plan.merges = False
        torch.testing.assert_close(linear(x), together, rtol=1e-5, atol=1e-5)
    assert plan.merged(linear, stack.a[0], stack.b[0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "describes a IA3 adapter"),
        ({"r": 0}, "r = 0 and lora_alpha"),
        ({"r": "four"}, "r = 'four'"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_by_its_field(
    changes: dict[str, object], message: str, fp32: Backbone, tmp_path: Path
) -> None:
    fp32.save_adapter(fp32.new_adapter(0), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=rf"adapter_config\.json.*{message}"):
        fp32.load_adapter(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"r": 4}', "[" * 100_000])
def test_a_description_that_is_none_is_refused(text: str, fp32: Backbone, tmp_path: Path) -> None:
    fp32.save_adapter(fp32.new_adapter(0), tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match="describes no adapter"):
        fp32.load_adapter(tmp_path)


def test_half_a_file_of_tensors_is_refused(fp32: Backbone, tmp_path: Path) -> None:
    fp32.save_adapter(fp32.new_adapter(0), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        fp32.load_adapter(tmp_path)
