"""TRL's own trainers without a model: rewards and log-probs in, its advantages, loss and gradient out.

Only the model is replaced: TRL asks for the log-probs of the completion's tokens, and gets ours as a leaf with a
gradient. From the rewards on everything is TRL's: `_generate_and_score_completions` and `_compute_loss`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from objectives.conformance import world as zoo

PAD, EOS = 0, 1


@dataclass(frozen=True)
class Rollout:
    """Responses in groups of G, padded on the right. Log-probs are 0 outside the mask."""

    mask_NT: Tensor
    reward_N: Tensor
    logp_NT: Tensor
    old_logp_NT: Tensor
    ref_logp_NT: Tensor
    cut: tuple[int, ...] = ()
    """Rows that end without an end token."""
    G: int = 4

    @property
    def group_N(self) -> Tensor:
        return torch.arange(len(self.reward_N)) // self.G


def rollout(seed: int, spread: float = 0.4, dense: bool = False) -> Rollout:
    """Sixteen responses of 1 to 7 tokens; group 1 has no spread; some ratios stand on the edges of the clips."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(16, 7, generator=generator)

    length_N = torch.randint(1, 8, (16,), generator=generator)
    mask_NT = torch.arange(7) < length_N[:, None]
    reward_N = (torch.rand(16, generator=generator) < 0.5).float()
    if dense:
        reward_N = torch.randn(16, generator=generator)
    reward_N[0], reward_N[1], reward_N[4:8] = 1.0, 0.0, 0.0
    old_logp_NT = -normal().abs() - 0.1
    log_ratio_NT = spread * normal()
    edges = torch.tensor([1 - 0.2, 1 + 0.2, 1 + 0.28, 1.0, 1 - 3e-4, 1 + 4e-4, 5.0]).log()
    log_ratio_NT[::5] = edges
    return Rollout(
        mask_NT=mask_NT,
        reward_N=reward_N,
        logp_NT=torch.where(mask_NT, old_logp_NT + log_ratio_NT, 0),
        old_logp_NT=torch.where(mask_NT, old_logp_NT, 0),
        ref_logp_NT=torch.where(mask_NT, old_logp_NT + 0.5 * normal(), 0),
    )


class Accelerator:
    """One process."""

    device = torch.device("cpu")
    num_processes, process_index, sync_gradients, is_main_process = 1, 0, True, True

    def gather(self, x: Any) -> Any:
        return x

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x


SETTINGS: dict[str, Any] = {
    "loss_type": "dapo",
    "importance_sampling_level": "token",
    "scale_rewards": "group",
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilon_high": None,
    "delta": None,
    "max_completion_length": 512,
    "use_bias_correction_kl": True,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "mask_truncated_completions": False,
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 1,
}
"""What GRPOConfig says when nothing is set, for all that the loss reads."""


def trainer(kind: type, r: Rollout, settings: dict[str, Any]) -> Any:
    """A trainer without a model: what the two methods read, and log-probs that are `r`'s."""
    known = {**SETTINGS, **settings}
    args = SimpleNamespace(
        **known,
        per_device_train_batch_size=len(r.reward_N),
        per_device_eval_batch_size=len(r.reward_N),
        gradient_checkpointing_kwargs=None,
    )
    bare = object.__new__(kind)
    high = known["epsilon_high"] if known["epsilon_high"] is not None else known["epsilon"]
    fields = {
        **{name: known[name] for name in SETTINGS if name not in ("epsilon", "epsilon_high", "delta")},
        "args": args,
        "accelerator": Accelerator(),
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "ref_model": object(),
        "epsilon_low": known["epsilon"],
        "epsilon_high": high,
        "current_gradient_accumulation_steps": known["gradient_accumulation_steps"],
        "num_generations": r.G,
        "num_iterations": 2,
        "reward_func_names": ["task"],
        "reward_funcs": [None],
        "reward_weights": torch.ones(1),
        "reward_clip_range": None,
        "normalize_advantages": known.get("normalize_advantages", False),
        "multi_objective_aggregation": "sum_then_normalize",
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "aux_loss_enabled": False,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "environment_factories": None,
        "environments": None,
        "tools": None,
        "_is_vlm": False,
        "rollout_func": None,
        "pad_to_multiple_of": None,
        "eos_token_ids": [EOS],
        "_tokenizer": SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS),
        "processing_class": SimpleNamespace(pad_token_id=PAD),
        "log_multimodal": False,
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_logs": defaultdict(deque, rewards=defaultdict(deque), extra=defaultdict(deque)),
    }
    for name, value in fields.items():
        setattr(bare, name, value)
    return bare


def theirs(
    r: Rollout, settings: dict[str, Any], kind: type = GRPOTrainer, micro: list[slice] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """TRL's loss (summed over micro-batches), its gradient by log-probs, and its advantages."""
    leaf = zoo.leaf(r.logp_NT)
    bare = trainer(kind, r, settings)
    length_N = r.mask_NT.sum(dim=1).tolist()
    inputs = [{"prompt": "p"} for _ in length_N]
    ids = [[2] * (n - 1) + [2 if i in r.cut else EOS] for i, n in enumerate(length_N)]

    def generated(prompts: list[str]) -> tuple[Any, ...]:
        texts = [""] * len(ids)
        return (
            ([[2]] * len(ids), ids, None, texts, None, {}, None, None)
            if kind is GRPOTrainer
            else ([[2]] * len(ids), ids, texts)
        )

    def scores(*_: Any) -> Tensor:
        return r.reward_N[:, None].clone()

    current = {"logp": r.old_logp_NT, "rows": slice(None)}

    def log_probs(model: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        logp = r.ref_logp_NT if model is bare.ref_model else current["logp"]
        return logp[current["rows"]], torch.zeros_like(r.logp_NT)[current["rows"]], None

    bare._generate, bare._calculate_rewards, bare._get_per_token_logps_and_entropies = generated, scores, log_probs
    made = kind._generate_and_score_completions(bare, inputs)
    loss = torch.zeros(())
    for rows in micro or [slice(None)]:
        current.update(logp=leaf, rows=rows)
        one = {k: v[rows] if isinstance(v, Tensor) and v.dim() else v for k, v in made.items()}
        loss = loss + kind._compute_loss(bare, bare.model, one)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), torch.where(r.mask_NT, leaf.grad, 0), made["advantages"]
