"""SPO: one response per prompt, and a baseline that remembers the prompt.

    A = whiten(r - alpha / (alpha + beta)),   counts of the prompt: alpha <- rho alpha + r, beta <- rho beta + 1 - r

Source: 2509.13232.

What it changes: no group: a prompt's success so far is its baseline, so every response teaches something, also where a
group would be silent. Prompts have to come again for it to know them.
Constants: rho 0.9, counts from 1 and 1 (our choices). PPO's clip as in `dapo`, token mean, no KL.
Deviations: rho is fixed where the paper moves it with the policy's change; prompts are not drawn by their uncertainty.
When it is inert: on a task that draws new problems forever every baseline is 1/2, and it is REINFORCE, whitened.
Disputed: nothing independent was found.
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
