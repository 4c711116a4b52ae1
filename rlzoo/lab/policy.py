"""Small float64 policies: functions from a parameter vector to the logits of every state.

    tabular       the parameters are logits_SV: one row per prefix, nothing shared between prefixes
    transformer   a causal transformer reads the prefix: an update in one state changes all others

A policy is a pure function of its parameters, so old, reference and current policy are three vectors.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlzoo.lab.space import Space

Kind = Literal["tabular", "transformer"]


class Policy(Protocol):
    """A parametrized distribution over the tokens of every state."""

    space: Space

    def initial(self, seed: int) -> Tensor:
        """Return initial parameters [M], drawn with `seed`."""
        ...

    def logits_SV(self, theta_M: Tensor) -> Tensor:
        """Return the logits of every token in every state, differentiable in theta."""
        ...

    def jacobian(self, theta_M: Tensor) -> Tensor | None:
        """Return d logits / d theta, [S*V, M]; None for the identity."""
        ...


class Tabular:
    """One row of logits per prefix."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def initial(self, seed: int) -> Tensor:
        return torch.randn(self.space.next_SV.numel(), generator=_generator(seed), dtype=torch.float64)

    def logits_SV(self, theta_M: Tensor) -> Tensor:
        return theta_M.view(self.space.next_SV.shape)

    def jacobian(self, theta_M: Tensor) -> None:
        return None


class Transformer:
    """A causal transformer over begin token and prefix: `layers` blocks of `width`, two heads, learned positions."""

    def __init__(self, space: Space, width: int = 8, layers: int = 1) -> None:
        self.space = space
        self._body = _Body(space.vocabulary, space.longest, width, layers).double().eval()
        self._shapes = {name: p.shape for name, p in self._body.named_parameters()}
        begin = torch.full((len(space.prefix_ST), 1), space.vocabulary)
        self._input_ST = torch.cat([begin, space.prefix_ST[:, :-1].clamp(min=0)], dim=1)

    def initial(self, seed: int) -> Tensor:
        generator = _generator(seed)
        parts: list[Tensor] = []
        for name, shape in self._shapes.items():
            # Norms start as the identity, all other weights at a scale at which the prefix matters.
            ones = name.endswith("weight") and len(shape) == 1
            noise = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
            parts.append((torch.ones(shape, dtype=torch.float64) if ones else noise).flatten())
        return torch.cat(parts)

    def logits_SV(self, theta_M: Tensor) -> Tensor:
        sizes = [shape.numel() for shape in self._shapes.values()]
        pieces = zip(self._shapes.items(), theta_M.split(sizes), strict=True)
        weights = {name: piece.view(shape) for (name, shape), piece in pieces}
        logits_STV = functional_call(self._body, weights, (self._input_ST,))
        return logits_STV[torch.arange(len(self._input_ST)), self.space.depth_S]

    def jacobian(self, theta_M: Tensor) -> Tensor:
        leaf = theta_M.detach().requires_grad_()
        logits = self.logits_SV(leaf).flatten()
        rows = [torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in logits]
        return torch.stack(rows)


class _Body(nn.Module):
    def __init__(self, vocabulary: int, longest: int, width: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary + 1, width)  # the last one is the begin token
        self.place = nn.Embedding(longest, width)
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, token_ST: Tensor) -> Tensor:
        steps = token_ST.shape[1]
        future = torch.triu(torch.ones(steps, steps, dtype=torch.bool), diagonal=1)
        return self.head(self.blocks(self.token(token_ST) + self.place(torch.arange(steps)), mask=future))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(kind: Kind, space: Space) -> Policy:
    """Return a policy by its name."""
    return Tabular(space) if kind == "tabular" else Transformer(space)
