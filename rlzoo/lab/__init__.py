"""An exact laboratory for policy-gradient objectives: all responses can be enumerated, so expectations are exact sums.

    from objectives import get
    from rlzoo.lab import Setting, first_update, make_world, measure, moments

    measure(get("gspo"), Setting(group_size=16, updates=4))      # direction, scale, bias, noise at every update
    moments(get("gspo"), first_update(make_world(success=0.1)), 16)     # E[g] and the trace of its covariance

space -> policy -> world -> situation: the responses, their probabilities and rewards, and one moment of training.
others -> table -> moments: the distribution of the rest of a group, then mean and variance of the group's gradient.
qstar; qlearning, dqn, q_critic, gradient -> families: exact optima, and the errors of learners trained on episodes.
evaluation, mdp, reparameterized, trust_region -> textbook: the tables of `rlzoo lab --table`.
single, drift, reuse -> claims: the cards of `rlzoo claims`; plots: the figure of a card or a table.

Not here: language models and training runs. Start with `measure`; shape letters are in `space`.
"""

from rlzoo.lab.measure import Measurement, Setting, measure, sweep
from rlzoo.lab.moments import Moments, moments, sampled_moments
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.space import Space, enumerate_responses
from rlzoo.lab.world import World, make_world

__all__ = [
    "Measurement",
    "Moments",
    "Setting",
    "Situation",
    "Space",
    "World",
    "enumerate_responses",
    "first_update",
    "make_world",
    "measure",
    "moments",
    "sampled_moments",
    "sweep",
]
