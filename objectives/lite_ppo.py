"""Lite PPO: PPO's clip with two tricks: group mean with batch std, and a token-level loss.

    L = -1/sum_i |y_i| sum_i sum_t min(r_it A_i, clip(r_it, 1-e, 1+e) A_i),   A_i = (r_i - mean_group) / std_batch

Source: Liu et al., "Tricks or Traps? A Deep Dive into RL for LLM Reasoning", 2508.08221.

Constants: e 0.2 (the usual clip; our choice), no KL. The std is over the rewards of all responses of the rollout, n-1,
eps 1e-6 (our choice, as `advantages.Group`).
Deviations: none known; the paper's sampling settings (temperature .99, top-p .99, top-k 100, G 8) are not part of it.
When it is inert: the clip at one update per rollout. With one prompt per rollout the batch is the group.
Disputed: whether two tricks beat the combination of many. The paper's gain (about 43 against GRPO's 39 and DAPO's 35 on
one base model's easy set) is for base models; for aligned models its token-level loss did not help.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

LITE_PPO = register(
    Objective(
        name="lite_ppo",
        advantage=Group(scale="batch_std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
