"""What a server makes of a loss: measured, because the API leaves it open and servers differ.

    gradient that is wanted   g = sum_n sum_t  a_nt  grad log pi(y_nt)

Tinker itself sums like this. SkyRL's JAX backend takes the mean over the targets of each sequence, and then over the
sequences: that would turn every aggregation into one, without a word. Some servers clip the gradient, others ignore it.

A step of Adam with both betas 0 and a large eps is a step of plain gradient descent, so on an adapter of its own

    change of  sum_t a_t log pi(y_t)  =  rate |g|^2   to first order

and ratios of such changes say by what the server divides. What divides is then multiplied into the advantages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlzoo.engine.tinker_server import Server
from rlzoo.errors import UserError

EPS = 1e5
"""Far above any element of a gradient, so that Adam divides by a constant."""
VISIBLE = (0.02, 0.2)
"""Change of a log-prob that is far above rounding, and small enough to be linear."""
TRIES = 12
ROW = tuple(range(5, 12))
"""The tokens of the row that is measured."""
LONGER = (*ROW, *range(12, 18))
"""The same row with more targets, which count nothing."""
WITHIN = 1.25
"""Factor by which a ratio may miss what it should be."""
TINY = 1e-6


@dataclass(frozen=True)
class Conventions:
    """How a server reduces a loss over its rows (sequences) and their targets, and whether it clips gradients."""

    mean_over_rows: bool
    mean_over_targets: bool
    clips: bool

    def undone(self, rows: int, targets: int) -> float:
        """The factor that turns the server's reduction into a sum, for a row of a step."""
        return (rows if self.mean_over_rows else 1) * (targets if self.mean_over_targets else 1)

    def describe(self) -> str:
        """In words, for the record of a run."""
        over = {(False, False): "sums over rows and tokens", (True, False): "means over rows of sums over tokens"}
        over |= {(False, True): "sums over rows of means over tokens", (True, True): "means over rows and tokens"}
        made = over[self.mean_over_rows, self.mean_over_targets]
        return f"{made}, undone in the advantages; gradients are {'' if self.clips else 'not '}clipped"


async def measure(server: Server, model: str, rank: int) -> Conventions:
    """Measure a server's conventions with an adapter that is thrown away. Its first steps may take minutes.

    Raises:
        UserError: the server's gradient is neither a sum nor a mean.
    """
    probe = await Probe.open(server, model, rank)
    try:
        await probe.find_rate()
        one = await probe.change([ROW])
        twice = await probe.change([ROW, ROW]) / one
        longer = await probe.change([LONGER]) / one
        clipped = await probe.change([ROW], clip=TINY) / one
    finally:
        await server.unload(probe.client.model_id)
    share = (len(ROW) - 1) / (len(LONGER) - 1)
    return Conventions(
        reduces_by_mean(server.url, "two equal rows", twice, of_sum=2, of_mean=1),
        reduces_by_mean(server.url, "a longer row", longer, of_sum=1, of_mean=share),
        clipped < 0.5,
    )


def reduces_by_mean(url: str, what: str, ratio: float, of_sum: float, of_mean: float) -> bool:
    """Whether a ratio is that of a mean. Raises `UserError` if it is neither a mean's nor a sum's."""
    for expected, mean in ((of_sum, False), (of_mean, True)):
        if expected / WITHIN <= ratio <= expected * WITHIN:
            return mean
    raise UserError(
        f"the server at {url} reduces a loss in an unknown way: {what} changed the gradient by the factor "
        f"{ratio:.3g}, which is neither a sum's ({of_sum:.3g}) nor a mean's ({of_mean:.3g})"
    )


@dataclass
class Probe:
    """An adapter that takes steps of gradient descent at some rate."""

    server: Server
    client: Any
    rate: float = 1e-3

    @classmethod
    async def open(cls, server: Server, model: str, rank: int) -> Probe:
        """Create the adapter."""
        asked = server.service.create_lora_training_client_async(model, rank=rank, seed=0, train_unembed=False)
        return cls(server, await server.answer("creating an adapter", asked))

    async def find_rate(self) -> None:
        """Find a rate at which the change is visible and still linear."""
        for _ in range(TRIES):
            change = await self.change([ROW])
            if VISIBLE[0] <= change <= VISIBLE[1]:
                return
            self.rate *= 10 if abs(change) < TINY else min(max(sum(VISIBLE) / 2 / change, 0.03), 30)
        raise UserError(f"the server at {self.server.url} does not follow a gradient: no step size has a linear effect")

    async def change(self, rows: Sequence[Sequence[int]], clip: float = 0.0) -> float:
        """Take one step up the sum of the first targets' log-probs of each row, and return what it changed in `ROW`."""
        before = await self._logp()
        data = [
            datum(self.server, row, logprobs=before + [0.0] * (len(row) - len(ROW)), advantages=_first(row))
            for row in rows
        ]
        await self.server.ask("computing a gradient", self.client.forward_backward_async(data, "importance_sampling"))
        adam = self.server.types.AdamParams(
            learning_rate=self.rate * EPS, beta1=0.0, beta2=0.0, eps=EPS, weight_decay=0.0, grad_clip_norm=clip
        )
        await self.server.ask("taking an optimizer step", self.client.optim_step_async(adam))
        return sum(await self._logp()) - sum(before)

    async def _logp(self) -> list[float]:
        data = [datum(self.server, ROW, weights=[0.0] * (len(ROW) - 1))]
        out = await self.server.ask("computing log-probs", self.client.forward_async(data, "cross_entropy"))
        return [float(x) for x in out.loss_fn_outputs[0]["logprobs"].tolist()]


def _first(row: Sequence[int]) -> list[float]:
    """1 for the targets of `ROW`, 0 for what a longer row has behind them."""
    return [1.0] * (len(ROW) - 1) + [0.0] * (len(row) - len(ROW))


def datum(server: Server, tokens: Sequence[int], **inputs: Any) -> Any:
    """One row of a request: each token is the target of the one before it."""
    types = server.types
    return types.Datum(
        model_input=types.ModelInput.from_ints(list(tokens[:-1])),
        loss_fn_inputs={"target_tokens": list(tokens[1:]), **inputs},
    )
