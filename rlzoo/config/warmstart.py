"""Settings of a warm start: a small base model trained from scratch on demonstrations."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rlzoo.config.settings import Settings


class WarmstartConfig(Settings):
    """Demonstrations, shape of the model, and optimizer. The shipped base was trained with the defaults."""

    tasks: dict[str, float] = Field(
        default={
            f"{kind}:{level}": share / 4 * weight
            for kind, share in (("sort", 0.2), ("add", 0.25), ("parity", 0.15), ("countdown", 0.3), ("needle", 0.1))
            for level, weight in (("easy", 1), ("medium", 2), ("hard", 1))
        },
        min_length=1,
    )
    """Share of the demonstrations by task, `kind:level`; need not sum to 1."""
    steps: int = Field(default=5000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    clean: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, from the first, with clean demonstrations only, which teach a skill faster."""
    seed: int = Field(default=0, ge=0)

    hidden_size: int = Field(default=128, multiple_of=64, gt=0)
    """A multiple of 64, as are the other widths: the block over which NF4 shares a scale."""
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_size: int = Field(default=384, multiple_of=64, gt=0)
    context_length: int = Field(default=256, ge=16)

    evaluate_prompts: int = Field(default=250, ge=0)
    """Test problems per task that the finished model answers, 8 samples each, for its card; 0: no evaluation."""

    @model_validator(mode="after")
    def _tasks_have_shares(self) -> Self:
        if any(not share > 0 for share in self.tasks.values()):
            raise ValueError(f"tasks: every share must be above 0, got {self.tasks}: leave out a task of share 0")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} has to be a multiple of twice the {self.heads} heads")
        return self
