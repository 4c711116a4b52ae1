"""A token-level Q network: replay, a target network, the double estimator, and four further fields.

    L = mean over replayed tokens of w (target - Q(s, a))^2,    target = r + max_a' Q_target(s', a'),  w = 1
    double       r + Q_target(s', argmax_a' Q(s', a'))
    n_step       the reward of the next n tokens + max Q_target at the state after them (no correction off-policy)
    prioritized  episodes drawn in proportion to (mean |error| + 0.001)^0.6, w = (1 / (N P))^0.4 over the largest
    dueling      Q(s, a) = V(s) + U(s, a) - mean_a U(s, a), two heads on one hidden layer
    noisy        weights mu + sigma e with learned sigma, e normal and redrawn per step; actions are greedy on them

Sources: DQN, Mnih et al. 2015; double, van Hasselt et al. 1509.06461; prioritized, Schaul et al. 1511.05952; dueling,
Wang et al. 1511.06581; noisy, Fortunato et al. 1706.10295; n-step, Sutton 1988, as in Rainbow, 1710.02298.

Deviations: one hidden layer over the one-hot prefix; squared error instead of a clipped one; Adam; priorities per
episode instead of per transition; sigma starts at 0.5 / sqrt(inputs), with independent instead of factored noise. All
other constants are our choice. Each weight of all seeds' networks is one tensor, one row per seed; no operation mixes
seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.errors import UserError
from rlzoo.lab import qstar
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.learner import Estimate
from rlzoo.lab.qlearning import explore

ROLLOUT = 16
"""Episodes between two rounds of optimizer steps."""
STEPS = 8
"""Optimizer steps per round."""
BATCH = 32
"""Episodes per optimizer step, drawn from all earlier ones."""
SYNC = 64
"""Optimizer steps between two copies into the target network."""
WIDTH, LEARNING_RATE = 32, 3e-3
PRIORITY, CORRECTION, LEAST = 0.6, 0.4, 1e-3
SIGMA = 0.5


@dataclass(frozen=True)
class Variant:
    """Which extensions a DQN has; the default is the plain DQN. See the module docstring for the fields.

    Raises:
        UserError: `n_step` below 1.
    """

    double: bool = False
    prioritized: bool = False
    dueling: bool = False
    noisy: bool = False
    n_step: int = 1

    def __post_init__(self) -> None:
        if self.n_step < 1:
            raise UserError(f"n_step {self.n_step}: must be 1 or more tokens")

    @property
    def name(self) -> str:
        """Name in tables and figures."""
        words = [word for word in ("prioritized", "dueling", "noisy") if getattr(self, word)]
        words += [f"{self.n_step}-step"] * (self.n_step > 1)
        return ", ".join(["double DQN" if self.double else "DQN", *words])


class DeepQ:
    """One Q network per seed; see the module docstring. A `learner.Learner`."""

    family = "value-based"

    def __init__(self, episodes: Episodes, epsilon: float = 1.0, variant: Variant | None = None) -> None:
        self._variant = variant or Variant()
        self.name = self._variant.name
        self._at, self._epsilon = episodes, 0.0 if self._variant.noisy else epsilon
        space = episodes.space
        # One input per position and token: 1 if the prefix has that token at that position.
        one_hot_STV = torch.nn.functional.one_hot(space.prefix_ST.clamp(min=0), space.vocabulary)
        self._input_SF = (one_hot_STV * (space.prefix_ST >= 0)[..., None]).flatten(1).double()
        self._weights = self._initial()
        self._sigmas = self._initial_sigmas()
        leaves = [*self._weights, *self._sigmas]
        for leaf in leaves:
            leaf.requires_grad_()
        self._target = [weight.detach().clone() for weight in self._weights]
        self._optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE)
        self._steps = 0
        self._response_KN = torch.zeros(episodes.seeds, 0, dtype=torch.long)
        self._judged_KN = torch.zeros(episodes.seeds, 0, dtype=torch.float64)
        self._priority_KN = torch.zeros(episodes.seeds, 0, dtype=torch.float64)

    def _initial(self) -> list[Tensor]:
        """Return normal weights of standard deviation sqrt(2 / inputs) and zero biases: into, bias, out, last."""
        found: list[Tensor] = []
        outputs = self._at.space.vocabulary + self._variant.dueling
        for name, rows, columns in (("in", self._input_SF.shape[1], WIDTH), ("out", WIDTH, outputs)):
            place = torch.arange(rows * columns)
            normal_KM = torch.special.ndtri(noise.uniform("network", name, self._at.seed_K1, place))
            found.append(normal_KM.view(self._at.seeds, rows, columns) * (2 / rows) ** 0.5)
            found.append(torch.zeros(self._at.seeds, 1, columns, dtype=torch.float64))
        return found

    def _initial_sigmas(self) -> list[Tensor]:
        if not self._variant.noisy:
            return []
        inputs = (self._input_SF.shape[1], self._input_SF.shape[1], WIDTH, WIDTH)
        return [torch.full_like(w, SIGMA / rows**0.5) for w, rows in zip(self._weights, inputs, strict=True)]

    def values(self, weights: list[Tensor]) -> Tensor:
        """Q of every token in every state, [K, S, V]."""
        into, bias, out, last = weights
        heads_KSV = (self._input_SF @ into + bias).relu() @ out + last
        if not self._variant.dueling:
            return heads_KSV
        use_KSV = heads_KSV[..., 1:]
        return heads_KSV[..., :1] + use_KSV - use_KSV.mean(dim=-1, keepdim=True)

    def perturbed(self, *words: str | int) -> list[Tensor]:
        """Return the weights with noise keyed by `words`; unchanged without `noisy`."""
        if not self._sigmas:
            return self._weights
        found: list[Tensor] = []
        for i, (mu, sigma) in enumerate(zip(self._weights, self._sigmas, strict=True)):
            place = torch.arange(mu[0].numel())
            e_KM = torch.special.ndtri(noise.uniform("noisy", *words, i, self._at.seed_K1, place))
            found.append(mu + sigma * e_KM.view_as(mu))
        return found

    def learn(self, first: int, count: int) -> None:
        for start in range(first, first + count, ROLLOUT):
            size = min(ROLLOUT, first + count - start)
            policy_KSV = explore(self.values(self.perturbed("act", start)).detach(), self._epsilon)
            response_KN = self._at.respond(qstar.probability(policy_KSV, self._at.space), start, size)
            self._response_KN = torch.cat([self._response_KN, response_KN], dim=1)
            self._judged_KN = torch.cat([self._judged_KN, self._at.judged(response_KN, start)], dim=1)
            if self._variant.prioritized:  # new episodes get the largest priority so far
                known = self._priority_KN.shape[1] > 0
                urgent_K1 = self._priority_KN.amax(dim=1, keepdim=True) if known else torch.ones(len(response_KN), 1)
                self._priority_KN = torch.cat([self._priority_KN, urgent_K1.double().expand(-1, size)], dim=1)
            for _ in range(STEPS):
                self._step()

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Return the episodes of this step and the weights of their losses, both [K, B]."""
        count, words = self._response_KN.shape[1], (self._at.seed_K1, self._steps, torch.arange(BATCH))
        if not self._variant.prioritized:
            earlier_KB = noise.integers(count, "replay", *words)
            return earlier_KB, torch.ones_like(earlier_KB, dtype=torch.float64)
        chance_KN = self._priority_KN**PRIORITY
        chance_KN = chance_KN / chance_KN.sum(dim=1, keepdim=True)
        place_KB = noise.uniform("replay", *words)
        earlier_KB = torch.searchsorted(chance_KN.cumsum(dim=1), place_KB).clamp(max=count - 1)
        weight_KB = (count * chance_KN.gather(1, earlier_KB)) ** -CORRECTION
        return earlier_KB, weight_KB / weight_KB.amax(dim=1, keepdim=True)

    def _step(self) -> None:
        if self._steps % SYNC == 0:
            self._target = [weight.detach().clone() for weight in self._weights]
        earlier_KB, weight_KB = self._drawn()
        response_KB, judged_KB = (x_KN.gather(1, earlier_KB) for x_KN in (self._response_KN, self._judged_KN))
        space, k = self._at.space, torch.arange(len(response_KB))[:, None, None]
        mask_KBT, s, a = (x_RT[response_KB] for x_RT in (space.mask_RT, space.state_RT, space.token_RT))
        q_KSV = self.values(self.perturbed("learn", self._steps))
        later_KBT, goes_on_KBT = self._later(s, mask_KBT)
        bootstrapped_KBT = self._bootstrapped(q_KSV.detach())[k, later_KBT]
        target_KBT = torch.where(goes_on_KBT, bootstrapped_KBT, judged_KB[..., None])
        error_KBT = torch.where(mask_KBT, target_KBT - q_KSV[k, s, a], 0)
        loss_K = (weight_KB[..., None] * error_KBT.square()).sum(dim=(1, 2)) / mask_KBT.sum(dim=(1, 2))
        self._optimizer.zero_grad()
        loss_K.sum().backward()
        self._optimizer.step()
        if self._variant.prioritized:
            urgency_KB = error_KBT.detach().abs().sum(dim=2) / mask_KBT.sum(dim=2) + LEAST
            self._priority_KN = self._priority_KN.scatter(1, earlier_KB, urgency_KB)
        self._steps += 1

    def _later(self, state_KBT: Tensor, mask_KBT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state n tokens later, and whether the response reaches it. Rewards are at the last token only."""
        n = self._variant.n_step
        later_KBT, goes_on_KBT = torch.zeros_like(state_KBT), torch.zeros_like(mask_KBT)
        later_KBT[..., :-n], goes_on_KBT[..., :-n] = state_KBT[..., n:], mask_KBT[..., n:]
        return later_KBT, goes_on_KBT

    def _bootstrapped(self, q_KSV: Tensor) -> Tensor:
        """Return the value of every state that targets bootstrap from, [K, S]."""
        target_KSV = self.values(self._target)
        chosen_KSV = q_KSV if self._variant.double else target_KSV
        return target_KSV.gather(-1, chosen_KSV.argmax(dim=-1, keepdim=True))[..., 0]

    def estimate(self) -> Estimate:
        q_KSV = self.values(self._weights).detach()
        return Estimate(qstar.greedy(q_KSV), q_KSV, self._bootstrapped(q_KSV))
