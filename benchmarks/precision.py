"""What a precision costs a pretrained model before any training: KL(float32 || precision) per token, and accuracy.

    python -m benchmarks.precision --config benchmarks/recipes/real.toml --set evaluation.prompts=64

The float32 model samples a response to each held-out prompt. Over the positions of these responses
KL = sum_v p(v) log(p(v) / q(v)), p float32's distribution and q the other's, in nats a token. Accuracy is each model's
own, over its own samples with the same noise. Seconds are those of sampling, then of scoring.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from advantages.names import nearest
from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.sources import settings
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.engine.sampler import sample
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Problem, Task, load_task

Precision = Literal["fp32", "bf16", "nf4"]


def respond(backbone: Backbone, problems: list[Problem], new_tokens: int) -> list[list[int]]:
    """Return one sampled response per problem, as tokens."""
    tokens = [backbone.encode(problem.prompt) for problem in problems]
    request = SampleRequest(BASE, tokens, 1, new_tokens, 0, 0, range(len(tokens)))
    samples = sample(backbone, [request])[0]
    return [row[mask].tolist() for row, mask in zip(samples.response_NT, samples.mask_NT, strict=True)]


@torch.no_grad()
def distributions(backbone: Backbone, problems: list[Problem], responses: list[list[int]]) -> list[Tensor]:
    """Return for each response the log-probs [tokens, vocabulary] at each of its tokens' positions."""
    prompts = [backbone.encode(problem.prompt) for problem in problems]
    rows = [torch.tensor(prompt + response[:-1]) for prompt, response in zip(prompts, responses, strict=True)]
    token_NT = pad_sequence(rows, batch_first=True, padding_side="left").to(backbone.device)
    real_NT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    states_NTH = backbone.states(token_NT, real_NT.to(backbone.device))
    last = (states_TH[-len(response) :] for states_TH, response in zip(states_NTH, responses, strict=True))
    return [backbone.logits(states).log_softmax(-1) for states in last]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) in nats for each row of log-probs [N, vocabulary]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def measured(config: CompareConfig, task: Task, precisions: list[Precision]) -> Table:
    """Return the table: a row per precision, the first of them the reference that samples."""
    rows = min(config.evaluation.prompts, task.size("test") or config.evaluation.prompts)
    problems = [task.problem("test", index) for index in range(rows)]
    made = Table("precision", "KL mean", "KL largest", "accuracy", "finished", "sampling s", "scoring s", box=None)
    reference: list[Tensor] = []
    said: list[list[int]] = []
    for precision in precisions:
        backbone = Backbone.load(config.backbone.model_copy(update={"precision": precision}))
        started = time.perf_counter()
        own = respond(backbone, problems, config.train.max_new_tokens)
        sampled = time.perf_counter()
        said = said or own
        log_probs = distributions(backbone, problems, said)
        scored = time.perf_counter()
        reference = reference or log_probs
        kl_N = torch.cat([kl(p, q) for p, q in zip(reference, log_probs, strict=True)])
        right = task.score(problems, [backbone.decode(tokens) for tokens in own]).accuracy
        made.add_row(
            precision,
            f"{kl_N.mean():.3f}",
            f"{kl_N.max():.2f}",
            f"{sum(right) / len(right):.1%}",
            f"{sum(tokens[-1] in backbone.end_ids for tokens in own) / len(own):.0%}",
            f"{sampled - started:.1f}",
            f"{scored - sampled:.1f}",
        )
    return made


def validated(names: str) -> list[Precision]:
    """Return the precisions of a list such as "fp32,nf4"."""
    found = names.split(",")
    strange = [name for name in found if name not in get_args(Precision)]
    if strange:
        raise UserError(f"unknown precision {strange[0]!r}; {nearest(strange[0], get_args(Precision))}")
    return found  # type: ignore[return-value]


@guarded
def main(
    config: Annotated[Path, typer.Option("--config", "-c")] = Path("benchmarks/recipes/real.toml"),
    names: Annotated[str, typer.Option("--precisions", help="The first is the reference.")] = "fp32,bf16,nf4",
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C")] = None,
) -> None:
    """Print the table."""
    precisions = validated(names)
    chosen = settings(CompareConfig, config, assignments or [], {})
    Console().print(measured(chosen, load_task(chosen.task), precisions))


if __name__ == "__main__":
    typer.run(main)
