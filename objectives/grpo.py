"""GRPO: the group is the baseline.

    L = -1/G sum_i 1/|y_i| sum_t { min(r_it A_i, clip(r_it, 1-e, 1+e) A_i) - beta k3_it },   A_i = (r_i - mean) / std

Source: Shao et al., DeepSeekMath, 2402.03300, section 4.1 (equations 3 and 4).

Constants: beta 0.04 (section 4.2); e = 0.2 (the paper never states it; TRL's and verl's default). The std is the
unbiased one and eps 1e-6 (the paper states neither; see `advantages.Group`).
Deviations: this is outcome supervision (4.1.2). The paper also has process supervision (4.1.3: a token's advantage is
the sum of the normalized rewards of the steps after it) and an iterative form with a moving reference (4.1.4).
When it is inert: at one update per rollout (the paper's setting) the clip never acts.
Disputed: dividing by the std weighs prompts by difficulty (by up to sqrt(G-1), and not at all at G = 2). Dividing by
|y_i| favours short right and long wrong answers (2503.20783). k3 in the loss has the gradient of KL(ref || pi).
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import K3, Clip, SequenceMean, Token
from objectives.registry import register

GRPO = register(
    Objective(
        name="grpo",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=SequenceMean(),
        kl=K3(coef=0.04),
    ),
    page=__doc__,
    family="group-relative",
)
