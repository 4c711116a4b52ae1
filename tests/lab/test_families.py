"""Learners on sampled episodes: against plain loops, against the exact optimum, and deterministic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import objectives
from objectives import get
from rlzoo import noise
from rlzoo.errors import UserError
from rlzoo.lab import exact, qstar
from rlzoo.lab.dqn import BATCH, LEARNING_RATE, DeepQ, Variant
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.families import ValueSetting, checkpoints, measured, race, world
from rlzoo.lab.gradient import LEARNING_RATE as POLICY_LEARNING_RATE
from rlzoo.lab.gradient import PolicyLearner
from rlzoo.lab.group import SUPPLIED
from rlzoo.lab.qlearning import POWER, TabularQ, explore
from rlzoo.lab.space import enumerate_responses

SMALL = ValueSetting(episodes=48, longest=3, seeds=3)


def small(**changes: object) -> Episodes:
    return world(replace(SMALL, **changes))


def test_responses_follow_their_probabilities_and_judgements_their_rewards() -> None:
    at = small(seeds=40, episodes=500, judge=0.5)
    uniform_KSV = torch.full((40, 7, 3), 1 / 3, dtype=torch.float64)
    response_KN = at.respond(qstar.probability(uniform_KSV, at.space), 0, 500)
    share_R = torch.bincount(response_KN.flatten(), minlength=len(at.reward_R)) / 20_000
    expected_R = qstar.probability(uniform_KSV[0], at.space)
    assert (share_R - expected_R).abs().max() < 4 * (0.25 / 20_000) ** 0.5
    error_KN = at.judged(response_KN, 0) - at.reward_R[response_KN]
    assert error_KN.mean().abs() < 4 * 0.5 / 20_000**0.5
    assert error_KN.std().item() == pytest.approx(0.5, rel=0.02)
    # piece by piece it is the same, and so is one seed alone
    assert torch.equal(at.respond(qstar.probability(uniform_KSV, at.space), 100, 7), response_KN[:, 100:107])
    alone = replace(at, seeds=1, seed=5)
    assert torch.equal(alone.respond(qstar.probability(uniform_KSV[:1], at.space), 0, 500)[0], response_KN[5])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("replay", [0, 2])
def test_tabular_q_is_the_plain_loop(double: bool, replay: int) -> None:
    at = small()
    learner = TabularQ(at, epsilon=1.0, double=double, replay=replay)
    learner.learn(0, 20)
    learner.learn(20, 28)
    space, k = at.space, 1
    uniform_R = qstar.probability(torch.full((3, 7, 3), 1 / 3, dtype=torch.float64), space)
    response_N = at.respond(uniform_R, 0, 48)[k]
    judged_N = at.judged(at.respond(uniform_R, 0, 48), 0)[k]
    q = torch.zeros(1 + double, 7, 3, dtype=torch.float64)
    count = torch.zeros(1 + double, 7, 3)

    def walk(n: int, coin: int) -> None:
        mine = coin if double else 0
        r = response_N[n]
        for t in reversed(range(int(space.length_R[r]))):
            s, a = space.state_RT[r, t], space.token_RT[r, t]
            following = space.next_SV[s, a]
            best = q[mine, following].argmax()
            target = judged_N[n] if following < 0 else q[1 - mine if double else 0, following, best]
            count[mine, s, a] += 1
            q[mine, s, a] += (target - q[mine, s, a]) / count[mine, s, a].double() ** POWER

    for n in range(48):
        walk(n, int(noise.integers(2, "table", k, n)))
        for j in range(replay):
            walk(int(noise.integers(n + 1, "replay", k, n, j)), int(noise.integers(2, "table", k, n, j + 1)))
    torch.testing.assert_close(learner.q_EKSV[:, k], q, rtol=1e-12, atol=1e-14)
    estimate = learner.estimate()
    assert estimate.q_KSV is not None and estimate.value_KS is not None
    torch.testing.assert_close(estimate.q_KSV[k], q.mean(dim=0))
    crossed = [(q[-1, s, q[0, s].argmax()] + q[0, s, q[-1, s].argmax()]).item() / 2 for s in range(7)]
    assert estimate.value_KS[k].tolist() == pytest.approx(crossed)


def test_a_faultless_judge_leaves_nothing_to_overestimate() -> None:
    """Rewards that do not err and values that begin below them: no target is ever above Q*, so Q never is."""
    at = small(judge=0.0, episodes=300)
    best = qstar.optimal(at.space, at.reward_SV)
    for learner in (TabularQ(at), TabularQ(at, double=True), TabularQ(at, replay=2)):
        learner.learn(0, 300)
        assert (learner.q_EKSV <= best.q_SV + 1e-12).all()
        assert (best.q_SV - learner.q_EKSV).mean() < 0.1  # of 9/21 at the beginning


def test_epsilon_is_the_share_of_uniform_tokens() -> None:
    q_KSV = torch.tensor([[[0.0, 1.0, 0.5]]], dtype=torch.float64)
    assert explore(q_KSV, 0.3).flatten().tolist() == pytest.approx([0.1, 0.8, 0.1])
    at = small(judge=0.0, episodes=200)
    learner = TabularQ(at, epsilon=0.2)
    learner.learn(0, 200)
    last = at.reward_R[learner._response_KN[:, 100:]].mean().item()
    first = at.reward_R[learner._response_KN[:, :20]].mean().item()
    assert last > 0.7 > first  # it answers with what it has learned


@pytest.mark.parametrize("double", [False, True])
def test_a_dqn_step_is_the_plain_loop(double: bool) -> None:
    """The first Adam step moves every weight by the learning rate against the sign of the plain loop's gradient."""
    at = small(episodes=16, seeds=2)
    learner = DeepQ(at, variant=Variant(double=double))
    leaves = [weight.detach().clone().requires_grad_() for weight in learner._weights]
    before = [weight.detach().clone() for weight in leaves]
    learner._response_KN = at.respond(
        qstar.probability(torch.full((2, 7, 3), 1 / 3, dtype=torch.float64), at.space), 0, 16
    )
    learner._judged_KN = at.judged(learner._response_KN, 0)
    learner._target = [weight.detach() * 1.1 for weight in learner._weights]
    learner._steps = 1  # the step at 0 copies the network into its target first
    learner._step()
    q_KSV, target_KSV = learner.values(leaves), learner.values([weight * 1.1 for weight in before])
    space, total = at.space, torch.zeros((), dtype=torch.float64)
    for k in range(2):
        errors = []
        for n in noise.integers(16, "replay", k, 1, torch.arange(BATCH)).tolist():
            r = learner._response_KN[k, n]
            for t in range(int(space.length_R[r])):
                s, a = space.state_RT[r, t], space.token_RT[r, t]
                following = space.next_SV[s, a]
                best = (q_KSV if double else target_KSV)[k, following].argmax()
                target = learner._judged_KN[k, n] if following < 0 else target_KSV[k, following, best]
                errors.append((target.detach() - q_KSV[k, s, a]) ** 2)
        total = total + torch.stack(errors).mean()
    total.backward()
    for was, leaf, now in zip(before, leaves, learner._weights, strict=True):
        clear = leaf.grad.abs() > 1e-6
        moved = (now - was)[clear]
        torch.testing.assert_close(moved, -LEARNING_RATE * leaf.grad[clear].sign(), rtol=1e-2, atol=0)


SUPPLIED_NAMES = [name for name in objectives.names() if get(name).needs <= SUPPLIED]


@pytest.mark.parametrize("name", [*SUPPLIED_NAMES, "ppo[entropy=bonus]", "dapo[select=all]"])
def test_a_seed_learns_alone_as_it_does_beside_others(name: str) -> None:
    """Rows of different seeds share one loss and one optimizer and never touch."""
    together, alone = (PolicyLearner(get(name), small(seeds=n, seed=s)) for n, s in ((3, 0), (1, 2)))
    for learner in (together, alone):
        learner.learn(0, 48)
    a, b = together.estimate(), alone.estimate()
    torch.testing.assert_close(a.policy_KSV[2], b.policy_KSV[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(a.policy_KSV[0], a.policy_KSV[2])
    if a.value_KS is not None:
        torch.testing.assert_close(a.value_KS[2], b.value_KS[0], rtol=1e-12, atol=1e-12)


def test_one_policy_step_is_adam_on_the_sampled_policy_gradient() -> None:
    """From the uniform policy, advantages r - mean (REINFORCE): the first step goes by the sign of its plain loop."""
    at = small(episodes=16, seeds=1)
    learner = PolicyLearner(get("reinforce"), at)
    learner.learn(0, 16)
    uniform_KSV = torch.full((1, 7, 3), 1 / 3, dtype=torch.float64)
    response_N = at.respond(qstar.probability(uniform_KSV, at.space), 0, 16)
    judged_N = at.judged(response_N, 0)[0]
    gradient_SV = torch.zeros(7, 3, dtype=torch.float64)
    for r, judged in zip(response_N[0], judged_N, strict=True):
        for t in range(int(at.space.length_R[r])):
            s, a = at.space.state_RT[r, t], at.space.token_RT[r, t]
            gradient_SV[s] -= (judged - judged_N.mean()) / 3
            gradient_SV[s, a] += judged - judged_N.mean()
    clear = gradient_SV.abs() > 1e-6
    moved_SV = learner._logits_KSV.detach()[0]
    torch.testing.assert_close(moved_SV[clear], POLICY_LEARNING_RATE * gradient_SV[clear].sign(), rtol=1e-4, atol=0)
    assert (moved_SV[~clear].abs() < 1e-9).all()


def test_a_critic_is_measured_against_the_reward_that_it_is_taught() -> None:
    """With a KL in the reward the critic's aim is V of reward - beta log(pi / ref), by the loop over responses."""
    at = small(seeds=1)
    learner = PolicyLearner(get("ppo"), at)
    learner.learn(0, 48)
    estimate = learner.estimate()
    assert estimate.aim_KS is not None
    pi_SV = estimate.policy_KSV[0]
    p_R = qstar.probability(pi_SV, at.space)
    total = 0.0
    for r in range(len(p_R)):
        cost = sum(
            (pi_SV[at.space.state_RT[r, t], at.space.token_RT[r, t]] * 3).log().item()
            for t in range(int(at.space.length_R[r]))
        )
        total += p_R[r].item() * (at.reward_R[r].item() - 0.05 * cost)
    assert estimate.aim_KS[0, 0].item() == pytest.approx(total, abs=1e-12)
    assert PolicyLearner(get("reinforce"), at).estimate().value_KS is None


def test_what_the_world_has_not_is_refused() -> None:
    for name in objectives.names():
        if get(name).needs - SUPPLIED:
            with pytest.raises(UserError, match=f"{name} needs .* leave it out"):
                PolicyLearner(get(name), small())


def test_the_greedy_response_is_worth_its_exact_reward() -> None:
    """Ties are shared: the uniform policy's greedy response is any; with logits for `1 end` it is right."""
    learner = PolicyLearner(get("remax"), small(seeds=1))
    uniform = exact.expected(torch.zeros(7, 3, dtype=torch.float64), learner._at.space, learner._at.reward_R)
    assert learner._greedy_reward(0).item() == pytest.approx(uniform.item())
    with torch.no_grad():
        learner._logits_KSV[0, :, 2] = 1.0
        learner._logits_KSV[0, 0, 1] = 2.0
    assert learner._greedy_reward(0).item() == 1


def test_a_group_that_is_dropped_teaches_nothing() -> None:
    """Nor are its right responses imitated; some of the 20 seeds' are right, as those that are kept show."""
    at = small(longest=2, episodes=1, seeds=20, group_size=1)
    imitating = PolicyLearner(get("grpo[kl=none,imitation=positive_likelihood]"), at, group_size=1)
    imitating.learn(0, 1)
    moved_K = (imitating.estimate().policy_KSV - 1 / 3).abs().amax(dim=(1, 2)) > 0.01
    assert 0 < moved_K.sum() < 20
    learner = PolicyLearner(get("grpo[select=mixed,imitation=positive_likelihood]"), at, group_size=1)
    learner.learn(0, 1)
    assert learner.estimate().policy_KSV.flatten().tolist() == pytest.approx([1 / 3] * 180)


def test_measures_of_what_is_known() -> None:
    """The optimum itself errs nowhere; the beginning of a Q table (all 0) is off by 1 and answers at random."""
    at = small(seeds=2)
    best = qstar.optimal(at.space, at.reward_SV)
    known = measured(TabularQ(at).estimate(), at)
    assert known["q_error"].tolist() == [1, 1] and known["over"].tolist() == pytest.approx(
        [-best.v_S.mean().item()] * 2
    )
    uniform = exact.expected(torch.zeros(7, 3, dtype=torch.float64), at.space, at.reward_R).item()
    assert known["reward"].tolist() == pytest.approx([uniform] * 2)
    assert known["critic_error"] is None
    table = TabularQ(at)
    table.q_EKSV = best.q_SV.expand(1, 2, 7, 3).clone()
    found = measured(table.estimate(), at)
    assert found["reward"].tolist() == pytest.approx([1, 1]) and found["q_error"].tolist() == [0, 0]


def test_a_race_measures_all_families_at_the_same_episodes() -> None:
    setting = replace(SMALL, episodes=40, seeds=2)
    assert checkpoints(setting) == [16, 32, 40]
    rows = race([get("reinforce"), get("ppo")], setting)
    assert {row.family for row in rows} == {"value-based", "policy-based", "actor-critic"}
    assert [row.episodes for row in rows[:3]] == [16, 32, 40]
    assert rows == race([get("reinforce"), get("ppo")], setting)
    for row in rows:
        assert (row.measures["q_error"] is not None) == (row.family == "value-based")
        assert (row.measures["critic_error"] is not None) == (row.family == "actor-critic")


def test_settings_outside_their_range_are_refused() -> None:
    for changes, match in (
        ({"judge": -1.0}, "0 or more"),
        ({"epsilon": 1.5}, "between 0 and 1"),
        ({"longest": 1}, "length 2"),
        ({"longest": 30}, "smaller length"),
    ):
        with pytest.raises(UserError, match=match):
            world(replace(SMALL, **changes))
    assert len(enumerate_responses(3, 3).mask_RT) == 15
