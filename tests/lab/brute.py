"""The same moments by brute force: every ordered group of G responses, one call of the trainer's step for each."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from objectives import Objective
from rlzoo.lab import group
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import World


def moved(world: World, by: float = 0.3) -> Situation:
    """A later update: the policy has left the sampler, the reference is a third one."""
    at = first_update(world)
    generator = torch.Generator().manual_seed(1)
    noise_SV, ref_SV = torch.randn(2, *at.logits_SV.shape, generator=generator, dtype=torch.float64)
    return replace(at, logits_SV=at.logits_SV + by * noise_SV, ref_logits_SV=at.logits_SV + 0.3 * ref_SV)


def every_group(objective: Objective, at: Situation, size: int) -> tuple[Tensor, float, float]:
    """Mean gradient, trace of its covariance, probability that a group is kept."""
    p_R = at.old_probability_R
    mean_SV, square, kept = torch.zeros_like(at.logits_SV), 0.0, 0.0
    for members in itertools.product(range(len(p_R)), repeat=size):
        response_G = torch.tensor(members)
        if not group.keeps(objective, at, response_G):
            continue
        chance = p_R[response_G].prod().item()
        told = group.credit_and_weight(objective, group.inputs(objective, at, response_G))
        chosen_GT = group.chosen(objective, at, response_G, told[0])
        share_GT = group.imitated(objective, at, response_G)
        found = group.slopes(objective, at, response_G, *told, chosen_GT, share_GT)
        rows = at.rows(found.logp_XT, response_G, found.entropy_XT)
        place = at.space.state_RT[response_G].flatten()
        gradient_SV = torch.zeros_like(mean_SV).index_add(0, place, rows.flatten(0, 1))
        kept += chance
        mean_SV += chance * gradient_SV
        square += chance * at.geometry.dot(gradient_SV, gradient_SV)
    mean_SV /= kept
    return mean_SV, square / kept - at.geometry.dot(mean_SV, mean_SV), kept
