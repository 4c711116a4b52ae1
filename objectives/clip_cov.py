"""Clip-Cov: some of the tokens that reduce the entropy most lose their gradient.

    L = -1/sum_i |y_i| sum_i sum_t r_it A_i,   but no gradient at a few tokens with w_low < cov_it < w_high
    cov_it = (log old_it - mean log old) (A_i - mean A),   means over the tokens of the optimizer step

Source: "The entropy mechanism of reinforcement learning for reasoning language models", 2505.22617.

Constants: a share 2e-4 of the tokens (at least one), bounds 1 and 5 (section 4.3), token mean, no KL. A_i as in GRPO.
Deviations: the covariance uses the sampling policy's log-probs over the whole step; the authors' code uses the current
policy's in each micro-batch. The tokens are equally spaced in order of covariance; the code draws them at random (see
`objectives.parts.tokens`). The recipe's clip of the ratio to [0, 2] is left out. The authors drop prompts that are all
right or all wrong (section 2.2: `select=mixed`).
What it changes: a natural-gradient step changes the entropy by about minus this covariance (theorem 2; a
policy-gradient step by minus Cov(log pi, pi A), theorem 1), and few tokens carry most of it.
When it is inert: when no token lies between the bounds, for example if advantages or log-probs hardly vary.
Disputed: the paper's claim that no algorithm changes the coefficients of its law R = -a exp(H) + b.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import ClipCov, Linear, Token, TokenMean
from objectives.registry import register

CLIP_COV = register(
    Objective(
        name="clip_cov",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Linear(),
        tokens=ClipCov(share=2e-4, low=1.0, high=5.0),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
