"""The layers of Llama-like models (Llama, Mistral, Qwen2) written out: transformers' numbers, in fewer calls.

    x  = embed(token)
    x += W_o attend(turned q, turned k, v),     (q, k, v) = W_qkv norm(x)
    x += W_down swiglu(W_gate norm(x), W_up norm(x))                            layer after layer
    state = norm(x)

A small model spends half of its time between its products. Here a layer is one function with its gradient written out,
which keeps what it must and makes anew what is soon made: norms, activations and what attention gave. The weights stay
where transformers has them. Whether a model is of this kind is found out, not assumed: it must have these modules, and
`Backbone` compares the numbers, which tells in float32; in bfloat16 it must be one of the known classes besides. Lines
are float32, short, and on a CPU; a next token may be anything, anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import Cache, LlamaModel, MistralModel, Qwen2Model
from transformers.activations import ACT2FN

from rlzoo.model.cpu import attention
from rlzoo.model.cpu.fused_linear import JoinedLinear
from rlzoo.model.cpu.fused_ops import normed, rms_norm, rms_norm_backward, signed, swiglu, swiglu_and_gradient, turn
from rlzoo.model.cpu.packed_attention import Angles, LineAttention, columns
from rlzoo.model.multi_lora import FleetLinear, RowPlan, active, product, product_backward
from rlzoo.model.packing import Line

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
        self.layers = [Layer(layer) for layer in model.layers]

    @classmethod
    def of(cls, model: Any) -> Decoder | None:
        """Return the model's layers written out; None if it has other modules than these, or other norms or angles."""
        if not _has(model, PARTS) or not all(map(_is_like_llama, model.layers)):
            return None
        first = torch.zeros((1, 1), dtype=torch.int64, device=model.norm.weight.device)
        angles, _ = model.rotary_emb(model.norm.weight, first)
        known = hasattr(model.norm, "variance_epsilon") and angles.shape[-1] == model.layers[0].self_attn.head_dim
        return cls(model) if known else None

    @property
    def joined(self) -> list[JoinedLinear]:
        """All linear layers."""
        return [joined for layer in self.layers for joined in layer.joined]

    @property
    def known(self) -> bool:
        """Whether the model is of a class that is known to be of this kind, with its usual activation."""
        usual = all(type(layer.mlp.act_fn) is type(ACT2FN["silu"]) for layer in self.model.layers)
        return type(self.model) in (LlamaModel, MistralModel, Qwen2Model) and usual

    def takes(self, line: Line, longest: int) -> bool:
        """Whether a line is done in no more than so many columns, for which there are angles."""
        return columns(line) <= longest

    def line_states(self, line: Line) -> Tensor:
        """Return the states [N, hidden] of a line of tokens."""
        x = self.model.embed_tokens(line.token_N[None])[0]
        heads = LineAttention(line, self.layers[0].heads, self.layers[0].key_heads)
        cos, sin = self.model.rotary_emb(x, torch.arange(heads.columns)[None])
        angles = cos[0], signed(sin[0])
        for layer in self.layers:
            found = [active(linear, x[None]) for joined in layer.joined for linear in joined.layers]
            plans = [plan for plan, _ in found]
            x = _InLine.apply(x, layer, heads, angles, plans, *(adapter for _, pair in found for adapter in pair))
        return _Norm.apply(x, self.model.norm)

    @torch.no_grad()
    def next_states(self, token_B1: Tensor, position_B1: Tensor, seen_BP: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, 1, hidden] of one token more per row, which the cache is given.

        seen_BP: bool, the positions up to this one that are not padding.
        """
        x = self.model.embed_tokens(token_B1)
        cos, sin = (angles[:, None] for angles in self.model.rotary_emb(x, position_B1))
        angles = cos, signed(sin)
        room, _ = cache.layers[0].get_mask_sizes(1)
        mask = attention.additive(F.pad(seen_BP, (0, room - seen_BP.shape[1])), self.layers[0].key_heads, x.dtype)
        for index, layer in enumerate(self.layers):

            def attend(query: Tensor, key: Tensor, value: Tensor, layer: Layer = layer, index: int = index) -> Attended:
                query, key, value = (x.view(len(x), -1, 1, layer.head_dim) for x in (query, key, value))
                key, value = cache.update(turn(key, *angles), value, index)
                out = attention.one_query(turn(query, *angles), key, value, mask, layer.scaling)
                return out.view(len(out), 1, -1), ()

            x, _ = layer.forward(x, _norm_alone, JoinedLinear.__call__, attend)
        norm = self.model.norm
        return _norm_alone(x, norm.weight, norm.variance_epsilon)[0]


Kept = tuple[Tensor, ...]
"""What a gradient needs."""
Attended = tuple[Tensor, Kept]
Pull = Callable[[JoinedLinear, Tensor, tuple[Tensor, ...]], Tensor]


class Layer:
    """One layer: its parts under short names, and what it does."""

    def __init__(self, layer: Any) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self.norm, self.second_norm = (
            (norm.weight, norm.variance_epsilon) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self.qkv = JoinedLinear([own.q_proj, own.k_proj, own.v_proj])
        self.o = JoinedLinear([own.o_proj])
        self.gate_up = JoinedLinear([mlp.gate_proj, mlp.up_proj])
        self.down = JoinedLinear([mlp.down_proj])
        self.joined = [self.qkv, self.o, self.gate_up, self.down]
        self.scaling: float = own.scaling
        self.head_dim: int = own.head_dim
        self.heads, self.key_heads = (size // own.head_dim for size in self.qkv.sizes[:2])

    def forward(
        self,
        x: Tensor,
        norm: Callable[[Tensor, Tensor, float], tuple[Tensor, Any]],
        project: Callable[[JoinedLinear, Tensor], tuple[Tensor, ...]],
        attend: Callable[[Tensor, Tensor, Tensor], Attended],
    ) -> tuple[Tensor, Kept]:
        """Return what the layer makes of x [.., hidden], and what `backward` asks for.

        `norm(x, weight, eps)` returns the norm of x and what its gradient asks for; `project(linear layers, x)` what
        each makes of x; `attend(query, key, value)` what attention makes of them, and what it keeps itself.
        """
        first, r = norm(x, *self.norm)
        attended, kept = attend(*project(self.qkv, first))
        mid = x + project(self.o, attended)[0]
        second, second_r = norm(mid, *self.second_norm)
        gate, up = project(self.gate_up, second)
        y = mid + project(self.down, swiglu(gate, up))[0]
        return y, (x, r, mid, second_r, gate, up, *kept)

    def backward(
        self,
        g: Tensor,
        kept: Kept,
        pull: Pull,
        attend_again: Callable[[Kept], Tensor],
        attend_backward: Callable[[Tensor, Kept], tuple[Tensor, Tensor, Tensor]],
    ) -> Tensor:
        """Return the gradient of x, given that of what came out.

        `pull(linear layers, x, gradients)` returns the gradient of their x, given those of what they made of it;
        `attend_again(kept)` what attention made, and `attend_backward(gradient, kept)` the gradients of what it was of.
        """
        x, r, mid, second_r, gate, up, *kept_by_attention = kept
        dmid = self._swiglu_backward(g, mid, second_r, gate, up, pull).add_(g)
        dattended = pull(self.o, attend_again(tuple(kept_by_attention)), (dmid,))
        dqkv = attend_backward(dattended, tuple(kept_by_attention))
        dfirst = pull(self.qkv, normed(x, self.norm[0], r), dqkv)
        return rms_norm_backward(dfirst, x, self.norm[0], r).add_(dmid)

    def _swiglu_backward(self, g: Tensor, mid: Tensor, r: Tensor, gate: Tensor, up: Tensor, pull: Pull) -> Tensor:
        """The gradient of what stands before the second norm; its wide numbers go with this call."""
        activation, gradient = swiglu_and_gradient(gate, up)
        dgate_up = gradient(pull(self.down, activation, (g,)))
        dsecond = pull(self.gate_up, normed(mid, self.second_norm[0], r), dgate_up)
        return rms_norm_backward(dsecond, mid, self.second_norm[0], r)


def _norm_alone(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Any]:
    """Root-mean-square norm of the next tokens, of which no gradient is asked for: on a GPU, a single kernel."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return rms_norm(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps), None


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


class _InLine(torch.autograd.Function):
    """A layer on a line of tokens: x [N, hidden] -> [N, hidden]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: Layer,
        heads: LineAttention,
        angles: Angles,
        plans: list[RowPlan | None],
        *adapters: Tensor,
    ) -> Tensor:
        """`plans`: that of each linear layer; `adapters`: A and B of each that has a plan."""
        found = _found(layer, plans, adapters)
        y, kept = layer.forward(
            x,
            rms_norm,
            lambda joined, x: tuple(product(x, linear, *found[linear]) for linear in joined.layers),
            lambda *qkv: heads.forward(*qkv, angles, layer.scaling),
        )
        ctx.layer, ctx.heads, ctx.angles, ctx.plans, ctx.count = layer, heads, angles, plans, len(adapters)
        ctx.save_for_backward(*adapters, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        layer, heads, adapters = ctx.layer, ctx.heads, ctx.saved_tensors[: ctx.count]
        found, of_adapters = _found(layer, ctx.plans, adapters), {}
        of_x = ctx.needs_input_grad[0]

        def pull(joined: JoinedLinear, x: Tensor, gs: tuple[Tensor, ...]) -> Tensor:
            dx, needed = None, of_x or joined is not layer.qkv
            for linear, g in zip(joined.layers, gs, strict=True):
                dx, *of_adapters[linear] = product_backward(g, x, linear, *found[linear], of_x=needed, onto=dx)
            return torch.empty_like(x) if dx is None else dx  # of the first layer nobody asks for it

        dx = layer.backward(
            gradients[0],
            ctx.saved_tensors[ctx.count :],
            pull,
            heads.again,
            lambda g, kept: heads.backward(g, kept, ctx.angles, layer.scaling),
        )
        return dx if of_x else None, None, None, None, None, *(x for linear in found for x in of_adapters[linear])


def _found(layer: Layer, plans: list[RowPlan | None], adapters: Sequence[Tensor]) -> dict[FleetLinear, tuple[Any, ...]]:
    """Plan and adapter of each linear layer, as `product` asks for them."""
    linears, left = [linear for joined in layer.joined for linear in joined.layers], iter(adapters)
    return {
        linear: (plan,) if plan is None else (plan, next(left), next(left))
        for linear, plan in zip(linears, plans, strict=True)
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
