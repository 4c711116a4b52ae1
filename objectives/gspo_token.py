"""GSPO-token: GSPO's ratio with one advantage per token.

    L = -1/G sum_i 1/|y_i| sum_t min(s_it A_it, clip(s_it, 1-e_low, 1+e_high) A_it),   s_it = sg(s_i) pi_it / sg(pi_it)

Source: Zheng et al. 2507.18071, which introduces it beside GSPO.

Constants: e_low 3e-4, e_high 4e-4 (section 5.1, GSPO's). The paper leaves A_it open; ours is PPO's: GAE with lambda
0.95, gamma 1, whitened, and PPO's critic, c1 0.5 and e_v 0.2 (our choice).
What it changes: if A_it is constant within the response, nothing: value, clip and gradient are GSPO's. Our `gspo`
already uses this form of the ratio; the difference is the credit per token.
When it is inert: at one update per rollout every ratio is 1. With advantage=group it is GSPO itself.
Disputed: whether credit per token helps under a clip that stops whole responses. TRL removed the variant.
"""

from advantages import GAE
from objectives.objective import Objective
from objectives.parts import Clip, ClippedValueLoss, Sequence, SequenceMean
from objectives.registry import register

GSPO_TOKEN = register(
    Objective(
        name="gspo_token",
        advantage=GAE(gamma=1.0, lam=0.95, whiten=True),
        ratio=Sequence(),
        surrogate=Clip(low=3e-4, high=4e-4),
        aggregate=SequenceMean(),
        value=ClippedValueLoss(coef=0.5, range=0.2),
    ),
    page=__doc__,
    family="sequence-level",
    parent="gspo",
)
