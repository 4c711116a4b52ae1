"""Control: one trust-region step, compared with the plain gradient under the same constraint."""

from __future__ import annotations

from rlzoo.lab import exact
from rlzoo.lab.plots import Plot
from rlzoo.lab.textbook.sheet import Cell, Sheet, sheet
from rlzoo.lab.trust_region import natural_direction, trpo_step
from rlzoo.lab.world import make_world

DELTAS = (0.001, 0.01, 0.1, 0.5)


@sheet("trpo", "One TRPO step and a plain gradient step under the same KL", "1502.05477, section 6, appendix C")
def trpo_sheet() -> Sheet:
    world = make_world()
    rows: list[list[Cell]] = []
    gains: dict[str, list[float]] = {"natural gradient": [], "plain gradient": []}
    for delta in DELTAS:
        for name in gains:
            step = trpo_step(world, delta, natural=name.startswith("natural"))
            gains[name].append(step.after - step.before)
            rows.append(
                [
                    f"{name}, {delta:g}",
                    step.after - step.before,
                    step.kl,
                    (step.after - step.before) / (2 * step.kl) ** 0.5,
                    step.shortened,
                ]
            )
    at = exact.values(world.logits_SV, world.space, exact.token_reward(world.space, world.reward_R))
    direction_SV = natural_direction(world, world.logits_SV)
    centred_SV = at.a_SV - at.a_SV.mean(dim=1, keepdim=True)
    gap = (direction_SV - centred_SV).abs().max().item()
    return Sheet(
        ["step, delta", "gain in J", "KL(old || new)", "gain / sqrt(2 KL)", "times shortened"],
        rows,
        [
            f"F^-1 grad J is the advantage of every token minus each state's mean: largest gap {gap:.0e}",
            f"first-order gain sqrt(2 delta g' F^-1 g): at delta 0.001 measured {gains['natural gradient'][0]:.4f}",
        ],
        "To first order, the natural gradient gains most per nat of KL. For a table of logits F^-1 is exact.",
        Plot("KL allowed, nats", DELTAS, "gain in J", gains, log_x=True),
    )
