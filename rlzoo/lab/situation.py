"""One moment of training, seen completely: who sampled, who is being updated, what the critic believes.

A gradient is held as [S, V] in the space of the logits; `Geometry` gives the inner products it has in the space of the
parameters, so a tabular policy and a transformer are measured by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.space import Space
from rlzoo.lab.world import World


@dataclass(frozen=True)
class Geometry:
    """Inner products of parameter gradients, from gradients in logits: <a, b> = (J^T a) . (J^T b).

    Attributes:
        jacobian: d logits / d theta, [S*V, M]; None is the identity (tabular).
    """

    jacobian: Tensor | None = None

    def parameters(self, g_SV: Tensor) -> Tensor:
        """The gradient with respect to theta, [M]."""
        return g_SV.flatten() if self.jacobian is None else g_SV.flatten() @ self.jacobian

    def lowered(self, g_XSV: Tensor) -> Tensor:
        """J J^T g for many gradients, the same shape: `(a * lowered(b)).sum()` is <a, b>."""
        if self.jacobian is None:
            return g_XSV
        flat = g_XSV.flatten(-2)
        return ((flat @ self.jacobian) @ self.jacobian.T).view_as(g_XSV)

    def dot(self, a_SV: Tensor, b_SV: Tensor) -> float:
        """<a, b>."""
        return (self.parameters(a_SV) @ self.parameters(b_SV)).item()


@dataclass(frozen=True)
class Situation:
    """What an objective's estimate of the gradient depends on.

    Attributes:
        logits_SV: the policy that is being updated.
        old_logits_SV: the policy that sampled, whose log-probs the ratio divides by.
        ref_logits_SV: the reference of KL terms.
        value_S: the critic's value of every state, at sampling time and now.
        reward_R, accuracy_R: the task's verdict on every response.
    """

    space: Space
    logits_SV: Tensor
    old_logits_SV: Tensor
    ref_logits_SV: Tensor
    value_S: Tensor
    reward_R: Tensor
    accuracy_R: Tensor
    geometry: Geometry = field(default_factory=Geometry)

    @property
    def logp_SV(self) -> Tensor:
        return self.logits_SV.log_softmax(dim=1)

    @property
    def old_probability_R(self) -> Tensor:
        """Probability that the sampler draws each response."""
        return exact.probability(self.old_logits_SV, self.space)

    @property
    def greedy_reward(self) -> Tensor:
        """Reward of the sampler's greedy response, a scalar: in each of its states the likeliest token is taken."""
        space = self.space
        likeliest_RT = space.at_states(self.old_logits_SV.argmax(dim=1))
        (greedy,) = ((space.token_RT == likeliest_RT) | ~space.mask_RT).all(dim=1).nonzero().flatten()
        return self.reward_R[greedy]

    @property
    def true_gradient_SV(self) -> Tensor:
        """Gradient of J at the policy that is being updated."""
        return exact.logits_gradient(self.logits_SV, self.space, self.reward_R)

    @property
    def tokens(self) -> float:
        """Expected tokens of a sampled response."""
        return (self.old_probability_R * self.space.length_R).sum().item()

    def rows(self, c_XT: Tensor, response_X: Tensor, entropy_XT: Tensor | None = None) -> Tensor:
        """Gradient rows in logits of sum_t c_t log pi(y_t | s_t) + e_t H(s_t), one per step: [X, T, V].

        Args:
            c_XT: coefficient of each token's log-prob; [..., T] with any leading shape X.
            response_X: which response each row is.
            entropy_XT: coefficient of each state's entropy.
        """
        logp_XTV = self.logp_SV[self.space.state_RT[response_X]]
        pi_XTV = logp_XTV.exp()
        chosen = torch.nn.functional.one_hot(self.space.token_RT[response_X], self.space.vocabulary)
        rows = c_XT[..., None] * (chosen - pi_XTV)
        if entropy_XT is not None:
            entropy = -(pi_XTV * logp_XTV).sum(dim=-1, keepdim=True)
            rows = rows - entropy_XT[..., None] * pi_XTV * (logp_XTV + entropy)
        return rows

    def scatter(self, rows_RTV: Tensor) -> Tensor:
        """Sum rows of all responses into the states they belong to: [R, T, V] -> [S, V]."""
        total_SV = torch.zeros_like(self.logits_SV)
        mask_RT = self.space.mask_RT
        return total_SV.index_add(0, self.space.state_RT[mask_RT], rows_RTV[mask_RT])


def first_update(world: World, value_S: Tensor | None = None) -> Situation:
    """The first update after sampling: the policy is the sampler, and the base itself. The critic is exact if None."""
    logits_SV = world.logits_SV
    if value_S is None:
        value_S = exact.values(logits_SV, world.space, exact.token_reward(world.space, world.reward_R)).v_S
    return Situation(
        space=world.space,
        logits_SV=logits_SV,
        old_logits_SV=logits_SV,
        ref_logits_SV=logits_SV,
        value_S=value_S,
        reward_R=world.reward_R,
        accuracy_R=world.accuracy_R,
        geometry=Geometry(world.policy.jacobian(world.theta_M)),
    )
