"""The complete list of inputs that a part may need, so that a misspelt need fails where the part is defined."""

from __future__ import annotations

from enum import StrEnum


class Need(StrEnum):
    """One input that the trainer computes if a part needs it. A member equals its string."""

    GROUP = "group"
    """Two or more responses to each prompt."""
    DEMONSTRATION = "demonstration"
    """The task's demonstrations in place of samples, with log-probs of 0."""
    GREEDY = "greedy"
    """`greedy_N`: reward of the greedy response to each row's prompt, nan where it has none."""
    PROMPT = "prompt"
    """`prompt_N`: a string per row that names its prompt, the same in every step."""
    TURN = "turn"
    """`turn_NT`: turn of the episode in which each token was written, from 0."""
    ACCURACY = "accuracy"
    """`accuracy_N`: the task's own verdict, 0 or 1, before any shaping."""
    FINISHED = "finished"
    """`finished_N`: bool, true where the response ended by itself; false where the limit cut it."""
    LOGP = "logp"
    """`logp_NT`: log-probs of the sampled tokens under the policy that sampled them, before credit is assigned."""
    REF_LOGP = "ref_logp"
    """`ref_logp_NT`: the same under the reference policy."""
    TEACHER_LOGP = "teacher_logp"
    """`teacher_logp_NT`: the same under the run's teacher."""
    SAMPLER_LOGP = "sampler_logp"
    """`sampler_logp_NT`: the same as the sampler itself gave them, where the trainer computes its own `logp`."""
    NEW_LOGP = "new_logp"
    """`new_logp_NT`: the same under the policy after the rollout's updates; in `next_state` only."""
    VALUE = "value"
    """`value_NT`: V(s_t) before each token, from a trained critic."""
    ENTROPY = "entropy"
    """`entropy_NT`: entropy in nats of the distribution each token was drawn from."""
    COLLISION = "collision"
    """`collision_NT`: sum of squared probabilities of the distribution each token was drawn from."""


FIELDS: dict[Need, str] = {
    Need.GREEDY: "greedy_N",
    Need.PROMPT: "prompt_N",
    Need.TURN: "turn_NT",
    Need.ACCURACY: "accuracy_N",
    Need.FINISHED: "finished_N",
    Need.LOGP: "logp_NT",
    Need.REF_LOGP: "ref_logp_NT",
    Need.TEACHER_LOGP: "teacher_logp_NT",
    Need.SAMPLER_LOGP: "sampler_logp_NT",
    Need.NEW_LOGP: "new_logp_NT",
    Need.VALUE: "value_NT",
    Need.ENTROPY: "entropy_NT",
    Need.COLLISION: "collision_NT",
}
"""Need -> its field in `RolloutView`. `group` and `demonstration` have none: they determine how the rollout is
sampled."""
