"""The parts an objective's gradient is made of, one family per file."""

from objectives.parts.aggregate import Aggregate, Constant, SequenceMean, SequenceSum, TokenMean
from objectives.parts.ratio import NoRatio, Ratio, Response, Sequence, Token
from objectives.parts.regularize import (
    K1,
    K2,
    K3,
    KL,
    ClippedValueLoss,
    Entropy,
    EntropyBonus,
    PlainValueLoss,
    ValueLoss,
)
from objectives.parts.surrogate import Clip, ClippedWeight, Linear, Log, SoftGate, Surrogate

__all__ = [
    "K1",
    "K2",
    "K3",
    "KL",
    "Aggregate",
    "Clip",
    "ClippedValueLoss",
    "ClippedWeight",
    "Constant",
    "Entropy",
    "EntropyBonus",
    "Linear",
    "Log",
    "NoRatio",
    "PlainValueLoss",
    "Ratio",
    "Response",
    "Sequence",
    "SequenceMean",
    "SequenceSum",
    "SoftGate",
    "Surrogate",
    "Token",
    "TokenMean",
    "ValueLoss",
]
