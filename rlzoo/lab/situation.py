"""One moment of training: the sampling policy, the policy being updated, the reference, and the critic's values.

Gradients are stored as [S, V] in the space of the logits. `Geometry` computes their inner products in the space of the
parameters, so the same code measures a tabular policy and a transformer.
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
        """Return the gradient with respect to theta, [M]."""
        return g_SV.flatten() if self.jacobian is None else g_SV.flatten() @ self.jacobian

    def lowered(self, g_XSV: Tensor) -> Tensor:
        """Return J J^T g for many gradients, in the same shape: `(a * lowered(b)).sum()` is <a, b>."""
        if self.jacobian is None:
            return g_XSV
        flat = g_XSV.flatten(-2)
        return ((flat @ self.jacobian) @ self.jacobian.T).view_as(g_XSV)

    def dot(self, a_SV: Tensor, b_SV: Tensor) -> float:
        """Return <a, b>."""
        return (self.parameters(a_SV) @ self.parameters(b_SV)).item()


@dataclass(frozen=True)
class Situation:
    """All inputs of an objective's gradient estimate.

    Attributes:
        logits_SV: the policy being updated.
        old_logits_SV: the policy that sampled; the denominator of ratios.
        ref_logits_SV: the reference of KL terms.
        value_S: the critic's value of every state, at sampling time and now.
        reward_R, accuracy_R: the task's reward and accuracy of every response.
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
        """Log-probs of the policy being updated."""
        return self.logits_SV.log_softmax(dim=1)

    @property
    def old_probability_R(self) -> Tensor:
        """The sampler's probability of each response."""
        return exact.probability(self.old_logits_SV, self.space)

    @property
    def greedy_reward(self) -> Tensor:
        """Reward of the sampler's greedy response (the most likely token in every state), a scalar."""
        space = self.space
        likeliest_RT = space.at_states(self.old_logits_SV.argmax(dim=1))
        (greedy,) = ((space.token_RT == likeliest_RT) | ~space.mask_RT).all(dim=1).nonzero().flatten()
        return self.reward_R[greedy]

    @property
    def true_gradient_SV(self) -> Tensor:
        """Gradient of J at the policy being updated."""
        return exact.logits_gradient(self.logits_SV, self.space, self.reward_R)

    @property
    def tokens(self) -> float:
        """Expected length of a sampled response, in tokens."""
        return (self.old_probability_R * self.space.length_R).sum().item()

    def rows(self, c_XT: Tensor, response_X: Tensor, entropy_XT: Tensor | None = None) -> Tensor:
        """Return the gradient in logits of sum_t c_t log pi(y_t | s_t) + e_t H(s_t), one row per token: [X, T, V].

        Args:
            c_XT: coefficient of each token's log-prob; [..., T] with any leading shape X.
            response_X: index of each row's response.
            entropy_XT: coefficient e_t of each state's entropy; None: 0.
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
        """Sum the rows of all responses into their states: [R, T, V] -> [S, V]."""
        total_SV = torch.zeros_like(self.logits_SV)
        mask_RT = self.space.mask_RT
        return total_SV.index_add(0, self.space.state_RT[mask_RT], rows_RTV[mask_RT])


def first_update(world: World, value_S: Tensor | None = None) -> Situation:
    """Return the first update after sampling: policy, sampler and reference are the base.

    `value_S`: the critic's values; None: exact ones.
    """
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
