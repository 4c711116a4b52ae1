"""Settings of a run. A misspelt key is an error, and so is a setting that would have no effect.

A run is (objective, seed) plus the settings that all runs of a comparison share. A step is one rollout:
`prompts_per_step` prompts with `group_size` responses each, trained on in `epochs` passes of `minibatches` optimizer
updates.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from advantages import RunSettings
from objectives import Objective, get
from rlzoo.config.budget import Budget
from rlzoo.config.engine import EngineSettings
from rlzoo.config.limits import ROW_BYTES, check_memory
from rlzoo.config.model import BackboneConfig
from rlzoo.config.names import folder_name
from rlzoo.config.optimizer import OptimizerSettings
from rlzoo.config.settings import Settings
from rlzoo.config.sizes import fill
from rlzoo.config.task import TaskConfig
from rlzoo.config.tinker import refuse

Control = Literal["same", "random_reward", "frozen"]

OTHER_SEEDS = 1_000_000
"""Offset that the control `same` adds to a seed, so that no other run has its prompts, noise and first adapter."""


TUNE_SEEDS = 2_000_000
"""The first seed of a search for settings; the comparison's own seeds are below `OTHER_SEEDS`."""

TUNABLE = ("lr", "eps", "weight_decay", "max_grad_norm")
"""Optimizer settings that may differ between objectives; any other setting would change the task or the budget."""


class TeacherConfig(Settings):
    """The teacher: an adapter on the run's own base model, or another model. A string is an adapter's folder."""

    adapter: str | None = None
    """Folder of an adapter on the same base, such as runs/sort/grpo/seed0/adapter."""
    model: str | None = None
    """Another model with the same tokenizer: "shipped", a local folder, or a name on the Hub."""
    precision: Literal["nf4", "bf16", "fp32"] = "nf4"
    """Of the other model, as in `backbone`."""
    compute: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the other model, as in `backbone`."""
    pad_token: str | None = None
    """Of the other model, as in `backbone`."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"adapter": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.adapter is None) == (self.model is None):
            raise ValueError("name the teacher's adapter or its model, one of the two")
        fields = type(self).model_fields
        idle = [x for x in ("precision", "compute", "pad_token") if getattr(self, x) != fields[x].default]
        if self.adapter is not None and idle:
            raise ValueError(f"an adapter is on the run's own base: {' and '.join(idle)} does nothing, leave it out")
        return self

    def backbone(self, device: str) -> BackboneConfig:
        """The settings that load the other model."""
        table = self.model_dump(exclude={"adapter"})
        return BackboneConfig(**table, device=device)


class TrainSettings(Settings):
    """The loop."""

    steps: int = Field(default=60, ge=1)
    """Rollouts."""
    budget: Annotated[str, AfterValidator(lambda text: str(Budget.parse(text)))] | None = None
    """Ends each run after the first step at which it has spent this: tokens=200k (sampled), trained=100k (tokens in
    updates), updates=500, or seconds=600 of engine time, which does not repeat. There are at most `steps` steps."""
    prompts_per_step: int = Field(default=8, ge=1)
    group_size: int = Field(default=8, ge=1)
    """Responses per prompt, G."""
    minibatches: int = Field(default=4, ge=1)
    """Optimizer updates per pass over a rollout, each over whole groups. With one update every ratio is 1."""
    epochs: int = Field(default=1, ge=1)
    """Passes over a rollout."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Maximum response length in tokens; 256 or 512 for models larger than the shipped one."""
    shuffle: bool = True
    """true: shuffle the rows of data in every epoch; false: use the order of the file."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the sampler and of the trainer's log-probs."""
    critic: Literal["head", "adapter"] | None = None
    """Source of the values, for objectives that need them: a head on the policy (the default), or a separate adapter
    with a head, on the same base."""
    value_warmup_steps: int = Field(default=0, ge=0)
    """Number of first steps that train only the critic, on samples of the unchanged policy (VAPO, 2504.05118, pretrains
    its critic for 50)."""
    teacher: TeacherConfig | None = None
    """For objectives that learn from a teacher: the folder of an adapter, or {model = ...}."""
    old_logp: Literal["auto", "sampler", "recompute"] = "auto"
    """Source of the old log-probs, for ratios and the KL in the reward: the sampler, or a separate forward pass of the
    trainer. In bfloat16 the two can differ by more than the width of a clip (see `sampler_gap`), so auto recomputes
    there, after another sampler than the engine's own, and for objectives with a correction for this difference; else
    it uses the sampler's."""
    save_every: int = Field(default=10, ge=1)
    """Steps between checkpoints."""
    grading_timeout: float = Field(default=600.0, gt=0)
    """Seconds that grading one rollout may take; a run whose grading takes longer ends as failed."""
    silent_steps: int | None = Field(default=20, ge=1)
    """A run whose first so many steps all had no signal (every group's rewards equal, or no update) ends as failed: the
    task is too hard or too easy, or the reward never finds an answer. So does a run of which that many steps in a row
    had gradients of exactly 0 although advantages differed: its policy has overflowed. None: never."""
    samples: int = Field(default=4, ge=0)
    """Prompts per step, and per evaluation, whose first response is kept in samples.jsonl."""

    @model_validator(mode="after")
    def _minibatches_have_prompts(self) -> Self:
        if self.minibatches > self.prompts_per_step:
            raise ValueError(
                f"minibatches {self.minibatches} > prompts_per_step {self.prompts_per_step}: a minibatch holds whole "
                "groups, so there can be at most one per prompt"
            )
        return self

    @property
    def updates_per_rollout(self) -> int:
        return self.minibatches * self.epochs


FINAL_PROMPTS = 8
"""Factor from `prompts` to the default of `final_prompts`."""


class EvaluationSettings(Settings):
    """Held-out evaluation: the same prompts and the same noise every time, for every run."""

    every: int = Field(default=10, ge=1)
    """Steps between evaluations; there is always one before the first and after the last step."""
    prompts: Annotated[int, Field(ge=1)] | Literal["all"] = 128
    """Number of held-out problems, chosen by a hash; all of them if there are fewer. "all": every row of the test
    split, validation rows included, as in published numbers; `final_prompts` and `final_samples` must then be unset.
    Needs a task with a finite test split."""
    samples: int = Field(default=1, ge=1)
    """Responses per prompt, at the training temperature; accuracy is their mean (pass@1)."""
    final_prompts: int | None = Field(default=None, ge=0)
    """Problems of the test split that are scored before and after training; verdicts use these scores. None: eight
    times `prompts`. 0: none; the last of the other evaluations is used instead, as in a search for settings."""
    final_samples: int | None = Field(default=None, ge=1)
    """Responses per prompt in the first and last evaluation (None: samples). 8 give pass@8 before and after, which
    distinguishes newly solved problems from problems solved more often."""
    greedy: bool = False
    """One most likely response per prompt instead of samples."""
    with_greedy: bool = False
    """In addition to the samples, one greedy response per prompt: `accuracy_greedy`."""

    @model_validator(mode="after")
    def _greedy_is_one(self) -> Self:
        if self.greedy and max(self.samples, self.final_samples or 1) > 1:
            raise ValueError("greedy evaluation gives one response per prompt: leave samples and final_samples at 1")
        if self.greedy and self.with_greedy:
            raise ValueError("greedy evaluation is greedy already: with_greedy is for samples, leave it out")
        return self

    @model_validator(mode="after")
    def _ends_have_prompts(self) -> Self:
        if self.final_prompts == 0 and self.final_samples is not None:
            raise ValueError(
                "final_samples are of the test split's problems, and final_prompts is 0: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _all_is_all(self) -> Self:
        if self.prompts == "all" and (self.final_prompts or self.final_samples):
            raise ValueError(
                "prompts = 'all' scores every held-out problem at each evaluation, so there is no other one at the "
                "ends: leave out final_prompts and final_samples"
            )
        return self

    def at_the_ends(self) -> EvaluationSettings:
        """The settings of the first and the last evaluation on the test split; 0 prompts: there is none."""
        prompts = self.final_prompts
        if self.prompts == "all":
            prompts = 0
        elif prompts is None:
            prompts = FINAL_PROMPTS * self.prompts
        return self.model_copy(update={"prompts": prompts, "samples": self.final_samples or self.samples})


class SharedConfig(Settings):
    """The settings that all runs of a comparison share."""

    task: TaskConfig = Field(default_factory=lambda: TaskConfig(name="sort"))
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    train: TrainSettings = Field(default_factory=TrainSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="before")
    @classmethod
    def _by_size(cls, value: Any) -> Any:
        steps = TrainSettings.model_fields["steps"].default
        return fill(value, steps) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        if self.optimizer.critic_lr is not None and self.train.critic != "adapter":
            raise ValueError("optimizer.critic_lr is the rate of a critic adapter: set train.critic = 'adapter' too")
        if self.train.budget is not None and self.optimizer.schedule != "constant":
            raise ValueError(
                f"optimizer.schedule = {self.optimizer.schedule!r} falls until train.steps, and train.budget ends the "
                "run before that: with a budget the schedule must be constant"
            )
        if self.engine.sampler == "vllm" and self.train.old_logp == "sampler":
            raise ValueError("old_logp = 'sampler': vLLM's log-probs are not the trainer's; leave it out to recompute")
        train, held_out = self.train, self.evaluation
        sampled = train.prompts_per_step * train.group_size
        check_memory(
            ROW_BYTES * sampled * train.max_new_tokens,
            f"a step's {sampled:,} responses of up to {train.max_new_tokens:,} tokens",
            "lower train.prompts_per_step, train.group_size or train.max_new_tokens",
        )
        known = 1 if held_out.prompts == "all" else held_out.prompts
        asked = known * max(held_out.samples, held_out.final_samples or 1)
        check_memory(
            ROW_BYTES * asked,
            f"an evaluation's {asked:,} responses",
            "lower evaluation.prompts, evaluation.samples or evaluation.final_samples",
        )
        warmup, steps = self.optimizer.warmup_steps, self.train.steps
        if warmup and warmup >= steps:
            raise ValueError(
                f"optimizer.warmup_steps {warmup} never ends in {steps} steps, and the schedule after it never begins: "
                "make it smaller than train.steps"
            )
        return self


def parse_objective(value: object) -> object:
    """Read an objective from a name: `"gspo"`, `"gspo[ratio=token]"`. Tables and values go on to validation."""
    return get(value) if isinstance(value, str) else value


OWN = {"critic": "value", "value_warmup_steps": "value", "teacher": "teacher_logp"}
"""Setting of `train` -> the need that an objective must have for it to apply."""


def named_for_a_folder(objective: Objective) -> Objective:
    """Refuse an objective whose name cannot be its folder's."""
    folder_name(objective.name)
    return objective


AnyObjective = Annotated[Objective, BeforeValidator(parse_objective), AfterValidator(named_for_a_folder)]


class RunConfig(SharedConfig):
    """One run."""

    objective: AnyObjective
    seed: int = Field(default=0, ge=0)
    control: Control | None = None
    """Negative control of the run: the same objective on other seeds, coin flips as rewards, or updates that are not
    applied. A comparison should find no effect of such a run."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needs, train = self.objective.needs, self.train
        if self.control == "random_reward" and "demonstration" in needs:
            raise ValueError(
                f"{self.objective.name} learns from demonstrations: the control random_reward does nothing"
            )
        if "group" in needs and train.group_size < 2:
            raise ValueError(
                f"{self.objective.name} compares the responses to one prompt with each other: "
                f"train.group_size must be 2 or more, got {train.group_size}"
            )
        self.objective.check(self._settings)
        if self.engine.name == "tinker":
            refuse(self.objective, self.backbone, self.optimizer, train.temperature)
        if "demonstration" in needs and train.old_logp == "recompute":
            raise ValueError(
                f"train.old_logp = 'recompute', but {self.objective.name} learns from demonstrations, which no policy "
                "here has sampled: leave it out"
            )
        if "sampler_logp" in needs and train.old_logp == "sampler":
            raise ValueError(
                f"{self.objective.name} weighs the sampler's log-probs against the trainer's own, but train.old_logp = "
                "'sampler' takes the one for the other and every weight is 1: set train.old_logp = 'recompute'"
            )
        if self.objective.group_size not in (None, train.group_size):
            raise ValueError(
                f"{self.objective.name} is meant for {self.objective.group_size} responses per prompt, and "
                f"train.group_size is {train.group_size}: set it to that (and train.prompts_per_step higher, for as "
                "many responses per step)"
            )
        if "value" not in needs:
            for setting in ("critic", "value_warmup_steps"):
                value = getattr(train, setting)
                if value != TrainSettings.model_fields[setting].default:
                    raise ValueError(
                        f"train.{setting} = {value!r}, but {self.objective.name} has no critic: leave it out"
                    )
        if train.value_warmup_steps >= train.steps:
            raise ValueError(
                f"train.value_warmup_steps {train.value_warmup_steps} leaves the policy none of {train.steps} steps: "
                "make it smaller than train.steps"
            )
        if "teacher_logp" in needs and train.teacher is None:
            raise ValueError(
                f"{self.objective.name} learns from a teacher: set train.teacher to the folder of an adapter, or "
                "train.teacher.model to another model with the same tokens"
            )
        if train.teacher is not None and "teacher_logp" not in needs:
            raise ValueError(f"train.teacher is set, but {self.objective.name} learns from no teacher: leave it out")
        return self

    @property
    def _settings(self) -> RunSettings:
        return RunSettings(self.train.max_new_tokens, self.train.group_size, self.train.updates_per_rollout)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the objective's constants that do not fit this run's settings."""
        return self.objective.check(self._settings)

    @property
    def name(self) -> str:
        """Name of the run: row/seed."""
        return f"{self.row}/seed{self.seed}"

    @property
    def row(self) -> str:
        """Name of the run's row: the objective, and its control if there is one."""
        return self.objective.name if self.control is None else f"{self.objective.name}+{self.control}"

    @property
    def noise_seed(self) -> int:
        """Seed of prompts, noise and first adapter: the run's seed, shifted for the control `same`."""
        return self.seed + OTHER_SEEDS if self.control == "same" else self.seed

    def stored(self) -> dict[str, Any]:
        """The resolved configuration as stored in config.json, without `engine`, which changes no result."""
        return self.model_dump(mode="json", exclude={"engine"})
