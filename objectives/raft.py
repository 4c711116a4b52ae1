"""RAFT: imitate what was right.

    L = -1/N+ sum_{i right} sum_t log pi(y_it),   N+ = tokens of the right responses

Source: Dong et al. 2304.06767; with the task's verdict as the filter, as in "A minimalist approach", 2504.11343.

What it changes: no baseline, no negative examples: supervised learning on the policy's own right responses.
Constants: none.
Deviations: the first RAFT keeps the best response of each prompt, by a reward model. RAFT++ of 2504.11343 is
`raft[ratio=token,surrogate=clip]`.
When it is inert: in a step without a right response.
Disputed: how much negative examples add: 2504.11343 finds RAFT++ close to GRPO at first, and its entropy to collapse.
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
