"""Settings of a run and of a comparison. Closed: a misspelt key is an error, and so is a setting that would do nothing.

A run is (objective, seed) plus what all runs of a comparison share. A step is one rollout: `prompts_per_step` prompts
with `group_size` responses each, trained on in `epochs` passes of `minibatches` optimizer updates.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from objectives import Objective, get, names
from rlzoo.backbone import BackboneConfig
from rlzoo.budget import Budget
from rlzoo.tasks import TaskConfig
from rlzoo.verdicts import MARGIN

Control = Literal["same", "random_reward", "frozen"]

OTHER_SEEDS = 1_000_000
"""What the control `same` adds to a seed, so that its prompts, noise and first adapter are those of no other run."""


TUNE_SEEDS = 2_000_000
"""The first seed of a search for settings; the comparison's own seeds are below `OTHER_SEEDS`."""

TUNABLE = ("lr", "eps", "weight_decay", "max_grad_norm")
"""Settings of the optimizer that may differ between objectives; all others make the task or the budget another one."""


class Settings(BaseModel):
    """Base of all settings: frozen and closed. Numbers are finite, so that the stored configuration is valid JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TeacherConfig(Settings):
    """Whom to learn from: an adapter on the run's own base, or another model. A string is an adapter's folder."""

    adapter: str | None = None
    """Folder of an adapter on the same base, such as runs/sort/grpo/seed0/adapter."""
    model: str | None = None
    """Another model that reads the same tokens: "shipped", a local folder, or a name on the Hub."""
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
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampler, and of the trainer's log-probs alike."""
    critic: Literal["head", "adapter"] | None = None
    """Where values come from, for objectives that need them: a head on the policy (None means that too), or an adapter
    and head of the critic's own, on the same base."""
    value_warmup_steps: int = Field(default=0, ge=0)
    """Steps, from the first, that train the critic alone while the policy samples and stays as it is (VAPO, 2504.05118,
    pretrains its critic for 50)."""
    teacher: TeacherConfig | None = None
    """For objectives that learn from a teacher: the folder of an adapter, or {model = ...}."""
    old_logp: Literal["auto", "sampler", "recompute"] = "auto"
    """Log-probs that ratios and the KL in the reward start from: those the sampler took on the way, or a forward pass
    of the trainer's own. In bfloat16 the two differ by more than some clips are wide (`sampler_gap` shows it), so auto
    recomputes there, and for an objective that weighs one against the other; in float32 it takes the sampler's."""
    save_every: int = Field(default=10, ge=1)
    """Steps between checkpoints."""
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


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW of each run, in float32."""

    lr: float = Field(default=2e-3, gt=0)
    critic_lr: float | None = Field(default=None, gt=0)
    """Of a critic adapter; None: the same."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Clip of the gradient's 2-norm over all trained parameters of the run; a large number never clips."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the rate does after warm-up; linear and cosine would reach 0 one step after the last."""


class EvaluationSettings(Settings):
    """Held-out evaluation: the same prompts and the same noise every time, for every run."""

    every: int = Field(default=10, ge=1)
    """Steps between evaluations; before the first and after the last step there always is one."""
    prompts: int = Field(default=128, ge=1)
    """The first so many problems of the test split, or all of a smaller one."""
    samples: int = Field(default=1, ge=1)
    """Responses per prompt, at the training temperature; accuracy is their mean (pass@1)."""
    final_samples: int | None = Field(default=None, ge=1)
    """Responses per prompt in the first and last evaluation (None: samples). 8 give pass@8 before and after, which
    tells new problems solved from the same ones solved more often."""
    greedy: bool = False
    """One most likely response per prompt instead of samples."""

    @model_validator(mode="after")
    def _greedy_is_one(self) -> Self:
        if self.greedy and max(self.samples, self.final_samples or 1) > 1:
            raise ValueError("greedy evaluation gives one response per prompt: leave samples and final_samples at 1")
        return self

    def at_the_ends(self) -> EvaluationSettings:
        """The settings of the first and the last evaluation."""
        return self if self.final_samples is None else self.model_copy(update={"samples": self.final_samples})


class EngineSettings(Settings):
    """How work is batched. Changes speed and memory, never results."""

    micro_batch_tokens: int = Field(default=4096, ge=1)
    """Tokens in passes under way, of all runs and processes together; a prompt counts once per group."""
    processes: int | None = Field(default=None, ge=1)
    """Processes that the runs of a fleet are divided among, no more than there are runs; None: on a CPU one per core,
    but no more than leave each a pass worth its calls. Needs Linux and no GPU in sight; else there is one, and more
    cannot be asked for."""
    sample_rows: int = Field(default=768, ge=1)
    """Responses that are decoded at once, by all processes together."""


class SharedConfig(Settings):
    """What all runs of a comparison have in common."""

    task: TaskConfig = Field(default_factory=lambda: TaskConfig(name="sort"))
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    train: TrainSettings = Field(default_factory=TrainSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        if self.optimizer.critic_lr is not None and self.train.critic != "adapter":
            raise ValueError("optimizer.critic_lr is the rate of a critic adapter: set train.critic = 'adapter' too")
        if self.train.budget is not None and self.optimizer.schedule != "constant":
            raise ValueError(
                f"optimizer.schedule = {self.optimizer.schedule!r} falls until train.steps, and train.budget ends the "
                "run before that: with a budget the schedule must be constant"
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
"""Setting of `train` -> the need of the objectives that alone take it."""

AnyObjective = Annotated[Objective, BeforeValidator(parse_objective)]


class RunConfig(SharedConfig):
    """One run."""

    objective: AnyObjective
    seed: int = Field(default=0, ge=0)
    control: Control | None = None
    """What is wrong with the run on purpose: it is the same on other seeds, its rewards are coin flips, or its updates
    are not applied. What a comparison says of such a run says what it would say of nothing."""

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
        for part in self.objective.shape:
            part.check(train.max_new_tokens)
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
    def name(self) -> str:
        """Name of the run: row/seed."""
        return f"{self.row}/seed{self.seed}"

    @property
    def row(self) -> str:
        """Name of the row that the run belongs to: the objective, and its control if it is one."""
        return self.objective.name if self.control is None else f"{self.objective.name}+{self.control}"

    @property
    def noise_seed(self) -> int:
        """What prompts, noise and first adapter are derived from: the seed, but for the control `same`."""
        return self.seed + OTHER_SEEDS if self.control == "same" else self.seed

    def stored(self) -> dict[str, Any]:
        """The resolved configuration as it stands in config.json; `engine` changes no result and is left out."""
        return self.model_dump(mode="json", exclude={"engine"})


class TuneSettings(Settings):
    """A search that every objective of a comparison gets alike; see `rlzoo.tune`."""

    setting: str = "optimizer.lr"
    """A number of the optimizer's that is chosen for each objective; lr is short for optimizer.lr."""
    values: tuple[float, ...] = ()
    """To choose from; none: no search."""
    seeds: int = Field(default=2, ge=1)
    """Number of the search's seeds, which are not those of the comparison."""

    @field_validator("setting")
    @classmethod
    def _can_be_tuned(cls, value: str) -> str:
        field = value.removeprefix("optimizer.")
        if field not in TUNABLE:
            raise ValueError(
                f"{value!r} cannot be tuned, only {', '.join(f'optimizer.{name}' for name in TUNABLE)}: with other "
                "settings apart the objectives would not be compared on equal terms"
            )
        return f"optimizer.{field}"

    @model_validator(mode="after")
    def _is_a_search(self) -> Self:
        if len(self.values) == 1 or len(set(self.values)) < len(self.values):
            raise ValueError(f"values: name two or more to choose from, each once, got {list(self.values)}")
        if not self.values and self.seeds != TuneSettings.model_fields["seeds"].default:
            raise ValueError("seeds of a search without values: name the values too, --tune lr=3e-4,7e-4,2e-3")
        return self

    @property
    def field(self) -> str:
        """The setting's name within the optimizer's."""
        return self.setting.removeprefix("optimizer.")


class CompareConfig(SharedConfig):
    """Objectives side by side: every objective with every seed."""

    objectives: tuple[AnyObjective, ...] = ()
    """Of rlzoo list, or ablations of these; "all" for all of them that learn from a reward of the policy's own samples
    and take any group size (one that demands its own is another row at that size). At least one has to be named."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds; a single number n means 0 .. n-1."""
    controls: tuple[Control, ...] = ()
    """Rows beside, of the first objective: same (on other seeds), random_reward, frozen. They show what the comparison
    makes of no difference, of no signal and of no training."""
    tune: TuneSettings = Field(default_factory=TuneSettings)
    tuned: dict[str, float] = Field(default_factory=dict)
    """Objective -> its value of tune.setting; the search's choice, or given, which then is in the place of a search."""
    margin: float = Field(default=MARGIN, gt=0)
    """Accuracies shown to be closer than this are called equivalent. Changes what is said, not what is run."""

    @field_validator("objectives", mode="before")
    @classmethod
    def _all(cls, value: object) -> object:
        if value not in ("all", ["all"], ("all",)):
            return value
        found = [get(name) for name in names()]
        taught = {"demonstration", "teacher_logp"}
        return [one.name for one in found if one.group_size is None and not one.needs & taught]

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        return tuple(range(value)) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        listed = [objective.name for objective in self.objectives]
        if not listed:
            raise ValueError("objectives: name at least one, or all for all of rlzoo list")
        if not self.seeds:
            raise ValueError("seeds: name at least one, or give a number of them")
        if len(set(listed)) < len(listed) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"objectives and seeds must each be named once: {listed}, seeds {list(self.seeds)}")
        for setting, need in OWN.items():
            value = getattr(self.train, setting)
            idle = value != TrainSettings.model_fields[setting].default
            if idle and not any(need in objective.needs for objective in self.objectives):
                who = {"value": "has a critic", "teacher_logp": "learns from a teacher"}[need]
                said = "is set" if isinstance(value, BaseModel) else f"= {value!r}"
                raise ValueError(f"train.{setting} {said}, but none of {listed} {who}: leave it out")
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls must each be named once: {', '.join(self.controls)}")
        if "same" in self.controls and max(self.seeds) >= OTHER_SEEDS:
            raise ValueError(f"seeds from {OTHER_SEEDS} on belong to the control 'same': choose smaller ones")
        if self.tune.values and max(self.seeds) >= OTHER_SEEDS:
            raise ValueError(f"seeds from {OTHER_SEEDS} on belong to controls and searches: choose smaller ones")
        if self.tuned and set(self.tuned) != set(listed):
            raise ValueError(f"tuned: one value for each of {listed}, got {sorted(self.tuned)}")
        for value in self.tune.values:
            self._optimizer(value)
        self.runs()
        _refuse_identical(self.objectives, self.train.updates_per_rollout)
        return self

    def shared(self) -> dict[str, Any]:
        """What every run of the comparison stores alike, as JSON types: not objective, seed and what only some have."""
        return self.shared_part(self.runs()[0].stored())

    def shared_part(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Of a run's stored configuration, what all runs of this comparison have in common."""
        table = shared_part(stored)
        if self.tuned or self.tune.values:
            del table["optimizer"][self.tune.field]
        return table

    def _optimizer(self, value: float | None) -> OptimizerSettings:
        """The optimizer's settings with another value of the tuned one."""
        if value is None:
            return self.optimizer
        return OptimizerSettings.model_validate(self.optimizer.model_dump() | {self.tune.field: value})

    def runs(self) -> list[RunConfig]:
        """The runs, row by row, controls last. Settings of critic and teacher go to the
        objectives that have one."""
        rows = [(objective, None) for objective in self.objectives]
        controls = [(self.objectives[0], control) for control in self.controls]
        common = {name: getattr(self, name) for name in SharedConfig.model_fields}
        settings = {o: common | {"optimizer": self._optimizer(self.tuned.get(o.name))} for o in self.objectives}
        return [
            RunConfig(
                objective=objective,
                seed=seed,
                control=control,
                **_without(settings[objective], objective.needs),
            )
            for objective, control in [*rows, *controls]
            for seed in self.seeds
        ]


def _without(shared: dict[str, Any], needs: frozenset[str]) -> dict[str, Any]:
    """The settings for an objective with these needs: those that belong to others are at their defaults."""
    idle = {setting: TrainSettings.model_fields[setting].default for setting, need in OWN.items() if need not in needs}
    critic_lr = {} if "value" in needs else {"critic_lr": None}
    return shared | {
        "train": shared["train"].model_copy(update=idle),
        "optimizer": shared["optimizer"].model_copy(update=critic_lr),
    }


def shared_part(stored: dict[str, Any]) -> dict[str, Any]:
    """Of a run's stored configuration, what all runs of its comparison have in common."""
    table = {key: value for key, value in stored.items() if key in SharedConfig.model_fields}
    for section, own in (("train", OWN.keys()), ("optimizer", {"critic_lr"})):
        table[section] = {key: value for key, value in table[section].items() if key not in own}
    return table


def _refuse_identical(objectives: tuple[Objective, ...], updates_per_rollout: int) -> None:
    """Refuse rows that differ in name only or, at one update per rollout, only in what acts on ratios other than 1."""
    same: dict[Objective, str] = {}
    same_at_one: dict[Objective, str] = {}
    for named in objectives:
        # Every run has the group size that it asks for, so asking makes no difference any more.
        objective = named if named.group_size is None else named.but(**{"name": named.name, "advantage.size": None})
        twin = same.setdefault(objective.but(name="unnamed"), objective.name)
        if twin != objective.name:
            raise ValueError(f"{twin} and {objective.name} are one algorithm under two names: leave one out")
        twin = same_at_one.setdefault(objective.at_ratio_one(), objective.name)
        if updates_per_rollout == 1 and twin != objective.name:
            raise ValueError(
                f"{twin} and {objective.name} are one algorithm under this schedule: with one update per rollout every "
                "ratio is 1, and ratio, clip and value clip do nothing. Set train.minibatches or train.epochs above 1"
            )
