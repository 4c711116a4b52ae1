"""Mean and variance of an objective's gradient from one group: exact where a table fits, else sampled.

    E[g] = G / m  sum_y p(y) sum_{a,z} P(a, z) keep(y, a) weight(y, z) grad(y, a)
    E|g|^2 = the same sum of squares + G (G-1) / m  (the same over two responses and the law of G-2 others)

p is the sampler's probability, (a, z) the statistics of the other responses (`others`), grad(y, a) the slope of the
loss at response y with its advantage, m the probability that selection keeps a group. All decisions of the objective
come from calling its parts (`table`, `group`). If no table fits (statistics over all tokens of a batch, as in
whitening), groups are sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives import Objective
from rlzoo.errors import UserError
from rlzoo.lab import group
from rlzoo.lab.situation import Situation
from rlzoo.lab.table import Table, find_table

CHUNK = 4_000_000
"""Token gradients per chunk, as a number of elements."""
MOST_DRAWS = 1000
"""Sampling stops with an error after this many draws per kept group."""


@dataclass(frozen=True)
class Moments:
    """Moments of the gradient of one step: ascent direction in logits, variance in the space of the parameters.

    Attributes:
        mean_SV: expected gradient of a kept group.
        variance: trace of its covariance.
        kept: probability that selection keeps a group.
        clip_fraction: share of tokens with slope 0 although their advantage is not 0.
        method: `exact (statistic)`, or `sampled (number of groups)`.
        sample_XSV: the sampled gradients; None if the moments are exact.
    """

    mean_SV: Tensor
    variance: float
    kept: float
    clip_fraction: float
    method: str
    sample_XSV: Tensor | None = None


def moments(objective: Objective, at: Situation, group_size: int, *, groups: int = 2000, seed: int = 0) -> Moments:
    """Return exact moments if a table of the others' statistics fits, else those of `groups` sampled groups.

    Raises:
        UserError: the objective's selection keeps no group of this size, or the objective corrects for a separate
            sampler, which the laboratory does not have.
    """
    if "sampler_logp" in objective.needs:
        raise UserError(
            f"{objective.name}: in the laboratory the sampler is the policy itself, so every weight of correction "
            f"{objective.correction} is 1: leave it out (correction=none)"
        )
    # A `tokens` part's choice depends on every token of the others, and a response's imitation share on the number of
    # right tokens of the others: the tables index neither.
    tabulated = objective.tokens is None and objective.imitation is None
    table = find_table(objective, at, group_size, seed) if tabulated else None
    if table is None:
        return sampled_moments(objective, at, group_size, groups, seed)
    return exact_moments(objective, at, group_size, table)


def exact_moments(objective: Objective, at: Situation, group_size: int, table: Table) -> Moments:
    """Return the moments from a table of advantages, weights and selection.

    Raises:
        UserError: selection keeps no group.
    """
    p_R = at.old_probability_R
    law_AZ, keep_DA, scale_DZ = table.others.law_AZ, table.keep_DA, table.scale_DZ
    p_D = torch.zeros(len(keep_DA), dtype=p_R.dtype).index_add(0, table.type_R, p_R)
    kept = (p_D[:, None] * keep_DA * law_AZ.sum(dim=1)).sum().item()
    if kept == 0:
        raise _never_kept(objective, group_size)
    mean_DA = keep_DA * (scale_DZ @ law_AZ.T)
    square_DA = keep_DA * (scale_DZ.square() @ law_AZ.T)
    slab_DASV, norm_DA, flat = _slabs(objective, at, table)
    mean_SV = torch.einsum("da,dasv->sv", mean_DA, slab_DASV) * (group_size / kept)
    square = group_size * (square_DA * norm_DA).sum().item() + group_size * _pairs(at, table, slab_DASV)
    tokens = (p_D * table.length_D)[:, None] * keep_DA * law_AZ.sum(dim=1)
    return Moments(
        mean_SV=mean_SV,
        variance=max(square / kept - at.geometry.dot(mean_SV, mean_SV), 0.0),
        kept=kept,
        clip_fraction=flat / tokens.sum().item(),
        method=f"exact ({table.statistic})",
    )


def _slabs(objective: Objective, at: Situation, table: Table) -> tuple[Tensor, Tensor, float]:
    """Return sums over the responses of each type: of p(y) grad(y, a), [D, A, S, V], and of p(y) |grad|^2, [D, A]; and
    the expected number of flat tokens.

    The slope uses the weight's profile alone; its scale is multiplied in later, as a loss is linear in the weight.
    """
    space, p_R, type_R = at.space, at.old_probability_R, table.type_R
    responses, longest = space.mask_RT.shape
    types, counts = table.keep_DA.shape
    states, vocabulary = at.logits_SV.shape
    slab = torch.zeros(types * states, counts, vocabulary, dtype=p_R.dtype)
    norm_DA = torch.zeros(types, counts, dtype=p_R.dtype)
    flat = 0.0
    place_RT = type_R[:, None] * states + space.state_RT
    width = max(1, CHUNK // (responses * longest * vocabulary))
    for a in torch.arange(counts).split(width):
        response_B = torch.arange(responses).repeat_interleave(len(a))
        advantage_BT = table.advantage_DAT[type_R][:, a].flatten(0, 1)
        found = group.slopes(objective, at, response_B, advantage_BT, table.profile_DT[type_R][response_B])
        rows = at.rows(found.logp_XT, response_B, found.entropy_XT).view(responses, len(a), longest, vocabulary)
        weighted = (p_R[:, None, None, None] * rows).transpose(1, 2).flatten(0, 1)
        slab[:, a] = slab[:, a].index_add(0, place_RT.flatten(), weighted)
        norm_DA[:, a] = norm_DA[:, a].index_add(0, type_R, p_R[:, None] * _squares(at, rows))
        told_RA = table.keep_DA[type_R][:, a] * table.others.law_AZ.sum(dim=1)[a] * p_R[:, None]
        flat += (told_RA * found.flat_XT.view(responses, len(a), longest).sum(dim=2)).sum().item()
    return slab.view(types, states, counts, vocabulary).transpose(1, 2).contiguous(), norm_DA, flat


def _squares(at: Situation, rows_RATV: Tensor) -> Tensor:
    """|gradient|^2 of each response, in parameters: [R, A]."""
    flat = rows_RATV.flatten(2)
    if at.geometry.jacobian is None:
        return flat.square().sum(dim=2)
    vocabulary = at.logits_SV.shape[1]
    gram = at.geometry.jacobian @ at.geometry.jacobian.T
    place = (at.space.state_RT[:, :, None] * vocabulary + torch.arange(vocabulary)).flatten(1)
    path_RXX = gram[place[:, :, None], place[:, None, :]]
    return torch.einsum("rai,rij,raj->ra", flat, path_RXX, flat)


def _pairs(at: Situation, table: Table, slab_DASV: Tensor) -> float:
    """Return (G-1) E[grad_1 . grad_2] over two members of a group and the law of the G-2 others; 0 for G = 1."""
    before = table.before
    if before is None or before.with_one_AC is None:
        return 0.0
    lowered_DASV = at.geometry.lowered(slab_DASV).flatten(2)
    slab = slab_DASV.flatten(2)
    types = torch.arange(len(slab))
    total_Z = torch.arange(before.law_AZ.shape[1])
    beside_AD = before.with_one_AC[:, table.class_D]  # the others of one response, including the second
    total = 0.0
    for d in types:
        mine_AD = beside_AD  # the others of d, for each type of the second response
        yours_A = beside_AD[:, d]  # the others of the second
        product_AD = torch.einsum("adx,dax->ad", slab[d][mine_AD], lowered_DASV[:, yours_A])
        keep_AD = table.keep_DA[d][mine_AD]  # the group is kept or dropped as a whole
        mine_DZ = table.scale_DZ[d][total_Z[None] + table.length_D[:, None]]
        yours_DZ = table.scale_DZ[:, total_Z + table.length_D[d]]
        total += (keep_AD * product_AD * (before.law_AZ @ (mine_DZ * yours_DZ).T)).sum().item()
    return total * (before.n + 1)


def _never_kept(objective: Objective, group_size: int) -> UserError:
    return UserError(
        f"{objective.name}: select {objective.select} keeps no group of {group_size}: use larger groups, a success "
        "rate nearer to 0.5, or select=all"
    )


def sampled_moments(objective: Objective, at: Situation, group_size: int, groups: int, seed: int) -> Moments:
    """Return the moments of `groups` sampled groups that selection keeps; dropped groups are counted in `kept`.

    Raises:
        UserError: selection keeps fewer than one group in `MOST_DRAWS`.
    """
    generator = torch.Generator().manual_seed(seed)
    p_R = at.old_probability_R
    drawn, kept_XG, told = 0, list[Tensor](), list[tuple[Tensor, Tensor]]()
    apart, shares = list[Tensor](), list[Tensor]()
    while len(kept_XG) < groups:
        response_G = p_R.multinomial(group_size, replacement=True, generator=generator)
        drawn += 1
        if drawn > MOST_DRAWS * groups:
            raise _never_kept(objective, group_size)
        if group.keeps(objective, at, response_G):
            kept_XG.append(response_G)
            told.append(group.credit_and_weight(objective, group.inputs(objective, at, response_G)))
            chosen_GT = group.chosen(objective, at, response_G, told[-1][0])
            apart += [] if chosen_GT is None else [chosen_GT]
            share_GT = group.imitated(objective, at, response_G)
            shares += [] if share_GT is None else [share_GT]
    response_B = torch.cat(kept_XG)
    advantage_BT, weight_BT = (torch.cat(parts) for parts in zip(*told, strict=True))
    chosen_BT = torch.cat(apart) if apart else None
    share_BT = torch.cat(shares) if shares else None
    found = group.slopes(objective, at, response_B, advantage_BT, weight_BT, chosen_BT, share_BT)
    rows_BTV = at.rows(found.logp_XT, response_B, found.entropy_XT)
    states, vocabulary = at.logits_SV.shape
    place_BT = torch.arange(groups).repeat_interleave(group_size)[:, None] * states + at.space.state_RT[response_B]
    sample = torch.zeros(groups * states, vocabulary, dtype=p_R.dtype)
    sample_XSV = sample.index_add(0, place_BT.flatten(), rows_BTV.flatten(0, 1)).view(groups, states, vocabulary)
    mean_SV = sample_XSV.mean(dim=0)
    centred_XSV = sample_XSV - mean_SV
    return Moments(
        mean_SV=mean_SV,
        variance=(centred_XSV * at.geometry.lowered(centred_XSV)).sum().item() / (groups - 1),
        kept=groups / drawn,
        clip_fraction=found.flat_XT.sum().item() / at.space.length_R[response_B].sum().item(),
        method=f"sampled ({groups} groups)",
        sample_XSV=sample_XSV,
    )
