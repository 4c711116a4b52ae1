"""Value-based, policy-based and actor-critic learners on the same episodes, measured against the exact optimum.

    q error       max over s, a of |Q(s, a) - Q*(s, a)|
    over          mean over s of V(s) - V*(s), V what the learner bootstraps from: how much it overestimates
    critic error  mean over s of |V(s) - V^pi(s)|, as often as the policy visits s
    reward        exact expected reward of its policy: greedy for a value-based learner, as sampled for the others
    greedy        exact expected reward of its most likely response (the most likely token of each state)

An optimum is exact, and so is every policy's expected reward; only the episodes are sampled.
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
"""Of the Q network: the plain one, and each field alone."""
MEASURES = ("reward", "greedy", "q_error", "over", "critic_error")


@dataclass(frozen=True)
class ValueSetting:
    """Where families are compared.

    Attributes:
        judge: standard deviation of the judge's error on every reward of 0 or 1.
        epsilon: how often value-based learners sample a uniform token instead of their best.
        replay: earlier episodes that the Q table with replay relearns after each one.
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
    """One learner after some episodes; measures by name, over seeds, None where a learner has none."""

    learner: str
    family: str
    episodes: int
    measures: dict[str, Interval | None]

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        return asdict(self)


def world(setting: ValueSetting) -> Episodes:
    """The parity task with a judge that errs.

    Raises:
        UserError: a setting outside its range, or a space without a right answer.
    """
    if setting.judge < 0:
        raise UserError(f"judge {setting.judge:g}: the standard deviation of its error, so 0 or more")
    if not 0 <= setting.epsilon <= 1:
        raise UserError(f"epsilon {setting.epsilon:g}: a probability, between 0 and 1")
    space = enumerate_responses(setting.vocabulary, setting.longest)
    right_R = parity(space)
    if not right_R.any():
        raise UserError(
            f"no response of at most {setting.longest} of {setting.vocabulary} tokens is right: take 3 tokens and "
            "length 2"
        )
    return Episodes(space, right_R, setting.judge, setting.seeds, setting.episodes, setting.seed)


def learners(objectives: Iterable[Objective], setting: ValueSetting) -> list[Learner]:
    """The value-based learners, the actor with a Q critic, then one for each objective, all at their beginning.

    Raises:
        UserError: a setting outside its range, or an objective that needs more than this world has.
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
    """The measures of one learner, each [K]."""
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
    """Episodes after which learners are measured: powers of two times the rollout, and the last one."""
    points, at = list[int](), setting.group_size
    while at < setting.episodes:
        points.append(at)
        at *= 2
    return [*points, setting.episodes]


def race(
    objectives: Sequence[Objective], setting: ValueSetting, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Let every learner learn, and measure it at the checkpoints."""
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
