"""OTB: a baseline for every token, by the gradient that has gathered up to it.

    L = -1/sum_i |y_i| sum_i sum_t min(r_it A_it, clip(r_it, 1-e, 1+e) A_it)
    A_it = G_it - sum_j G_jt W_jt / sum_j W_jt,   W_jt = sum_{s <= t} (1 - 2 pi_js + sum_v pi_v^2)

Source: Li et al. 2602.07078; verl's `adv_estimator=optimal_token_baseline`.

What it changes: the baseline of least variance is a mean of returns weighted by squared gradients. W approximates those
from probabilities alone, so that responses of surprising tokens count more, and more so the later the token.
Constants: e 0.2, token mean (verl's defaults). A token that no other response reaches keeps its return (verl's zero
tail).
Deviations: verl adds 1e-8 to the denominator and clips doubly; a baseline that contains the own response has a small
bias, as in the paper.
When it is inert: never. Where all tokens are equally likely it is the mean return of those that reach the position.
Disputed: nothing independent was found.
"""

from advantages import OptimalToken
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

OTB = register(
    Objective(
        name="otb",
        advantage=OptimalToken(),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
