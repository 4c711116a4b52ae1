"""Settings of the optimizer, AdamW or Muon. A setting of the other one is refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.config.settings import Settings
from rlzoo.config.sizes import SHIPPED_LR

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """The optimizer of each run, in float32."""

    kind: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalized updates of the adapter's matrices (torch.optim.Muon), AdamW for a value head. Its update has
    the root mean square 0.2 lr, so that rates are of AdamW's order."""
    lr: float = Field(default=SHIPPED_LR, gt=0)
    """Of the shipped model, and lower for a larger one: 2e-4 to 1e-5 by size, as `rlzoo explain` says."""
    critic_lr: float | None = Field(default=None, gt=0)
    """Of a critic adapter; None: the same."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    momentum: Beta = 0.95
    """Of muon."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Clip of the gradient's 2-norm over all trained parameters of the run; a large number never clips."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the rate does after warm-up; linear and cosine would reach 0 one step after the last."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        foreign = ("betas", "eps") if self.kind == "muon" else ("momentum",)
        idle = [name for name in foreign if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(
                f"optimizer.{' and optimizer.'.join(idle)} does nothing with optimizer.kind = {self.kind!r}: leave it "
                "out, or choose the other kind"
            )
        return self
