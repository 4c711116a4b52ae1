from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from rlzoo import noise

GOLDEN_BITS = 2869315087210772132  # bits(1, 2, 3): if it changes, every run samples differently from before


def splitmix64(state: int) -> int:
    """SplitMix64's output function, in Python integers."""
    mask = (1 << 64) - 1
    state &= mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_bits_are_the_documented_recurrence_in_unbounded_integers() -> None:
    words, h = (7, -3, 2**63 + 11, 0), 0
    for word in words:
        h = splitmix64(h + 0x9E3779B97F4A7C15 * (word + 1))
    assert int(noise.bits(*words).item()) % 2**64 == h


def test_bits_of_zero_then_counter_are_the_published_splitmix64_sequence() -> None:
    """The outputs of the reference C code (Vigna, splitmix64.c) from state 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(x) % 2**64 for x in noise.bits(torch.arange(3))] == published


def test_bits_are_pinned_and_pure() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert noise.bits(1, 2, 3).item() == GOLDEN_BITS
    noise.gumbel(1, torch.arange(5)), noise.permutation(9, "x"), noise.derive("x")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert noise.bits(1, 2, 3).item() == GOLDEN_BITS


def test_words_broadcast_and_each_element_stands_alone() -> None:
    rows, columns = torch.tensor([5, 9, 1 << 40])[:, None], torch.arange(4)
    grid = noise.bits("seed", rows, columns)
    assert grid.shape == (3, 4)
    assert all(grid[i, j] == noise.bits("seed", int(rows[i]), j) for i in range(3) for j in range(4))


def test_words_go_on_after_others() -> None:
    row, column = torch.arange(3)[:, None], torch.arange(4)
    known = noise.bits("x", row)
    assert torch.equal(noise.bits(7, column, after=known), noise.bits("x", row, 7, column))
    assert torch.equal(noise.gumbel(column, after=known), noise.gumbel("x", row, column))


def test_word_order_number_and_strings_matter() -> None:
    seen = [noise.derive(*w) for w in [(), (0,), (0, 0), (1, 2), (2, 1), ("a",), ("b",), ("ab",), ("a", "b")]]
    assert len(set(seen)) == len(seen)
    assert all(0 <= seed < 2**63 for seed in seen)
    assert noise.derive("seed", 3) == 6868886031957149277  # hash of a string must not depend on the process


@pytest.mark.parametrize(
    "words", [(torch.arange(200_000),), (3, torch.arange(200_000), 8), (torch.arange(200_000), "s", 1)]
)
def test_uniform_is_uniform_whichever_word_counts(words: tuple) -> None:
    u = noise.uniform(*words)
    assert u.dtype == torch.float64 and u.min() > 0 and u.max() < 1
    counts = torch.histc(u, bins=256, min=0, max=1).numpy()
    assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(u[:20_000].numpy(), "uniform").pvalue > 1e-4


def test_open_interval_at_the_extreme_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    for extreme in (0, -1):
        monkeypatch.setattr(noise, "bits", lambda *_, after=None, extreme=extreme: torch.tensor([extreme]))
        assert 0 < noise.uniform(0).item() < 1
        assert math.isfinite(noise.gumbel(0).item())


def test_neighbouring_counters_are_independent() -> None:
    x = noise.uniform(torch.arange(400)[:, None], torch.arange(500)) - 0.5
    products = {"column": x[:, 1:] * x[:, :-1], "row": x[1:] * x[:-1], "diagonal": x[1:, 1:] * x[:-1, :-1]}
    for name, product in products.items():  # each factor has variance 1/12
        assert abs(float(product.mean())) < 5 / 12 / math.sqrt(product.numel()), name
    pairs = (noise.uniform(torch.arange(100_000)[:, None], torch.tensor([0, 1])) * 16).long()
    counts = torch.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256).numpy()
    assert stats.chisquare(counts).pvalue > 1e-4


def test_every_bit_flips_half_the_time_when_one_bit_of_a_word_flips() -> None:
    base, n = 2 * torch.arange(16_384), 16_384  # none of the bits flipped below is set in base
    for word_bit in (0, 17, 40, 62):
        changed = noise.bits(5, base) ^ noise.bits(5, base ^ (1 << word_bit))
        flips = torch.stack([(changed >> bit) & 1 for bit in range(64)]).double().mean(dim=1)
        assert (flips - 0.5).abs().max() < 5 * 0.5 / math.sqrt(n)


def test_gumbel_has_its_distribution() -> None:
    g = noise.gumbel(11, torch.arange(20_000))
    assert g.dtype == torch.float32
    assert stats.kstest(g.numpy(), "gumbel_r").pvalue > 1e-4


def test_integers_and_permutation_are_fair() -> None:
    drawn = noise.integers(7, "die", torch.arange(70_000))
    assert stats.chisquare(torch.bincount(drawn, minlength=7).numpy()).pvalue > 1e-4
    orders = [tuple(noise.permutation(3, "deal", i).tolist()) for i in range(3000)]
    assert set(map(tuple, map(sorted, orders))) == {(0, 1, 2)}
    assert stats.chisquare([orders.count(order) for order in set(orders)]).pvalue > 1e-4 and len(set(orders)) == 6
    assert noise.permutation(0, 1).tolist() == []
