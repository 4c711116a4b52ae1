"""SPO: one response per prompt, with the prompt's past success rate as the baseline.

    A = whiten(r - alpha / (alpha + beta)),   counts of the prompt: alpha <- rho alpha + r, beta <- rho beta + 1 - r

Source: 2509.13232.

What it changes: no group. A prompt's success rate so far is its baseline, so every response has an advantage, even if a
group would be silent. Prompts must recur for the baseline to be informative.
Constants: rho 0.9 (our choice; theirs moves, in verl's recipe not below 0.875), counts from 1 and 1 (our choice;
theirs begin with estimates from samples). Clip 0.2 and 0.28, no KL (that recipe), token mean (verl's default).
Deviations: rho is fixed, while the paper adapts it to the policy's change; prompts are not drawn by their uncertainty.
When it is inert: on a task with an endless stream of new problems every baseline is 1/2: it is REINFORCE, whitened.
Disputed: we found no independent evaluation.
"""

from advantages import Tracked
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

SPO = register(
    Objective(
        name="spo",
        advantage=Tracked(rho=0.9),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.28),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
