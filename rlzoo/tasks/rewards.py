"""Rewards are plain functions with the signature the field already uses:

    def reward(completions, **columns) -> list[float | None]

Every column of the data arrives as a keyword whose value is a list over the completions, `prompts` among them, as in
TRL. A function without `**kwargs` gets the keywords it names and no others. Where the prompt is a chat, a completion is
a list with one message, `[{"role": "assistant", "content": text}]`, as in TRL; otherwise it is the text. None means
unscorable.

A function is named `package.module:function`, or `path/to/file.py:function`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rlzoo.errors import UserError, nearest
from rlzoo.tasks.problem import Problem


@dataclass(frozen=True)
class RewardFunction:
    """A user's function, called with the columns it takes and held to the contract on what it returns."""

    path: str
    role: str
    """The setting that named it, for messages: `reward` or `accuracy`."""
    function: Callable[..., Any]

    @classmethod
    def load(cls, path: str, role: str) -> RewardFunction:
        """Import the function.

        Raises:
            UserError: the path is malformed, its module does not import, or the module has no such function.
        """
        module_name, colon, name = path.rpartition(":")
        if not colon or not module_name or not name:
            raise UserError(f"{role} = {path!r}: write package.module:function or path/to/file.py:function")
        module = _import(module_name, f"{role} = {path!r}")
        function = getattr(module, name, None)
        if not callable(function):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UserError(f"{role} = {path!r}: no function {name!r} in {module_name}; {nearest(name, names)}")
        return cls(path, role, function)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[float | None]:
        """One finite float, or None, per completion.

        Raises:
            UserError: the function raised (the cause is chained), or broke the contract on its result.
        """
        where = f"{self.role} function {self.path}"
        keywords = self._keywords(problems, completions)
        try:
            values = self.function(**keywords)
        except Exception as error:
            raise UserError(f"{where} raised {type(error).__name__}: {error}") from error
        return _checked(values, len(completions), where)

    def without_none(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[float]:
        """As a call, for a number that has to be known."""
        values = self(problems, completions)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            raise UserError(
                f"{self.role} function {self.path} returned None at position {values.index(None)}: "
                f"{self.role} has to be known for every completion (None is for the reward)"
            )
        return known

    def _keywords(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, Any]:
        names = list(dict.fromkeys(name for problem in problems for name in problem.columns))
        offered: dict[str, Any] = {name: [problem.columns.get(name) for problem in problems] for name in names}
        offered["prompts"] = [problem.prompt for problem in problems]
        offered["completions"] = [_as_in_prompt(p, c) for p, c in zip(problems, completions, strict=True)]
        parameters = inspect.signature(self.function).parameters.values()
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return offered
        missing = [p.name for p in parameters if p.default is p.empty and p.name not in offered]
        if missing:
            hint = nearest(missing[0], offered)
            raise UserError(f"{self.role} function {self.path} takes {missing[0]!r}, which is no column; {hint}")
        return {p.name: offered[p.name] for p in parameters if p.name in offered}


def _as_in_prompt(problem: Problem, completion: str) -> str | list[dict[str, str]]:
    return completion if isinstance(problem.prompt, str) else [{"role": "assistant", "content": completion}]


def _checked(values: Any, count: int, where: str) -> list[float | None]:
    try:
        values = list(values)
    except TypeError:
        raise UserError(f"{where} returned {type(values).__name__}, not a list of {count} numbers") from None
    if len(values) != count:
        raise UserError(f"{where} returned {len(values)} values for {count} completions")
    checked: list[float | None] = []
    for position, value in enumerate(values):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise UserError(f"{where} returned {value!r} at position {position}: not a number and not None") from None
        if number is not None and not math.isfinite(number):
            raise UserError(f"{where} returned {number} at position {position}: return None for what cannot be scored")
        checked.append(number)
    return checked


def _import(name: str, where: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        file = Path(name).expanduser()
        if not file.is_file():
            raise UserError(f"{where}: no file {name}")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None  # the name ends in .py
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: importing {name} raised {type(error).__name__}: {error}") from error
