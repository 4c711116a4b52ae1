"""Learning from a task's demonstrations: the same loop, with samples only for evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from objectives import get
from rlzoo.config.run import RunConfig
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from rlzoo.store.run_folder import RunFolder, read_lines
from rlzoo.tasks import Problem, load_task
from rlzoo.training.client import Client
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.rollout import Account, Rollout, demonstrated, roll_out
from tests.engine.clients import run_client
from tests.runs import EvenTask
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]


def asked(step: int = 0, seed: int = 0, length: int = 6) -> SampleRequest:
    return SampleRequest(BASE, (), 3, length, seed, step, range(4))


def test_demonstrations_are_drawn_by_counters(backbone: Backbone) -> None:
    task = EvenTask("even")
    problems = [task.problem("train", index) for index in range(4)]
    texts = {
        key: demonstrated(backbone, task, problems, asked(*key)).response_NT.tolist()
        for key in ((0, 0), (0, 0, 7), (1, 0), (0, 1))
    }
    assert texts[0, 0] == texts[0, 0, 7] and len({str(text) for text in texts.values()}) == 3
    assert len({str(row) for row in texts[0, 0]}) > 4  # not one text for all


def test_a_demonstration_ends_or_is_cut(backbone: Backbone) -> None:
    """`0xy` and the end token are four tokens."""
    task = EvenTask("even")
    problems = [task.problem("train", 0)]
    whole = demonstrated(backbone, task, problems, SampleRequest(BASE, (), 2, 4, 0, 0, [9]))
    assert whole.finished_N.all() and (whole.response_NT[:, 3] == backbone.tokenizer.eos_token_id).all()
    assert backbone.decode(whole.response_NT[0]) in {f"0{a}{b}" for a in "xyz" for b in "xyz"}
    cut = demonstrated(backbone, task, problems, SampleRequest(BASE, (), 2, 3, 0, 0, [9]))
    assert not cut.finished_N.any() and torch.equal(cut.response_NT, whole.response_NT[:, :3])
    assert cut.mask_NT.all() and not cut.logp_NT.any()


def test_nothing_is_sampled_and_nothing_paid_for(backbone: Backbone) -> None:
    def job(client: Client) -> Any:
        return roll_out(client, backbone, EvenTask("even"), get("sft").select, asked(), needs=get("sft").needs)

    result: tuple[Rollout, Rollout, Account] = run_client(backbone, job)
    rollout, _, account = result
    assert account == Account(rounds=1, prompts_sampled=4)
    assert rollout.accuracy_N.tolist() == [1] * 12 and int(rollout.mask_NT.sum()) == 12 * 4


def test_the_first_loss_is_the_likelihood_of_the_demonstrations(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """One update over the whole step: by hand, -sum log pi(demonstration) / tokens under the base."""
    config = make_config("sft", train={"steps": 1, "minibatches": 1})
    train(config, tmp_path, backbone=backbone)
    (record,) = (r for r in untimed(tmp_path) if r["kind"] == "train")
    samples = read_lines(tmp_path / "samples.jsonl")
    shown = [s for s in samples if s["kind"] == "train"]
    assert all(s["completion"][0] == "0" and s["finished"] for s in shown)
    task = EvenTask("even")
    index_of = {task.problem("train", index).prompt: index for index in range(997)}
    problems = [task.problem("train", index_of[s["prompt"]]) for s in shown]
    given = demonstrated(backbone, task, problems, SampleRequest(BASE, (), 4, 6, 0, 0, range(4)))
    prompts, group = [backbone.encode(p.prompt) for p in problems], torch.arange(16) // 4
    out = policy_forward(backbone, None, None, prompts, group, given.response_NT, given.mask_NT)
    assert record["loss"] == pytest.approx(-out.logp_BT.sum().item() / int(given.mask_NT.sum()), rel=1e-5)
    assert record["accuracy"] == 1 and record["tokens_sampled"] == 0 and record["tokens_trained"] == 16 * 4
    assert record["sampler_gap"] is record["entropy"] is record["kl_old"] is None


def test_it_learns_what_it_is_shown(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    tables = {"train": {"steps": 15, "prompts_per_step": 8}, "optimizer": {"lr": 5e-3}, "evaluation": {"every": 15}}
    summary = train(make_config("sft", **tables), tmp_path, backbone=backbone)
    assert summary["before"]["accuracy"] < 0.9 and summary["after"]["accuracy"] == 1
    losses = [record["loss"] for record in untimed(tmp_path) if record["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]


def test_beside_others_and_resumed_it_is_the_same_run(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", 2):
            raise Killed

    sft, grpo = make_config("sft"), make_config("grpo")
    train_fleet({"sft": (sft, tmp_path / "sft"), "grpo": (grpo, tmp_path / "grpo")}, backbone=backbone)
    train(sft, tmp_path / "alone", backbone=backbone)
    assert_same_run(tmp_path / "alone", tmp_path / "sft", backbone)
    with pytest.raises(Killed):
        train(sft, tmp_path / "killed", backbone=backbone, on_record=kill)
    train(sft, tmp_path / "killed", backbone=backbone, resume=True)
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "alone")


def test_a_task_without_demonstrations_is_refused_before_anything_is_made(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Mute(EvenTask):
        def demonstration(self, problem: Problem, *_: Any) -> str:  # type: ignore[override]
            return super(EvenTask, self).demonstration(problem, *_)

    runs = {"grpo": (make_config("grpo"), tmp_path / "grpo"), "sft": (make_config("sft"), tmp_path / "sft")}
    with pytest.raises(UserError, match="task 'mute' has no demonstrations to imitate"):
        train_fleet(runs, backbone=backbone, task=Mute("mute"))
    assert not any(tmp_path.iterdir())


def test_no_policy_has_sampled_them(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match="sft learns from demonstrations, which no policy here has sampled"):
        make_config("sft", train={"old_logp": "recompute"})


def test_a_column_of_ones_own_data(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [{"prompt": f"{i}?", "answer": str(i), "steps": f"x={i}"} for i in range(10)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = {"name": f"jsonl:{data}", "demonstration_column": "steps"}
    train(make_config("sft", task=table), tmp_path / "run", backbone=backbone)
    samples = read_lines(tmp_path / "run" / "samples.jsonl")
    shown = [(s["completion"], s["answer"]) for s in samples if s["kind"] == "train"]
    assert len(shown) == 12 and all(text == f"x={answer}" for text, answer in shown)
    with pytest.raises(UserError, match=r"no column 'step'; set demonstration_column to one .* did you mean 'steps'"):
        load_task(make_config("sft", task=table | {"demonstration_column": "step"}).task)
    with pytest.raises(UserError, match=r"has no demonstrations .*task\.demonstration_column"):
        train(make_config("sft", task={"name": f"jsonl:{data}"}), tmp_path / "other", backbone=backbone)
    assert RunFolder.open(tmp_path / "run").read_json("config.json")["task"]["demonstration_column"] == "steps"
