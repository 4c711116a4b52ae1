"""RLOO: the other responses to the prompt are the baseline.

    grad J = E[ (R_i - mean_{j != i} R_j) grad log pi(y_i) ],   R_i = r_i - beta sum_t log(pi/ref)_it

Source: Ahmadian et al., "Back to Basics", 2402.14740. The whole response is one action: all its tokens get the same
advantage, which equals G/(G-1) (R_i - mean), and the KL of any token is charged at all of them.

Constants: beta 0.03 (the paper's on TL;DR; 0.10 on HH). The paper takes 2 or 4 responses per prompt.
Deviations: none in the gradient of the first update. Later updates of a rollout are off-policy. The paper drops the
ratio; TRL's RLOOTrainer uses the ratio of whole responses with PPO's clip (`ratio=response,surrogate=clip`).
When it is inert: for a prompt whose responses have equal R; with the KL in R such prompts are rare.
Disputed: whether this is enough. The paper finds it better than PPO, DPO and RAFT, and a clip would act on less than 5%
of each batch (section 3.2). RLOO is unbiased; dividing by the std (`grpo`) is not, but its weighting by difficulty may
help.
"""

from advantages import GroupOthers, KLInReward
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.registry import register

RLOO = register(
    Objective(
        name="rloo",
        shape=(KLInReward(coef=0.03),),
        advantage=GroupOthers(scale="none"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
