"""2-GRPO: GRPO with groups of two, the smallest possible.

    L = GRPO's at G = 2:   A_1 = (r_1 - mean) / std = sign(r_1 - r_2) / sqrt(2),   A_2 = -A_1

Source: "It Takes Two", 2510.00977.

What it is: a schedule. The loss is GRPO's, and the number of responses per prompt is fixed: a run with another
`train.group_size` is refused. At a quarter of GRPO's 8, four times the `train.prompts_per_step` costs the same.
Constants: G 2; beta, e and the std (n-1, hence the sqrt(2)) are `grpo`'s here.
Deviations: 1e-6 is added to the std, as in `grpo`.
When it is inert: as `grpo`. A pair with equal rewards gives no gradient, and pairs are silent more often than larger
groups.
Disputed: whether the group size hardly matters. The paper keeps 97.6 % of 16-GRPO with 12.5 % of the rollouts. For
rewards 0 and 1, dividing by the std weighs all difficulties equally at G = 2 (by up to sqrt(G-1) at larger G), so
2-GRPO is exactly unbiased REINFORCE with a pairwise baseline. With more than two reward values only the sign of the
difference counts.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import K3, Clip, SequenceMean, Token
from objectives.registry import register

GRPO_2 = register(
    Objective(
        name="grpo_2",
        advantage=Group(scale="std", size=2),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=SequenceMean(),
        kl=K3(coef=0.04),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
