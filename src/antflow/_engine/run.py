"""A run: its state, and the answers to every question about it.

The parts of a run refer to it, and it refers to none of them. So it is also what they share: the
clock, the books, and whether the run is ending. It is written to by

- the `Supervisor`, which stops and ends it;
- the `Intake`, which notes when the input has ended;
- the workers, which keep the books through their recorders.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from signal import Signals
from typing import Any, Protocol
from weakref import ref

from antflow._core import readings
from antflow._core.books import Books
from antflow._core.cancellation import is_failure
from antflow._core.error_copies import copy_of
from antflow._core.errors import PipelineError
from antflow._core.estimates import PastRun, WhatIf
from antflow._core.failures import FailureBook
from antflow._core.foreign import type_name
from antflow._core.inside import StageInside
from antflow._core.ledger import ItemKey, Ledger
from antflow._core.log import debug
from antflow._core.observers import RunEnd, RunEnding
from antflow._core.ports import Blockable, Memory, Outlook
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot, LoopHealth, PipelineStats, RunState
from antflow._core.stage import Stage, capacity, described, lowest_concurrency, retry_policy
from antflow._core.tally import Tally
from antflow._core.text import safe_str
from antflow._core.worker_rows import WorkerRows
from antflow._core.workers_change import WorkersChanges
from antflow._engine.clock import LoopTimers
from antflow._engine.turns import Turns, turns_of

FAILURES_IN_SNAPSHOT = 100

NO_STATS = PipelineStats(0, 0, 0, {})


class Gauged(Protocol):
    """A stage of a run, as a reader sees it."""

    def gauge(self) -> readings.StageGauge:
        """Figures that the stage's books do not have."""
        ...

    def inside(self) -> StageInside:
        """What the future of the stage depends on besides."""
        ...


class Healthy(Blockable, Protocol):
    """Knows the health of the event loop."""

    def health(self) -> LoopHealth:
        """The health at this moment."""
        ...


class Run:
    """The state of one run.

    Args:
        stages: The stages, validated.
        total: How many items there will be, if known.
        length: Returns the number of items, where `total` is not given.
        keeps_results: Whether all results, and so all ids and failures, are kept.
        item_timeout: Seconds from an item's intake after which it fails, with `TimeoutError`.
        owner: Whose run it is; only compared, and not kept.
        name: The pipeline's name.
        books: The books of a run that continues in this one; ``None`` = empty ones.

    Attributes:
        stages: Its stages, once they are made.
        error: The error the run ends with.
        has_told_error: Whether it was raised.
        has_told_failures: Whether an error or a warning has said that items failed.
        how_stopped: "cancelled", "shut down" or "stopped by …".
        stopped_by: The signal that stopped it.
        pause_is_over: While it is paused, the event that tries wait for before they begin.
        intake_ended: When nothing more came from its source or by hand (loop time).
        is_closed: Whether nothing can feed it any more, not even its own tasks.
        skipped: Items left out because their id was taken.
        memory: Knows the items of earlier runs, and scopes their idempotency keys; ``None``: they
            are unique in the run that accepted the item first.
        to_retry: See `RunEnd`.
        turns: Says when its workers must give way.
        handle: Returns an object the owner wants to find again.
        loop_watch: Watches the event loop.
        outlook: Tells what the snapshots say about the future.
        workers_changes: The latest changes of the numbers of workers.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        total: int | None = None,
        length: Callable[[], int] | None = None,
        keeps_results: bool = True,
        item_timeout: float | None = None,
        owner: object = None,
        name: str = "pipeline",
        books: Books | None = None,
    ) -> None:
        books = Books(os.urandom(8).hex(), Ledger(len(stages))) if books is None else books
        self._owner = None if owner is None else ref(owner)
        self.handle: Callable[[], Any] | None = None
        self._loop = asyncio.get_running_loop()
        self.timers: LoopTimers = LoopTimers(self._loop)
        self._cpu_began = time.process_time()
        self._cpu_ended: float | None = None
        self._ended: float | None = None
        self.facts: RunFacts = RunFacts(
            run_id=books.run_id,
            stage_names=tuple(stage.name for stage in stages),
            started_mono=self.timers.now(),
            started_wall=time.time(),
            pipeline=name,
            per_task_stages=tuple(
                stage.name for stage in stages if not retry_policy(stage).whole_stage
            ),
            stage_options=tuple(map(described, stages)),
        )
        outer = current_run.get()
        # Weakly: where each run begins the next, the last must not keep the first alive.
        self._outer: tuple[ref[Run], ...] = ()
        if outer is not None:
            self._outer = (ref(outer), *map(ref, outer.outer_runs()))
        self.ledger: Ledger = books.ledger
        self.failures: FailureBook = FailureBook(None if keeps_results else FAILURES_IN_SNAPSHOT)
        self.keeps_results = keeps_results
        self.item_timeout = item_timeout
        self._total = total
        self._length = length
        self.stages: Sequence[Gauged] = ()
        self.loop_watch: Healthy | None = None
        self.outlook: Outlook | None = None
        self.workers_changes: WorkersChanges = WorkersChanges()
        self.turns: Turns = turns_of(self._loop, self.timers.now)
        self.error: BaseException | None = None
        self.has_told_error: bool = False
        self.has_told_failures: bool = False
        self.how_stopped: str = "cancelled"
        self.stopped_by: Signals | None = None
        self.is_cancelling: bool = False
        self.is_stopping: bool = False
        self.pause_is_over: asyncio.Event | None = None
        self.intake_ended: float | None = None
        self.is_closed: bool = False
        self.skipped: int = 0
        self.memory: Memory | None = None
        self.to_retry: dict[ItemKey, Any] | None = {}

    def end(self) -> None:
        """The run is over: its clocks stand still."""
        self._ended = self.timers.now()
        self._cpu_ended = time.process_time()
        self._length = None  # it has the items

    def take_error(self) -> BaseException | None:
        """The error that ended it, to be raised. Only a copy stays, for later calls.

        A raised error collects the frames it passes through, and their variables.
        """
        error = self.error
        if error is not None:
            self.has_told_error = True
            self.error = copy_of(error)
        return error

    def raise_late_error(self) -> None:
        """Raise an error that came when the run was already over: a second signal."""
        if (error := self.error) is not None:
            self.forget_error()
            raise error

    def forget_error(self) -> None:
        """Keep only the text of the error the run ended with, once it has been raised.

        Its traceback has the frames it passed through, and their variables.
        """
        if self.error is not None:
            self.how_stopped = stopped_by(self.error)
            self.is_stopping = True
            self.error = None

    # Where it is

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and its books are closed."""
        return self._ended is not None

    @property
    def is_under_way(self) -> bool:
        """Whether the run is not over, and its event loop is not closed."""
        return not (self.is_over or self._loop.is_closed())

    @property
    def is_left_behind(self) -> bool:
        """Whether the event loop was closed under it: nothing can be awaited or woken any more.

        Its coroutines are closed when the garbage collector finds them, and only pass that on.
        """
        return self._loop.is_closed()

    @property
    def has_all_items(self) -> bool:
        """Whether nothing more comes from its source, or by hand."""
        return self.intake_ended is not None

    @property
    def is_paused(self) -> bool:
        """Whether new work is held back."""
        return self.pause_is_over is not None

    @property
    def state(self) -> RunState:
        """The state of the run."""
        if self.is_over:
            return "finished"
        if self.is_cancelling:
            return "cancelling"
        if self.is_stopping or self.stopped_by is not None:
            return "stopping"
        if self.is_paused:
            return "paused"
        return "draining" if self.has_all_items else "running"

    def how_it_ended(self) -> RunEnd:
        """How it ended, for listeners and the store."""
        how: RunEnding = "finished"
        if self.error is not None:
            how = "failed"
        elif self.is_cancelling:
            how = "cancelled"
        elif self.is_stopping or self.stopped_by is not None:
            how = "stopped"
        now = self.now_or_end()
        seconds = now - self.facts.started_mono
        timestamp = self.facts.timestamp(now)
        snapshot = self.snapshot(is_last=True)
        stats = snapshot.pipeline_stats
        return RunEnd(
            self.facts.run_id, how, self.error, stats, timestamp, seconds, snapshot, self.to_retry
        )

    # Which code belongs to it

    @property
    def contains_caller(self) -> bool:
        """Whether the calling code is part of this run: one of its tasks, callbacks or displays."""
        run = current_run.get()
        return run is not None and run.is_within(self)

    def is_within(self, other: Run) -> bool:
        """Whether it is the other run, or was started by code that is part of it."""
        return self is other or any(run is other for run in self.outer_runs())

    def belongs_to(self, owner: object) -> bool:
        """Whether the run is this owner's."""
        return self._owner is not None and self._owner() is owner

    def outer_runs(self) -> list[Run]:
        """The runs that it was started inside of and that still exist, innermost first."""
        return [run for outer in self._outer if (run := outer()) is not None]

    def check_caller(self, what: str) -> None:
        """Refuse a call from outside the run's event loop: it cannot change the run safely.

        Raises:
            PipelineError: Another thread or event loop called, and the run is not over.
        """
        if self.is_over:
            return
        if self._loop.is_closed():
            raise PipelineError(
                f"{what}: the event loop of this run was closed, and the run cannot go on; "
                "begin another run"
            )
        if asyncio._get_running_loop() is not self._loop:
            raise PipelineError(
                f"{what} was called from another thread or event loop than the run's own; from a "
                "thread, use asyncio.run_coroutine_threadsafe(f(), loop), where f is an async "
                "function that makes this call, or loop.call_soon_threadsafe(…)"
            )

    # Reading

    @property
    def total(self) -> int | None:
        """How many items there will be, if known; the items are asked once, in the run's loop."""
        if self._length is not None and asyncio._get_running_loop() is self._loop:
            length, self._length = self._length, None
            began = self.timers.now()
            try:
                self._total = length()
            except BaseException as error:  # why: also a group with a CancelledError in it
                if not is_failure(error):
                    raise
                debug("len(items) failed: the number of items is unknown", error=error)
            finally:
                self.timers.held.seconds += self.timers.now() - began
        return self._total

    def expect(self, total: int | None) -> None:
        """Say how many items there will be; the items are not asked any more."""
        self._length, self._total = None, total

    def now_or_end(self) -> float:
        """The time, which stands still when the run is over."""
        return self.timers.now() if self._ended is None else self._ended

    def gauges(self) -> list[readings.StageGauge]:
        """Figures that the books do not have, stage by stage."""
        return [stage.gauge() for stage in self.stages]

    def worker_names(self) -> dict[str, list[str]]:
        """Stage name → names of its workers."""
        return readings.worker_names(self.facts, self.gauges(), self.ledger.stages)

    def stats(self) -> PipelineStats:
        """The counts, at this moment."""
        tallies = list(map(Tally, self.ledger.stages))
        return self._reading(tallies, self.gauges(), self.now_or_end(), self._total).stats()

    def _reading(
        self,
        tallies: Sequence[Tally],
        gauges: Sequence[readings.StageGauge],
        now: float,
        total: int | None,
    ) -> readings.Reading:
        coming = None if total is None else max(total - self.ledger.fed, 0)
        return readings.Reading(
            self.ledger,
            tallies,
            self.facts,
            gauges,
            now,
            self.skipped,
            0 if self.has_all_items or self.is_over else coming,
            self.is_over,
        )

    def snapshot(self, is_last: bool = False) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment; a true copy.

        Args:
            is_last: Whether it is about a run that is over but for its listeners: it does not ask
                for the number of items any more.
        """
        total = self._total if is_last else self.total
        gauges = self.gauges()
        tallies = list(map(Tally, self.ledger.stages))
        workers = WorkerRows(self.facts, gauges, tallies)
        until = self.now_or_end()
        intake_ended = until if self.intake_ended is None else self.intake_ended
        reading = self._reading(tallies, gauges, until, total)
        snapshot = DashboardSnapshot(
            worker_states={},
            worker_metrics={},
            pipeline_stats=NO_STATS,
            error_summary=self.failures.summary(FAILURES_IN_SNAPSHOT),
            timestamp=self.facts.timestamp(self.timers.now()),
            run_id=self.facts.run_id,
            total_items=total,
            state="finished" if is_last else self.state,
            elapsed=until - self.facts.started_mono,
            loop=LoopHealth() if self.loop_watch is None else self.loop_watch.health(),
            cpu_seconds=_cpu_seconds(self._cpu_began, self._cpu_ended)
            + sum([gauge.child_cpu_seconds for gauge in gauges]),
            intake_seconds=intake_ended - self.facts.started_mono,
            workers_changes=self.workers_changes.latest,
            journal=None if self.memory is None else self.memory.state(),
        )
        makers: Mapping[str, Callable[[], Any]] = {}
        if self.outlook is not None:
            longest = partial(workers.longest, until)
            makers = self.outlook.see(
                snapshot, reading.stats, partial(_inside, self.stages), longest
            )
        snapshot._defer(
            worker_states=workers.states,
            worker_metrics=workers.metrics,
            pipeline_stats=reading.stats,
            **makers,
        )
        return snapshot


class NoRun:
    """The answers of a pipeline that has not run.

    Args:
        stages: Its stages.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.failures: FailureBook = FailureBook()
        self._ledger = Ledger(len(stages))
        self._facts = RunFacts("", tuple(stage.name for stage in stages), 0.0, 0.0)
        self._gauges = [
            readings.StageGauge(
                stage.workers, capacity(stage), concurrency=lowest_concurrency(stage)
            )
            for stage in stages
        ]

    def worker_names(self) -> dict[str, list[str]]:
        """Stage name → names of its workers."""
        return readings.worker_names(self._facts, self._gauges, self._ledger.stages)

    def stats(self) -> PipelineStats:
        """Counts that are all zero."""
        tallies = list(map(Tally, self._ledger.stages))
        return readings.Reading(self._ledger, tallies, self._facts, self._gauges, 0.0).stats()

    def snapshot(self) -> DashboardSnapshot:
        """A snapshot in which nothing has happened."""
        workers = WorkerRows(self._facts, self._gauges, list(map(Tally, self._ledger.stages)))
        return DashboardSnapshot(
            worker_states=workers.states(),
            worker_metrics=workers.metrics(),
            pipeline_stats=self.stats(),
            error_summary=self.failures.summary(),
            timestamp=0.0,
        )


def what_if(run: Run | NoRun, workers: Mapping[str, int]) -> WhatIf | None:
    """How long a run would take, or have taken, in all with these workers."""
    if isinstance(run, NoRun) or run.outlook is None:
        return None
    if (past := past_run(run, run.stats())) is not None:
        return past.what_if(workers)
    run.snapshot()  # the outlook takes it in
    return run.outlook.what_if(workers)


def past_run(run: Run, stats: PipelineStats) -> PastRun | None:
    """The measurements of a run, if it is over; ``stats`` are its counts."""
    if run.outlook is None or not run.is_over:
        return None
    ended, began = run.now_or_end(), run.facts.started_mono
    intake_ended = ended if run.intake_ended is None else run.intake_ended
    inside = _inside(run.stages)
    return run.outlook.past(stats, inside, ended - began, intake_ended - began)


def _inside(stages: Sequence[Gauged]) -> list[StageInside]:
    """What the future depends on, stage by stage, besides what the books say."""
    return [stage.inside() for stage in stages]


current_run: ContextVar[Run | None] = ContextVar("antflow_run", default=None)
"""The run this code belongs to: its tasks, its callbacks, its displays."""


def stopped_by(error: BaseException) -> str:
    """How a run that ended with this error was stopped."""
    return f"stopped by {type_name(error)}: {safe_str(error)}"


def _cpu_seconds(began: float, ended: float | None) -> float:
    """Seconds of processor time that this process took since a run began."""
    return (time.process_time() if ended is None else ended) - began
