"""Metrics by hand on one small step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from advantages import Credit
from objectives import PolicyOutput, TokenBatch, get, rollout_metrics, update_metrics
from objectives.conformance import world as zoo

LOG2, LOG4 = math.log(2), math.log(4)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_update_metrics_by_hand() -> None:
    """Three tokens with ratios 2, 1/2, 1 and advantages 1, -1, 1; the fourth is masked.

    Clips at 0.8 and 1.2: the first is dead above, the second dead below, the third alive.
    ess = (2 + 1/2 + 1)^2 / (3 (4 + 1/4 + 1)) = 12.25 / 15.75
    kl_old = mean of rho - 1 - log rho = ((1 - log 2) + (-1/2 + log 2) + 0) / 3 = 1/6
    kl_ref, D = log pi - log ref = (0, -log 2, log 4): exp(-D) - 1 + D = (0, 1 - log 2, -3/4 + log 4), sum 1/4 + log 2
    entropy = -(log old) = (3 log 2 + log 2 + log 2) / 3
    returns 1, 2, 3 (variance 2/3), residuals 1, 1, 0 (variance 2/9): explained 1 - 1/3
    """
    mask_BT = torch.tensor([[True, True, True, False]])
    out = PolicyOutput(logp_BT=row(-2 * LOG2, -2 * LOG2, -LOG2, 0), value_BT=row(0, 1, 3, 99))
    batch = TokenBatch(
        mask_BT=mask_BT,
        weight_BT=mask_BT.double() / 3,
        advantage_BT=row(1, -1, 1, 0),
        old_logp_BT=row(-3 * LOG2, -LOG2, -LOG2, 0),
        ref_logp_BT=row(-2 * LOG2, -LOG2, -LOG2 - LOG4, 0),
        old_value_BT=row(0, 1, 3, 0),
        return_BT=row(1, 2, 3, 0),
    )
    metrics = update_metrics(get("ppo[shape=none]"), out, batch)
    # -(1.2 - 0.8 + 1) / 3, and the critic's 0.5 * (1 + 1 + 0) / 2 / 3
    assert metrics["loss"] == pytest.approx(-1.4 / 3 + 0.5 / 3, rel=1e-12)
    assert (metrics["clip_low"], metrics["clip_high"], metrics["clip_fraction"]) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert (metrics["ratio_min"], metrics["ratio_mean"], metrics["ratio_max"]) == pytest.approx((0.5, 3.5 / 3, 2))
    assert metrics["ratio_std"] == pytest.approx((5.25 / 3 - (3.5 / 3) ** 2) ** 0.5, rel=1e-12)
    assert metrics["ess"] == pytest.approx(12.25 / 15.75, rel=1e-12)
    assert metrics["kl_old"] == pytest.approx(1 / 6, rel=1e-12)
    assert metrics["kl_ref"] == pytest.approx((0.25 + LOG2) / 3, rel=1e-12)
    assert metrics["entropy"] == pytest.approx(5 * LOG2 / 3, rel=1e-12)
    assert metrics["explained_variance"] == pytest.approx(2 / 3, rel=1e-12)


def test_metrics_carry_no_gradient() -> None:
    out, batch = zoo.step(get("ppo"), zoo.world())
    update_metrics(get("ppo"), out, batch)
    assert out.logp_BT.grad is None
    with torch.no_grad():
        assert update_metrics(get("ppo"), out, batch)["clip_fraction"] > 0  # differentiates the surrogate even so


def test_equal_returns_explain_nothing() -> None:
    objective = get("ppo")
    out, batch = zoo.step(objective, zoo.world())
    constant = TokenBatch(**{**vars(batch), "return_BT": torch.ones_like(batch.weight_BT)})
    assert math.isnan(update_metrics(objective, out, constant)["explained_variance"])


def test_ess_is_the_share_of_tokens_that_count() -> None:
    """One ratio of 1 and three that vanish: a quarter."""
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    batch = TokenBatch(mask_BT, zero, zero, zero)
    out = PolicyOutput(row(0, -60, -60, -60))
    assert update_metrics(get("dapo"), out, batch)["ess"] == pytest.approx(0.25, rel=1e-12)


def test_rollout_metrics_by_hand() -> None:
    """Groups: 0 differs; 1 is all 0.1; 2 has one response that counts, its other is unknown; 3 is unknown altogether.

    Two of the three groups are silent. Advantages inside the mask: 1, 1, -1, 0, 0, 0.
    """
    group_N = torch.tensor([0, 1, 0, 1, 2, 2, 3])
    reward_N = torch.tensor([1, 0.1, 0, 0.1, 5, math.nan, math.nan])
    mask_NT = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0], [1, 0], [0, 0], [0, 0]], dtype=torch.bool)
    advantage_NT = torch.zeros(7, 2)
    advantage_NT[0], advantage_NT[2] = 1, torch.tensor([-1.0, 77.0])
    metrics = rollout_metrics(reward_N, mask_NT, group_N, Credit(advantage_NT))
    assert metrics == pytest.approx(
        {
            "silent_groups": 2 / 3,
            "advantage_mean": 1 / 6,
            "advantage_std": (3 / 6 - 1 / 36) ** 0.5,
            "advantage_min": -1,
            "advantage_max": 1,
        }
    )


def test_a_rollout_without_tokens_has_no_metrics() -> None:
    nothing = rollout_metrics(torch.ones(2), torch.zeros(2, 3).bool(), torch.zeros(2).long(), Credit(torch.zeros(2, 3)))
    assert all(math.isnan(x) for x in nothing.values())


@pytest.mark.parametrize("name", ["reinforce", "grpo", "gspo"])
def test_kl_old_and_entropy_do_not_depend_on_the_objectives_ratio(name: str) -> None:
    """They describe the policies, token by token: REINFORCE has no ratio, but has drifted as far as the others."""
    objective, w = get(name), zoo.world()
    metrics = update_metrics(objective, *zoo.step(objective, w))
    old, log_rho = w.old_logp_NT[w.mask_NT], (w.logp_NT - w.old_logp_NT)[w.mask_NT]
    assert metrics["kl_old"] == pytest.approx((log_rho.exp() - 1 - log_rho).mean().item(), rel=1e-12)
    assert metrics["entropy"] == pytest.approx(-old.mean().item(), rel=1e-12)
