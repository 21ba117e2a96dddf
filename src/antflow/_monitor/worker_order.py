"""The workers of a run, each in a state that can be seen at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from typing import Literal, NamedTuple, get_args

from antflow._core.snapshot import DashboardSnapshot, StageStats, WorkerState

Doing = Literal["busy", "slow", "retrying", "limited", "blocked", "idle"]
"""A worker's activity: an `Activity`, or "slow" or "idle".

Its task runs · and takes much longer than most · and is not the first try · a limit holds it · it
waits for room in the next stage, or among the items that wait for their next try, or for its
callbacks · it has nothing to do.
"""

RUNNING: frozenset[Doing] = frozenset({"busy", "slow", "retrying"})
"""The activities of a worker that is in a task: see `StageStats.running_workers`."""

DOINGS: tuple[Doing, ...] = get_args(Doing)

MUCH_LONGER = 3.0
SHORTEST_SLOW = 1.0
"""Seconds: a faster task is never called slow, however fast the others are."""


class Cell(NamedTuple):
    """One or more workers of a stage.

    Attributes:
        doing: The state of one of them: the first in the order of `DOINGS`.
        at_work: How many of them are not idle.
        workers: How many there are.
    """

    doing: Doing
    at_work: int
    workers: int


@dataclass(frozen=True, slots=True)
class WorkerStrip:
    """The workers of one stage.

    Attributes:
        stage: Its name.
        doing: One per worker, in the order of their numbers.
        busy: How many have an item.
    """

    stage: str
    doing: tuple[Doing, ...]
    busy: int

    @property
    def running(self) -> int:
        """How many are in a task."""
        return sum([each in RUNNING for each in self.doing])

    def cells(self, per_cell: int, by_state: bool = False) -> list[Cell]:
        """Its workers, ``per_cell`` to a cell; the last cell may have fewer.

        Args:
            per_cell: Workers per cell, 1 or more.
            by_state: Group equal states, instead of each worker in its place.
        """
        doing: Sequence[Doing] = self.doing
        if by_state:
            doing = [each for each in DOINGS for _ in range(self.doing.count(each))]
        groups = [doing[start : start + per_cell] for start in range(0, len(doing), per_cell)]
        if per_cell == 1:
            return [Cell(each, int(each != "idle"), 1) for (each,) in groups]
        return [
            Cell(min(group, key=DOINGS.index), len(group) - group.count("idle"), len(group))
            for group in groups
        ]


def worker_strips(snapshot: DashboardSnapshot) -> list[WorkerStrip]:
    """The workers of each stage that has any, in pipeline order."""
    stages = snapshot.pipeline_stats.stage_stats
    doing: dict[str, list[Doing]] = {name: [] for name in stages}
    busy = dict.fromkeys(stages, 0)
    slow_before = {name: snapshot.timestamp - _slow(stage) for name, stage in stages.items()}
    for worker in snapshot.worker_states.values():
        name = worker.stage
        doing.setdefault(name, []).append(what_it_does(worker, slow_before.get(name, -inf)))
        busy[name] = busy.get(name, 0) + (worker.status == "busy")
    return [WorkerStrip(name, tuple(each), busy[name]) for name, each in doing.items() if each]


def what_it_does(worker: WorkerState, slow_before: float) -> Doing:
    """The activity of a worker.

    Args:
        worker: The worker.
        slow_before: A task that has been running since before then (Unix seconds) is slow.
    """
    if worker.waits_for == "retrying":
        return "blocked"
    if worker.waits_for == "limited" or worker.waits_for == "blocked":
        return worker.waits_for
    if worker.status != "busy" and worker.waits_for != "thread":
        return "idle"
    if worker.processing_since is not None and worker.processing_since < slow_before:
        return "slow"
    return "retrying" if worker.attempt > 1 else "busy"


def _slow(stage: StageStats) -> float:
    """Seconds from which a try of this stage is slow."""
    return max(MUCH_LONGER * (stage.run_times.p95 or inf), SHORTEST_SLOW)


def longest_running(workers: Iterable[WorkerState], most: int) -> list[WorkerState]:
    """Up to ``most`` busy workers: those that have had their item longest, first."""
    busy = [worker for worker in workers if worker.status == "busy"]
    return nsmallest(most, busy, key=_since)


def _since(worker: WorkerState) -> float:
    return inf if worker.processing_since is None else worker.processing_since
