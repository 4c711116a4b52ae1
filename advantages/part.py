"""A part is a frozen value: its settings are fields, its mathematics is `__call__`.

A family is a direct subclass of `Part` and fixes the call (`class Ratio(Part)`); a member subclasses the family and
names its kind (`class Token(Ratio, kind="token")`). A member defined in any module can be given wherever the family is
expected: as `"token"`, `{"kind": "clip", "high": 0.28}`, or the value `Clip(high=0.28)`.

A part of any family may have a state that changes from rollout to rollout:

    state_0 = initial_state()        state_{k+1} = next_state(state_k, rollout k after its updates)

The trainer stores and restores states as opaque data; in its other methods a part reads `self.state`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, PrivateAttr, model_validator
from pydantic_core import CoreSchema, core_schema

from advantages.names import nearest
from advantages.needs import Need
from advantages.view import RolloutView


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that `Part.check` needs.

    Attributes:
        max_length: tokens a response may have.
        group_size: responses per prompt.
        updates_per_rollout: optimizer steps per rollout; at 1 every ratio is 1.
    """

    max_length: int
    group_size: int
    updates_per_rollout: int = 1


class Part(BaseModel):
    """Base of all parts. Frozen and hashable; an unknown field is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str] = ""
    members: ClassVar[dict[str, type[Part]]] = {}
    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that stand in the one-line form, in this order: `clip(0.2, 0.28)`."""

    _state: Any = PrivateAttr(default=None)

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Part in cls.__bases__:
            cls.members = {}
            return
        if not re.fullmatch(r"[A-Za-z]\w*", kind):
            raise ValueError(f'{cls.family()} {cls.__name__} needs a kind, a word to name it by: kind="..."')
        rival = cls.members.get(kind)
        if rival is not None and (rival.__module__, rival.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{cls.family()} {kind!r} exists already: {rival.__module__}.{rival.__qualname__}")
        if (cls.initial_state is Part.initial_state) != (cls.next_state is Part.next_state):
            raise ValueError(f"{cls.family()} {kind!r} has a state: define both initial_state and next_state")
        cls.kind = kind
        cls.members[kind] = cls

    @model_validator(mode="before")
    @classmethod
    def _none_by_name(cls, fields: Any) -> Any:
        """Read "none" as None in fields that may be None, so that text can switch them off."""
        if not isinstance(fields, dict):
            return fields
        switchable = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        given = cast("dict[str, Any]", fields)
        return {name: None if value == "none" and name in switchable else value for name, value in given.items()}

    @model_validator(mode="after")
    def _knows_its_needs(self) -> Self:
        for need in self.needs:
            if need not in set(Need):
                raise ValueError(
                    f"{self.family()} {self.kind!r} has an unknown need {need!r}; {nearest(need, map(str, Need))}"
                )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """What the trainer must supply: members of `Need`, or their strings."""
        return frozenset()

    def sees(self, view: RolloutView) -> RolloutView:
        """The view of a rollout for this part: the fields that are always there and those it declared."""
        return view.only(self.needs, f"{self.family()} {self.kind!r}")

    def check(self, settings: RunSettings) -> tuple[str, ...]:
        """Check the part against the settings of its run.

        Returns:
            Warnings about constants that were chosen for another setting.

        Raises:
            ValueError: in such a run the part does nothing or is degenerate; the message says what to change.
        """
        return ()

    def initial_state(self) -> Any:
        """The state for the first rollout: numbers, strings, lists and dicts of these; None without a state."""
        return None

    def next_state(self, state: Any, view: RolloutView) -> Any:
        """Return the state for the next rollout.

        Args:
            state: the state during this rollout.
            view: this rollout after its updates, with `metrics` and, for the need "new_logp", `new_logp_NT`.
        """
        return state

    def state_metrics(self, state: Any) -> dict[str, float]:
        """Metrics of a state for the run's record: `KIND_state`, if the state is a number."""
        return {f"{self.kind}_state": float(state)} if isinstance(state, int | float) else {}

    @property
    def state(self) -> Any:
        """The part's current state."""
        return self.initial_state() if self._state is None else self._state

    def at(self, state: Any) -> Self:
        """Return the same part with another state."""
        moved = self.model_copy()
        moved._state = state
        return moved

    @classmethod
    def family(cls) -> str:
        """Name of the family, in lower case, as errors print it."""
        return next(base.__name__ for base in cls.__mro__ if Part in base.__bases__).lower()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Make a member of this family from a value, a kind, or a table with a kind and fields.

        Raises:
            ValueError: unknown kind (names the nearest), misspelt field, or something that is none of the three.
        """
        if isinstance(value, cls):
            return value
        table: dict[str, Any] = {"kind": value} if isinstance(value, str) else {}
        if isinstance(value, dict):
            table = dict(cast("dict[str, Any]", value))
        kind, state = table.pop("kind", None), table.pop("state", None)
        if not isinstance(kind, str):
            raise ValueError(f"{cls.family()}: expected a kind or a table with a kind, got {value!r}; {cls._known()}")
        member = cls.member(kind)
        for field in table:
            if field not in member.model_fields:
                raise ValueError(
                    f"{cls.family()} {kind!r} has no field {field!r}; {nearest(field, member.model_fields)}"
                )
        return cast("Self", member(**table) if state is None else member(**table).at(state))

    @classmethod
    def member(cls, kind: str) -> type[Part]:
        """The member of this family with that kind.

        Raises:
            ValueError: there is none; names the nearest.
        """
        if kind not in cls.members:
            raise ValueError(f"unknown {cls.family()} {kind!r}; {nearest(kind, cls.members)}")
        return cls.members[kind]

    @classmethod
    def _known(cls) -> str:
        return f"known: {', '.join(sorted(cls.members))}"

    def spec(self) -> dict[str, Any]:
        """The table that `parse` reads back: kind, every field, and the state if it is not the initial one."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {"kind": self.kind, **fields, **({} if self._state is None else {"state": self._state})}

    def __str__(self) -> str:
        fields = type(self).model_fields
        shown = [_short(getattr(self, name)) for name in self.shown if getattr(self, name) is not None]
        others = [
            f"{name}={_short(getattr(self, name))}"
            for name, field in fields.items()
            if name not in self.shown and getattr(self, name) != field.default
        ]
        inside = ", ".join(shown + others)
        return f"{self.kind}({inside})" if inside else self.kind

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if BaseModel in cls.__bases__ or Part not in cls.__bases__:
            return handler(source)
        spec = core_schema.plain_serializer_function_ser_schema(lambda part: cast("Part", part).spec())
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=spec)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
