"""DRO: no ratio; a squared penalty keeps the policy close to the sampling policy.

    L = -1/G sum_i sum_t { A_i log pi_it - beta/2 (log pi_it - log old_it)^2 }

Source: Richemond et al. 2405.19107; token by token as Tinker's loss `dro`. Kimi k1.5 (2501.12599) takes the square of
the whole response.

What it changes: the square replaces ratio and clip. It needs no bound, because it pulls back from both sides.
Constants: beta 0.05 (Tinker's default). A_i = r_i - mean over the group (our choice, as Kimi k1.5's baseline).
Deviations: the group mean replaces DRO's learned value.
When it is inert: at one update per rollout the square has no gradient, and it is REINFORCE with the group's mean.
Disputed: a comparison of losses at 8B found it far behind at this beta (GSM8K 10%, the others 93%).
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Log, OldKL, SequenceSum, Token
from objectives.registry import register

DRO = register(
    Objective(
        name="dro",
        advantage=Group(scale="none"),
        ratio=Token(),
        surrogate=Log(),
        aggregate=SequenceSum(),
        kl=OldKL(coef=0.05, form="k2"),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
