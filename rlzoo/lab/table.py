"""Tables of a response's advantage, weight and selection, indexed by statistics of the rest of its group.

    alone     the total length of the others
    returns   the number of others with each shaped return, and their total length
    types     the number of others of each type

A response has one of D types (equal shaped rewards, length, accuracy and values). Its advantage and weight depend on
its type and on sufficient statistics of the others. Which statistics suffice is not assumed but tested: a table is
built by calling the objective's parts on one group per cell, and used only if it agrees with the parts on random
groups. The coarsest statistics come first. If no table agrees, moments are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advantages import RolloutView
from objectives import Objective
from rlzoo.lab import group
from rlzoo.lab.others import Others, convolve, table_size
from rlzoo.lab.situation import Situation

MAX_ROWS = 2_000_000
"""Limit on the rows of all representative groups."""
MAX_CALLS = 3_000
"""Limit on estimator calls if each group needs its own."""
PROBES = 24
SAME = {"rtol": 1e-9, "atol": 1e-11}


@dataclass(frozen=True)
class Table:
    """Advantage, weight and selection of a response of type d whose others have counts a and total length z.

    Shape letters: D types, A count vectors, Z total lengths of the others.

    Attributes:
        statistic: the statistics of the others that index the table.
        type_R, class_D: type of each response, class of each type.
        length_D: length of a response of each type.
        before, others: distributions of the G-2 and of the G-1 others.
        advantage_DAT: advantage of the response's tokens.
        keep_DA: 1 if selection keeps the group, else 0.
        profile_DT, scale_DZ: the tokens' weight is scale * profile.
    """

    statistic: str
    type_R: Tensor
    class_D: Tensor
    length_D: Tensor
    before: Others | None
    others: Others
    advantage_DAT: Tensor
    keep_DA: Tensor
    profile_DT: Tensor
    scale_DZ: Tensor


def find_table(objective: Objective, at: Situation, group_size: int, seed: int = 0) -> Table | None:
    """Return the coarsest table that agrees with the objective's parts on random groups; None if none does."""
    every = group.inputs(objective, at, torch.arange(len(at.reward_R)))
    type_R, example_D = _types(every, at)
    for statistic, class_D in _classings(every, at, example_D):
        count = table_size(group_size - 1, int(class_D.max()) + 1) * len(example_D)
        for together in (True, False):
            if count * group_size > MAX_ROWS or (not together and count > MAX_CALLS):
                continue
            table = _tabulate(objective, at, every, group_size, statistic, type_R, example_D, class_D, together)
            if table is not None and _agrees(table, objective, at, group_size, seed):
                return table
    return None


def _types(every: RolloutView, at: Situation) -> tuple[Tensor, Tensor]:
    """Return the type of every response, and one response of each type."""
    columns = [every.reward_NT, every.mask_NT.double(), at.accuracy_R[:, None]]
    if "value_NT" in every.given:
        columns.append(every.value_NT)
    type_R = _labels(torch.cat(columns, dim=1))
    return type_R, _first(type_R)


def _classings(every: RolloutView, at: Situation, example_D: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the partitions of types into classes, from coarse to fine, without repetition."""
    return_D = every.reward_NT.sum(dim=1)[example_D]
    returns_D = _labels(torch.stack([return_D, at.accuracy_R[example_D]], dim=1))
    yield "alone", torch.zeros(len(example_D), dtype=torch.long)
    if returns_D.max() > 0:
        yield "returns", returns_D
    if returns_D.max() + 1 < len(example_D):
        yield "types", torch.arange(len(example_D))


def _tabulate(
    objective: Objective,
    at: Situation,
    every: RolloutView,
    group_size: int,
    statistic: str,
    type_R: Tensor,
    example_D: Tensor,
    class_D: Tensor,
    together: bool,
) -> Table | None:
    length_R = at.space.length_R
    before, others = convolve(at.old_probability_R, class_D[type_R], length_R, group_size - 1)
    member_AO = torch.stack([example_D[_first(class_D)].repeat_interleave(count_C) for count_C in others.count_AC])
    own_DA1 = example_D[:, None, None].expand(-1, len(member_AO), 1)
    response_DAG = torch.cat([own_DA1, member_AO.expand(len(example_D), -1, -1)], dim=2)
    weight_DZT = _weights(objective, at, example_D, group_size)
    total_DZ = weight_DZT.sum(dim=2)
    # The profile comes from the first possible total: every other member has one token.
    profile_DT = weight_DZT[:, group_size - 1]
    scale_DZ = total_DZ / profile_DT.sum(dim=1, keepdim=True)
    if not torch.allclose(weight_DZT, scale_DZ[..., None] * profile_DT[:, None], **SAME):
        return None
    return Table(
        statistic=statistic,
        type_R=type_R,
        class_D=class_D,
        length_D=length_R[example_D],
        before=before,
        others=others,
        advantage_DAT=_advantages(objective, every, response_DAG, together),
        keep_DA=objective.select(at.accuracy_R[response_DAG.flatten(0, 1)]).view(response_DAG.shape[:2]).double(),
        profile_DT=profile_DT,
        scale_DZ=scale_DZ,
    )


def _advantages(objective: Objective, every: RolloutView, response_DAG: Tensor, together: bool) -> Tensor:
    """Return the advantage of the first member of each group, [D, A, T], in one call or in one per group."""
    types, counts, size = response_DAG.shape
    index_XG = response_DAG.reshape(-1, size)
    if together:
        group_N = torch.arange(len(index_XG)).repeat_interleave(size)
        given = replace(every.rows(index_XG.flatten()), group_N=group_N)
        return group.credit(objective, given).advantage_NT[::size].view(types, counts, -1)
    rows = [group.credit(objective, every.rows(index_G)).advantage_NT[0] for index_G in index_XG]
    return torch.stack(rows).view(types, counts, -1)


def _weights(objective: Objective, at: Situation, example_D: Tensor, group_size: int) -> Tensor:
    """Return the weight of a response's tokens if the others' lengths sum to z, [D, Z, T]; 0 at impossible sums."""
    n, longest = group_size - 1, at.space.longest
    steps = torch.arange(longest)
    weight_DZT = torch.zeros(len(example_D), n * longest + 1, longest, dtype=torch.float64)
    for total in range(n, n * longest + 1):
        length_O = torch.full((n,), total // n if n else 0)
        length_O[: total % n if n else 0] += 1
        for d, own in enumerate(example_D):
            mask_GT = torch.cat([at.space.mask_RT[own][None], steps < length_O[:, None]])
            weight_DZT[d, total] = objective.weigh(mask_GT, torch.zeros(len(mask_GT), dtype=torch.long), torch.float64)[
                0
            ]
    return weight_DZT


def _agrees(table: Table, objective: Objective, at: Situation, group_size: int, seed: int) -> bool:
    """Whether the table equals the objective's parts for every member of random groups."""
    generator = torch.Generator().manual_seed(seed)
    place = {tuple(count_C): a for a, count_C in enumerate(table.others.count_AC.tolist())}
    uniform_R = torch.ones_like(at.old_probability_R)
    class_R, length_R = table.class_D[table.type_R], at.space.length_R
    classes = table.others.count_AC.shape[1]
    for probe in range(PROBES):
        law_R = at.old_probability_R if probe % 2 else uniform_R
        response_G = law_R.multinomial(group_size, replacement=True, generator=generator)
        given = group.inputs(objective, at, response_G)
        advantage_GT, weight_GT = group.credit_and_weight(objective, given)
        count_GC = torch.nn.functional.one_hot(class_R[response_G], classes)
        a_G = torch.tensor([place[tuple(row)] for row in (count_GC.sum(dim=0) - count_GC).tolist()])
        z_G = length_R[response_G].sum() - length_R[response_G]
        d_G = table.type_R[response_G]
        told_GT = table.scale_DZ[d_G, z_G][:, None] * table.profile_DT[d_G]
        kept = float(group.keeps(objective, at, response_G))
        if not (
            torch.allclose(table.advantage_DAT[d_G, a_G], advantage_GT, **SAME)
            and torch.allclose(told_GT, weight_GT, **SAME)
            and bool((table.keep_DA[d_G, a_G] == kept).all())
        ):
            return False
    return True


def _labels(x_NX: Tensor) -> Tensor:
    """Return labels 0, 1, 2, ... that are the same for equal rows (to 1e-12)."""
    return torch.unique(torch.round(x_NX, decimals=12), dim=0, return_inverse=True)[1]


def _first(label_N: Tensor) -> Tensor:
    """Return the index of the first member of every label."""
    return torch.tensor([int((label_N == label).nonzero()[0]) for label in range(int(label_N.max()) + 1)])
