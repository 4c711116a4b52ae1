"""The textbook tables and their computations against enumeration, loops, differences and closed forms."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from rlzoo.lab import exact
from rlzoo.lab.evaluation import Chain, monte_carlo, monte_carlo_variance, return_moments, sweeps, td_lambda
from rlzoo.lab.mdp import Process, balloon, residuals, target_variance
from rlzoo.lab.plots import draw
from rlzoo.lab.reparameterized import ddpg, gaussian_path, gaussian_score, gumbel_softmax, two_choices
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.textbook import SHEETS, sheet
from rlzoo.lab.textbook.gradients import credits, moments_of_credits, true_gradient
from rlzoo.lab.textbook.lengths import old_statistics, token_share
from rlzoo.lab.textbook.values import chain, noisy_values
from rlzoo.lab.trust_region import fisher, natural_direction, trpo_step
from rlzoo.lab.world import make_world


def small(gamma: float = 0.9) -> Chain:
    """Responses of at most 3 of 3 tokens, random logits, a random reward at every token."""
    space = enumerate_responses(3, 3)
    generator = torch.Generator().manual_seed(5)
    logits_SV, reward_SV = torch.randn(2, *space.next_SV.shape, generator=generator, dtype=torch.float64)
    return Chain(space, logits_SV, reward_SV, gamma)


def through(at: Chain, state: int) -> list[tuple[float, list[float], list[int]]]:
    """By plain loops: probability given the state, rewards and states from there on, of every response through it."""
    space, found, total = at.space, [], 0.0
    law_R = exact.probability(at.logits_SV, space)
    for r in range(len(law_R)):
        steps = range(int(space.length_R[r]))
        states = [int(space.state_RT[r, t]) for t in steps]
        if state in states:
            first = states.index(state)
            rewards = [at.reward_SV[space.state_RT[r, t], space.token_RT[r, t]].item() for t in steps]
            found.append((law_R[r].item(), rewards[first:], states[first:]))
            total += law_R[r].item()
    return [(p / total, rewards, states) for p, rewards, states in found]


@pytest.mark.parametrize("name", SHEETS)
def test_a_table_has_rows_arithmetic_and_a_figure(name: str, tmp_path: Path) -> None:
    found = SHEETS[name].compute()
    assert found.rows and found.arithmetic and found.reading
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert all(len(y) == len(found.plot.x) for y in found.plot.series.values())
    draw({name: found.plot}, tmp_path / "x.svg")
    assert (tmp_path / "x.svg").stat().st_size > 3_000


def test_a_table_is_named_once() -> None:
    with pytest.raises(ValueError, match="exists already"):
        sheet(next(iter(SHEETS)), "", "")(lambda: None)


@pytest.mark.parametrize("state", [0, 1, 4])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_moments_of_a_k_step_return_by_enumeration(state: int, steps: int) -> None:
    at = small()
    v_S = noisy_values(at.exact().v_S, seed=1)
    mean_S, variance_S = return_moments(at, v_S, steps=steps)
    returns, law = [], []
    for p, rewards, states in through(at, state):
        taken = rewards[:steps]
        rest = v_S[states[steps]].item() if len(states) > steps else 0.0
        returns.append(sum(0.9**j * r for j, r in enumerate(taken)) + 0.9**steps * rest)
        law.append(p)
    mean = sum(p * x for p, x in zip(law, returns, strict=True))
    assert mean_S[state].item() == pytest.approx(mean, abs=1e-12)
    second = sum(p * (x - mean) ** 2 for p, x in zip(law, returns, strict=True))
    assert variance_S[state].item() == pytest.approx(second, abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_moments_of_a_lambda_return_by_enumeration(lam: float) -> None:
    """G^lam = v(s_0) + sum_t (gamma lam)^t d_t, written with TD errors instead of the recursion."""
    at = small()
    v_S = noisy_values(at.exact().v_S, seed=1)
    mean_S, variance_S = return_moments(at, v_S, lam=lam)
    mean = second = 0.0
    for p, rewards, states in through(at, 0):
        v = [v_S[s].item() for s in states] + [0.0]
        errors = [r + 0.9 * v[t + 1] - v[t] for t, r in enumerate(rewards)]
        found = v[0] + sum((0.9 * lam) ** t * d for t, d in enumerate(errors))
        mean, second = mean + p * found, second + p * found**2
    assert mean_S[0].item() == pytest.approx(mean, abs=1e-12)
    assert variance_S[0].item() == pytest.approx(second - mean**2, abs=1e-12)


def test_monte_carlo_is_the_mean_of_the_gains_that_came_by() -> None:
    at = small()
    response_XN = at.sample((2, 12), seed=3)
    found = monte_carlo(at, response_XN)
    for x, s in itertools.product(range(2), range(len(at.reward_SV))):
        gains: list[tuple[int, float]] = []
        for r in response_XN[x].tolist():
            for t in range(int(at.space.length_R[r])):
                if at.space.state_RT[r, t] == s:
                    path = range(t, int(at.space.length_R[r]))
                    rewards = [at.reward_SV[at.space.state_RT[r, j], at.space.token_RT[r, j]].item() for j in path]
                    gains.append((int(at.space.token_RT[r, t]), sum(0.9**j * y for j, y in enumerate(rewards))))
        assert found.visits_XS[x, s] == len(gains)
        if gains:
            assert found.v_XS[x, s].item() == pytest.approx(sum(g for _, g in gains) / len(gains))
            mine = [g for a, g in gains if a == gains[0][0]]
            assert found.q_XSV[x, s, gains[0][0]].item() == pytest.approx(sum(mine) / len(mine))
            assert found.a_XSV[x, s, gains[0][0]].item() == pytest.approx(
                sum(mine) / len(mine) - sum(g for _, g in gains) / len(gains)
            )


def test_monte_carlo_is_unbiased_and_spreads_as_predicted() -> None:
    """Every group of 2 episodes: mean and variance of V-hat given a visit, exactly."""
    at = small()
    law_R = exact.probability(at.logits_SV, at.space)
    pairs = torch.cartesian_prod(torch.arange(len(law_R)), torch.arange(len(law_R)))
    found, law_X = monte_carlo(at, pairs), law_R[pairs].prod(dim=1)
    predicted_S = monte_carlo_variance(at, 2)
    for s in (0, 1, 5):
        seen_X = found.visits_XS[:, s] > 0
        p_X = law_X[seen_X] / law_X[seen_X].sum()
        v_X = found.v_XS[seen_X, s]
        assert (p_X @ v_X).item() == pytest.approx(at.exact().v_S[s].item(), abs=1e-12)
        spread = (p_X @ (v_X - p_X @ v_X).square()).item()
        assert spread == pytest.approx(predicted_S[s].item(), rel=1e-5)


def test_sweeps_are_exact_after_as_many_as_there_are_tokens() -> None:
    at = small()
    found = sweeps(at, torch.full((7,), 9.0, dtype=torch.float64), 3)
    torch.testing.assert_close(found[3], at.exact().v_S, rtol=1e-12, atol=1e-12)
    assert (found[2] - at.exact().v_S).abs().max() > 0.01
    torch.testing.assert_close(return_moments(at, found[0], steps=2)[0], found[2])


def test_td_lambda_by_hand_and_its_forward_view() -> None:
    """One episode of two tokens from v = 0: traces are gamma lam and 1 when the reward of the last token comes.

    Summed over the episode with v held fixed, traces give alpha (G^lam - v): the first update of each state does.
    """
    at = small()
    two = int((at.space.length_R == 2).nonzero()[0])
    s, a = at.space.state_RT[two, :2].tolist(), at.space.token_RT[two, :2].tolist()
    r = [at.reward_SV[s[t], a[t]].item() for t in range(2)]
    (v,) = td_lambda(at, torch.tensor([[two]]), torch.zeros(7, dtype=torch.float64), lam=0.5, alpha=0.1).tolist()
    assert v[s[1]] == pytest.approx(0.1 * r[1])
    assert v[s[0]] == pytest.approx(0.1 * r[0] + 0.1 * 0.9 * 0.5 * r[1])
    many = td_lambda(at, at.sample((300, 200), seed=2), at.exact().v_S, lam=1.0, alpha=0.01).mean(dim=0)
    assert (many - at.exact().v_S).abs().max() < 0.1  # unbiased around V: it stays


@pytest.mark.parametrize("random_next", [False, True])
@pytest.mark.parametrize("random_reward", [False, True])
def test_the_balloon(random_next: bool, random_reward: bool) -> None:
    """pi = 1/2: n = (-0.05 + 0.9 w)/2 + 0.4, f = (-0.05 + 0.9 w')/2 + 0.15, w and w' where the wind leads.

    Sure wind: w = f, w' = n; random wind: both (n + f)/2.
    """
    process, pi_SV = balloon(random_next, random_reward), torch.full((2, 2), 0.5, dtype=torch.float64)
    near, far = process.values(pi_SV).tolist()
    w, back = ((near + far) / 2,) * 2 if random_next else (far, near)
    assert near == pytest.approx((-0.05 + 0.9 * w) / 2 + 0.4) and far == pytest.approx((-0.05 + 0.9 * back) / 2 + 0.15)
    assert max(residuals(process, pi_SV).values()) < 1e-12
    total_SV, from_next_SV = target_variance(process, process.values(pi_SV))
    assert total_SV[0, 1].item() == pytest.approx(0.8 * 0.2 if random_reward else 0)  # a hit at 0.8
    assert from_next_SV[0, 0].item() == pytest.approx((0.9 * (near - far) / 2) ** 2 if random_next else 0)
    assert from_next_SV[0, 1].item() == pytest.approx(0, abs=1e-12)


def test_a_wrong_value_has_a_residual() -> None:
    class Off(Process):
        def values(self, pi_SV: torch.Tensor) -> torch.Tensor:
            return super().values(pi_SV) + torch.tensor([0.5, 0.0])

    right, pi_SV = balloon(True, True), torch.full((2, 2), 0.5, dtype=torch.float64)
    found = residuals(Off(right.p_SVO, right.reward_SVO, right.next_SVO, right.gamma), pi_SV)
    assert found["V = sum pi Q"] > 0.1 and found["V* = max E[r + gamma V*(s')]"] < 1e-12


def test_value_iteration_of_the_balloon() -> None:
    """Sure wind: near, shoot for 0.8; far, wait for -0.05 + 0.9 x 0.8 = 0.67."""
    assert balloon(False, False).optimal().tolist() == pytest.approx([0.8, 0.67])


def test_four_credits_have_one_mean() -> None:
    at = chain()
    found = moments_of_credits(at)
    for x in found.values():
        torch.testing.assert_close(x.mean_SV, true_gradient(at), rtol=1e-10, atol=1e-14)
    variances = [x.variance for x in found.values()]
    assert variances == sorted(variances, reverse=True) and variances[-1] < 0.5 * variances[0]
    whole, later = list(credits(at).values())[:2]
    r = int((at.space.length_R == 3).nonzero()[0])
    before = at.reward_SV[at.space.state_RT[r, 0], at.space.token_RT[r, 0]]
    torch.testing.assert_close(whole[r, 1] - later[r, 1], before)


@pytest.mark.parametrize("rewards", [(1.0, 0.0), (11.0, 10.0)])
def test_two_choices_by_differences(rewards: tuple[float, float]) -> None:
    def value(logit: float) -> float:
        return two_choices(logit, rewards).value

    found = two_choices(0.5, rewards)
    assert found.mean == pytest.approx((value(0.5 + 1e-5) - value(0.5 - 1e-5)) / 2e-5, rel=1e-6)
    soft = [gumbel_softmax(0.5 + h, rewards, 0.5) for h in (-1e-4, 0.0, 1e-4)]
    assert soft[1].mean == pytest.approx((soft[2].value - soft[0].value) / 2e-4, rel=1e-4)
    assert gumbel_softmax(0.5, rewards, 0.02, points=2_000_001).mean == pytest.approx(found.mean, rel=2e-3)


def test_gumbel_noise_as_it_is_sampled() -> None:
    """The logistic of the quadrature is the difference of two sampled Gumbel variables."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(2, 400_000, generator=generator, dtype=torch.float64)
    gumbel = -(-u.log()).log()
    x = torch.stack([0.5 + gumbel[0], gumbel[1]]).div(0.7).softmax(dim=0)[0]
    slope = x * (1 - x) / 0.7
    found = gumbel_softmax(0.5, (1.0, 0.0), 0.7)
    assert slope.mean().item() == pytest.approx(found.mean, abs=4 * slope.std().item() / 632)
    assert slope.var().item() == pytest.approx(found.variance, rel=0.02)


@pytest.mark.parametrize(("d", "s"), [(-2.0, 0.1), (0.5, 0.5)])
def test_gaussian_gradients_by_quadrature(d: float, s: float) -> None:
    e = torch.linspace(-9, 9, 180_001, dtype=torch.float64)
    weight = torch.exp(-e.square() / 2) / math.sqrt(2 * math.pi) * (e[1] - e[0])
    samples = {gaussian_score: -(d + s * e).square() * e / s, gaussian_path: -2 * (d + s * e)}
    for form, x in samples.items():
        mean = (weight * x).sum().item()
        found = form(d, s, 0.0)
        assert found.mean == pytest.approx(mean) and found.variance == pytest.approx(
            (weight * (x - mean) ** 2).sum().item()
        )
        assert found.value == pytest.approx((weight * -(d + s * e).square()).sum().item())


def test_ddpg_climbs_to_the_best_action() -> None:
    """The critic's first slope is near r'(0) = 2 best; the actor ends within its noise of the best."""
    path, slope = ddpg(best=-1.0, steps=150, seed=1)
    assert slope[0].item() == pytest.approx(-2.0, abs=0.3) and path[-1].item() == pytest.approx(-1.0, abs=0.02)
    assert path[1].item() == pytest.approx(0.05 * slope[0].item())


def test_the_fisher_matrix_is_the_curvature_of_the_kl() -> None:
    world = make_world(longest=2)
    old_SV = world.logits_SV
    visits_S = exact.visits(old_SV.softmax(dim=1), world.space)
    hessian = torch.autograd.functional.hessian(
        lambda x: exact.kl_divergence(old_SV, x.view_as(old_SV), world.space), old_SV.flatten()
    )
    torch.testing.assert_close(fisher(old_SV, visits_S), hessian, rtol=1e-9, atol=1e-12)


def test_a_natural_step_is_the_advantage_and_keeps_its_bound() -> None:
    world = make_world()
    at = exact.values(world.logits_SV, world.space, exact.token_reward(world.space, world.reward_R))
    centred_SV = at.a_SV - at.a_SV.mean(dim=1, keepdim=True)
    torch.testing.assert_close(natural_direction(world, world.logits_SV), centred_SV, rtol=1e-8, atol=1e-10)
    natural, plain = (trpo_step(world, 0.001, natural=n) for n in (True, False))
    for step in (natural, plain):
        assert step.kl <= 0.001 and step.after > step.before == pytest.approx(0.25)
    per_nat = [(step.after - step.before) / math.sqrt(2 * step.kl) for step in (natural, plain)]
    gradient_SV = exact.logits_gradient(world.logits_SV, world.space, world.reward_R)
    best = (gradient_SV * centred_SV).sum().sqrt().item()  # sqrt(g' F^-1 g), the largest first-order gain
    assert per_nat[0] == pytest.approx(best, rel=0.05) and per_nat[1] < 0.9 * best


def test_a_tokens_share() -> None:
    """n = 3, gamma = 1/2: 1 (1/2) / (7/8) = 4/7, and 4/7 (1 + 1/2 + 1/4) = 1; gamma 1: 1/3."""
    assert token_share(1.0, 3, 0.5) == pytest.approx(4 / 7) and token_share(1.0, 3, 1.0) == pytest.approx(1 / 3)
    assert token_share(2.0, 5, 0.999999) == pytest.approx(0.4, rel=1e-5)


def test_new_samples_under_old_statistics() -> None:
    """p 1/4 -> 1/2: (1/2 - 1/4) / sqrt(3/16) = 1/sqrt 3; sd (1/2) / (sqrt 3 / 4) = 2/sqrt 3. Unmoved: 0 and 1."""
    assert old_statistics(0.25, 0.5) == pytest.approx((1 / math.sqrt(3), 2 / math.sqrt(3)))
    assert old_statistics(0.25, 0.25) == pytest.approx((0, 1))


def test_every_cell_of_the_normalizations() -> None:
    """No exception to any condition in 1728 groups; one cell by hand: A = (2, 1, 0), n = (4, 1, 1) for Y4 = sum/sum."""
    from rlzoo.lab.textbook.lengths import STATISTICS, TARGETS

    found = SHEETS["length-normalizations"].compute()
    assert not any("exceptions" in str(x) for row in found.rows for x in row) and "0 exceptions" in found.arithmetic[0]
    group = ([Fraction(2), Fraction(1), Fraction(0)], [Fraction(4), Fraction(1), Fraction(1)])
    y1, y2, y3, y4 = (compute(group)[0] for compute in STATISTICS.values())
    assert (y1, y2, y3, y4) == (Fraction(1, 2), Fraction(1, 2), Fraction(1), Fraction(1, 2))
    assert [aim(group)[0] for aim in TARGETS.values()] == [Fraction(1, 2)] * 3
