"""The parts an objective's gradient is made of, one family per file."""

from objectives.parts.aggregate import Aggregate, Constant, SequenceMean, SequenceSum, TokenMean
from objectives.parts.correction import Correction, SequenceCorrection, TokenCorrection
from objectives.parts.imitate import Imitation, PositiveLikelihood
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
from objectives.parts.surrogate import Clip, ClippedWeight, GeometricMean, Linear, Log, SoftGate, Surrogate
from objectives.parts.tokens import ClipCov, KLCov, Tokens
from objectives.parts.trust import OldKL

__all__ = [
    "K1",
    "K2",
    "K3",
    "KL",
    "Aggregate",
    "Clip",
    "ClipCov",
    "ClippedValueLoss",
    "ClippedWeight",
    "Constant",
    "Correction",
    "Entropy",
    "EntropyBonus",
    "GeometricMean",
    "Imitation",
    "KLCov",
    "Linear",
    "Log",
    "NoRatio",
    "OldKL",
    "PlainValueLoss",
    "PositiveLikelihood",
    "Ratio",
    "Response",
    "Sequence",
    "SequenceCorrection",
    "SequenceMean",
    "SequenceSum",
    "SoftGate",
    "Surrogate",
    "Token",
    "TokenCorrection",
    "TokenMean",
    "Tokens",
    "ValueLoss",
]
