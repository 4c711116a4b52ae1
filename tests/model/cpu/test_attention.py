"""Attention as batched products against torch's own: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rlzoo.model.cpu.attention import additive, causal, one_query

NOTHING = torch.zeros(1, dtype=torch.float64)
"""Masks nothing."""


def tensors(heads: int, fewer: int, length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, heads, length, 4), (3, fewer, length, 4), (3, fewer, length, 4)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("heads", "fewer", "length"), [(2, 2, 5), (4, 2, 7), (6, 1, 3), (2, 2, 1)])
def test_causal_attention_and_its_gradient(heads: int, fewer: int, length: int) -> None:
    ours, theirs = tensors(heads, fewer, length), tensors(heads, fewer, length)
    out = causal(*ours, scaling=0.3)
    exact = scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, exact)
    weights = torch.randn_like(exact)
    (out * weights).sum().backward()
    (exact * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_gradient_of_strided_tensors() -> None:
    """As they come from a model: [B, S, heads, d], seen as [B, heads, S, d]."""
    x = [t.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for t in tensors(2, 2, 5)]
    assert torch.autograd.gradcheck(lambda q, k, v: causal(q, k, v, 0.5), x)


def test_values_may_have_a_width_of_their_own() -> None:
    """As where keys and values are made of a common latent vector (DeepSeek's attention)."""
    query, key, value = tensors(4, 2, 5)
    value = torch.cat([value, value[..., :2]], dim=3).detach().requires_grad_()
    exact = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
    out = causal(query, key, value, 0.3)
    torch.testing.assert_close(out, exact)
    gradients = (torch.autograd.grad(x.square().sum(), (query, key, value)) for x in (out, exact))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(one_query(query[:, :, -1:], key, value, NOTHING, 0.3), exact[:, :, -1:])


@pytest.mark.parametrize(("heads", "fewer"), [(2, 2), (6, 2)])
def test_one_query_attends_to_what_the_mask_admits(heads: int, fewer: int) -> None:
    query, key, value = (x.detach() for x in tensors(heads, fewer, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]).bool()[:, None, None]
    last = query[:, :, -1:]
    exact = scaled_dot_product_attention(last, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)
    ours = one_query(last, key, value, additive(mask[:, 0, 0], fewer, torch.float64), 0.3)
    torch.testing.assert_close(ours, exact)


def test_a_nan_stays_in_its_sequence() -> None:
    query, key, value = tensors(2, 2, 5)
    with torch.no_grad():
        query[1] = torch.nan
    out = causal(query, key, value, 0.3)
    out.sum().backward()
    for x in (out, query.grad, key.grad, value.grad):
        assert [bool(row.isfinite().all()) for row in x] == [True, False, True]
