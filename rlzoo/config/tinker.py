"""What a server of the Tinker API cannot do, refused with the reason before anything is sent to it.

can run:     every loss that is a function of log-probs, its own or the reference's (`compute_logprobs`)
cannot run:  values, entropies, collisions: the API has no critic and gives no more of a distribution than the
             log-prob of one token; Muon; log-probs at another temperature than 1
"""

from __future__ import annotations

from advantages import Need
from objectives import Objective
from rlzoo.config.model import BackboneConfig
from rlzoo.config.optimizer import OptimizerSettings

UNKNOWN_THERE = {
    Need.VALUE: "a critic, and the Tinker API trains no value head",
    Need.ENTROPY: "the entropy of the policy, and the Tinker API gives log-probs of single tokens only",
    Need.COLLISION: "sums of squared probabilities, and the Tinker API gives log-probs of single tokens only",
}
"""Need -> why no such server can supply it."""


def refuse(objective: Objective, backbone: BackboneConfig, optimizer: OptimizerSettings, temperature: float) -> None:
    """Raise `ValueError` for an objective that needs what the API cannot give, and for settings it would not apply."""
    for need, why in UNKNOWN_THERE.items():
        if need in objective.needs:
            raise ValueError(f"{objective.name} needs {why}: train it with engine.name = 'local'")
    if optimizer.kind != "adamw":
        raise ValueError(f"optimizer.kind = {optimizer.kind!r}, and a Tinker server has AdamW only: leave it out")
    if temperature != 1:
        raise ValueError(
            f"train.temperature = {temperature:g}, and a Tinker server gives log-probs at temperature 1 only: leave it "
            "out"
        )
    lora, fields = backbone.lora, type(backbone.lora).model_fields
    theirs = [name for name in ("alpha", "target_modules", "rslora") if getattr(lora, name) != fields[name].default]
    if theirs:
        raise ValueError(
            f"backbone.lora.{theirs[0]} is the server's choice, and the Tinker API takes the rank only: leave it out"
        )
    if backbone.device != "auto":
        raise ValueError(f"backbone.device = {backbone.device!r}, and the model is on the server: leave it out")
