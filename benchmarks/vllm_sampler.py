"""vLLM beside the engine's own sampler, on the same requests and the same noise: what differs, and what it costs.

    python -m benchmarks.vllm_sampler --model smollm2 --prompts 8 --group 4 --tokens 48

Of a response that differs, the margin is how little a change of the logits changes the first token that differs: a few
roundings, if rounding is the cause. Times are CPU seconds of this process, which other work on the machine changes less
than the clock's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from rlzoo import noise
from rlzoo.config.engine import EngineSettings, VllmSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.config.task import TaskConfig
from rlzoo.engine.protocol import BASE, PolicyRef, SampleRequest, Samples
from rlzoo.engine.sampler import BLOCKS_FROM, choose, sample
from rlzoo.engine.vllm_sampler import opened, probe_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import load_task


def first_difference(ours: Samples, theirs: Samples, row: int) -> int | None:
    """Return the first position at which a row's two responses differ; None if there is none."""
    a, b = (one.response_NT[row][one.mask_NT[row]].tolist() for one in (ours, theirs))
    place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return min(len(a), len(b)) if place is None and len(a) != len(b) else place


@torch.no_grad()
def margin(backbone: Backbone, theta: Any, request: SampleRequest, row: int, response: list[int]) -> float:
    """Return the smallest change of a log-prob that changes the next token after `response`, up to a factor of two.

    It is found by search, as tokens of large vocabularies are drawn in two stages: noise of size s is added to the
    logits, and s is doubled from 1e-8 on until the token changes in one of four tries.
    """
    prompt = row // request.group_size
    tokens = torch.tensor([[*request.prompts[prompt], *response]])
    stack = None if theta is None else backbone.stack([theta])
    with backbone.adapters(stack, torch.tensor([0])):
        logits = backbone.logits(backbone.states(tokens, torch.ones_like(tokens))[:, -1])
    stream = noise.bits(request.seed, request.step, torch.tensor([request.prompt_keys[prompt]]))
    where = noise.bits(noise.bits(stream, row % request.group_size), len(response))[:, None]
    generator = torch.Generator().manual_seed(0)
    spread = torch.ones(1, 1)
    before = choose((logits / request.temperature).log_softmax(1), where, spread)
    size = 1e-8
    while size < 1:
        for _ in range(4):
            moved = logits + size * torch.randn(logits.shape, generator=generator)
            if not torch.equal(choose((moved / request.temperature).log_softmax(1), where, spread), before):
                return size
        size *= 2
    return size


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the work returns and its CPU seconds."""
    start = time.process_time()
    made = work()
    return made, time.process_time() - start


def main() -> None:
    """Print one line per policy: the base model, and an adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--task", default="add")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=1.0)
    chosen = parser.parse_args()
    backbone = Backbone.load(BackboneConfig(model=chosen.model, precision="fp32", device="cpu"))
    task = load_task(TaskConfig(name=chosen.task))
    prompts = [backbone.encode(task.problem("train", i).prompt) for i in range(chosen.prompts)]
    rows = chosen.prompts * chosen.group
    settings = EngineSettings(sampler="vllm", vllm=VllmSettings(context=256, cache_gib=1, adapters=1), sample_rows=rows)
    adapted = PolicyRef("adapted", 1)
    thetas = {adapted: probe_adapter(backbone.layout)}
    start = time.process_time()
    with opened(backbone, settings) as vllm, backbone.working():
        stages = 1 if backbone.vocab_size < BLOCKS_FROM else 2
        print(
            f"start: {time.process_time() - start:.1f} CPU seconds; {backbone.vocab_size} tokens, {stages}-stage draw"
        )
        for policy in (BASE, adapted):
            request = SampleRequest(
                policy, prompts, chosen.group, chosen.tokens, 0, 0, range(chosen.prompts), chosen.temperature
            )
            (ours,), local_s = timed(lambda request=request: sample(backbone, [request], rows, thetas))
            (theirs,), vllm_s = timed(lambda request=request: vllm.sample([request], thetas))
            places = {row: place for row in range(rows) if (place := first_difference(ours, theirs, row)) is not None}
            theta = thetas.get(policy)
            margins = [
                margin(backbone, theta, request, row, ours.response_NT[row, :place].tolist())
                for row, place in places.items()
            ]
            width = min(ours.mask_NT.shape[1], theirs.mask_NT.shape[1])
            alike_N = torch.tensor([row not in places for row in range(rows)])
            gap_NT = (ours.logp_NT[:, :width] - theirs.logp_NT[:, :width])[alike_N].abs()
            count = int(ours.mask_NT.sum())
            print(
                f"{policy.run or 'base'}: {len(places)} of {rows} responses differ, {count} tokens; first at "
                f"{sorted(places.values())}, margins {[f'{x:.0e}' for x in margins]}; log-probs of the others at most "
                f"{float(gap_NT.max()):.1e} nats apart; CPU seconds {local_s:.1f} and {vllm_s:.1f}, tokens per second "
                f"{count / local_s:.0f} and {int(theirs.mask_NT.sum()) / vllm_s:.0f}"
            )


if __name__ == "__main__":
    main()
