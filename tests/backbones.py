"""Backbones over tiny random models, made once per session: never change one in a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlzoo.config.model import BackboneConfig
from rlzoo.model.backbone import Backbone
from tests.models import write_model


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 (biases, tied head)."""
    return write_model(Qwen2ForCausalLM, Qwen2Config, tmp_path_factory.mktemp("qwen"), tie_word_embeddings=True)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama (no biases, a head of its own)."""
    return write_model(LlamaForCausalLM, LlamaConfig, tmp_path_factory.mktemp("llama"), tie_word_embeddings=False)


@pytest.fixture(scope="session")
def fp32(qwen_folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(qwen_folder), precision="fp32", device="cpu"))


@pytest.fixture(scope="session")
def nf4(qwen_folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(qwen_folder), device="cpu"))


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(llama_folder), device="cpu"))


@pytest.fixture(params=["fp32", "nf4", "llama"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each of the backbones in turn."""
    return request.getfixturevalue(request.param)
