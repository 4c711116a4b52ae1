"""DAPO: decoupled clip and dynamic sampling.

    L = -1/sum_i |y_i| sum_i sum_t min(r_it A_i, clip(r_it, 1-e_low, 1+e_high) A_i),   A_i = (r_i - mean) / std
    over prompts with 0 < number right < G, and r_i = reward + R_len(|y_i|)

Source: Yu et al. 2503.14476, sections 3.1 clip-higher, 3.2 dynamic sampling, 3.3 token-level loss, 3.4 overlong reward.

Constants: e_low 0.2, e_high 0.28; Lcache / Lmax = 4096 / 20480 = 0.2 (section 4.1). No KL.
Deviations: sum |y_i| runs over the whole optimizer step, as in the authors' code (the equation has one group). Prompts
are selected by unshaped accuracy. The paper's rewards are +1 and -1; with our tasks' 1 and 0 the length penalty weighs
twice as much (`shape.weight=0.5` restores the proportion). Overlong filtering is left out, because equation 8 and
algorithm 1 do not have it; in table 1 it gains 6 points (`shape=overlong_filter+soft_overlong`).
When it is inert: clip-higher at one update per rollout; dynamic sampling on prompts that are always mixed.
Disputed: the gain of each part. On AIME 2024 the paper reports +8 for dynamic sampling and +1 for the token-level loss,
verl's reproduction +2 and +6.
"""

from advantages import Group, Mixed, SoftOverlong
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

DAPO = register(
    Objective(
        name="dapo",
        select=Mixed(),
        shape=(SoftOverlong(cache=0.2),),
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.28),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
