"""PPO-KL: PPO with a KL penalty instead of the clip.

    L = E_t[ -r_t A_t + beta KL(old || pi)_t ] + critic,   KL(old || pi)_t estimated by r_t - 1 - log r_t
    after the updates of a rollout, with d the mean KL that they led to:
    d < d_target / 1.5: beta <- beta / 2;     d > 1.5 d_target: beta <- 2 beta

Source: Schulman et al. 1707.06347, section 4. The KL is to the policy that sampled, not to a reference.

Constants: d_target 0.01 nats per token (one of the values that the paper tries); beta begins at 1 (caption of
table 1; it hardly matters, since it adapts). Advantage, critic and the KL to the reference in the reward are
`ppo`'s.
Deviations: the paper computes the KL of whole distributions; here it is estimated at the sampled tokens, unbiased in
value and gradient. d is measured on the rollout's own tokens, by one more forward pass after its last update.
When it is inert: at one update per rollout r is 1 and the penalty's gradient is 0, like the clip's effect. beta still
adapts.
Disputed: whether it is worse than the clip, as the paper found on its control tasks. The penalty acts on every token,
the clip on tokens beyond its bounds; neither guarantees that the policy stays within the target.
"""

from advantages import GAE, KLInReward
from objectives.objective import Objective
from objectives.parts import ClippedValueLoss, Linear, OldKL, Token, TokenMean
from objectives.registry import register

PPO_KL = register(
    Objective(
        name="ppo_kl",
        shape=(KLInReward(coef=0.05),),
        advantage=GAE(gamma=1.0, lam=0.95, whiten=True),
        ratio=Token(),
        surrogate=Linear(),
        aggregate=TokenMean(),
        kl=OldKL(coef=1.0, target=0.01),
        value=ClippedValueLoss(coef=0.5, range=0.2),
    ),
    page=__doc__,
    family="actor-critic",
    parent="ppo",
)
