"""The workers of a stage: how they are recruited, run and released.

A stage has no workers before it has work for them. The channel's bell recruits them, up to the
number that may be at work; `activate` changes that number, for `set_workers` and for pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar, cast
from weakref import ref

from antflow._core.counters import Counters, counters_here
from antflow._core.envelope import Envelope
from antflow._core.ledger import StageBook, WorkerBook
from antflow._core.stage import Stage, capacity, task_name
from antflow._core.value_or_error import ValueOrError, value_of
from antflow._engine.channel import Channel
from antflow._engine.crew import Crew
from antflow._engine.current import Seat, current_seat
from antflow._engine.intake import Intake
from antflow._engine.limits.call_limits import CallLimits, current_calls
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor

T = TypeVar("T")


class Workers:
    """The workers of one stage.

    Args:
        stage: The stage.
        index: Its index.
        run: The run.
        supervisor: Starts their tasks.
        intake: What the first stage's workers pull from.
        crew: Knows which `asyncio.Task` belongs to which worker.
        calls: The limits that tasks enter themselves.
        counters: What tasks count.
        outer: The seats in which the run was started.

    Attributes:
        channel: Where the stage's items wait.
        count: How many workers the stage has.
        active: How many of them may be at work: all of them, or none while the run is paused.
        work: Works until the worker must leave (returns ``False``), or must go on in another task.
        leave: Called for a worker that leaves.
    """

    work: Callable[[WorkerBook], Coroutine[Any, Any, bool]]
    leave: Callable[[WorkerBook], Awaitable[None]]

    def __init__(
        self,
        stage: Stage,
        index: int,
        run: Run,
        supervisor: Supervisor,
        intake: Intake,
        crew: Crew,
        calls: CallLimits,
        counters: Counters,
        outer: tuple[ref[Seat], ...],
    ) -> None:
        self._stage = stage
        self._index = index
        self._run = run
        self._supervisor = supervisor
        self._intake = intake
        self._crew = crew
        self._calls = calls
        self._counters = counters
        self._outer = outer
        self._book: StageBook = run.ledger.stages[index]
        self.count: int = stage.workers
        self.active: int = stage.workers
        self._counted_until = run.timers.now()
        self._seconds = 0.0
        self._alive: set[int] = set()
        self._rested: set[int] = set()
        self._seats: dict[int, Seat] = {}
        self._vacant = list(reversed(range(stage.workers)))
        self._first_task = task_name(stage.tasks[0])
        self.channel: Channel[Envelope] = Channel(
            capacity(stage),
            recruit=self._recruit,
            has_more=None if index else lambda: intake.is_hungry,
        )

    # How many

    def set_count(self, count: int) -> None:
        """Set the number of workers. New ones start when there is work; the last ones leave."""
        self._seconds = self.seconds()
        self._counted_until = self._run.timers.now()
        self.count = count
        if not self._run.is_paused:
            self.activate(count)

    def activate(self, count: int) -> None:
        """Set how many of the workers may be at work."""
        self.active = count
        self._vacant = [index for index in reversed(range(count)) if index not in self._alive]
        self.channel.wake_all()  # some of them may have to leave
        self.channel.ring()

    def seconds(self) -> float:
        """Seconds of all workers together, at work or not, since the run began."""
        since = max(self._run.now_or_end() - self._counted_until, 0.0)
        return self._seconds + self.count * since

    # For the worker's loop

    async def receive(self, worker: WorkerBook) -> Envelope | None:
        """Wait for the next item, for a worker that found none; ``None`` if it must leave."""
        has_rested = False
        while not self.channel.is_closed and worker.index < self.active:
            if self._run.turns.is_over():
                await self.give_way()
                continue
            if (envelope := self.channel.take()) is not None:
                return envelope
            has_rested = not self.pulls
            if has_rested:
                await self.channel.wait()
            else:
                await self._intake.pull()
        if has_rested:
            self._rested.add(worker.index)
        return None

    @property
    def pulls(self) -> bool:
        """Whether the source may have more right now."""
        return self._index == 0 and self._intake.is_hungry

    async def give_way(self) -> float:
        """Give everything else on the event loop a turn, for a worker without an item.

        Returns:
            When it goes on.
        """
        now = self._run.timers.now
        began = now()
        await self._run.turns.give_way()
        goes_on = now()
        self._book.waited["busy"] += goes_on - began
        return goes_on

    async def in_own_task(self, worker: WorkerBook, work: Coroutine[Any, Any, T]) -> T:
        """Run a worker's work in an `asyncio.Task` with the context of the run."""
        task = self._supervisor.tasks.create_side(self._pair_of(worker, work), worker.name)
        try:
            pair = await task
        finally:
            work.close()  # in case it never began
        return cast("T", value_of(pair))

    def has_left_context(self, before: Context) -> bool:
        """Whether the running task's context variables differ from those of ``before``."""
        try:
            return self._stage.isolate_context and copy_context() != before
        except Exception:  # values that cannot be compared, like arrays of numpy
            return True

    # Inside

    def _recruit(self) -> bool:
        if not self._vacant:
            return False
        index = self._vacant.pop()
        self._alive.add(index)
        worker = self._book.worker(index)
        worker.name = self._run.facts.worker_name(self._index, index)
        worker.task = self._first_task
        self._supervisor.spawn(self._serve(worker), worker.name)
        return True

    async def _serve(self, worker: WorkerBook) -> None:
        self._seats[worker.index] = Seat(
            self._run, self._index, self._stage, self._crew, worker, self._outer
        )
        interruption: BaseException | None = None
        try:
            with self._seated(worker):
                try:
                    try:
                        goes_on = await self.work(worker)
                    except asyncio.CancelledError:
                        if self._crew.is_called_off(worker):
                            raise
                        goes_on = True  # it came from outside: there was no item to blame
                    if goes_on:
                        for variable in copy_context():
                            variable.set(None)  # this task must not keep what the item bound
                    while goes_on:
                        goes_on = await self._work_in_own_task(worker)
                except (KeyboardInterrupt, SystemExit) as error:
                    interruption = error  # if leaving is cancelled, it must not be lost
                finally:
                    await self._leave(worker)
        except (KeyboardInterrupt, SystemExit) as error:  # as in `in_order`
            interruption = error
        finally:
            if interruption is not None:
                self._supervisor.fail(interruption)
                interruption = None  # its traceback has this frame

    async def _work_in_own_task(self, worker: WorkerBook) -> bool:
        try:
            return await self.in_own_task(worker, self.work(worker))
        except asyncio.CancelledError:
            # A late request that an item left: to its own task, or before the next one's first
            # step.
            if self._crew.is_called_off(worker):
                raise
            await self._crew.absorb_cancel(worker)
            return True

    async def _leave(self, worker: WorkerBook) -> None:
        try:
            await self.leave(worker)
            # A request that the last item left would make the task count as cancelled when it ends.
            # It has arrived where the worker has waited since.
            if worker.index not in self._rested and not self._crew.is_called_off(worker):
                await self._crew.absorb_cancel(worker)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._crew.is_called_off(worker):
                raise
        finally:
            self._alive.discard(worker.index)
            self._rested.discard(worker.index)
            if worker.index < self.active and not self.channel.is_closed:
                self._vacant.append(worker.index)
                self.channel.ring()

    async def _pair_of(self, worker: WorkerBook, work: Awaitable[Any]) -> ValueOrError:
        with self._seated(worker):
            pair: ValueOrError
            try:
                pair = await work, None
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # why: raised again by the code that awaits this
                pair = None, error
            if not self._crew.is_called_off(worker):  # else the task would count as cancelled
                await self._crew.absorb_cancel(worker)
            return pair

    def _seated(self, worker: WorkerBook) -> _Seated:
        """Inside, the running `asyncio.Task` belongs to the worker."""
        current_seat.set(self._seats[worker.index])
        current_calls.set(self._calls)
        counters_here.set(self._counters)
        return _Seated(self._crew, worker)


class _Seated:
    """The running `asyncio.Task` belongs to a worker. A generator would cost four times as much."""

    __slots__ = ("_before", "_crew", "_worker")

    def __init__(self, crew: Crew, worker: WorkerBook) -> None:
        self._crew = crew
        self._worker = worker

    def __enter__(self) -> None:
        running = asyncio.current_task()
        assert running is not None
        self._before = self._crew.seat(self._worker, running)

    def __exit__(self, *_: object) -> None:
        self._crew.seat(self._worker, self._before)
