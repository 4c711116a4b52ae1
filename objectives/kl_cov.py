"""KL-Cov: the tokens that reduce the entropy most pay a penalty for leaving the sampling policy.

    L = -1/sum_i |y_i| sum_i sum_t { r_it A_i - beta |log r_it| [token it is among the share k with the largest cov] }
    cov_it = (log old_it - mean log old) (A_i - mean A),   means over the tokens of the optimizer step

Source: "The entropy mechanism of reinforcement learning for reasoning language models", 2505.22617.

Constants: k 2e-3 of the tokens (at least one; 2e-4 at 32B), beta 1 (section 4.3), token mean, no clip, no KL to a
reference; |log r| is the authors' code's estimate of KL(old || pi). A_i as in GRPO.
Deviations: the covariance uses the sampling policy's log-probs over the whole step; the authors' code uses the current
policy's in each micro-batch (see `objectives.parts.tokens`). The authors drop prompts that are all right or all wrong
(section 2.2: `select=mixed`).
What it changes: as Clip-Cov, but the tokens keep their gradient, and a penalty holds their probability in place.
When it is inert: at one update per rollout |log r| has slope 0 at r = 1, and it is the plain policy gradient.
Disputed: as for Clip-Cov.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import KLCov, Linear, Token, TokenMean
from objectives.registry import register

KL_COV = register(
    Objective(
        name="kl_cov",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Linear(),
        tokens=KLCov(share=2e-3, coef=1.0),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
