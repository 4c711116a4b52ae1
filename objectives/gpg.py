"""GPG: group policy gradient, rescaled to make up for silent groups.

    L = -1/sum_i |y_i| sum_i sum_t alpha (r_i - mean) log pi_it,   alpha = N / (responses in groups that are mixed)

Source: Chu et al. 2504.02546.

What it changes: no ratio, no clip, no KL, no std; alpha compensates for silent groups in the mean over the batch.
Constants: alpha as above, the paper's F_norm 1.
Deviations: alpha is computed over the whole rollout. verl's `gpg` divides by the number of responses with a nonzero
reward instead.
When it is inert: alpha is 1 if every group is mixed; an adaptive optimizer cancels a constant alpha.
Disputed: whether it is more than REINFORCE with the group mean; the ablation to `rloo` changes two cells.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, TokenMean
from objectives.registry import register

GPG = register(
    Objective(
        name="gpg",
        advantage=Group(scale="mixed_share"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
