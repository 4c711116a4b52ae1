"""Run folders that no training made: as rlzoo.training.run writes them, with numbers that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.config.run import RunConfig
from rlzoo.experiments.plan import declare
from rlzoo.store.outcomes import pack
from rlzoo.store.run_folder import RunFolder

HARD = np.random.default_rng(0).permutation(np.arange(400) / 400)  # how good one must be to solve a problem
COSTS = ("updates", "tokens_sampled", "tokens_trained", "prompts_sampled", "prompts_discarded", "tokens_discarded")


def write_run(
    folder: Path,
    algorithm: str = "grpo",
    seed: int = 0,
    accuracies: Sequence[float] = (0.25, 0.5, 0.75),
    *,
    state: str | None = "done",
    tokens: int = 100,
    responses: Sequence[str] = ("42",),
    prompt: str | list[dict[str, str]] = "40+2=",
    answer: Any = "42",
    row: str | None = None,
    objective: dict[str, Any] | None = None,
    task: str = "add:medium",
    steps: int | None = None,
    failure: str = "step 3: loss nan",
) -> Path:
    """Write a run with one evaluation after every second step, and the first of `responses` to each.

    Args:
        folder: of the comparison.
        state: None: it has not ended.
        tokens: sampled per step.
        row: the name of its row, if it is not the algorithm's.
        objective: what config.json has in the place of the algorithm's own row of parts.
        steps: that it was asked to make; as many as it made if not given.
    """
    made = 2 * (len(accuracies) - 1)
    config = RunConfig.model_validate({"objective": algorithm, "seed": seed, "task": {"name": "add"}}).stored()
    config["task"]["name"] = task
    config["train"]["steps"] = made if steps is None else steps
    config["objective"] |= objective or {}
    run = RunFolder(folder / (row or algorithm) / f"seed{seed}")
    run.path.mkdir(parents=True)
    run.write_json("config.json", config)
    run.write_json("environment.json", {"command": ["/x/rlzoo", "compare", algorithm, "a b"], "torch": "2.13.0"})

    def costs(step: int) -> dict[str, float]:
        spent = dict.fromkeys(COSTS, tokens * step) | {"updates": 4 * step}
        return {**spent, "engine_s": 0.5 * step, "elapsed_s": 1.0 * step}

    for step in range(made + 1):
        if step:
            train = {"reward": step / max(made, 1), "entropy": 1 / step, "length": 10.0 + step, "kl_ref": None}
            run.log({"kind": "train", "step": step, **train, **costs(step)})
        if step % 2 == 0:
            accuracy = accuracies[step // 2]
            evaluation = {"step": step, "accuracy": accuracy, "length": 10.0 + step, **costs(step)}
            evaluation["outcomes"] = pack((accuracy > HARD).tolist())
            run.log({"kind": "eval", **evaluation})
            if step in (0, made):
                run.log({"kind": "test", **evaluation})
            text = responses[min(step // 2, len(responses) - 1)]
            sample = {"prompt": prompt, "completion": text, "answer": answer, "reward": 1.0, "accuracy": accuracy}
            run.log_samples([{"kind": "eval", "step": step, **sample, "length": len(text), "finished": True}])
    if state is not None:
        outcome = {"name": f"{algorithm}/seed{seed}", "objective": algorithm, "seed": seed, "state": state}
        outcome |= {"failure": failure, "ended": "failure" if state == "failed" else "steps"}
        run.write_json("summary.json", {**outcome, "step": made, **costs(made)})
    return run.path


def write_study(folder: Path, algorithms: Sequence[str] = ("grpo", "dapo"), seeds: int = 3, **run: Any) -> Path:
    """Write a comparison with a plan that has ended: the later an algorithm is named, the better it is."""
    write_plan(folder, algorithms, seeds)
    for place, name in enumerate(algorithms):
        for seed in range(seeds):
            better = 0.05 * place + 0.01 * seed
            write_run(folder, name, seed, (0.25, 0.4 + better, 0.6 + better), **run)
    return folder


def write_plan(folder: Path, algorithms: Sequence[str], seeds: int, **settings: Any) -> None:
    """Declare what a comparison is to be, as `rlzoo compare` does before its first run."""
    config = {"objectives": list(algorithms), "seeds": seeds, "task": "add:medium", "train": {"steps": 4}}
    declare(folder, Plan.of(CompareConfig.model_validate(config | settings)))


def edit_json(path: Path, **changes: Any) -> None:
    """Change some entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
