r"""The grader math-verify: mathematical equality, with many spellings of one answer (1/2, 0.5, \frac{1}{2}).

It runs in a separate process, one per grading process: a response such as 9^9^9^9 can make symbolic algebra run
forever, and a process can be killed while a thread cannot. A pair that takes longer than `SECONDS` counts as unequal.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading

from rlzoo.errors import UserError
from rlzoo.tasks.answers import final_answer, same, spoken

SECONDS = 5.0
"""For one pair: math-verify's own limit, which it keeps by a signal that only a main thread can take."""
START_SECONDS = 120.0
"""For the process to import math-verify."""
LAST_CHARACTERS = 4000
"""Of a response; the answer stands at its end."""

WORKER = """
import json, sys
from math_verify import parse, verify
print("ready", flush=True)
for line in sys.stdin:
    response, answer = json.loads(line)
    try:
        gold = parse("\\\\boxed{" + answer + "}", parsing_timeout=None)
        equal = bool(verify(gold, parse(response, parsing_timeout=None), timeout_seconds=None))
    except Exception:
        equal = False
    print(json.dumps(equal), flush=True)
"""

_lock = threading.Lock()
_workers: dict[int, subprocess.Popen[str]] = {}
"""By the id of the process that grades: a forked process must not talk to its parent's worker."""


def equivalent(completion: str, answer: str) -> bool:
    """Whether math-verify finds the response equal to the answer.

    Raises:
        UserError: math-verify does not start.
    """
    wanted = final_answer(answer)
    if same(final_answer(completion), wanted):
        return True
    with _lock:
        return _ask(json.dumps([spoken(completion)[-LAST_CHARACTERS:], wanted])) == "true"


def _ask(line: str) -> str:
    worker = _workers.get(os.getpid())
    if worker is None or worker.poll() is not None:
        worker = _workers[os.getpid()] = _start()
    return _reply(worker, line + "\n", SECONDS)


def _start() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-P", "-c", WORKER]
    worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
    atexit.register(worker.kill)
    if _reply(worker, "", START_SECONDS) != "ready":
        raise UserError("math-verify does not start: python -c 'import math_verify' says why")
    return worker


def _reply(worker: subprocess.Popen[str], line: str, seconds: float) -> str:
    """Write a line and read one, stripped; an empty one if the worker dies or takes too long, and then it is ended."""
    assert worker.stdin is not None and worker.stdout is not None
    timer = threading.Timer(seconds, worker.kill)
    timer.start()
    try:
        worker.stdin.write(line)
        worker.stdin.flush()
        return worker.stdout.readline().strip()
    except OSError:
        return ""
    finally:
        timer.cancel()
