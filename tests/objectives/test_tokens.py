"""The tokens that an objective chooses: which they are, and what becomes of them."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from objectives import get
from objectives.conformance import world as zoo
from objectives.parts import ClipCov, KLCov, Tokens
from objectives.parts.tokens import covariance


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


MASK = torch.tensor([[True, True, True], [True, True, False]])
LOGP = doubles([-1, -2, -3], [-4, -5, 99])
ADVANTAGE = doubles([1, 1, 1], [-1, -1, 99])
"""Means over the five tokens: log-prob -3, advantage 1/5. Centred: (2, 1, 0, -1, -2) and (.8, .8, .8, -1.2, -1.2)."""
COVARIANCE = doubles([1.6, 0.8, 0], [1.2, 2.4, 0])


def test_covariance_by_hand() -> None:
    torch.testing.assert_close(covariance(LOGP, ADVANTAGE, MASK), COVARIANCE, rtol=1e-14, atol=1e-15)
    spoiled = torch.where(MASK, LOGP, torch.nan)
    assert torch.equal(covariance(spoiled, ADVANTAGE, MASK), covariance(LOGP, ADVANTAGE, MASK))


def test_its_mean_is_the_covariance() -> None:
    """(1.6 + .8 + 0 + 1.2 + 2.4) / 5 = 1.2, and Cov(x, y) = sum (x - mean)(y - mean) / n."""
    x, y = LOGP[MASK].tolist(), ADVANTAGE[MASK].tolist()
    assert COVARIANCE[MASK].mean().item() == pytest.approx(statistics.covariance(x, y) * 4 / 5, rel=1e-14)


@pytest.mark.parametrize(
    ("part", "chosen"),
    [
        (KLCov(share=1e-4), {(1, 1)}),  # at least one: the largest, 2.4
        (KLCov(share=0.4), {(1, 1), (0, 0)}),  # two of five: 2.4, 1.6
        (KLCov(share=0.59), {(1, 1), (0, 0)}),  # 2.95 tokens: rounded down
        (KLCov(share=1), {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}),
        (ClipCov(share=1, low=1, high=2), {(0, 0), (1, 0)}),  # all between the bounds: 1.6, 1.2
        (ClipCov(share=1, low=1.2, high=2.4), {(0, 0)}),  # the bounds themselves are outside
        (ClipCov(share=1, low=3, high=5), set()),
        (ClipCov(share=1e-4, low=-1, high=5), {(1, 0)}),  # one of five: the middle one of 0, .8, 1.2, 1.6, 2.4
        (ClipCov(share=0.4, low=-1, high=5), {(0, 1), (0, 0)}),  # two: places 5 // 4 and 15 // 4, .8 and 1.6
    ],
    ids=str,
)
def test_which_tokens_are_chosen(part: Tokens, chosen: set[tuple[int, int]]) -> None:
    chosen_BT = part.choose(LOGP, ADVANTAGE, MASK)
    assert chosen_BT.dtype == torch.bool
    assert {tuple(place) for place in chosen_BT.nonzero().tolist()} == chosen


@pytest.mark.parametrize("part", [KLCov(share=0.3), ClipCov(share=0.3, low=0.05)], ids=str)
def test_the_order_of_rows_and_padding_do_not_choose(part: Tokens) -> None:
    w = zoo.world(1)
    advantage_NT = zoo.credit(get("grpo"), w).advantage_NT
    chosen_NT = part.choose(w.old_logp_NT, advantage_NT, w.mask_NT)
    assert 5 < chosen_NT.sum() < 40
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    given = (w.old_logp_NT, advantage_NT, w.mask_NT)
    assert torch.equal(part.choose(*(x[order] for x in given)), chosen_NT[order])
    wide = [torch.nn.functional.pad(x, (2, 3)) for x in given]
    assert torch.equal(part.choose(*wide), torch.nn.functional.pad(chosen_NT, (2, 3)))


@pytest.mark.parametrize("part", [KLCov(), ClipCov()], ids=str)
def test_a_step_without_tokens_chooses_none(part: Tokens) -> None:
    assert not part.choose(LOGP, ADVANTAGE, torch.zeros_like(MASK)).any()


def test_padding_is_never_chosen() -> None:
    """Centred log-probs (1, -1) times centred advantages (-1, 1): both covariances are -1, below padding's 0."""
    logp, advantage = doubles([-1, -3, 0, 0]), doubles([-1, 1, 0, 0])
    mask = torch.tensor([[True, True, False, False]])
    assert covariance(logp, advantage, mask).tolist() == [[-1, -1, 0, 0]]
    for share in (1e-4, 0.5, 1):
        chosen = KLCov(share=share).choose(logp, advantage, mask)
        assert chosen.sum() == max(1, int(share * 2)) and not chosen[~mask].any()


def test_a_systematic_sample_covers_its_range() -> None:
    """Ten of a hundred covariances in a row: one from every ten, the sixth of each."""
    logp_1T = torch.arange(100).double()[None] / 10
    advantage_1T = logp_1T - logp_1T.mean() + 1
    mask_1T = torch.ones(1, 100, dtype=torch.bool)
    cov = covariance(logp_1T, advantage_1T, mask_1T)
    place = ClipCov(share=0.1, low=-1, high=1e9).choose(logp_1T, advantage_1T, mask_1T).flatten().nonzero().flatten()
    rank = cov.flatten().argsort().argsort()[place].sort().values
    assert len(place) == 10
    assert rank.tolist() == list(range(5, 100, 10))


def test_clip_cov_takes_the_gradient_and_nothing_else() -> None:
    log_ratio = doubles([0.3, -0.3]).requires_grad_()
    gain = log_ratio.exp() * doubles([2, 2])
    treated = ClipCov()(gain, log_ratio, torch.tensor([[True, False]]))
    assert torch.equal(treated, gain)
    (slope,) = torch.autograd.grad(treated.sum(), log_ratio)
    assert slope.flatten().tolist() == pytest.approx([0, 2 * 0.7408182206817179])


def test_kl_cov_pays_for_the_distance_in_both_directions() -> None:
    """r A - 2 |log r|: slopes r A -+ 2, and at r = 1 none beyond A."""
    log_ratio = doubles([0.3, -0.3, 0, 0.3]).requires_grad_()
    treated = KLCov(coef=2)(log_ratio.exp(), log_ratio, torch.tensor([[True, True, True, False]]))
    r = 1.3498588075760032
    assert treated.flatten().tolist() == pytest.approx([r - 0.6, 1 / r - 0.6, 1, r])
    (slope,) = torch.autograd.grad(treated.sum(), log_ratio)
    assert slope.flatten().tolist() == pytest.approx([r - 2, 1 / r + 2, 1, r])


def test_on_policy_kl_cov_is_inert_and_clip_cov_is_not() -> None:
    base = get("grpo[kl=none,surrogate=linear,aggregate=token_mean]")
    assert get("kl_cov").at_ratio_one() == base.at_ratio_one()
    assert get("clip_cov").at_ratio_one() != base.at_ratio_one()
    on_policy = zoo.world(1).on_policy()
    plain, paying, silent = (
        zoo.loss_and_gradients(objective, *zoo.step(objective, on_policy))[1]["logp_BT"]
        for objective in (base, get("kl_cov"), get("clip_cov"))
    )
    assert torch.equal(plain, paying)
    assert (plain != silent).sum() == 1  # the one token of 75


def test_the_choice_is_made_once_for_the_whole_step() -> None:
    """A micro-batch that chose for itself would choose others: at least one in each."""
    w = zoo.world(1)
    objective = get("kl_cov")
    _, batch = zoo.step(objective, w)
    assert batch.chosen_BT is not None and batch.chosen_BT.sum() == 1
    halves = [batch.rows(slice(0, 8)), batch.rows(slice(8, 16))]
    assert [int(half.chosen_BT.sum()) for half in halves if half.chosen_BT is not None] in ([1, 0], [0, 1])
    alone = [objective.choose(half.old_logp_BT, half.advantage_BT, half.mask_BT) for half in halves]
    assert [int(chosen.sum()) for chosen in alone if chosen is not None] == [1, 1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="low 5 must be below high 5"):
        ClipCov(low=5)
    with pytest.raises(ValueError, match="tokens 'kl_cov' is inert: set tokens='none', or ratio='token'"):
        get("reinforce[tokens=kl_cov]")
    assert get("reinforce[tokens=clip_cov]").tokens == ClipCov()
    out, batch = zoo.step(get("grpo"), zoo.world())
    with pytest.raises(ValueError, match=r"kl_cov needs TokenBatch\.chosen_BT, which is None"):
        get("kl_cov").loss(out, batch)
