"""Parts that reproduce a framework's convention: by hand, by enumeration, and their errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advantages import GAE, Group, GroupOthers, RewardToGo, whiten
from objectives import PolicyOutput, TokenBatch, get
from objectives.conformance import world as zoo
from objectives.parts import K1, K2, K3, KL, Response, Sequence, SoftGate

CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def advantages(part: Group | GroupOthers | RewardToGo, rewards: list[float], groups: list[int] | None = None) -> Tensor:
    reward_N1 = torch.tensor(rewards, dtype=torch.float64)[:, None]
    group_N = torch.tensor(groups or [0] * len(rewards))
    return part(reward_N1, torch.ones_like(reward_N1, dtype=torch.bool), group_N).advantage_NT.flatten()


def test_group_others_by_hand() -> None:
    """Rewards 1, 2, 4. Others' means 3, 5/2, 3/2 and stds sqrt 2, 3 / sqrt 2, 1 / sqrt 2."""
    expected = [-2 / 2**0.5, -0.5 / (3 / 2**0.5), 2.5 / (1 / 2**0.5)]
    assert advantages(GroupOthers(eps=0), [1, 2, 4]).tolist() == pytest.approx(expected)
    assert advantages(GroupOthers(scale="none"), [1, 2, 4]).tolist() == pytest.approx([-2, -0.5, 2.5])


def test_group_others_takes_any_order_of_ids_and_leaves_unknown_rewards_out() -> None:
    mixed = advantages(GroupOthers(eps=0), [1, 5, 2, 7, 4], [7, -3, 7, -3, 7])
    assert mixed[[0, 2, 4]].tolist() == pytest.approx(advantages(GroupOthers(eps=0), [1, 2, 4]).tolist())
    assert mixed[[1, 3]].tolist() == pytest.approx([-2, 2])  # the other one alone has no spread: not divided
    reward_NT = torch.tensor([[1.0], [torch.nan], [2.0], [4.0]], dtype=torch.float64)
    mask_NT = torch.tensor([[True], [False], [True], [True]])
    known = GroupOthers(eps=0)(reward_NT, mask_NT, torch.zeros(4)).advantage_NT.flatten()
    assert known[[0, 2, 3]].tolist() == pytest.approx(advantages(GroupOthers(eps=0), [1, 2, 4]).tolist())
    assert known[1] == 0


@pytest.mark.parametrize("others", [1, 2, 7, 15])
@pytest.mark.parametrize(("right", "wrong"), [(1.0, 0.0), (0.3, 0.1), (0.1, 0.7)])
def test_the_only_right_answer_is_not_divided_by_rounding(others: int, right: float, wrong: float) -> None:
    """The others are equal, their std is 0: r - mean as it is; in float32 NeMo had up to 7428."""
    for dtype in (torch.float32, torch.float64):
        reward_N1 = torch.tensor([right] + [wrong] * others, dtype=dtype)[:, None]
        mask_N1 = torch.ones_like(reward_N1, dtype=torch.bool)
        credit = GroupOthers()(reward_N1, mask_N1, torch.zeros(1 + others))
        assert credit.advantage_NT[0].item() == pytest.approx(right - wrong, rel=1e-5)
        assert credit.advantage_NT.isfinite().all() and credit.advantage_NT.abs().max() < 10


def test_the_residue_is_real() -> None:
    """E[x^2] - E[x]^2 of equal rewards in float32 is not 0, so the trap that the test above looks for exists."""
    x_N = torch.full((7,), 0.3)
    assert (x_N.square().mean() - x_N.mean().square()).abs() > 0


@pytest.mark.parametrize("part", [GroupOthers(), GroupOthers(scale="none")], ids=str)
def test_group_others_without_spread_or_company(part: GroupOthers) -> None:
    assert advantages(part, [0.1] * 5).tolist() == [0] * 5
    assert advantages(part, [3.0]).tolist() == [0]


def test_group_others_is_leave_one_out() -> None:
    """scale none: RLOO, which is the centred reward times G / (G - 1)."""
    rewards, groups = [0.3, 1.0, -2.0, 0.5, 0.1], [0, 0, 0, 1, 1]
    others = advantages(GroupOthers(scale="none"), rewards, groups)
    torch.testing.assert_close(others, advantages(RewardToGo(baseline="leave_one_out"), rewards, groups), **CLOSE)
    factor = torch.tensor([1.5, 1.5, 1.5, 2, 2], dtype=torch.float64)
    torch.testing.assert_close(others, factor * advantages(Group(scale="none"), rewards, groups), **CLOSE)


def test_a_single_response_may_keep_its_reward() -> None:
    rewards, groups = [1.0, 0.0, 0.25, -2.0], [0, 0, 1, 2]
    zero = advantages(Group(eps=1.0), rewards, groups)
    assert zero[2:].tolist() == [0, 0]
    kept = advantages(Group(eps=1.0, single="keep"), rewards, groups)
    assert kept.tolist() == [*zero[:2].tolist(), 0.125, -1]  # mean 0, std 1, eps 1
    assert advantages(Group(scale="none", single="keep"), rewards, groups)[2:].tolist() == [0.25, -2]


def test_a_single_response_without_a_token_keeps_nothing() -> None:
    mask_NT = torch.tensor([[False, False], [True, True]])
    credit = Group(single="keep")(torch.full((2, 2), torch.nan).where(~mask_NT, 1.0), mask_NT, torch.tensor([0, 1]))
    assert credit.advantage_NT[0].tolist() == [0, 0]
    assert credit.advantage_NT[1].tolist() == pytest.approx([2, 2])


def test_whitening_of_the_population() -> None:
    """1, 2, 6: mean 3, centred -2, -1, 3, squares 14: variance 14 / 2 or 14 / 3."""
    x_NT, mask_NT = torch.tensor([[1.0, 2.0, 6.0, 9.0]]).double(), torch.tensor([[True, True, True, False]])
    centred = torch.tensor([[-2.0, -1.0, 3.0, 0.0]]).double()
    torch.testing.assert_close(whiten(x_NT, mask_NT), centred / 7**0.5, rtol=1e-8, atol=0)
    torch.testing.assert_close(whiten(x_NT, mask_NT, ddof=0), centred / (14 / 3) ** 0.5, rtol=1e-8, atol=0)


def test_whitened_reward_to_go_is_gae_without_values_at_lambda_1() -> None:
    w = zoo.world()
    reward_NT = torch.where(w.mask_NT, w.ref_logp_NT, 0)
    for ddof in (0, 1):
        ours = RewardToGo(whiten=True, ddof=ddof)(reward_NT, w.mask_NT, w.group_N).advantage_NT
        gae = GAE(lam=1.0, ddof=ddof)(reward_NT, w.mask_NT, w.group_N, torch.zeros_like(reward_NT)).advantage_NT
        torch.testing.assert_close(ours, gae, **CLOSE)
        assert ours[w.mask_NT].var(correction=ddof).item() == pytest.approx(1)


@pytest.mark.parametrize("part", [RewardToGo, GAE])
def test_ddof_without_whitening_is_refused(part: type[RewardToGo] | type[GAE]) -> None:
    with pytest.raises(ValueError, match="ddof does nothing without whitening"):
        part(whiten=False, ddof=0)


def test_eps_without_std_is_refused() -> None:
    with pytest.raises(ValueError, match="eps does nothing with scale='none'"):
        GroupOthers(scale="none", eps=0.1)


def test_response_ratio_is_the_product_and_sequence_ratio_its_root() -> None:
    old_BT, mask_BT = torch.zeros(1, 3), torch.tensor([[True, True, False]])
    logp_BT = torch.tensor([[0.3, -0.1, 99.0]], requires_grad=True)
    response_BT = Response()(logp_BT, old_BT, mask_BT)
    assert response_BT.tolist() == [pytest.approx([0.2, 0.2, 0])]
    assert Sequence()(logp_BT, old_BT, mask_BT).tolist() == [pytest.approx([0.1, 0.1, 0])]
    (gradient,) = torch.autograd.grad(response_BT.sum(), logp_BT)
    assert gradient.tolist() == [[1, 1, 0]]


def test_response_ratio_has_the_gradient_of_one_action() -> None:
    """-(1/B) sum_i (pi(y_i) / old(y_i)) A_i, differentiated as it stands."""
    w = zoo.world()
    objective = get("reinforce[advantage=group_others,advantage.scale=none,ratio=response]")
    out, batch = zoo.step(objective, w)
    _, gradients = zoo.loss_and_gradients(objective, out, batch)
    logp_NT = zoo.leaf(w.logp_NT)
    (-((logp_NT - w.old_logp_NT).sum(dim=1).exp() * batch.advantage_BT[:, 0]).mean()).backward()
    torch.testing.assert_close(gradients["logp_BT"], torch.where(w.mask_NT, logp_NT.grad, 0), **CLOSE)


@pytest.mark.parametrize("ratio", [0.1, 0.9, 1.0, 1.7, 6.0])
@pytest.mark.parametrize("advantage", [-2.0, 0.5])
def test_soft_gate_has_the_slope_of_its_formula(ratio: float, advantage: float) -> None:
    """d/d log r of 4/tau sigmoid(tau (r - 1)) A is 4 s (1 - s) r A, with s the sigmoid."""
    log_r = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_()
    value = SoftGate(positive=0.8, negative=1.3)(log_r, torch.tensor(advantage, dtype=torch.float64))
    (slope,) = torch.autograd.grad(value, log_r)
    tau = 0.8 if advantage > 0 else 1.3
    s = 1 / (1 + 2.718281828459045 ** (-tau * (ratio - 1)))
    assert value.item() == pytest.approx(4 / tau * s * advantage)
    assert slope.item() == pytest.approx(4 * s * (1 - s) * ratio * advantage)


# KL: what the correction is for.

PI = torch.tensor([0.7, -0.4, 0.1, 1.3, -1.1], dtype=torch.float64)
REF = torch.tensor([0.2, 0.3, -0.6, 0.9, 0.4], dtype=torch.float64).log_softmax(0)
OLD = torch.tensor([0.9, 0.0, -0.3, 0.8, -0.9], dtype=torch.float64).log_softmax(0)


def reverse_kl() -> tuple[Tensor, Tensor]:
    """KL(pi || ref) and its gradient by pi's logits."""
    logits_V = PI.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    kl = (logp_V.exp() * (logp_V - REF)).sum()
    return kl.detach(), torch.autograd.grad(kl, logits_V)[0]


def expected(part: KL, drawn_from: Tensor) -> tuple[Tensor, Tensor]:
    """E of the cost and of its gradient, over tokens drawn from `drawn_from`, through an objective's own terms."""
    objective = get("grpo").but(kl=part)
    logits_V = PI.clone().requires_grad_()
    logp_B1 = logits_V.log_softmax(0)[:, None]
    batch = TokenBatch(
        mask_BT=torch.ones_like(logp_B1, dtype=torch.bool),
        weight_BT=drawn_from.exp()[:, None],
        advantage_BT=torch.zeros_like(logp_B1).detach(),
        old_logp_BT=drawn_from[:, None],
        ref_logp_BT=REF[:, None],
    )
    cost = objective.terms(PolicyOutput(logp_B1), batch)["kl"]
    return cost.detach(), torch.autograd.grad(cost, logits_V)[0]


@pytest.mark.parametrize("kind", [K1, K3])
@pytest.mark.parametrize("correction", ["score", "ratio"])
def test_corrected_kl_follows_the_reverse_kl_on_policy(kind: type[KL], correction: str) -> None:
    value, gradient = expected(kind(coef=1, correction=correction), PI.log_softmax(0))
    torch.testing.assert_close((value, gradient), reverse_kl(), **CLOSE)


@pytest.mark.parametrize("kind", [K1, K3])
def test_kl_times_the_ratio_follows_it_off_policy_too(kind: type[KL]) -> None:
    torch.testing.assert_close(expected(kind(coef=1, correction="ratio"), OLD), reverse_kl(), **CLOSE)
    for correction in ("none", "score"):
        assert (expected(kind(coef=1, correction=correction), OLD)[1] - reverse_kl()[1]).abs().max() > 1e-3


def test_score_leaves_the_value_alone() -> None:
    plain, scored = (expected(K3(coef=1, correction=correction), OLD)[0] for correction in ("none", "score"))
    torch.testing.assert_close(plain, scored, **CLOSE)


@pytest.mark.parametrize("kind", [K1, K3])
def test_one_correction_is_enough(kind: type[K1] | type[K3]) -> None:
    with pytest.raises(ValueError, match="keep one of the two"):
        kind(straight_through=True, correction="score")


@pytest.mark.parametrize(
    ("part", "cost", "slope"),
    [
        (K1(coef=2, bound=3), -6, 0),  # D = -4
        (K1(coef=2, bound=5), -8, 2),
        (K2(coef=2, bound=3), 6, 0),  # D^2 / 2 = 8
        (K3(coef=2, bound=10), 20, 0),  # e^4 - 5 = 49.6
        (K3(coef=1, bound=10, straight_through=True), 10, -4),  # the bound is the value's, the gradient k2's
    ],
    ids=str,
)
def test_bound(part: KL, cost: float, slope: float) -> None:
    logp = torch.tensor(-5.0, dtype=torch.float64, requires_grad=True)
    value = part(logp, torch.tensor(-1.0, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value, logp)
    assert (value.item(), gradient.item()) == (pytest.approx(cost), pytest.approx(slope))
