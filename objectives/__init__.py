"""Objectives: credit to loss. Pure functions of tensors, usable in anybody's trainer. Torch and pydantic only.

from objectives import get, PolicyOutput, TokenBatch
grpo = get("grpo")
weight_BT = grpo.aggregate(mask_BT)                     # once, over the whole optimizer step
loss = grpo.loss(PolicyOutput(logp_BT), TokenBatch(mask_BT, weight_BT, advantage_BT, old_logp_BT, ref_logp_BT))
"""

from objectives.metrics import ROLLOUT_KEYS, UPDATE_KEYS, rollout_metrics, update_metrics
from objectives.objective import Objective
from objectives.profiles import profile
from objectives.registry import families, get, names, page, parent, register
from objectives.types import PolicyOutput, TokenBatch

from objectives import reinforce, remax, ppo, grpo, dapo, gspo  # isort: skip  # each registers its preset; order of the table

__all__ = [
    "ROLLOUT_KEYS",
    "UPDATE_KEYS",
    "Objective",
    "PolicyOutput",
    "TokenBatch",
    "dapo",
    "families",
    "get",
    "grpo",
    "gspo",
    "names",
    "page",
    "parent",
    "ppo",
    "profile",
    "register",
    "reinforce",
    "remax",
    "rollout_metrics",
    "update_metrics",
]
