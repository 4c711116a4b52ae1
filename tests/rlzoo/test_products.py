"""Products by oneDNN: as exact as the others, asked for by size, and the setting is put back."""

from __future__ import annotations

import pytest
import torch

from rlzoo import products

CPU = torch.device("cpu")


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_fast_products_are_float32_products() -> None:
    """Rounded to bfloat16, numbers of size 1 are off by 2 ** -9; the sum of 64 products would be off by about 0.02."""
    x, y = torch.randn(256, 64), torch.randn(64, 32)
    with products.fast(len(x), CPU):
        made = x @ y
    assert (made.double() - x.double() @ y.double()).abs().max() < 1e-4


def test_it_is_chosen_from_a_size_on_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    before = setting()
    for exact, rows, device, chosen in (
        (True, products.FROM_ROWS, CPU, True),
        (True, products.FROM_ROWS - 1, CPU, False),
        (True, products.FROM_ROWS, torch.device("cuda"), False),
        (False, products.FROM_ROWS, CPU, False),
    ):
        monkeypatch.setattr(products, "onednn_is_exact", lambda exact=exact: exact)
        with products.fast(rows, device):
            assert (setting() == "bf16") is (chosen or before == "bf16")
        assert setting() == before


def test_the_setting_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_exact", lambda: True)
    before = setting()
    with pytest.raises(RuntimeError), products.fast(1000, CPU):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert setting() == before


def test_a_library_that_rounds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN does on processors with matrix units for bfloat16."""
    products.onednn_is_exact.cache_clear()
    matmul = torch.Tensor.__matmul__

    def rounding(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return matmul(x.bfloat16(), y.bfloat16()).float() if setting() == "bf16" else matmul(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    try:
        assert not products.onednn_is_exact()
    finally:
        products.onednn_is_exact.cache_clear()


def test_large_numbers_of_rows_are_rounded_up() -> None:
    assert [products.usual(rows) for rows in (1, 63, 64, 65, 161)] == [1, 63, 64, 96, 192]


def test_a_narrow_model_has_one_thread_per_product() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for width, device, threads in ((128, CPU, 1), (products.WIDE, CPU, 2), (128, torch.device("cuda"), 2)):
            with products.threads(width, device):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
