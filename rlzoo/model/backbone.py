"""One frozen base model for many runs: loaded once, optionally quantized, with per-row adapters on its linear layers.

    logits = model(tokens; W frozen, theta of each row's run)

The reference policy is the backbone without adapters; there is no second model. The model is always in eval mode, so
dropout is off in training as well. The output head is never quantized, and logits are float32.

Three paths compute the same logits up to rounding. `use_fast_path` chooses by rule; `describe` records the choice:

    padded          transformers' model on padded rows; always with fast_path = "off"
    packed          transformers' layers on packed rows, where `packing.can_pack` allows it
    packed, cpu     packed rows through `rlzoo.model.cpu`, where `LlamaLayers.of` allows it and sequences are short
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
from rlzoo.model.device import resolve_compute, resolve_device
from rlzoo.model.head import float32_logits
from rlzoo.model.multi_lora import AdapterBatch, AdapterSwitch
from rlzoo.model.packing import ATTENTION, PackedBatch, can_pack, packed_attention, pad_left
from rlzoo.model.prompts import Prompts
from rlzoo.model.reference import LENGTHS, Reference

WIDE = 512
"""Hidden size from which several threads speed up a matrix product on a CPU; at 128, two threads take 1.2 times as long
as one."""


class Backbone:
    """A frozen causal language model with its tokenizer; its linear layers apply the adapters of several runs at once.

    Make one with `Backbone.load`.

    Attributes:
        config, model, tokenizer, source: settings, transformers' model, its tokenizer, the folder or Hub name it is of.
        layout, peft_config: layout of theta, the vector that a run trains; PEFT's configuration of the adapters.
        device, dtype: of the weights; of activations.
        pad_id, end_ids: padding token; tokens that end a response.
        context_length: most positions of a sequence; None: unlimited.
        hidden_size, vocab_size: widths of the states that the output head reads, and of the logits.
        packs, checkpoints: whether rows are packed; gradient checkpointing, off until switched on.

    Raises:
        UserError: the model has no pad or end token, no layer to adapt, or other logits through this class than alone.
    """

    def __init__(
        self, config: BackboneConfig, model: Any, tokenizer: Any, device: torch.device, source: str | None = None
    ) -> None:
        self.config, self.model, self.tokenizer, self.device, self.source = config, model, tokenizer, device, source
        self.dtype = resolve_compute(config, device)
        rows = model.get_input_embeddings().weight.shape[0]
        pad_id = hub.pad_id(tokenizer, config.pad_token, config.model)
        self.pad_id = pad_id if pad_id < rows else 0  # padding is masked by position, so any token in range will do
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
        if config.precision == "bf16":  # first, so that the reference logits come from the rounded weights
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
        """Load the model and its tokenizer.

        Raises:
            UserError: they cannot be found, loaded or used as a backbone.
        """
        name, device = hub.locate(config.model), resolve_device(config)
        model, tokenizer = hub.load(config, name, device, resolve_compute(config, device))
        try:
            return cls(config, model, tokenizer, device, name)
        except UserError:
            raise
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise UserError(
                f"{config.model!r} cannot be used as a backbone: {type(model).__name__} raised "
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error

    def use_fast_path(self, setting: Literal["auto", "off"]) -> None:
        """Choose the path: "auto", the fastest one whose conditions hold; "off", the padded one.

        Raises:
            UserError: the chosen path computes other logits than the untouched model.
        """
        auto = setting == "auto"
        self.packs = auto and self._attention == "sdpa" and can_pack(self.model)
        self._cpu_layers = LlamaLayers.of(self._decoder, self.dtype, self.device) if self.packs else None
        self.model.set_attn_implementation(ATTENTION if self.packs else self._attention)
        if self.packs and not self._compared:
            self._compare_packed()
            self._compared = True

    def use_checkpoints(self, enabled: bool) -> None:
        """Switch gradient checkpointing on or off.

        Raises:
            UserError: transformers declares no layer of this model for checkpointing.
        """
        if enabled and not self.checkpoints.layers:
            raise UserError(
                f"engine.gradient_checkpointing: transformers declares no layers of {type(self.model).__name__} for "
                "it; lower engine.micro_batch_tokens instead"
            )
        self.checkpoints.enabled = enabled

    @property
    def path(self) -> str:
        """The path in use: "padded", "packed" or "packed, cpu"."""
        return ("packed, cpu" if self._cpu_layers else "packed") if self.packs else "padded"

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Return the tokens of a text, or of chat messages followed by the start of the model's turn.

        Raises:
            UserError: see `prompts.Prompts.encode`.
        """
        return self._prompts.encode(prompt)

    def encode_continuation(self, text: str) -> list[int]:
        """Return the tokens of a text that continues a sequence, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_response(self, text: str) -> list[int]:
        """Return the tokens of a complete response: those of the text, then the end token."""
        end = self.tokenizer.eos_token_id
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_ids[0] if end is None else end]

    def decode(self, ids: list[int] | Tensor) -> str:
        """Return the text of the tokens, without special tokens and end markers; see `hub.decode`."""
        return hub.decode(self.tokenizer, self.end_ids, ids)

    def new_adapter(self, seed: int) -> Tensor:
        """Return a fresh theta [n] on the backbone's device; see `adapters.init_adapter`.

        Raises:
            UserError: its optimizer state does not fit into the memory of this machine (`config.limits.check_runs`).
        """
        check_runs(1, self.layout.size)
        return adapters.init_adapter(self.layout, seed).to(self.device)

    def save_adapter(self, theta: Tensor, folder: str | Path) -> None:
        """Write theta [n] in PEFT's format, and its value head; see `adapters.save_adapter`."""
        adapters.save_adapter(self.layout, self.peft_config, theta, folder)

    def load_adapter(self, folder: str | Path) -> Tensor:
        """Read theta [n] onto the backbone's device; see `adapters.load_adapter`."""
        return adapters.load_adapter(self.layout, folder).to(self.device)

    def stack(self, thetas: list[Tensor], requires_grad: bool = False) -> AdapterStack:
        """Stack K vectors [n] on the backbone's device; see `adapters.AdapterStack`."""
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
        """Within: row b uses adapter slot_B[b] of the stack (sorted; -1: none). Stack None: no row has an adapter.

        With `packed` the rows are the tokens of a packed batch, otherwise whole sequences. Yields the adapter batch;
        pass it as `before` to the next call with the same adapters, which then reuses its merged weights.

        Raises:
            ValueError: slots are not sorted, or not in the stack.
        """
        outer = self._switch.active
        self._switch.active = None if stack is None else AdapterBatch(stack, slot_B, packed, decoding, before)
        del before  # frees its merged weights if the new batch does not reuse them
        try:
            yield self._switch.active
        finally:
            self._switch.active = outer

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Within: dequantized weights are kept (`held_weights`), and a narrow model on a CPU uses one thread."""
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
        """Within: NF4 weights are kept dequantized if they take at most `limit_bytes`: by default 256 MiB on a CPU and
        1 GiB on a GPU.

        Decoding uses every weight for every token. In a small model, dequantizing takes longer than multiplying.
        """
        if limit_bytes is None:
            limit_bytes = 1 << (28 if self.device.type == "cpu" else 30)
        quantized = [linear for linear in self._linears if linear.quantized]
        size = sum(linear.base.weight.quant_state.shape.numel() for linear in quantized) * self.dtype.itemsize
        held = [] if self._holds or size > limit_bytes else quantized  # `_holds`: an outer `with` keeps them already
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
        """Run the model on left-padded tokens [B, S] and return the states [B, S, hidden] that its output head reads.

        `attention_mask` [B, past + S]. Positions count from each row's first real token and stop at the context's last
        one, because finished rows of a batch may be fed beyond it. A given cache is extended by the S tokens.
        """
        width, last = input_ids.shape[1], None if self.context_length is None else self.context_length - 1
        kwargs: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        if "position_ids" in self._takes:
            kwargs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(0, last)[:, -width:]
        if self._cpu_layers and cache is not None and width == 1 and self._cpu_layers.fits(attention_mask.shape[1]):
            return self._cpu_layers.next_states(input_ids, kwargs["position_ids"], attention_mask.bool(), cache)
        return self._decoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state

    def packed_states(self, batch: PackedBatch) -> Tensor:
        """Run the model on a packed batch and return its states [N, hidden]. Requires `packs`."""
        return self._packed_states(batch, self._cpu_layers)

    def _packed_states(self, batch: PackedBatch, layers: LlamaLayers | None) -> Tensor:
        again = self.checkpoints.enabled and torch.is_grad_enabled()
        if layers and not again and layers.fits_packed(batch, self.context_length):
            return layers.packed_states(batch)
        ready = torch.empty((1, 1, 1, 1), device=self.device)  # of 4 dimensions: transformers makes no mask; unused
        with packed_attention(batch):
            return self._decoder(
                input_ids=batch.token_N[None],
                position_ids=batch.position_N[None],
                attention_mask=ready,
                use_cache=False,
            ).last_hidden_state[0]

    def logits(self, state: Tensor) -> Tensor:
        """Return float32 logits [.., vocabulary] of states [.., hidden]."""
        return float32_logits(self._head, state, self._text)

    @torch.no_grad()
    def _compare_padded(self) -> None:
        """Raise `UserError` unless padded rows give the untouched model's logits, with and without a cache."""
        tokens, seen = pad_left(self._reference.rows, self.pad_id, self.device)
        at_once = self.logits(self.states(tokens, seen))
        cache = self.new_cache()
        self.states(tokens[:, :-1], seen[:, :-1], cache)
        last = self.logits(self.states(tokens[:, -1:], seen, cache))
        for logits, how in ((at_once, "with padding"), (last, "with a cache")):
            ours = [row[-length:] for row, length in zip(logits, LENGTHS, strict=True)]
            if not self._reference.agrees(ours, self.dtype):
                raise UserError(
                    f"{type(self.model).__name__} computes other logits {how} than without (relative error "
                    f"{self._reference.error(ours):.2g}), so it cannot be used as a backbone"
                )

    @torch.no_grad()
    def _compare_packed(self) -> None:
        """Raise `UserError` unless packed rows give the untouched model's logits, in both implementations."""
        rows = self._reference.rows
        heads, tails = [row[:2] for row in rows], [[*row[2:], row[0]] for row in rows]  # the last token is not fed
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
                    f"{self._reference.error(ours):.2g}): set engine.fast_path to 'off', and please report this"
                )

    def describe(self) -> dict[str, Any]:
        """Return the JSON description of the backbone that a run folder stores."""
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
    """Bytes of the block scales of a quantized weight."""
    return state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
