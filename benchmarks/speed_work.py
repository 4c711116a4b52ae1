"""Input and result of a speed measurement, the same for this project and for TRL.

A piece of work is `warmup` untimed steps, then `steps` timed ones: rollout, credit, updates, records. Loading,
evaluation, checkpoints and drawing are not included.
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
"""GRPO with TRL's conventions and a KL term, so both sides compute the reference policy's log-probs."""
BETA = 0.04
COIN = "coin"
NEVER = 1 << 40
"""A token outside every vocabulary: as the only end token, it lets every response run to the limit."""


class Work(BaseModel):
    """One measurement. All fields except `side`, `runs`, `without` and `stages` are the same for both sides."""

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
    """A fast path of the engine to replace by the plain way; see `speed_gains`."""
    stages: bool = False
    """Train a second time with a clock in the engine; for this project only."""

    @property
    def rows(self) -> int:
        """Responses per step of one run."""
        return self.prompts_per_step * self.group_size

    @property
    def backbone(self) -> BackboneConfig:
        """Settings of the base model."""
        return BackboneConfig(model=self.model, precision=self.precision, device=self.device, lora=LORA)

    def load_task(self) -> Task:
        """Return the task; with the coin's reward if responses never end, since all of these would be wrong."""
        prompts = self.prompt_tokens if self.task == COIN else load_task(TaskConfig(name=self.task))
        return prompts if isinstance(prompts, Task) and self.ends == "model" else Coin(prompts)

    def problems(self, task: Task) -> list[Problem]:
        """Return the prompts of the first run, step after step, as `rlzoo.training.rollout` draws them."""
        steps = range(self.warmup + self.steps)
        return [p for step in steps for p in draw(task, self.seed, step, 0, self.prompts_per_step)]


LORA = LoraSettings()
OPTIMIZER = OptimizerSettings()


class Measured(BaseModel):
    """Result of a measurement; counts are over the timed steps of all runs.

    Attributes:
        seconds: wall clock, from the end of the first warm-up to the end of the last step of the last run.
        samples, tokens_sampled, tokens_trained, updates: counts of the work.
        adapter_parameters: trained by one run, without the value head.
        prompt_tokens: mean length of a prompt.
        loaded_bytes, peak_bytes: resident memory after loading the model, and its high-water mark from then on; see
            `speed_memory`.
        gpu_peak_bytes: largest allocation on the GPU, including the model; None without one.
        stages: seconds by stage of a second training.
        padding: share of padding in the scored and trained tokens.
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
        """Samples per second."""
        return self.samples / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Sampled tokens per second, which corrects for different lengths."""
        return self.tokens_sampled / self.seconds

    @property
    def memory(self) -> int:
        """Peak in bytes: of the GPU if there is one, else resident."""
        return self.peak_bytes if self.gpu_peak_bytes is None else self.gpu_peak_bytes


class Coin(Task):
    """A pseudo-random reward of 0 or 1, for untrained models and responses that never end.

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
