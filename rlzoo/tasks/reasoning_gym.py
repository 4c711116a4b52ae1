"""reasoning-gym:NAME: the procedural data sets of reasoning-gym, for instance `reasoning-gym:chain_sum`.

    {name = "reasoning-gym:chain_sum", options = {min_terms = 2, max_terms = 3}}

Its scores are not all 0 or 1 (countdown gives 0.01 for an expression that parses), so accuracy is `score >= 1`. To
train on the score itself, set `reward = "rlzoo.tasks.reasoning_gym:graded"`.
"""

from __future__ import annotations

from typing import Any

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError, nearest
from rlzoo.tasks.answers import final_answer
from rlzoo.tasks.base import Split, Task
from rlzoo.tasks.problem import Problem
from rlzoo.tasks.registry import register_task
from rlzoo.tasks.table import as_prompt, chat_settings

SIZE = 10_000
"""Items per split. Some data sets prepare all of their items, and some have no more."""
FIRST_SEED: dict[Split, int] = {"train": 0, "test": 2**30}
"""Item i of a data set is seeded by seed + i: with seeds this far apart the splits share no item seed."""


class ReasoningGym(Task):
    """Problems and verdicts of one reasoning-gym data set; `options` are the fields of its configuration."""

    kind = "reasoning-gym"
    uses = frozenset({"options", "system", "chat"})

    def __init__(self, config: TaskConfig, dataset_name: str):
        super().__init__(config.name, None, config.reward, config.accuracy)
        self._chat, self._system = chat_settings(config)
        options = config.options or {}
        for taken in options.keys() & {"seed", "size"}:
            raise UserError(f"task {config.name!r}: options.{taken} is set by the splits; remove it")
        gym = _reasoning_gym()
        known = gym.factory.DATASETS
        if dataset_name not in known:
            raise UserError(f"task {config.name!r}: unknown data set {dataset_name!r}; {nearest(dataset_name, known)}")
        try:
            self._datasets = {
                split: gym.create_dataset(dataset_name, seed=seed, size=SIZE, **options)
                for split, seed in FIRST_SEED.items()
            }
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"task {config.name!r}: reasoning-gym rejects options {options}: {error}") from error

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> ReasoningGym:
        return cls(config, argument)

    def size(self, split: Split) -> int:
        return SIZE

    def problem(self, split: Split, index: int) -> Problem:
        if not 0 <= index < SIZE:
            raise IndexError(f"task {self.name!r}: no {split} problem {index}; there are {SIZE}")
        entry = self._datasets[split][index]
        prompt = as_prompt(entry["question"], self._chat, self._system, f"task {self.name!r}, {split} item {index}")
        return Problem(prompt, str(entry["answer"]), dict(entry))

    def grade(self, problem: Problem, completion: str) -> float:
        score = self._datasets["train"].score_answer(final_answer(completion), problem.columns)
        return float(score >= 1)


def graded(completions: list[Any], metadata: list[dict[str, Any]], **columns: list[Any]) -> list[float]:
    """A reward function: reasoning-gym's own score, which gives parts of a point."""
    score_of = _reasoning_gym().get_score_answer_fn
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    entries = [
        {"question": q, "answer": a, "metadata": m}
        for q, a, m in zip(columns["question"], columns["answer"], metadata, strict=True)
    ]
    pairs = zip(texts, entries, strict=True)
    return [float(score_of(e["metadata"]["source_dataset"])(final_answer(text), e)) for text, e in pairs]


def _reasoning_gym() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise UserError("reasoning-gym is not installed: pip install 'rlzoo[reasoning-gym]'") from error
    return reasoning_gym


register_task(ReasoningGym)
