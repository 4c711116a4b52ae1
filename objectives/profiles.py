"""How other frameworks implement the same algorithms: `get("grpo@verl")` is our GRPO with verl's conventions.

A profile applies a framework's defaults: the kind of std and its epsilon, a group of one, whitening, dual clip, the
meaning of CISPO's bound, the aggregate, the value clip, the form of the KL. Clip widths, coefficients, lambda and
everything outside the loss stay the preset's, unless the framework's own algorithm fixes them.

Each row is a loss that the framework has, under the framework's name; it need not be one of our presets
(`get("bnpo@trl")`). A framework without such a loss has no row. `benchmarks/results/conventions.md` lists the remaining
differences and how much each cell moves the gradient.

Read at: TRL 1.16.0; verl 1dda039; OpenRLHF 3c3be62; NeMo RL 7ea279a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advantages.names import nearest


@dataclass(frozen=True)
class Row:
    """One loss of one framework.

    Attributes:
        base: the preset it is an ablation of.
        changes: cells to change, as `Objective.but` takes them.
        means: the framework's settings that give this loss.
    """

    base: str
    changes: Mapping[str, object]
    means: str


_RLOO = {"advantage": {"kind": "group_others", "scale": "none"}, "ratio": "response", "surrogate": "clip"}
_LOSS_ALONE = {"select": "all", "shape": "none"}
"""Changes that remove a preset's selection and shaping, which the framework's loss does not include."""
_TRL_GROUP = {"advantage.eps": 1e-4}
_TRL_KL = {"kl.correction": "ratio"}

TRL = {
    "reinforce": Row("reinforce", {**_RLOO, "shape": "kl"}, "RLOOTrainer()"),
    "grpo": Row("grpo", {**_TRL_GROUP, **_TRL_KL}, 'loss_type="grpo", beta=0.04'),
    "bnpo": Row("grpo", {**_TRL_GROUP, **_TRL_KL, "aggregate": "token_mean"}, 'loss_type="bnpo", beta=0.04'),
    "dr_grpo": Row(
        "dr_grpo",
        {"kl": {"kind": "k3", "correction": "ratio"}, "aggregate.budget": 512},
        'loss_type="dr_grpo", scale_rewards="none", max_completion_length=512, beta=0.04',
    ),
    "dapo": Row("dapo", {**_TRL_GROUP, "select": "all"}, "epsilon_high=0.28, a soft overlong reward function"),
    "cispo": Row("cispo", {**_TRL_GROUP, **_LOSS_ALONE}, 'loss_type="cispo", epsilon_high=5.0'),
    "sapo": Row("sapo", _TRL_GROUP, 'loss_type="sapo"'),
    "gspo": Row(
        "gspo",
        _TRL_GROUP,
        'loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4',
    ),
    "luspo": Row(
        "luspo",
        _TRL_GROUP,
        'loss_type="luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3',
    ),
}
"""GRPOTrainer and RLOOTrainer. TRL has no PPO since 1.16 and never had dynamic sampling."""

_VERL_DUAL = {"surrogate.dual": 3.0}
_VERL_GROUP = {"advantage.single": "keep"}

VERL = {
    "reinforce": Row(
        "reinforce",
        {
            "advantage": {"kind": "reward_to_go", "baseline": "none", "whiten": True},
            "ratio": "token",
            "surrogate": {"kind": "clip", "dual": 3.0},
            "aggregate": "token_mean",
        },
        "adv_estimator=reinforce_plus_plus",
    ),
    "ppo": Row("ppo", {**_VERL_DUAL, "value.coef": 1.0, "value.range": 0.5}, "adv_estimator=gae, lam=0.95"),
    "grpo": Row(
        "grpo",
        {**_VERL_GROUP, **_VERL_DUAL, "aggregate": "token_mean", "kl.bound": 10.0},
        "adv_estimator=grpo, use_kl_loss=True, kl_loss_type=low_var_kl, kl_loss_coef=0.04",
    ),
    "dr_grpo": Row(
        "dr_grpo",
        {**_VERL_GROUP, **_VERL_DUAL, "aggregate.budget": 512},
        "norm_adv_by_std_in_grpo=False, loss_agg_mode=seq-mean-token-sum-norm, loss_scale_factor=512",
    ),
    "dapo": Row("dapo", {"surrogate.dual": 10.0}, "the DAPO recipe, clip_ratio_c=10"),
    "cispo": Row(
        "cispo",
        {**_VERL_GROUP, **_LOSS_ALONE, "surrogate.floor": 0.8, "surrogate.cap": 1.2},
        "loss_mode=cispo, clip_ratio_low=0.2, clip_ratio_high=0.2",
    ),
    "gspo": Row("gspo", _VERL_GROUP, "loss_mode=gspo, clip_ratio_low=3e-4, clip_ratio_high=4e-4"),
}

_OPENRLHF_GROUP = {"advantage.eps": 1e-9}

OPENRLHF = {
    "reinforce": Row(
        "reinforce",
        {
            "advantage": {"kind": "reward_to_go", "baseline": "none", "whiten": True, "ddof": 0},
            "ratio": "token",
            "surrogate": "clip",
            "aggregate": "token_mean",
        },
        "advantage_estimator=reinforce",
    ),
    "ppo": Row(
        "ppo",
        {"shape.bound": 10.0, "advantage.ddof": 0, "value.coef": 1.0, "value.range": 0.5},
        "advantage_estimator=gae",
    ),
    "grpo": Row(
        "grpo",
        {**_OPENRLHF_GROUP, "aggregate": "token_mean", "kl.bound": 10.0},
        "advantage_estimator=group_norm, use_kl_loss, kl_estimator=k3, kl coefficient 0.04",
    ),
    "dapo": Row("dapo", _OPENRLHF_GROUP, "dynamic filtering with range (0, 1), clip 0.2 and 0.28, overlong penalty"),
    "gspo": Row("gspo", _OPENRLHF_GROUP, "policy_loss_type=gspo, clip 3e-4 and 4e-4"),
}

_NEMO_GROUP = {"advantage": "group_others"}

NEMO = {
    "ppo": Row(
        "ppo",
        {"shape.bound": 10.0, "value": {"kind": "plain", "coef": 1.0}},
        "adv_estimator gae, use_kl_in_reward, reference_policy_kl_type=k1, token_level_loss, MseValueLossFn as it is",
    ),
    "grpo": Row(
        "grpo",
        {**_NEMO_GROUP, "aggregate": "token_mean", "kl.bound": 10.0, "kl.correction": "score"},
        "use_leave_one_out_baseline, normalize_rewards, token_level_loss, reference_policy_kl_penalty=0.04",
    ),
    "dapo": Row("dapo", {"surrogate.dual": 10.0}, "the DAPO recipe: use_leave_one_out_baseline=False, ratio_clip_c=10"),
    "cispo": Row(
        "cispo",
        {**_NEMO_GROUP, **_LOSS_ALONE, "surrogate.cap": 6.0},
        "use_cispo, ratio_clip_min=1.0, ratio_clip_max=5.0",
    ),
    "gspo": Row("gspo", _NEMO_GROUP, "sequence_level_importance_ratios, token_level_loss=False, clip 3e-4 and 4e-4"),
}

PROFILES: dict[str, dict[str, Row]] = {"trl": TRL, "verl": VERL, "openrlhf": OPENRLHF, "nemo": NEMO}
"""Framework -> its name of a loss -> row."""


def profile(framework: str) -> dict[str, Row]:
    """The rows of a framework.

    Raises:
        ValueError: there is no such profile; the message names the nearest.
    """
    if framework not in PROFILES:
        raise ValueError(f"unknown profile {framework!r}; {nearest(framework, PROFILES)}")
    return PROFILES[framework]


def row(name: str, framework: str) -> Row:
    """One row of a framework, by the framework's name for the loss.

    Raises:
        ValueError: unknown framework, or a loss that it does not have; the message names the nearest.
    """
    rows = profile(framework)
    if name not in rows:
        raise ValueError(f"profile {framework!r} has no {name!r}; {nearest(name, rows)}")
    return rows[name]
