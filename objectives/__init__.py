"""Objectives: credit to loss. Pure functions of tensors that any trainer can use. They import torch and pydantic only.

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

# Each registers its preset; the order is that of the table.
from objectives import reinforce, rloo, remax, reinforce_pp, reinforce_pp_baseline, opo  # isort: skip
from objectives import maxrl, gpg, raft, topr, dro, spo, otb  # isort: skip
from objectives import ppo, ppo_kl, a2c, vapo  # isort: skip
from objectives import grpo, dapo, dr_grpo, lite_ppo, grpo_2  # isort: skip
from objectives import rgra, passk_grpo, gfpo, gdpo  # isort: skip
from objectives import gspo, gspo_token, gmpo, luspo, vespo, ctpo  # isort: skip
from objectives import cispo, sapo, clip_cov, kl_cov, opsm, ce_gppo, aspo, icepop  # isort: skip
from objectives import dppo, scale_rl, top_entropy  # isort: skip
from objectives import sft, distill  # isort: skip

__all__ = [
    "ROLLOUT_KEYS",
    "UPDATE_KEYS",
    "Objective",
    "PolicyOutput",
    "TokenBatch",
    "a2c",
    "aspo",
    "ce_gppo",
    "cispo",
    "clip_cov",
    "ctpo",
    "dapo",
    "distill",
    "dppo",
    "dr_grpo",
    "dro",
    "families",
    "gdpo",
    "get",
    "gfpo",
    "gmpo",
    "gpg",
    "grpo",
    "grpo_2",
    "gspo",
    "gspo_token",
    "icepop",
    "kl_cov",
    "lite_ppo",
    "luspo",
    "maxrl",
    "names",
    "opo",
    "opsm",
    "otb",
    "page",
    "parent",
    "passk_grpo",
    "ppo",
    "ppo_kl",
    "profile",
    "raft",
    "register",
    "reinforce",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "remax",
    "rgra",
    "rloo",
    "rollout_metrics",
    "sapo",
    "scale_rl",
    "sft",
    "spo",
    "top_entropy",
    "topr",
    "update_metrics",
    "vapo",
    "vespo",
]
