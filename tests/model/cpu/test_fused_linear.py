"""Layers of one input as one product, against each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

from rlzoo.model import multi_lora
from rlzoo.model.adapters import AdaptedLayer, AdapterLayout, AdapterStack
from rlzoo.model.cpu.fused_linear import JoinedLinear
from rlzoo.model.multi_lora import AdapterSwitch, FleetLinear, RowPlan

IN, OUT = 64, (64, 32, 96)
LAYOUT = AdapterLayout(tuple(AdaptedLayer(str(i), IN, out) for i, out in enumerate(OUT)), 4, 2.0, 8)
ROWS = {"equal": [0] * 3 + [1] * 3, "unequal": [0, 1, 1, 1], "some": [1, 1, 2, 2], "bare": [-1, 0, 2], "one": [2, 2]}


def linears(switch: AdapterSwitch, quantized: bool, indices: Sequence[int | None], biases: bool) -> list[FleetLinear]:
    made = []
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for place, (index, out) in enumerate(zip(indices, OUT, strict=True)):
            bias = biases and place != 1
            layer: nn.Module = nn.Linear(IN, out, bias=bias)
            if quantized:
                packed = Linear4bit(IN, out, bias=bias, quant_type="nf4", compute_dtype=torch.float32)
                packed.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
                packed.bias = layer.bias
                layer = packed.to("cpu")
            made.append(FleetLinear(layer.requires_grad_(False).eval(), f"layer {place}", index, switch))
    return made


@pytest.mark.parametrize("merge_rows", [1, 10**9], ids=["own weights", "shared weights"])
@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "nf4"])
@pytest.mark.parametrize("indices", [(0, 1, 2), (0, None, 2), (None, None, None)])
@pytest.mark.parametrize("slots", ROWS.values(), ids=ROWS.keys())
def test_one_product_is_each_by_itself(
    slots: list[int],
    indices: tuple[int | None, ...],
    quantized: bool,
    merge_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multi_lora, "MERGE_ROWS", merge_rows)
    switch, seeded = AdapterSwitch(), torch.Generator().manual_seed(0)
    stack = AdapterStack.of(LAYOUT, [0.3 * torch.randn(LAYOUT.size, generator=seeded) for _ in range(3)])
    layers, x = linears(switch, quantized, indices, biases=True), torch.randn(len(slots), 1, IN, generator=seeded)
    switch.plan = RowPlan(stack, torch.tensor(slots))
    with torch.no_grad():
        expected = [layer(x) for layer in layers]
        weights = [layer.weight(torch.float32).clone() for layer in layers]
        joined = JoinedLinear(layers)
        for held in (True, False):
            for one in (*layers, joined):
                one.hold_dequantized(held)
            switch.plan = RowPlan(stack, torch.tensor(slots), often=merge_rows == 1)
            for _ in range(2):  # the second time from what the plan kept
                for y, by_itself in zip(joined(x), expected, strict=True):
                    torch.testing.assert_close(y, by_itself)
            for layer, weight in zip(layers, weights, strict=True):
                assert torch.equal(layer.weight(torch.float32), weight)


@pytest.mark.parametrize("slots", ROWS.values(), ids=ROWS.keys())
def test_in_bfloat16_adapters_are_one_product_too(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """While decoding; as far from float32 as rounding what goes in, 2^-9, and what comes out."""
    switch, seeded = AdapterSwitch(), torch.Generator().manual_seed(0)
    stack = AdapterStack.of(LAYOUT, [0.3 * torch.randn(LAYOUT.size, generator=seeded) for _ in range(3)])
    layers = linears(switch, False, (0, 1, 2), biases=True)
    joined, x = JoinedLinear(layers), torch.randn(len(slots), 1, IN, generator=seeded).bfloat16()
    with torch.no_grad():
        switch.plan = RowPlan(stack, torch.tensor(slots))
        exact = joined(x.float())
        plan = switch.plan = RowPlan(stack, torch.tensor(slots), often=True)
        for _ in range(2):
            for y, same in zip(joined(x), exact, strict=True):
                assert y.dtype == torch.bfloat16
                torch.testing.assert_close(y.float(), same, rtol=2**-7, atol=2**-8 * float(same.abs().max()))
        before = joined(x)
        switch.plan = RowPlan(stack, torch.tensor(slots), often=True, before=plan)
        assert all(torch.equal(y, again) for y, again in zip(before, joined(x), strict=True))
        assert switch.plan._joined is plan._joined and len(plan._joined) == 1
        assert not RowPlan(stack, torch.zeros(len(slots), dtype=torch.int64), often=True, before=plan)._joined
        monkeypatch.setattr(multi_lora, "JOINED_BYTES", 3 * 4 * plan.blocks * 4 * sum(OUT) - 1)
        switch.plan = RowPlan(stack, torch.tensor(slots), often=True)
        for y, again in zip(before, joined(x), strict=True):  # each adapter by itself, rounded in between
            torch.testing.assert_close(y, again, rtol=2**-7, atol=2**-8 * float(y.abs().max()))
        assert plan.joins and not switch.plan.joins and not switch.plan._joined


def test_layers_keep_their_weights_in_the_joined_one() -> None:
    """Nothing is held twice: 64 + 32 + 96 rows of 64 numbers, of which each layer has its part."""
    layers = linears(AdapterSwitch(), quantized=False, indices=(0, 1, 2), biases=False)
    joined = JoinedLinear(layers)
    whole = joined.weight(torch.float32)
    assert whole.shape == (192, 64)
    storages = {layer.base.weight.untyped_storage().data_ptr() for layer in layers}
    assert storages == {whole.untyped_storage().data_ptr()}
    assert joined.bias(torch.float32) is None
