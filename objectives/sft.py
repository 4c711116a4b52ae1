"""SFT: supervised fine-tuning on demonstrations, the policy gradient whose sampler is the data.

    L = -sum_i sum_t log pi(y_it | x_i, y_i<t) / sum_i |y_i|,   y_i a demonstration of the task

Source: maximum likelihood. As a policy gradient: the sampler gives the demonstration probability 1, so the ratio is pi
itself, every token has advantage 1, and the surrogate is the logarithm of the ratio.

What it changes: nothing is sampled and rewards are not used (the record shows rewards and accuracy of the
demonstrations). `group_size` is the number of demonstrations per prompt. `rlzoo warmstart` trains with this loss.
Constants: equal weight per token (`aggregate=sequence_mean`: per demonstration).
When it is inert: on demonstrations to which the policy already gives probability 1.
Disputed: how much it harms a model. It is off-policy by construction and moves probability to the written text, even if
the model has another right answer.
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
