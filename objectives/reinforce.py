"""REINFORCE: policy gradient with a baseline.

    grad J = E[ sum_t (G_t - b) grad log pi(a_t | s_t) ],      G_t = sum_{k >= t} gamma^(k-t) r_k

Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine
Learning 8 (1992); with reward-to-go as in Sutton & Barto, "Reinforcement Learning", 2nd ed., section 13.4.

What it is: no ratio, no clip, no critic; tokens of a response add up, responses are averaged.
Constants: gamma 1 (one reward at the end). The baseline is our choice: the mean return of the rollout. Ablate it with
`advantage.baseline=none` or `advantage.baseline=leave_one_out`.
When it is inert: never. But after the first update of a rollout the samples are off-policy, and without a ratio the
gradient is biased. It is meant for one update per rollout.
Disputed: whether language models need clipping at all (RLOO, 2402.14740, section 3.2: the clip acted on less than 5% of
each batch).
"""

from advantages import RewardToGo
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.registry import register

REINFORCE = register(
    Objective(
        name="reinforce",
        advantage=RewardToGo(baseline="batch_mean"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
)
