"""A token-level Q network: replay, a target network, and the double estimator that these two allow.

    L = mean over replayed tokens of (r + max_a' Q_target(s', a') - Q(s, a))^2
    double: r + Q_target(s', argmax_a' Q(s', a'))

Source: DQN, Mnih et al. 2015; double DQN, van Hasselt et al. 1509.06461.

Deviations: one hidden layer over the one-hot prefix; squared error instead of a clipped one; Adam. Every constant is
our choice. The networks of all seeds are one tensor each, a seed to a row, and never touch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.lab import qstar
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.learner import Estimate
from rlzoo.lab.qlearning import explore

ROLLOUT = 16
"""Episodes between two rounds of learning."""
STEPS = 8
"""Optimizer steps per round."""
BATCH = 32
"""Episodes per optimizer step, drawn from all so far."""
SYNC = 64
"""Optimizer steps between two copies into the target network."""
WIDTH, LEARNING_RATE = 32, 3e-3


class DeepQ:
    """A Q network per seed."""

    family = "value-based"

    def __init__(self, episodes: Episodes, epsilon: float = 1.0, double: bool = False) -> None:
        self.name = "double DQN" if double else "DQN"
        self._at, self._epsilon, self._double = episodes, epsilon, double
        space, seeds = episodes.space, episodes.seeds
        # One slot per place and token, which is set where the prefix has that token there.
        one_hot_STV = torch.nn.functional.one_hot(space.prefix_ST.clamp(min=0), space.vocabulary)
        self._input_SF = (one_hot_STV * (space.prefix_ST >= 0)[..., None]).flatten(1).double()
        features = self._input_SF.shape[1]
        shapes = {"in": (features, WIDTH), "out": (WIDTH, space.vocabulary)}
        self._weights: list[Tensor] = []
        for name, (rows, columns) in shapes.items():
            place = torch.arange(rows * columns)
            normal_KM = torch.special.ndtri(noise.uniform("network", name, episodes.seed_K1, place))
            self._weights.append(normal_KM.view(seeds, rows, columns) * (2 / rows) ** 0.5)
            self._weights.append(torch.zeros(seeds, 1, columns, dtype=torch.float64))
        for weight in self._weights:
            weight.requires_grad_()
        self._target = [weight.detach().clone() for weight in self._weights]
        self._optimizer = torch.optim.Adam(self._weights, lr=LEARNING_RATE)
        self._steps = 0
        self._response_KN = torch.zeros(seeds, 0, dtype=torch.long)
        self._judged_KN = torch.zeros(seeds, 0, dtype=torch.float64)

    def values(self, weights: list[Tensor]) -> Tensor:
        """Q of every token in every state, [K, S, V]."""
        into, bias, out, last = weights
        return (self._input_SF @ into + bias).relu() @ out + last

    def learn(self, first: int, count: int) -> None:
        for start in range(first, first + count, ROLLOUT):
            size = min(ROLLOUT, first + count - start)
            policy_KSV = explore(self.values(self._weights).detach(), self._epsilon)
            response_KN = self._at.respond(qstar.probability(policy_KSV, self._at.space), start, size)
            self._response_KN = torch.cat([self._response_KN, response_KN], dim=1)
            self._judged_KN = torch.cat([self._judged_KN, self._at.judged(response_KN, start)], dim=1)
            for _ in range(STEPS):
                self._step()

    def _step(self) -> None:
        if self._steps % SYNC == 0:
            self._target = [weight.detach().clone() for weight in self._weights]
        earlier_KB = noise.integers(
            self._response_KN.shape[1], "replay", self._at.seed_K1, self._steps, torch.arange(BATCH)
        )
        response_KB, judged_KB = (x_KN.gather(1, earlier_KB) for x_KN in (self._response_KN, self._judged_KN))
        space, k = self._at.space, torch.arange(len(response_KB))[:, None, None]
        mask_KBT, s, a = (x_RT[response_KB] for x_RT in (space.mask_RT, space.state_RT, space.token_RT))
        q_KSV = self.values(self._weights)
        next_KBT = space.next_SV[s, a]
        bootstrapped_KBT = self._bootstrapped(q_KSV.detach())[k, next_KBT]
        target_KBT = torch.where(next_KBT < 0, judged_KB[..., None], bootstrapped_KBT)
        error_KBT = torch.where(mask_KBT, target_KBT - q_KSV[k, s, a], 0)
        loss_K = error_KBT.square().sum(dim=(1, 2)) / mask_KBT.sum(dim=(1, 2))
        self._optimizer.zero_grad()
        loss_K.sum().backward()
        self._optimizer.step()
        self._steps += 1

    def _bootstrapped(self, q_KSV: Tensor) -> Tensor:
        """The value of every state that targets are made from, [K, S]."""
        target_KSV = self.values(self._target)
        chosen_KSV = q_KSV if self._double else target_KSV
        return target_KSV.gather(-1, chosen_KSV.argmax(dim=-1, keepdim=True))[..., 0]

    def estimate(self) -> Estimate:
        q_KSV = self.values(self._weights).detach()
        return Estimate(qstar.greedy(q_KSV), q_KSV, self._bootstrapped(q_KSV))
