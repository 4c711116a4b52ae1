"""What the checks say when they fail. `assert` statements are dropped by `python -O`; these are not."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def holds(condition: object, what: str) -> None:
    """Raise AssertionError unless the condition is true."""
    if not condition:
        raise AssertionError(what)


def same(found: Tensor, expected: Tensor, what: str, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """Raise AssertionError unless two tensors agree."""
    try:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def same_numbers(found: float, expected: float, what: str, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """Raise AssertionError unless two numbers agree."""
    close = math.isclose(found, expected, rel_tol=rtol, abs_tol=atol)
    holds(close, f"{what}: {found!r}, expected {expected!r}")


def same_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], what: str, rtol: float = 1e-12, atol: float = 1e-14
) -> None:
    """Raise AssertionError unless two sets of gradients agree."""
    holds(found.keys() == expected.keys(), f"{what}: gradients of {sorted(found)}, expected {sorted(expected)}")
    for name, gradient in found.items():
        same(gradient, expected[name], f"{what}: gradient of {name}", rtol, atol)


def refuses(call: Callable[[], object], message: str) -> None:
    """Raise AssertionError unless the call raises a ValueError whose text contains the message."""
    try:
        call()
    except ValueError as error:
        holds(message in str(error), f"the error says {str(error)!r}, expected {message!r} in it")
    else:
        raise AssertionError(f"nothing was raised, expected a ValueError: {message}")
