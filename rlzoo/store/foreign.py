"""Logs of other trainers, with their metrics renamed to ours: TRL's trainer_state.json, JSON lines (verl, prime-rl),
CSV (wandb).

Prefixes of names are ignored, and unknown metrics are left out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError
from rlzoo.store import files

NAMES = {
    "step": ("global_step", "_step", "training/global_step", "step"),
    "reward": (
        *("train/reward", "reward", "critic/rewards/mean", "critic/score/mean", "train/agg/effective/reward/mean"),
        *("train/agg/all/reward/mean", "train/agg/all/agent/reward/mean", "reward/all/mean", "reward/mean"),
    ),
    "reward_std": ("train/reward_std", "reward_std"),
    "silent_groups": ("train/frac_reward_zero_std", "frac_reward_zero_std"),
    "clip_fraction": (
        *("train/clip_ratio/region_mean", "clip_ratio/region_mean", "clip_ratio", "train/clip_ratio"),
        *("actor/pg_clipfrac", "is_masked/mean", "clip_fraction"),
    ),
    "entropy": ("train/entropy", "entropy", "actor/entropy", "actor/entropy_loss", "entropy/all/mean", "entropy/mean"),
    "explained_variance": ("critic/vf_explained_var", "explained_variance", "val/explained_variance"),
    "length": (
        *("train/completions/mean_length", "completions/mean_length", "completion_length", "response_length/mean"),
        *("train/agg/effective/num_output_tokens/mean", "train/agg/all/num_output_tokens/mean"),
        *("decode_len/all/mean", "seq_len/all/mean", "length"),
    ),
    "kl": ("train/kl", "kl", "actor/kl_loss", "mismatch_kl/all/mean", "mismatch_kl/mean"),
    "kl_old": ("actor/ppo_kl", "kl_old"),
    "ratio_first": ("ratio_first", "train/ratio_first"),
    "gradient_norm": ("train/grad_norm", "grad_norm", "actor/grad_norm", "optim/grad_norm", "gradient_norm"),
}
"""Our name -> the other trainers' names; the first one present is used. TRL 1.16 (in wandb behind train/); verl's file
logger; prime-rl's trainer and orchestrator, whose rollout metrics are SCOPE/SUBSET/METRIC/STATISTIC since 2026."""
LEARNING = "effective_batch_size/all"
"""prime-rl: the share of the prompts whose responses were neither all right nor all wrong: 1 - silent_groups."""


def read_log(path: Path) -> dict[str, list[float | None]]:
    """Return metric -> its value at every step of another trainer's log.

    Raises:
        UserError: it cannot be read, or holds nothing that is known.
    """
    data = files.read_bytes(path)
    if path.suffix == ".csv":
        rows = _csv(data, path)
    elif path.suffix == ".json":
        state = files.parse_json(data, str(path))
        rows = state.get("log_history", []) if isinstance(state, Mapping) else state
    else:
        lines = [(n, line) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
        rows = [files.parse_json(line, f"{path}, line {n}") for n, line in lines]
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"{path} is no log that is known: trainer_state.json of TRL, JSON lines, or CSV with a heading")
    # verl writes {"step": 1, "data": {...}}
    rows = [{**row, **row["data"]} if isinstance(row.get("data"), Mapping) else row for row in rows]
    found = {name: column for name, theirs in NAMES.items() if (column := _column(rows, theirs))}
    learning = _column(rows, (LEARNING,))
    if learning and "silent_groups" not in found:
        found["silent_groups"] = [None if share is None else 1 - share for share in learning]
    kept = [i for i in range(len(rows)) if any(found[name][i] is not None for name in found if name != "step")]
    if not kept or set(found) <= {"step"}:
        raise UserError(
            f"{path} has none of the metrics that are known, such as {', '.join(n[0] for n in NAMES.values())}"
        )
    return {name: [column[i] for i in kept] for name, column in found.items()}


def _csv(data: bytes, path: Path) -> list[dict[str, Any]]:
    """Rows of a table; wandb's export names a column `RUN - METRIC`."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not CSV in UTF-8: {error}") from error
    return [{re.sub(r"^.* - ", "", key or ""): value for key, value in row.items()} for row in rows]


def _column(rows: Iterable[Mapping[str, Any]], theirs: tuple[str, ...]) -> list[float | None] | None:
    for name in theirs:
        column = [_number(row.get(name)) for row in rows]
        if any(value is not None for value in column):
            return column
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
