"""An exact laboratory for policy-gradient objectives: small enough to enumerate, so that nothing need be sampled.

    from objectives import get
    from rlzoo.lab import Setting, first_update, make_world, measure, moments

    measure(get("gspo"), Setting(group_size=16, updates=4))      # direction, scale, bias, noise at every update
    moments(get("gspo"), first_update(make_world(success=0.1)), 16)     # E[g] and the trace of its covariance

space -> policy -> world -> situation: who may answer what, how likely, what is right, at which moment of training.
others -> table -> moments: the law of the rest of a group, hence mean and variance of a response's gradient.
qstar; qlearning, dqn, q_critic, gradient -> families: exact optima, and how near episodes bring each kind of learner.
evaluation, mdp, reparameterized, trust_region -> textbook: the tables of `rlzoo lab --table`.
single, drift, reuse -> claims: the cards of `rlzoo claims`; plots: the figure of a card or a table.
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
