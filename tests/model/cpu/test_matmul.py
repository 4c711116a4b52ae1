"""Products by oneDNN: as exact as the others, asked for by size, and the setting is put back."""

from __future__ import annotations

import pytest
import torch

from rlzoo.model.cpu import matmul

CPU = torch.device("cpu")


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_fast_products_are_float32_products() -> None:
    """Rounded to bfloat16, numbers of size 1 are off by 2 ** -9; the sum of 64 products would be off by about 0.02."""
    x, y = torch.randn(256, 64), torch.randn(64, 32)
    with matmul.fast(len(x), matmul.FROM_OPERATIONS, CPU):
        made = x @ y
    assert (made.double() - x.double() @ y.double()).abs().max() < 1e-4


def test_it_is_chosen_from_a_size_on_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    before = setting()
    enough, many = matmul.FROM_ROWS, matmul.FROM_OPERATIONS
    for exact, rows, operations, device, chosen in (
        (True, enough, many, CPU, True),
        (True, enough - 1, many, CPU, False),
        (True, enough, many - 1, CPU, False),
        (True, enough, many, torch.device("cuda"), False),
        (False, enough, many, CPU, False),
    ):
        monkeypatch.setattr(matmul, "onednn_is_exact", lambda exact=exact: exact)
        with matmul.fast(rows, operations, device):
            assert (setting() == "bf16") is (chosen or before == "bf16")
        assert setting() == before


def test_batched_products_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 of 32 rows, each 2 x 32 x 32 x 1024 = 2.1 million operations: 64 rows, 4.2 million. With 31 rows too few."""
    monkeypatch.setattr(matmul, "onednn_is_exact", lambda: True)
    chosen, bmm, baddbmm = [], torch.bmm, torch.baddbmm
    monkeypatch.setattr(torch, "bmm", lambda *a, **k: (chosen.append(setting()), bmm(*a, **k))[1])
    monkeypatch.setattr(torch, "baddbmm", lambda *a, **k: (chosen.append(setting()), baddbmm(*a, **k))[1])
    before, x, y = setting(), torch.randn(2, 32, 32), torch.randn(2, 32, 1024)
    start = torch.randn(2, 32, 1024)
    matmul.bmm(x, y), matmul.baddbmm(start, x, y)
    matmul.bmm(x[:, :31], y), matmul.baddbmm(start[:, :31], x[:, :31], y)
    assert chosen == ["bf16", "bf16", before, before]
    torch.testing.assert_close(matmul.baddbmm(start, x, y, alpha=2.0), start + 2 * (x @ y))
    torch.testing.assert_close(matmul.bmm(x, y, out=start), x @ y)
    torch.testing.assert_close(start, x @ y)


def test_the_setting_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "onednn_is_exact", lambda: True)
    before = setting()
    with pytest.raises(RuntimeError), matmul.fast(1000, 1e9, CPU):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert setting() == before


def test_a_library_that_rounds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN does on processors with matrix units for bfloat16."""
    matmul.onednn_is_exact.cache_clear()
    plain = torch.Tensor.__matmul__

    def rounding(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return plain(x.bfloat16(), y.bfloat16()).float() if setting() == "bf16" else plain(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    try:
        assert not matmul.onednn_is_exact()
    finally:
        matmul.onednn_is_exact.cache_clear()


def test_large_numbers_of_rows_are_rounded_up() -> None:
    assert [matmul.usual(rows) for rows in (1, 63, 64, 65, 161)] == [1, 63, 64, 96, 192]


def test_a_narrow_model_has_one_thread_per_product() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for width, device, threads in ((128, CPU, 1), (matmul.WIDE, CPU, 2), (128, torch.device("cuda"), 2)):
            with matmul.threads(width, device):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
