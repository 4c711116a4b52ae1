"""Learning from a teacher: an adapter on the same base, or another model with the same tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig, TeacherConfig
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.engine.sampler import sample
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from rlzoo.tasks import load_task
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.rollout import draw
from rlzoo.training.teacher import refuse_other_tokens
from tests.models import random_adapter, write_model
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def adapter(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "adapter"
    backbone.save_adapter(random_adapter(backbone, 7, size=0.1), folder)
    return str(folder)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(Qwen2ForCausalLM, Qwen2Config, tmp_path_factory.mktemp("other")))


def first_step(folder: Path) -> dict[str, Any]:
    return next(record for record in untimed(folder) if record["kind"] == "train")


def kl_by_hand(config: RunConfig, backbone: Backbone, teacher: Backbone, theta: torch.Tensor | None) -> float:
    """Mean of log pi - log teacher over the tokens of the first rollout, which the base samples."""
    task, train = load_task(config.task), config.train
    prompts = [backbone.encode(problem.prompt) for problem in draw(task, config.seed, 0, 0, train.prompts_per_step)]
    request = SampleRequest(
        BASE, prompts, train.group_size, train.max_new_tokens, config.seed, 0, range(len(prompts)), train.temperature
    )
    (samples,) = sample(backbone, [request])
    group = torch.arange(len(prompts)).repeat_interleave(train.group_size)
    stack = None if theta is None else teacher.stack([theta])
    slots = None if theta is None else torch.zeros(len(group), dtype=torch.long)
    with torch.no_grad():
        out = policy_forward(
            teacher, stack, slots, prompts, group, samples.response_NT, samples.mask_NT, temperature=train.temperature
        )
    return float((samples.logp_NT - out.logp_BT)[samples.mask_NT].mean())


def test_the_opinion_of_an_adapter(make_config: MakeConfig, backbone: Backbone, adapter: str, tmp_path: Path) -> None:
    config = make_config("distill", train={"teacher": adapter, "steps": 1, "minibatches": 1, "temperature": 0.8})
    train(config, tmp_path, backbone=backbone)
    record, by_hand = first_step(tmp_path), kl_by_hand(config, backbone, backbone, random_adapter(backbone, 7, 0.1))
    assert record["kl_teacher"] == pytest.approx(by_hand, abs=1e-5) and abs(by_hand) > 0.05
    # At ratio 1 with one weight per token the loss is minus the mean advantage, which is the KL.
    assert record["loss"] == pytest.approx(by_hand, abs=1e-5)
    assert record["tokens_sampled"] == record["tokens_trained"]


def test_the_opinion_of_another_model(
    make_config: MakeConfig, backbone: Backbone, other_model: str, tmp_path: Path
) -> None:
    config = make_config("distill", train={"teacher": {"model": other_model, "precision": "fp32"}, "steps": 1})
    train(config, tmp_path, backbone=backbone)
    teacher = Backbone.load(BackboneConfig(model=other_model, precision="fp32", device="cpu"))
    by_hand = kl_by_hand(config, backbone, teacher, None)
    assert first_step(tmp_path)["kl_teacher"] == pytest.approx(by_hand, abs=1e-5) and by_hand > 0.05


def test_the_student_comes_to_agree(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """The teacher was shown right answers; the student sees none, only what the teacher thinks of its own."""
    shown = {"train": {"steps": 15, "prompts_per_step": 8}, "optimizer": {"lr": 5e-3}, "evaluation": {"every": 15}}
    train(make_config("sft", **shown), tmp_path / "teacher", backbone=backbone)
    taught = {"train": {"steps": 20, "prompts_per_step": 8, "teacher": str(tmp_path / "teacher" / "adapter")}}
    config = make_config("distill", **taught, optimizer={"lr": 5e-3}, evaluation={"every": 20})
    summary = train(config, tmp_path / "student", backbone=backbone)
    kl = [record["kl_teacher"] for record in untimed(tmp_path / "student") if record["kind"] == "train"]
    assert kl[-1] < 0.3 * kl[0]
    assert summary["before"]["accuracy"] < 0.9 < summary["after"]["accuracy"]


def test_beside_others_and_resumed_it_is_the_same_run(
    make_config: MakeConfig, backbone: Backbone, adapter: str, other_model: str, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", 2):
            raise Killed

    configs = {
        "adapter": make_config("distill", train={"teacher": adapter}),
        "model": make_config("distill", train={"teacher": {"model": other_model}}),
        "none": make_config("grpo"),
    }
    train_fleet({name: (config, tmp_path / "fleet" / name) for name, config in configs.items()}, backbone=backbone)
    for name in ("adapter", "model"):
        train(configs[name], tmp_path / "alone" / name, backbone=backbone)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "fleet" / name, backbone)
    with pytest.raises(Killed):
        train(configs["adapter"], tmp_path / "killed", backbone=backbone, on_record=kill)
    train(configs["adapter"], tmp_path / "killed", backbone=backbone, resume=True)
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "alone" / "adapter")
    assert "kl_teacher" not in first_step(tmp_path / "fleet" / "none")


@pytest.mark.parametrize(
    ("objective", "teacher", "message"),
    [
        ("distill", None, r"distill learns from a teacher: set train\.teacher to the folder of an adapter"),
        ("grpo", "runs/x/adapter", r"train\.teacher is set, but grpo learns from no teacher: leave it out"),
        ("distill", {}, "name the teacher's adapter or its model, one of the two"),
        ("distill", {"model": "shipped", "adapter": "a"}, "one of the two"),
        ("distill", {"adapter": "a", "precision": "fp32"}, "precision does nothing, leave it out"),
    ],
)
def test_a_teacher_is_named_where_one_is_needed_and_only_there(
    make_config: MakeConfig, objective: str, teacher: Any, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(objective, train={"teacher": teacher})


def test_in_a_comparison_the_teacher_goes_to_those_who_learn_from_one(adapter: str) -> None:
    def comparison(*objectives: str) -> CompareConfig:
        return CompareConfig.model_validate({"objectives": objectives, "train": {"teacher": adapter}, "seeds": 1})

    teachers = {run.objective.name: run.train.teacher for run in comparison("grpo", "distill").runs()}
    assert teachers == {"grpo": None, "distill": TeacherConfig(adapter=adapter)}
    assert comparison("grpo", "distill").shared() == CompareConfig.model_validate({"objectives": ["grpo"]}).shared()
    with pytest.raises(ValidationError, match=r"train\.teacher is set, but none of \['grpo'\] learns from a teacher"):
        comparison("grpo")
    everything = CompareConfig.model_validate({"objectives": "all"})
    assert not {"distill", "sft"} & {objective.name for objective in everything.objectives}


def test_a_teacher_that_is_not_there_is_an_error(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no adapter in"):
        train(make_config("distill", train={"teacher": nowhere}), tmp_path / "a", backbone=backbone)
    with pytest.raises(UserError, match="is not a folder"):
        train(make_config("distill", train={"teacher": {"model": nowhere}}), tmp_path / "b", backbone=backbone)


def test_a_teacher_of_other_tokens_is_refused() -> None:
    def reader(name: str, **vocabulary: int) -> Any:
        tokenizer = SimpleNamespace(get_vocab=lambda: vocabulary)
        return SimpleNamespace(tokenizer=tokenizer, config=SimpleNamespace(model=name))

    refuse_other_tokens(reader("big", a=0, b=1), reader("small", a=0, b=1))
    for other in ({"a": 1, "b": 0}, {"a": 0, "c": 1}, {"a": 0}):
        with pytest.raises(UserError, match="the teacher 'big' reads other tokens than 'small'"):
            refuse_other_tokens(reader("big", **other), reader("small", a=0, b=1))


def test_the_stored_configuration_names_the_teacher(make_config: MakeConfig, adapter: str) -> None:
    config = make_config("distill", train={"teacher": adapter})
    assert RunConfig.model_validate(json.loads(json.dumps(config.stored()))) == config
