"""The sizing table: memory and time by hand for one model, and the README's copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import sizing
from benchmarks.sizing import LARGE_GPU, MODELS, SMALL_GPU, runs_at_once, seconds, shape_of
from rlzoo.experiments.explain import GIB, memory

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readmes_table_is_the_computed_one() -> None:
    found = re.search(r"<!-- table: python -m benchmarks.sizing -->\n(.*?)<!-- /table -->", README, re.DOTALL)
    assert found is not None and found[1].strip() == sizing.table()


def test_the_page_is_at_most_forty_lines() -> None:
    page = re.search(r"^## Beyond one machine\n.*?(?=^## )", README, re.DOTALL | re.MULTILINE)
    assert page is not None and len(page[0].rstrip().splitlines()) <= 40


def test_shapes_have_the_sizes_that_their_names_say() -> None:
    for name in MODELS:
        said = float(re.findall(r"-([\d.]+)B", name)[0]) * 1e9
        assert shape_of(name).parameters == pytest.approx(said, rel=0.1)


def test_the_time_of_one_run_by_hand() -> None:
    """Qwen2.5-0.5B, 494 M parameters in bf16, 64 responses of 512 tokens, one batch, 100 steps on an H100.

    Keys and values: 2 * 24 layers * 2 heads * 64 * 2 bytes = 12,288 bytes a position, 256 positions on average.
    """
    shape = shape_of("Qwen2.5-0.5B")
    read = 512 * (2 * shape.parameters + 64 * 12_288 * 256)
    computed = 10 * shape.parameters * 64 * 512
    expected = 100 * (read / (0.4 * 3.35e12) + computed / (0.4 * 989e12))
    assert seconds("Qwen2.5-0.5B", LARGE_GPU, 1) == pytest.approx(expected)
    assert seconds("Qwen2.5-0.5B", LARGE_GPU, 12) > 1.5 * expected  # decoding reads the weights once for all 768 rows


@pytest.mark.parametrize("name", MODELS)
def test_as_many_runs_as_fit_and_no_more(name: str) -> None:
    for gpu in (SMALL_GPU, LARGE_GPU):
        config, shape, fit = sizing.settings(name, gpu), shape_of(name), runs_at_once(name, gpu)
        assert memory(config, shape, fit + 1)["peak"] * GIB > 0.9 * gpu.memory
        assert fit == 0 or memory(config, shape, fit)["peak"] * GIB <= 0.9 * gpu.memory
    assert runs_at_once(name, LARGE_GPU) > runs_at_once(name, SMALL_GPU)
