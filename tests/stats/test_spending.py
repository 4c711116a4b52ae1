"""Looks at growing data: naive ones raise false alarms, those that spend the level keep it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from rlzoo.stats.spending import spent


def false_alarms(looks: list[int], levels: list[float], trials: int = 20_000) -> float:
    """How often an algorithm is better or worse than itself at any look, seeds being added between them."""
    d = np.random.default_rng(5).standard_normal((trials, looks[-1]))
    alarm = np.zeros(trials, bool)
    for n, level in zip(looks, levels, strict=True):
        t = d[:, :n].mean(axis=1) / (d[:, :n].std(axis=1, ddof=1) / np.sqrt(n))
        alarm |= np.abs(t) > special.stdtrit(n - 1, 1 - level / 2)
    return float(alarm.mean())


@pytest.mark.parametrize("looks", [[4, 8, 12, 16], list(range(2, 17))])
def test_any_number_of_looks_keeps_the_level(looks: list[int]) -> None:
    naive = false_alarms(looks, [0.05] * len(looks))
    assert naive > 0.09
    assert false_alarms(looks, [spent(0.05, k) for k in range(1, len(looks) + 1)]) < 0.05


def test_the_levels_by_hand() -> None:
    # 0.75 * 5% = 3.75%, a quarter of that, a quarter of that again; all of them together are 5%.
    assert [spent(0.05, look) for look in (1, 2, 3)] == pytest.approx([0.0375, 0.009375, 0.00234375])
    assert sum(spent(0.05, look) for look in range(1, 50)) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="from 1"):
        spent(0.05, 0)
