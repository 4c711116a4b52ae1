"""What is measured, and what a measurement says: the same for this project and for the trainer beside it.

A piece of work is `warmup` steps that nobody times and then `steps` that are: rollout, credit, updates, records.
Loading, evaluating, checkpoints and drawing are outside.
"""

from __future__ import annotations

import zlib
from random import Random
from string import ascii_lowercase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig, LoraSettings
from rlzoo.config.run import OptimizerSettings
from rlzoo.config.task import TaskConfig
from rlzoo.tasks import Problem, Split, Task, load_task
from rlzoo.training.rollout import draw

OBJECTIVE = "grpo@trl"
"""GRPO as TRL makes it, with a KL term: both need the reference policy's log-probs."""
BETA = 0.04
COIN = "coin"
NEVER = 1 << 40
"""A token that no vocabulary has: with it as the only end token, every response runs to the limit."""


class Work(BaseModel):
    """One measurement to make. Everything but `side`, `runs` and `stages` is the same for both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Literal["rlzoo", "trl"] = "rlzoo"
    runs: int = Field(default=1, ge=1)
    """Runs trained together, with seeds from `seed` on."""
    seed: int = 0
    model: str = "shipped"
    """"shipped" or a folder."""
    device: str = "cpu"
    precision: Literal["nf4", "bf16", "fp32"] = "nf4"
    task: str = "add:medium"
    """A task of the project, or "coin"."""
    prompt_tokens: int = Field(default=32, ge=1)
    """Length of the coin task's prompts, in characters."""
    ends: Literal["model", "never"] = "model"
    prompts_per_step: int = Field(default=8, ge=1)
    group_size: int = Field(default=8, ge=2)
    minibatches: int = Field(default=4, ge=1)
    """Optimizer updates per rollout."""
    max_new_tokens: int = Field(default=32, ge=1)
    warmup: int = Field(default=1, ge=1)
    steps: int = Field(default=4, ge=1)
    micro_batch_tokens: int = Field(default=EngineSettings().micro_batch_tokens, ge=1)
    threads: int = Field(default=1, ge=1)
    objective: str = OBJECTIVE
    without: str = ""
    """A fast path of the engine that the plain way takes the place of; see `speed_gains`."""
    stages: bool = False
    """Train once more with a clock in the engine; of this project only."""

    @property
    def rows(self) -> int:
        """Responses per step of one run."""
        return self.prompts_per_step * self.group_size

    @property
    def backbone(self) -> BackboneConfig:
        return BackboneConfig(model=self.model, precision=self.precision, device=self.device, lora=LORA)

    def load_task(self) -> Task:
        """The prompts and their reward: the task's own only if responses end, for the others are all wrong."""
        prompts = self.prompt_tokens if self.task == COIN else load_task(TaskConfig(name=self.task))
        return prompts if isinstance(prompts, Task) and self.ends == "model" else Coin(prompts)

    def problems(self, task: Task) -> list[Problem]:
        """The prompts of the first run, step after step: those that `rlzoo.training.rollout` draws."""
        steps = range(self.warmup + self.steps)
        return [p for step in steps for p in draw(task, self.seed, step, 0, self.prompts_per_step)]


LORA = LoraSettings()
OPTIMIZER = OptimizerSettings()


class Measured(BaseModel):
    """What was measured; all counts are over the timed steps of all runs together.

    Attributes:
        seconds: wall clock, from the first run that ends its warm-up to the last that ends its last step.
        samples, tokens_sampled, tokens_trained, updates: what was done.
        adapter_parameters: trained by one run, the value head left out.
        prompt_tokens: mean length of a prompt.
        loaded_bytes, peak_bytes: resident memory when the model was loaded, and its high-water mark from then on; see
            `speed_memory`.
        gpu_peak_bytes: allocated on the GPU at most, the model included; None without one.
        stages: seconds by stage of a second training.
        padding: share of the tokens of its passes that were padding, where responses are scored and trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    samples: int
    tokens_sampled: int
    tokens_trained: int
    updates: int
    adapter_parameters: int
    prompt_tokens: float
    loaded_bytes: int
    peak_bytes: int
    gpu_peak_bytes: int | None = None
    stages: dict[str, float] | None = None
    padding: float | None = None

    @property
    def samples_per_s(self) -> float:
        return self.samples / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Sampled tokens per second: what is left of a difference in lengths."""
        return self.tokens_sampled / self.seconds

    @property
    def memory(self) -> int:
        """Peak in bytes: of the GPU where there is one, else resident."""
        return self.peak_bytes if self.gpu_peak_bytes is None else self.gpu_peak_bytes


class Coin(Task):
    """A reward that is as good as a coin, for models that know nothing and responses that never end.

    The prompts are another task's, or random letters.
    """

    kind = COIN

    def __init__(self, prompts: Task | int) -> None:
        super().__init__(COIN)
        self.prompts = prompts

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> Task:
        raise TypeError("made from a piece of work, not from settings")

    def size(self, split: Split) -> int | None:
        return None if isinstance(self.prompts, int) else self.prompts.size(split)

    def problem(self, split: Split, index: int) -> Problem:
        if isinstance(self.prompts, Task):
            return self.prompts.problem(split, index)
        letters = Random(f"{COIN}/{split}/{index}").choices(ascii_lowercase, k=self.prompts)
        return Problem("".join(letters), answer="")

    def grade(self, problem: Problem, completion: str) -> float:
        return float(zlib.crc32(completion.encode()) & 1)
