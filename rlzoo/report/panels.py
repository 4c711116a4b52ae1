"""The training metrics that the page and the picture of learning curves draw, and how to read each."""

from __future__ import annotations

from dataclasses import dataclass

from rlzoo.report.lines import Form


@dataclass(frozen=True)
class Panel:
    """One chart of a training metric against steps."""

    title: str
    unit: str
    note: str
    form: Form = "number"


PANELS = {
    "reward": Panel("Training reward", "mean per response", "Of the prompts that all algorithms saw alike."),
    "entropy": Panel("Entropy", "nats per token", "Mean surprise at the sampled tokens; near zero, sampling repeats."),
    "length": Panel("Response length", "tokens", "Of all responses."),
    "length_right": Panel("Length of right answers", "tokens", "Responses that solved their problem."),
    "length_wrong": Panel("Length of wrong answers", "tokens", "Responses that did not."),
    "silent_groups": Panel("Silent groups", "of all groups", "All responses got one reward: no signal.", "percent"),
    "kl_old": Panel("KL to the old policy", "nats per token", "How far the updates of one step move the policy."),
    "kl_ref": Panel("KL to the reference", "nats per token", "How far training has moved it from the base model."),
    "clip_fraction": Panel("Clip fraction", "of all tokens", "Tokens without gradient.", "percent"),
    "clip_low": Panel("Clipped below", "of all tokens", "Without gradient, at a ratio under 1.", "percent"),
    "clip_high": Panel("Clipped above", "of all tokens", "Without gradient, at a ratio over 1.", "percent"),
    "ratio_std": Panel("Spread of the ratio", "standard deviation", "Of the ratio that the objective itself uses."),
    "ratio_min": Panel("Smallest ratio", "ratio", "Over all tokens and updates of a step."),
    "ratio_max": Panel("Largest ratio", "ratio", "Over all tokens and updates of a step."),
    "ess": Panel("Effective sample", "of all tokens", "What the ratios' weights leave of the sample.", "percent"),
    "explained_variance": Panel(
        "Explained variance", "of the returns", "Of the critic; 1 is perfect, 0 is a constant, below 0 worse than that."
    ),
    "gradient_norm": Panel("Gradient norm", "before clipping", "Mean over the updates of a step."),
    "rounds": Panel("Rounds of sampling", "per step", "More than one: what was sampled first was discarded."),
    "sampler_gap": Panel(
        "Sampler's error", "nats", "Largest difference between the log-probs of the sampler and of the trainer."
    ),
}
PICTURE = ("reward", "length", "entropy", "clip_fraction", "kl_old", "silent_groups", "gradient_norm")
"""What the picture has beside held-out accuracy."""
PAGE = tuple(key for key in PANELS if key not in ("length", "clip_fraction"))
"""The page has the two in halves."""
