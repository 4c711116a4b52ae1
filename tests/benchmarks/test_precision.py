"""KL between two rows of log-probs, and the table over the model that ships."""

from __future__ import annotations

import math

import torch
from rich.console import Console

from benchmarks.precision import kl, measured
from rlzoo.config.comparison import CompareConfig
from rlzoo.tasks import load_task


def test_kl_of_two_coins() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3 = 0.1438 nats; p against itself 0."""
    p, q = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.5, 0.5], [0.25, 0.75]))
    torch.testing.assert_close(kl(p, q), torch.tensor([0.5 * math.log(4 / 3)], dtype=torch.float64))
    assert kl(p, p).item() == 0


def test_the_reference_is_itself_and_nf4_is_not() -> None:
    chosen = CompareConfig.model_validate({"objectives": ["grpo"], "task": "add:easy", "evaluation": {"prompts": 8}})
    table = measured(chosen, load_task(chosen.task), ["fp32", "nf4"])
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    fp32, nf4 = (line.split() for line in shown.get().splitlines()[1:])
    assert fp32[:3] == ["fp32", "0.000", "0.00"]
    assert nf4[0] == "nf4" and 0 < float(nf4[1]) < float(nf4[2])
