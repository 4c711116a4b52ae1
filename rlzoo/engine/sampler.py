"""Sampling many runs' responses in one shared batch, with the exact log-prob of every token that was sampled.

    y_t = argmax_v  log pi(v | s_t) / temperature + g_v,    g = Gumbel noise of (seed, step, prompt, sample, t, v)

which draws y_t from softmax(logits / temperature) (the Gumbel-max trick). The noise is a pure function of its counters,
so a request gives the same samples alone or beside others, whole or in parts. There is no top-p and no top-k: the
policy that samples must be the policy whose log-probs the trainer computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from rlzoo import noise
from rlzoo.engine.memory import affordable_rows, free_bytes, halving
from rlzoo.engine.protocol import PolicyRef, SampleRequest, Samples, check_prompt
from rlzoo.errors import UserError
from rlzoo.model import profiler
from rlzoo.model.adapters import AdapterStack
from rlzoo.model.backbone import Backbone
from rlzoo.model.multi_lora import MOST_PADDING
from rlzoo.model.packing import pad_left

COMPACT_BELOW = 0.85
"""Finished rows are removed once fewer than this share of the rows is unfinished (removal copies the cache)."""
BLOCKS_FROM, BLOCK = 4096, 256
"""Vocabulary size from which tokens are drawn in two stages (block, then token), and the block size."""
LOGITS_AT_ONCE = 1 << 27
"""Rows times vocabulary while decoding: 512 MiB of float32."""


def sample(
    backbone: Backbone,
    requests: Sequence[SampleRequest],
    max_rows: int = 4096,
    thetas: Mapping[PolicyRef, Tensor] | None = None,
) -> list[Samples]:
    """Answer all requests, decoding at most `max_rows` rows at once (a group is never divided).

    Args:
        thetas: adapter vector [n] of each policy; a policy without an entry is the base model.

    Returns:
        One answer per request, on the backbone's device.

    Raises:
        UserError: a request is invalid; see `check_request`.
    """
    if not requests:
        return []
    for request in requests:
        check_request(request, backbone.context_length)
    # Rows of one adapter stand together, those without one in front.
    thetas = thetas or {}
    adapted = list(dict.fromkeys(request.policy for request in requests if request.policy in thetas))
    slot_of = {policy: slot for slot, policy in enumerate(adapted)}
    stack = backbone.stack([thetas[policy] for policy in adapted]) if adapted else None
    slots = [slot_of.get(request.policy, -1) for request in requests]
    order = sorted(range(len(requests)), key=slots.__getitem__)
    prompts = _Prompts.of([requests[i] for i in order], [slots[i] for i in order])
    with backbone.held_weights():
        prompt, group = max(map(len, prompts.tokens)), int(prompts.group_size.min())
        longest = prompt + int(prompts.limit.max())
        fits = affordable_rows(backbone, longest, free_bytes(backbone.device), prompt, group)
        rows = max(1, min(max_rows, LOGITS_AT_ONCE // backbone.vocab_size, fits))
        batches = _batches(prompts.group_size, prompts.slot, rows)

        def decode(batch: tuple[int, int]) -> Samples:
            return _decode(backbone, stack, prompts.between(*batch).to(backbone.device))

        answers = [answer for _, answer in halving(batches, decode, _halves)]
    longest = max(answer.mask_NT.shape[1] for answer in answers)
    whole = [torch.cat([_widen(x, longest) for x in column]) for column in zip(*map(_tensors, answers), strict=True)]
    sizes = [len(requests[i].prompts) * requests[i].group_size for i in order]
    pieces = dict(zip(order, zip(*(column.split(sizes) for column in whole), strict=True), strict=True))
    return [_trim(Samples(*pieces[i])) for i in range(len(requests))]


def _halves(batch: tuple[int, int]) -> list[tuple[int, int]]:
    """Half of a batch's prompts each; a single prompt's group is not divided."""
    first, last = batch
    middle = (first + last) // 2
    return [(first, middle), (middle, last)] if first < middle else [batch]


def check_request(request: SampleRequest, context_length: int | None) -> None:
    """Raise `UserError` for invalid settings, an empty prompt, or a prompt that leaves no room for the response."""
    if not request.temperature > 0:
        raise UserError(f"temperature must be above 0, got {request.temperature}; for the likeliest token set greedy")
    if request.group_size < 1 or request.max_new_tokens < 1 or not request.prompts:
        raise UserError(
            f"nothing to sample: {len(request.prompts)} prompts, group_size {request.group_size}, max_new_tokens "
            f"{request.max_new_tokens}; each must be at least 1"
        )
    for name in ("prompt_keys", "samples", "positions"):
        of_prompts = getattr(request, name)
        if of_prompts is not None and len(of_prompts) != len(request.prompts):
            raise ValueError(f"{len(request.prompts)} prompts but {len(of_prompts)} {name}")
    for prompt, limit in zip(request.prompts, request.limits, strict=True):
        if limit < 1:
            raise UserError(f"nothing to sample: of {request.max_new_tokens} new tokens none is left for a prompt")
        check_prompt(prompt, limit, context_length)


@dataclass(frozen=True)
class _Prompts:
    """The prompts of all requests in one list, each with its request's settings, as tensors over prompts [P]."""

    tokens: list[Sequence[int]]
    slot: Tensor
    group_size: Tensor
    limit: Tensor
    temperature: Tensor
    greedy: Tensor
    sample: Tensor
    """Number of the prompt's first response in the noise."""
    position: Tensor
    """Tokens of the prompt that came after the first one: where its noise begins."""
    stream: Tensor
    """Hash of (seed, step, prompt key): where the noise of this prompt begins."""

    @classmethod
    def of(cls, requests: Sequence[SampleRequest], slots: Sequence[int]) -> _Prompts:
        count = torch.tensor([len(request.prompts) for request in requests])
        columns = [
            torch.tensor(column).repeat_interleave(count)
            for column in zip(*((r.group_size, r.temperature, r.greedy) for r in requests), strict=True)
        ]
        group_size, temperature, greedy = columns

        def per_prompt(name: str) -> Tensor:
            known = (getattr(r, name) or [0] * len(r.prompts) for r in requests)
            return torch.tensor([x for column in known for x in column])

        return cls(
            tokens=[prompt for request in requests for prompt in request.prompts],
            slot=torch.tensor(slots).repeat_interleave(count),
            group_size=group_size,
            limit=per_prompt("limits"),
            sample=per_prompt("samples"),
            position=per_prompt("positions"),
            temperature=temperature.float(),
            greedy=greedy,
            stream=torch.cat([noise.bits(r.seed, r.step, torch.tensor(r.prompt_keys)) for r in requests]),
        )

    def between(self, first: int, last: int) -> _Prompts:
        return _Prompts(**{name: value[first:last] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> _Prompts:
        return _Prompts(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()})


def _batches(group_size: Tensor, slot: Tensor, max_rows: int) -> list[tuple[int, int]]:
    """Cut the list of prompts into ranges (first, last) with about equally many rows, at most `max_rows`.

    The rows of an adapter stay in one batch where they fit. The adapters of a batch then mostly have equally many rows,
    and their batched product needs no padding. An adapter with too many rows is divided between groups; a single group
    may have more than `max_rows` rows.
    """
    _, count = slot.unique_consecutive(return_counts=True)
    of_slots = [int(part.sum()) for part in group_size.split(count.tolist())]
    if max(of_slots) > max_rows:
        count, of_slots = torch.ones_like(group_size), group_size.tolist()
    rows, largest = sum(of_slots), max(of_slots)
    number = -(-rows // max_rows)
    even = min(max_rows, -(-rows // number // largest) * largest)
    cuts, taken, place = [0], 0, 0
    for prompts, more in zip(count.tolist(), of_slots, strict=True):
        if taken and taken + more > even:
            cuts.append(place)
            taken = 0
        taken, place = taken + more, place + prompts
    return list(pairwise([*cuts, place]))


@torch.no_grad()
def _decode(backbone: Backbone, stack: AdapterStack | None, prompts: _Prompts) -> Samples:
    """Sample one batch: prefill each prompt once, give each of its samples a copy of the cache, decode all together."""
    profiler.enter("prefill")
    device = backbone.device
    prompt_N = torch.arange(len(prompts.tokens), device=device).repeat_interleave(prompts.group_size)
    start_P = prompts.group_size.cumsum(0) - prompts.group_size
    rows, longest = len(prompt_N), int(prompts.limit.max())
    sample_N = torch.arange(rows, device=device) + (prompts.sample - start_P)[prompt_N]
    stream_N1 = noise.bits(prompts.stream[prompt_N], sample_N)[:, None]
    place_NT = noise.bits(stream_N1, prompts.position[prompt_N, None] + torch.arange(longest, device=device))
    slot_N, limit_N = prompts.slot[prompt_N], prompts.limit[prompt_N]
    temperature_N1 = prompts.temperature[prompt_N][:, None]
    spread_N1 = (~prompts.greedy[prompt_N])[:, None].float()  # 0: no noise, the likeliest token
    all_greedy = bool(prompts.greedy.all())
    ends = torch.tensor(backbone.end_ids, device=device)

    response_NT = torch.zeros((rows, longest), dtype=torch.int64, device=device)
    mask_NT = torch.zeros((rows, longest), dtype=torch.bool, device=device)
    logp_NT = torch.zeros((rows, longest), device=device)
    finished_N = torch.zeros(rows, dtype=torch.bool, device=device)

    tokens, seen = pad_left(prompts.tokens, backbone.pad_id, device)
    width = tokens.shape[1]
    cache = backbone.new_cache()
    with backbone.adapters(stack, prompts.slot):
        logits = backbone.logits(backbone.states(tokens, seen, cache)[:, -1])
    cache.reorder_cache(prompt_N)
    logits, seen = logits[prompt_N], F.pad(seen[prompt_N], (0, longest), value=True)
    live, alive = torch.arange(rows, device=device), torch.ones(rows, dtype=torch.bool, device=device)

    profiler.enter("decode")
    with ExitStack() as active:
        plan = active.enter_context(backbone.adapters(stack, slot_N, decoding=True))
        for t in range(longest):
            logp = (logits.float() / temperature_N1[live]).log_softmax(dim=1)
            token = logp.argmax(dim=1) if all_greedy else choose(logp, place_NT[live, t, None], spread_N1[live])
            response_NT[live, t], mask_NT[live, t] = token, alive
            logp_NT[live, t] = logp.gather(1, token[:, None]).squeeze(1)
            ended = torch.isin(token, ends)
            finished_N[live] |= alive & ended
            alive = alive & ~ended & (t + 1 < limit_N[live])
            remaining = int(alive.sum())
            if remaining == 0:
                break
            own_weights = plan is not None and plan.merges
            kept = _staying(alive, remaining, slot_N[live] if own_weights else None)
            if kept is not None:
                live, token, seen, alive = live[kept], token[kept], seen[kept], alive[kept]
                cache.reorder_cache(kept)
                active.close()
                plan = active.enter_context(backbone.adapters(stack, slot_N[live], decoding=True, before=plan))
            past = seen[:, : width + t + 1]
            logits = backbone.logits(backbone.states(token[:, None], past, cache)[:, -1])
    return Samples(response_NT * mask_NT, mask_NT, torch.where(mask_NT, logp_NT, 0), finished_N)


def _staying(alive: Tensor, remaining: int, slot_N: Tensor | None) -> Tensor | None:
    """Return the indices of the rows that stay in the batch, in order; None if too few are finished to remove any.

    Finished rows are removed. With `slot_N` (adapters merged into one batched product) some finished rows stay, so that
    all adapters keep equally many rows, unless that would keep too many.
    """
    rows = len(alive)
    if remaining >= COMPACT_BELOW * rows:
        return None
    done, stays = ~alive, alive
    if slot_N is not None:
        _, block_N = slot_N.unique_consecutive(return_inverse=True)
        alive_K, done_K = (torch.bincount(block_N[some], minlength=int(block_N[-1]) + 1) for some in (alive, done))
        spare_K = torch.where(alive_K > 0, alive_K.max() - alive_K, 0)
        if remaining + int(spare_K.sum()) <= MOST_PADDING * remaining:
            before_K = done_K.cumsum(0) - done_K
            stays = alive | (done & (done.cumsum(0) - before_K[block_N] <= spare_K[block_N]))
    kept = stays.nonzero()[:, 0]
    return kept if len(kept) < COMPACT_BELOW * rows else None


def choose(logp_NV: Tensor, place_N1: Tensor, spread_N1: Tensor) -> Tensor:
    """Draw one token per row from its log-probs, with noise named by place (stream and t) and token; returns [N].

    For a large vocabulary, first a block of tokens is drawn and then a token of the block. The distribution is the
    same, and two short rows of noise replace one long row. `spread` 0 takes the likeliest token.
    """
    rows, size = logp_NV.shape
    tokens = torch.arange(size, device=logp_NV.device)
    if size < BLOCKS_FROM:
        return (logp_NV + noise.gumbel(tokens, after=place_N1) * spread_N1).argmax(dim=1)
    blocks = -(-size // BLOCK)
    padded = F.pad(logp_NV, (0, blocks * BLOCK - size), value=-torch.inf).view(rows, blocks, BLOCK)
    block_NK = torch.where(spread_N1 > 0, padded.logsumexp(dim=2), padded.amax(dim=2))
    names_K = size + torch.arange(blocks, device=logp_NV.device)  # counters that no token has
    block_N = (block_NK + noise.gumbel(names_K, after=place_N1) * spread_N1).argmax(dim=1)
    inside_NB = padded[torch.arange(rows, device=logp_NV.device), block_N]
    token_NB = block_N[:, None] * BLOCK + torch.arange(BLOCK, device=logp_NV.device)
    column_N = (inside_NB + noise.gumbel(token_NB, after=place_N1) * spread_N1).argmax(dim=1)
    return block_N * BLOCK + column_N


def _tensors(samples: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return samples.response_NT, samples.mask_NT, samples.logp_NT, samples.finished_N


def _widen(x: Tensor, width: int) -> Tensor:
    """Pad [N, T] on the right with zeros to [N, width]; leave [N] as it is."""
    return x if x.dim() == 1 else F.pad(x, (0, width - x.shape[1]))


def _trim(samples: Samples) -> Samples:
    """Cut the columns beyond the longest response."""
    longest = int(samples.mask_NT.sum(dim=1).max())
    response, mask, logp, finished = _tensors(samples)
    return Samples(response[:, :longest], mask[:, :longest], logp[:, :longest], finished)
