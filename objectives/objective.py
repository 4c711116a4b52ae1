"""An algorithm is a row of parts; an ablation is one changed cell.

    loss = sum_t weight_t * ( -correction_t surrogate(log_ratio_t, A_t) + kl_t + value_t + entropy_t ) + imitation_t

The columns stand in the order of execution: everything before `ratio` runs without gradient (package `advantages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from torch import Tensor

from advantages import Advantage, All, Credit, Need, Part, RolloutView, RunSettings, Select, Shape, shape_reward
from objectives.ablate import FAMILIES, apply, join, spell_out
from objectives.parts import (
    KL,
    Aggregate,
    Correction,
    Entropy,
    Imitation,
    NoRatio,
    Ratio,
    Sequence,
    Surrogate,
    Tokens,
    ValueLoss,
)
from objectives.types import PolicyOutput, TokenBatch

CREDIT_COLUMNS = ("select", "shape", "advantage", "tokens")
"""Columns whose parts work on the rollout, before the first update."""


class Objective(BaseModel):
    """One algorithm: a frozen value with one field per column of the zoo's table.

    Raises:
        ValueError: at construction, if parts do not fit together; the message says how to fix it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: ClassVar[tuple[str, ...]] = tuple(FAMILIES)

    name: str
    select: Select = All()
    shape: tuple[Shape, ...] = ()
    advantage: Advantage
    ratio: Ratio
    surrogate: Surrogate
    tokens: Tokens | None = None
    correction: Correction | None = None
    aggregate: Aggregate
    kl: KL | None = None
    value: ValueLoss | None = None
    entropy: Entropy | None = None
    imitation: Imitation | None = None

    @field_validator("shape", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str):
            return () if value == "none" else tuple(kind.strip() for kind in value.split("+"))
        if value is None:
            return ()
        return cast("object", value) if isinstance(value, list | tuple) else (value,)

    @field_validator("tokens", "correction", "kl", "value", "entropy", "imitation", mode="before")
    @classmethod
    def _none_by_name(cls, value: object) -> object:
        return None if value == "none" else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "value" in self.advantage.needs and self.value is None:
            raise ValueError(
                f"{self.name}: advantage {self.advantage.kind!r} needs a trained critic: set value='clipped' or "
                "value='plain', or choose an advantage without one"
            )
        if self.value is not None and "value" not in self.advantage.needs:
            raise ValueError(
                f"{self.name}: value {self.value.kind!r} trains a critic that advantage {self.advantage.kind!r} never "
                "uses: set advantage='gae', or value='none'"
            )
        if isinstance(self.ratio, NoRatio) and self.surrogate.clips:
            raise ValueError(
                f"{self.name}: with ratio 'none' every ratio is 1 and surrogate {self.surrogate.kind!r} is inert: "
                "set surrogate='linear', or ratio='token'"
            )
        if self.shape and "demonstration" in self.advantage.needs:
            raise ValueError(
                f"{self.name}: advantage {self.advantage.kind!r} ignores rewards, so shape does nothing: "
                "set shape='none'"
            )
        if isinstance(self.ratio, NoRatio) and self.tokens is not None and self.tokens.clips:
            raise ValueError(
                f"{self.name}: with ratio 'none' every ratio is 1 and tokens {self.tokens.kind!r} is inert: "
                "set tokens='none', or ratio='token'"
            )
        kinds = [part.kind for part in self.shape]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{self.name}: shape has a part twice ({' + '.join(kinds)}): keep one of each kind")
        late = [part.kind for part in self.shape[1:] if part.replaces]
        if late:
            raise ValueError(
                f"{self.name}: shape {late[0]!r} takes the reward's place, and what stands before it is lost: put it "
                "first"
            )
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts of the row, in order of execution."""
        return tuple(part for column in self.columns for part in self._cell(column))

    @property
    def needs(self) -> frozenset[Need]:
        """The inputs that the trainer must supply: the union of the parts' needs."""
        return frozenset(Need(need) for part in self.parts for need in part.needs)

    @property
    def credit_needs(self) -> frozenset[Need]:
        """The inputs needed before the updates: by selection, shaping, advantage, and the choice of tokens."""
        early = [part for column in CREDIT_COLUMNS for part in self._cell(column)]
        return frozenset(Need(need) for part in early for need in part.needs)

    def check(self, settings: RunSettings) -> tuple[str, ...]:
        """Check the row against the settings of its run; see `Part.check`.

        Returns:
            Warnings of its parts and of their combination.

        Raises:
            ValueError: in such a run a part does nothing or is degenerate.
        """
        found = [warning for part in self.parts for warning in part.check(settings)]
        if isinstance(self.ratio, Sequence):
            found += self.surrogate.check_sequences(settings)
        return tuple(f"{self.name}: {warning}" for warning in found)

    def initial_states(self) -> dict[str, Any]:
        """The initial states of the parts that have one, by place: "kl", or "shape.kl" for a shaper."""
        states = {place: part.initial_state() for place, part in self.placed().items()}
        return {place: state for place, state in states.items() if state is not None}

    def at(self, states: Mapping[str, Any]) -> Objective:
        """Return the same objective, under the same name, with these states in its parts.

        Raises:
            ValueError: a state belongs to a part that the objective does not have.
        """
        places = self.placed()
        if states.keys() - places.keys():
            raise ValueError(f"{self.name} has no part {min(states.keys() - places.keys())!r} to carry a state")
        moved = {place: part.at(states[place]) if place in states else part for place, part in places.items()}
        cells = {column: self._moved(column, moved) for column in self.columns if self._cell(column)}
        return self.model_copy(update=cells)

    def next_states(self, view: RolloutView) -> dict[str, Any]:
        """The states of the parts for the next rollout, given this rollout after its updates."""
        places = {place: part for place, part in self.placed().items() if part.state is not None}
        return {p: part.next_state(part.state, part.sees(view)) for p, part in places.items()}

    def state_metrics(self) -> dict[str, float]:
        """Metrics of the parts' states, for the run's record."""
        return {
            k: x for part in self.parts if part.state is not None for k, x in part.state_metrics(part.state).items()
        }

    def placed(self) -> dict[str, Part]:
        """Every part by its place in the row."""
        return {
            f"{column}.{part.kind}" if column == "shape" else column: part
            for column in self.columns
            for part in self._cell(column)
        }

    def _moved(self, column: str, moved: Mapping[str, Part]) -> Part | tuple[Part, ...]:
        if column != "shape":
            return moved[column]
        return tuple(moved[f"shape.{part.kind}"] for part in self.shape)

    @property
    def group_size(self) -> int | None:
        """Responses per prompt that this objective requires; None: any number."""
        return self.advantage.group_size

    def row(self) -> dict[str, str]:
        """The row of the table: column -> one-line form, empty where the column is empty."""
        return {column: " + ".join(map(str, self._cell(column))) for column in self.columns}

    def changes_from(self, other: Objective) -> dict[str, str]:
        """Return the cells in which this row differs from another: column -> one-line form, "none" if empty."""
        theirs = other.row()
        return {column: cell or "none" for column, cell in self.row().items() if cell != theirs[column]}

    def _cell(self, column: str) -> tuple[Part, ...]:
        """The parts in one column: none, one, or several shapers."""
        cell = cast("Part | tuple[Part, ...] | None", getattr(self, column))
        if cell is None:
            return ()
        return cell if isinstance(cell, tuple) else (cell,)

    def but(self, **changes: Any) -> Objective:
        """Return a validated copy with some cells changed; its name lists the changes: `gspo[ratio=token]`.

        A key is a column (`ratio="token"`) or, through `**{...}`, a field of its part (`"surrogate.high": 0.28`).
        `get` reads the name back. `name` renames the copy instead.

        Raises:
            ValueError: unknown column or field (names the nearest), or parts that do not fit together.
        """
        rename = changes.pop("name", None)
        plain = spell_out(changes)
        table = self.model_dump()
        for key, value in plain.items():
            apply(table, key, value)
        changed = type(self)(**table)
        return changed.model_copy(update={"name": rename or join(self.name, plain, changed.model_dump())})

    def at_ratio_one(self) -> Objective:
        """The row that this one reduces to when every ratio is 1 (one update per rollout), named "at ratio one".

        At ratio 1 the following have no effect: the ratio's level; a surrogate whose slope is the advantage; a token
        treatment that keeps that slope; a KL to the sampling policy; a value clip.
        Two rows that are equal here are one algorithm under such a schedule.
        """
        at_one, advantage = torch.zeros(2, 1, requires_grad=True), torch.tensor([[1.0], [-1.0]])
        (slope,) = torch.autograd.grad(self.surrogate(at_one, advantage).sum(), at_one)
        changes: dict[str, Any] = {"name": "at ratio one"}
        if torch.equal(slope, advantage):
            changes |= {"ratio": "none", "surrogate": "linear"}
        if self.tokens is not None:
            treated = self.tokens(at_one.exp() * advantage, at_one, torch.ones_like(advantage, dtype=torch.bool))
            (slope,) = torch.autograd.grad(treated.sum(), at_one, materialize_grads=True)
            changes |= {"tokens": "none"} if torch.equal(slope, advantage) else {}
        if self.kl is not None and self.kl.anchor == "old_logp_BT":
            changes["kl"] = None
        if self.value is not None and "range" in type(self.value).model_fields:
            changes["value"] = {"kind": "plain", "coef": self.value.coef}
        return self.but(**changes)

    def credit(self, view: RolloutView) -> Credit:
        """Shape the rewards of a rollout and estimate its advantages.

        Raises:
            ValueError: a part reads a field that it did not declare or that the view lacks.
        """
        credit = self.advantage.estimate(self.advantage.sees(shape_reward(self.shape, view)))
        for part in self.shape:
            rows_N = part.learns_from(part.sees(view))
            if rows_N is not None:
                learn_NT = credit.mask(view.mask_NT) & rows_N[:, None]
                credit = replace(credit, advantage_NT=credit.advantage_NT * learn_NT, learn_NT=learn_NT)
        return credit

    def log_ratio(self, policy: PolicyOutput, batch: TokenBatch) -> Tensor:
        """The log-ratio that the surrogate sees, [B, T]; 0 outside the mask."""
        logp_BT, old_logp_BT = self._inside(policy, "logp_BT", batch), self._inside(batch, "old_logp_BT", batch)
        return self.ratio(logp_BT, old_logp_BT, batch.mask_BT)

    def weigh(self, mask_BT: Tensor, group_B: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return each token's share of the loss, [B, T], from `aggregate`. Call it once for the WHOLE optimizer step
        and slice the result. `group_B`: index of each row's prompt, for parts that need it."""
        more: dict[str, Any] = {"group_B": group_B} if Need.GROUP in self.aggregate.needs else {}
        return self.aggregate(mask_BT, dtype, **more)

    def choose(
        self, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None
    ) -> Tensor | None:
        """Return the tokens with special treatment, [B, T] bool; None if the column `tokens` is empty. Call it once for
        the WHOLE optimizer step and slice the result."""
        if self.tokens is None:
            return None
        more: dict[str, Any] = {"entropy_BT": entropy_BT} if Need.ENTROPY in self.tokens.needs else {}
        return self.tokens.choose(old_logp_BT, advantage_BT, mask_BT, **more)

    def imitate(self, accuracy_B: Tensor, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Return each token's share of the imitation cost, [B, T]; None without such a cost. Call it once for the WHOLE
        optimizer step and slice the result."""
        return None if self.imitation is None else self.imitation.weigh(accuracy_B, mask_BT, dtype)

    def per_token(self, log_ratio_BT: Tensor, batch: TokenBatch) -> Tensor:
        """The per-token objective [B, T], to be maximized, before importance correction: the surrogate, after any
        special treatment of the tokens in `chosen_BT`."""
        advantage_BT, old_logp_BT = (self._inside(batch, name, batch) for name in ("advantage_BT", "old_logp_BT"))
        x_BT = self.surrogate.of_tokens(log_ratio_BT, advantage_BT, batch.mask_BT, old_logp_BT)
        if self.tokens is None:
            return x_BT
        return self.tokens(x_BT, log_ratio_BT, self._inside(batch, "chosen_BT", batch))

    def terms(self, policy: PolicyOutput, batch: TokenBatch) -> dict[str, Tensor]:
        """The weighted sums that make up the loss: `surrogate` (negated) and the costs that the row has.

        Raises:
            ValueError: the batch or the policy output lacks something this objective needs.
        """
        log_ratio_BT = self.log_ratio(policy, batch)
        logp_BT = self._inside(policy, "logp_BT", batch)
        per_token_BT = self.per_token(log_ratio_BT, batch)
        if self.correction is not None:
            old_logp_BT = self._inside(batch, "old_logp_BT", batch)
            sampler_logp_BT = self._inside(batch, "sampler_logp_BT", batch)
            per_token_BT = per_token_BT * self.correction(old_logp_BT, sampler_logp_BT, batch.mask_BT)
        terms_BT = {"surrogate": -per_token_BT}
        if self.kl is not None:
            ref_logp_BT, weight_BT = self._inside(batch, self.kl.anchor, batch), self.kl.weight(logp_BT, log_ratio_BT)
            weighted = () if weight_BT is None else (weight_BT,)
            terms_BT["kl"] = self.kl(logp_BT, ref_logp_BT, *weighted)
        if self.value is not None:
            old_value_BT = self._inside(batch, "old_value_BT", batch)
            return_BT = self._inside(batch, "return_BT", batch)
            terms_BT["value"] = self.value(self._inside(policy, "value_BT", batch), old_value_BT, return_BT)
        if self.entropy is not None:
            terms_BT["entropy"] = self.entropy(self._inside(policy, "entropy_BT", batch))
        weight_BT = self._inside(batch, "weight_BT", batch)
        terms = {name: torch.where(batch.mask_BT, x_BT * weight_BT, 0).sum() for name, x_BT in terms_BT.items()}
        if self.imitation is not None:
            terms["imitation"] = self.imitation(logp_BT, self._inside(batch, "imitation_BT", batch)).sum()
        return terms

    def loss(self, policy: PolicyOutput, batch: TokenBatch) -> Tensor:
        """The scalar to minimize: a plain sum over tokens, so losses of parts of a step add up to the step's."""
        return torch.stack(list(self.terms(policy, batch).values())).sum()

    def learns_from(self, batch: TokenBatch) -> Tensor:
        """Rows that can have a gradient, bool [B].

        If the loss is only the surrogate (no column after `aggregate`) and an advantage of 0 gives no gradient, rows
        whose advantages are all 0 (silent groups) are excluded. The weights of the other rows do not change. Rows with
        non-finite log-probs are kept, so that the failure shows in the loss.
        """
        at_zero = torch.linspace(-2, 2, 9).view(-1, 1).requires_grad_()
        nothing = torch.zeros(at_zero.shape)
        mask = torch.ones_like(at_zero, dtype=torch.bool)
        x = self.per_token(at_zero, TokenBatch(mask, nothing, nothing, nothing, chosen_BT=mask))
        (slope,) = torch.autograd.grad(x.sum(), at_zero, materialize_grads=True)
        costs = self.columns[self.columns.index("aggregate") + 1 :]
        if any(self._cell(column) for column in costs) or bool(slope.any()):
            return batch.mask_BT.any(dim=1)
        return (batch.mask_BT & ((batch.advantage_BT != 0) | ~batch.old_logp_BT.isfinite())).any(dim=1)

    def _inside(self, record: PolicyOutput | TokenBatch, field: str, batch: TokenBatch) -> Tensor:
        """A field with 0 outside the mask, so that no value there, not even nan, reaches loss or gradient."""
        x = cast("Tensor | None", getattr(record, field))
        if x is None:
            raise ValueError(f"{self.name} needs {type(record).__name__}.{field}, which is None")
        if x.shape != batch.mask_BT.shape:
            raise ValueError(f"{field} has shape {tuple(x.shape)}, mask_BT has {tuple(batch.mask_BT.shape)}")
        return torch.where(batch.mask_BT, x, torch.zeros((), dtype=x.dtype, device=x.device))
