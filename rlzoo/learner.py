"""What one run trains: its adapter, its critic's adapter if it has one, and their optimizer. All in float32."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.backbone import Backbone
from rlzoo.config import OptimizerSettings, RunConfig


class NotFinite(Exception):
    """A loss or gradient is not finite. The update was not made; the run's state is that before it."""


class Learner:
    """Adapters and AdamW of one run. Runs with one seed start from the same adapter, whatever their objective."""

    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        self.settings: OptimizerSettings = config.optimizer
        self.steps = config.train.steps
        self.frozen = config.control == "frozen"
        self.theta = self._fresh(backbone, config.noise_seed, "policy")
        own_critic = config.train.critic == "adapter"
        self.critic = self._fresh(backbone, config.noise_seed, "critic") if own_critic else self.theta
        self.parameters = [self.theta, self.critic] if own_critic else [self.theta]
        settings = self.settings
        self.rates = [settings.lr, settings.critic_lr or settings.lr][: len(self.parameters)]
        self.optimizer = torch.optim.AdamW(
            [{"params": [theta], "lr": lr} for theta, lr in zip(self.parameters, self.rates, strict=True)],
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    @staticmethod
    def _fresh(backbone: Backbone, seed: int, role: str) -> Tensor:
        theta = backbone.new_adapter(noise.derive(seed, "adapter", role))
        return theta.to(backbone.device).requires_grad_()

    def start_step(self, step: int) -> float:
        """Set the learning rate of a step (a pure function of the step) and return the policy's."""
        factor = rate_factor(self.settings, step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.rates[0] * factor

    def step(self, gradients: list[Tensor], loss: float) -> float:
        """Clip the gradients and make one update; returns the norm before clipping.

        Raises:
            NotFinite: the loss or a gradient is not finite; nothing was changed.
        """
        for theta, gradient in zip(self.parameters, gradients, strict=True):
            theta.grad = gradient
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm) or not math.isfinite(loss):
            self.optimizer.zero_grad()
            raise NotFinite(f"loss {loss:g}, gradient norm {norm:g}")
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.max_grad_norm, torch.tensor(norm))
        if not self.frozen:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs, as tensors and plain values."""
        return {"parameters": [p.detach().cpu() for p in self.parameters], "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state of `state()`."""
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])


def rate_factor(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Warm-up, then the schedule: the factor on the learning rate at a step of a run of `steps`."""
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    if settings.schedule == "linear":
        return 1 - progress
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
