"""One measurement in a fresh process, so that it does not inherit memory of an earlier one.

python -m benchmarks.speed_probe Work '{"side": "trl", "runs": 1}' measured.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

Result = TypeVar("Result", bound=BaseModel)
ROOT = Path(__file__).parents[1]


def probe(work: BaseModel, result: type[Result]) -> Result:
    """Measure a piece of work in a fresh process.

    Raises:
        RuntimeError: the process failed; the message has the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "measured.json")
        command = [sys.executable, "-m", __spec__.name, type(work).__name__, work.model_dump_json(), str(path)]
        # Each side as its users start it: our command line lets idle threads sleep, TRL keeps torch's default.
        environment = {"HF_HUB_OFFLINE": "1"} | {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        if getattr(work, "side", "rlzoo") == "rlzoo":
            environment["OMP_WAIT_POLICY"] = "passive"
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{work!r}\n{done.stderr[-3000:]}")
        return result.model_validate_json(path.read_text())


def main(kind: str, work: str, path: str) -> None:
    """Measure in this process and write the result to `path`."""
    import torch

    from benchmarks.speed_roofline import RatesWork, measure_rates
    from benchmarks.speed_work import Work

    if kind == Work.__name__:
        chosen = Work.model_validate_json(work)
        torch.set_num_threads(chosen.threads)
        if chosen.side == "trl":
            from benchmarks.speed_trl import measure
        else:
            from benchmarks.speed_ours import measure
        made: BaseModel = measure(chosen)
    else:
        rates = RatesWork.model_validate_json(work)
        torch.set_num_threads(rates.threads)
        made = measure_rates(rates)
    Path(path).write_text(made.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
