"""The trained state of one run: its adapter, its critic's adapter if it has one, their gradient, and the optimizer.

Everything is float32. The gradient of a step is the sum over its parts, in order of arrival.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.engine.muon import AdamW, Muon
from rlzoo.engine.protocol import AdamSettings, NotFinite, PolicyRef, RunSpec, StepSettings
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone

ADAPTER, CRITIC, OPTIMIZER = "adapter", "critic", "optimizer.pt"
"""The names in a saved run: two folders in PEFT's format, and a file."""


class Trainable:
    """Adapters and optimizer of one run.

    Attributes:
        theta: the policy's adapter vector [n].
        critic: the vector that values come from: `theta` itself, or the critic's own.
        version: optimizer steps so far.
    """

    def __init__(self, backbone: Backbone, spec: RunSpec) -> None:
        self.backbone, self.spec = backbone, spec
        self.version = 0 if spec.adapter is None else 1
        fresh = spec.adapter is None
        self.theta = self._fresh("policy") if fresh else backbone.load_adapter(spec.adapter).requires_grad_()
        own_critic = spec.critic == "adapter"
        self.critic = self._fresh("critic") if own_critic else self.theta
        self.parameters = [self.theta, self.critic] if own_critic else [self.theta]
        self.head = backbone.layout.head_size
        self.policy_waits = False
        self.optimizer: AdamW | Muon | None = None
        if isinstance(spec.optimizer, AdamSettings):
            self.optimizer = AdamW(self.parameters, spec.optimizer)
        elif spec.optimizer is not None:
            self.optimizer = Muon(backbone.layout, self.parameters, spec.optimizer)
        self._clear()

    def _fresh(self, role: str) -> Tensor:
        theta = self.backbone.new_adapter(noise.derive(self.spec.seed, "adapter", role))
        return theta.to(self.backbone.device).requires_grad_()

    @property
    def policy(self) -> PolicyRef:
        """The name of the policy as it is now."""
        return PolicyRef(self.spec.run, self.version)

    def _clear(self) -> None:
        self._gradients: list[Tensor] | None = None
        self._loss = 0.0

    def add(self, gradients: Sequence[Tensor] | None, loss: float) -> None:
        """Add a part of the step: a gradient [n] for each of `parameters` (None: no row had a gradient)."""
        self._loss += loss
        if gradients is not None:
            known = self._gradients
            added = gradients if known is None else [a + b for a, b in zip(known, gradients, strict=True)]
            self._gradients = list(added)

    def step(self, settings: StepSettings) -> float:
        """Clip the gradient, make one step and forget the gradient; returns the norm before clipping.

        With `trains = "critic"` only the critic has a gradient: its adapter, or its head on the policy.

        Raises:
            NotFinite: the loss or a gradient is not finite; nothing was changed.
            UserError: the run is a fixed policy.
        """
        if self.optimizer is None:
            raise UserError(f"{self.spec.run!r} is a fixed policy: it has no optimizer and cannot be trained")
        gradients = self._gradients or [torch.zeros_like(theta) for theta in self.parameters]
        loss = self._loss
        self._clear()
        trained = dict(zip(self.parameters, gradients, strict=True))
        trunk = None
        if settings.trains == "critic":
            trained = {self.critic: gradients[-1]}
            if self.critic is self.theta:
                trained = {self.theta: gradients[-1].clone()}
                trained[self.theta][: -self.head] = 0
                trunk = self.theta.detach()[: -self.head].clone()
        norm = float(torch.nn.utils.get_total_norm(list(trained.values())))
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise NotFinite(f"loss {loss:g}, gradient norm {norm:g}")
        if self.policy_waits and settings.trains == "all":
            self.optimizer.forget(self.theta)  # the policy's first step is as any run's first
        self.policy_waits = settings.trains == "critic" or (self.policy_waits and settings.trains == "nothing")
        for theta, gradient in trained.items():
            theta.grad = gradient
        torch.nn.utils.clip_grads_with_norm_(list(trained), settings.max_grad_norm, torch.tensor(norm))
        rates = [settings.lr, settings.lr if settings.critic_lr is None else settings.critic_lr]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):  # one group without an own critic
            group["lr"] = rate
        if settings.trains != "nothing":
            self.optimizer.step()
        self.optimizer.zero_grad()
        if trunk is not None:
            self.theta.detach()[: -self.head] = trunk  # weight decay needs no gradient
        self.version += 1
        return norm

    def save(self, folder: Path, optimizer: bool) -> None:
        """Write the adapters and, on request, the optimizer's state; see `Engine.save`."""
        self.backbone.save_adapter(self.theta, folder / ADAPTER)
        if self.critic is not self.theta:
            self.backbone.save_adapter(self.critic, folder / CRITIC)
        if optimizer and self.optimizer is not None:
            state: dict[str, Any] = {
                "version": self.version,
                "policy_waits": self.policy_waits,
                "kind": self.optimizer.kind,
                "optimizer": self.optimizer.state_dict(),
            }
            partial = folder / (OPTIMIZER + ".partial")
            torch.save(state, partial)
            partial.replace(folder / OPTIMIZER)
        _sync(folder)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, optimizer included; see `Engine.load`."""
        try:
            state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds; each means that this is not a file of ours
            raise UserError(f"{folder / OPTIMIZER} cannot be read ({error}). Start again in another folder.") from error
        folders = [folder / ADAPTER, folder / CRITIC][: len(self.parameters)]
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, folders, strict=True):
                parameter.copy_(self.backbone.load_adapter(saved))
        self.version, self.policy_waits = state["version"], state["policy_waits"]
        if self.optimizer is not None:
            kind = state.get("kind", AdamW.kind)
            if kind != self.optimizer.kind:
                raise UserError(
                    f"{folder / OPTIMIZER} is of optimizer {kind!r}, and the run has {self.optimizer.kind!r}"
                )
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, moments in self.optimizer.moments():
                sizes = {tuple(x.shape) for x in moments.values() if isinstance(x, torch.Tensor) and x.dim()}
                if sizes - {tuple(parameter.shape)}:  # the step itself would read beyond the end of the memory
                    raise UserError(
                        f"{folder / OPTIMIZER} is of another adapter: {sizes}, not {tuple(parameter.shape)}"
                    )
        self._clear()


def _sync(folder: Path) -> None:
    """Have the disk keep every file below a folder, and the folder's own list of names."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() and os.name == "nt":
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
