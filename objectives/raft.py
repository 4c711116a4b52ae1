"""RAFT: supervised learning on right responses.

    L = -1/N+ sum_{i right} sum_t log pi(y_it),   N+ = tokens of the right responses

Source: Dong et al. 2304.06767; with the task's verdict as the filter, as in "A minimalist approach", 2504.11343.

What it changes: no baseline and no negative examples; only the policy's own right responses are learned from.
Constants: none.
Deviations: the original RAFT keeps the best response to each prompt under a reward model. RAFT++ of 2504.11343 is
`raft[ratio=token,surrogate=clip]`.
When it is inert: in a step without a right response.
Disputed: how much negative examples add. 2504.11343 finds RAFT++ close to GRPO at first; later its entropy collapses.
"""

from advantages import Positives
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, TokenMean
from objectives.registry import register

RAFT = register(
    Objective(
        name="raft",
        advantage=Positives(),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
