"""A run: it owns every state that changes, from the first item to the balanced books.

A run ends in one way. Something sets *finishing*: the intake is closed and nothing is in flight;
or it was cancelled, shut down, or something broke. The *supervisor* then closes the channels, waits
for workers and feeder, settles what is left as cancelled, leaves the resources, audits the books,
and only then is the run over. Whoever waits for a run waits for that, however often the wait is
cancelled; so nothing of a run is ever left behind.

The `asyncio.Task` objects of a run are few: the supervisor; the workers; a *feeder*, where items
are not pulled; one that fails items which cannot be read, while there are any; a keeper for those
resources that are entered and left together, and one more while a thread does that; at the end one
that waits for observers, where somebody is to be told of items that no worker had. `Pipeline` adds
one for a display, and looks after it. None belongs to an item; but a worker goes on in another one
where an item left context variables behind.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextvars import Context, copy_context
from itertools import count
from signal import Signals
from typing import Any, TypeVar
from weakref import WeakSet, ref

from antflow._core import readings
from antflow._core.cancellation import absorb_requests, has_called_off_caller, is_failure
from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.error_copies import copy_of
from antflow._core.errors import (
    InternalError,
    PipelineError,
    TooManyFailures,
    WouldDeadlockError,
)
from antflow._core.failures import FailureBook
from antflow._core.foreign import is_a, type_name
from antflow._core.ledger import Ledger
from antflow._core.limit import current_permit
from antflow._core.log import debug, warn
from antflow._core.ports import Guard, Observer, Store, Timer
from antflow._core.result import PipelineResult
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot, LoopHealth, PipelineStats, RunState
from antflow._core.stage import Stage
from antflow._core.text import safe_str
from antflow._core.waits import Wait, discard
from antflow._engine.clock import LoopTimers
from antflow._engine.contexts import plainly_around
from antflow._engine.current import current_run, current_seat
from antflow._engine.intake import Duplicates, Intake
from antflow._engine.limits.permits import slots_given_back
from antflow._engine.loop_health.loop_watch import LoopWatch
from antflow._engine.recorder import Listeners, Recorder
from antflow._engine.reorder import Deliver, Reorder
from antflow._engine.resources import Resources
from antflow._engine.source import CLEAN_UP_FAILED, IterableSource, source_failure
from antflow._engine.source_watch import AsyncSource, SourceWatch
from antflow._engine.stage_run import StageRun
from antflow._engine.waiting import begin_task, outlast

T = TypeVar("T")

LONGEST_TURN = 0.005
"""Seconds that tasks which never suspend may hold the event loop, all workers together."""

FAILURES_IN_SNAPSHOT = 100
FEWEST_FOR_A_RATIO = 20
"""A ratio of failures is judged only once so many items are settled."""

SLOWEST_CLOSE = 5.0
"""Seconds a source's clean-up may take when the run stops taking in."""

EXTRA_LANE = 10_000
"""Items above its capacity that a stage holds for its own tasks, or later ones, to feed it."""


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
        length: Asks the items for that number, where it is not known yet.
        keeps_results: Whether all results, and so all ids and failures, are kept.
        duplicates: What becomes of an item whose id is taken.
        timeout: Seconds after which the run is cancelled, with `TimeoutError`.
        item_timeout: Seconds from an item's intake after which it fails, with `TimeoutError`.
        reorder: Has the results wait for those before them, or ``None``.
        owner: Whose run it is; only compared, and not kept.
        blocked_loop_after: Seconds after which the event loop counts as blocked, or ``None``.

    Attributes:
        handle: A weak reference to what the owner wants to find again, or ``None``.
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
        length: Callable[[], int] | None = None,
        keeps_results: bool = True,
        duplicates: Duplicates = "number",
        timeout: float | None = None,
        item_timeout: float | None = None,
        reorder: Reorder | None = None,
        owner: object = None,
        blocked_loop_after: float | None = None,
    ) -> None:
        self._owner = None if owner is None else ref(owner)
        self.handle: ref[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self.timers: LoopTimers = LoopTimers(self._loop, self.crash)
        self._cpu_began = time.process_time()
        self.facts: RunFacts = RunFacts(
            run_id=os.urandom(8).hex(),
            stage_names=tuple(stage.name for stage in stages),
            started_mono=self.timers.now(),
            started_wall=time.time(),
        )
        self.guard = guard
        self.store = store
        self.observer = observer
        self._total = total
        self._length = length
        outer, seat = current_run.get(), current_seat.get()
        # Weakly: where each run begins the next, the first must not stay for the sake of the last.
        self._outer_runs: tuple[ref[Run], ...] = ()
        if outer is not None:
            self._outer_runs = (ref(outer), *map(ref, outer.outer_runs()))
        self._outer_seats: tuple[ref[StageRun], ...] = ()
        if seat is not None:
            self._outer_seats = (ref(seat[0]), *map(ref, seat[0].run.outer_seats()))
        self.ledger: Ledger = Ledger(len(stages))
        self.failures: FailureBook = FailureBook(None if keeps_results else FAILURES_IN_SNAPSHOT)
        self.turn_ends: float = self.timers.now() + LONGEST_TURN
        self.error: BaseException | None = None
        self.has_told_error: bool = False
        self.how_stopped: str = "cancelled"
        self.is_cancelling: bool = False
        self._resumed: asyncio.Future[None] | None = None  # while it is paused
        self.item_timeout = item_timeout
        self._resources: dict[object, Resources] = {}
        self._ended_mono: float | None = None
        self._cpu_ended: float | None = None
        self._is_stopping = False
        self._deliver = deliver if reorder is None else reorder.deliver
        self.reorder = reorder
        self.stopped_by: Signals | None = None
        self._max_failures = max_failures
        self.keeps_results = keeps_results
        self._delivering = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._own_tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._called_off: set[asyncio.Task[Any]] = set()
        self._waits: list[Awaitable[None]] = []
        self._crashes: list[Exception] = []
        self._finishing: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._again: Sequence[PipelineResult[Any]] = ()
        self._limits_failures = max_failures is not None or any(
            stage.max_failures is not None for stage in stages
        )
        self.sources: SourceWatch = SourceWatch(self.timers, tells=blocked_loop_after is not None)
        self.intake: Intake = Intake(self, next_id, duplicates)
        listeners = Listeners(self.facts, store, observer, self.stop_intake, count(1))
        self.stages: list[StageRun] = []
        self._context = copy_context()
        self._loop_watch: LoopWatch | None = None
        self._alarm: Timer | None = None
        try:
            for index, description in enumerate(stages):
                recorder = Recorder(index, self.ledger, self.failures, self.facts, listeners)
                self.stages.append(StageRun(self, index, description, recorder))
            self._begin(timeout, blocked_loop_after)
        except BaseException:  # for example, a limit is in use elsewhere: leave no other taken
            for made in self.stages:
                made.release_limits()
            raise

    def _begin(self, timeout: float | None, blocked_loop_after: float | None) -> None:
        self._batch_stages = [stage for stage in self.stages if stage.batches is not None]
        if self.reorder is not None:
            self.reorder.on_room = self.stages[0].channel.ring
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            stage.next_channel = following.channel
        self._context.run(current_run.set, self)
        self._context.run(current_seat.set, None)
        self._context.run(has_called_off_caller.set, self._has_called_off_caller)
        self._context.run(current_permit.set, None)  # what it is inside of is another's attempt
        if self.observer is not None:
            # What it sets there, the current span say, is so for all that belongs to the run.
            self._context.run(self.observer.opened, self.facts, self.ledger, self._rewire)
            self._rewire()
        try:
            self._supervisor = self.create_side_task(self._supervise(), "supervisor")
        except BaseException:  # the user's task factory raised
            if self.observer is not None:
                self.observer.closed()
            raise
        if blocked_loop_after is not None and not self.timers.has_own_time:
            self._loop_watch = LoopWatch(self, blocked_loop_after)
        if timeout is not None:
            self._alarm = self.timers.call_later(timeout, lambda: self._time_is_up(timeout))

    # Intake

    def pull_from(self, items: Iterable[Any]) -> None:
        """Take the run's items from an iterable, as the first stage asks for them."""
        # Not in that of the worker which asks: that is for items.
        source = self._source_of(items, self._context.copy())
        if self.stages[0].recorder.tells_starts or self._again:
            # Somebody is told of each item before it enters. A task of its own waits for that, so
            # that the queue fills up, and shows how slow the stage is, while the workers work.
            self._feeder = self.create_task(self._feed_from(source), "feeder")
        else:
            self.intake.source = source
            self.stages[0].channel.ring()

    def push_from(self, items: AsyncIterable[Any]) -> None:
        """Take the run's items from an async iterable, with a task of its own."""
        self._feeder = self.create_task(self._feed_from(items), "feeder")

    def begin_with(self, results: Iterable[PipelineResult[Any]]) -> None:
        """Have items of an earlier run go on at the stage they ended in, before all others."""
        self._again = list(results)

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
            WouldDeadlockError: No more can be put before the worker's own or an earlier stage.
            DuplicateItemError: An id is taken, and that is not allowed.
        """
        source = items if isinstance(items, IterableSource) else self._source_of(items)
        channel = self.stages[stage].channel
        waits = not self._sits_at_or_after(stage)
        # A worker's item may be the very one that all results wait for.
        keeps_order = self.reorder is not None and not self._sits_at_or_after(0)
        self._check_open()
        while True:
            while self.reorder is not None and keeps_order and not self.intake.window_room():
                await self.reorder.wait()
                self._check_open()
            most = self.intake.batch_size(stage) if waits else self._lane_room(stage)
            if not (raws := self.take_from(source, max(most, 1))):
                return
            self._check_open()
            if not most:
                raise self._no_lane_room(stage)
            envelopes = self.intake.envelopes(raws, stage, priority)
            refused, self.intake.refused = self.intake.refused, None
            await self._admit(envelopes, stage)
            if refused is not None:
                raise refused
            if waits:
                if not channel.has_room:
                    async with slots_given_back():
                        await channel.room()
                if channel.is_closed:
                    self._check_open()
            if self.timers.now() >= self.turn_ends:
                await self.breathe()

    async def feed_async(
        self, items: AsyncIterable[Any], stage: int = 0, priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Take in items of an async iterable, each as it comes. See `feed`."""
        source = AsyncSource(items, self.sources)
        try:
            await self._feed_each(source, stage, priority)
        finally:
            # Only this code can close an iterator that it made, and it may have a thread.
            close = getattr(source.iterator, "aclose", None)
            if close is not None and source.iterator is not items:
                await close()

    def take_from(self, source: IterableSource, most: int) -> list[Any]:
        """Take up to ``most`` items from a source, and note for how long it holds the loop."""
        if source.is_plain:
            return source.take(most)
        return self.sources.step(source.items, source.take, most)

    def close_intake(self) -> None:
        """No more items but those that the run's own tasks feed; it ends when all are settled.

        May be called twice.
        """
        self.intake.end()
        self._close_source()
        self._wake_batches()
        self._check_finished()

    def stop_intake(self, error: BaseException) -> None:
        """No more items: what was accepted finishes, then ``error`` comes out."""
        if self.error is None:
            self.error = error
        self.intake.is_closed = True
        self.close_intake()

    async def _feed_each(
        self, source: AsyncSource, stage: int = 0, priority: int = DEFAULT_PRIORITY
    ) -> None:
        while True:
            try:
                raw = await source
            except StopAsyncIteration:
                return
            await self.feed((raw,), stage, priority)
            del raw  # it may be long until the next

    def _source_of(self, items: Iterable[Any], context: Context | None = None) -> IterableSource:
        if type(items) is tuple:  # most often a single item, of an async source
            return IterableSource(items, self.timers.now, context)
        return self.sources.step(items, IterableSource, items, self.timers.now, context)

    def _lane_room(self, stage: int) -> int:
        """How many items this run's own workers may add at once, without waiting for room."""
        channel = self.stages[stage].channel
        size = self.intake.batch_size(stage)
        if channel.capacity is None:
            return size
        return min(size, max(channel.capacity + EXTRA_LANE - len(channel), 0))

    def _no_lane_room(self, stage: int) -> WouldDeadlockError:
        return WouldDeadlockError(
            f"stage {self.facts.stage_names[stage]!r} is full: "
            f"{len(self.stages[stage].channel):,} items wait, {EXTRA_LANE:,} of them beyond its "
            "capacity, and a task of its own or of a later stage that waits for room there may "
            "wait for itself"
        )

    async def _admit(self, envelopes: Sequence[Envelope], stage: int) -> None:
        if not envelopes:
            return
        feeds_from = current_run.set(self)  # what is called meanwhile is inside this run
        try:
            if (wait := self.intake.admit(envelopes, stage)) is not None:
                await wait
        except PipelineError:
            raise
        except Exception as error:
            self.crash(error)  # it is not the source that failed
            raise
        finally:
            current_run.reset(feeds_from)

    # Stopping

    def pause(self) -> None:
        """Begin with nothing new: workers end what they have begun and leave. May be called twice.

        An item in hand that waits for a limit, or for the end of a hold, waits on.
        """
        if not (self.is_paused or self._is_stopping or self.is_over):
            self._resumed = self._loop.create_future()
            for stage in self.stages:
                stage.activate(0)

    def resume(self) -> None:
        """Go on after `pause`. May be called twice."""
        if self._resumed is not None and not self.is_over:
            self._resumed.set_result(None)
            self._resumed = None
            for stage in self.stages:
                stage.activate(stage.worker_count)

    @property
    def is_paused(self) -> bool:
        """Whether nothing new is to begin."""
        return self._resumed is not None

    async def until_resumed(self) -> None:
        """Wait for the end of the pause."""
        if self._resumed is not None:
            await asyncio.wait([self._resumed])

    def cancel(self) -> None:
        """Stop now: cancel running tasks, settle everything else. May be called twice."""
        if self._ended.done() or self.is_left_behind:
            return
        if not self.is_cancelling:
            self.is_cancelling = True
            self.how_stopped = "cancelled"
        try:
            self._begin_to_stop()
            for task in tuple(self._tasks):
                task.cancel()
            self._stop()
        except BaseException as interruption:  # why: it comes out of `wait`, too
            if self.error is None or isinstance(self.error, Exception):
                self.error = interruption
            raise

    def shut_down(self) -> None:
        """Let running attempts end, settle everything that waits. May be called twice."""
        if not self._is_stopping:
            self.how_stopped = "shut down"
        self._stop()
        for stage in self.stages:
            stage.begin_no_more()

    def fail(self, error: BaseException) -> None:
        """Something broke that no item can answer for: cancel, and let ``error`` come out."""
        if self.error is None or not is_a(error, Exception):
            self.error = error
        self.cancel()

    def crash(self, error: BaseException, where: str = "the engine") -> None:
        """A fault of the library itself: end the run, loudly."""
        if is_a(error, Exception):
            broken = InternalError(f"{where} crashed: {type_name(error)}: {safe_str(error)}")
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
        # For the task, and not for what it does last: an interrupt may hit it there.
        try:
            await outlast(self._supervisor, self.cancel)
        finally:
            if self._supervisor.done():
                self._close_books()

    def take_error(self) -> BaseException | None:
        """What made it end, to be raised. Only a copy stays, for those who ask again.

        A raised error gets the frames of all that it comes out through, and their variables.
        """
        error = self.error
        if error is not None:
            self.has_told_error = True
            self.error = copy_of(error)
        return error

    def raise_late_error(self) -> None:
        """Raise what came when the run was over already: a second signal."""
        if (error := self.error) is not None:
            self.forget_error()
            raise error

    def forget_error(self) -> None:
        """Keep no more of what made it end than its text: it has come out, and is not asked again.

        Its traceback has the frames of all that it came out through, and their variables.
        """
        if self.error is not None:
            self.how_stopped = _stopped_by(self.error)
            self._is_stopping = True
            self.error = None

    @property
    def is_called_off(self) -> bool:
        """Whether all that belongs to the run is being cancelled, by the run or with its loop."""
        return self.is_cancelling or self.is_left_behind or self._supervisor.cancelling() > 0

    @property
    def is_left_behind(self) -> bool:
        """Whether the event loop was closed under it: nothing can be awaited or woken any more.

        Its coroutines are closed when the garbage collector finds them, and only pass that on.
        """
        return self._loop.is_closed()

    def _has_called_off_caller(self) -> bool:
        if self.is_called_off:
            return True
        running = asyncio.current_task()
        if running is None or running in self._called_off:
            return True
        seat = current_seat.get()
        if seat is not None and (worker := seat[0].worker_of(running)) is not None:
            return seat[0].is_called_off(worker)
        # One of a task's own, say, that feeds the run: it is for them to cancel it.
        return running not in self._own_tasks and running.cancelling() > 0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and its books are closed."""
        return self._ended.done()

    @property
    def is_under_way(self) -> bool:
        """Whether the run is not over, and its event loop is not closed."""
        return not (self._ended.done() or self._loop.is_closed())

    @property
    def contains_caller(self) -> bool:
        """Whether the calling code is part of this run: one of its tasks, callbacks or displays."""
        run = current_run.get()
        return run is not None and run.is_within(self)

    def is_within(self, other: Run) -> bool:
        """Whether it is the other run, or was begun by code that is part of it."""
        return self is other or any(run is other for run in self.outer_runs())

    def belongs_to(self, owner: object) -> bool:
        """Whether it is a run of this owner's."""
        return self._owner is not None and self._owner() is owner

    def outer_runs(self) -> list[Run]:
        """The runs that it was begun inside of, the innermost first, as far as they are left."""
        return [run for outer in self._outer_runs if (run := outer()) is not None]

    def outer_seats(self) -> list[StageRun]:
        """The stages whose workers began it, the innermost first, as far as they are left."""
        return [stage for outer in self._outer_seats if (stage := outer()) is not None]

    def check_caller(self, what: str) -> None:
        """Refuse a call from outside the run's event loop, which is no way to change a run.

        Raises:
            PipelineError: Another thread or event loop called, and the run is not over.
        """
        if self._loop.is_closed() and not self._ended.done():
            raise PipelineError(
                f"{what}: the event loop of this run was closed, and the run cannot go on; "
                "begin another run"
            )
        if asyncio._get_running_loop() is not self._loop and not self._ended.done():
            raise PipelineError(
                f"{what} was called from another thread or event loop than the run's own; from a "
                "thread, use asyncio.run_coroutine_threadsafe(…, loop) or "
                "loop.call_soon_threadsafe(…)"
            )

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
        if self.stopped_by is not None:
            return "stopping"
        if self.is_paused:
            return "paused"
        return "draining" if self.intake.has_ended else "running"

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

    def now_or_end(self) -> float:
        """The time, which stands still when the run is over."""
        return self.timers.now() if self._ended_mono is None else self._ended_mono

    def gauges(self) -> list[readings.StageGauge]:
        """What the books do not know, stage by stage."""
        return [stage.gauge() for stage in self.stages]

    def stats(self) -> PipelineStats:
        """The counts, at this moment."""
        return readings.pipeline_stats(
            self.ledger, self.facts, self.gauges(), self.now_or_end(), self.intake.skipped
        )

    def snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment; a true copy."""
        gauges = self.gauges()
        return take_snapshot(
            self.ledger,
            self.facts,
            gauges,
            self.failures,
            now=self.timers.now(),
            until=self.now_or_end(),
            skipped_duplicates=self.intake.skipped,
            total=self.total,
            state=self.state,
            loop=LoopHealth() if self._loop_watch is None else self._loop_watch.health(),
            cpu_seconds=self._cpu_seconds() + sum([gauge.child_cpu_seconds for gauge in gauges]),
            intake_ended=self.intake.ended_mono,
        )

    def _cpu_seconds(self) -> float:
        """Seconds of processor time that this process took since the run began."""
        until = time.process_time() if self._cpu_ended is None else self._cpu_ended
        return until - self._cpu_began

    def set_workers(self, stage: int, count: int) -> None:
        """Have ``count`` workers in a stage from now on; who is to leave ends the item in hand."""
        if not self.is_over:
            self.stages[stage].set_worker_count(count)
            if self.reorder is not None:
                self.reorder.look_again()

    # For the stages

    def intake_is_hungry(self, stage: int) -> Callable[[], bool] | None:
        """What the first stage's channel asks for more."""
        return (lambda: self.intake.is_hungry) if stage == 0 else None

    def spawn(self, worker: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """Start a worker, or nothing while the run is ending."""
        if self._finishing.done():  # a bell that rang while the run was ending
            worker.close()
            return None
        try:
            return self.create_task(worker, name)
        except BaseException as error:  # why: the user's task factory raised, in a callback
            self.crash(error, "the task factory")
            return None

    def create_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that belongs to the run: the run ends when it has ended."""
        task = self.create_side_task(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def create_side_task(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task in the run's context that somebody else looks after."""
        task = begin_task(work, f"antflow {self.facts.run_id[:4]} {name}", self._context)
        self._own_tasks.add(task)
        return task

    def call_off(self, task: asyncio.Task[Any]) -> None:
        """Cancel one of the run's own tasks, and note it: what it was asked says nothing."""
        self._called_off.add(task)
        task.cancel()

    def settle(self, envelope: Envelope, error: Exception | None) -> Wait:
        """An item leaves the run, its outcome recorded: deliver its result."""
        position = envelope.position
        result = envelope.arrive(self.facts.stage_names[position], error)
        wait = self._deliver(result)
        if not self.keeps_results:
            self.intake.release(result.id)  # ids are compared with those in flight only
        if error is not None and self._limits_failures:
            self._check_failures(position)
        if self._batch_stages:
            self._wake_batches()
        if not self.ledger.in_flight:
            self._check_finished()
        return wait

    @plainly_around
    def delivery(self) -> Generator[None, None, None]:
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

    async def resources_of(self, factories: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
        """What these resources are in this run; entered if this is the first use."""
        values: dict[str, Any] = {}
        for name, factory in factories.items():
            # By what it is, not which object: a bound method is another one each time it is named.
            key = factory if isinstance(factory, Hashable) else id(factory)
            resources = self._resources.get(key)
            if resources is None:
                resources = self._resources[key] = Resources(
                    {name: factory}, "the run", self.create_side_task
                )
            [values[name]] = (await resources.get()).values()  # perhaps by another stage's name
        return values

    async def outlive(self, close: Callable[[], Awaitable[None]]) -> None:
        """Wait for a clean-up; what it raises ends the run, in order."""
        try:
            await close()
        except asyncio.CancelledError:
            self.cancel()
        except BaseException as error:  # why: it comes out of `wait`, when everything is settled
            self.fail(error)

    # Inside

    def _time_is_up(self, seconds: float) -> None:
        self.fail(TimeoutError(f"the run was not over after {seconds:g} s"))

    def _wake_batches(self) -> None:
        """Have those who wait for their batch to fill look whether more can come at all."""
        for stage in self._batch_stages:
            stage.channel.wake_all()

    def _rewire(self) -> None:
        for stage in self.stages:
            stage.rewire()

    async def _feed_from(self, items: AsyncIterable[Any] | IterableSource) -> None:
        failure: Exception | None = None
        try:
            for result in self._again:
                envelope = self.intake.again(result, self.facts.stage_names)
                await self._admit([envelope], envelope.position)
                await self.stages[envelope.position].channel.room()
            if isinstance(items, IterableSource):
                await self.feed(items)
            else:
                source = AsyncSource(items, self.sources)
                items = source.iterator
                await self._feed_each(source)
        except Exception as error:
            if not self.intake.has_ended:
                failure = error
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            own = source_failure(error)
            if not self._has_called_off_caller():
                failure = own
            elif not self.intake.has_ended:
                raise asyncio.CancelledError from error
        except BaseException as error:  # why: it ends the run, in order; see `Endings.interrupt`
            if self.is_left_behind:
                raise
            self.fail(error)
        finally:
            if not self._has_called_off_caller():
                await absorb_requests()
            self._feeder = None  # from here on it ends by itself
            await self._close(items)
            if not self._has_called_off_caller():
                await absorb_requests()
        if failure is not None:
            self.stop_intake(failure)
        else:
            self.close_intake()

    async def _close(self, items: AsyncIterable[Any] | IterableSource) -> None:
        """Let a source run its clean-up; what that raises is logged."""
        try:
            if isinstance(items, IterableSource):
                self.sources.step(items.items, items.close)
            elif not self.is_left_behind and (close := getattr(items, "aclose", None)) is not None:
                async with asyncio.timeout(SLOWEST_CLOSE):
                    await close()
        except BaseException as error:  # why: also a group with a CancelledError in it
            if not is_failure(error):
                raise
            warn(CLEAN_UP_FAILED, error=error)

    def _close_source(self) -> None:
        if self._feeder is not None:
            self.call_off(self._feeder)
            self._feeder = None
        source, self.intake.source = self.intake.source, None
        if isinstance(source, IterableSource):
            try:
                self.sources.step(source.items, source.close)
            except BaseException as error:  # why: also a group with a CancelledError in it
                if not is_failure(error):
                    raise
                warn(CLEAN_UP_FAILED, error=error)

    def _check_open(self) -> None:
        if self.intake.is_closed or (self.intake.has_ended and not self.contains_caller):
            why = self.how_stopped if self._is_stopping else "joined, or its input has ended"
            if self.error is not None:
                why = _stopped_by(self.error)
            raise PipelineError(f"this run takes no more items: it was {why}") from self.error

    def _sits_at_or_after(self, stage: int) -> bool:
        seat = current_seat.get()
        if seat is None:
            return False
        stages = (seat[0], *seat[0].run.outer_seats())
        index = next((each.index for each in stages if each.run is self), -1)
        return index >= stage

    def _check_finished(self) -> None:
        if (
            self.intake.has_ended
            and not self.ledger.in_flight
            and not self._delivering
            and not self._finishing.done()
            and not self.is_left_behind
        ):
            self.intake.is_closed = True
            self._finishing.set_result(None)

    def _check_failures(self, position: int) -> None:
        if self.error is not None or self._is_stopping:
            return
        settled = self.ledger.accepted + self.ledger.children - self.ledger.in_flight
        stage, book = self.stages[position], self.ledger.stages[position]
        for limit, failed, of, where in (
            (self._max_failures, self.ledger.failed, settled, ""),
            (
                stage.description.max_failures,
                book.failed,
                book.left,
                f" in stage {stage.name!r}",
            ),
        ):
            if limit is not None and _too_many(failed, of, limit):
                text = f"{failed} items failed{where} (max_failures={limit}); intake was stopped"
                self.stop_intake(TooManyFailures(text))
                return

    def _begin_to_stop(self) -> None:
        """The supervisor goes on from here, even if an interrupt comes in between."""
        self._is_stopping = True
        self.intake.is_closed = True
        self.intake.end()
        if not self._finishing.done():
            self._finishing.set_result(None)

    def _stop(self) -> None:
        self._begin_to_stop()
        self._close_source()
        if self.reorder is not None:
            self.reorder.end()
        self._close_stages()

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
        if task not in self._tasks:
            return
        self._tasks.discard(task)
        if task.cancelled():
            # A feeder that was dismissed before its first step ends like this, too. Any other task
            # does when the event loop is closing, or when somebody meddles.
            if not self._is_stopping and task not in self._called_off:
                self.fail(InternalError(f"{task.get_name()} was cancelled from outside the run"))
            return
        error = task.exception()
        if error is not None:
            self.crash(error, task.get_name())

    async def _supervise(self) -> None:
        try:
            await self._bring_to_an_end()
        except BaseException as error:  # why: whoever waits for the run must not wait for ever
            if self.is_left_behind:
                raise
            self.crash(error, "the supervisor")
            await self._until_tasks_have_ended()
        finally:
            self._close_books()

    def _close_books(self) -> None:
        """Mark the run as over. May be called again if an interrupt came half way."""
        if self._ended.done():
            return
        if self._loop_watch is not None:
            self._loop_watch.end()
        self._ended_mono = self.timers.now()
        self._cpu_ended = time.process_time()
        # Timers and tasks that were begun inside of it may keep it for as long as they live, but
        # not the items and the results.
        self._length = None
        self._again = ()
        self._deliver = _nowhere
        self.reorder = None
        self._crashes.clear()
        if self.observer is not None:
            self.observer.closed()
        self._ended.set_result(None)

    async def _bring_to_an_end(self) -> None:
        try:
            await asyncio.wait([self._finishing])
        except asyncio.CancelledError:
            self.cancel()
        self.intake.is_closed = True
        if self.is_cancelling or self._is_stopping:
            self._stop()  # once more: an interrupt may have come in between
        for task in tuple(self._tasks):
            if self.is_cancelling and not task.cancelling():
                task.cancel()
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
        await self._let_go()
        if self.reorder is not None:
            self.reorder.flush()
        if self._crashes:
            raise self._crashes[0]
        if (discrepancy := self._audit()) is not None and self.error is None:
            self.error = InternalError(f"the books of run {self.facts.run_id}: {discrepancy}")

    async def _let_go(self) -> None:
        """Leave what the tasks used, now that none is left."""
        if self._alarm is not None:
            self._alarm.cancel()
        for stage in self.stages:
            await stage.close()
        for resources in reversed(self._resources.values()):
            await self.outlive(resources.close)
        for stage in self.stages:
            for thread in stage.abandoned.values():
                thread.cancel()  # nobody is going to hear of its end

    async def _until_tasks_have_ended(self) -> None:
        # Do not wait for tasks that have ended: such a wait returns at once, and if an interrupt
        # has taken the place of `_task_ended`, they stay in the set for ever.
        while at_work := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(at_work)
            except asyncio.CancelledError:
                self.cancel()
        for task in tuple(self._tasks):
            self._task_ended(task)

    async def _hear_observers_out(self) -> None:
        """Wait for the observers of items that were settled without a worker."""
        while self._waits and not self.is_cancelling:
            await self._waits.pop(0)

    def _audit(self) -> str | None:
        if self.ledger.in_flight:
            return f"{self.ledger.in_flight} items are still in flight"
        return self.ledger.discrepancy()


def _stopped_by(error: BaseException) -> str:
    return f"stopped by {type_name(error)}: {safe_str(error)}"


def _nowhere(_: PipelineResult[Any]) -> None:
    """Where results go of a run that is over: there are none."""


def _too_many(failed: int, settled: int, limit: float) -> bool:
    if isinstance(limit, int):
        return failed >= limit
    return settled >= FEWEST_FOR_A_RATIO and failed >= limit * settled


def take_snapshot(
    ledger: Ledger,
    facts: RunFacts,
    gauges: Sequence[readings.StageGauge],
    failures: FailureBook,
    *,
    now: float,
    until: float | None = None,
    skipped_duplicates: int = 0,
    total: int | None = None,
    state: RunState = "idle",
    loop: LoopHealth | None = None,
    cpu_seconds: float = 0.0,
    intake_ended: float | None = None,
) -> DashboardSnapshot:
    """A snapshot of the books; ``until``: when the run was over, if it is."""
    ran_until = now if until is None else until
    return DashboardSnapshot(
        worker_states=readings.worker_states(ledger, facts, gauges),
        worker_metrics=readings.worker_metrics(ledger, facts, gauges),
        pipeline_stats=readings.pipeline_stats(
            ledger, facts, gauges, ran_until, skipped_duplicates
        ),
        error_summary=failures.summary(FAILURES_IN_SNAPSHOT),
        timestamp=facts.timestamp(now),
        run_id=facts.run_id,
        total_items=total,
        state=state,
        elapsed=ran_until - facts.started_mono,
        loop=loop or LoopHealth(),
        cpu_seconds=cpu_seconds,
        intake_seconds=(ran_until if intake_ended is None else intake_ended) - facts.started_mono,
    )
