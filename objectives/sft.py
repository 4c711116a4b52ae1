"""SFT: supervised fine-tuning on demonstrations, the policy gradient whose sampler is the data.

    L = -sum_i sum_t log pi(y_it | x_i, y_i<t) / sum_i |y_i|,   y_i a demonstration of the task

Source: maximum likelihood. As a policy gradient: the sampler gives the demonstration probability 1, so that the ratio
is pi itself, every token has advantage 1, and the surrogate is the ratio's logarithm.

What it changes: nothing is sampled, no reward is looked at (rewards and accuracy in the record are the demonstrations'
own), and `group_size` is the number of demonstrations of each prompt. `rlzoo warmstart` trains with this loss.
Constants: one weight per token (`aggregate=sequence_mean` gives one per demonstration).
When it is inert: on demonstrations that the policy already gives probability 1.
Disputed: what it leaves of a model. Off-policy by construction, it moves probability to whatever was written, also
where the model has a right answer of its own.
"""

from advantages import Demonstrated
from objectives.objective import Objective
from objectives.parts import Log, Token, TokenMean
from objectives.registry import register

SFT = register(
    Objective(
        name="sft",
        advantage=Demonstrated(),
        ratio=Token(),
        surrogate=Log(),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="supervised and distilled",
    parent="reinforce",
)
