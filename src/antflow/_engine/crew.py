"""The workers of a stage at work: the `asyncio.Task` of each, and which ones the run called off.

The cancel requests of a worker's task do not tell where they came from. Client libraries cancel the
task that calls them, for their own timeouts, and some never take that back. So the run notes which
workers it calls off, and any other cancellation is a failure of the item in hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from antflow._core.cancellation import absorb_requests, request_counter, requests_of
from antflow._core.foreign import is_a
from antflow._core.ledger import StageBook, Waiting, WorkerBook, no_requests
from antflow._core.waits import discard
from antflow._engine.user_errors import failure_of


class Crew:
    """The workers of one stage.

    Args:
        book: The stage's book.
        is_called_off: Whether the whole run is being cancelled.
        now: The run's clock.

    Attributes:
        abandoned: The threads that go on although their task has timed out, by worker.
        begins_no_more: Whether the stage is closed: no more tries begin.
    """

    def __init__(
        self, book: StageBook, is_called_off: Callable[[], bool], now: Callable[[], float]
    ) -> None:
        self._book = book
        self._run_is_called_off = is_called_off
        self._now = now
        self._serving: dict[int, asyncio.Task[Any]] = {}
        self._called_off: set[int] = set()
        self.abandoned: dict[int, asyncio.Future[Any]] = {}
        self.begins_no_more: bool = False

    # Which task is whose

    def seat(self, worker: WorkerBook, task: asyncio.Task[Any] | None) -> asyncio.Task[Any] | None:
        """Note that a worker works in this task from now on, or in none.

        Returns:
            The task that it worked in before.
        """
        before = self._serving.pop(worker.index, None)
        if task is not None:
            self._serving[worker.index] = task
        worker.cancel_requests = no_requests if task is None else request_counter(task)
        return before

    def running(self, worker: WorkerBook) -> asyncio.Task[Any]:
        """The `asyncio.Task` in which a worker works at present."""
        return self._serving[worker.index]

    def is_served_by(self, worker: WorkerBook, task: asyncio.Task[Any]) -> bool:
        """Whether a worker works in this task at present."""
        return self._serving.get(worker.index) is task

    def worker_of(self, task: asyncio.Task[Any]) -> WorkerBook | None:
        """The worker that works in this task, if there is one. Any thread may ask."""
        for index, serving in tuple(self._serving.items()):
            if serving is task:
                return self._book.workers.get(index)
        return None

    # Cancelled, and by whom

    def is_called_off(self, worker: WorkerBook) -> bool:
        """Whether the run itself has cancelled a worker."""
        return self._run_is_called_off() or worker.index in self._called_off

    def failure_of(
        self, error: BaseException, worker: WorkerBook, name: str | None = None
    ) -> Exception:
        """The failure that a ``CancelledError`` or a group raised by the user's code amounts to.

        Raises:
            asyncio.CancelledError: The run has cancelled the worker.
            BaseException: A group with something in it that ends a program.
        """
        if is_a(error, asyncio.CancelledError) and self.is_called_off(worker):
            raise error
        return failure_of(error, name or worker.task or "")

    async def absorb_cancel(self, worker: WorkerBook) -> None:
        """Take back the requests to cancel a worker that did not come from the run.

        Raises:
            asyncio.CancelledError: The run has asked as well.
        """
        if not requests_of(self._serving[worker.index]):
            return
        if not self.is_called_off(worker):
            await absorb_requests()
        if self.is_called_off(worker):
            raise asyncio.CancelledError

    async def absorb_cancel_before(self, worker: WorkerBook) -> None:
        """Like `absorb_cancel`, for code that has to await something next.

        If the run has asked as well, that hits what is awaited.
        """
        try:
            await self.absorb_cancel(worker)
        except asyncio.CancelledError:
            self._serving[worker.index].cancel()

    # Waiting

    async def wait_for(self, worker: WorkerBook, reason: Waiting, wait: Awaitable[Any]) -> None:
        """Wait on behalf of a worker, whose book says why meanwhile.

        A cancel request that the user's code has left does not cut the wait short.
        """
        worker.wait_begins(reason, self._now())
        try:
            try:
                await self.absorb_cancel(worker)
            except BaseException:
                discard(wait)
                raise
            await wait
        finally:
            worker.wait_ends(self._now())

    async def see_through(self, worker: WorkerBook, wait: Awaitable[Any]) -> None:
        """Wait on behalf of a worker for something that puts its item.

        That begins in any case: if the run has cancelled the worker, it is cancelled in there.
        """
        worker.wait_begins("blocked", self._now())
        try:
            await self.absorb_cancel_before(worker)
            await wait
        finally:
            worker.wait_ends(self._now())

    async def wait_to_begin(self, worker: WorkerBook, wait: Awaitable[Any]) -> None:
        """Wait on behalf of a worker until the next try of its item or batch may begin.

        Cancellation: the worker's, or by `begin_no_more`.
        """
        if self.begins_no_more:
            self._call_off(worker.index)
        await self.wait_for(worker, "limited", wait)

    def check_not_stopping(self, worker: WorkerBook, is_stopping: bool) -> None:
        """Call a worker off in the middle of a try, if the run is being stopped.

        Raises:
            asyncio.CancelledError: It is.
        """
        if is_stopping:
            self._called_off.add(worker.index)
            raise asyncio.CancelledError

    def begin_no_more(self) -> None:
        """The run is being shut down: cancel the workers that wait for a try to begin.

        A try that has begun goes on, even if a call in it waits for a limit.
        """
        for index in self._serving:
            if self._book.worker(index).own_wait == "limited":
                self._call_off(index)

    def abandon(self, worker: WorkerBook, thread: asyncio.Future[Any]) -> None:
        """A worker's thread goes on although its task has timed out."""
        self.abandoned[worker.index] = thread

    async def outlast_thread(self, worker: WorkerBook) -> None:
        """Wait for a worker's thread that was abandoned, if there is one."""
        if (thread := self.abandoned.get(worker.index)) is not None:
            await self.wait_for(worker, "thread", asyncio.wait([thread]))
            self.abandoned.pop(worker.index, None)

    def forget_threads(self) -> None:
        """The run is over: stop waiting for threads that go on."""
        for thread in self.abandoned.values():
            thread.cancel()

    def _call_off(self, index: int) -> None:
        self._called_off.add(index)
        self._serving[index].cancel()
