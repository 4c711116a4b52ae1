"""The extensions of the Q network, and the actor with a Q critic, against plain loops."""

from __future__ import annotations

import pytest
import torch

from rlzoo import noise
from rlzoo.errors import UserError
from rlzoo.lab import exact, qstar
from rlzoo.lab.dqn import LEAST, DeepQ, Variant
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.families import VARIANTS, ValueSetting, learners, world
from rlzoo.lab.gradient import LEARNING_RATE
from rlzoo.lab.q_critic import QActorCritic


def small(episodes: int = 32, seeds: int = 2, judge: float = 1.0) -> Episodes:
    return world(ValueSetting(episodes=episodes, longest=3, seeds=seeds, judge=judge))


def test_variants_are_named_and_race() -> None:
    assert [variant.name for variant in VARIANTS] == [
        "DQN",
        "double DQN",
        "DQN, prioritized",
        "DQN, dueling",
        "DQN, noisy",
        "DQN, 2-step",
    ]
    names = [learner.name for learner in learners([], ValueSetting(episodes=1, seeds=1))]
    assert len(set(names)) == len(names) and names[-1] == "Q actor-critic"
    with pytest.raises(UserError, match="1 or more tokens"):
        Variant(n_step=0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_steps_on_is_the_state_n_tokens_later(n: int) -> None:
    at = small()
    learner = DeepQ(at, variant=Variant(n_step=n))
    response_KB = torch.arange(len(at.space.mask_RT))[None]
    s, mask = at.space.state_RT[response_KB], at.space.mask_RT[response_KB]
    later, goes_on = learner._later(s, mask)
    for r in range(len(at.space.mask_RT)):
        state, length = at.space.state_RT[r].tolist(), int(at.space.length_R[r])
        for t in range(length):
            assert bool(goes_on[0, r, t]) == (t + n < length)
            if t + n < length:
                assert later[0, r, t] == state[t + n]


def test_a_dueling_head_by_hand() -> None:
    """Q = V + U - mean U: with V = 1 and U = (3, 0, 0) in a state it is (3, 0, 0)."""
    learner = DeepQ(small(), variant=Variant(dueling=True))
    zero = [torch.zeros_like(w) for w in learner._weights]
    zero[3] = torch.tensor([1.0, 3.0, 0.0, 0.0], dtype=torch.float64).expand_as(zero[3])
    assert learner.values(zero)[0, 0].tolist() == pytest.approx([3, 0, 0])
    q_KSV = learner.values(learner._weights).detach()
    assert q_KSV.shape == (2, 7, 3) and q_KSV.std() > 0


def test_priorities_decide_what_is_drawn() -> None:
    """Chances are priority^0.6 over their sum; weights (N P)^-0.4 over the largest; a step renews the drawn ones."""
    at = small(episodes=16)
    learner = DeepQ(at, variant=Variant(prioritized=True))
    learner.learn(0, 16)
    learner._priority_KN = torch.rand(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.01
    chance = [p**0.6 for p in learner._priority_KN[0].tolist()]
    chance = [c / sum(chance) for c in chance]
    earlier_KB, weight_KB = learner._drawn()
    raw = [(16 * chance[i]) ** -0.4 for i in earlier_KB[0].tolist()]
    assert weight_KB[0].tolist() == pytest.approx([w / max(raw) for w in raw])
    counts = torch.zeros(16)
    for step in range(200):
        learner._steps = 1000 + step
        counts += torch.bincount(learner._drawn()[0][0], minlength=16)
    share = counts / counts.sum()
    # 6400 draws: a share has a standard error of at most sqrt(c (1-c) / 6400)
    assert all(abs(s - c) < 5 * (c * (1 - c) / 6400) ** 0.5 for s, c in zip(share.tolist(), chance, strict=True))
    learner._steps = 7
    drawn = set(learner._drawn()[0][0].tolist())
    before = learner._priority_KN[0].clone()
    learner._step()
    changed = set((learner._priority_KN[0] != before).nonzero().flatten().tolist())
    assert changed == drawn and learner._priority_KN.min() >= LEAST


def test_noise_has_the_learned_size_and_is_left_out_of_the_answer() -> None:
    learner = DeepQ(small(seeds=1), variant=Variant(noisy=True))
    assert learner._epsilon == 0  # it explores by its noise
    gaps = [(learner.perturbed("x", i)[2] - learner._weights[2]).detach() for i in range(60)]
    assert torch.stack(gaps).std().item() == pytest.approx(0.5 / 32**0.5, rel=0.05)
    torch.testing.assert_close(learner.perturbed("x", 3)[0], learner.perturbed("x", 3)[0])
    before = learner._sigmas[2].detach().clone()
    learner.learn(0, 32)
    assert (learner._sigmas[2] - before).abs().max() > 1e-4
    torch.testing.assert_close(learner.estimate().q_KSV, learner.values(learner._weights).detach())
    assert DeepQ(small())._sigmas == []


def test_one_step_of_the_q_critic_is_adam_on_its_loop() -> None:
    """From Q = 0 the actor's advantages are 0: only tokens that ended a response move in Q, by the sign of r."""
    at = small(episodes=16, seeds=1)
    learner = QActorCritic(at)
    learner.learn(0, 16)
    uniform_KSV = torch.full((1, 7, 3), 1 / 3, dtype=torch.float64)
    response_N = at.respond(qstar.probability(uniform_KSV, at.space), 0, 16)[0]
    judged_N = at.judged(response_N[None], 0)[0]
    pull_SV = torch.zeros(7, 3, dtype=torch.float64)
    for r, judged in zip(response_N.tolist(), judged_N.tolist(), strict=True):
        last = int(at.space.length_R[r]) - 1
        pull_SV[at.space.state_RT[r, last], at.space.token_RT[r, last]] += judged
    expected_SV = LEARNING_RATE * pull_SV.sign()
    torch.testing.assert_close(learner._q_KSV.detach()[0], expected_SV, rtol=1e-4, atol=1e-9)
    assert learner._logits_KSV.abs().max() < 1e-12


def test_the_q_critic_learns_the_value_of_its_policy_and_the_answer() -> None:
    at = small(episodes=4096, seeds=3, judge=0.0)
    learner = QActorCritic(at)
    learner.learn(0, 4096)
    found = learner.estimate()
    assert found.value_KS is not None and found.aim_KS is not None
    v_S = exact.values(learner._logits_KSV[1].detach(), at.space, at.reward_SV).v_S
    torch.testing.assert_close(found.aim_KS[1], v_S)
    assert (found.value_KS - found.aim_KS)[:, 0].abs().max() < 0.05
    assert (qstar.probability(found.policy_KSV, at.space) @ at.reward_R).min() > 0.95


def test_seeds_of_variants_never_touch() -> None:
    for variant in VARIANTS[2:]:
        many, one = (DeepQ(small(seeds=n), variant=variant) for n in (2, 1))
        many.learn(0, 32)
        one.learn(0, 32)
        torch.testing.assert_close(many.estimate().q_KSV[0], one.estimate().q_KSV[0], rtol=1e-9, atol=1e-11)
    assert noise.uniform("noisy", 0, 1) == noise.uniform("noisy", 0, 1)
