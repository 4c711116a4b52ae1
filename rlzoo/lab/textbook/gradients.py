"""Policy gradients: G, G_t, Q or A, J and its surrogates, the Gumbel-softmax, continuous actions."""

from __future__ import annotations

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.evaluation import Chain
from rlzoo.lab.plots import Plot
from rlzoo.lab.reparameterized import ddpg, gaussian_path, gaussian_score, gumbel_softmax, two_choices
from rlzoo.lab.single import Single, relative_difference, single
from rlzoo.lab.situation import first_update
from rlzoo.lab.textbook.sheet import Cell, Sheet, sheet
from rlzoo.lab.textbook.values import chain
from rlzoo.lab.world import make_world


def credits(at: Chain) -> dict[str, Tensor]:
    """Return the possible factors of grad log pi, at every token of every response, [R, T]."""
    space, known, gain_RT = at.space, at.exact(), at.gains()
    whole_RT = torch.where(space.mask_RT, gain_RT[:, :1], 0)
    q_RT, a_RT = (
        torch.where(space.mask_RT, x_SV[space.state_RT, space.token_RT], 0) for x_SV in (known.q_SV, known.a_SV)
    )
    return {"G (whole response)": whole_RT, "G_t (from t on)": gain_RT, "Q(s, a)": q_RT, "A(s, a)": a_RT}


def true_gradient(at: Chain) -> Tensor:
    """Return the gradient of E[G_0] in the logits, by autograd over all responses."""
    return exact.logits_gradient(at.logits_SV, at.space, at.gains()[:, 0])


def moments_of_credits(at: Chain) -> dict[str, Single]:
    """Bias and variance of one response's gradient under each credit."""
    world = make_world(longest=at.space.longest)
    return {name: single(first_update(world), c_RT, true_gradient(at)) for name, c_RT in credits(at).items()}


@sheet("credit", "G, G_t, Q and A in the policy gradient: one expectation, four variances", "1506.02438, section 2")
def credit_sheet() -> Sheet:
    at = chain()
    found = moments_of_credits(at)
    rows: list[list[Cell]] = [[name, x.bias, x.variance, x.cosine] for name, x in found.items()]
    law_R, last = exact.probability(at.logits_SV, at.space), list(found.values())[-1]
    tokens = (law_R * at.space.length_R).sum().item()
    return Sheet(
        ["credit", "squared bias", "variance", "cosine"],
        rows,
        [
            "G - G_t is the reward before t, known at s_t: E[(G - G_t) grad log pi(a_t|s_t)] = 0",
            "Q(s, a) = E[G_t | s, a] averages over later tokens; A = Q - V subtracts a baseline of the state",
            f"responses of {tokens:.2f} tokens on average; variance of A over that of G: "
            f"{last.variance / next(iter(found.values())).variance:.3f}",
        ],
        "One response, relative to the squared true gradient. The means are equal up to rounding; the variance falls "
        "at every step from G to A.",
        Plot("", [str(r[0]) for r in rows], "variance", {"one response": [r[2] for r in rows]}),
    )


@sheet(
    "surrogates", "J and its surrogates: value against gradient", "2402.03300, appendix A; Foerster et al. 1802.05098"
)
def surrogates_sheet() -> Sheet:
    world = make_world()
    space, reward_R, true_SV = world.space, world.reward_R, first_update(world).true_gradient_SV
    law_R = exact.probability(world.logits_SV, space)  # the sampler: no gradient
    centred_R = reward_R - (law_R * reward_R).sum()
    leaf_SV = world.logits_SV.clone().requires_grad_()
    pi_R = exact.probability(leaf_SV, space)
    ratio_R = pi_R / pi_R.detach()
    forms = {
        "sum_y pi(y) r": (pi_R * reward_R).sum(),
        "mean of r over samples": (law_R * reward_R).sum() + 0 * pi_R.sum(),
        "mean of (pi / sg pi) r": (law_R * ratio_R * reward_R).sum(),
        "mean of (pi / sg pi) (r - J)": (law_R * ratio_R * centred_R).sum(),
        "mean of log pi r": (law_R * pi_R.log() * reward_R).sum(),
        "mean of (1 + pi - sg pi) r": (law_R * (1 + pi_R - pi_R.detach()) * reward_R).sum(),
    }
    rows: list[list[Cell]] = []
    for name, value in forms.items():
        (slope_SV,) = torch.autograd.grad(value, leaf_SV, retain_graph=True)
        rows.append([name, value.item(), slope_SV.norm().item(), relative_difference(slope_SV, true_SV)])
    return Sheet(
        ["form", "value", "|gradient|", "gradient, relative difference to grad J"],
        rows,
        [
            f"J = {rows[0][1]:.4f}; a sampled reward does not depend on the parameters, so its mean has gradient 0",
            "grad (pi / sg pi) = grad pi / pi = grad log pi, value 1; grad (1 + pi - sg pi) = grad pi, value 1",
            "the mean over samples has a second factor pi: E_pi[grad pi r] is not grad sum pi r",
        ],
        "A surrogate can have J's gradient without J's value: with r - J its value is 0. log pi has J's gradient and "
        "another value; 1 + pi - sg(pi) has J's value and another gradient.",
        Plot("", [str(r[0]) for r in rows], "", {"value": [r[1] for r in rows], "|gradient|": [r[2] for r in rows]}),
    )


@sheet("gumbel-softmax", "The Gumbel-softmax gradient and the score function's", "1611.01144; Williams 1992")
def gumbel_sheet() -> Sheet:
    logit, rewards = 0.5, (1.0, 0.0)
    shifted = (1 + 10.0, 10.0)
    rows: list[list[Cell]] = []
    for name, pair in (("rewards 1, 0", rewards), ("rewards 11, 10", shifted)):
        true = two_choices(logit, pair)
        rows.append([f"score function, {name}", true.value, true.mean, 0.0, true.variance])
        for tau in (0.1, 0.3, 1.0):
            soft = gumbel_softmax(logit, pair, tau)
            rows.append(
                [f"Gumbel-softmax {tau:g}, {name}", soft.value, soft.mean, soft.mean - true.mean, soft.variance]
            )
    p = torch.tensor(logit, dtype=torch.float64).sigmoid().item()
    return Sheet(
        ["estimator", "value", "mean slope", "bias", "variance"],
        rows,
        [
            f"p = sigmoid(0.5) = {p:.4f}; dJ/dlogit = p (1-p) (r_0 - r_1) = {p * (1 - p):.4f}",
            f"variance for rewards 1, 0: p (1-p)^2 - {p * (1 - p):.4f}^2 = {p * (1 - p) ** 2 - (p * (1 - p)) ** 2:.4f}",
            "Gumbel-softmax: mean over logistic L of (r_0 - r_1) x (1-x) / tau, x = sigmoid((0.5 + L) / tau)",
        ],
        "Low temperatures have more variance, high ones more bias. A constant added to the rewards changes only the "
        "score function's variance. The estimator needs rewards of mixtures of tokens, which a verifier does not give.",
        Plot("", [str(r[0]) for r in rows], "", {"bias": [r[3] for r in rows], "variance": [r[4] for r in rows]}),
    )


@sheet("continuous-actions", "A Gaussian policy: score function, pathwise gradient, DDPG", "1509.02971; 1312.6114")
def continuous_sheet() -> Sheet:
    rows: list[list[Cell]] = []
    for distance in (0.5, 2.0):
        for deviation in (0.1, 0.5):
            for name, form in (("score function", gaussian_score), ("pathwise", gaussian_path)):
                x = form(0.0, deviation, distance)
                rows.append([f"{name}, best {distance:g}, sd {deviation:g}", x.value, x.mean, x.variance])
    path_S, slope_S = ddpg(best=2.0, steps=120, seed=0)
    rows.append(["DDPG, best 2, after 120 steps: mu", path_S[-1].item(), slope_S[-1].item(), ""])
    return Sheet(
        ["estimator", "value", "mean slope", "variance"],
        rows,
        [
            "r(a) = -(a - b)^2, a = mu + s e, d = mu - b: E[r] = -d^2 - s^2, dE[r]/dmu = -2 d",
            "score function: variance d^4/s^2 + 18 d^2 + 15 s^2 - 4 d^2; pathwise: 4 s^2",
            "d = -2, s = 0.1: 16/0.01 + 72 + 0.15 - 16 = 1656.15 against 0.04",
            f"DDPG's first critic slope at mu = 0: {slope_S[0].item():.3f} (true -2 d = 4)",
        ],
        "If the reward or a critic is differentiable in the action, the pathwise gradient needs far fewer samples. "
        "Tokens are discrete: see gumbel-softmax.",
        Plot("step", range(len(path_S)), "DDPG's action", {"mu": path_S.tolist(), "best": [2.0] * len(path_S)}),
    )
