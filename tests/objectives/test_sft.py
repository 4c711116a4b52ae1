"""SFT is maximum likelihood: against the equation as loops, and as the policy gradient that it is."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from advantages import Demonstrated
from objectives import get, update_metrics
from objectives.conformance import world as zoo
from objectives.parts import Log


def demonstrations(seed: int = 0) -> zoo.World:
    """A rollout of demonstrations: whoever wrote them gave them probability 1."""
    w = zoo.world(seed)
    return dataclasses.replace(w, old_logp_NT=torch.zeros_like(w.old_logp_NT))


@pytest.mark.parametrize("seed", range(3))
def test_sft_is_the_negative_log_likelihood_per_token(seed: int) -> None:
    w = demonstrations(seed)
    logp_NT = zoo.leaf(w.logp_NT)
    count = sum(int(n) for n in w.mask_NT.sum(dim=1))
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(16):
        for t in range(int(w.mask_NT[i].sum())):
            expected = expected - logp_NT[i, t] / count
    expected.backward()
    loss, gradients = zoo.loss_and_gradients(get("sft"), *zoo.step(get("sft"), w))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients["logp_BT"], logp_NT.grad, rtol=1e-12, atol=0)


def test_rewards_play_no_part() -> None:
    w = demonstrations()
    other = dataclasses.replace(w, reward_N=5 - 3 * w.reward_N)
    one, two = (zoo.loss_and_gradients(get("sft"), *zoo.step(get("sft"), x)) for x in (w, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_one_demonstration_one_vote() -> None:
    """Two responses of 1 and 3 tokens with log-probs -1 and -2: (1 + 2) / 2 by response, (1 + 3 * 2) / 4 by token."""
    w = demonstrations()
    w = dataclasses.replace(w.rows(torch.tensor([3, 0])), accuracy_PG=w.accuracy_PG[:1])
    w = dataclasses.replace(w, logp_NT=torch.where(w.mask_NT, torch.tensor([[-1.0], [-2.0]]).double(), 0))
    losses = [get(name).loss(*zoo.step(get(name), w)).item() for name in ("sft", "sft[aggregate=sequence_mean]")]
    assert losses == pytest.approx([7 / 4, 3 / 2], rel=1e-12)


def test_the_ratio_is_the_probability_of_what_was_written() -> None:
    w = demonstrations()
    metrics = update_metrics(get("sft"), *zoo.step(get("sft"), w))
    assert metrics["ratio_mean"] == pytest.approx(w.logp_NT[w.mask_NT].exp().mean().item(), rel=1e-12)
    assert metrics["clip_fraction"] == 0


def test_on_samples_of_the_policy_the_logarithm_has_the_linear_ones_gradient() -> None:
    w = zoo.world().on_policy()
    log, linear = (
        zoo.loss_and_gradients(get(name), *zoo.step(get(name), w))[1]
        for name in ("gspo[ratio=token,surrogate=log]", "gspo[ratio=token,surrogate=linear]")
    )
    torch.testing.assert_close(log, linear, rtol=1e-12, atol=1e-14)


def test_the_logarithm_by_hand() -> None:
    """log 2 * 3, log 1/2 * -1; the slope in log r is A at every ratio."""
    log_ratio = torch.tensor([math.log(2), -math.log(2)], dtype=torch.float64, requires_grad=True)
    gain = Log()(log_ratio, torch.tensor([3.0, -1.0], dtype=torch.float64))
    assert gain.tolist() == pytest.approx([3 * math.log(2), math.log(2)])
    assert torch.autograd.grad(gain.sum(), log_ratio)[0].tolist() == [3, -1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sft[shape=kl]", "advantage 'imitation' ignores rewards, so shape does nothing: set shape='none'"),
        ("sft[ratio=none]", "with ratio 'none' every ratio is 1 and surrogate 'log' is inert: set surrogate='linear'"),
    ],
)
def test_what_would_do_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get(name)


def test_every_token_of_a_demonstration_is_worth_one() -> None:
    mask_NT = torch.tensor([[True, True], [True, False], [False, False]])
    credit = Demonstrated()(torch.full((3, 2), math.nan), mask_NT, torch.zeros(3, dtype=torch.long))
    assert credit.advantage_NT.tolist() == [[1, 1], [1, 0], [0, 0]] and credit.return_NT is None
    assert get("sft").needs == {"demonstration"}
