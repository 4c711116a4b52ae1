"""CISPO: clip the importance weight, not the token.

    L = -1/sum_i |y_i| sum_i sum_t sg(min(r_it, cap)) A_i log pi_it,   A_i = (r_i - mean) / std
    over prompts with 0 < number right < G, and r_i = reward + R_len(|y_i|)

Source: MiniMax-M1, 2506.13585, section 3.1; it also uses "the dynamic sampling and length penalty techniques" of DAPO.

Constants: no lower bound on the weight (as in the paper). The cap is 5, an absolute bound and TRL's value for ScaleRL
(2510.13786); the paper does not disclose its own 1 + e_high. No KL. A_i as in GRPO.
Deviations: selection and length penalty use DAPO's constants (`dapo`), because the paper does not restate them. The
loss alone is `cispo[select=all,shape=none]`.
What it changes: in PPO and GRPO a clipped token has no gradient; here every token keeps one, with a bounded weight.
When it is inert: at one update per rollout every weight is 1 and it is the plain policy gradient; the paper takes 16
updates. A cap of 5 on single tokens acts rarely.
Disputed: the value of the bound. verl clips the weight to [0.8, 1.2], TRL caps it at `epsilon_high` itself (`rlzoo show
cispo@verl`, `cispo@trl`). The paper reports twice DAPO's speed; ScaleRL a higher ceiling (0.595 against 0.520).
"""

from advantages import Group, Mixed, SoftOverlong
from objectives.objective import Objective
from objectives.parts import ClippedWeight, Token, TokenMean
from objectives.registry import register

CISPO = register(
    Objective(
        name="cispo",
        select=Mixed(),
        shape=(SoftOverlong(cache=0.2),),
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=ClippedWeight(floor=0.0, cap=5.0),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
