"""Length penalties: their size after division by the group's std, and the groups that selection keeps."""

from __future__ import annotations

from dataclasses import replace

import torch

from advantages import Group, Mixed, RolloutView, SoftOverlong, at_last_token
from objectives.parts import SequenceSum
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.claims.lengths import own
from rlzoo.lab.moments import moments
from rlzoo.lab.plots import Plot
from rlzoo.lab.single import relative_difference
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world

PUNISHMENTS = (1.0, 0.1, 0.01, 0.001)


def long_one(right: float, wrong: float, wrongs: int, scale: str, weight: float) -> float:
    """Return the advantage of a right answer of maximal length in a group with `7 - wrongs` short right and `wrongs`
    short wrong ones."""
    mask_NT = torch.arange(10) < torch.tensor([10] + [4] * 7)[:, None]
    reward_N = torch.tensor([right] * (8 - wrongs) + [wrong] * wrongs, dtype=torch.float64)
    given_NT, group_N = at_last_token(reward_N, mask_NT), torch.zeros(8, dtype=torch.long)
    reward_NT = SoftOverlong(weight=weight)(given_NT, RolloutView.of(given_NT, mask_NT, group_N))
    advantage = Group.parse({"kind": "group", "scale": scale})
    return advantage(reward_NT, mask_NT, group_N).advantage_NT[0, 0].item()


@claim(
    name="shaped-rewards-need-selection",
    statement="With the group's std, a soft length penalty is soft in mixed groups only: in an all-right group its "
    "size cancels, and selection by accuracy drops such groups.",
    conditions="groups of 8, one overlong answer, rewards 0/1 and -1/+1, penalties 1 to 0.001; DAPO has this "
    "selection, GRPO with only the penalty does not",
    origin="lemma",
    source="derived, on 2503.14476, sections 3.2 and 3.4",
    how="advantage of the long right answer with seven right ones, and with four right and three wrong ones; selection "
    "of the two groups",
    expected="supported",
)
def overlong_is_soft() -> Finding:
    alone = [long_one(1, 0, 0, "std", w) for w in PUNISHMENTS]
    without_std = [long_one(1, 0, 0, "none", w) for w in PUNISHMENTS]
    mixed = {f"{wrong:+d}/+1": [long_one(1, wrong, 3, "std", w) for w in PUNISHMENTS] for wrong in (0, -1)}
    kept = Mixed()(torch.tensor([[1.0] * 8, [1.0] * 5 + [0.0] * 3])).tolist()
    hard = max(alone) - min(alone) < 0.01  # the difference comes from the 1e-6 added to the std
    soft = all(row == sorted(row) and row[-1] - row[0] > 0.5 for row in mixed.values())
    rows = {"all right, std": alone, "all right, mean only": without_std}
    rows |= {f"mixed {k}, std": row for k, row in mixed.items()}
    shown = "; ".join(f"{name}: {', '.join(f'{a:+.3f}' for a in row)}" for name, row in rows.items())
    return Finding(
        hard and soft and kept == [False, True],
        f"advantage of the long answer at penalties {', '.join(f'{w:g}' for w in PUNISHMENTS)}: {shown}; selection by "
        f"accuracy {'keeps' if kept[0] else 'drops'} the all-right group and {'keeps' if kept[1] else 'drops'} the "
        "mixed one",
        {"punishment": PUNISHMENTS, **rows},
        arithmetic=[
            "all right, penalty w: rewards 1 seven times and 1-w once: mean 1 - w/8, the long one is -7w/8 from it",
            "std: sqrt((7 (w/8)^2 + (7w/8)^2) / 7) = w / sqrt(8), so A = -(7w/8) sqrt(8) / w = -7 / sqrt 8 = -2.475",
        ],
        plot=Plot("penalty", PUNISHMENTS, "advantage of the long right answer", rows, log_x=True),
    )


@claim(
    name="reward-variance-revives-all-right-groups",
    statement="Selecting groups by reward instead of accuracy keeps all-right groups that differ in length only.",
    conditions="base right 90% of the time, groups of 8, soft overlong penalty as the shaped reward",
    origin="lemma",
    source="derived; why verl filters groups by accuracy",
    how="probability that a group of 8 is kept by accuracy, and by shaped reward, base right 90% of the time",
    expected="supported",
)
def reward_variance() -> Finding:
    at = first_update(make_world(success=0.9))
    by_accuracy = moments(own(SequenceSum()).but(select="mixed"), at, 8).kept
    reward_RT, group_R = at_last_token(at.reward_R, at.space.mask_RT), torch.zeros(len(at.reward_R), dtype=torch.long)
    shaped_R = SoftOverlong()(reward_RT, RolloutView.of(reward_RT, at.space.mask_RT, group_R)).sum(dim=1)
    by_reward = moments(own(SequenceSum()).but(select="mixed"), replace(at, accuracy_R=shaped_R), 8).kept
    gap = relative_difference(torch.tensor(by_reward), torch.tensor(by_accuracy))
    return Finding(gap > 0.01, f"kept by accuracy {by_accuracy:.1%}, by shaped reward {by_reward:.1%}", {"gap": gap})
