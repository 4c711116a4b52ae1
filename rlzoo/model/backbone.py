"""One frozen base model for many runs: loaded once, quantized on request, with per-row adapters on its linear layers.

    logits = model(tokens; W frozen, theta of each row's run)

The reference policy is the backbone without adapters; there is no second model. The model is always in eval mode, so
dropout is off while training too. The output head is never quantized, and logits are float32.

Three paths compute the same numbers. `use_fast_path` chooses by stated rules, and `describe` says which one is used:

    padded          transformers' model on padded rows: any model, and every model with fast_path = "off"
    packed          transformers' layers on packed rows: `packing.can_pack`
    packed, cpu     the layers of `rlzoo.model.cpu`: `LlamaLayers.of`, for short sequences; longer ones are packed
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from rlzoo.config.limits import check_runs
from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model import adapters, hub
from rlzoo.model.adapters import AdapterStack
from rlzoo.model.attach import attach, linear_layers, round_weights
from rlzoo.model.checkpoints import Checkpoints
from rlzoo.model.cpu.llama import LlamaLayers
from rlzoo.model.head import float32_logits
from rlzoo.model.multi_lora import AdapterBatch, AdapterSwitch
from rlzoo.model.packing import ATTENTION, PackedBatch, can_pack, packed_attention, pad_left
from rlzoo.model.prompts import Prompts
from rlzoo.model.reference import LENGTHS, Reference

WIDE = 512
"""Hidden size from which a matrix product on a CPU is worth several threads; at 128, two take 1.2 times as long."""


def resolve_device(config: BackboneConfig) -> torch.device:
    """Return the device to use; raises `UserError` for a name torch does not know or a GPU that is not there."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=config.device)
        if torch.device(config.device).type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"backbone.device {config.device!r} cannot be used here ({reason}): try auto or cpu") from error
    return torch.device(config.device)


def resolve_compute(config: BackboneConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of activations."""
    full = config.compute == "fp32" or (
        config.compute == "auto" and (device.type == "cpu" or config.precision == "fp32")
    )
    return torch.float32 if full else torch.bfloat16


class Backbone:
    """A frozen causal language model with its tokenizer, whose linear layers can carry many runs' adapters at once.

    Make one with `Backbone.load`. Attributes: config, model, tokenizer, layout (of theta), peft_config, device, dtype
    (of activations), pad_id, end_ids, context_length (None: unlimited), hidden_size (of the states that the head
    reads), vocab_size (of the logits), packs (whether rows are packed), checkpoints (of gradients).
    """

    def __init__(self, config: BackboneConfig, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.config, self.model, self.tokenizer, self.device = config, model, tokenizer, device
        self.dtype = resolve_compute(config, device)
        rows = model.get_input_embeddings().weight.shape[0]
        pad_id = hub.pad_id(tokenizer, config.pad_token, config.model)
        self.pad_id = pad_id if pad_id < rows else 0  # it is masked by position, so any token that has a row will do
        self.end_ids = hub.end_ids(model, tokenizer, config)
        self._prompts = Prompts(tokenizer, config, self.end_ids, rows)
        self._text = model.config.get_text_config()
        self.context_length = hub.context_length(self._text)
        self._head = model.get_output_embeddings()
        self.vocab_size, self.hidden_size = self._head.weight.shape
        self._decoder = model.get_decoder()
        self._takes = inspect.signature(self._decoder.forward).parameters.keys()
        model.requires_grad_(False).eval()
        linears = linear_layers(model)
        if config.precision == "bf16":  # before the reference, which is of the weights that are used
            round_weights(linears)
        self._reference = Reference.of(model, linears)
        self._attention: str = model.config._attn_implementation
        self._switch = AdapterSwitch()
        self.layout, self.peft_config, self._linears = attach(model, config, self._switch, linears, self._reference)
        model.requires_grad_(False).eval()
        self._holds = False
        self.packs, self._cpu_layers = False, None
        self.checkpoints = Checkpoints(self._decoder, self._switch)
        self._compare_padded()
        self._compared = False
        self.use_fast_path("auto")

    @classmethod
    def load(cls, config: BackboneConfig) -> Backbone:
        """Load the model and its tokenizer; whatever is wrong with them, or cannot be found, is a `UserError`."""
        name, device = hub.locate(config.model), resolve_device(config)
        model, tokenizer = hub.load(config, name, device, resolve_compute(config, device))
        try:
            return cls(config, model, tokenizer, device)
        except UserError:
            raise
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise UserError(
                f"{config.model!r} cannot be used as a backbone: {type(model).__name__} raised "
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error

    def use_fast_path(self, setting: Literal["auto", "off"]) -> None:
        """Choose the path: by the rules of the fast ones, or the padded one.

        Raises:
            UserError: a fast path that should be used computes something else than the model does.
        """
        auto = setting == "auto"
        self.packs = auto and self._attention == "sdpa" and can_pack(self.model)
        self._cpu_layers = LlamaLayers.of(self._decoder, self.dtype, self.device) if self.packs else None
        self.model.set_attn_implementation(ATTENTION if self.packs else self._attention)
        if self.packs and not self._compared:
            self._compare_packed()
            self._compared = True

    def use_checkpoints(self, enabled: bool) -> None:
        """Switch gradient checkpointing on or off. Raises `UserError` for a model without layers to do it at."""
        if enabled and not self.checkpoints.layers:
            raise UserError(
                f"engine.gradient_checkpointing: {type(self.model).__name__} has no layers that transformers declares "
                "for it; lower engine.micro_batch_tokens instead"
            )
        self.checkpoints.enabled = enabled

    @property
    def path(self) -> str:
        """Which path computes: "padded", "packed", or "packed, cpu"."""
        return ("packed, cpu" if self._cpu_layers else "packed") if self.packs else "padded"

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Return the tokens of a text, or of a list of chat messages followed by the opening of the model's turn."""
        return self._prompts.encode(prompt)

    def encode_continuation(self, text: str) -> list[int]:
        """Return the tokens of a text that continues others, without special tokens of the tokenizer's own."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_response(self, text: str) -> list[int]:
        """Return the tokens of a text as a response that comes to an end: the end token is the last."""
        end = self.tokenizer.eos_token_id
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_ids[0] if end is None else end]

    def decode(self, ids: list[int] | Tensor) -> str:
        """Return the text of the tokens, without special tokens and end marks; see `hub.decode`."""
        return hub.decode(self.tokenizer, self.end_ids, ids)

    def new_adapter(self, seed: int) -> Tensor:
        """Return a fresh theta [n] on the backbone's device; see `adapters.init_adapter`.

        Raises:
            UserError: it is larger than the memory of this machine.
        """
        check_runs(1, self.layout.size)
        return adapters.init_adapter(self.layout, seed).to(self.device)

    def save_adapter(self, theta: Tensor, folder: str | Path) -> None:
        """Write theta [n] in PEFT's format, with the value head beside it; see `adapters.save_adapter`."""
        adapters.save_adapter(self.layout, self.peft_config, theta, folder)

    def load_adapter(self, folder: str | Path) -> Tensor:
        """Read theta [n] onto the backbone's device; see `adapters.load_adapter`."""
        return adapters.load_adapter(self.layout, folder).to(self.device)

    def stack(self, thetas: list[Tensor], requires_grad: bool = False) -> AdapterStack:
        """Stack K vectors [n] side by side on the backbone's device; see `adapters.AdapterStack`."""
        return AdapterStack.of(self.layout, [theta.to(self.device) for theta in thetas], requires_grad)

    @contextlib.contextmanager
    def adapters(
        self,
        stack: AdapterStack | None,
        slot_B: Tensor | None,
        packed: bool = False,
        decoding: bool = False,
        before: AdapterBatch | None = None,
    ) -> Iterator[AdapterBatch | None]:
        """Within: row b goes through adapter slot_B[b] of the stack (sorted; -1: none). Stack None: no row has any.

        With `packed` the rows are the tokens of a packed batch, otherwise whole sequences. Yields the adapter batch,
        which the next one may be given as `before`; see `AdapterBatch`.
        """
        outer = self._switch.active
        self._switch.active = None if stack is None else AdapterBatch(stack, slot_B, packed, decoding, before)
        del before  # and what was merged for it
        try:
            yield self._switch.active
        finally:
            self._switch.active = outer

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Within: weights are held (`held_weights`), and products of a narrow model on a CPU have one thread."""
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and self.hidden_size < WIDE:
            torch.set_num_threads(1)
        try:
            with self.held_weights():
                yield
        finally:
            torch.set_num_threads(threads)

    @contextlib.contextmanager
    def held_weights(self, limit_bytes: int | None = None) -> Iterator[None]:
        """Within: NF4 weights are held dequantized, if they take no more than `limit_bytes` (if not given, 256 MiB on a
        CPU, 1 GiB on a GPU).

        Decoding needs them for every token: for a small model, rebuilding them takes longer than multiplying by them.
        """
        if limit_bytes is None:
            limit_bytes = 1 << (28 if self.device.type == "cpu" else 30)
        quantized = [linear for linear in self._linears if linear.quantized]
        size = sum(linear.base.weight.quant_state.shape.numel() for linear in quantized) * self.dtype.itemsize
        held = [] if self._holds or size > limit_bytes else quantized  # `_holds`: within another `with`
        try:
            for linear in held:
                linear.hold_dequantized(True)
            self._holds = self._holds or bool(held)
            yield
        finally:
            self._holds = self._holds and not held
            for linear in held:
                linear.hold_dequantized(False)

    def new_cache(self) -> Cache:
        """Return an empty key-value cache for decoding without gradient."""
        return DynamicCache(config=self.model.config)

    def states(self, input_ids: Tensor, attention_mask: Tensor, cache: Cache | None = None) -> Tensor:
        """Run the model on left-padded [B, S] tokens and return the states [B, S, hidden] that its output head reads.

        `attention_mask` [B, past + S]. Positions are counted from each row's first real token, up to the context's last
        one: rows of a batch that are done may be fed beyond it. A cache is filled.
        """
        width, last = input_ids.shape[1], None if self.context_length is None else self.context_length - 1
        kwargs: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        if "position_ids" in self._takes:
            kwargs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(0, last)[:, -width:]
        if self._cpu_layers and cache is not None and width == 1 and self._cpu_layers.fits(attention_mask.shape[1]):
            return self._cpu_layers.next_states(input_ids, kwargs["position_ids"], attention_mask.bool(), cache)
        return self._decoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state

    def packed_states(self, batch: PackedBatch) -> Tensor:
        """Run the model on a packed batch and return its states [N, hidden]; only where `packs`."""
        return self._packed_states(batch, self._cpu_layers)

    def _packed_states(self, batch: PackedBatch, layers: LlamaLayers | None) -> Tensor:
        again = self.checkpoints.enabled and torch.is_grad_enabled()
        if layers and not again and layers.fits_packed(batch, self.context_length):
            return layers.packed_states(batch)
        ready = torch.empty((1, 1, 1, 1), device=self.device)  # a mask of four dimensions is not made anew; ours unread
        with packed_attention(batch):
            return self._decoder(
                input_ids=batch.token_N[None],
                position_ids=batch.position_N[None],
                attention_mask=ready,
                use_cache=False,
            ).last_hidden_state[0]

    def logits(self, state: Tensor) -> Tensor:
        """Return the logits [.., vocabulary], float32, of states [.., hidden]."""
        return float32_logits(self._head, state, self._text)

    @torch.no_grad()
    def _compare_padded(self) -> None:
        """Raise `UserError` unless padded rows give the model's logits, at once and after a cache."""
        tokens, seen = pad_left(self._reference.rows, self.pad_id, self.device)
        at_once = self.logits(self.states(tokens, seen))
        cache = self.new_cache()
        self.states(tokens[:, :-1], seen[:, :-1], cache)
        last = self.logits(self.states(tokens[:, -1:], seen, cache))
        for logits, how in ((at_once, "in padded rows"), (last, "with a cache")):
            ours = [row[-length:] for row, length in zip(logits, LENGTHS, strict=True)]
            if not self._reference.agrees(ours, self.dtype):
                raise UserError(
                    f"{type(self.model).__name__} computes other logits {how} than by itself (relative error "
                    f"{self._reference.error(ours):.2g}), so it cannot be used as a backbone"
                )

    @torch.no_grad()
    def _compare_packed(self) -> None:
        """Raise `UserError` unless packed rows give the model's logits, by transformers' layers and on the CPU path."""
        rows = self._reference.rows
        heads, tails = [row[:2] for row in rows], [[*row[2:], row[0]] for row in rows]  # the last one is not fed
        each, width = torch.arange(len(rows)), max(map(len, tails))
        token_BT = torch.tensor([tail + [0] * (width - len(tail)) for tail in tails])
        exists_BT = (torch.arange(width) < torch.tensor([len(tail) for tail in tails])[:, None]).to(self.device)
        zeros_B = torch.zeros_like(each)
        batch = PackedBatch.of(heads, each, zeros_B, token_BT, exists_BT, exists_BT, self.pad_id)
        for layers in {None, self._cpu_layers}:
            state = self._packed_states(batch, layers).index_select(0, batch.before_R)
            ours = list(self.logits(state).split([len(tail) for tail in tails]))
            if not self._reference.agrees(ours, self.dtype):
                raise UserError(
                    f"{type(self.model).__name__} computes other logits when its rows are packed (relative error "
                    f"{self._reference.error(ours):.2g}): set engine.fast_path to 'off', and report it, please"
                )

    def describe(self) -> dict[str, Any]:
        """Return what a run folder records about the backbone."""
        tensors = {id(t): t for t in [*self.model.parameters(), *self.model.buffers()]}.values()
        packed = [linear.base.weight for linear in self._linears if linear.quantized]
        plain = sum(t.numel() for t in self.model.parameters()) - sum(weight.numel() for weight in packed)
        return {
            "model": self.config.model,
            "revision": getattr(self.model.config, "_commit_hash", None),
            "architecture": type(self.model).__name__,
            "precision": self.config.precision,
            "compute": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "path": self.path,
            "parameters": plain + sum(weight.quant_state.shape.numel() for weight in packed),
            "weight_bytes": sum(t.nbytes for t in tensors) + sum(_scale_bytes(weight.quant_state) for weight in packed),
            "adapter_parameters": self.layout.size,
            "adapted_layers": len(self.layout.layers),
            "hidden_size": self.hidden_size,
            "vocab_size": self.vocab_size,
            "context_length": self.context_length,
            "end_ids": self.end_ids,
        }


def _scale_bytes(state: Any) -> int:
    """Bytes of the block scales that go with a double-quantized weight."""
    return state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
