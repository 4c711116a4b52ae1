"""The conformance suite of engines, by the protocol alone.

Another engine joins with a line in `ENGINES`: a function that runs a job `async def job(engine) -> result` on it.
Results leave the engine's process as bytes, so a job may run anywhere.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives import TokenBatch, get
from rlzoo.config.engine import EngineSettings
from rlzoo.engine import open_engine
from rlzoo.engine.driver import run_jobs
from rlzoo.engine.forked import divide_work
from rlzoo.engine.protocol import (
    BASE,
    AdamSettings,
    Engine,
    EngineInfo,
    LearnRequest,
    NotFinite,
    PolicyRef,
    RunSpec,
    SampleRequest,
    Samples,
    Scored,
    ScoreRequest,
    StalePolicy,
    StepSettings,
)
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from tests.engine import skyrl
from tests.engine.on_ray import end_cluster, on_ray

Job = Callable[[Engine], Coroutine[Any, Any, Any]]
STEP = StepSettings(lr=1e-2)
SMOOTH = AdamSettings(eps=1e-3)
"""At the usual eps an element whose gradient is rounding alone would go where rounding says."""
ALL = frozenset({"logp", "value", "entropy", "collision"})


def on_local(model: Backbone, job: Job) -> bytes:
    """In this process."""
    return run_jobs(lambda: open_engine(model, EngineSettings()), {"": lambda engine: _pickled(job(engine))})[""]


def on_forked(model: Backbone, job: Job) -> bytes:
    """In a process that was forked from this one."""

    def work(names: Sequence[str], *_: object) -> dict[str, Any]:
        return {name: on_local(model, job) if name == "there" else None for name in names}

    return divide_work(["here", "there"], 2, work, None)["there"]


async def _pickled(job: Coroutine[Any, Any, Any]) -> bytes:
    return pickle.dumps(await job)


can_fork = sys.platform == "linux" and not torch.accelerator.is_available()
ENGINES = {
    "local": on_local,
    "forked": pytest.param(on_forked, marks=pytest.mark.skipif(not can_fork, reason="forks on Linux without a GPU")),
    "tinker": pytest.param(skyrl.on_server, marks=skyrl.MARKS),
    "ray": pytest.param(on_ray, marks=pytest.mark.ray),
}


@pytest.fixture(scope="module", autouse=True)
def _no_cluster_is_left() -> Iterator[None]:
    yield
    end_cluster()


@pytest.fixture(params=ENGINES.values(), ids=ENGINES.keys())
def on_engine(request: pytest.FixtureRequest, backbone: Backbone) -> Callable[[Job], Any]:
    return lambda job: pickle.loads(request.param(backbone, job))


def ask(policy: PolicyRef = BASE, **changes: Any) -> SampleRequest:
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    return replace(SampleRequest(policy, prompts, 4, 6, seed=3, step=2, prompt_keys=[0, 1, 2]), **changes)


def tokens_of(samples: Samples) -> Tokens:
    rows = len(samples.response_NT)
    group_N = torch.arange(3).repeat_interleave(rows // 3)
    return Tokens(list(ask().prompts), group_N, samples.response_NT, samples.mask_NT, samples.mask_NT)


def some_tokens() -> Tokens:
    """Six rows of two prompts, of 2 to 5 tokens."""
    exists_NT = torch.arange(5) < torch.tensor([5, 3, 4, 2, 5, 4])[:, None]
    token_NT = (torch.arange(30).view(6, 5) * 7 % 50 + 5) * exists_NT
    return Tokens([[5, 6, 7], [8, 9]], torch.tensor([0, 0, 0, 1, 1, 1]), token_NT, exists_NT, exists_NT)


def learn(run: str, rows: Sequence[int] = range(6), weight: float = 1.0) -> LearnRequest:
    """REINFORCE on some of the rows; the weights are those of all six."""
    tokens = some_tokens()
    index, mask_NT = torch.tensor(list(rows)), tokens.learn_NT
    advantage_NT = torch.tensor([1.0, -0.5, 2.0, -1.0, 0.5, 1.5])[:, None] * mask_NT
    weight_NT = weight * mask_NT / mask_NT.sum()
    batch = TokenBatch(mask_NT, weight_NT, advantage_NT, torch.zeros(6, 5)).rows(index)
    objective = get("reinforce").model_dump(mode="json")
    return LearnRequest(run, tokens.rows(index, trim=False), batch, objective, 1.0)


def score(policy: PolicyRef = BASE, *want: str) -> ScoreRequest:
    return ScoreRequest(policy, some_tokens(), 1.0, frozenset(want or ("logp",)))


async def has_critics(engine: Engine) -> bool:
    """Whether an engine trains critics. One that does not has to say so."""
    if "value" in (await engine.info()).gives:
        return True
    with pytest.raises(UserError, match="trains no critic"):
        await engine.create(RunSpec("with a critic", critic="adapter"))
    return False


def close(one: Tensor | None, other: Tensor | None, tolerance: float = 1e-4) -> None:
    assert one is not None and other is not None
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_info_says_what_the_answers_are_like(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> tuple[EngineInfo, Samples, Samples, Scored]:
        return await engine.info(), *[await engine.sample(ask()) for _ in range(2)], await engine.score(score())

    info, samples, again, scored = on_engine(job)
    assert info.dtype in ("float32", "bfloat16") and info.model
    assert all(0 <= token < info.vocab_size for token in (info.pad_id, *info.end_ids)) and info.end_ids
    assert 0 <= int(samples.response_NT.min()) <= int(samples.response_NT.max()) < info.vocab_size
    assert samples.logp_NT.device.type == scored.logp_NT.device.type == info.device.partition(":")[0]
    assert samples.logp_NT.dtype == scored.logp_NT.dtype == torch.float32
    assert samples.seconds > 0 and scored.seconds > 0
    last = samples.response_NT.gather(1, samples.mask_NT.sum(1, keepdim=True) - 1)[:, 0]
    assert torch.equal(torch.isin(last, torch.tensor(info.end_ids)), samples.finished_N)
    if info.repeats:
        assert torch.equal(samples.response_NT, again.response_NT)


def test_base_is_version_0_of_every_run(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> Any:
        policies = [await engine.create(RunSpec(name, seed)) for name, seed in (("a", 0), ("b", 1))]
        assert policies == [PolicyRef("a", 0), PolicyRef("b", 0)]
        asked = [BASE, *policies]
        answers = (
            [await engine.sample(ask(policy)) for policy in asked],
            [await engine.score(score(policy)) for policy in asked],
        )
        values = await engine.score(score(policies[0], "value")) if await has_critics(engine) else None
        return answers, values, await engine.info()

    (samples, scores), values, info = on_engine(job)
    for sampled, scored in zip(samples[1:], scores[1:], strict=True):
        close(scored.logp_NT, scores[0].logp_NT)
        if info.shared_noise and info.repeats:
            assert torch.equal(sampled.response_NT, samples[0].response_NT)
    if values is not None:
        assert values.logp_NT is None and not values.value_NT.any()  # a fresh value head is zero


def test_what_an_engine_cannot_score_it_refuses(on_engine: Callable[[Job], Any]) -> None:
    """By what, and by temperature: at another one than 1 log-probs are others."""

    async def job(engine: Engine) -> Any:
        policy, info = await engine.create(RunSpec("a")), await engine.info()
        for want in ALL - info.gives:
            with pytest.raises(UserError, match=f"no {want}"):
                await engine.score(score(policy, want))
        cooler = replace(score(policy), temperature=0.8)
        if info.temperature is not None:
            for asked in (engine.score(cooler), engine.sample(ask(policy, temperature=0.8))):
                with pytest.raises(UserError, match="temperature"):
                    await asked
            return None
        return await engine.score(score(policy)), await engine.score(cooler)

    scores = on_engine(job)
    if scores is not None:
        assert (scores[0].logp_NT - scores[1].logp_NT).abs().max() > 0.1


def test_the_samplers_log_probs_are_the_scorers(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> Any:
        await engine.create(RunSpec("a", optimizer=SMOOTH))
        await engine.forward_backward(learn("a"))
        policy = (await engine.optim_step("a", STEP)).policy
        temperature = (await engine.info()).temperature or 0.7
        samples = await engine.sample(ask(policy, temperature=temperature))
        scored = await engine.score(ScoreRequest(policy, tokens_of(samples), temperature))
        return samples, scored, (await engine.info()).dtype

    samples, scored, dtype = on_engine(job)
    close(samples.logp_NT, scored.logp_NT, 1e-4 if dtype == "float32" else 0.1)


def test_requests_are_answered_together_as_alone(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> Any:
        policies, gives = [], (await engine.info()).gives
        own_critic: Any = "adapter" if await has_critics(engine) else "head"
        for name, seed in (("a", 0), ("b", 1)):
            await engine.create(RunSpec(name, seed, optimizer=SMOOTH, critic=own_critic if name == "b" else "head"))
            await engine.forward_backward(learn(name))
            policies.append((await engine.optim_step(name, STEP)).policy)
        samples = [ask(), ask(policies[0]), ask(policies[1], seed=4, greedy=True, group_size=1)]
        scores = [score(), score(policies[0], *gives), score(policies[1], *gives)]
        together = await asyncio.gather(
            *(engine.sample(one) for one in samples), *(engine.score(one) for one in scores)
        )
        alone = [*[await engine.sample(one) for one in samples], *[await engine.score(one) for one in scores]]
        return together, alone, await engine.info()

    together, alone, info = on_engine(job)
    for one, other in zip(together[:3], alone[:3], strict=True):
        if info.repeats:
            assert torch.equal(one.response_NT, other.response_NT) and torch.equal(one.finished_N, other.finished_N)
            close(one.logp_NT, other.logp_NT)
    for one, other in zip(together[3:], alone[3:], strict=True):
        close(one.logp_NT, other.logp_NT)
    for one, other in zip(together[4:], alone[4:], strict=True):
        if info.gives < ALL:
            break
        close(one.value_NT, other.value_NT)
        close(one.entropy_NT, other.entropy_NT)
        close(one.collision_NT, other.collision_NT)
        assert (one.entropy_NT[some_tokens().learn_NT] > 0).all() and not one.entropy_NT[~some_tokens().exists_NT].any()


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_gradient_of_a_sum_is_the_sum_of_gradients(critic: str, on_engine: Callable[[Job], Any]) -> None:
    """All rows at once, in three parts one after the other, and in three at the same time beside another run."""

    async def job(engine: Engine) -> Any:
        if critic == "adapter" and not await has_critics(engine):
            return None
        for name in ("whole", "parts", "together", "other"):
            await engine.create(RunSpec(name, 0, critic=critic, optimizer=SMOOTH))
        cuts = ([0, 3], [1], [2, 4, 5])
        losses = [[(await engine.forward_backward(learn("whole"))).loss]]
        losses.append([(await engine.forward_backward(learn("parts", rows))).loss for rows in cuts])
        asked = [*(learn("together", rows) for rows in cuts), learn("other", [0, 1], weight=3.0)]
        answers = await asyncio.gather(*(engine.forward_backward(one) for one in asked))
        losses.append([answer.loss for answer in answers[:3]])
        steps = [await engine.optim_step(name, STEP) for name in ("whole", "parts", "together")]
        return losses, steps, [await engine.score(score(step.policy)) for step in steps]

    answers = on_engine(job)
    if answers is None:
        return
    losses, steps, scores = answers
    assert sum(losses[1]) == pytest.approx(sum(losses[0]), rel=1e-4) == pytest.approx(sum(losses[2]), rel=1e-4)
    for step, scored in zip(steps[1:], scores[1:], strict=True):
        assert step.gradient_norm == pytest.approx(steps[0].gradient_norm, rel=1e-3)
        close(scored.logp_NT, scores[0].logp_NT)


def test_what_learning_says_of_its_rows_is_what_scoring_says(on_engine: Callable[[Job], Any]) -> None:
    """Row 2 has no advantage, so nothing is learned from it and nothing is said of it."""

    async def job(engine: Engine) -> Any:
        policy = await engine.create(RunSpec("a"))
        request = learn("a")
        silent = request.batch.advantage_BT.clone()
        silent[2] = 0
        learned = await engine.forward_backward(replace(request, batch=replace(request.batch, advantage_BT=silent)))
        return learned, await engine.score(replace(score(policy), temperature=1.0))

    learned, scored = on_engine(job)
    assert learned.rows.tolist() == [0, 1, 3, 4, 5]
    close(learned.policy.logp_BT, scored.logp_NT[learned.rows])


def test_a_step_moves_the_version_on_and_other_versions_are_refused(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> Any:
        first = await engine.create(RunSpec("a", optimizer=SMOOTH))
        await engine.forward_backward(learn("a"))
        stepped = await engine.optim_step("a", STEP)
        refused = []
        for request in (engine.sample(ask(first)), engine.score(score(PolicyRef("a", 2)))):
            with pytest.raises(StalePolicy, match="is at version 1") as caught:
                await request
            refused.append(str(caught.value))
        return stepped.policy, refused, [await engine.score(score(policy)) for policy in (BASE, stepped.policy)]

    policy, refused, (before, after) = on_engine(job)
    assert policy == PolicyRef("a", 1) and "version 0" in refused[0] and "version 2" in refused[1]
    assert (before.logp_NT - after.logp_NT).abs().max() > 1e-3


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(weight: float, on_engine: Callable[[Job], Any]) -> None:
    """Also a step later: the gradient is forgotten and the optimizer has not seen it. Beside it, a run that is fine."""

    async def job(engine: Engine) -> Any:
        for name in ("bad", "good", "twin"):
            await engine.create(RunSpec(name, optimizer=SMOOTH))
        parts = learn("bad", weight=weight), learn("good")
        await asyncio.gather(*(engine.forward_backward(part) for part in parts))
        failed, stepped = await asyncio.gather(
            engine.optim_step("bad", STEP), engine.optim_step("good", STEP), return_exceptions=True
        )
        assert isinstance(failed, NotFinite) and "gradient norm" in str(failed)
        unmoved = await engine.score(score(PolicyRef("bad", 0)))
        later = []
        for name in ("bad", "twin"):
            await engine.forward_backward(learn(name))
            later.append(await engine.score(score((await engine.optim_step(name, STEP)).policy)))
        return unmoved, await engine.score(score()), [await engine.score(score(stepped.policy)), *later]

    unmoved, base, (good, bad, twin) = on_engine(job)
    close(unmoved.logp_NT, base.logp_NT)
    close(bad.logp_NT, twin.logp_NT)
    close(good.logp_NT, twin.logp_NT)


def test_a_request_that_makes_no_sense_fails_alone(on_engine: Callable[[Job], Any]) -> None:
    async def job(engine: Engine) -> Any:
        alone = await engine.sample(ask()), await engine.score(score())
        await engine.create(RunSpec("a"))
        broken = replace(learn("a"), objective={"surrogate": "no such thing"})
        asked = [
            engine.sample(ask()),
            engine.score(score()),
            engine.sample(ask(prompts=[[], [1], [2]])),
            engine.sample(ask(PolicyRef("nobody", 1))),
            engine.score(score(BASE, "value")),
            engine.forward_backward(learn("nobody")),
            engine.forward_backward(broken),
            engine.create(RunSpec("a")),
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refusals = [type(answer) for answer in answers[2:]], [str(answer) for answer in answers[2:]]
        return alone, answers[:2], *refusals, (await engine.info()).repeats

    alone, beside, kinds, messages, repeats = on_engine(job)
    if repeats:
        close(beside[0].logp_NT, alone[0].logp_NT)
    close(beside[1].logp_NT, alone[1].logp_NT)
    assert kinds[:4] == [UserError] * 4 and kinds[-1] is UserError and issubclass(kinds[4], ValueError)
    assert "a prompt is empty" in messages[0] and "no run 'nobody'" in messages[1] and "no critic" in messages[2]


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_a_run_that_is_saved_and_loaded_goes_on_as_it_was(
    critic: str, on_engine: Callable[[Job], Any], tmp_path: Path
) -> None:
    async def job(engine: Engine) -> Any:
        gives = (await engine.info()).gives
        if critic == "adapter" and not await has_critics(engine):
            return None
        await engine.create(RunSpec("a", 1, critic=critic))
        await engine.forward_backward(learn("a"))
        saved = (await engine.optim_step("a", STEP)).policy
        (tmp_path / "saved").mkdir()
        await engine.save("a", str(tmp_path / "saved"))
        await engine.create(RunSpec("b", 2, critic=critic))
        loaded = await engine.load("b", str(tmp_path / "saved"))
        fixed = await engine.create(RunSpec("c", optimizer=None, adapter=str(tmp_path / "saved" / "adapter")))
        scores = [await engine.score(score(policy, *gives)) for policy in (saved, loaded, fixed)]
        with pytest.raises(UserError, match="'c' is a fixed policy"):
            await engine.optim_step("c", STEP)
        later = []
        for name in ("a", "b"):
            await engine.forward_backward(learn(name))
            later.append(await engine.score(score((await engine.optim_step(name, STEP)).policy, *gives)))
        await engine.release("a")
        with pytest.raises(UserError, match="no run 'a'"):
            await engine.score(score(PolicyRef("a", 2)))
        return loaded, scores, later, await engine.create(RunSpec("a")), gives

    answers = on_engine(job)
    if answers is None:
        return
    loaded, (one, other, fixed), later, again, gives = answers
    assert loaded == PolicyRef("b", 1) and again == PolicyRef("a", 0)
    for name in (f"{given}_NT" for given in gives - {"collision"}):
        close(getattr(one, name), getattr(other, name), 1e-5)
        close(getattr(later[0], name), getattr(later[1], name), 1e-5)
    close(one.logp_NT, fixed.logp_NT, 1e-5)
    assert (later[0].logp_NT - one.logp_NT).abs().max() > 1e-3


def test_a_run_is_loaded_only_where_it_fits(on_engine: Callable[[Job], Any], tmp_path: Path) -> None:
    async def job(engine: Engine) -> None:
        await engine.create(RunSpec("a"))
        with pytest.raises(UserError, match="cannot be read"):
            await engine.load("a", str(tmp_path))
        with pytest.raises(UserError, match="no adapter in"):
            await engine.create(RunSpec("b", optimizer=None, adapter=str(tmp_path)))

    on_engine(job)


def test_tokens_that_are_not_learned_from_exist(on_engine: Callable[[Job], Any]) -> None:
    """Holes in the learn mask change no log-prob of the other tokens; in the holes there is none."""
    learn_NT = some_tokens().learn_NT.clone()
    learn_NT[0, 1:3] = learn_NT[2, 0] = learn_NT[4, 3] = False

    async def job(engine: Engine) -> Any:
        holes = replace(some_tokens(), learn_NT=learn_NT)
        return await engine.score(score()), await engine.score(replace(score(), tokens=holes))

    whole, with_holes = on_engine(job)
    close(with_holes.logp_NT, whole.logp_NT * learn_NT)
    assert not with_holes.logp_NT[~learn_NT].any()


def test_runs_meet_once_all_steady_ones_wait_or_are_released(on_engine: Callable[[Job], Any]) -> None:
    """`early` waits at its save point until `late` has done its work and waits too; then a release is enough."""
    order: list[str] = []

    async def early(engine: Engine) -> None:
        await engine.meet("early")
        order.append("early goes on")
        await engine.meet("early")
        order.append("early goes on alone")

    async def late(engine: Engine) -> None:
        await engine.score(score())
        order.append("late has its scores")
        await engine.meet("late")
        await engine.release("late")

    async def job(engine: Engine) -> list[str]:
        for name in ("early", "late"):
            await engine.create(RunSpec(name, steady=True))
        await asyncio.gather(early(engine), late(engine))
        return order

    assert on_engine(job) == ["late has its scores", "early goes on", "early goes on alone"]
