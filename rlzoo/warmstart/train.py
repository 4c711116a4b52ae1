"""Warm start: supervised fine-tuning of a small language model from scratch on demonstrations of procedural tasks.

    loss = - sum_t log p(y_t | x, y_<t) / number of response tokens      x a prompt, y a demonstration and its end

This is the loss of the objective `sft`, applied to all parameters instead of an adapter.
The demonstrations mix good and bad styles, so that some samples of the model are right and some wrong, and
reinforcement learning has a signal. Every step draws new problems of the train split; the test split is never used.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from objectives import PolicyOutput, TokenBatch
from objectives.sft import SFT
from rlzoo.config.model import BackboneConfig
from rlzoo.config.warmstart import WarmstartConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.char_tokenizer import char_tokenizer
from rlzoo.model.quiet import no_progress_bars
from rlzoo.tasks import ProceduralTask, load_task
from rlzoo.warmstart.report import card, sample_report

PIECES = 4  # micro-batches per step, of rows of similar length
CARD = "README.md"
PRECISIONS: tuple[Literal["nf4", "fp32"], ...] = ("nf4", "fp32")


def build_model(config: WarmstartConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return a Qwen2 model in float32 with tied embeddings, initialized from the seed alone."""
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Qwen2ForCausalLM(shape)


Example = tuple[list[int], list[int]]
"""Tokens of the prompt, and of the response with its end token."""


def training_examples(
    config: WarmstartConfig, tasks: list[ProceduralTask], tokenizer: PreTrainedTokenizerFast, step: int
) -> list[Example]:
    """Return the demonstrations of one step, from the train split: a pure function of the arguments."""
    rng = Random(f"warmstart/{config.seed}/{step}")
    clean = step < config.clean * config.steps
    examples = []
    for task in rng.choices(tasks, weights=list(config.tasks.values()), k=config.batch_size):
        problem = task.problem("train", rng.randrange(2**40))
        prompt = tokenizer.encode(str(problem.prompt))
        examples.append((prompt, [*tokenizer.encode(task.demonstration(problem, rng, clean)), tokenizer.eos_token_id]))
    return examples


def padded(examples: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return tokens [B, T], padded on the right, and the mask [B, T] of response tokens."""
    length = max(len(prompt) + len(response) for prompt, response in examples)
    tokens_BT = torch.full((len(examples), length), pad_id)
    mask_BT = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, (prompt, response) in enumerate(examples):
        end = len(prompt) + len(response)
        tokens_BT[row, :end] = torch.tensor(prompt + response)
        mask_BT[row, len(prompt) : end] = True
    return tokens_BT, mask_BT


def backward(model: Qwen2ForCausalLM, examples: list[Example], pad_id: int) -> float:
    """Add the gradient of the step's loss in micro-batches of rows of similar length (little padding); return the loss.

    The unit is nats per response token.
    """
    examples = sorted(examples, key=lambda example: len(example[0]) + len(example[1]))
    tokens_BT, mask_BT = padded(examples, pad_id)
    nothing_BT = torch.zeros(mask_BT[:, 1:].shape)
    batch = TokenBatch(mask_BT[:, 1:], SFT.aggregate(mask_BT[:, 1:]), mask_BT[:, 1:].float(), nothing_BT)
    pieces = math.ceil(len(examples) / PIECES)
    value = 0.0
    for start in range(0, len(examples), pieces):
        rows = slice(start, min(start + pieces, len(examples)))
        width = sum(map(len, examples[rows.stop - 1]))
        # Padding is on the right, which a causal model does not attend to, so no attention mask is needed.
        logp_BTV = model(input_ids=tokens_BT[rows, : width - 1]).logits.log_softmax(dim=2)
        logp_BT = logp_BTV.gather(2, tokens_BT[rows, 1:width, None]).squeeze(2)
        loss = SFT.loss(PolicyOutput(logp_BT), batch.rows((rows, slice(0, width - 1))))
        loss.backward()
        value += loss.item()
    return value


def learning_rate_factor(step: int, config: WarmstartConfig) -> float:
    """Return the factor of the learning rate: linear warm-up to 1, then cosine decay to 0 at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmstart(
    config: WarmstartConfig, out_folder: str | Path, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> dict[str, Any]:
    """Train a model, write it with its tokenizer and model card into a folder, and measure its accuracy.

    Returns the summary (JSON types) that is also written as `warmstart.json`: settings, time in seconds, versions, and
    a report per precision and task.

    Raises:
        UserError: the folder cannot be written or is not empty; or an error of `train`.
    """
    folder = Path(out_folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"warm start: {folder} is not empty; name another folder, no model is overwritten")
        (folder / CARD).touch()
    except OSError as error:
        raise UserError(f"warm start: cannot write into {folder}: {error.strerror}") from error
    started = time.monotonic()
    model, tokenizer = train(config, on_step)
    seconds = time.monotonic() - started
    save(model, tokenizer, folder)
    summary: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "reports": {},
    }
    for precision in PRECISIONS if config.evaluate_prompts else ():
        backbone = Backbone.load(BackboneConfig(model=str(folder), precision=precision, device="cpu"))
        reports = [sample_report(backbone, name, prompts=config.evaluate_prompts) for name in config.tasks]
        summary["reports"][precision] = [report.to_json() for report in reports]
    (folder / "warmstart.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / CARD).write_text(card(summary, changed=config.model_dump(mode="json", exclude_defaults=True)))
    return summary


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (float32 safetensors), configurations and tokenizer in transformers' format."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,
    )
    with no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train(
    config: WarmstartConfig, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """Train a model from scratch. `on_step(step, loss)` is called after each step; the loss is in nats per token.

    Raises:
        UserError: a task is not procedural, so it has no demonstrations; or the loss is not finite.
    """
    tasks = [_demonstrated(name) for name in config.tasks]
    tokenizer = char_tokenizer(config.context_length)
    model = build_model(config, tokenizer).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    for step in range(config.steps):
        optimizer.zero_grad()
        examples = training_examples(config, tasks, tokenizer, step)
        loss = backward(model, examples, int(tokenizer.pad_token_id))
        if not math.isfinite(loss):
            raise UserError(
                f"warm start: the loss is {loss} at step {step}; lower learning_rate ({config.learning_rate})"
            )
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        schedule.step()
        on_step(step, loss)
    return model.eval(), tokenizer


def _demonstrated(name: str) -> ProceduralTask:
    task = load_task(name)
    if not isinstance(task, ProceduralTask):
        raise UserError(f"warm start: task {name!r} has no demonstrations; name procedural tasks such as 'sort:easy'")
    return task
