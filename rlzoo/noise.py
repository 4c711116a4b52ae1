"""Counter-based randomness: every random number is a pure function of the integers that name it.

    h_0 = 0,   h_{i+1} = mix(h_i + GOLDEN * (word_i + 1)),   bits = h_n        (all arithmetic modulo 2^64)

`mix` is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), so
the last word walks through a SplitMix64 sequence whose start the words before it choose. There is no generator and no
state: the same words give the same number on any device, in any order, alone or in a batch. Words broadcast, and a
word costs only as much as the words up to it: put the longest axis last.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import torch
from torch import Tensor

Word: TypeAlias = "int | str | Tensor"


def _signed(value: int) -> int:
    """Fold a Python integer into the int64 that has the same bits modulo 2^64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Shift an int64 right as if it were unsigned (torch's own shift copies the sign)."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def _as_int(word: int | str) -> int:
    if isinstance(word, str):
        return _signed(int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little"))
    return _signed(word)


def bits(*words: Word, after: Tensor | None = None) -> Tensor:
    """Hash the words to 64 random bits.

    Words are integers of any size, strings, or int64 tensors, which broadcast and must share a device. `after`: the
    bits of the words before these, if they are known: bits(a, b) = bits(b, after=bits(a)).
    Returns an int64 tensor of the broadcast shape (a scalar when no word is a tensor).
    """
    device = next((word.device for word in words if isinstance(word, Tensor)), torch.device("cpu"))
    h = torch.zeros((), dtype=torch.int64, device=device) if after is None else after
    for word in words:
        step = (word + 1) * GOLDEN if isinstance(word, Tensor) else _signed((_as_int(word) + 1) * GOLDEN)
        h = _mix(h + step)
    return h


def uniform(*words: Word, after: Tensor | None = None) -> Tensor:
    """Return float64 uniforms in the open interval (0, 1): (k + 1/2) / 2^52 with k of 52 bits, so never 0 or 1."""
    return (_shift_right(bits(*words, after=after), 12).double() + 0.5) * 2.0**-52


def gumbel(*words: Word, after: Tensor | None = None) -> Tensor:
    """Return standard Gumbel noise, -log(-log u), as float32.

    The logarithms are taken in float64: in float32 the tail beyond 17 would be cut off, and with it rare tokens.
    """
    return uniform(*words, after=after).log_().neg_().log_().neg_().float()


def integers(n: int, *words: Word) -> Tensor:
    """Return int64 integers in [0, n); the bias of the modulus is below n / 2^63."""
    return _shift_right(bits(*words), 1) % n


def permutation(n: int, *words: int | str) -> Tensor:
    """Return a random order of range(n): int64 [n], the argsort of n independent hashes."""
    return torch.argsort(bits(*words, torch.arange(n)), stable=True)


def derive(*words: int | str) -> int:
    """Return a sub-seed, a non-negative Python integer below 2^63, named by the words."""
    return int(bits(*words).item()) & ((1 << 63) - 1)
