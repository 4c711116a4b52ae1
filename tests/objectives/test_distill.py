"""On-policy distillation: against its equation as loops, and as the gradient of a KL, exactly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from advantages import RolloutView, TeacherReward
from objectives import Objective, PolicyOutput, TokenBatch, get
from objectives.conformance import world as zoo


@pytest.mark.parametrize("seed", range(3))
def test_distill_is_its_equation(seed: int) -> None:
    """-sum_i sum_t pi_it / old_it (log teacher_it - log old_it) / tokens, off-policy"""
    w = zoo.world(seed)
    logp_NT = zoo.leaf(w.logp_NT)
    count = sum(int(n) for n in w.mask_NT.sum(dim=1))
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(16):
        for t in range(int(w.mask_NT[i].sum())):
            advantage = (w.teacher_logp_NT[i, t] - w.old_logp_NT[i, t]).item()
            expected = expected - (logp_NT[i, t] - w.old_logp_NT[i, t]).exp() * advantage / count
    expected.backward()
    loss, gradients = zoo.loss_and_gradients(get("distill"), *zoo.step(get("distill"), w))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients["logp_BT"], logp_NT.grad, rtol=1e-12, atol=0)


def test_the_tasks_reward_plays_no_part_and_a_teacher_who_agrees_teaches_nothing() -> None:
    w = zoo.world()
    other = dataclasses.replace(w, reward_N=5 - 3 * w.reward_N)
    one, two = (zoo.loss_and_gradients(get("distill"), *zoo.step(get("distill"), x)) for x in (w, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    agrees = dataclasses.replace(w, teacher_logp_NT=w.old_logp_NT)
    assert not zoo.credit(get("distill"), agrees).advantage_NT.any()


def expected_gradient(objective: Objective, t: zoo.Tabular, teacher_SV: Tensor) -> Tensor:
    """E over all responses of the surrogate's gradient in logits, each response weighted by its probability."""
    logp_RT = t.logp_RT
    old_RT = logp_RT.detach()
    teacher_RT = torch.where(t.mask_RT, teacher_SV.log_softmax(dim=1)[t.state_RT, t.token_RT], 0)
    given = {"logp_NT": old_RT, "teacher_logp_NT": teacher_RT}
    group_R = torch.zeros(len(old_RT), dtype=torch.long)
    credit = objective.credit(RolloutView.of(torch.zeros_like(old_RT), t.mask_RT, group_R, **given))
    weight_RT = t.probability_R.detach()[:, None] * t.mask_RT
    loss = objective.loss(PolicyOutput(logp_RT), TokenBatch(t.mask_RT, weight_RT, credit.advantage_NT, old_RT))
    return torch.autograd.grad(loss, t.logits_SV)[0]


@pytest.fixture
def tables() -> tuple[zoo.Tabular, Tensor]:
    t = zoo.tabular(seed=1)
    generator = torch.Generator().manual_seed(2)
    return t, torch.randn(t.logits_SV.shape, generator=generator, dtype=torch.float64)


def test_to_go_it_is_the_gradient_of_the_kl_of_whole_responses(tables: tuple[zoo.Tabular, Tensor]) -> None:
    """KL(pi || teacher) = sum_y pi(y) sum_t (log pi - log teacher), by enumeration of all 15 responses."""
    t, teacher_SV = tables
    teacher_RT = torch.where(t.mask_RT, teacher_SV.log_softmax(dim=1)[t.state_RT, t.token_RT], 0)
    kl = (t.probability_R * (t.logp_RT - teacher_RT).sum(dim=1)).sum()
    (true_SV,) = torch.autograd.grad(kl, t.logits_SV)
    found_SV = expected_gradient(get("distill[advantage.gamma=1]"), t, teacher_SV)
    torch.testing.assert_close(found_SV, true_SV, rtol=1e-10, atol=1e-13)
    assert (expected_gradient(get("distill"), t, teacher_SV) - true_SV).abs().max() > 1e-3


def test_locally_it_is_the_gradient_of_each_next_tokens_kl(tables: tuple[zoo.Tabular, Tensor]) -> None:
    """sum_s d(s) KL(pi(. | s) || teacher(. | s)), how often each state is visited held fixed."""
    t, teacher_SV = tables
    visits_S = torch.zeros(len(t.logits_SV), dtype=torch.float64)
    weight_RT = t.probability_R.detach()[:, None] * t.mask_RT
    visits_S = visits_S.index_add(0, t.state_RT[t.mask_RT], weight_RT[t.mask_RT])
    logp_SV = t.logits_SV.log_softmax(dim=1)
    kl_S = (logp_SV.exp() * (logp_SV - teacher_SV.log_softmax(dim=1))).sum(dim=1)
    (true_SV,) = torch.autograd.grad((visits_S * kl_S).sum(), t.logits_SV)
    torch.testing.assert_close(expected_gradient(get("distill"), t, teacher_SV), true_SV, rtol=1e-10, atol=1e-13)


def test_a_teachers_reward_by_hand() -> None:
    """log teacher - log pi = -1 + 3, -2 + 1; nothing outside the mask; the reward that was there is gone."""
    mask_NT = torch.tensor([[True, True, False]])
    logp_NT, teacher_NT = torch.tensor([[-3.0, -1.0, 9.0]]), torch.tensor([[-1.0, -2.0, torch.nan]])
    reward_NT = torch.full((1, 3), 7.0)
    view = RolloutView.of(reward_NT, mask_NT, torch.zeros(1), logp_NT=logp_NT, teacher_logp_NT=teacher_NT)
    assert TeacherReward()(reward_NT, view).tolist() == [[2, -1, 0]]
    with pytest.raises(ValueError, match="shape 'teacher' needs teacher_logp_NT"):
        TeacherReward()(reward_NT, TeacherReward().sees(view.only(["logp"])))


def test_what_stands_before_a_teachers_reward_would_be_lost() -> None:
    assert get("distill[shape=teacher+soft_overlong]").needs == {"logp", "teacher_logp"}
    with pytest.raises(ValueError, match=r"shape 'teacher' takes the reward's place, .* put it first"):
        get("distill[shape=soft_overlong+teacher]")
