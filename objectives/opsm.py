"""OPSM: GRPO as in DeepSeek-V3.2: negative responses that drifted off-policy are masked, and the KL is unbiased.

    L = -1/G sum_i 1/|y_i| sum_t { M_i min(r_it A_i, clip(r_it, 1-e, 1+e) A_i) - beta r_it k3_it }
    M_i = 0 if A_i < 0 and mean_t(log old_it - log pi_it) > delta, else 1

Source: DeepSeek-V3.2, 2512.02556 (off-policy sequence masking, unbiased KL estimate).

What it changes: a response with negative advantage that has become unlikely has no gradient; positive ones always stay.
Constants: delta 0.5 (TRL's recommendation: the paper gives none, and slime's default is 1e-4). e, beta, A_i as `grpo`.
Deviations: the drift is from the old policy as the trainer sees it; `correction` weighs the sampler's mismatch.
When it is inert: at one update per rollout the drift is 0. The KL's correction acts there too: its gradient is that of
KL(pi || ref).
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import K3, Clip, SequenceMean, Token
from objectives.registry import register

OPSM = register(
    Objective(
        name="opsm",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2, drift=0.5),
        aggregate=SequenceMean(),
        kl=K3(coef=0.04, correction="ratio"),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
