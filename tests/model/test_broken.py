"""Folders without a model, with a broken model or with code: one error message each, and no code is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone


def load(folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def truncated(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def other_sizes(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=128)


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    first = next(name for name in weights if "q_proj.weight" in name)
    weights[first][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Boobytrap(str(folder / "sprung"))}, folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    edit(
        folder / "config.json", model_type="theirs", auto_map={"AutoConfig": "trap.C", "AutoModelForCausalLM": "trap.M"}
    )
    (folder / "trap.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")


class Boobytrap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (pointer, "cannot be loaded as a model"),
        (truncated, "cannot be loaded as a model"),
        (other_sizes, "cannot be loaded as a model"),
        (not_a_number, "has non-finite numbers in .*q_proj"),
        (no_tokenizer, "tokenizer"),
        (a_pickle, "pickle, which could run code and is refused|cannot be loaded as a model"),
        (own_code, "needs custom code.*never run"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    qwen_folder: Path, tmp_path: Path, breaks: Callable[[Path], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    folder = tmp_path / "m"
    shutil.copytree(qwen_folder, folder)
    breaks(folder)
    with pytest.raises(UserError, match=message):
        load(folder)
    assert not (folder / "sprung").exists()


def test_a_token_beyond_the_embedding_is_named(qwen_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(qwen_folder, folder)
    backbone = load(folder)
    rows = backbone.model.get_input_embeddings().weight.shape[0]
    backbone.tokenizer.add_tokens([f"<extra{i}>" for i in range(rows)])
    backbone.tokenizer.add_special_tokens({"pad_token": "<padding>"})
    backbone.tokenizer.save_pretrained(folder)
    loaded = load(folder)
    assert loaded.tokenizer.pad_token_id >= rows and loaded.pad_id < rows
    assert loaded.encode("12")
    with pytest.raises(UserError, match=rf"has {rows} rows, but its tokenizer returns token .*'<extra{rows - 1}>'"):
        loaded.encode(f"1<extra{rows - 1}>")
