"""The parts of an objective that carry a gradient, one family per file: ratio, surrogate, aggregate, KL and others.

Not here: parts without gradient (selection, shaping, advantages: package `advantages`) and the presets (`objectives`).
Parts are pure functions of tensors; they import torch and pydantic only.
"""

from objectives.parts.aggregate import Aggregate, Constant, PromptMean, SequenceMean, SequenceSum, TokenMean
from objectives.parts.correction import Correction, GeometricCorrection, SequenceCorrection, TokenCorrection
from objectives.parts.imitate import Imitation, PositiveLikelihood
from objectives.parts.position import PositionClip
from objectives.parts.ratio import NoRatio, Prefix, Ratio, Response, Sequence, Token
from objectives.parts.regularize import (
    K1,
    K2,
    K3,
    KL,
    AdaptiveBonus,
    ClippedValueLoss,
    Entropy,
    EntropyBonus,
    PlainValueLoss,
    ValueLoss,
)
from objectives.parts.surrogate import Clip, ClippedWeight, GeometricMean, Linear, Log, SoftGate, Surrogate
from objectives.parts.tokens import ClipCov, KLCov, Tokens, TopEntropy
from objectives.parts.trust import OldKL
from objectives.parts.weighted import Divergence, Flipped, GammaWeight, Preserving, Tapered

__all__ = [
    "K1",
    "K2",
    "K3",
    "KL",
    "AdaptiveBonus",
    "Aggregate",
    "Clip",
    "ClipCov",
    "ClippedValueLoss",
    "ClippedWeight",
    "Constant",
    "Correction",
    "Divergence",
    "Entropy",
    "EntropyBonus",
    "Flipped",
    "GammaWeight",
    "GeometricCorrection",
    "GeometricMean",
    "Imitation",
    "KLCov",
    "Linear",
    "Log",
    "NoRatio",
    "OldKL",
    "PlainValueLoss",
    "PositionClip",
    "PositiveLikelihood",
    "Prefix",
    "Preserving",
    "PromptMean",
    "Ratio",
    "Response",
    "Sequence",
    "SequenceCorrection",
    "SequenceMean",
    "SequenceSum",
    "SoftGate",
    "Surrogate",
    "Tapered",
    "Token",
    "TokenCorrection",
    "TokenMean",
    "Tokens",
    "TopEntropy",
    "ValueLoss",
]
