"""One frozen base model for many runs: loaded once, quantized on request, with per-row adapters on its linear layers.

    logits = model(tokens; W frozen, theta of each row's run)

The reference policy is the backbone with adapters off; there is no second model anywhere. The model is always in eval
mode, so dropout is off while training too. The output head is never quantized.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Cache,
    DynamicCache,
)

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model import adapters, hub
from rlzoo.model.adapters import AdaptedLayer, AdapterLayout, AdapterStack, to_peft
from rlzoo.model.cpu import attention
from rlzoo.model.cpu.llama import Decoder
from rlzoo.model.kv_cache import ROOM, with_room
from rlzoo.model.multi_lora import AdapterSwitch, FleetLinear, RowPlan
from rlzoo.model.packing import ATTENTION, Line, attending
from rlzoo.model.prompts import Prompts


def resolve_device(config: BackboneConfig) -> torch.device:
    """Return the device to use; raises `UserError` for a name torch does not know or a GPU that is not there."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
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
    (of activations), pad_id, end_ids, context_length (None: unlimited), hidden_size, vocab_size.
    """

    def __init__(self, config: BackboneConfig, model: nn.Module, tokenizer: Any, device: torch.device) -> None:
        self.config, self.model, self.tokenizer, self.device = config, model, tokenizer, device
        self.dtype = resolve_compute(config, device)
        self.pad_id = hub.pad_id(tokenizer, config.pad_token, config.model)
        self.end_ids = hub.end_ids(model, tokenizer, config)
        self._prompts = Prompts(tokenizer, config, self.end_ids)
        text = model.config.get_text_config()
        self.hidden_size, self.vocab_size = int(text.hidden_size), int(text.vocab_size)
        self.context_length: int | None = getattr(text, "max_position_embeddings", None)
        self._switch = AdapterSwitch()
        self.layout, self.peft_config, self._linears = _attach(model, config, self._switch)
        self._decoder = model.get_decoder()
        self._takes = inspect.signature(self._decoder.forward).parameters.keys()
        model.requires_grad_(False).eval()
        self._plain = self.dtype == torch.float32 and self.device.type == "cpu"
        self._written: Decoder | None = None
        self._check_head()
        self.takes_lines = self._try_line()
        self._written = self._try_written()
        self._holds = False

    @classmethod
    def load(cls, config: BackboneConfig) -> Backbone:
        """Load the model and its tokenizer; whatever is wrong with them, or cannot be found, is a `UserError`."""
        name, device = hub.locate(config.model), resolve_device(config)
        dtype = resolve_compute(config, device)
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        with hub.quiet_loading():
            try:
                tokenizer = hub.load_tokenizer(name)
                model = AutoModelForCausalLM.from_pretrained(
                    name,
                    dtype=dtype,
                    device_map={"": device},
                    quantization_config=quantization if config.precision == "nf4" else None,
                    trust_remote_code=False,  # left out, transformers asks on stdin whether to run a model's code
                )
            except Exception as error:  # of a file cut short, a pickle, sizes that do not fit: each reader's own kinds
                raise UserError(hub.why_not_loaded(config.model, error)) from error
        return cls(config, model, tokenizer, device)

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Return the tokens of a text, or of a list of chat messages followed by the opening of the model's turn."""
        return self._prompts.encode(prompt)

    def encode_response(self, text: str) -> list[int]:
        """Return the tokens of a text as a response that comes to an end: the end token is the last."""
        end = self.tokenizer.eos_token_id
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_ids[0] if end is None else end]

    def decode(self, ids: list[int] | Tensor) -> str:
        """Return the text of the tokens, without special tokens and end marks; see `hub.decode`."""
        return hub.decode(self.tokenizer, self.end_ids, ids)

    def new_adapter(self, seed: int) -> Tensor:
        """Return a fresh theta [n] on the backbone's device; see `adapters.init_adapter`."""
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
        in_line: bool = False,
        often: bool = False,
        before: RowPlan | None = None,
    ) -> Iterator[RowPlan | None]:
        """Within: row b goes through adapter slot_B[b] of the stack (sorted; -1: none). Stack None: no row has any.

        With `in_line` the rows are the tokens of a line, otherwise whole sequences. Gives the plan of that, which the
        next may be told of as `before`; for this and `often` see `RowPlan`.
        """
        outer = self._switch.plan
        self._switch.plan = None if stack is None else RowPlan(stack, slot_B, in_line, often, before)
        del before  # and what was merged for it
        try:
            yield self._switch.plan
        finally:
            self._switch.plan = outer

    @contextlib.contextmanager
    def held_weights(self, limit_bytes: int | None = None) -> Iterator[None]:
        """Within: NF4 weights are held dequantized, if they take no more than `limit_bytes` (if not given, 256 MiB, or
        1 GiB of a GPU); where layers are written out, those that read the same input are held as one besides, so twice.

        Decoding needs them for every token: for a small model, rebuilding them takes longer than multiplying by them.
        """
        if limit_bytes is None:
            limit_bytes = 1 << (28 if self.device.type == "cpu" else 30)
        quantized = [linear for linear in self._linears if linear.quantized]
        size = sum(linear.base.weight.quant_state.shape.numel() for linear in quantized) * self.dtype.itemsize
        joined = self._written.joined if self._written and quantized else []
        nothing = self._holds or size > limit_bytes  # `_holds`: within another `with`
        held = [] if nothing else [*quantized, *joined]
        try:
            for linear in held:
                linear.hold_dequantized(True)
            self._holds = self._holds or bool(held)
            yield
        finally:
            self._holds = self._holds and not held
            for linear in held:
                linear.hold_dequantized(False)

    def new_cache(self, rows: int, positions: int) -> Cache:
        """Return an empty key-value cache for decoding so many rows and positions at most, without gradient; sliding
        windows and the like included."""
        cache = DynamicCache(config=self.model.config)
        # Models with attention of their own (ALiBi's biases, say) may count on keys being as many as the tokens seen.
        return with_room(cache, rows, positions) if self.model._supports_attention_backend else cache

    def states(self, input_ids: Tensor, attention_mask: Tensor, cache: Cache | None = None) -> Tensor:
        """Run the model on left-padded [B, S] tokens and return the states [B, S, hidden] that its output head reads.

        `attention_mask` [B, past + S]. Positions are counted from each row's first real token, up to the context's last
        one: rows of a batch that are done may be fed beyond it. A cache is filled.
        """
        width, last = input_ids.shape[1], None if self.context_length is None else self.context_length - 1
        kwargs: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        if "position_ids" in self._takes:
            kwargs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(0, last)[:, -width:]
        short = attention_mask.shape[1] + ROOM <= attention.SHORT or self.device.type != "cpu"
        if self._written and short and width == 1 and cache is not None and not torch.is_grad_enabled():
            return self._written.next_states(input_ids, kwargs["position_ids"], attention_mask.bool(), cache)
        return self._decoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state

    def line_states(self, line: Line) -> Tensor:
        """Run the model on a line of tokens and return their states [N, hidden]; only where `takes_lines`."""
        longest = min(attention.SHORT, self.context_length or attention.SHORT)
        if self._written and self._plain and self._written.takes(line, longest):
            return self._written.line_states(line)
        ready = torch.empty((1, 1, 1, 1), device=self.device)  # a mask of four dimensions is not made anew; ours unread
        with attending(line):
            return self._decoder(
                input_ids=line.token_N[None],
                position_ids=line.position_N[None],
                attention_mask=ready,
                use_cache=False,
            ).last_hidden_state[0]

    def logits(self, state: Tensor) -> Tensor:
        """Return the logits [..., vocabulary] of states [..., hidden]: the head, and what the model does after it."""
        return _after_head(self.model.get_output_embeddings()(state), self.model.config.get_text_config())

    @torch.no_grad()
    def _check_head(self) -> None:
        """Compare `logits(states(..))`, all that is ever used, with the model's own, once, on a few tokens."""
        tokens = torch.arange(4, device=self.device)[None] % self.vocab_size
        seen = torch.ones_like(tokens)
        whole = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits.float()
        ours = self.logits(self.states(tokens, seen)).float()
        if not torch.allclose(ours, whole, rtol=2e-2, atol=2e-2 * float(whole.abs().max())):
            raise UserError(
                f"{type(self.model).__name__} makes its logits in a way that is not known here (its head, then soft "
                "capping or a constant factor): it cannot be used as a backbone yet"
            )

    @torch.no_grad()
    def _try_line(self) -> bool:
        """Whether the model sees sequences in line as it sees them one by one; its attention is set for that.

        It does if all of its layers attend to all tokens before, by SDPA and by the interface that transformers has for
        other kinds of attention. Other models are given padded rows instead.
        """
        text = self.model.config.get_text_config()
        window = "sliding" if getattr(text, "sliding_window", None) else "full_attention"
        layers = set(getattr(text, "layer_types", None) or [window])
        able = self.model._supports_attention_backend and self.model.config._attn_implementation == "sdpa"
        if not able or layers != {"full_attention"} or "position_ids" not in self._takes:
            return False
        self.model.set_attn_implementation(ATTENTION)
        line, rows = self._probe()
        whole = self.states(rows, torch.ones_like(rows))[:, 2:].flatten(0, 1).float()
        ours = self.line_states(line)[line.before_R].float()
        close = 1e-3 if self.dtype == torch.float32 else 2e-2
        if torch.allclose(ours, whole, rtol=close, atol=close * float(whole.abs().max())):
            return True
        self.model.set_attn_implementation("sdpa")
        return False

    @torch.no_grad()
    def _try_written(self) -> Decoder | None:
        """The model's layers written out, if `rlzoo.model.cpu.llama` knows their kind and says the same."""
        if self.model.config._attn_implementation != ATTENTION:
            return None
        written = Decoder.of(self._decoder)
        if written is None or (self.dtype != torch.float32 and not written.known):
            return None
        line, rows = self._probe()
        seen = torch.ones_like(rows, dtype=torch.bool)
        place = seen.cumsum(dim=1) - 1
        cache, same_cache = (self.new_cache(len(rows), rows.shape[1] + ROOM) for _ in range(2))
        for each in (cache, same_cache):
            self.states(rows[:, :-1], seen[:, :-1], each)
        pairs = [
            (
                written.next_states(rows[:, -1:], place[:, -1:], seen, cache),
                self.states(rows[:, -1:], seen, same_cache),
            )
        ]
        if self._plain:
            pairs.append((written.line_states(line), self.line_states(line)))
        close = 1e-4 if self.dtype == torch.float32 else 2e-2
        same = all(torch.allclose(x, y, rtol=close, atol=close * float(y.abs().max())) for x, y in pairs)
        return written if same else None

    def _probe(self) -> tuple[Line, Tensor]:
        """A few tokens to try a model with: in line, and as rows."""
        token_BT = torch.arange(10, device=self.device).view(2, 5) % self.vocab_size
        prompt = token_BT[0, :3]
        seen_BT, zeros_B = torch.ones_like(token_BT, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
        line = Line.of([prompt.tolist()], zeros_B, zeros_B, token_BT, seen_BT, seen_BT, self.pad_id)
        return line, torch.cat([prompt.expand(2, 3), token_BT[:, :-1]], dim=1)

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
            "parameters": plain + sum(weight.quant_state.shape.numel() for weight in packed),
            "weight_bytes": sum(t.nbytes for t in tensors) + sum(_scale_bytes(weight.quant_state) for weight in packed),
            "adapter_parameters": self.layout.size,
            "adapted_layers": len(self.layout.layers),
            "hidden_size": self.hidden_size,
            "vocab_size": self.vocab_size,
            "context_length": self.context_length,
            "end_ids": self.end_ids,
        }


def _after_head(logits: Tensor, config: Any) -> Tensor:
    """What some architectures do to the logits that leave the head: Gemma caps them, Cohere and Granite scale them."""
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = (logits / cap).tanh() * cap
    return logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)


def _attach(
    model: nn.Module, config: BackboneConfig, switch: AdapterSwitch
) -> tuple[AdapterLayout, LoraConfig, list[FleetLinear]]:
    """Let PEFT choose the layers to adapt, then put a `FleetLinear` in the place of every linear layer but the head.

    Layers without an adapter are replaced too: a bare `Linear4bit` would repack its weight (see `FleetLinear`).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that is on its way out
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # GPT-2: PEFT notices and does what is right
            wrapped = get_peft_model(model, to_peft(config.lora, model.name_or_path), low_cpu_mem_usage=True)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
        raise UserError(
            f"no adapter can be put on {config.model!r} with target_modules={config.lora.target_modules!r}: "
            f"{str(error).splitlines()[0]} Linear layers here: {', '.join(linear) or 'none'}"
        ) from error
    peft_config = wrapped.peft_config["default"]
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    layers, linears = [], []
    for name, module in adapted:
        base = module.get_base_layer()
        if not _is_linear(base):
            raise UserError(
                f"target_modules selects {name!r}, a {type(base).__name__}; only linear layers can be adapted"
            )
        model.set_submodule(name, base)
        if base is model.get_output_embeddings():
            raise UserError(
                f"target_modules selects {name!r}, the output head, which is shared by all runs: leave it out"
            )
        layers.append(AdaptedLayer(name, module.in_features, module.out_features))
    scaling = adapted[0][1].scaling["default"]
    del model.peft_config  # PEFT's mark on the model it wraps: the adapters are ours from here on
    index_of = {layer.name: index for index, layer in enumerate(layers)}
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if name in index_of or (_is_linear(module) and module is not head):
            if config.precision == "bf16" and isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.to(torch.bfloat16)
            linears.append(FleetLinear(module, name, index_of.get(name), switch))
            model.set_submodule(name, linears[-1])
    layout = AdapterLayout(tuple(layers), config.lora.r, scaling, model.config.get_text_config().hidden_size)
    return layout, peft_config, linears


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # Conv1D: what GPT-2 calls a linear layer


def _scale_bytes(state: Any) -> int:
    """Bytes of the block scales that go with a double-quantized weight."""
    return state.absmax.nbytes + state.state2.absmax.nbytes
