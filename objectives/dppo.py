"""DPPO: a trust region in probability, not in ratio.

    L = -1/sum_i |y_i| sum_i sum_t M_it sg(min(r_it, 20)) A_i log pi_it
    M = 0 if A > 0 and pi - old > high, or A < 0 and old - pi > low; else 1

Source: 2602.04879, the variant of the total variation; the default loss of prime-rl.

What it changes: PPO's clip stops a token of probability 0.001 at 0.0012, and lets one of 0.5 go to 0.6. Here both may
move by the same probability.
Constants: low and high 0.2 (our choice, prime-rl's order of size), cap 20. Token mean, A_i = r_i - mean (prime-rl's).
Deviations: prime-rl adds a small KL to the sampler, left out here (`kl=old`).
When it is inert: at one update per rollout nothing has moved.
Disputed: nothing independent was found.
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
