"""Losses and gradient norms of the presets, pinned: a number that drifts is noticed.

The equations are proved elsewhere (`test_papers.py`). This one says that today's numbers are yesterday's. After a
change that is meant to move them, print the new table with

    python -m tests.test_golden_objectives

paste it, and name the change in the commit. (The world is drawn by torch's generator, so a torch that draws other
numbers moves all at once.)
"""

from __future__ import annotations

from types import ModuleType

import pytest

import objectives
from objectives import get, names
from objectives.conformance import world as zoo

GOLDEN: dict[str, tuple[float, float]] = {
    "reinforce": (0.11328125, 0.26685720630083704),
    "rloo": (0.2251500678213686, 0.21017770540887226),
    "remax": (0.375, 0.19764235376052372),
    "reinforce_pp": (-0.02883021385175502, 0.1271793703801503),
    "reinforce_pp_baseline": (-0.11597783672969143, 0.18071131552757935),
    "opo": (-1.3877787807814457e-17, 0.1503832822455587),
    "maxrl": (0.6875, 0.44633927678392815),
    "gpg": (0.07333333333333333, 0.06633249580710801),
    "raft": (-1.0, 0.1796053020267749),
    "topr": (0.1714301644485275, 0.15540563746556194),
    "dro": (0.005696901176416422, 0.15558125692818078),
    "otb": (-0.020797508594834216, 0.02881802250657352),
    "spo": (0.06692716904678037, 0.10718507482370951),
    "ppo": (0.11254089258014835, 0.10891965047167367),
    "ppo_kl": (0.11909920380171087, 0.12738909416567457),
    "a2c": (0.19139062361664488, 0.07855372273953473),
    "vapo": (0.1864866948512112, 0.11177901250610923),
    "grpo": (0.009000549280962554, 0.09714735260458725),
    "dapo": (0.2859528387433238, 0.1526344518871666),
    "dr_grpo": (0.005952751852882902, 0.004611910112732321),
    "lite_ppo": (0.07931603120018926, 0.06145030322686642),
    "grpo_2": (0.009000549280962554, 0.09714735260458725),
    "rgra": (0.002595068564775959, 0.09923207608862832),
    "passk_grpo": (-0.12393051672788856, 0.0906779402549819),
    "gfpo": (0.0034266157930728566, 0.028281357133366117),
    "gdpo": (0.1246862212690193, 0.09185848654421784),
    "gspo": (-6.006279221079658e-06, 0.07601860922075766),
    "gspo_token": (0.09541491996737417, 0.1174382948209744),
    "gmpo": (0.00040638669804445027, 0.09829361011697173),
    "luspo": (0.3436090512916014, 0.2846897577591405),
    "vespo": (0.07334638195224583, 0.060705890036228734),
    "ctpo": (0.0839045993974889, 0.04578520293373172),
    "cispo": (0.27652032403318627, 0.16125894205529157),
    "sapo": (-0.02022255315043124, 0.1008163894620164),
    "clip_cov": (0.07393591767635843, 0.06326105437342751),  # no token of this world is between its bounds
    "kl_cov": (0.07457565119869808, 0.06233974918401969),
    "opsm": (0.009033693694480737, 0.09703666183629127),
    "ce_gppo": (0.07270587790540986, 0.061485868505627386),
    "aspo": (0.07559896439144337, 0.0614841026058647),
    "icepop": (0.06511854210100138, 0.0863141186719393),
    "dppo": (0.032102549041146455, 0.034393631061948),
    "scale_rl": (0.13969878859956383, 0.1482765917090868),
    "top_entropy": (0.2859528387433238, 0.07515852509953067),
    "sft": (-2.0666666666676638e-05, 0.11547005383792516),
    "distill": (-0.01762131222422706, 0.06408608865561936),
}
"""Preset -> loss, norm of the gradient by log-probs (and values), on `zoo.world(seed=0)` after selection."""


def measured(name: str) -> tuple[float, float]:
    objective = get(name)
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, zoo.kept(objective, zoo.world(seed=0))))
    return loss.item(), sum(g.square().sum().item() for g in gradients.values()) ** 0.5


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    assert measured(name) == pytest.approx(GOLDEN[name], rel=1e-10, abs=1e-14)


def test_every_preset_is_pinned() -> None:
    """Of ours: those whose file stands in `objectives`, and not what another package registers."""
    assert set(GOLDEN) == {name for name in names() if isinstance(getattr(objectives, name, None), ModuleType)}


if __name__ == "__main__":
    for preset in names():
        print(f'    "{preset}": {measured(preset)},')
