"""From a rollout to minibatches: whole groups, every row once per epoch, weights per update."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from advantages import Credit, RolloutView
from objectives import get
from rlzoo.engine.tokens import Tokens
from rlzoo.tasks import Problem
from rlzoo.training.credit import Assigned, minibatches
from rlzoo.training.evaluate import pass_at_k, response_metrics
from rlzoo.training.rollout import Account, Rollout


def rollout_of(rewards: list[list[float]], lengths: list[list[int]]) -> Rollout:
    """P x G responses; row i's tokens are all i."""
    reward_N, length_N = torch.tensor(rewards).flatten(), torch.tensor(lengths).flatten()
    mask_NT = torch.arange(int(length_N.max())) < length_N[:, None]
    rows = torch.arange(len(reward_N))
    tokens = Tokens([[7]] * len(rewards), rows // len(rewards[0]), rows[:, None] * mask_NT, mask_NT, mask_NT)
    problems = [Problem(str(p), "") for p in range(len(rewards))]
    accuracy_N = (reward_N > 0).float()
    text = [str(i) for i in rows.tolist()]
    return Rollout(problems, len(rewards[0]), tokens, -mask_NT.float(), length_N < 4, reward_N, accuracy_N, text)


def assigned(rollout: Rollout) -> Assigned:
    zeros = torch.zeros_like(rollout.logp_NT)
    view = RolloutView.of(zeros, rollout.mask_NT, rollout.group_N)
    return Assigned(rollout, Credit(zeros), view, rollout.logp_NT, {})


def test_every_epoch_has_every_group_once_and_in_another_order() -> None:
    rollout = rollout_of([[0.0, 1.0]] * 5, [[2, 3]] * 5)
    made = list(minibatches(get("dapo"), assigned(rollout), seed=1, step=2, epochs=3, count=2))
    assert [len(tokens) for tokens, _ in made] == [6, 4] * 3
    epochs = [torch.cat([t.token_NT[:, 0] for t, _ in made[i : i + 2]]).tolist() for i in (0, 2, 4)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs)
    assert all(a // 2 == b // 2 for rows in epochs for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert len({tuple(rows) for rows in epochs}) > 1
    again = list(minibatches(get("dapo"), assigned(rollout), seed=1, step=2, epochs=3, count=2))
    assert all(torch.equal(a[0].token_NT, b[0].token_NT) for a, b in zip(made, again, strict=True))


def test_weights_are_those_of_the_whole_update() -> None:
    rollout = rollout_of([[0.0, 1.0]] * 2, [[1, 3], [2, 4]])
    ((_, whole),) = minibatches(get("dapo"), assigned(rollout), seed=0, step=0, epochs=1, count=1)
    assert whole.weight_BT[whole.mask_BT].tolist() == pytest.approx([1 / 10] * 10)  # 1 + 3 + 2 + 4 tokens
    halves = [b for _, b in minibatches(get("dapo"), assigned(rollout), seed=0, step=0, epochs=1, count=2)]
    assert sorted(1 / float(b.weight_BT.max()) for b in halves) == pytest.approx([4, 6])


def test_what_an_objective_asks_for_is_handed_over_and_nothing_else() -> None:
    """The sampler's log-probs beside the trainer's, and tokens chosen over the whole update, not over the rollout."""
    rollout = rollout_of([[0.0, 1.0]] * 2, [[1, 3], [2, 4]])
    generator = torch.Generator().manual_seed(0)
    old_NT = torch.where(rollout.mask_NT, torch.randn(rollout.mask_NT.shape, generator=generator), 0)
    advantage_NT = torch.where(rollout.mask_NT, torch.tensor([1.0, -1, 1, -1])[:, None], 0)
    given = replace(assigned(rollout), credit=Credit(advantage_NT), old_logp_NT=old_NT)
    ((_, plain),) = minibatches(get("dapo"), given, seed=0, step=0, epochs=1, count=1)
    assert plain.sampler_logp_BT is None and plain.chosen_BT is None
    ((tokens, corrected),) = minibatches(get("dapo[correction=token]"), given, seed=0, step=0, epochs=1, count=1)
    rows = tokens.token_NT.amax(dim=1)
    assert torch.equal(corrected.sampler_logp_BT, rollout.logp_NT[rows])  # type: ignore[arg-type]
    assert torch.equal(corrected.old_logp_BT, old_NT[rows])
    halves = [b for _, b in minibatches(get("kl_cov"), given, seed=0, step=0, epochs=1, count=2)]
    for half in halves:
        expected_BT = get("kl_cov").choose(half.old_logp_BT, half.advantage_BT, half.mask_BT)
        assert half.chosen_BT is not None and half.chosen_BT.sum() == 1
        assert torch.equal(half.chosen_BT, expected_BT)  # type: ignore[arg-type]


def test_right_responses_share_what_is_imitated_over_the_whole_update() -> None:
    """Right are the responses of 3 and 4 tokens; where each prompt is an update of its own, 1/3 and 1/4."""
    rollout = rollout_of([[0.0, 1.0]] * 2, [[1, 3], [2, 4]])
    ((_, plain),) = minibatches(get("ppo"), assigned(rollout), seed=0, step=0, epochs=1, count=1)
    assert plain.imitation_BT is None
    imitating = get("dapo[imitation=positive_likelihood]")
    ((tokens, whole),) = minibatches(imitating, assigned(rollout), seed=0, step=0, epochs=1, count=1)
    assert whole.imitation_BT is not None
    right_B = tokens.learn_NT.sum(dim=1) > 2
    assert torch.equal(whole.imitation_BT, (tokens.learn_NT & right_B[:, None]) / 7)
    halves = [b for _, b in minibatches(imitating, assigned(rollout), seed=0, step=0, epochs=1, count=2)]
    assert sorted(1 / float(b.imitation_BT.max()) for b in halves) == pytest.approx([3, 4])  # type: ignore[union-attr]


def test_an_unknown_reward_leaves_mask_and_weights() -> None:
    rollout = rollout_of([[math.nan, 1.0]], [[4, 2]])
    ((_, batch),) = minibatches(get("dapo"), assigned(rollout), seed=0, step=0, epochs=1, count=1)
    assert batch.weight_BT.sum(dim=1).tolist() == pytest.approx([0, 1])


def test_fewer_groups_than_minibatches_and_none_at_all() -> None:
    rollout = rollout_of([[0.0, 1.0]] * 2, [[1, 1]] * 2)
    assert len(list(minibatches(get("dapo"), assigned(rollout), seed=0, step=0, epochs=1, count=4))) == 2
    empty = rollout.keep(torch.tensor([False, False]))
    assert list(minibatches(get("dapo"), assigned(empty), seed=0, step=0, epochs=1, count=4)) == []


def test_keeping_and_joining_prompts() -> None:
    rollout = rollout_of([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], [[1, 2], [3, 4], [5, 6]])
    kept = rollout.keep(torch.tensor([True, False, True]))
    assert [p.prompt for p in kept.problems] == ["0", "2"] and kept.completions == ["0", "1", "4", "5"]
    assert kept.group_N.tolist() == [0, 0, 1, 1]
    account = Account().add(rollout, kept)
    # 3 prompts and 1 + 2 + 3 + 4 + 5 + 6 = 21 tokens sampled; one prompt with 3 + 4 = 7 tokens discarded
    assert account == Account(1, 3, 1, 21, 7)
    short = rollout_of([[0.5, 0.5]], [[1, 1]])
    both = Rollout.cat([kept, short])
    assert both.tokens.learn_NT.sum(dim=1).tolist() == [1, 2, 5, 6, 1, 1] and len(both.problems) == 3
    assert both.tokens.token_NT[3:].tolist() == [[5] * 6, [0] * 6, [1] + [0] * 5]  # padded on the right
    assert torch.equal(both.logp_NT, -both.tokens.learn_NT.float())


def test_greedy_rewards_go_with_their_prompts() -> None:
    rollout = rollout_of([[0.0, 1.0], [1.0, 1.0]], [[1, 2], [3, 4]])
    greedy = replace(rollout, greedy_N=torch.tensor([0.25, 0.25, 0.5, 0.5]))
    kept = greedy.keep(torch.tensor([False, True]))
    assert kept.greedy_N is not None and kept.greedy_N.tolist() == [0.5, 0.5]
    joined = Rollout.cat([kept, greedy]).greedy_N
    assert joined is not None and joined.tolist() == [0.5, 0.5, 0.25, 0.25, 0.5, 0.5]
    assert (
        Rollout.cat([rollout, rollout]).greedy_N is None and rollout.keep(torch.tensor([True, False])).greedy_N is None
    )
    # 10 tokens in the rollout, 7 of the second prompt are kept, 5 more were the greedy responses': paid, not discarded
    assert Account().add(rollout, rollout.keep(torch.tensor([False, True])), beside=5) == Account(1, 2, 1, 15, 3)


def test_response_metrics() -> None:
    metrics = response_metrics(rollout_of([[0.0, 1.0], [0.25, 0.25]], [[1, 2], [3, 6]]))
    assert metrics["reward"] == pytest.approx(1.5 / 4)
    assert metrics["accuracy"] == pytest.approx(3 / 4)
    assert (metrics["length"], metrics["length_right"], metrics["length_wrong"]) == pytest.approx((3, 11 / 3, 1))
    assert metrics["finished"] == pytest.approx(3 / 4) and metrics["entropy"] == pytest.approx(1)
    assert metrics["silent_groups"] == pytest.approx(1 / 2)


def test_responses_without_a_reward_count_in_everything_but_the_reward() -> None:
    nan = math.nan
    metrics = response_metrics(rollout_of([[nan, 1.0], [nan, 0.0], [nan, nan], [0.0, 1.0]], [[4, 1]] * 4))
    assert metrics["reward"] == pytest.approx(2 / 4)
    assert metrics["accuracy"] == pytest.approx(2 / 8)
    assert (metrics["length"], metrics["length_right"], metrics["length_wrong"]) == pytest.approx((2.5, 1, 18 / 6))
    assert metrics["silent_groups"] == pytest.approx(2 / 3)  # two groups of one known reward, one mixed; one has none


def test_silence_is_told_of_groups_only() -> None:
    assert math.isnan(response_metrics(rollout_of([[1.0], [0.0]], [[2], [2]]))["silent_groups"])


def test_rewards_that_differ_a_little_are_not_silent() -> None:
    """Of (0.5, 0.75), (0.5, 0.51) and (0.5, 0.5) the last alone is silent."""
    metrics = response_metrics(rollout_of([[0.5, 0.75], [0.5, 0.51], [0.5, 0.5]], [[1, 1]] * 3))
    assert metrics["silent_groups"] == pytest.approx(1 / 3)


def test_each_step_and_epoch_has_its_own_order_of_prompts() -> None:
    given = assigned(rollout_of([[0.0, 1.0]] * 8, [[1, 1]] * 8))

    def order(seed: int, step: int) -> list[int]:
        made = minibatches(get("dapo"), given, seed=seed, step=step, epochs=2, count=8)
        return [int(tokens.token_NT[0, 0]) for tokens, _ in made]

    orders = [order(seed, step) for seed in (0, 1) for step in (0, 1, 2)]
    epochs = {tuple(one[half]) for one in orders for half in (slice(0, 8), slice(8, 16))}
    assert len(epochs) == 12 and {tuple(sorted(one)) for one in epochs} == {tuple(range(0, 16, 2))}
    assert order(0, 1) == orders[1]


def test_an_update_has_the_rows_of_its_prompts_in_every_field() -> None:
    rollout = rollout_of([[0.0, 1.0]] * 4, [[2, 3], [1, 3], [3, 3], [2, 2]])
    row_NT = torch.arange(8.0)[:, None] * rollout.mask_NT
    view = assigned(rollout).view.but(ref_logp_NT=row_NT + 4, value_NT=row_NT + 5)
    given = Assigned(rollout, Credit(row_NT + 1, row_NT + 2), view, row_NT + 3, {})
    for tokens, batch in minibatches(get("ppo"), given, seed=0, step=0, epochs=1, count=3):
        row_BT = tokens.token_NT.float()  # row i's tokens are all i
        assert torch.equal(batch.mask_BT, tokens.learn_NT)
        fields = (batch.advantage_BT, batch.return_BT, batch.old_logp_BT, batch.ref_logp_BT, batch.old_value_BT)
        for offset, field in enumerate(fields, start=1):
            assert field is not None and torch.equal(field, row_BT + offset)


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    # n = 4: one right gives pass@2 = 1 - C(3,2)/C(4,2) = 1/2; three right gives 1 - C(1,2)/C(4,2) = 1
    accuracy_PG = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    assert pass_at_k(accuracy_PG) == pytest.approx({"pass@2": 0.75, "pass@4": 1.0})
    assert pass_at_k(accuracy_PG[:, :3]) == pytest.approx({"pass@2": (1 - 1 / 3 + 1) / 2})  # C(2,2)/C(3,2) = 1/3
    assert pass_at_k(accuracy_PG[:, :1]) == {}
