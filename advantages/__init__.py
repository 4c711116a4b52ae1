"""Rewards to credit: which prompts count, how rewards are shaped, how much credit a token gets.

Torch and pydantic only.

accuracy --select--> keep        reward --shape--> reward per token --advantage--> Credit

`Part` is the base of all parts, `Need` lists the inputs a part may declare, `RolloutView` passes them to the part.
Not here: anything with a gradient (package `objectives`).
"""

from advantages.credit import Credit
from advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from advantages.estimate import GAE, Advantage, Group, GroupOthers, RewardToGo
from advantages.imitation import Demonstrated
from advantages.needs import Need
from advantages.optimal import OptimalToken
from advantages.part import Part, RunSettings
from advantages.select import All, Mixed, Select
from advantages.several import DecoupledRewards
from advantages.shape import KLInReward, OverlongFilter, Shape, SoftOverlong, at_last_token, shape_reward
from advantages.statistics import whiten
from advantages.subset import FilteredGroup, PassK, Positives
from advantages.teacher import TeacherReward
from advantages.tracker import Tracked
from advantages.view import RolloutView

__all__ = [
    "GAE",
    "Advantage",
    "All",
    "Credit",
    "DecoupledGAE",
    "DecoupledRewards",
    "Demonstrated",
    "FilteredGroup",
    "Group",
    "GroupOthers",
    "KLInReward",
    "LengthAdaptiveGAE",
    "Mixed",
    "Need",
    "OptimalToken",
    "OverlongFilter",
    "Part",
    "PassK",
    "Positives",
    "RewardToGo",
    "RolloutView",
    "RunSettings",
    "Select",
    "Shape",
    "SoftOverlong",
    "TeacherReward",
    "Tracked",
    "at_last_token",
    "shape_reward",
    "whiten",
]
