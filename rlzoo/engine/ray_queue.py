"""Jobs on the workers of a Ray cluster: a queue, from which every worker takes as many as it may hold.

    share  =  ceil(jobs / workers)        jobs that a worker holds at most, unless the settings say less

A worker without a job gets half of those of the busiest one, each at its next checkpoint: a slow run holds nobody up.
The jobs of a worker that died are queued again, and go on from their checkpoints. One whose workers die again and again
before it gets any further (out of memory, say) goes on in ever smaller fleets, and is given up once it died alone.
"""

from __future__ import annotations

import itertools
import math
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from rlzoo.engine.ray_cluster import Needs
from rlzoo.engine.ray_worker import Said, Trainer, Worker
from rlzoo.errors import UserError

DEATHS = 2
"""Workers that have to die with a job before it gets any further, the last of them with no other job."""
RESTARTS = 5
"""Times that Ray starts a worker again."""
PAUSE = 2.0
"""Seconds between two questions to a worker that Ray restarts."""
REFUSED = 3
"""Times that a job may be handed back unasked."""
PLACED_WITHIN = 60.0
"""Seconds that training waits for workers beyond the first that is ready; those that come later join."""
NOBODY_FOR = 180.0
"""Seconds that training waits while there is no worker at all."""
TURN = 1.0

OnRecord = Callable[[str, dict[str, Any]], None]


@dataclass(eq=False)
class _Task:
    name: str
    job: Any
    most: int
    """Number of jobs that one worker may hold when this is one of them."""
    reached: int = -1
    """Records heard of it when its last worker died."""
    deaths: int = 0
    """Workers that have died with it since it last got further."""
    reason: str = ""
    refused: int = 0


@dataclass(eq=False)
class _Place:
    """A worker, also while Ray restarts it."""

    actor: Any
    tasks: dict[str, _Task] = field(default_factory=dict)
    where: str | None = None
    """Host and process; None until Ray has placed it."""
    ready: bool = False
    """Whether it has loaded everything."""
    worked: bool = False
    """Whether it was ready at some time."""
    ask_at: float = 0.0
    """When to ask where it is."""
    recalled: set[str] = field(default_factory=set)

    def takes(self, task: _Task) -> bool:
        """Whether there is room for a job here."""
        return self.ready and len(self.tasks) < min(t.most for t in (task, *self.tasks.values()))


def work_off(
    jobs: Mapping[str, Any],
    trainer: Trainer,
    needs: Needs,
    workers: int,
    fleet: int | None,
    on_record: OnRecord,
    give_up: Callable[[str, str], Any],
) -> dict[str, Any]:
    """Do all jobs on `workers` workers and return name -> outcome. An exception of a job ends all and is raised here.

    Args:
        trainer: what each worker does; see `rlzoo.engine.ray_worker.Trainer`.
        fleet: jobs that a worker holds at most; None: an equal share.
        on_record: called in this thread with every record of every job, once, in their order.
        give_up: makes the outcome of a job that workers die of, from its name and the reason.

    Raises:
        UserError: a worker cannot open, or there has been none for `NOBODY_FOR` seconds.
    """
    most = fleet or math.ceil(len(jobs) / workers)
    options = {**needs.options, "max_restarts": RESTARTS, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    remote = ray.remote(Worker).options(**options)
    numbers = itertools.count()
    tasks = [_Task(name, job, most) for name, job in jobs.items()]
    queue = _Queue(tasks, lambda: remote.remote(trainer, next(numbers)), on_record, give_up)
    try:
        for _ in range(workers):
            queue.add_place()
        return queue.run()
    finally:
        queue.end()


class _Queue:
    """Who has which job, and what is awaited from whom."""

    def __init__(
        self,
        tasks: list[_Task],
        start: Callable[[], Any],
        on_record: OnRecord,
        give_up: Callable[[str, str], Any],
    ) -> None:
        self.waiting = deque(tasks)
        self.left = {task.name for task in tasks}
        self.start, self.on_record, self.give_up = start, on_record, give_up
        self.places: list[_Place] = []
        self.calls: dict[Any, tuple[_Place, str]] = {}
        self.heard: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.outcomes: dict[str, Any] = {}
        self.began = False
        self.since = time.monotonic()  # the last moment at which there was a worker

    def add_place(self) -> None:
        """Have Ray start another worker; it is asked where it is, then to open, then what it has to say."""
        self.places.append(_Place(self.start()))

    def run(self) -> dict[str, Any]:
        """Work until every job has an outcome."""
        start = time.monotonic()
        while self.left:
            ready = [place.ready for place in self.places]
            self.began = self.began or all(ready) or (any(ready) and time.monotonic() - start > PLACED_WITHIN)
            if self.began:
                self._hand_out()
                self._balance()
            self._refuse_nobody()
            for place in self.places:
                if time.monotonic() >= place.ask_at:
                    place.ask_at = math.inf
                    self.calls[place.actor.here.remote()] = place, "here"
            answered, _ = ray.wait(list(self.calls), timeout=TURN)
            for call in answered:
                if call in self.calls:  # else its worker has died meanwhile
                    self._take(call)
        return self.outcomes

    def end(self) -> None:
        """End all workers."""
        for place in self.places:
            with suppress(Exception):  # Ray may be gone
                ray.kill(place.actor)

    def _hand_out(self) -> None:
        for task in list(self.waiting):
            able = [place for place in self.places if place.takes(task)]
            if able:
                place = min(able, key=lambda place: len(place.tasks))
                self.waiting.remove(task)
                place.tasks[task.name] = task
                self.calls[place.actor.train.remote(task.name, task.job)] = place, "train"

    def _balance(self) -> None:
        """Have the busiest worker hand half of its jobs to one that has none."""
        idle = [place for place in self.places if place.ready and not place.tasks]
        if self.waiting or not idle or any(place.recalled for place in self.places):
            return
        busiest = max(self.places, key=lambda place: len(place.tasks))
        for name in list(busiest.tasks)[: len(busiest.tasks) // 2]:
            busiest.recalled.add(name)
            self.calls[busiest.actor.hand_back.remote(name)] = busiest, "hand_back"

    def _refuse_nobody(self) -> None:
        """Raise `UserError` once there has been no worker for too long."""
        if any(place.where is not None for place in self.places):
            self.since = time.monotonic()
        elif time.monotonic() - self.since > NOBODY_FOR or not self.places:
            reasons = "; ".join(dict.fromkeys(task.reason for task in self.waiting if task.reason))
            raise UserError(
                f"the Ray cluster has had no worker for {time.monotonic() - self.since:.0f} s"
                f"{f' ({reasons})' if reasons else ''}. Everything up to the last checkpoints is safe: continue with "
                "--resume once it has room"
            )

    def _take(self, call: Any) -> None:
        """Take in one answer of a worker."""
        place, what = self.calls.pop(call)
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            self._failed(place, what, error)
        except RayActorError as error:
            self._lost(place, error)
        else:
            if what == "here":
                place.where = answer
                self.calls[place.actor.open.remote()] = place, "open"
            elif what == "open":
                place.ready = place.worked = True
                self._listen(place)
            elif what == "listen":
                for said in answer:
                    self._hear(place, said)
                self._listen(place)

    def _listen(self, place: _Place) -> None:
        self.calls[place.actor.listen.remote()] = place, "listen"

    def _failed(self, place: _Place, what: str, error: RayTaskError) -> None:
        """A method raised: that ends all, but for a worker that joins late and cannot."""
        cause = getattr(error, "cause", error)
        if what == "open" and self.began and isinstance(cause, UserError):
            warnings.warn(f"a worker cannot join: {cause}", stacklevel=2)
            self.places.remove(place)
            return
        raise cause if isinstance(cause, UserError) else error

    def _hear(self, place: _Place, said: Said) -> None:
        what, name, content = said
        if what == "record":
            self._record(name, content)
            return
        task = place.tasks.pop(name)
        place.recalled.discard(name)
        if what == "end":
            self._finish(name, content)
        elif what == "back":
            self.waiting.append(task)
            task.refused += bool(content)
            if task.refused > REFUSED:
                raise UserError(content)
        else:
            raise content

    def _record(self, name: str, record: dict[str, Any]) -> None:
        """Pass a record on, unless it was before the worker died that told it first: a job begins by telling all."""
        kind = record["kind"]
        if kind == "start":
            self.counted[name] = 0
            if name in self.heard:
                return
            self.heard[name] = 0
        elif kind != "end":
            self.counted[name] += 1
            if self.counted[name] <= self.heard[name]:
                return
            self.heard[name] = self.counted[name]
        self.on_record(name, record)

    def _finish(self, name: str, outcome: Any) -> None:
        self.outcomes[name] = outcome
        self.left.discard(name)

    def _lost(self, place: _Place, error: RayActorError) -> None:
        """Queue the jobs of a worker that died, or that cannot be reached; ask it again once Ray has restarted it."""
        self.calls = {call: other for call, other in self.calls.items() if other[0] is not place}
        reason, tasks = f"the worker on {place.where} died: {_reason(error)}", list(place.tasks.values())
        place.where, place.ready, place.tasks, place.recalled = None, False, {}, set()
        for task in reversed(tasks):
            self._died(task, reason, beside=len(tasks) - 1)
        if not isinstance(error, ActorDiedError):
            place.ask_at = time.monotonic() + PAUSE
            return
        self.places.remove(place)  # Ray has restarted it often enough
        if place.worked:
            self.add_place()
        elif not self.places:
            missing = re.search(r"No module named '([\w.]+)'", str(error))
            if missing is not None:
                raise UserError(
                    f"the workers of the Ray cluster cannot import {missing[1]}: install rlzoo[ray], in the version of "
                    "this process, on every node"
                ) from error
            raise UserError(f"the workers of the Ray cluster die before they are ready: {_reason(error)}") from error

    def _died(self, task: _Task, reason: str, beside: int) -> None:
        """Queue a job whose worker died, in a smaller fleet if it has not got further since the last time."""
        reached = self.heard.get(task.name, 0)
        task.deaths = task.deaths + 1 if reached <= task.reached else 1
        task.reached, task.reason = reached, reason
        if task.deaths > 1:
            task.most = max(1, (beside + 1) // 2)
        if task.deaths < DEATHS or beside:
            self.waiting.appendleft(task)
            return
        why = f"{task.deaths} workers died of it. {task.reason}. If memory was short, choose a smaller engine."
        self._finish(task.name, self.give_up(task.name, f"{why}micro_batch_tokens or more engine.worker_memory"))


def _reason(error: RayActorError) -> str:
    """What Ray says about a death, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("class_name:", "actor_id:", "pid:", "namespace:", "ip:"))]
    return " ".join(told)[:600] if isinstance(error, ActorDiedError) else " ".join(lines)[:600]
