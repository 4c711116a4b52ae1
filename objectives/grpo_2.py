"""2-GRPO: GRPO with groups of two, the smallest there are.

    L = GRPO's at G = 2:   A_1 = (r_1 - mean) / std = sign(r_1 - r_2) / sqrt(2),   A_2 = -A_1

Source: "It Takes Two", 2510.00977.

What it is: a schedule. The loss is GRPO's; what it fixes is the number of responses per prompt, so a run with another
`train.group_size` is refused. With a quarter of GRPO's 8, four times the `train.prompts_per_step` costs as much.
Constants: G 2; beta, e and the std (n-1, hence the sqrt(2)) are `grpo`'s here.
Deviations: 1e-6 is added to the std, as in `grpo`.
When it is inert: as `grpo`; and a pair with equal rewards teaches nothing, which of two happens most often.
Disputed: that the group's size hardly matters. The paper keeps 97.6 % of 16-GRPO with 12.5 % of the rollouts. Exactly:
for right and wrong answers dividing by the std weighs all difficulties alike at G = 2 (up to sqrt(G-1) at larger G),
so it is unbiased REINFORCE with a pairwise baseline, whatever it may seem. Rewards of more than two values lose their
size: only the sign of the difference is left.
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
