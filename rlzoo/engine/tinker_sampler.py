"""Sampling, and log-probs of the base model, by the sampler of a server of the Tinker API."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.engine.protocol import SampleRequest, Samples
from rlzoo.engine.tinker_rows import Rows
from rlzoo.engine.tinker_server import Server
from rlzoo.errors import UserError

LARGEST_SEED = 2**30
"""Servers count on from a seed for the samples of one prompt, in 31 bits."""

Response = tuple[list[int], list[float]]
"""Tokens and their log-probs."""


async def respond(server: Server, sampler: Any, request: SampleRequest, end_ids: Sequence[int]) -> Samples:
    """Answer a request: one request to the server per prompt, all at the same time."""
    started = time.monotonic()
    first = request.samples or [0] * len(request.prompts)
    asked = [
        _respond_to(
            server, sampler, request, prompt, limit, noise.derive(request.seed, request.step, key, place), end_ids
        )
        for prompt, limit, key, place in zip(request.prompts, request.limits, request.prompt_keys, first, strict=True)
    ]
    rows = [row for group in await asyncio.gather(*asked) for row in group]
    mask_NT = torch.arange(max(len(tokens) for tokens, _ in rows)) < torch.tensor([[len(tokens)] for tokens, _ in rows])
    response_NT, logp_NT = torch.zeros(mask_NT.shape, dtype=torch.int64), torch.zeros(mask_NT.shape)
    response_NT[mask_NT] = torch.tensor([token for tokens, _ in rows for token in tokens])
    logp_NT[mask_NT] = torch.tensor([x for _, logp in rows for x in logp])
    finished_N = torch.tensor([tokens[-1] in end_ids for tokens, _ in rows])
    return Samples(response_NT, mask_NT, logp_NT, finished_N, time.monotonic() - started)


async def _respond_to(
    server: Server,
    sampler: Any,
    request: SampleRequest,
    prompt: Sequence[int],
    limit: int,
    seed: int,
    end_ids: Sequence[int],
) -> list[Response]:
    params = server.types.SamplingParams(
        max_tokens=limit,
        temperature=0.0 if request.greedy else request.temperature,
        seed=seed % LARGEST_SEED,
        stop=list(end_ids),
        top_k=-1,
        top_p=1.0,
    )
    asked = sampler.sample_async(server.types.ModelInput.from_ints(list(prompt)), request.group_size, params)
    found = await server.answer("sampling", asked)
    return [_checked(server, one, end_ids) for one in found.sequences]


def _checked(server: Server, one: Any, end_ids: Sequence[int]) -> Response:
    """Refuse a response without what learning needs: every token with its log-prob, the end token too."""
    tokens, logp = list(one.tokens), list(one.logprobs or ())
    if not tokens or len(logp) != len(tokens):
        raise UserError(f"the server at {server.url} samples without log-probs: it cannot be trained with")
    if one.stop_reason == "stop" and tokens[-1] not in end_ids:
        raise UserError(
            f"the server at {server.url} leaves the end token out of its samples, so its log-prob is unknown: it "
            "cannot be trained with"
        )
    return tokens, logp


async def scores(server: Server, sampler: Any, rows: Rows) -> list[Tensor]:
    """Log-probs of every target of each sequence, under the policy of a sampler."""

    async def of_one(sequence: list[int]) -> Tensor:
        asked = sampler.compute_logprobs_async(server.types.ModelInput.from_ints(sequence))
        found = await server.answer("computing log-probs of the base model", asked)
        return torch.tensor([math.nan if x is None else x for x in found[1:]])  # of the first token there is none

    return list(await asyncio.gather(*map(of_one, rows.sequences)))
