"""One stage of one run: its channel, its workers, its waiting retries, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from antflow._core.cancellation import absorb_requests
from antflow._core.envelope import Envelope
from antflow._core.ledger import WorkerBook
from antflow._core.readings import StageGauge
from antflow._core.stage import Stage, capacity, lowest_concurrency, most_retries_waiting
from antflow._engine.attempt import Answer, Attempt, failure_of
from antflow._engine.batches import Batches
from antflow._engine.calls import Call, is_async
from antflow._engine.channel import Channel
from antflow._engine.contexts import plainly_around
from antflow._engine.current import current_seat
from antflow._engine.endings import Endings
from antflow._engine.limits.call_limits import CallLimits
from antflow._engine.limits.permits import Admission
from antflow._engine.recorder import Recorder
from antflow._engine.resources import Resources
from antflow._engine.retries import RetryHeap
from antflow._engine.runners import Threads, runner_for
from antflow._engine.worker import work

if TYPE_CHECKING:
    from antflow._engine.run import Run

T = TypeVar("T")


class StageRun:
    """The machinery of one stage.

    Args:
        run: The run it belongs to.
        index: The stage's index.
        description: The stage as the user described it.
        recorder: The stage's recorder.
    """

    def __init__(self, run: Run, index: int, description: Stage, recorder: Recorder) -> None:
        self.run = run
        self.index = index
        self.name = description.name
        self.description = description
        self.recorder = recorder
        self.next_channel: Channel[Envelope] | None = None
        self.worker_count = self.active_count = description.workers
        self._counted_until = run.timers.now()
        self._worker_seconds = 0.0
        self._alive: set[int] = set()
        self._serving: dict[int, asyncio.Task[Any]] = {}
        self._called_off: set[int] = set()
        self._vacant = list(reversed(range(description.workers)))
        self.channel: Channel[Envelope] = Channel(
            capacity(description), recruit=self._recruit, has_more=run.intake_is_hungry(index)
        )
        self.take: Callable[[], Envelope | None] = self.channel.take
        self.retries = RetryHeap(self.channel, run.timers, most_retries_waiting(description))
        self.runner = runner_for(self)
        self._has_plain_tasks = not all(is_async(task) for task in description.tasks)
        self.abandoned: dict[int, asyncio.Future[Any]] = {}
        self._resources: dict[int, Resources] = {}
        self._concurrency = lowest_concurrency(description)
        self.calls = CallLimits(description, run.timers.now)
        self.task_gates: list[Admission] = []  # of `task_concurrency_limits`
        self._attempt = Attempt(self)
        self.attempt = self._attempt.run
        self.endings = Endings(self)
        self.batches = None if description.batch is None else Batches(self)
        self.direct: Call | None = None
        self.rewire()

    def rewire(self) -> None:
        """Find out again who listens."""
        self.recorder.rewire()
        self.direct = self._attempt.direct

    # Workers

    def set_worker_count(self, count: int) -> None:
        """Have ``count`` workers. New ones start when there is work; the last ones leave first."""
        self._count_worker_seconds()
        self.worker_count = count
        if not self.run.is_paused:
            self.activate(count)

    def activate(self, count: int) -> None:
        """Have ``count`` of the workers at work: all of them, or none while the run is paused."""
        self.active_count = count
        self._vacant = [index for index in reversed(range(count)) if index not in self._alive]
        self.channel.wake_all()  # those who are to leave are among them
        self.channel.ring()

    def gauge(self) -> StageGauge:
        """What the books of the stage do not know."""
        now = self.run.now_or_end()
        return StageGauge(
            self.worker_count,
            self.channel.capacity,
            self.channel.blocked,
            len(self.abandoned),
            self._worker_seconds + self.worker_count * max(now - self._counted_until, 0.0),
            self.runner.child_cpu_seconds,
            self._concurrency,
        )

    def _count_worker_seconds(self) -> None:
        now = self.run.timers.now()
        self._worker_seconds += self.worker_count * (now - self._counted_until)
        self._counted_until = now

    def _recruit(self) -> bool:
        if not self._vacant:
            return False
        index = self._vacant.pop()
        self._alive.add(index)
        worker = self.run.ledger.stages[self.index].worker(index)
        worker.task = self._attempt.names[0]
        self.run.spawn(self._serve(worker), f"{self.name}-W{index}")
        return True

    async def _serve(self, worker: WorkerBook) -> None:
        with self._seated(worker):
            try:
                goes_on = await self._work(worker)
                if goes_on:
                    for variable in copy_context():
                        variable.set(None)  # what the item bound is not to be kept by this task
                while goes_on:
                    goes_on = await self.in_own_task(worker, self._work(worker))
            finally:
                await self._leave(worker)

    async def _work(self, worker: WorkerBook) -> bool:
        """Work until the worker is to leave, or to go on in another task; see `work`."""
        try:
            if self.batches is not None:
                return await self.batches.work(worker)
            return await work(self, worker)
        except asyncio.CancelledError:
            if self.is_called_off(worker):
                raise
            return True  # it came from outside, and no item was in hand that could answer for it

    async def in_own_task(self, worker: WorkerBook, work: Coroutine[Any, Any, T]) -> T:
        """Let a worker work in an `asyncio.Task` with the context of the run."""
        task = self.run.create_side_task(
            self._result_or_error(worker, work), f"{self.name}-W{worker.index}"
        )
        try:
            result, error = await task
        finally:
            work.close()  # in case it never began
        if error is not None:
            raise error
        return cast("T", result)

    async def _result_or_error(
        self, worker: WorkerBook, work: Coroutine[Any, Any, T]
    ) -> tuple[T | None, BaseException | None]:
        # A task lets KeyboardInterrupt and SystemExit out into the event loop.
        with self._seated(worker):
            try:
                return await work, None
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # why: raised again by whoever awaits this
                return None, error

    @plainly_around
    def _seated(self, worker: WorkerBook) -> Generator[None, None, None]:
        """Inside, the running `asyncio.Task` is the worker's."""
        running = asyncio.current_task()
        assert running is not None
        current_seat.set((self, worker))
        outer = self._serving.get(worker.index)
        self._serving[worker.index] = running
        try:
            yield
        finally:
            if outer is None:
                del self._serving[worker.index]
            else:
                self._serving[worker.index] = outer

    def has_left_context(self, before: Context) -> bool:
        """Whether the running task's context variables are not those of ``before`` any more."""
        try:
            return self.description.isolate_context and copy_context() != before
        except Exception:  # values that cannot be compared, like arrays of numpy
            return True

    # Cancelled, and by whom

    def is_called_off(self, worker: WorkerBook) -> bool:
        """Whether the run itself has cancelled a worker.

        The cancel requests of its `asyncio.Task` do not tell. Client libraries cancel the task that
        calls them, for a timeout of their own, and some do not take that back.
        """
        return self.run.is_called_off or worker.index in self._called_off

    def failure_of(
        self, error: BaseException, worker: WorkerBook, name: str | None = None
    ) -> Exception:
        """The failure that a ``CancelledError`` or a group raised by the user's code amounts to.

        Raises:
            asyncio.CancelledError: It is not theirs: the run has cancelled the worker.
            BaseException: A group with something in it that ends a program.
        """
        if isinstance(error, asyncio.CancelledError) and self.is_called_off(worker):
            raise error
        return failure_of(error, name or worker.task or "")

    def running(self, worker: WorkerBook) -> asyncio.Task[Any]:
        """The `asyncio.Task` in which a worker works at present."""
        return self._serving[worker.index]

    async def absorb_cancel(self, worker: WorkerBook) -> None:
        """Take back the requests to cancel a worker that did not come from the run.

        Raises:
            asyncio.CancelledError: The run has asked, too.
        """
        running = self._serving[worker.index]
        if not running.cancelling():
            return
        if not self.is_called_off(worker):
            await absorb_requests()
        if self.is_called_off(worker):
            raise asyncio.CancelledError

    def worker_of(self, task: asyncio.Task[Any]) -> WorkerBook | None:
        """The worker whose `asyncio.Task` this is, if it is one's. Any thread may ask."""
        for index, serving in tuple(self._serving.items()):
            if serving is task:
                return self.run.ledger.stages[self.index].workers.get(index)
        return None

    async def _leave(self, worker: WorkerBook) -> None:
        try:
            if self.description.resource_scope == "worker" and not self.run.is_left_behind:
                resources = self._resources.pop(worker.index, None)
                if resources is not None:
                    await self.run.outlive(resources.close)
            await self.runner.leave(worker)
        finally:
            self._alive.discard(worker.index)
            if worker.index < self.active_count:
                self._vacant.append(worker.index)
                self.channel.ring()

    async def receive(self, worker: WorkerBook) -> Envelope | None:
        """The next item for a worker that found none, or ``None`` when it is to leave."""
        while not self.channel.is_closed and worker.index < self.active_count:
            if (envelope := self.channel.take()) is not None:
                return envelope
            if self.pulls:
                await self.run.intake.pull()
            else:
                await self.channel.wait()
        return None

    async def give_way(self, worker: WorkerBook) -> float:
        """Have a worker that has nothing in hand give everybody else on the event loop a turn.

        Returns:
            When it goes on.
        """
        now = self.run.timers.now
        began = now()
        await self.run.breathe()
        goes_on = now()
        worker.gave_way += goes_on - began
        return goes_on

    @property
    def pulls(self) -> bool:
        """Whether there is more to be had from the source, right now."""
        return self.index == 0 and self.run.intake.is_hungry

    def may_get_more(self, gathered: int) -> bool:
        """Whether more items can come besides the ``gathered`` ones, which no worker has begun."""
        if not self.run.intake.has_ended:
            return True
        books = self.run.ledger.stages[: self.index + 1]
        inside = sum(book.waiting + book.in_progress + book.retrying for book in books)
        return inside > gathered

    async def wait_to_begin(self, worker: WorkerBook, wait: Awaitable[Any]) -> None:
        """Have a worker wait until the next try of what it has in hand may begin.

        Cancellation: of the worker, also by `begin_no_more`.
        """
        worker.wait_begins("limit", self.run.timers.now())
        if self.channel.is_closed:
            self._call_off(worker.index)
        try:
            await wait
        finally:
            worker.wait_ends(self.run.timers.now())

    def begin_no_more(self) -> None:
        """The run is being shut down: cancel the workers that wait for a try to begin.

        Not those in the middle of one whose calls wait for a limit: it is let end.
        """
        for index in self._serving:
            if self.run.ledger.stages[self.index].worker(index).own_wait == "limit":
                self._call_off(index)

    def _call_off(self, index: int) -> None:
        self._called_off.add(index)
        self._serving[index].cancel()

    def abandon(self, worker: WorkerBook, thread: asyncio.Future[Any]) -> None:
        """A worker's thread goes on although nobody waits for its task any more."""
        self.abandoned[worker.index] = thread

    # What the tasks use

    async def resources_for(self, worker: WorkerBook) -> dict[str, Any]:
        """What the stage's resources are for a worker; entered if this is the first use."""
        options = self.description
        if options.executor == "process":
            return {}  # the child process enters its own
        if options.resource_scope == "run":
            return await self.run.resources_of(options.resources)
        key = worker.index if options.resource_scope == "worker" else -1
        resources = self._resources.get(key)
        if resources is None:
            in_thread = None
            is_workers_own = self._has_plain_tasks and options.resource_scope == "worker"
            if isinstance(self.runner, Threads) and is_workers_own:
                in_thread = self.runner.thread_of(worker).run
            resources = self._resources[key] = Resources(
                options.resources, f"stage {self.name}", self.run.create_side_task, in_thread
            )
        return await resources.get()

    async def close(self) -> None:
        """Let go of what the stage's tasks used; when no worker is left."""
        for resources in self._resources.values():
            await self.run.outlive(resources.close)
        self.release_limits()
        self.calls.close()

    def release_limits(self) -> None:
        """No more tries: another event loop may use the stage's limits."""
        self._attempt.close()

    # An item's turns

    def hold(self, seconds: float) -> None:
        """Let no try begin for this many seconds, here and in all stages that share the limits.

        In a try that has begun, a task that waits for its `task_concurrency_limits` is held too.
        """
        self._attempt.hold(seconds)
        for gate in self.task_gates:
            gate.hold(seconds)
        self.direct = self._attempt.direct

    async def try_batch(
        self, group: Sequence[Envelope], worker: WorkerBook, answers: dict[Envelope, Answer]
    ) -> None:
        """Try a batch.

        Args:
            group: The batch.
            worker: Who tries it.
            answers: Where to note what became of each item.

        Raises:
            Exception: All items failed that have no answer.
        """
        try:
            await self._attempt.run_batch(group, worker, answers)
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            raise self.failure_of(error, worker)  # noqa: B904 - it has its cause

    def settle_all(self) -> list[Awaitable[None]]:
        """Settle as cancelled everything that waits here.

        Returns:
            The observers' waits.
        """
        envelopes = self.channel.drain() + self.retries.drain()
        waits = [self.endings.give_up(envelope, None) for envelope in envelopes]
        return [wait for wait in waits if wait is not None]
