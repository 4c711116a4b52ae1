"""What one run trains: its adapter, its critic's adapter if it has one, and their optimizer. All in float32."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.config.run import OptimizerSettings, RunConfig
from rlzoo.model.backbone import Backbone


class NotFinite(Exception):
    """A loss or gradient is not finite. The update was not made; the run's state is that before it."""


class Learner:
    """Adapters and AdamW of one run. Runs with one seed start from the same adapter, whatever their objective."""

    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        self.settings: OptimizerSettings = config.optimizer
        self.steps = config.train.steps
        self.frozen = config.control == "frozen"
        self.value_warmup = config.train.value_warmup_steps
        self.policy_waits = self.value_warmup > 0
        self.head = backbone.layout.head_size
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
        """Set the learning rate of a step (a pure function of the step), and whether the policy still waits for its
        critic; return the policy's rate."""
        self.policy_waits = step < self.value_warmup
        if step == self.value_warmup > 0:
            self.optimizer.state.pop(self.theta, None)  # the policy's first update is as any run's first
        factor = rate_factor(self.settings, step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.rates[0] * factor

    def step(self, gradients: list[Tensor], loss: float) -> float:
        """Clip the gradients and make one update; returns the norm before clipping.

        While the policy waits for its critic, only the critic has a gradient: its adapter, or its head on the policy.

        Raises:
            NotFinite: the loss or a gradient is not finite; nothing was changed.
        """
        trained = dict(zip(self.parameters, gradients, strict=True))
        trunk = None
        if self.policy_waits:
            trained = {self.critic: gradients[-1]}
            if self.critic is self.theta:
                trained = {self.theta: gradients[-1].clone()}
                trained[self.theta][: -self.head] = 0
                trunk = self.theta.detach()[: -self.head].clone()
        for theta, gradient in trained.items():
            theta.grad = gradient
        norm = float(torch.nn.utils.get_total_norm(list(trained.values())))
        if not math.isfinite(norm) or not math.isfinite(loss):
            self.optimizer.zero_grad()
            raise NotFinite(f"loss {loss:g}, gradient norm {norm:g}")
        torch.nn.utils.clip_grads_with_norm_(list(trained), self.settings.max_grad_norm, torch.tensor(norm))
        if not self.frozen:
            self.optimizer.step()
        self.optimizer.zero_grad()
        if trunk is not None:
            self.theta.detach()[: -self.head] = trunk  # weight decay needs no gradient
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
