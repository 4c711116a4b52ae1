"""TRL's side of the speed benchmark: GRPOTrainer on the same work, with its fastest settings for this work.

The same: base weights and quantization, adapters, order of prompts, samples, limits, rewards, objective, rows per
update and updates per rollout. TRL samples with transformers' `generate` (no separate server), without gradient
checkpointing, logging or saving. TRL stores the adapters of a quantized model in bfloat16, ours are float32.
"""

from __future__ import annotations

import tempfile
import time
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from benchmarks.speed_memory import PeakMemory, wait_for
from benchmarks.speed_work import BETA, LORA, NEVER, OPTIMIZER, Measured, Work
from rlzoo.model.adapters import to_peft
from rlzoo.model.device import resolve_compute, resolve_device
from rlzoo.model.hub import SHIPPED
from rlzoo.tasks import Problem, Task


class Rewards:
    """The task's reward as a function for TRL; it also counts the sampled tokens."""

    __name__ = "task"

    def __init__(self, task: Task, problems: list[Problem]) -> None:
        self.task, self.problems = task, problems
        self.sampled: list[int] = []

    def __call__(
        self, completions: list[str], completion_ids: list[list[int]], index: list[int], **_: Any
    ) -> list[float | None]:
        self.sampled.append(sum(map(len, completion_ids)))
        return self.task.score([self.problems[i] for i in index], completions).reward


class CountingTrainer(GRPOTrainer):
    """GRPOTrainer that counts the trained tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trained: list[Tensor] = []

    def compute_loss(self, model: Any, inputs: Any, **kwargs: Any) -> Any:
        self.trained.append(inputs["completion_mask"].sum())
        return super().compute_loss(model, inputs, **kwargs)


class Clock(TrainerCallback):
    """Reads the clock after the last update of the warm-up and after the last of all."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self.marks = [work.minibatches * steps for steps in (work.warmup, work.warmup + work.steps)]
        self.device = device
        self.times: list[float] = []
        self.updates = 0

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.updates += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.marks:
            wait_for(self.device)
            self.times.append(time.perf_counter())


def measure(work: Work) -> Measured:
    """Train one run with TRL.

    Raises:
        ValueError: more than one run.
        RuntimeError: an adapter did not change.
    """
    if work.runs != 1:
        raise ValueError(f"a TRL trainer trains one run, not {work.runs}")
    task, device = work.load_task(), resolve_device(work.backbone)
    problems = work.problems(task)
    folder = str(SHIPPED) if work.model == "shipped" else work.model
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rewards, clock = Rewards(task, problems), Clock(work, device)
    with tempfile.TemporaryDirectory() as out:
        trainer = CountingTrainer(
            model=load(work, folder, device),
            reward_funcs=rewards,
            args=arguments(work, out, device),
            train_dataset=Dataset.from_dict({"prompt": [p.prompt for p in problems], "index": range(len(problems))}),
            processing_class=tokenizer,
            peft_config=to_peft(LORA, folder),
            callbacks=[clock],
        )
        if work.ends == "never":
            trainer.eos_token_ids = [NEVER]
        adapters = [p for p in trainer.model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in adapters]
        memory = PeakMemory(device)
        trainer.train()
        peak, gpu_peak = memory.peak(), memory.gpu_peak()
    still = sum(torch.equal(old, new) for old, new in zip(before, adapters, strict=True))
    if still:  # a layer that repacks its weights for inference silently loses its gradient
        raise RuntimeError(
            f"{still} of TRL's {len(adapters)} adapter matrices did not change: they were not trained, or no group had "
            "both right and wrong answers (choose an easier task)"
        )
    first, last = work.warmup, work.warmup + work.steps
    trained = [int(tokens) for tokens in trainer.trained]
    return Measured(
        seconds=clock.times[1] - clock.times[0],
        samples=work.steps * work.rows,
        tokens_sampled=sum(rewards.sampled[first:last]),
        tokens_trained=sum(trained[clock.marks[0] : clock.marks[1]]),
        updates=clock.updates - clock.marks[0],
        adapter_parameters=sum(p.numel() for p in adapters),
        prompt_tokens=fmean(len(tokenizer(p.prompt)["input_ids"]) for p in problems),
        loaded_bytes=memory.loaded,
        peak_bytes=peak,
        gpu_peak_bytes=gpu_peak,
    )


def load(work: Work, folder: str, device: torch.device) -> Any:
    """Load the base model as `rlzoo.model.backbone` does."""
    dtype = resolve_compute(work.backbone, device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype if work.precision != "bf16" else torch.bfloat16,
        device_map={"": device},
        quantization_config=quantization if work.precision == "nf4" else None,
    )


def arguments(work: Work, out: str, device: torch.device) -> GRPOConfig:
    """Return TRL's settings for the work."""
    return GRPOConfig(
        output_dir=out,
        seed=work.seed,
        max_steps=work.minibatches * (work.warmup + work.steps),
        num_generations=work.group_size,
        per_device_train_batch_size=work.rows // work.minibatches,
        steps_per_generation=work.minibatches,
        gradient_accumulation_steps=1,
        num_iterations=1,
        max_completion_length=work.max_new_tokens,
        temperature=1.0,
        loss_type="grpo",
        beta=BETA,
        epsilon=0.2,
        learning_rate=OPTIMIZER.lr,
        weight_decay=OPTIMIZER.weight_decay,
        max_grad_norm=OPTIMIZER.max_grad_norm,
        lr_scheduler_type="constant",
        shuffle_dataset=False,
        generation_kwargs={"eos_token_id": NEVER} if work.ends == "never" else None,
        bf16=resolve_compute(work.backbone, device) == torch.bfloat16,
        gradient_checkpointing=False,
        use_cpu=device.type == "cpu",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
