"""The layers of Llama-like models (Llama, Mistral, Qwen2) written out: transformers' numbers, in fewer calls.

    x  = embed(token)
    x += W_o attend(turned q, turned k, v),     (q, k, v) = W_qkv norm(x)
    x += W_down swiglu(W_gate norm(x), W_up norm(x))                            layer after layer
    state = norm(x)

A small model spends half of its time between its products. Here what needs several calls is one function, with its
gradient written out. The weights stay where transformers has them. Whether a model is of this kind is found out, not
assumed: it must have these modules, and `Backbone` compares the numbers. Float32, on a CPU, for short sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache

from rlzoo import attention
from rlzoo.fleet_linear import FleetLinear
from rlzoo.functions import rms_norm, signed, swiglu, turned
from rlzoo.joined_linear import JoinedLinear
from rlzoo.line import Line

PARTS = {"embed_tokens", "layers", "norm", "rotary_emb"}
LAYER_PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
"""The modules that a model of this kind has, and each of its layers; they have no others."""


class Decoder:
    """Llama-like layers; make one with `Decoder.of`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = [Layer(layer, index) for index, layer in enumerate(model.layers)]
        self.norm = _norm(model.norm)

    @classmethod
    def of(cls, model: Any) -> Decoder | None:
        """Return the model's layers written out; None if it has other modules than these, or other norms or angles."""
        if not _has(model, PARTS) or not all(map(_is_like_llama, model.layers)):
            return None
        angles, _ = model.rotary_emb(model.norm.weight, torch.zeros((1, 1), dtype=torch.int64))
        known = hasattr(model.norm, "variance_epsilon") and angles.shape[-1] == model.layers[0].self_attn.head_dim
        return cls(model) if known else None

    @property
    def joined(self) -> list[JoinedLinear]:
        """All layers that are one product where they can be."""
        return [joined for layer in self.layers for joined in (layer.qkv, layer.gate_up)]

    def line_states(self, line: Line) -> Tensor:
        """Return the states [N, hidden] of a line of tokens."""
        x = self.model.embed_tokens(line.token_N[None])
        cos, sin = self.model.rotary_emb(x, line.position_N[None])
        shape, place_L = line.sequence_BS.shape, line.sequence_BS.flatten()
        turn = [angles[0].index_select(0, place_L).view(shape[0], 1, shape[1], -1) for angles in (cos, signed(sin))]

        def attend(layer: Layer, *qkv: Tensor) -> Tensor:
            return _InLine.apply(*qkv, line, layer, *turn)

        return self._through(x, attend)[0]

    @torch.no_grad()
    def next_states(self, token_B1: Tensor, position_B1: Tensor, seen_BP: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, 1, hidden] of one token more per row, which the cache is given.

        seen_BP: bool, the positions up to this one that are not padding.
        """
        x = self.model.embed_tokens(token_B1)
        cos, sin = (angles[:, None] for angles in self.model.rotary_emb(x, position_B1))
        turn = cos, signed(sin)
        room, _ = cache.layers[0].get_mask_sizes(1)
        mask = F.pad(seen_BP, (0, room - seen_BP.shape[1]))[:, None, None]

        def attend(layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            key, value = cache.update(turned(layer.heads(key), *turn), layer.heads(value), layer.index)
            out = attention.one_query(turned(layer.heads(query), *turn), key, value, mask, layer.scaling)
            return out.flatten(1)[:, None]

        return self._through(x, attend)

    def _through(self, x: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """Send embedded tokens [.., hidden] through all layers; `attend(layer, q, k, v)` makes what attention adds."""
        for layer in self.layers:
            x = x + layer.o(attend(layer, *layer.qkv(layer.norm(x))))
            x = x + layer.down(swiglu(*layer.gate_up(layer.second_norm(x))))
        return self.norm(x)


class Layer:
    """The parts of one layer under short names."""

    def __init__(self, layer: Any, index: int) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self.index = index
        self.norm, self.second_norm = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.qkv = JoinedLinear([own.q_proj, own.k_proj, own.v_proj])
        self.gate_up = JoinedLinear([mlp.gate_proj, mlp.up_proj])
        self.o: FleetLinear = own.o_proj
        self.down: FleetLinear = mlp.down_proj
        self.scaling: float = own.scaling
        self.head_dim: int = own.head_dim

    def heads(self, x: Tensor) -> Tensor:
        """Return x [B, S, heads * d] as [B, heads, S, d]."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def _has(module: Any, parts: set[str]) -> bool:
    return {name for name, _ in module.named_children()} == parts


def _is_like_llama(layer: Any) -> bool:
    if not all(_has(layer.get_submodule(name), parts) for name, parts in LAYER_PARTS.items()):  # the layer itself first
        return False
    linear = [module for name, module in layer.named_modules() if name.endswith("_proj")]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    return (
        all(isinstance(module, FleetLinear) for module in linear)
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
        and hasattr(layer.self_attn, "scaling")
        and hasattr(layer.self_attn, "head_dim")
    )


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: rms_norm(x, module.weight, module.variance_epsilon)


class _InLine(torch.autograd.Function):
    """Attention of a line (see `rlzoo.line`): queries, keys and values [1, N, heads * d] -> [1, N, heads * d].

    cos and signed_sin [B, 1, S, d] are the angles by which queries and keys are turned first.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, line: Line, layer: Layer, cos: Tensor, signed_sin: Tensor
    ) -> Tensor:
        rows, longest = line.sequence_BS.shape
        place_L = line.sequence_BS.flatten()
        query, key, value = (
            layer.heads(x[0].index_select(0, place_L).view(rows, longest, -1)).contiguous() for x in (query, key, value)
        )
        query, key = turned(query, cos, signed_sin), turned(key, cos, signed_sin)
        out, p_KRS = attention.causal_forward(query, key, value, layer.scaling)
        ctx.save_for_backward(query, key, value, p_KRS, cos, signed_sin)
        ctx.line, ctx.layer = line, layer
        return out.transpose(1, 2).reshape(rows * longest, -1).index_select(0, line.reader_N)[None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, p_KRS, cos, signed_sin = ctx.saved_tensors
        line, layer, g_NO = ctx.line, ctx.layer, gradients[0][0]
        rows, longest = line.sequence_BS.shape
        g_LO = g_NO.new_zeros(rows * longest, g_NO.shape[1]).index_add_(0, line.reader_N, g_NO)
        g = layer.heads(g_LO.view(rows, longest, -1))
        dquery, dkey, dvalue = attention.causal_backward(g, query, key, value, p_KRS, layer.scaling)
        dquery, dkey = turned(dquery, cos, -signed_sin), turned(dkey, cos, -signed_sin)

        def in_line(x: Tensor) -> Tensor:
            x_LO = x.transpose(1, 2).reshape(rows * longest, -1)
            return x.new_zeros(len(g_NO), x_LO.shape[1]).index_add_(0, line.sequence_BS.flatten(), x_LO)[None]

        return in_line(dquery), in_line(dkey), in_line(dvalue), None, None, None, None
