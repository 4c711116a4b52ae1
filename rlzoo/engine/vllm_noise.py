"""Inside vLLM: the noise of `rlzoo.noise` in place of vLLM's random numbers, so that runs stay paired.

    y_t = argmax_v  log softmax(z_t / temperature)_v + g_v,    g = Gumbel noise of (seed, step, prompt, sample, t, v)

vLLM runs every request greedily. This logits processor chooses the token as `rlzoo.engine.sampler` does and returns
logits whose only finite entry is the chosen token's log-prob: the argmax is that token, and with
`logprobs_mode="processed_logits"` vLLM reports exactly that log-prob. t is the number of tokens generated so far, so a
request that vLLM preempts and resumes goes on with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from rlzoo import noise
from rlzoo.engine.sampler import choose

KEY = "rlzoo"
"""Entry of `SamplingParams.extra_args`."""


@dataclass(frozen=True)
class Draw:
    """How the tokens of one request are drawn.

    Attributes:
        stream: the bits of (seed, step, prompt key, sample).
        position: counter of the first token.
        temperature, greedy: as in `SampleRequest`.
        tokens: the tokens generated so far; vLLM appends to this list.
    """

    stream: int
    position: int
    temperature: float
    greedy: bool
    tokens: Sequence[int]


class SharedNoise(LogitsProcessor):
    """A custom logits processor of vLLM's V1 model runner."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.draws: dict[int, Draw] = {}
        """Index in vLLM's batch -> its draw."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request without its counters: it would get another request's noise, or none."""
        if KEY not in (sampling_params.extra_args or {}):
            raise ValueError(f"extra_args has no entry {KEY!r}")

    def is_argmax_invariant(self) -> bool:
        """False: the noise decides which token is the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that vLLM adds to its batch, removes from it and moves within it."""
        process_dict_updates(
            self.draws,
            batch_update,
            lambda params, prompt, tokens: Draw(**params.extra_args[KEY], tokens=tokens),
        )

    def apply(self, logits: Tensor) -> Tensor:
        """Replace logits [B, V]: the log-prob of the chosen token at its place, -inf elsewhere."""
        draws = [self.draws[row] for row in range(len(logits))]

        def column(values: Sequence[Any], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(self.device)[:, None]

        stream_B1 = column([draw.stream for draw in draws], torch.int64)
        place_B1 = column([draw.position + len(draw.tokens) for draw in draws], torch.int64)
        temperature_B1 = column([draw.temperature for draw in draws], torch.float32)
        spread_B1 = column([not draw.greedy for draw in draws], torch.float32)
        logp_BV = (logits.float() / temperature_B1).log_softmax(dim=1)
        token_B1 = choose(logp_BV, noise.bits(stream_B1, place_B1), spread_B1)[:, None]
        return logits.fill_(-torch.inf).scatter_(1, token_B1, logp_BV.gather(1, token_B1).to(logits.dtype))
