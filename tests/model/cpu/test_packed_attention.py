"""Attention of a line against attention of every sequence by itself, and its places written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlzoo.model.cpu.fused_ops import rotate, signed
from rlzoo.model.cpu.packed_attention import Block, GatherIndex, PackedAttention
from rlzoo.model.packing import PackedBatch

D = 6
SCALING = 0.4


def made(lengths: list[int]) -> PackedBatch:
    """Two runs, with 2 and 1 responses to a prompt of 3 tokens, and 1 and 0 to one of 5."""
    prompts, group_B = [[1, 2, 3], [4, 5, 6, 7, 8]], torch.tensor([0, 1, 0, 0])
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    slot_B = torch.tensor([0, 0, 0, 1])
    return PackedBatch.of(prompts, group_B, slot_B, torch.ones_like(mask_BT).long(), mask_BT, mask_BT, 0)


def angles(columns: int) -> tuple[Tensor, Tensor]:
    angle_SD = torch.arange(columns)[:, None] * torch.tensor([0.9, 0.2, 0.03]).repeat(2)
    return angle_SD.cos(), signed(angle_SD.sin())


def plain(line: PackedBatch, query: Tensor, key: Tensor, value: Tensor, heads: int, key_heads: int) -> Tensor:
    """Attention of each token, [N, heads * D], found sequence by sequence; of padding 0."""
    out = torch.zeros(len(query), heads, D)
    for b in range(len(line.prompt_B)):
        length = int((line.prompts.length[line.prompt_B] + line.responses.length)[b])
        place = line.sequence_BS[b, :length]
        q, k, v = (
            x[place].view(length, -1, D).transpose(0, 1).repeat_interleave(heads // (x.shape[1] // D), dim=0)
            for x in (query, key, value)
        )
        q, k = (rotate(x.clone(), *angles(length)) for x in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALING)
        out = out.index_put((place,), attended.transpose(0, 1))
    return out.flatten(1)


@pytest.mark.parametrize("lengths", [[4, 7, 1, 5], [1, 1, 1, 1], [20, 3, 0, 2]], ids=["some", "nothing fed", "empty"])
@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (4, 2), (3, 1)])
def test_values_and_gradients(lengths: list[int], heads: int, key_heads: int) -> None:
    line, seeded = made(lengths), torch.Generator().manual_seed(0)
    real = ~line.is_padding[:, None]
    x = [torch.randn(len(real), count * D, generator=seeded) for count in (heads, key_heads, key_heads)]
    g = torch.randn(len(real), heads * D, generator=seeded) * real
    leaves = [some.clone().requires_grad_() for some in x]
    expected = plain(line, *leaves, heads, key_heads)
    expected_gradients = torch.autograd.grad(expected, leaves, g)
    ours = PackedAttention(line, heads, key_heads)
    got, kept = ours.forward(*x, angles(ours.columns), SCALING)
    torch.testing.assert_close(got * real, expected.detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.again(kept), got)
    for one, other in zip(ours.backward(g, kept, angles(ours.columns), SCALING), expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_places() -> None:
    """Prompts [1, 2] and [3] with responses of 2 and 1 fed tokens: line 0 1 | 2 | 3 4 | 5.

    In the block of responses all begin in column 16 - 2 = 14, prompts end before it, and padding stands for the
    prompt's first token.
    """
    mask_BT = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    line = PackedBatch.of(
        [[1, 2], [3]], torch.arange(2), torch.zeros(2).long(), torch.ones(2, 3).long(), mask_BT, mask_BT, 0
    )
    assert line.token_N.tolist() == [1, 2, 3, 1, 1, 1]
    prompts, responses = Block.of_prompts(line), Block.of_responses(line)
    assert prompts.key_RS[:, :3].tolist() == [[0, 1, 0], [2, 2, 2]]
    assert prompts.key_is_real[:, :3].tolist() == [[True, True, False], [True, False, False]]
    assert (responses.first, responses.key_RS.shape) == (14, (2, 16))
    assert responses.query_RT.tolist() == [[3, 4], [5, 2]]
    assert responses.key_RS[:, 12:].tolist() == [[0, 1, 3, 4], [2, 2, 5, 2]]
    assert responses.key_is_real[:, 12:].tolist() == [[True, True, True, True], [False, True, True, False]]
    assert responses.sees[0, :, 11:].int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert responses.sees[1, :, 11:].int().tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]


def test_what_is_brought_back_is_the_transpose_of_what_is_gathered() -> None:
    """<gather(x), y> = <x, scatter_add(y)> for numbers in real rows."""
    place, real = torch.tensor([[0, 1, 1], [2, 0, 2]]), torch.tensor([[True, True, False], [True, True, False]])
    index, seeded = GatherIndex([(place, real), (place[:1, :2], real[:1, :2])], 2, 4), torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 2 * 3, generator=seeded), torch.randn(sum(index.sizes), 3, generator=seeded)
    is_real = torch.cat([real[:, None].expand(2, 2, 3).flatten(), torch.ones(4, dtype=torch.bool)])
    torch.testing.assert_close((index.gather(x) * y)[is_real].sum(), (x * index.scatter_add(y)).sum())
    assert not index.scatter_add(y)[3].any()
