"""Rewards are plain functions with the signature the field already uses:

    def reward(completions, **columns) -> list[float | None]

Every column of the data arrives as a keyword whose value is a list over the completions, `prompts` among them, as in
TRL. A function without `**kwargs` gets the keywords it names and no others. Where the prompt is a chat, a completion is
a list with one message, `[{"role": "assistant", "content": text}]`, as in TRL; otherwise it is the text. None means
unscorable. The function may be `async`, and may print: that goes to stderr, as stdout is for results.

A function may return several rewards: a dict, name -> such a list. Their sum is the reward of a response; an advantage
that treats them one by one reads `RolloutView.reward_NK`.

A function is named `package.module:function`, or `path/to/file.py:function`. A file may import its neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import io
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rlzoo.errors import UserError, nearest
from rlzoo.tasks.problem import Problem

LARGEST = 3.4e38
"""Largest reward: rewards are stored in float32."""


@dataclass(frozen=True)
class RewardFunction:
    """A user's function: called with the columns that it takes, and its result checked."""

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

    @classmethod
    def of(cls, function: str | Callable[..., Any], role: str) -> RewardFunction:
        """Take a function as it is, or import it if it is a path; see `load`."""
        return cls.load(function, role) if isinstance(function, str) else cls(path_of(function), role, function)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[float | None]:
        """One finite float, or None, per completion; the sum, where the function gives several rewards.

        Raises:
            UserError: the function raised (the cause is chained), or broke the contract on its result.
        """
        values = self.values(problems, completions)
        return total(values) if isinstance(values, dict) else values

    def values(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> list[float | None] | dict[str, list[float | None]]:
        """What the function returns: one number per completion, or several by name. Raises as a call does."""
        where = f"{self.role} function {self.path}"
        keywords = self._keywords(problems, completions)
        try:
            with _of_the_user(f"{where} raised"):
                values = self._call(keywords)
        except UserError as error:
            raise UserError(f"{error}{self._culprit(problems, completions)}") from error.__cause__
        asked = list(zip(problems, completions, strict=True))
        if not isinstance(values, dict):
            return _checked(values, asked, where)
        named = cast("dict[object, Any]", values)
        if not named or not all(isinstance(name, str) and name for name in named):
            raise UserError(f"{where} returned a dict with keys {list(named)}: expected the names of its rewards")
        return {str(name): _checked(column, asked, f"{where}[{name!r}]") for name, column in named.items()}

    def _call(self, keywords: dict[str, Any]) -> Any:
        values = self.function(**keywords)
        return _awaited(values) if inspect.isawaitable(values) else values

    def _culprit(self, problems: Sequence[Problem], completions: Sequence[str]) -> str:
        """Name the response for which the function raises, found by calling it on halves of the batch, as a suffix."""
        rows = range(len(problems))
        while len(rows) > 1:
            halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            raising = next((half for half in halves if self._raises(problems, completions, half)), None)
            if raising is None:
                return f", for {len(rows)} responses together and for neither half of them"
            rows = raising
        return f", for {described(problems[rows[0]], completions[rows[0]])}" if rows else ""

    def _raises(self, problems: Sequence[Problem], completions: Sequence[str], rows: range) -> bool:
        some = slice(rows.start, rows.stop)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._call(self._keywords(problems[some], completions[some]))
        except (Exception, SystemExit):
            return True
        return False

    def without_none(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[float]:
        """As a call, but None is an error."""
        values = self(problems, completions)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            place = values.index(None)
            raise UserError(
                f"{self.role} function {self.path} returned None at position {place}: {self.role} has to be known for "
                f"every completion (None is for the reward); that is {described(problems[place], completions[place])}"
            )
        for place, value in enumerate(known):
            if not 0 <= value <= 1:
                raise UserError(
                    f"{self.role} function {self.path} returned {value:g} at position {place}: {self.role} is a share "
                    f"of 1, from 0 for wrong to 1 for right; that is {described(problems[place], completions[place])}"
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


def total(named: dict[str, list[float | None]]) -> list[float | None]:
    """Sum of the named rewards of each completion; None where one of them is None."""
    rows = zip(*named.values(), strict=True)
    return [None if any(x is None for x in row) else sum(cast("tuple[float, ...]", row)) for row in rows]


def path_of(function: Callable[..., Any]) -> str:
    """Return a function's import path; if it cannot be imported, a digest of its source is appended.

    So a run does not resume with a reward that has changed in the notebook.
    """
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    path = f"{module}:{name}"
    if module != "__main__" and "<" not in name:
        return path
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        if code is None:
            return path
        plain = [one for one in code.co_consts if not inspect.iscode(one)]
        source = repr((code.co_code, code.co_names, plain))
    return f"{path}@{hashlib.blake2b(source.encode(), digest_size=4).hexdigest()}"


def _as_in_prompt(problem: Problem, completion: str) -> str | list[dict[str, str]]:
    return completion if isinstance(problem.prompt, str) else [{"role": "assistant", "content": completion}]


def described(problem: Problem, completion: str) -> str:
    """Return which response a message is about: its row of data, if it has one, its prompt and its text, shortened."""
    prompt = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
    return f"{problem.place or 'the'} prompt {_short(prompt)} and its response {_short(completion)}"


def _short(text: str, most: int = 60) -> str:
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."


def _checked(values: Any, asked: Sequence[tuple[Problem, str]], where: str) -> list[float | None]:
    try:
        values = list(values)
    except TypeError:
        raise UserError(f"{where} returned {type(values).__name__}, not a list of {len(asked)} numbers") from None
    if len(values) != len(asked):
        raise UserError(f"{where} returned {len(values)} values for {len(asked)} completions")

    def refused(shown: str, position: int, why: str) -> UserError:
        return UserError(
            f"{where} returned {shown} at position {position}: {why}; that is {described(*asked[position])}"
        )

    checked: list[float | None] = []
    for position, value in enumerate(values):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            raise refused(repr(value), position, "not a number and not None") from None
        if number is not None and not math.isfinite(number):
            raise refused(str(number), position, "return None for what cannot be scored")
        if number is not None and abs(number) > LARGEST:
            raise refused(f"{number:g}", position, f"float32 ends at {LARGEST:g}")
        checked.append(number)
    return checked


def _awaited(values: Awaitable[Any]) -> Any:
    """Return the result of an async function, in a new event loop: the trainer's may be running in this thread."""

    async def wait() -> Any:
        return await values

    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, wait()).result()


@contextlib.contextmanager
def _of_the_user(what: str) -> Iterator[None]:
    """Context for user code: its output goes to stderr, and its exceptions become errors that name their line.

    This includes SystemExit: model-written code that a reward runs with `exec` must not end training by calling exit().
    """
    try:
        with contextlib.redirect_stdout(sys.stderr or io.StringIO()):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = f"exit status {error.code}" if isinstance(error, SystemExit) else str(error)
        raise UserError(f"{what} {type(error).__name__}: {said}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where the user's code raised: the last line of its traceback that is not of this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frame = own[-1] if own else None
    return f" ({frame.filename}, line {frame.lineno}: {frame.line})" if frame else ""


def _import(name: str, where: str) -> ModuleType:
    with _of_the_user(f"{where}: importing {name} raised"):
        if not name.endswith(".py"):
            return importlib.import_module(name)
        file = Path(name).expanduser().resolve()
        if not file.is_file():
            raise UserError(f"{where}: no file {name} (paths count from the working folder, {Path.cwd()})")
        beside = str(file.parent)
        if beside not in sys.path:  # last, so that a neighbour hides no library
            sys.path.append(beside)
        # Its name is its whole path, so that it takes no library's place in sys.modules, where dataclasses look it up.
        spec = importlib.util.spec_from_file_location(str(file), file)
        assert spec is not None and spec.loader is not None  # the name ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[str(file)] = module
        spec.loader.exec_module(module)
        return module
