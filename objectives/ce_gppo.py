"""CE-GPPO: a clipped token keeps a bounded gradient.

    L = -1/sum_i |y_i| sum_i sum_t sg(w_it) A_i log pi_it
    w = beta_high (1+e) if A > 0 and r > 1+e;  beta_low (1-e) if A < 0 and r < 1-e;  r otherwise

Source: Su et al. 2509.20712.

What it changes: PPO's clip drops the tokens that move the entropy most: rare tokens that became likely (entropy falls)
and tokens that became rare (entropy rises). Two factors set how much gradient each kind keeps.
Constants: e 0.2, beta_high 1, beta_low 0.5 (the authors' script at 1.5B, Kwai-Klear/CE-GPPO 574b36c; at 7B beta_low is
0.75). Token mean, no KL, A_i as GRPO (there too).
Deviations: their script also drops silent groups (`select=mixed`) and clips doubly at 10 (A < 0).
When it is inert: at one update per rollout. At betas of 0 it is PPO's clip.
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Preserving, Token, TokenMean
from objectives.registry import register

CE_GPPO = register(
    Objective(
        name="ce_gppo",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Preserving(low=0.2, high=0.2, beta_low=0.5, beta_high=1.0),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
