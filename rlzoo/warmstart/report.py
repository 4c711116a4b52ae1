"""Accuracy of a warm-started model before reinforcement learning, per task, and its model card.

mixed = share of prompts whose G samples are neither all right nor all wrong          temperature 1
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.engine.sampler import sample
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Split, load_task

MAX_NEW_TOKENS = 32
"""Sampling limit; no demonstration is longer."""


HEAD = """\
---
library_name: transformers
license: apache-2.0
pipeline_tag: text-generation
---

# A small base model for reinforcement learning

A Qwen2 model of {parameters} parameters with a character tokenizer, trained from scratch by supervised fine-tuning on
demonstrations of procedural tasks in good and bad styles. Some of its samples are right and some wrong, so that
reinforcement learning has a signal. It has no other knowledge.

Made by `rlzoo warmstart --out FOLDER` {changes}: {steps} steps of {batch_size} demonstrations,
seed {seed}, {minutes} minutes ({versions}, threads: {threads}). The demonstrations are of the train split only.
"""

SECTION = """
## Before reinforcement learning, {precision}

Temperature 1, {prompts} test problems, {group_size} samples each. A group is mixed if it has right and wrong samples.
Lengths are in tokens, including the end token.

{table}
"""


@dataclass(frozen=True)
class SampleReport:
    """Means over the samples of one task's problems. Shares are in 0..1, lengths in tokens including the end token."""

    task: str
    prompts: int
    group_size: int
    accuracy: float
    accuracy_greedy: float
    """Accuracy of greedy decoding."""
    mixed: float
    """Share of prompts with right and wrong samples: the groups with a group-relative advantage other than 0."""
    length: float
    length_right: float | None
    """Mean length of right responses; None if there are none."""
    finished: float
    """Share of responses that end with the end token."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON table."""
        return asdict(self)


def sample_report(
    backbone: Backbone, name: str, split: Split = "test", prompts: int = 250, group_size: int = 8, seed: int = 0
) -> SampleReport:
    """Sample `group_size` responses of the base model to each of the first `prompts` problems, and score them.

    Raises:
        UserError: unknown task.
    """
    task = load_task(name)
    problems = [task.problem(split, index) for index in range(prompts)]

    def score(group_size: int, greedy: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = [backbone.encode(p.prompt) for p in problems]
        keys = range(prompts)
        request = SampleRequest(BASE, tokens, group_size, MAX_NEW_TOKENS, seed, 0, keys, greedy=greedy)
        samples = sample(backbone, [request])[0]
        rows = zip(samples.response_NT, samples.mask_NT, strict=True)
        texts = [backbone.decode(row[mask].tolist()) for row, mask in rows]
        accuracy = task.score([p for p in problems for _ in range(group_size)], texts).accuracy
        return torch.tensor(accuracy, dtype=torch.float64), samples.mask_NT.sum(1).double(), samples.finished_N

    accuracy_N, length_N, finished_N = score(group_size, greedy=False)
    groups_PG = accuracy_N.view(prompts, group_size)
    right_N = accuracy_N == 1
    return SampleReport(
        task=name,
        prompts=prompts,
        group_size=group_size,
        accuracy=accuracy_N.mean().item(),
        accuracy_greedy=score(1, greedy=True)[0].mean().item(),
        mixed=(groups_PG.amin(1) < groups_PG.amax(1)).double().mean().item(),
        length=length_N.mean().item(),
        length_right=length_N[right_N].mean().item() if right_N.any() else None,
        finished=finished_N.double().mean().item(),
    )


def table(reports: Iterable[Mapping[str, Any]]) -> str:
    """Return reports (as JSON) as a Markdown table."""
    lines = [
        "| task | right | right (greedy) | mixed groups | tokens | tokens when right | finished |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in reports:
        shares = f"{r['accuracy']:.1%} | {r['accuracy_greedy']:.0%} | {r['mixed']:.0%}"
        length_right = "" if r["length_right"] is None else f"{r['length_right']:.1f}"
        lines.append(f"| {r['task']} | {shares} | {r['length']:.1f} | {length_right} | {r['finished']:.0%} |")
    return "\n".join(lines)


def card(summary: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """Return the model card; `changed` are the settings that differ from the defaults."""
    config = summary["config"]
    head = HEAD.format(
        parameters=f"{summary['parameters']:,}",
        changes=f"with {json.dumps(changed)} in place of the defaults" if changed else "with the default settings",
        minutes=f"{summary['seconds'] / 60:.0f}",
        threads=summary["threads"],
        versions=", ".join(f"{name} {number}" for name, number in summary["versions"].items()),
        **{name: config[name] for name in ("steps", "batch_size", "seed")},
    )
    sections = [
        SECTION.format(precision=precision, table=table(reports), **reports[0])
        for precision, reports in summary["reports"].items()
    ]
    return "".join([head, *sections])
