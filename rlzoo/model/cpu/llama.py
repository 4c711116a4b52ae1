"""Llama, Mistral and Qwen2 layers in float32 on a CPU: transformers' numbers in fewer operations.

    x  = embed(token)
    x += W_o attend(rotate(q), rotate(k), v),   q, k, v = W_q n, W_k n, W_v n,  n = norm(x)
    x += W_down (silu(W_gate n) * W_up n),      n = norm(x)                            for every layer
    state = norm(x)

A small model spends half of its time outside matrix products. Here each layer is one autograd function with a
hand-written gradient: it saves the input of each half and recomputes norms, activations and attention output, which
are cheap. The weights stay in transformers' modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import Cache, LlamaModel, MistralModel, Qwen2Model
from transformers.activations import ACT2FN

from rlzoo.model.cpu import attention
from rlzoo.model.cpu.fused_ops import normed, rms_norm, rms_norm_backward, rotate, signed, swiglu, swiglu_and_gradient
from rlzoo.model.cpu.packed_attention import Angles, PackedAttention, columns
from rlzoo.model.multi_lora import Active, MultiLoraLinear, active, product, product_backward
from rlzoo.model.packing import PackedBatch

CLASSES = (LlamaModel, MistralModel, Qwen2Model)
"""The exact classes of decoders that these layers can replace."""
MOVING_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on the length of the sequence."""


class LlamaLayers:
    """The layers of a decoder; make one with `LlamaLayers.of`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = [Layer(layer) for layer in model.layers]

    @classmethod
    def of(cls, model: Any, dtype: torch.dtype, device: torch.device) -> LlamaLayers | None:
        """Return the layers of a decoder, or None if they cannot replace transformers'.

        Conditions: float32 on a CPU, exactly one of `CLASSES`, silu activations, every linear layer replaced by a
        `MultiLoraLinear`, and rotary angles that do not depend on the sequence length.
        """
        if type(model) not in CLASSES or dtype != torch.float32 or device.type != "cpu":
            return None
        silu = all(type(layer.mlp.act_fn) is type(ACT2FN["silu"]) for layer in model.layers)
        rope = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
        known = all(type(linear) is MultiLoraLinear for layer in model.layers for linear in _linears(layer))
        return cls(model) if silu and known and rope not in MOVING_ROPE else None

    def fits(self, positions: int) -> bool:
        """Whether `next_states` may compute the last of `positions` positions: few enough, and no gradient."""
        return positions <= attention.SHORT and not torch.is_grad_enabled()

    def fits_packed(self, batch: PackedBatch, context: int | None) -> bool:
        """Whether the sequences of a packed batch are short enough for batched attention and within the context."""
        return columns(batch) <= min(attention.SHORT, context or attention.SHORT)

    def packed_states(self, batch: PackedBatch) -> Tensor:
        """Return the states [N, hidden] of packed tokens, with gradient if enabled."""
        x = self.model.embed_tokens(batch.token_N[None])[0]
        heads = PackedAttention(batch, self.layers[0].heads, self.layers[0].key_heads)
        cos, sin = self.model.rotary_emb(x, torch.arange(heads.columns)[None])
        angles = cos[0], signed(sin[0])
        for layer in self.layers:
            found = [active(linear, x[None]) for linear in layer.linears]
            batches = [adapters for adapters, _ in found]
            x = _PackedLayer.apply(x, layer, heads, angles, batches, *(part for _, pair in found for part in pair))
        return _Norm.apply(x, self.model.norm)

    @torch.no_grad()
    def next_states(self, token_B1: Tensor, position_B1: Tensor, seen_BP: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, 1, hidden] of one more token per row, and append its keys and values to the cache.

        seen_BP: bool, positions up to and including this one that are not padding.
        """
        x = self.model.embed_tokens(token_B1)
        cos, sin = (angles[:, None] for angles in self.model.rotary_emb(x, position_B1))
        angles = cos, signed(sin)
        mask = attention.additive(seen_BP, self.layers[0].key_heads, x.dtype)
        for index, layer in enumerate(self.layers):

            def attend(query: Tensor, key: Tensor, value: Tensor, layer: Layer = layer, index: int = index) -> Attended:
                query, key, value = (x.view(len(x), -1, 1, layer.head_dim) for x in (query, key, value))
                key, value = cache.update(rotate(key, *angles), value, index)
                out = attention.one_query(rotate(query, *angles), key, value, mask, layer.scaling)
                return out.view(len(out), 1, -1), ()

            x, _ = layer.forward(x, lambda linear, x: linear(x), attend)
        norm = self.model.norm
        return rms_norm(x, norm.weight, norm.variance_epsilon)[0]


Saved = tuple[Tensor, ...]
"""Tensors saved for the backward pass."""
Attended = tuple[Tensor, Saved]
Project = Callable[[MultiLoraLinear, Tensor], Tensor]
Pull = Callable[[Sequence[MultiLoraLinear], Tensor, Sequence[Tensor]], Tensor]


def _linears(layer: Any) -> list[Any]:
    """Return q, k, v, o, gate, up and down projection of a transformers layer."""
    own, mlp = layer.self_attn, layer.mlp
    return [own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


class Layer:
    """One layer's weights, with its forward and backward pass."""

    def __init__(self, layer: Any) -> None:
        own = layer.self_attn
        self.norm, self.second_norm = (
            (norm.weight, norm.variance_epsilon) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self.linears: list[MultiLoraLinear] = _linears(layer)
        self.qkv = self.linears[:3]
        self.o, self.gate, self.up, self.down = self.linears[3:]
        self.scaling: float = own.scaling
        self.head_dim: int = own.head_dim
        heads = self.o.base.in_features // own.head_dim
        self.heads, self.key_heads = heads, heads // own.num_key_value_groups

    def forward(
        self, x: Tensor, project: Project, attend: Callable[[Tensor, Tensor, Tensor], Attended]
    ) -> tuple[Tensor, Saved]:
        """Return the layer's output for x [.., hidden], and the tensors that `backward` needs.

        `project(linear, x)` applies a linear layer. `attend(query, key, value)` returns the attention output and the
        tensors that its backward pass needs.
        """
        first, r = rms_norm(x, *self.norm)
        attended, saved = attend(*(project(linear, first) for linear in self.qkv))
        mid = x + project(self.o, attended)
        second, second_r = rms_norm(mid, *self.second_norm)
        gate, up = project(self.gate, second), project(self.up, second)
        y = mid + project(self.down, swiglu(gate, up))
        return y, (x, r, mid, second_r, gate, up, *saved)

    def backward(
        self,
        g: Tensor,
        saved: Saved,
        pull: Pull,
        attend_again: Callable[[Saved], Tensor],
        attend_backward: Callable[[Tensor, Saved], tuple[Tensor, Tensor, Tensor]],
    ) -> Tensor:
        """Return the gradient of x, given the gradient g of the output.

        `pull(linears, x, gradients)` returns the gradient of x, the common input of the linear layers, given the
        gradients of their outputs. `attend_again(saved)` returns the attention output, and
        `attend_backward(gradient, saved)` the gradients of query, key and value.
        """
        x, r, mid, second_r, gate, up, *rest = saved
        by_attention = tuple(rest)
        dmid = self._mlp_backward(g, mid, second_r, gate, up, pull).add_(g)
        dattended = pull([self.o], attend_again(by_attention), (dmid,))
        dqkv = attend_backward(dattended, by_attention)
        dfirst = pull(self.qkv, normed(x, self.norm[0], r), dqkv)
        return rms_norm_backward(dfirst, x, self.norm[0], r).add_(dmid)

    def _mlp_backward(self, g: Tensor, mid: Tensor, r: Tensor, gate: Tensor, up: Tensor, pull: Pull) -> Tensor:
        """Return the gradient of `mid`, the MLP's input before its norm. As a function, it frees its tensors early."""
        activation, gradient = swiglu_and_gradient(gate, up)
        dgate_up = gradient(pull([self.down], activation, (g,)))
        dsecond = pull([self.gate, self.up], normed(mid, self.second_norm[0], r), dgate_up)
        return rms_norm_backward(dsecond, mid, self.second_norm[0], r)


class _PackedLayer(torch.autograd.Function):
    """A layer on packed tokens: x [N, hidden] -> [N, hidden]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: Layer,
        heads: PackedAttention,
        angles: Angles,
        batches: list[Any],
        *adapters: Tensor,
    ) -> Tensor:
        """`batches`: the adapter batch of each linear layer, or None; `adapters`: A and B of the layers with one."""
        found = _by_layer(layer, batches, adapters)

        def project(linear: MultiLoraLinear, x: Tensor) -> Tensor:
            batch, adapter = found[linear]
            return product(x, linear, batch, *adapter)

        y, saved = layer.forward(x, project, lambda *qkv: heads.forward(*qkv, angles, layer.scaling))
        ctx.layer, ctx.heads, ctx.angles, ctx.batches, ctx.count = layer, heads, angles, batches, len(adapters)
        ctx.save_for_backward(*adapters, *saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        layer, heads, adapters = ctx.layer, ctx.heads, ctx.saved_tensors[: ctx.count]
        found = _by_layer(layer, ctx.batches, adapters)
        of_adapters: dict[MultiLoraLinear, list[Tensor | None]] = {}
        of_x = ctx.needs_input_grad[0]

        def pull(linears: Sequence[MultiLoraLinear], x: Tensor, gs: Sequence[Tensor]) -> Tensor:
            dx, needed = None, of_x or linears is not layer.qkv
            for linear, g in zip(linears, gs, strict=True):
                batch, adapter = found[linear]
                dx, *of_adapters[linear] = product_backward(g, x, linear, batch, *adapter, of_x=needed, onto=dx)
            return torch.empty_like(x) if dx is None else dx  # the first layer's input needs no gradient

        dx = layer.backward(
            gradients[0],
            ctx.saved_tensors[ctx.count :],
            pull,
            heads.again,
            lambda g, saved: heads.backward(g, saved, ctx.angles, layer.scaling),
        )
        parts = (part for linear in layer.linears for part in of_adapters[linear])
        return dx if of_x else None, None, None, None, None, *parts


def _by_layer(layer: Layer, batches: list[Any], adapters: Sequence[Tensor]) -> dict[MultiLoraLinear, Active]:
    """Return adapter batch, A and B of each linear layer."""
    left = iter(adapters)
    return {
        linear: (None, ()) if batch is None else (batch, (next(left), next(left)))
        for linear, batch in zip(layer.linears, batches, strict=True)
    }


class _Norm(torch.autograd.Function):
    """The norm after the last layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Any) -> Tensor:
        y, r = rms_norm(x, norm.weight, norm.variance_epsilon)
        ctx.norm = norm
        ctx.save_for_backward(x, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, r = ctx.saved_tensors
        return rms_norm_backward(gradients[0].clone(), x, ctx.norm.weight, r), None
