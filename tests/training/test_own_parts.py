"""User-defined parts, written outside the package as a newcomer would, trained in the real loop.

Each of the four classes after `Needs` stands for something that needed a change of the package before: MaxRL, an
adaptive entropy bonus, several rewards each normalized by itself (GDPO), a moving baseline per prompt.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from advantages import GAE, Advantage, Credit, Mixed, Need, Part, RolloutView, SoftOverlong
from advantages.needs import FIELDS
from objectives import Objective, get
from objectives import conformance as suite
from objectives.ablate import FAMILIES
from objectives.parts import (
    K3,
    Clip,
    ClipCov,
    ClippedValueLoss,
    Entropy,
    EntropyBonus,
    PositiveLikelihood,
    Token,
    TokenCorrection,
    TokenMean,
)
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train
from rlzoo.training.run import Run

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    """Families forget what a test added."""
    before = {family: dict(family.members) for family in FAMILIES.values()}
    yield
    for family, members in before.items():
        family.members.clear()
        family.members.update(members)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [record for record in RunFolder.open(folder).read_metrics() if record["kind"] == "train"]


def test_every_need_reaches_a_part_that_asks_for_it(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Three runs: a teacher and demonstrations exclude what the others need."""
    seen: dict[Need, Any] = {}

    def asking(kind: str, *needs: Need) -> Advantage:
        class Asking(GAE, kind=kind):
            @property
            def needs(self) -> frozenset[Need]:
                return frozenset(needs)

            def estimate(self, view: RolloutView) -> Credit:
                assert view.given.keys() == {FIELDS[n] for n in needs if n in FIELDS} - {"new_logp_NT"}
                seen.update({need: getattr(view, FIELDS[need]) for need in needs if FIELDS.get(need) in view.given})
                seen.update({need: view.group_N for need in needs if need not in FIELDS})
                return super().estimate(view) if Need.VALUE in needs else Credit(view.mask_NT.float())

            def initial_state(self) -> int:
                return 0

            def next_state(self, state: int, view: RolloutView) -> int:
                seen.update({Need.NEW_LOGP: view.new_logp_NT} if Need.NEW_LOGP in needs else {})
                return state + 1

        return Asking()

    once = {"steps": 1}
    most = [need for need in Need if need not in (Need.DEMONSTRATION, Need.TEACHER_LOGP)]
    every = get("ppo[shape=none]").but(name="every", advantage=asking("asks_most", *most))
    train(make_config(every, train=once), tmp_path / "every", backbone=backbone)
    taught = get("distill").but(name="taught", shape="none", advantage=asking("asks_teacher", Need.TEACHER_LOGP))
    teacher = {"adapter": str(tmp_path / "every" / "adapter")}
    train(make_config(taught, train=once | {"teacher": teacher}), tmp_path / "taught", backbone=backbone)
    shown = get("sft").but(name="shown", advantage=asking("asks_demonstration", Need.DEMONSTRATION))
    train(make_config(shown, train=once), tmp_path / "shown", backbone=backbone)

    assert seen.keys() == set(Need)
    per_token = [need for need in FIELDS if FIELDS[need].endswith("_NT")]
    assert len({seen[need].shape for need in per_token if need is not Need.TEACHER_LOGP}) == 1
    assert all(seen[need].isfinite().all() for need in per_token)
    assert not torch.equal(seen[Need.LOGP], seen[Need.NEW_LOGP])  # the updates moved the policy
    assert bool((seen[Need.ENTROPY] > 0).any()) and seen[Need.FINISHED].dtype == torch.bool
    assert len(set(seen[Need.PROMPT])) == 4 and len(seen[Need.PROMPT]) == 16


def test_an_unknown_need_fails_where_the_part_is_made() -> None:
    class Misspelt(Advantage, kind="misspelt"):
        needs: ClassVar[frozenset[str]] = frozenset({"acuracy"})  # type: ignore[assignment]

    with pytest.raises(ValueError, match="'misspelt' has an unknown need 'acuracy'; did you mean 'accuracy'"):
        Misspelt()


def test_what_a_part_did_not_declare_it_does_not_get() -> None:
    class Peeking(Advantage, kind="peeking"):
        def estimate(self, view: RolloutView) -> Credit:
            return Credit(view.mask_NT * view.accuracy_N[:, None])

    with pytest.raises(
        ValueError, match=r"advantage 'peeking' needs accuracy_N, .* declares 'accuracy' in its `needs`"
    ):
        suite.world.step(get("grpo").but(advantage=Peeking()), suite.world.world())
    assert "several_rewards" in suite.failures(get("grpo").but(advantage=Peeking()))


def test_half_a_state_is_refused_where_the_class_is_written() -> None:
    with pytest.raises(ValueError, match="entropy 'half' has a state: define both initial_state and next_state"):

        class Half(EntropyBonus, kind="half"):
            def next_state(self, state: Any, view: RolloutView) -> Any:
                return 2


def counting(base: type[Part]) -> Part:
    """A part that does what its base does, and counts rollouts."""
    body = {"initial_state": lambda self: 0, "next_state": lambda self, state, view: state + 1}
    name = f"counting_{base.kind}"
    return types.new_class(name, (base,), {"kind": name}, lambda namespace: namespace.update(body))()


def test_states_of_every_family_are_moved_recorded_stored_and_resumed(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases: tuple[type[Part], ...] = (
        *(Mixed, SoftOverlong, GAE, Token, Clip, ClipCov, TokenCorrection, TokenMean, K3, ClippedValueLoss),
        *(EntropyBonus, PositiveLikelihood),
    )
    parts = [counting(base) for base in bases]
    assert {part.family() for part in parts} == {family.family() for family in FAMILIES.values()}
    objective = Objective(name="counts", **dict(zip(FAMILIES, parts, strict=True)))  # type: ignore[arg-type]
    assert suite.failures(objective) == {}
    moved: list[dict[str, Any]] = []
    saved = Run.save
    monkeypatch.setattr(Run, "save", lambda run, *more: moved.append(run.states) or saved(run, *more))
    config = make_config(objective, train={"steps": 2, "old_logp": "recompute"})
    train(config, tmp_path, backbone=backbone)
    keys = ["shape.counting_soft_overlong" if column == "shape" else column for column in FAMILIES]
    assert moved[:2] == [dict.fromkeys(keys, 1), dict.fromkeys(keys, 2)]
    for n, step in enumerate(steps_of(tmp_path)):
        assert [step[f"{part.kind}_state"] for part in parts] == [n] * len(FAMILIES)
    run = Run.create(config, tmp_path, True, "counts", None)
    run.restore()
    assert run.states == dict.fromkeys(keys, 2) and run.objective.advantage.state == 2


class MaxRL(Advantage, kind="own_maxrl"):
    """A_i = (r_i - mean) / mean over the group, 0 where nothing is right (2602.02710)."""

    def __call__(self, reward_NT: Tensor, mask_NT: Tensor, group_N: Tensor, value_NT: Tensor | None = None) -> Credit:
        reward_N = reward_NT.sum(dim=1)
        same_NN = (group_N[:, None] == group_N) & mask_NT.any(dim=1)
        mean_N = (same_NN * reward_N).sum(dim=1) / same_NN.sum(dim=1).clamp(min=1)
        advantage_N = torch.where(mean_N > 0, (reward_N - mean_N) / mean_N.clamp(min=1e-9), 0)
        return Credit(torch.where(mask_NT, advantage_N[:, None], 0))


class AdaptiveBonus(Entropy, kind="own_adaptive"):
    """-c H; c grows by `rate` after a rollout of less than `target` nats per token, and shrinks after one of more."""

    target: float = 0.3
    rate: float = 0.005

    def initial_state(self) -> float:
        return 0.0

    def next_state(self, state: float, view: RolloutView) -> float:
        entropy = view.metrics["entropy"]
        return max(0.0, state + (self.rate if entropy < self.target else -self.rate))

    def __call__(self, entropy_BT: Tensor) -> Tensor:
        return -self.state * entropy_BT


class EachByItself(Advantage, kind="own_gdpo"):
    """Sum over the rewards of (r - mean) / std within the group, each reward by itself (GDPO, 2601.05242)."""

    def estimate(self, view: RolloutView) -> Credit:
        same_NN = ((view.group_N[:, None] == view.group_N) & view.valid_N).to(view.reward_NK.dtype)
        count_N1 = same_NN.sum(dim=1, keepdim=True).clamp(min=1)
        mean_NK = same_NN @ view.reward_NK / count_N1
        variance_NK = (same_NN @ view.reward_NK.square() / count_N1 - mean_NK.square()).clamp(min=0)
        scaled_NK = torch.where(variance_NK > 1e-9, (view.reward_NK - mean_NK) / variance_NK.sqrt().clamp(min=1e-6), 0)
        return Credit(torch.where(view.mask_NT, scaled_NK.sum(dim=1)[:, None], 0))


class MovingBaseline(Advantage, kind="own_ema"):
    """A = r - b(prompt), where b moves by `rate` towards the mean reward of each visit to the prompt."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompt"})  # type: ignore[assignment]
    rate: float = 0.5

    def initial_state(self) -> dict[str, float]:
        return {}

    def next_state(self, state: dict[str, float], view: RolloutView) -> dict[str, float]:
        rewards: dict[str, list[float]] = {}
        for prompt, reward, valid in zip(view.prompt_N, view.reward_N.tolist(), view.valid_N.tolist(), strict=True):
            rewards.setdefault(prompt, []).extend([reward] * valid)
        means = {prompt: sum(own) / len(own) for prompt, own in rewards.items() if own}
        return state | {p: state.get(p, 0) + self.rate * (mean - state.get(p, 0)) for p, mean in means.items()}

    def estimate(self, view: RolloutView) -> Credit:
        baseline_N = torch.tensor([self.state.get(prompt, 0.0) for prompt in view.prompt_N]).to(view.reward_NT)
        return Credit(torch.where(view.mask_NT, (view.reward_N - baseline_N)[:, None], 0))


OWN: dict[type[Part], str] = {
    MaxRL: "grpo[advantage=own_maxrl]",
    AdaptiveBonus: "grpo[entropy=own_adaptive]",
    EachByItself: "grpo[advantage=own_gdpo]",
    MovingBaseline: "grpo[advantage=own_ema]",
}
for own in OWN:
    del own.members[own.kind]  # no other test should meet them


@pytest.fixture(params=OWN, ids=lambda part: part.kind)
def own_part(request: pytest.FixtureRequest) -> type[Part]:
    request.param.members[request.param.kind] = request.param
    return request.param


def test_own_parts_conform_and_train(
    own_part: type[Part], make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """No part is longer than 25 lines, and each trains to the end of a run."""
    code = Path(__file__).read_text().split(f"class {own_part.__name__}(")[1].split("\n\n\n")[0]
    assert len(code.splitlines()) <= 25
    name = OWN[own_part]
    assert suite.failures(get(name)) == {}
    config = make_config(name, train={"steps": 2})
    assert train(config, tmp_path, backbone=backbone)["state"] == "done"
    assert len(steps_of(tmp_path)) == 2


def test_an_own_entropy_bonus_adapts_from_rollout_to_rollout(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    Entropy.members[AdaptiveBonus.kind] = AdaptiveBonus
    config = make_config("grpo[entropy=own_adaptive,entropy.target=100]", train={"steps": 3})
    train(config, tmp_path, backbone=backbone)
    assert [step["own_adaptive_state"] for step in steps_of(tmp_path)] == pytest.approx([0, 0.005, 0.01])


def test_a_moving_baseline_by_hand() -> None:
    """Rewards 1, 0, 1, 0 to prompt 0: mean 1/2. At rate 1/2 its baseline is 1/4 after one visit, 3/8 after two."""
    Advantage.members[MovingBaseline.kind] = MovingBaseline
    objective, w = get("grpo[advantage=own_ema,kl=none]"), suite.world.world()
    first = suite.world.credit(objective, w).advantage_NT[:, 0]
    assert torch.equal(first, w.reward_N)
    for baseline in (0.25, 0.375):
        objective = objective.at(suite.world.next_states(objective, w))
        assert objective.advantage.state["prompt 0"] == baseline
        later = suite.world.credit(objective, w).advantage_NT[:4, 0]
        assert later.tolist() == [1 - baseline, -baseline, 1 - baseline, -baseline]


REWARDS = """
def two(completions, **columns):
    even = [float(ord(c[0]) % 2 == 0) if c else 0.0 for c in completions]
    return {"even": even, "short": [-len(c) for c in completions]}

def other(completions, **columns):
    other.calls = getattr(other, "calls", 0) + 1
    return {"even" if other.calls < 3 else "odd": [0.0] * len(completions)}
"""


def test_several_named_rewards_from_the_function_to_the_record(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Their sum is the reward; each has a column in the metrics; an advantage sees them by name."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    seen: list[RolloutView] = []

    class Looks(EachByItself, kind="looks"):
        def estimate(self, view: RolloutView) -> Credit:
            seen.append(view)
            return super().estimate(view)

    task = {"name": "even", "reward": f"{tmp_path / 'rewards.py'}:two"}
    config = make_config("grpo[advantage=looks,shape=soft_overlong]", task=task, train={"steps": 1})
    train(config, tmp_path / "run", backbone=backbone)
    (view,) = seen
    assert view.names == ("even", "short") and view.reward_NK.shape == (16, 2)
    assert torch.equal(-view.reward_NK[:, 1], view.reward_NK[:, 1].abs()) and view.reward_NK[:, 0].max() <= 1
    (step,) = steps_of(tmp_path / "run")
    assert step["reward"] == pytest.approx(step["reward_even"] + step["reward_short"])
    assert step["reward_even"] == pytest.approx(view.reward_NK[:, 0].mean().item())


def test_named_rewards_must_keep_their_names(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(REWARDS)
    task = {"name": "even", "reward": f"{tmp_path / 'rewards.py'}:other"}
    config = make_config("dapo", task=task, train={"steps": 1})
    with pytest.raises(UserError, match="returned even at first and odd later"):
        train(config, tmp_path / "run", backbone=backbone)
