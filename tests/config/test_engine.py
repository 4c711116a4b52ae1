"""Settings of the engine: how its place is written, and which settings belong to which place."""

from __future__ import annotations

from typing import Any

import pytest

from rlzoo.config.engine import EngineSettings
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError


def test_an_address_is_a_name_and_a_url() -> None:
    there = EngineSettings(name="ray", url="ray://head:10001")
    assert EngineSettings.model_validate({"name": "ray://head:10001"}) == there
    assert EngineSettings.model_validate("ray://head:10001") == there
    assert EngineSettings.model_validate(there.model_dump()) == there
    assert EngineSettings.model_validate("ray").url is None
    assert RunConfig(objective="grpo", engine="ray://head:10001").engine == there


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "rey"}, "'local'"),
        ({"name": "ray://head:10001", "url": "head:6379"}, "differ: leave one of them out"),
        ({"name": "ray", "url": "head"}, "no address"),
        ({"name": "ray://head:99999999"}, "no address"),
        ({"name": "ray", "url": "http://head:1"}, "no address"),
        ({"url": "head:1"}, "engine.url is for engine.name = 'ray' or 'tinker', and the name is 'local'"),
        ({"fleet": 2}, "engine.fleet is for engine.name = 'ray' or 'tinker'"),
        ({"worker_cpus": 2}, "engine.worker_cpus is for"),
        ({"worker_memory": 2}, "engine.worker_memory is for"),
        ({"name": "ray", "fleet": 0}, "fleet"),
    ],
)
def test_a_wrong_place_is_a_sentence(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        validate(EngineSettings, table, "the engine")
