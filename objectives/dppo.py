"""DPPO: a trust region in probability, not in ratio.

    L = -1/sum_i |y_i| sum_i sum_t M_it sg(min(r_it, 20)) A_i log pi_it
    M = 0 if A > 0 and pi - old > high, or A < 0 and old - pi > low; else 1

Source: 2602.04879, the variant of the total variation; the default loss of prime-rl.

What it changes: PPO's clip stops a token of probability 0.001 at 0.0012 but lets one of 0.5 rise to 0.6. Here both may
move by the same absolute probability.
Constants: low and high 0.2 (appendix E; 0.15 there with LoRA, in appendix C and in verl's script), cap 20 (the
frameworks'; the paper has none in appendix C and 5 in E). Token mean (prime-rl's), A_i = r_i - mean (appendix C).
Deviations: prime-rl adds a small KL to the sampler, left out here (`kl=old`).
When it is inert: at one update per rollout, because no probability has moved yet.
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Divergence, Token, TokenMean
from objectives.registry import register

DPPO = register(
    Objective(
        name="dppo",
        advantage=Group(scale="none"),
        ratio=Token(),
        surrogate=Divergence(low=0.2, high=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
