"""The joint distribution of the statistics of n other responses of a group, by n-fold convolution.

    law_n(a, z) = sum_{c, l} law_1(c, l) law_{n-1}(a - [c], z - l)          a: count per class, z: total length

A group estimator depends on the other responses through sufficient statistics: the number of them in each class (for
instance of equal shaped reward and accuracy), and their total number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Others:
    """Distribution of (class counts, total length) of n independent responses.

    Shape letters: A count vectors, C classes, Z total lengths (0 .. n * longest).

    Attributes:
        count_AC: the count vectors, each summing to n.
        law_AZ: joint probability.
        with_one_AC: index, in the table of n + 1 responses, of the count vector plus one response of class c; None in
            the last table of a chain.
    """

    n: int
    count_AC: Tensor
    law_AZ: Tensor
    with_one_AC: Tensor | None = None


def convolve(probability_R: Tensor, class_R: Tensor, length_R: Tensor, n: int) -> tuple[Others | None, Others]:
    """Return the tables of n-1 and of n responses; the first is None at n = 0.

    Args:
        probability_R, class_R, length_R: probability, class (0 .. C-1) and length of each response.
    """
    classes, longest = int(class_R.max()) + 1, int(length_R.max())
    one_CL = torch.zeros(classes, longest + 1, dtype=probability_R.dtype)
    one_CL.index_put_((class_R, length_R), probability_R, accumulate=True)
    before: Others | None = None
    table = Others(0, torch.zeros(1, classes, dtype=torch.long), torch.ones(1, 1, dtype=probability_R.dtype))
    for size in range(1, n + 1):
        grown_ACC = table.count_AC[:, None, :] + torch.eye(classes, dtype=torch.long)
        count_AC, place = torch.unique(grown_ACC.flatten(0, 1), dim=0, return_inverse=True)
        with_one_AC = place.view(len(table.count_AC), classes)
        law_AZ = torch.zeros(len(count_AC), size * longest + 1, dtype=probability_R.dtype)
        old_Z = table.law_AZ.shape[1]
        for c, length in one_CL.nonzero().tolist():
            law_AZ[:, length : length + old_Z].index_add_(0, with_one_AC[:, c], one_CL[c, length] * table.law_AZ)
        before = Others(table.n, table.count_AC, table.law_AZ, with_one_AC)
        table = Others(size, count_AC, law_AZ)
    return before, table


def table_size(n: int, classes: int) -> int:
    """Return the number of count vectors of n responses: the binomial coefficient (n + C - 1 over C - 1)."""
    size = 1
    for k in range(1, classes):
        size = size * (n + k) // k
    return size
