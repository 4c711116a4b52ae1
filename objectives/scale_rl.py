"""ScaleRL: CISPO's weight, equal weight for every prompt, one std for the whole batch.

    L = -1/P sum_p 1/N_p sum_{i of p} sum_t sg(min(r_it, cap)) A_i log pi_it
    A_i = (r_i - mean of its group) / std of the rollout

Source: Khatri et al. 2510.13786.

What it changes: from CISPO the aggregate (each prompt weighs 1/P, its tokens 1/N_p) and the std.
Constants: cap 5 (TRL's for ScaleRL). Prompts whose responses are all right or all wrong are dropped and not replaced.
Deviations: the recipe's other parts are settings of a run, not of its objective: float32 logits, asynchronous rollouts,
dropping prompts that are solved nearly always, interruption of overlong responses.
When it is inert: with groups of equal token counts the aggregate is the token mean.
Disputed: the gain of each part. The paper's ceiling is 0.61 against 0.52 for a GRPO-like loss; single parts add little.
"""

from advantages import Group, Mixed
from objectives.objective import Objective
from objectives.parts import ClippedWeight, PromptMean, Token
from objectives.registry import register

SCALE_RL = register(
    Objective(
        name="scale_rl",
        select=Mixed(max_rounds=1),
        advantage=Group(scale="batch_std"),
        ratio=Token(),
        surrogate=ClippedWeight(floor=0.0, cap=5.0),
        aggregate=PromptMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="cispo",
)
