"""The tinker engine without a server: what is refused before one is asked, and the arithmetic of its requests."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.engine import load_model
from rlzoo.engine.tinker_probe import Conventions, reduces_by_mean
from rlzoo.engine.tinker_rows import Rows
from rlzoo.engine.tinker_states import Kept
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.training.launch import train

THERE = {"name": "tinker", "url": "http://127.0.0.1:9"}


def config(objective: str = "grpo", **tables: Any) -> RunConfig:
    return RunConfig.model_validate({"objective": objective, "engine": THERE} | tables)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"name": "tinker"}, "needs the server's address"),
        ({"name": "tinker", "url": "127.0.0.1:8000"}, "write http://HOST:PORT"),
        ({"name": "tinker", "url": "http://"}, "write http://HOST:PORT"),
        (THERE | {"micro_batch_tokens": 64}, "engine.micro_batch_tokens is for this machine's batches"),
        (THERE | {"fast_path": "off"}, "engine.fast_path is for this machine's batches"),
        (THERE | {"worker_cpus": 2}, "engine.worker_cpus is for engine.name = 'ray', and the name is 'tinker'"),
        ({"patience": 5}, "engine.patience is for engine.name = 'tinker'"),
        ({"url": "http://127.0.0.1:9"}, "engine.url is for engine.name = 'ray' or 'tinker'"),
    ],
)
def test_settings_that_would_do_nothing_there_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        EngineSettings.model_validate(settings)


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        ("ppo", "ppo needs a critic, and the Tinker API trains no value head"),
        ("vapo", "a critic"),
        ("grpo[entropy=bonus]", "the entropy of the policy"),
        ("top_entropy", "the entropy of the policy"),
        ("otb", "sums of squared probabilities"),
    ],
)
def test_objectives_that_need_more_than_log_probs_are_refused(objective: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        config(objective)
    RunConfig(objective=objective)  # here they run


@pytest.mark.parametrize(
    "objective", ["grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_pp", "dppo", "icepop", "sft"]
)
def test_objectives_on_log_probs_are_not(objective: str) -> None:
    """A reference too: `compute_logprobs`."""
    assert config(objective).engine.name == "tinker"


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"optimizer": {"kind": "muon"}}, "a Tinker server has AdamW only"),
        ({"train": {"temperature": 0.7}}, "log-probs at temperature 1 only"),
        ({"backbone": {"lora": {"alpha": 16}}}, "backbone.lora.alpha is the server's choice"),
        ({"backbone": {"lora": {"target_modules": ["q_proj"]}}}, "backbone.lora.target_modules is the server's choice"),
        ({"backbone": {"device": "cpu"}}, "the model is on the server"),
    ],
)
def test_settings_that_the_api_has_no_field_for_are_refused(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        config(**tables)


def test_an_address_where_nobody_listens_is_an_error_at_once() -> None:
    with pytest.raises(UserError, match=r"no Tinker server can be reached at engine.url = 'http://127.0.0.1:9'"):
        load_model(BackboneConfig(), EngineSettings.model_validate(THERE))


@pytest.fixture
def listening() -> Iterator[tuple[str, list[int]]]:
    """A web server whose answer to everything is the code in the list."""
    code = [404]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code[0])
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", code
        server.shutdown()


def test_something_else_at_the_address_is_an_error(listening: tuple[str, list[int]]) -> None:
    with pytest.raises(UserError, match="it answers 404 and is no server of the Tinker API"):
        load_model(BackboneConfig(), EngineSettings(name="tinker", url=listening[0]))


def test_another_version_of_the_sdk_is_an_error(
    listening: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening[1][0] = 200
    versions = {"tinker": "0.38.0"}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    monkeypatch.setitem(sys.modules, "tinker", object())
    with pytest.raises(UserError, match=r"tinker 0.38.0 is installed, and this engine speaks 0.25"):
        load_model(BackboneConfig(), EngineSettings(name="tinker", url=listening[0]))


def test_without_the_sdk_the_error_says_how_to_get_it(
    listening: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening[1][0] = 200
    monkeypatch.setitem(sys.modules, "tinker", None)
    with pytest.raises(UserError, match=r"pip install 'rlzoo\[tinker\]'"):
        load_model(BackboneConfig(), EngineSettings(name="tinker", url=listening[0]))


def test_rows_shift_targets_by_one() -> None:
    """Two prompts of 3 and 2 tokens, responses of 2 and 3; the middle token of the second is the environment's."""
    exists_NT = torch.tensor([[True, True, False], [True, True, True]])
    learn_NT = torch.tensor([[True, True, False], [True, False, True]])
    token_NT = torch.tensor([[11, 12, 0], [21, 22, 23]])
    rows = Rows.of(Tokens([[1, 2, 3], [4, 5]], torch.tensor([0, 1]), token_NT, exists_NT, learn_NT))
    assert rows.sequences == [[1, 2, 3, 11, 12], [4, 5, 21, 22, 23]]
    # One number per target: 2 3 11 12 and 5 21 22 23.
    found = rows.responses([torch.tensor([-9.0, -9, -1, -2]), torch.tensor([-9.0, -3, -4, -5])])
    assert found.tolist() == [[-1, -2, 0], [-3, 0, -5]]
    back = rows.targets(found)
    assert [x.tolist() for x in back] == [[0, 0, -1, -2], [0, -3, 0, -5]]


@pytest.mark.parametrize(
    ("conventions", "factor"),
    [
        (Conventions(False, False, True), 1),
        (Conventions(True, False, True), 3),
        (Conventions(False, True, False), 7),
        (Conventions(True, True, False), 21),
    ],
)
def test_what_a_server_averages_is_undone(conventions: Conventions, factor: float) -> None:
    """A step of 3 rows, one of them with 7 targets: (1/3) (1/7) sum_t (21 d_t) grad logp_t = sum_t d_t grad logp_t."""
    assert conventions.undone(rows=3, targets=7) == factor


def test_a_folder_names_a_state_of_the_same_model_and_rank_only(tmp_path: Path) -> None:
    kept = Kept("tinker://a/weights/b", "toy", 8, 3, "http://there")
    kept.write(tmp_path)
    ours = BackboneConfig.model_validate({"model": "toy", "lora": {"r": 8}})
    assert Kept.read(tmp_path, ours, "no") == kept
    with pytest.raises(UserError, match="of 'toy' with rank 8, and the run has 'toy' with rank 4"):
        Kept.read(tmp_path, BackboneConfig.model_validate({"model": "toy", "lora": {"r": 4}}), "no")
    (tmp_path / "tinker.json").write_text('{"state": 3')
    with pytest.raises(UserError, match=r"no such \(JSONDecodeError"):
        Kept.read(tmp_path, ours, "no such")


@pytest.mark.parametrize(
    ("ratio", "mean"),
    [(2.1, False), (1.05, True)],
)
def test_twice_the_gradient_for_two_equal_rows_is_a_sum(ratio: float, mean: bool) -> None:
    assert reduces_by_mean("http://there", "two equal rows", ratio, of_sum=2, of_mean=1) is mean


def test_a_reduction_that_is_neither_sum_nor_mean_is_refused() -> None:
    """The square root of the number of rows, say: 1.41 lies between the two."""
    with pytest.raises(UserError, match=r"factor 1.41, which is neither a sum's \(2\) nor a mean's \(1\)"):
        reduces_by_mean("http://there", "two equal rows", 2**0.5, of_sum=2, of_mean=1)


def test_a_model_that_was_loaded_here_is_not_trained_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Tinker server has its own model: name it"):
        train(config(), tmp_path / "run", backbone=object())
