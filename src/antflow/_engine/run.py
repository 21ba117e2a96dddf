"""A run: it owns every state that changes, from the first item to the balanced books.

A run ends in one way. Something sets *finishing*: the intake is closed and nothing is in flight;
or it was cancelled, shut down, or something broke. The *supervisor*, the one `asyncio.Task`
besides the workers (and a feeder, where items are not pulled), then closes the channels, waits for
every other task of the run, settles what is left as cancelled, audits the books, and only then is
the run over. Whoever waits for a run waits for that, however often the wait is cancelled; so
nothing of a run is ever left behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import count
from typing import Any

from antflow._core import readings
from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.errors import InternalError, PipelineError, TooManyFailures
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger
from antflow._core.ports import Guard, Observer, Store, Wait
from antflow._core.result import PipelineResult
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot, PipelineStats, RunState
from antflow._core.stage import MOST_WORKERS, Stage
from antflow._engine.clock import LoopTimers
from antflow._engine.current import current_run, current_seat
from antflow._engine.intake import Intake
from antflow._engine.recorder import Listeners, Recorder, discard
from antflow._engine.source import IterableSource
from antflow._engine.stage_run import StageRun

logger = logging.getLogger("antflow")

Deliver = Callable[[PipelineResult[Any]], Wait]
"""Takes a result out of the run; an awaitable makes the worker wait (a slow consumer)."""

LONGEST_TURN = 0.005
"""Seconds that tasks which never suspend may hold the event loop, all workers together."""

FAILURES_IN_SNAPSHOT = 100
FEWEST_FOR_A_RATIO = 20
"""A ratio of failures is judged only once so many items are settled."""

CLEAN_UP_FAILED = "the source's clean-up failed"
SLOWEST_CLOSE = 5.0
"""Seconds a source's clean-up may take when the run stops taking in."""


class Run:
    """One run of a pipeline.

    Args:
        stages: The stages, validated.
        deliver: Where results go.
        guard: Calls stage callbacks.
        next_id: Gives running ids to items that bring none.
        store: Keeps transitions, or ``None``.
        observer: Sees them, or ``None``.
        max_failures: Failed items at which intake stops: a count (int), or a ratio (float, once 20
            items are settled); ``None`` = no limit.
        total: How many items there will be, if known.
        keeps_results: Whether all results, and so all ids and failures, are kept.
        owner: Whose run it is; only compared.

    Attributes:
        handle: Whatever the owner wants to find again.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        deliver: Deliver,
        guard: Guard,
        next_id: Callable[[], int],
        store: Store | None = None,
        observer: Observer | None = None,
        max_failures: float | None = None,
        total: int | None = None,
        keeps_results: bool = True,
        owner: object = None,
    ) -> None:
        self.owner = owner
        self.handle: Any = None
        self._loop = asyncio.get_running_loop()
        self.timers = LoopTimers(self._loop, self.crash)
        self.facts = RunFacts(
            run_id=os.urandom(8).hex(),
            stage_names=tuple(stage.name for stage in stages),
            started_mono=self.timers.now(),
            started_wall=time.time(),
        )
        self.guard = guard
        self.store = store
        self.observer = observer
        self.total = total
        self.parent = current_run.get()
        self.parent_seat = current_seat.get()
        self.ledger = Ledger(len(stages))
        self.failures = FailureBook(None if keeps_results else FAILURES_IN_SNAPSHOT)
        self.turn_ends = self.timers.now() + LONGEST_TURN
        self.error: BaseException | None = None
        self.how_stopped = "cancelled"
        self.is_cancelling = False
        self._is_stopping = False
        self._deliver = deliver
        self._max_failures = max_failures
        self._keeps_results = keeps_results
        self._delivering = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._dismissed: asyncio.Task[None] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._waits: list[Awaitable[None]] = []
        self._crashes: list[Exception] = []
        self._finishing: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.intake = Intake(self, next_id)
        listeners = Listeners(self.facts, store, observer, self.stop_intake, count(1))
        self.stages = [
            StageRun(
                self,
                index,
                stage,
                Recorder(index, self.ledger, self.failures, self.facts, listeners),
            )
            for index, stage in enumerate(stages)
        ]
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            stage.next_channel = following.channel
        if observer is not None:
            observer.opened(self.facts, self.ledger, self._rewire)
            self._rewire()
        self._context = copy_context()
        self._context.run(current_run.set, self)
        self._context.run(current_seat.set, None)
        self._supervisor = self.create_side_task(self._supervise(), "supervisor")

    # Intake

    def pull_from(self, items: Iterable[Any]) -> None:
        """Take the run's items from an iterable, as the first stage asks for them."""
        source = IterableSource(items, self.timers.now)
        if self.stages[0].recorder.tells_starts:
            # Somebody is told of each item before it enters. A task of its own waits for that, so
            # that the queue fills up, and shows how slow the stage is, while the workers work.
            self._feeder = self.create_task(self._feed_from(source), "feeder")
        else:
            self.intake.source = source
            self.stages[0].channel.ring()

    def push_from(self, items: AsyncIterable[Any]) -> None:
        """Take the run's items from an async iterable, with a task of its own."""
        self._feeder = self.create_task(self._feed_from(items), "feeder")

    async def feed(
        self,
        items: Iterable[Any] | IterableSource,
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        """Take in items, waiting for room as often as it takes.

        From inside one of this run's own workers, room before its own or an earlier stage is not
        waited for: it might be the very worker that has to make it.

        Raises:
            PipelineError: If intake is, or meanwhile was, closed. What was accepted stays accepted.
        """
        source = items
        if not isinstance(source, IterableSource):
            source = IterableSource(source, self.timers.now)
        channel = self.stages[stage].channel
        waits = not self._sits_at_or_after(stage)
        self._check_open()
        while raws := source.take(self.intake.batch_size(stage)):
            self._check_open()
            envelopes = self.intake.envelopes(raws, stage, priority)
            feeds_from = current_run.set(self)  # what is called meanwhile is inside this run
            try:
                if (wait := self.intake.admit(envelopes, stage)) is not None:
                    await wait
            finally:
                current_run.reset(feeds_from)
            if waits:
                await channel.room()
                if channel.is_closed:
                    self._check_open()
            if self.timers.now() >= self.turn_ends:
                await self.breathe()

    async def feed_async(
        self, items: AsyncIterable[Any], stage: int = 0, priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Take in items of an async iterable, each as it comes. See `feed`."""
        async for raw in items:
            await self.feed((raw,), stage, priority)

    def close_intake(self) -> None:
        """No more items but those that the run's own tasks feed; it ends when all are settled.

        May be called twice.
        """
        self.intake.has_ended = True
        self._close_source()
        self._check_finished()

    def stop_intake(self, error: BaseException) -> None:
        """No more items: what was accepted finishes, then ``error`` comes out."""
        if self.error is None:
            self.error = error
        self.intake.is_closed = True
        self.close_intake()

    # Stopping

    def cancel(self) -> None:
        """Stop now: cancel running tasks, settle everything else. May be called twice."""
        if self._ended.done():
            return
        if not self.is_cancelling:
            self.is_cancelling = True
            self.how_stopped = "cancelled"
        for task in tuple(self._tasks):
            task.cancel()
        self._stop()

    def shut_down(self) -> None:
        """Let running attempts end, settle everything that waits. May be called twice."""
        if not self._is_stopping:
            self.how_stopped = "shut down"
        self._stop()

    def fail(self, error: BaseException) -> None:
        """Something broke that no item can answer for: cancel, and let ``error`` come out."""
        if self.error is None or not isinstance(error, Exception):
            self.error = error
        self.cancel()

    def crash(self, error: BaseException, where: str = "the engine") -> None:
        """A fault of the library itself: end the run, loudly."""
        if isinstance(error, Exception):
            broken = InternalError(f"{where} crashed: {type(error).__name__}: {error}")
            broken.__cause__ = error
            error = broken
        self.fail(error)  # KeyboardInterrupt and its like are nobody's fault

    async def wait(self) -> None:
        """Wait until the run is over.

        Cancellation: cancels the run, and still waits until it is over.

        Raises:
            BaseException: What made the run end, if not the end of its input.
        """
        await self.wait_until_over()
        if self.error is not None:
            raise self.error

    async def wait_until_over(self) -> None:
        """`wait`, but what made the run end is not raised."""
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.done():
            try:
                await asyncio.wait([self._ended])
            except asyncio.CancelledError as error:
                cancelled = error
                self.cancel()
        if cancelled is not None:
            raise cancelled

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and its books are closed."""
        return self._ended.done()

    @property
    def contains_caller(self) -> bool:
        """Whether the calling code is part of this run: one of its tasks, callbacks or displays."""
        run = current_run.get()
        while run is not None and run is not self:
            run = run.parent
        return run is self

    # Reading

    @property
    def state(self) -> RunState:
        """Where the run is."""
        if self._ended.done():
            return "finished"
        if self.is_cancelling:
            return "cancelling"
        if self._is_stopping:
            return "stopping"
        return "draining" if self.intake.has_ended else "running"

    def gauges(self) -> list[readings.StageGauge]:
        """What the books do not know, stage by stage."""
        return [stage.gauge() for stage in self.stages]

    def stats(self) -> PipelineStats:
        """The counts, at this moment."""
        return readings.pipeline_stats(self.ledger, self.facts, self.gauges())

    def snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment; a true copy."""
        return take_snapshot(
            self.ledger,
            self.facts,
            self.gauges(),
            self.failures,
            now=self.timers.now(),
            total=self.total,
            state=self.state,
        )

    def set_workers(self, stage: int, count: int) -> None:
        """Have ``count`` workers in a stage from now on; who is to leave ends the item in hand."""
        self.stages[stage].set_worker_count(count)

    # For the stages

    def intake_is_hungry(self, stage: int) -> Callable[[], bool] | None:
        """What the first stage's channel asks for more."""
        return (lambda: self.intake.is_hungry) if stage == 0 else None

    def spawn(self, worker: Coroutine[Any, Any, None], name: str) -> None:
        """Start a worker."""
        if self._finishing.done():  # a bell that rang while the run was ending
            worker.close()
            return
        self.create_task(worker, name)

    def create_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that belongs to the run: the run ends when it has ended."""
        task = self.create_side_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def create_side_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task in the run's context that somebody else looks after."""
        return self._loop.create_task(
            work, name=f"antflow {self.facts.run_id[:4]} {name}", context=self._context.copy()
        )

    def settle(self, envelope: Envelope, error: Exception | None) -> Wait:
        """An item leaves the run, its outcome recorded: deliver its result."""
        result = envelope.arrive(self.facts.stage_names[envelope.position], error)
        wait = self._deliver(result)
        if not self._keeps_results:
            self.intake.release(result.id)  # ids are compared with those in flight only
        if error is not None and self._max_failures is not None:
            self._check_failures()
        if not self.ledger.in_flight:
            self._check_finished()
        return wait

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """The run does not end while observers and callbacks are waited for: they may feed it."""
        self._delivering += 1
        try:
            yield
        finally:
            self._delivering -= 1
            self._check_finished()

    async def breathe(self) -> None:
        """Give everybody else on the event loop a turn."""
        await asyncio.sleep(0)
        self.turn_ends = self.timers.now() + LONGEST_TURN

    def in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Run a plain function in one of the run's threads, of which it has one per worker."""
        if self._threads is None:
            # A thread starts only when none is idle, so there are never more than busy workers.
            self._threads = ThreadPoolExecutor(MOST_WORKERS, "antflow")
        return self._loop.run_in_executor(self._threads, function)

    # Inside

    def _rewire(self) -> None:
        for stage in self.stages:
            stage.rewire()

    async def _feed_from(self, items: AsyncIterable[Any] | IterableSource) -> None:
        failure: Exception | None = None
        try:
            if isinstance(items, IterableSource):
                await self.feed(items)
            else:
                items = aiter(items)
                async for raw in items:
                    await self.feed((raw,))
        except Exception as error:
            if not self.intake.has_ended:
                failure = error
        except asyncio.CancelledError as error:
            running = asyncio.current_task()
            if running is not None and not running.cancelling():
                failure = PipelineError("the source raised CancelledError")
                failure.__cause__ = error
            elif not self.intake.has_ended:
                raise
        finally:
            self._feeder = None  # from here on it ends by itself
            await self._close(items)
        if failure is not None:
            self.stop_intake(failure)
        else:
            self.close_intake()

    async def _close(self, items: AsyncIterable[Any] | IterableSource) -> None:
        """Let a source run its clean-up; what that raises is logged."""
        try:
            if isinstance(items, IterableSource):
                items.close()
            elif (close := getattr(items, "aclose", None)) is not None:
                async with asyncio.timeout(SLOWEST_CLOSE):
                    await close()
        except (Exception, asyncio.CancelledError):
            logger.warning(CLEAN_UP_FAILED, exc_info=True)

    def _close_source(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
            self._dismissed, self._feeder = self._feeder, None
        source, self.intake.source = self.intake.source, None
        if isinstance(source, IterableSource):
            try:
                source.close()
            except (Exception, asyncio.CancelledError):
                logger.warning(CLEAN_UP_FAILED, exc_info=True)

    def _check_open(self) -> None:
        if self.intake.is_closed or (self.intake.has_ended and not self.contains_caller):
            why = self.how_stopped if self._is_stopping else "joined, or its input has ended"
            if self.error is not None:
                why = f"stopped by {type(self.error).__name__}: {self.error}"
            raise PipelineError(f"this run takes no more items: it was {why}") from self.error

    def _sits_at_or_after(self, stage: int) -> bool:
        seat = current_seat.get()
        while seat is not None and seat[0].run is not self:
            seat = seat[0].run.parent_seat
        return seat is not None and seat[0].index >= stage

    def _check_finished(self) -> None:
        if (
            self.intake.has_ended
            and not self.ledger.in_flight
            and not self._delivering
            and not self._finishing.done()
        ):
            self.intake.is_closed = True
            self._finishing.set_result(None)

    def _check_failures(self) -> None:
        limit, failed = self._max_failures, self.ledger.failed
        assert limit is not None
        if isinstance(limit, int):
            reached = failed >= limit
        else:
            settled = self.ledger.accepted + self.ledger.children - self.ledger.in_flight
            reached = settled >= FEWEST_FOR_A_RATIO and failed >= limit * settled
        if reached and not self.intake.is_closed:
            self.stop_intake(
                TooManyFailures(f"{failed} items failed (max_failures={limit}); intake was stopped")
            )

    def _stop(self) -> None:
        self._is_stopping = True
        self.intake.is_closed = self.intake.has_ended = True
        self._close_source()
        self._close_stages()
        if not self._finishing.done():
            self._finishing.set_result(None)

    def _close_stages(self) -> None:
        """Let nothing start any more, and settle as cancelled everything that waits."""
        for stage in self.stages:
            stage.channel.close()
            stage.retries.close()
        for stage in self.stages:
            try:
                self._waits += self._context.copy().run(stage.settle_all)
            except Exception as error:
                self._crashes.append(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # A feeder that was dismissed before its first step ends like this, too.
            if (
                not self._is_stopping and task is not self._dismissed
            ):  # the event loop is closing, or somebody meddles
                self.fail(InternalError(f"{task.get_name()} was cancelled from outside the run"))
            return
        error = task.exception()
        if error is not None:
            self.crash(error, task.get_name())

    async def _supervise(self) -> None:
        try:
            await self._bring_to_an_end()
        except BaseException as error:  # why: whoever waits for the run must not wait for ever
            self.crash(error, "the supervisor")
        finally:
            if self.observer is not None:
                self.observer.closed()
            self._ended.set_result(None)

    async def _bring_to_an_end(self) -> None:
        try:
            await asyncio.wait([self._finishing])
        except asyncio.CancelledError:
            self.cancel()
        self.intake.is_closed = True
        self._close_stages()
        await self._until_tasks_have_ended()
        for envelope in self.intake.seal():
            self.stages[envelope.position].channel.put(envelope)
        self._close_stages()  # once more, for what was put meanwhile
        if self._waits:
            self.create_task(self._hear_observers_out(), "observers")
            await self._until_tasks_have_ended()
        for wait in self._waits:  # it was cancelled meanwhile
            discard(wait)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._crashes:
            raise self._crashes[0]
        if (discrepancy := self._audit()) is not None and self.error is None:
            self.error = InternalError(f"the books of run {self.facts.run_id}: {discrepancy}")

    async def _until_tasks_have_ended(self) -> None:
        while self._tasks:
            try:
                await asyncio.wait(tuple(self._tasks))
            except asyncio.CancelledError:
                self.cancel()

    async def _hear_observers_out(self) -> None:
        """Wait for the observers of items that were settled without a worker."""
        while self._waits and not self.is_cancelling:
            await self._waits.pop(0)

    def _audit(self) -> str | None:
        if self.ledger.in_flight:
            return f"{self.ledger.in_flight} items are still in flight"
        return self.ledger.discrepancy()


def take_snapshot(
    ledger: Ledger,
    facts: RunFacts,
    gauges: Sequence[readings.StageGauge],
    failures: FailureBook,
    *,
    now: float,
    total: int | None = None,
    state: RunState = "idle",
) -> DashboardSnapshot:
    """A snapshot of the books."""
    return DashboardSnapshot(
        worker_states=readings.worker_states(ledger, facts, gauges),
        worker_metrics=readings.worker_metrics(ledger, facts, gauges),
        pipeline_stats=readings.pipeline_stats(ledger, facts, gauges),
        error_summary=failures.summary(FAILURES_IN_SNAPSHOT),
        timestamp=facts.timestamp(now),
        run_id=facts.run_id,
        total_items=total,
        state=state,
        elapsed=now - facts.started_mono,
    )
