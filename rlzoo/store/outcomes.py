"""The outcome of every held-out problem of an evaluation, packed into its record: one bit each where all are 0 or 1.

    {"problems": 1024, "right": "base64 of the bits"}        {"problems": 3, "scores": [0.5, 1.0, 0.25]}

With the outcomes, intervals can treat problems as a sample, evaluations can be judged again later, and two policies can
be compared problem by problem.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(outcomes: Sequence[float]) -> dict[str, Any]:
    """Return the JSON form of one accuracy per problem, in [0, 1]."""
    values = np.asarray(outcomes, np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        bits = np.packbits(values.astype(bool)).tobytes()
        return {"problems": len(values), "right": base64.b64encode(bits).decode("ascii")}
    return {"problems": len(values), "scores": [round(float(value), 6) for value in values]}


def unpack(stored: Mapping[str, Any] | None) -> NDArray[np.float64] | None:
    """Return the accuracies [problems] that `pack` was given; None for None."""
    if stored is None:
        return None
    if "scores" in stored:
        return np.asarray(stored["scores"], np.float64)
    bits = np.frombuffer(base64.b64decode(stored["right"]), np.uint8)
    return np.unpackbits(bits, count=stored["problems"]).astype(np.float64)
