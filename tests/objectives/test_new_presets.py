"""Presets of 2025 and 2026 against their equations, written out in plain Python: advantages, and each token's gradient.

Every surrogate here has the gradient sum of w A weight for some weight w of the token, so a preset is checked by what
its equation says w and A are. The world has ratios on both sides of 1, mixed and silent groups, and unequal lengths.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from advantages import RolloutView
from objectives import get
from objectives.conformance import world as zoo
from objectives.parts import AdaptiveBonus, GeometricCorrection, TokenCorrection

GROUPS = [range(4 * g, 4 * g + 4) for g in range(4)]
Weights = Callable[[list[float], float], list[float]]
"""Log-ratios of a response's tokens and its advantage -> w of each token."""


def rows(x_NT: Tensor, w: zoo.World) -> list[list[float]]:
    return [x[m].tolist() for x, m in zip(x_NT, w.mask_NT, strict=True)]


def away() -> zoo.World:
    """The world with ratios four times as far from 1, so that edges of 0.2 act often."""
    w = zoo.world()
    return replace(w, logp_NT=w.old_logp_NT + 4 * (w.logp_NT - w.old_logp_NT))


def std(values: Sequence[float]) -> float:
    return statistics.stdev(values) + 1e-6


def grpo(r: list[float]) -> list[float]:
    return [0.0] * len(r) if max(r) == min(r) else [(x - statistics.mean(r)) / std(r) for x in r]


def mean_only(r: list[float]) -> list[float]:
    return [x - statistics.mean(r) for x in r]


def maxrl(r: list[float]) -> list[float]:
    mean = statistics.mean(r)
    return [(x - mean) / mean if mean > 0 else 0.0 for x in r]


def passk(r: list[float]) -> list[float]:
    """verl's: the best gets its lead over the second best, over the std of the group."""
    second, best = sorted(r)[-2:]
    return [(best - second) / std(r) if x == best and best > second else 0.0 for x in r]


ADVANTAGE = {
    "maxrl": maxrl,
    "passk_grpo": passk,
    **dict.fromkeys(("topr", "dro"), mean_only),
    **dict.fromkeys(("rgra", "vespo", "opsm", "ce_gppo", "aspo", "icepop"), grpo),
}


@pytest.mark.parametrize("name", ADVANTAGE)
def test_advantage_is_the_equations(name: str) -> None:
    w = zoo.world()
    w = replace(w, reward_N=torch.tensor([1, 0, 3, 0.5, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 1], dtype=torch.float64))
    expected = [a for group in GROUPS for a in ADVANTAGE[name]([w.reward_N[i].item() for i in group])]
    found = zoo.credit(get(name), w).advantage_NT
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.equal(found, torch.where(w.mask_NT, found[:, :1], 0))


def ones(log_ratios: list[float], a: float) -> list[float]:
    return [1.0] * len(log_ratios)


def taper(log_ratios: list[float], a: float) -> list[float]:
    whole = math.exp(sum(log_ratios))
    return [1.0 if a > 0 else min(whole, 1.0)] * len(log_ratios)


def gamma(log_ratios: list[float], a: float) -> list[float]:
    """TRL's `get_gamma_weights`: log w = clamp(sum of log-ratios), phi = exp(lambda + k log w - lambda w)."""
    k, lam = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
    log_w = min(max(sum(min(max(x, -20.0), 20.0) for x in log_ratios), math.log(1e-8)), 20.0)
    return [math.exp(lam + k * log_w - lam * math.exp(log_w))] * len(log_ratios)


def clip(log_ratios: list[float], a: float) -> list[float]:
    r = [math.exp(x) for x in log_ratios]
    return [0.0 if (a > 0 and x > 1.2) or (a < 0 and x < 0.8) else x for x in r]


def sequence_mask(log_ratios: list[float], a: float) -> list[float]:
    """TRL's `get_off_policy_mask`: keep if A >= 0 or the mean of old - new is at most the threshold, here 0.05."""
    kept = a >= 0 or -statistics.mean(log_ratios) <= 0.05
    return [x * kept for x in clip(log_ratios, a)]


def preserve(log_ratios: list[float], a: float) -> list[float]:
    r = [math.exp(x) for x in log_ratios]
    return [1.0 * 1.2 if a > 0 and x > 1.2 else 0.5 * 0.8 if a < 0 and x < 0.8 else x for x in r]


def flip(log_ratios: list[float], a: float) -> list[float]:
    kept = [x != 0 for x in clip(log_ratios, a)]
    r = [math.exp(x) for x in log_ratios]
    return [k * (min(1 / x, 3.0) if a > 0 else x) for k, x in zip(kept, r, strict=True)]


SURROGATE: dict[str, Weights] = {
    **dict.fromkeys(("maxrl", "gpg", "dro", "spo[ratio=none,surrogate=linear]", "rgra"), ones),
    "topr": taper,
    "vespo": gamma,
    "opsm[surrogate.drift=0.05]": sequence_mask,
    "ce_gppo": preserve,
    "aspo": flip,
    "gfpo": clip,
}


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("name", SURROGATE)
def test_each_tokens_gradient_is_its_weight_times_its_advantage(name: str, far: bool) -> None:
    w, objective = away() if far else zoo.world(), get(name)
    out, batch = zoo.step(objective, w)
    (gradient,) = torch.autograd.grad(objective.terms(out, batch)["surrogate"], out.logp_BT)
    told = rows(w.logp_NT - w.old_logp_NT, w)
    acted = set()
    for i, log_ratios in enumerate(told):
        a = batch.advantage_BT[i, 0].item()
        weights = SURROGATE[name](log_ratios, a)
        acted |= {weight for weight in weights if a}
        expected = [-x * a * batch.weight_BT[i, t].item() for t, x in enumerate(weights)]
        assert gradient[i, w.mask_NT[i]].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert SURROGATE[name] is ones or len(acted) > 3


def test_drift_masks_bad_responses_and_no_good_ones() -> None:
    """Mean log-ratios are -0.2 and -0.4 with A < 0, -0.4 with A > 0: beyond 0.3 the second loses its gradient."""
    surrogate = get("opsm[surrogate.drift=0.3]").surrogate
    log_ratio_BT = torch.tensor([[-0.1, -0.3], [-0.7, -0.1], [-0.7, -0.1]], requires_grad=True)
    advantage_BT = torch.tensor([[-1.0], [-1.0], [1.0]]).expand(3, 2)
    (slope,) = torch.autograd.grad(
        surrogate.in_rows(log_ratio_BT, advantage_BT, torch.ones(3, 2).bool()).sum(), log_ratio_BT
    )
    assert (slope != 0).tolist() == [[True, False], [False, False], [True, True]]  # e^-0.3 = 0.74 is clipped


def test_dro_pays_half_the_square_of_the_log_ratio() -> None:
    """beta / 2 (log pi - log old)^2 per token, slope beta (log pi - log old), as Tinker's `dro`."""
    w, objective = zoo.world(), get("dro")
    out, batch = zoo.step(objective, w)
    (gradient,) = torch.autograd.grad(objective.terms(out, batch)["kl"], out.logp_BT)
    expected = 0.05 * (w.logp_NT - w.old_logp_NT) * batch.weight_BT
    torch.testing.assert_close(gradient, torch.where(w.mask_NT, expected, 0), rtol=1e-12, atol=1e-15)


def test_maxrl_climbs_the_truncated_likelihood() -> None:
    """Two answers, right with p = s(z): E[gradient] = (1 - (1-p)^(G-1)) / p dp/dz, by all 2^G groups."""
    size, z = 4, 0.3
    p = 1 / (1 + math.exp(-z))
    expected_gradient = 0.0
    for code in range(2**size):
        right = [float(code >> i & 1) for i in range(size)]
        chance = math.prod(p if x else 1 - p for x in right)
        mask_NT, reward_NT = torch.ones(size, 1, dtype=torch.bool), torch.tensor(right).double()[:, None]
        a = get("maxrl").advantage(reward_NT, mask_NT, torch.zeros(size)).advantage_NT[:, 0].tolist()
        scores = [(1 - p) if x else -p for x in right]
        expected_gradient += chance * sum(x * y for x, y in zip(a, scores, strict=True)) / size
    assert expected_gradient == pytest.approx((1 - (1 - p) ** (size - 1)) / p * p * (1 - p), rel=1e-9)


def test_gpg_undoes_the_silent_groups() -> None:
    """Two of four groups are mixed: alpha = 16 / 8."""
    w = zoo.world()
    found = zoo.credit(get("gpg"), w).advantage_NT[:, 0]
    plain = zoo.credit(get("gpg[advantage.scale=none]"), w).advantage_NT[:, 0]
    torch.testing.assert_close(found, 2 * plain, rtol=1e-12, atol=1e-15)


def test_gfpo_learns_from_the_shorter_half() -> None:
    """Lengths 3, 7, 5, 1 with rewards 1, 0, 1, 0: the two shortest have 1 and 0, mean 1/2, std 1/sqrt 2."""
    w = zoo.world()
    found = zoo.credit(get("gfpo"), w).advantage_NT[:4, 0]
    half = 0.5 / (math.sqrt(0.5) + 1e-6)
    assert found.tolist() == pytest.approx([half, 0, 0, -half])
    # reward per token 1/3, 0, 1/5, 0: the first and the third, both right
    assert not zoo.credit(get("gfpo[advantage.by=efficient]"), w).advantage_NT[:4].any()


def test_raft_is_the_mean_log_likelihood_of_what_is_right() -> None:
    w, objective = zoo.world(), get("raft")
    out, batch = zoo.step(objective, w)
    _, gradients = zoo.loss_and_gradients(objective, out, batch)
    right_NT = w.mask_NT & (w.accuracy_N > 0.5)[:, None]
    expected = torch.where(right_NT, -1 / right_NT.sum(), 0).double()
    torch.testing.assert_close(gradients["logp_BT"], expected, rtol=1e-6, atol=1e-9)


def test_gdpo_normalizes_each_reward_by_itself() -> None:
    """A reward a thousand times smaller counts as much; a third that is equal in every group counts nothing."""
    w, generator = zoo.world(), torch.Generator().manual_seed(3)
    first_N, second_N = (torch.randn(16, generator=generator, dtype=torch.float64) for _ in range(2))
    named_NK = torch.stack([first_N, 0.001 * second_N, torch.full((16,), 5.0).double()], dim=1)
    found = zoo.credit(get("gdpo[advantage.eps=0]"), w.with_rewards(("a", "b", "c"), named_NK)).advantage_NT[:, 0]
    added: list[float] = []
    for group in GROUPS:
        columns = [[x[i].item() for i in group] for x in (first_N, second_N)]
        scaled = [[(x - statistics.mean(c)) / statistics.stdev(c) for x in c] for c in columns]
        added += [a + b for a, b in zip(*scaled, strict=True)]
    expected = [(x - statistics.mean(added)) / statistics.stdev(added) for x in added]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_spo_tracks_each_prompts_success() -> None:
    """Counts 1, 1; after rewards 1, 0, 1, 0 they are 0.9 + 2 each: still 1/2; after four right ones 0.9 + 4 and 0.9."""
    w, objective = zoo.world(), get("spo[advantage.whiten=false]")
    first = zoo.credit(objective, w).advantage_NT[:, 0]
    torch.testing.assert_close(first, w.reward_N - 0.5)
    objective = objective.at(zoo.next_states(objective, w))
    assert objective.advantage.state["prompt 2"] == pytest.approx([4.9, 0.9])
    second = zoo.credit(objective, w).advantage_NT[:, 0]
    assert second[0] == pytest.approx(0.5) and second[8] == pytest.approx(1 - 4.9 / 5.8)


def test_icepop_masks_both_sides() -> None:
    """Weights 0.4, 0.6, 4, 6: kept between 0.5 and 5."""
    weight_BT = torch.tensor([[0.4, 0.6, 4.0, 6.0]], dtype=torch.float64)
    part = get("icepop").correction
    assert part == TokenCorrection(floor=0.5, cap=5.0, beyond="mask")
    told = part(weight_BT.log(), torch.zeros(1, 4).double(), torch.ones(1, 4).bool())
    assert told.tolist() == [pytest.approx([0, 0.6, 4, 0])]


def test_a_geometric_correction_is_the_mean_of_the_logs() -> None:
    """Weights 4 and 1 beside one outside the mask: sqrt 4 = 2 at both."""
    gap_BT = torch.tensor([[4.0, 1.0, 9.0]], dtype=torch.float64).log()
    mask_BT = torch.tensor([[True, True, False]])
    told = GeometricCorrection(cap=None)(gap_BT, torch.zeros(1, 3).double(), mask_BT)
    assert told[0, :2].tolist() == pytest.approx([2, 2])


def test_an_adaptive_bonus_moves_towards_its_target() -> None:
    """Entropy of the sampled tokens is 1.5: below a target of 2 the coefficient grows, above 1 it falls to 0."""
    mask_NT, logp_NT = torch.tensor([[True, True]]), torch.tensor([[-1.0, -2.0]])
    view = RolloutView.of(logp_NT, mask_NT, torch.zeros(1), logp_NT=logp_NT)
    assert AdaptiveBonus(target=2).next_state(0.01, view) == pytest.approx(0.015)
    assert AdaptiveBonus(target=1).next_state(0.003, view) == 0
    assert AdaptiveBonus(target=2).at(0.5)(torch.tensor([[3.0]])).item() == pytest.approx(-1.5)


def test_cut_responses_leave_the_loss_and_stay_in_the_mean() -> None:
    """Rewards 1, 0, 1, 0 of which the second is cut: its group's mean is still 1/2, and 9 tokens are left."""
    w, objective = zoo.world(), get("dapo[shape=overlong_filter,advantage.scale=none]")
    w = replace(w.rows(torch.arange(4)), finished_N=torch.tensor([True, False, True, True]))
    _, batch = zoo.step(objective, w)
    assert batch.mask_BT.any(dim=1).tolist() == [True, False, True, True]
    assert batch.advantage_BT[:, 0].tolist() == [0.5, 0, 0.5, -0.5]
    assert batch.weight_BT[batch.mask_BT].tolist() == pytest.approx([1 / 9] * 9)  # 3 + 5 + 1 tokens


def test_dppo_stops_what_moved_far_in_probability_and_not_in_ratio() -> None:
    """0.001 -> 0.01 is a ratio of 10 and a move of 0.009; 0.5 -> 0.71 is one of 1.42 and 0.21, beyond 0.2."""
    old_BT = torch.tensor([[0.001, 0.5, 0.5, 0.6]], dtype=torch.float64)
    new_BT = torch.tensor([[0.01, 0.71, 0.69, 0.35]], dtype=torch.float64)
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    for sign, stopped in ((1.0, [1]), (-1.0, [3])):
        leaf = zoo.leaf((new_BT / old_BT).log())
        x_BT = get("dppo").surrogate.of_tokens(leaf, sign * mask_BT.double(), mask_BT, old_BT.log())
        (slope,) = torch.autograd.grad(x_BT.sum(), leaf)
        ratios = (new_BT / old_BT)[0].tolist()
        assert slope[0].tolist() == pytest.approx([0 if i in stopped else sign * r for i, r in enumerate(ratios)])


def test_prompt_mean_weighs_prompts_equally_and_their_tokens() -> None:
    """Prompt 7 has 1 + 3 tokens, prompt 2 has 2 and a response without any, prompt 5 none: 1/2 / 4 and 1/2 / 2."""
    mask_BT = torch.arange(3) < torch.tensor([1, 2, 3, 0, 0])[:, None]
    weight_BT = get("scale_rl").weigh(mask_BT, torch.tensor([7, 2, 7, 2, 5]), torch.float64)
    assert weight_BT.tolist() == [[1 / 8, 0, 0], [1 / 4, 1 / 4, 0], [1 / 8] * 3, [0] * 3, [0] * 3]
    assert torch.equal(get("grpo").weigh(mask_BT, torch.zeros(5)), get("grpo").aggregate(mask_BT))
    with pytest.raises(ValueError, match="aggregate 'prompt_mean' needs group_B"):
        get("scale_rl").aggregate(mask_BT)


def test_only_the_widest_tokens_are_learned_from() -> None:
    """Of five tokens with entropies 0.1 to 0.5 the top 40% are two: the others are marked and have no gradient."""
    entropy_BT = torch.tensor([[0.1, 0.5, 0.3, 0.2, 0.4, 9.0]])
    mask_BT = torch.tensor([[True] * 5 + [False]])
    part = get("top_entropy[tokens.share=0.4]").tokens
    assert part is not None
    chosen_BT = part.choose(entropy_BT, entropy_BT, mask_BT, entropy_BT=entropy_BT)  # type: ignore[call-arg]
    assert chosen_BT.tolist() == [[True, False, True, True, False, False]]
    w, objective = zoo.world(), get("top_entropy")
    out, batch = zoo.step(objective, w)
    (gradient,) = torch.autograd.grad(objective.loss(out, batch), out.logp_BT)
    assert not gradient[batch.chosen_BT].any() and gradient[~batch.chosen_BT & w.mask_NT].any()
    assert (~batch.chosen_BT & w.mask_NT).sum() == 15  # of 75 tokens
