"""Rewards to credit: which prompts count, how rewards are shaped, how much credit a token gets.

Torch and pydantic only.

accuracy --select--> keep        reward --shape--> reward per token --advantage--> Credit
"""

from advantages.credit import Credit
from advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from advantages.estimate import GAE, Advantage, Group, GroupOthers, RewardToGo
from advantages.imitation import Imitation
from advantages.part import Part
from advantages.select import All, Mixed, Select
from advantages.shape import KLInReward, Shape, ShapeContext, SoftOverlong, at_last_token, shape_reward
from advantages.statistics import whiten
from advantages.teacher import TeacherReward

__all__ = [
    "GAE",
    "Advantage",
    "All",
    "Credit",
    "DecoupledGAE",
    "Group",
    "GroupOthers",
    "Imitation",
    "KLInReward",
    "LengthAdaptiveGAE",
    "Mixed",
    "Part",
    "RewardToGo",
    "Select",
    "Shape",
    "ShapeContext",
    "SoftOverlong",
    "TeacherReward",
    "at_last_token",
    "shape_reward",
    "whiten",
]
