"""Algorithms with the same gradient at the first update, and supervised fine-tuning as policy gradient."""

from __future__ import annotations

import itertools

import torch

from advantages import RewardToGo
from objectives import Objective
from objectives.grpo import GRPO
from objectives.gspo import GSPO
from objectives.parts import Clip, ClippedWeight, Linear, NoRatio, Sequence, SequenceMean, SequenceSum, Token, TokenMean
from rlzoo.lab import group
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.measure import Setting, updates
from rlzoo.lab.moments import moments
from rlzoo.lab.single import relative_difference
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world

PLAIN = GRPO.but(kl="none")
VARIANTS: dict[str, Objective] = {
    "no ratio": PLAIN.but(ratio=NoRatio(), surrogate=Linear()),
    "PPO-clip": PLAIN,
    "clip-higher": PLAIN.but(surrogate=Clip(low=0.2, high=0.28)),
    "clipped weight (CISPO)": PLAIN.but(surrogate=ClippedWeight(cap=1.2)),
    "sequence ratio (GSPO)": PLAIN.but(ratio=Sequence(), surrogate=Clip(low=3e-4, high=4e-4)),
}
"""One advantage, one aggregation, five ratios and surrogates; CISPO's cap is low enough to act in a small world."""


@claim(
    name="one-gradient-on-policy",
    statement="At the first update after sampling, PPO-clip, clip-higher, CISPO's clipped weight and GSPO's ratio "
    "have one gradient, given one advantage and one aggregation.",
    conditions="one advantage, one aggregation (sequence mean), no KL; published CISPO uses the token mean, which has "
    "another gradient",
    origin="lemma",
    source="follows from 1707.06347 equation 7, 2506.13585 equation 4, 2507.18071 equation 5",
    how="exact expected gradient and variance, groups of 8, table and transformer",
    expected="supported",
)
def one_gradient() -> Finding:
    worst = 0.0
    for kind in ("tabular", "transformer"):
        at = first_update(make_world(kind=kind))
        found = [moments(objective, at, 8) for objective in VARIANTS.values()]
        for a, b in itertools.combinations(found, 2):
            worst = max(worst, relative_difference(a.mean_SV, b.mean_SV), abs(a.variance / b.variance - 1))
    at = first_update(make_world())
    token_mean, sequence_mean = (
        moments(PLAIN.but(aggregate=part), at, 8).mean_SV for part in (TokenMean(), SequenceMean())
    )
    apart = relative_difference(token_mean / token_mean.norm(), sequence_mean / sequence_mean.norm())
    return Finding(
        worst < 1e-10,
        f"largest relative difference of any two, in mean or variance: {worst:.1e}. Another aggregation has another "
        f"gradient: the token mean's direction (published CISPO) differs by {apart:.0%} from the sequence mean's",
        {"worst": worst, "token mean": apart},
    )


@claim(
    name="gspo-is-grpo-on-policy",
    statement="GSPO's first update after sampling is that of GRPO without KL.",
    conditions="sequence mean, one advantage per response, the policy is the sampler",
    origin="lemma",
    source="follows from 2507.18071, equations 5 and 10",
    how="exact expected gradient of the presets, groups of 16",
    expected="supported",
)
def gspo_is_grpo() -> Finding:
    at = first_update(make_world())
    gap = relative_difference(moments(GSPO, at, 16).mean_SV, moments(PLAIN, at, 16).mean_SV)
    return Finding(gap < 1e-10, f"relative difference {gap:.1e}", {"difference": gap})


@claim(
    name="zero-objective",
    statement="At the first update after sampling, GRPO's objective is 0 in every group, and its gradient is not.",
    conditions="groups of 3, no KL",
    origin="lemma",
    source="advantages of a group sum to 0",
    how="loss of every one of 343 ordered groups of 3, and the exact expected gradient",
    expected="supported",
)
def zero_objective() -> Finding:
    at = first_update(make_world(longest=2))
    largest = 0.0
    for members in itertools.product(range(len(at.reward_R)), repeat=3):
        response_G = torch.tensor(members)
        told = group.credit_and_weight(PLAIN, group.inputs(PLAIN, at, response_G))
        largest = max(largest, abs(PLAIN.loss(*group.batch(PLAIN, at, response_G, *told)).item()))
    mean_SV = moments(PLAIN, at, 3).mean_SV
    uphill = at.geometry.dot(mean_SV, at.true_gradient_SV)
    return Finding(
        largest < 1e-12 and uphill > 1e-3,
        f"largest |objective| {largest:.0e}; |E[g]| = {mean_SV.norm():.3f}, uphill",
        {"objective": largest, "gradient": mean_SV.norm().item()},
    )


@claim(
    name="off-policy-they-part",
    statement="After a few updates on one rollout, PPO-clip, clip-higher, CISPO's clipped weight, GSPO's ratio and no "
    "ratio all have different gradients.",
    conditions="fourth update along PPO-clip's own path in steps of 0.3, groups of 8; CISPO with a cap of 1.2, low "
    "enough to act here",
    origin="lemma",
    source="follows from 1707.06347, 2506.13585, 2507.18071",
    how="exact expected gradients at the fourth update of the clipped objective, groups of 8",
    expected="supported",
)
def off_policy_they_part() -> Finding:
    at = list(updates(PLAIN, make_world(), Setting(updates=4)))[-1][0]
    found = {name: moments(objective, at, 8).mean_SV for name, objective in VARIANTS.items()}
    pairs = {
        f"{a} and {b}": relative_difference(found[a], found[b]) for a, b in itertools.permutations(found, 2) if a < b
    }
    nearest = min(pairs, key=pairs.__getitem__)
    true_SV = at.true_gradient_SV
    cosines = ", ".join(
        f"{name} {torch.cosine_similarity(g.flatten(), true_SV.flatten(), 0):.2f}" for name, g in found.items()
    )
    return Finding(
        pairs[nearest] > 1e-3,
        f"the closest two, {nearest}, differ by {pairs[nearest]:.0%}; cosines with the true gradient: {cosines}",
        {"relative differences": pairs},
    )


SUPERVISED = Objective(
    name="supervised",
    advantage=RewardToGo(baseline="none", gamma=0.0),
    ratio=NoRatio(),
    surrogate=Linear(),
    aggregate=SequenceSum(),
)


def _supervised_gaps(objective: Objective) -> tuple[float, float]:
    """Return the largest relative difference to grad log pi(gold) over all gold answers, and the smallest cosine.

    The sampler gives the gold answer probability 1; every token has reward 1, and gamma is 0.
    """
    at = first_update(make_world())
    space = at.space
    worst, cosine = 0.0, 1.0
    for gold in range(len(space.mask_RT)):
        row = torch.tensor([gold])
        mask_NT = space.mask_RT[row]
        credit = objective.advantage(mask_NT.double(), mask_NT, torch.zeros(1, dtype=torch.long))
        certain = torch.zeros_like(credit.advantage_NT)  # log 1
        out, batch = group.batch(objective, at, row, credit.advantage_NT, objective.aggregate(mask_NT, torch.float64))
        batch = type(batch)(batch.mask_BT, batch.weight_BT, batch.advantage_BT, certain)
        (slope,) = torch.autograd.grad(-objective.loss(out, batch), out.logp_BT)
        ours = at.rows(slope, row).flatten()
        theirs = at.rows(mask_NT.double(), row).flatten()
        worst = max(worst, relative_difference(ours, theirs))
        cosine = min(cosine, torch.cosine_similarity(ours, theirs, 0).item())
    return worst, cosine


@claim(
    name="sft-is-policy-gradient",
    statement="Supervised fine-tuning is policy gradient (ratio pi / sg(pi)) with a sampler that emits only the gold "
    "answer, token reward 1, gamma 0.",
    conditions="ratio pi / sg(pi); the gold answer is the only response the sampler emits",
    origin="lemma",
    source="derived",
    how="gradient of the project's REINFORCE parts against grad log pi(gold), for all 31 answers as gold",
    expected="supported",
)
def supervised() -> Finding:
    worst, _ = _supervised_gaps(SUPERVISED)
    return Finding(worst < 1e-12, f"largest relative difference {worst:.1e}", {"worst": worst})


@claim(
    name="sft-is-importance-sampled",
    statement="Supervised fine-tuning is also the importance-sampled objective whose sampler q gives the gold answer "
    "probability 1.",
    conditions="ratio pi / q per token with q = 1, token reward 1, gamma 0",
    origin="often said",
    source="lecture notes: any sampler q gives an importance-sampled objective",
    how="gradient of the project's parts with ratio pi / q against grad log pi(gold), for all 31 answers as gold",
    expected="refuted",
)
def supervised_with_ratio() -> Finding:
    worst, cosine = _supervised_gaps(SUPERVISED.but(ratio=Token()))
    return Finding(
        worst < 1e-12,
        f"each token's gradient is multiplied by pi(token), so unlikely gold tokens have little weight: cosine down to "
        f"{cosine:.2f}",
        {"worst": worst, "cosine": cosine},
    )
