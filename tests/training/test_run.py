"""What a run leaves behind: records, times, samples, adapters."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import UPDATE_KEYS, TokenBatch, get
from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import RunConfig
from rlzoo.engine.local import Fleet
from rlzoo.engine.optimizer import Learner
from rlzoo.engine.protocol import Engine, Scored, ScoreRequest, Updated, UpdateRequest
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder, read_lines
from rlzoo.tasks import Problem
from rlzoo.training.loop import over_updates, train, train_fleet
from tests.models import random_adapter
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]


def test_the_first_response_to_the_first_prompts_is_kept(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config(train={"samples": 3, "steps": 1}, evaluation={"samples": 2, "prompts": 2})
    train(config, tmp_path, backbone=backbone)
    kept = read_lines(tmp_path / "samples.jsonl")
    assert [(s["kind"], s["step"]) for s in kept] == [("eval", 0)] * 2 + [("train", 1)] * 3 + [("eval", 1)] * 2
    assert [s["prompt"] for s in kept[:2]] == ["t0=", "t1="] == [s["prompt"] for s in kept[-2:]]
    assert len({s["prompt"] for s in kept[2:5]}) == 3  # one per prompt, not three responses to one
    for sample in kept:
        even = float(sample["completion"][:1] != "" and ord(sample["completion"][0]) % 2 == 0)
        assert sample["reward"] == sample["accuracy"] == even
        assert 1 <= sample["length"] <= 6 and (sample["finished"] or sample["length"] == 6)


def test_before_and_after_are_the_first_and_the_last_evaluation(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    summary = train(make_config(train={"steps": 4}), tmp_path, backbone=backbone)
    evaluations = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "eval"]
    assert [r["step"] for r in evaluations] == [0, 2, 4]
    for name, record in (("before", evaluations[0]), ("after", evaluations[-1])):
        assert summary[name]["step"] == record["step"]
        assert all(record[key] == value for key, value in summary[name].items())


def test_the_folder_names_the_model_and_the_path_that_computed(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    for setting, path in (("off", "padded"), ("auto", "packed, cpu")):
        config = make_config(train={"steps": 1}, engine={"fast_path": setting})
        train(config, tmp_path / setting, backbone=backbone)
        environment = RunFolder.open(tmp_path / setting).read_json("environment.json")
        assert environment["backbone"]["path"] == path and environment["backbone"] == backbone.describe()
    samples = [read_lines(tmp_path / setting / "samples.jsonl") for setting in ("off", "auto")]
    assert samples[0] == samples[1]


def test_policy_and_critic_are_saved_each_as_itself(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config("ppo", train={"critic": "adapter"}), tmp_path, backbone=backbone)
    state = RunFolder.open(tmp_path).load_state()
    assert state is not None
    for folder, theta in zip(("adapter", "critic"), state["learner"]["parameters"], strict=True):
        assert torch.equal(backbone.load_adapter(tmp_path / folder).cpu(), theta)
    assert not torch.equal(*state["learner"]["parameters"])
    train(make_config("ppo"), tmp_path / "head", backbone=backbone)
    assert not (tmp_path / "head/critic").exists()


def test_times_go_on_where_an_interrupted_run_stood(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise Killed

    config = make_config()
    with pytest.raises(Killed):
        train(config, tmp_path, backbone=backbone, on_record=kill)
    folder = RunFolder.open(tmp_path)
    state = folder.load_state()
    assert state is not None and state["step"] == 1
    state |= {"seconds": 1000.0, "elapsed": 2000.0}  # as if it had been slow
    folder.save_state(state)
    train(config, tmp_path, backbone=backbone, resume=True)
    times = [(r["engine_s"], r["elapsed_s"]) for r in folder.read_metrics()]
    assert all(engine < 1000 and elapsed < 2000 for engine, elapsed in times[:2])
    assert all(1000 < engine < 1100 and 2000 < elapsed < 2100 for engine, elapsed in times[2:])


def test_every_epoch_updates_on_every_token_again(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    summary = train(make_config("gspo", train={"epochs": 3, "steps": 2}), tmp_path, backbone=backbone)
    assert summary["updates"] == 2 * 3 * 2  # steps, epochs, minibatches
    assert summary["tokens_trained"] == 3 * summary["tokens_sampled"]


def test_the_rate_is_that_of_the_step(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    optimizer = {"lr": 8e-3, "warmup_steps": 2, "schedule": "linear"}
    train(make_config(train={"steps": 4}, optimizer=optimizer), tmp_path, backbone=backbone)
    records = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "train"]
    assert [r["learning_rate"] for r in records] == pytest.approx([4e-3, 8e-3, 8e-3, 4e-3])


def test_scores_together_are_scores_alone(backbone: Backbone) -> None:
    """Values are given to whom asks for them, whoever else is in the batch; the reference's rows of several requests,
    of other widths and temperatures, may share a pass."""
    thetas = [random_adapter(backbone, seed) for seed in (1, 2)]
    mask_NT = torch.arange(4) < torch.tensor([[4], [2], [3]])
    token_NT = torch.arange(20, 32).view(3, 4) * mask_NT
    tokens = Tokens([[5, 6], [7], [8, 9, 10]], torch.arange(3), token_NT, mask_NT, mask_NT)
    requests = [
        ScoreRequest(thetas[0], tokens, 0.7),
        ScoreRequest(None, tokens, 1.0),
        ScoreRequest(thetas[1], tokens, 1.3, value=True),
        ScoreRequest(None, tokens.rows(torch.tensor([2, 1])), 0.5),
        ScoreRequest(None, tokens.rows(torch.tensor([], dtype=torch.int64)), 1.0),
    ]

    def job(request: ScoreRequest) -> Callable[[Engine], Any]:
        async def score(engine: Engine) -> Scored:
            return await engine.score(request)

        return score

    for budget in (1, 12, 10**4):
        fleet = Fleet(backbone, EngineSettings(micro_batch_tokens=budget))
        together = fleet.run({str(i): job(request) for i, request in enumerate(requests)})
        for i, request in enumerate(requests):
            alone = fleet.run({"": job(request)})[""]
            torch.testing.assert_close(together[str(i)].logp_NT, alone.logp_NT)
            assert (alone.value_NT is None) == (not request.value) == (together[str(i)].value_NT is None)
            if request.value:
                torch.testing.assert_close(together[str(i)].value_NT, alone.value_NT)
        assert together["2"].value_NT.abs().max() > 0


def test_values_and_their_gradients_are_the_critic_adapters(make_config: MakeConfig, backbone: Backbone) -> None:
    """In company of a run whose value head is on its policy."""
    own = Learner(backbone, make_config("ppo", train={"critic": "adapter"}))
    head = Learner(backbone, make_config("ppo", seed=1))
    with torch.no_grad():
        for seed, theta in enumerate([*own.parameters, *head.parameters]):
            theta.copy_(random_adapter(backbone, seed))
    mask_NT = torch.arange(3) < torch.tensor([[3], [2]])
    tokens = Tokens([[5, 6], [7]], torch.arange(2), torch.arange(20, 26).view(2, 3) * mask_NT, mask_NT, mask_NT)
    ones, zeros = mask_NT.float(), torch.zeros(2, 3)
    batch = TokenBatch(mask_NT, ones / 5, ones, zeros - ones, zeros - ones, zeros, ones)
    objective = get("ppo[value=plain]")

    def job(learner: Learner) -> Callable[[Engine], Any]:
        async def update(engine: Engine) -> tuple[Scored, Scored, Updated]:
            policy = await engine.score(ScoreRequest(learner.theta, tokens, 1.0))
            critic = await engine.score(ScoreRequest(learner.critic, tokens, 1.0, value=True))
            return policy, critic, await engine.update(UpdateRequest(learner, objective, tokens, batch, 1.0))

        return update

    before = [theta.detach().clone() for theta in (own.theta, own.critic, head.theta)]
    outcomes = Fleet(backbone).run({"own": job(own), "head": job(head)})
    for policy, critic, updated in outcomes.values():
        torch.testing.assert_close(updated.policy.logp_BT, policy.logp_NT)
        torch.testing.assert_close(updated.policy.value_BT, critic.value_NT)
    value_head = backbone.hidden_size + 1  # the end of theta
    moved = [now.detach() - then for now, then in zip((own.theta, own.critic, head.theta), before, strict=True)]
    assert not moved[0][-value_head:].any() and moved[0][:-value_head].any()
    for critic_moved in moved[1:]:
        assert critic_moved[-value_head:].all() and critic_moved[:-value_head].any()


def test_an_adaptive_coefficient_is_carried_from_step_to_step(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """The policy starts as the reference: KL 0 is far below any target, so the first change is to 98%."""
    config = make_config("ppo[shape.coef=0.1,shape.target=1e3]", train={"steps": 4})
    train(config, tmp_path, backbone=backbone)
    used = [r["kl_state"] for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "train"]
    assert used == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98**2, 0.1 * 0.98**3])


def test_engine_time_is_shared_by_tokens(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 8 seconds: 1 row beside 3 rows of the same size pays 2 of them."""
    clock = iter([0.0, 8.0])
    monkeypatch.setattr("rlzoo.engine.local.time.perf_counter", lambda: next(clock))
    engines: list[Engine] = []

    def job(rows: int) -> Callable[[Engine], Any]:
        async def score(engine: Engine) -> None:
            engines.append(engine)
            mask_NT = torch.ones(rows, 2, dtype=torch.bool)
            tokens = Tokens([[1, 2]] * rows, torch.arange(rows), mask_NT.long(), mask_NT, mask_NT)
            scored = await engine.score(ScoreRequest(None, tokens, 1.0))
            assert scored.logp_NT.shape == (rows, 2) and scored.value_NT is None

        return score

    Fleet(backbone, EngineSettings()).run({"small": job(1), "large": job(3)})
    assert [engine.seconds for engine in engines] == [2.0, 6.0]


def test_metrics_of_a_step_are_means_over_its_updates_and_the_extremes_of_the_ratio() -> None:
    updates = [dict.fromkeys(UPDATE_KEYS, value) for value in (1.0, 4.0)]
    merged = over_updates(updates)
    assert (merged["ratio_min"], merged["ratio_max"]) == (1.0, 4.0)
    assert {merged[key] for key in UPDATE_KEYS if key not in ("ratio_min", "ratio_max")} == {2.5}
    assert all(math.isnan(value) for value in over_updates([]).values())


def test_a_prompt_too_long_for_any_run_is_found_before_anything_is_recorded(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Rows(EvenTask):
        kind, at_hand = "rows", True

        def size(self, split: str) -> int:
            return 900

        def problem(self, split: str, index: int) -> Problem:
            return Problem("7" * (55 if (split, index) == ("train", 800) else 5), "")

    long, short = make_config("grpo", train={"max_new_tokens": 10}), make_config("gspo")
    runs = {"short": (short, tmp_path / "short"), "long": (long, tmp_path / "long")}
    with pytest.raises(UserError, match="train row 800: a prompt of 55 tokens with max_new_tokens 10"):
        train_fleet(runs, backbone=backbone, task=Rows("rows"))
    assert not any(RunFolder.open(folder).began for _, folder in runs.values())
