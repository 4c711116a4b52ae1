"""Value-based, policy-based and actor-critic learners on the same episodes, compared with the exact optimum.

    q error       max over s, a of |Q(s, a) - Q*(s, a)|
    over          overestimation: mean over s of V(s) - V*(s), with the V that the learner bootstraps from
    critic error  mean over s of |V(s) - V^pi(s)|, weighted by the policy's visits to s
    reward        exact expected reward of its policy: greedy for a value-based learner, sampling for the others
    greedy        exact expected reward of the policy that takes the most likely token of each state

The optimum and every policy's expected reward are exact; only the episodes are sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from objectives import Objective
from rlzoo.errors import UserError
from rlzoo.lab import exact, qstar
from rlzoo.lab.dqn import DeepQ, Variant
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.gradient import PolicyLearner
from rlzoo.lab.learner import Estimate, Learner
from rlzoo.lab.q_critic import QActorCritic
from rlzoo.lab.qlearning import TabularQ
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import parity
from rlzoo.stats.intervals import Interval, interval

VARIANTS = (
    Variant(),
    Variant(double=True),
    Variant(prioritized=True),
    Variant(dueling=True),
    Variant(noisy=True),
    Variant(n_step=2),
)
"""Variants of the Q network: the plain one, and each extension alone."""
MEASURES = ("reward", "greedy", "q_error", "over", "critic_error")


@dataclass(frozen=True)
class ValueSetting:
    """World and budget of a comparison of families.

    Attributes:
        episodes: sampled responses per learner and seed.
        longest, vocabulary: tokens of a response at most, and of the vocabulary.
        judge: standard deviation of the judge's error on every reward of 0 or 1.
        epsilon: probability with which value-based learners sample a uniform token instead of their best.
        replay: earlier episodes that the Q table with replay learns from again after each new one.
        group_size: responses per rollout of the other learners.
        seeds, seed: number of seeds, and the first one.
    """

    episodes: int = 4096
    longest: int = 4
    vocabulary: int = 3
    judge: float = 1.0
    epsilon: float = 1.0
    replay: int = 4
    group_size: int = 16
    seeds: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One learner after some episodes; measures by name, over seeds, None for a measure that the learner lacks."""

    learner: str
    family: str
    episodes: int
    measures: dict[str, Interval | None]

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        return asdict(self)


def world(setting: ValueSetting) -> Episodes:
    """Return the parity task with a noisy judge.

    Raises:
        UserError: a setting outside its range, or a space without a right answer.
    """
    if setting.judge < 0:
        raise UserError(f"judge {setting.judge:g}: it is a standard deviation, so 0 or more")
    if not 0 <= setting.epsilon <= 1:
        raise UserError(f"epsilon {setting.epsilon:g}: it is a probability, so between 0 and 1")
    space = enumerate_responses(setting.vocabulary, setting.longest)
    right_R = parity(space)
    if not right_R.any():
        raise UserError(
            f"no response of at most {setting.longest} of {setting.vocabulary} tokens is right: take 3 tokens and "
            "length 2"
        )
    return Episodes(space, right_R, setting.judge, setting.seeds, setting.episodes, setting.seed)


def learners(objectives: Iterable[Objective], setting: ValueSetting) -> list[Learner]:
    """Return new learners: the value-based ones, the actor with a Q critic, then one per objective.

    Raises:
        UserError: a setting outside its range, or an objective with a need that this world cannot supply.
    """
    at = world(setting)
    found: list[Learner] = [
        TabularQ(at, setting.epsilon),
        TabularQ(at, setting.epsilon, double=True),
        TabularQ(at, setting.epsilon, replay=setting.replay),
        *(DeepQ(at, setting.epsilon, variant) for variant in VARIANTS),
        QActorCritic(at, setting.group_size),
    ]
    return found + [PolicyLearner(objective, at, setting.group_size) for objective in objectives]


def measured(estimate: Estimate, at: Episodes) -> dict[str, Tensor | None]:
    """Return the measures of one learner, each [K], or None for those that it lacks."""
    best = qstar.optimal(at.space, at.reward_SV)
    found = dict.fromkeys(MEASURES, None) | {
        "reward": qstar.probability(estimate.policy_KSV, at.space) @ at.reward_R,
        "greedy": qstar.probability(qstar.greedy(estimate.policy_KSV), at.space) @ at.reward_R,
    }
    if estimate.q_KSV is not None:
        found["q_error"] = (estimate.q_KSV - best.q_SV).abs().amax(dim=(1, 2))
    if estimate.value_KS is not None and estimate.aim_KS is None:
        found["over"] = (estimate.value_KS - best.v_S).mean(dim=1)
    elif estimate.value_KS is not None and estimate.aim_KS is not None:
        visits_KS = exact.visits(estimate.policy_KSV, at.space)
        error_KS = (estimate.value_KS - estimate.aim_KS).abs()
        found["critic_error"] = (visits_KS * error_KS).sum(dim=1) / visits_KS.sum(dim=1)
    return found


def checkpoints(setting: ValueSetting) -> list[int]:
    """Return the numbers of episodes after which learners are measured: the rollout times powers of 2, and the last."""
    points, at = list[int](), setting.group_size
    while at < setting.episodes:
        points.append(at)
        at *= 2
    return [*points, setting.episodes]


def race(
    objectives: Sequence[Objective], setting: ValueSetting, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Train every learner and measure it at the checkpoints. `progress` is called with each learner's name.

    Raises:
        UserError: as `learners`.
    """
    at = world(setting)
    rows: list[Row] = []
    for learner in learners(objectives, setting):
        progress(learner.name)
        done = 0
        for until in checkpoints(setting):
            learner.learn(done, until - done)
            done = until
            found = measured(learner.estimate(), at)
            over_seeds = {name: None if x_K is None else interval(x_K.tolist()) for name, x_K in found.items()}
            rows.append(Row(learner.name, learner.family, until, over_seeds))
    return rows
