"""An executor's calls, running and waiting.

A submitted call is an `asyncio.Task` from the start, so cancelling all tasks of an event loop ends
it, and nothing has to be woken or polled. The task waits for one of the slots, tries the function
as often as allowed, and returns the outcome: errors of the function never leave the task, because
they would take the event loop down (`SystemExit`) or be reported a second time. Only `Pool._settle`
passes the outcome on to the future.

A future may be done before its task: when it was cancelled and the function is still cleaning up.
The task gives the slot back, so there are never more running calls than slots; and code
that cancels all calls waits for the tasks, so nothing is left behind. A plain function that is
cancelled goes on in its thread; its slot is free when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from antflow._core.cancellation import absorb_requests
from antflow._core.errors import ExecutorShutdownError
from antflow._core.stage_checks import is_async
from antflow._core.tracebacks import trimmed
from antflow._core.value_or_error import ValueOrError
from antflow._engine.contexts import in_context
from antflow._engine.user_errors import group_failure
from antflow._engine.waiting import begin_task, outlast_shower
from antflow._engine.worker_thread import Answers, WorkerThread
from antflow.executor.future import AsyncFuture
from antflow.executor.slots import Slots
from antflow.sinks.opentelemetry import task_span

DROPPED = "cancelled by the executor's shutdown"


@dataclass(slots=True, eq=False, repr=False)
class Submission:
    """A function with its arguments and retries."""

    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    guard: AbstractAsyncContextManager[Any, Any] | None
    retries: int
    retry_delay: float
    has_begun: bool = False


class Pool:
    """What an executor's `submit` and `map` share: slots, threads and shutdown.

    Args:
        workers: How many calls may run at the same time.

    Attributes:
        workers: The same number.
        slots: A call needs one to run.
        threads: Slot → the thread that runs its plain functions.
        tasks: Everything in progress.
        number: Gives calls their numbers, from 0. Calls of a map get one only if they need it.
        is_shut_down: Whether new calls are refused.
    """

    _answers: Answers

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.slots: Slots = Slots(workers)
        self.threads: dict[int, WorkerThread] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.number: Callable[[], int] = count().__next__
        self.is_shut_down = False
        self._drops_waiting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[asyncio.Task[Any], tuple[AsyncFuture[Any], Submission]] = {}

    def enter(self) -> None:
        """Check that calls may begin in the running event loop.

        Raises:
            ExecutorShutdownError: The executor was shut down.
            RuntimeError: No event loop is running, or calls are under way in another one.
        """
        if self.is_shut_down:
            raise ExecutorShutdownError("submit(): the executor was shut down")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            text = "submit(): no event loop is running; call it inside an async function"
            raise RuntimeError(text) from None
        if loop is not self._loop:
            if self.tasks and self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("submit(): the executor has calls in another event loop")
            self._loop = loop
            self._answers = Answers()
            self.slots = Slots(self.workers)
            self._leave_threads()
            self.tasks.clear()
            self._calls.clear()

    @property
    def is_left_behind(self) -> bool:
        """Whether the event loop was closed while calls were in progress."""
        return self._loop is not None and self._loop.is_closed()

    def submit(self, call: Submission) -> AsyncFuture[Any]:
        """Begin a call, in a separate task, as soon as there is a slot."""
        future: AsyncFuture[Any] = AsyncFuture(call.number)
        name = f"AsyncExecutor call {call.number}"
        task = self.start(self.run(call, future.cancelled), name, self._settle)
        future._task = task
        self._calls[task] = (future, call)
        return future

    def start(
        self,
        work: Coroutine[Any, Any, Any],
        name: str,
        ended: Callable[[asyncio.Task[Any]], None],
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        """Start a task that belongs to the pool; ``ended`` is called when it has ended."""
        task = begin_task(work, name, context)
        self.tasks.add(task)
        task.add_done_callback(partial(self._left, ended))
        return task

    async def run(self, call: Submission, is_called_off: Callable[[], bool]) -> ValueOrError:
        """Try a call as often as allowed; its slot is held only during a try.

        Cancellation: passed on to the function, whose outcome is then dropped.

        Args:
            call: The call.
            is_called_off: Whether the call is being cancelled, and not by the function itself.
        """
        delay = call.retry_delay
        context = copy_context()
        for tries_left in range(call.retries, -1, -1):
            attempt = self._try(call, is_called_off)
            if tries_left < call.retries:  # earlier tries may have bound context variables
                attempt = in_context(context.copy(), attempt)
            try:
                return await attempt, None
            except asyncio.CancelledError as error:
                if is_called_off():
                    raise
                return None, trimmed(error)
            except Exception as error:
                # At once, and after each try: other calls may raise the same object.
                trimmed(error)
                if not tries_left or is_called_off() or self._is_dropped(call):
                    return None, error
            except BaseException as error:  # why: it belongs to the code that asks for the result
                trimmed(error)
                is_failure = group_failure(error, "") is not None
                if not is_failure or not tries_left or is_called_off():
                    return None, error
            if is_called_off():
                raise asyncio.CancelledError
            await asyncio.sleep(delay)
            delay *= 2
        raise AssertionError("the last try returns")

    def cancel_all(self, why: str) -> None:
        """Cancel the calls in progress, even running ones."""
        for future, _ in list(self._calls.values()):
            future._cancel(ExecutorShutdownError(why))

    def cancel_waiting(self) -> None:
        """Cancel the calls that have not begun."""
        self._drops_waiting = True
        for future, call in list(self._calls.values()):
            if not call.has_begun:
                future._cancel(ExecutorShutdownError(DROPPED))

    def end_threads(self) -> None:
        """End the threads if they are no longer needed."""
        if self.is_shut_down and (self.is_left_behind or not self.tasks):
            self._leave_threads()

    async def _try(self, call: Submission, is_called_off: Callable[[], bool]) -> Any:
        """Make one try. All calls with options come through here."""
        slot = await self.slots.take()
        try:
            if call.guard is None:
                return await self._made(call, slot, is_called_off)
            async with call.guard:
                return await self._made(call, slot, is_called_off)
        finally:
            self.slots.pass_on(slot)

    async def _made(self, call: Submission, slot: int, is_called_off: Callable[[], bool]) -> Any:
        if self._is_dropped(call):  # only a mapped call: it has no future
            raise ExecutorShutdownError(DROPPED)
        call.has_begun = True
        with task_span(slot, call.number):
            try:
                if is_async(call.function):
                    result = await call.function(*call.args, **call.kwargs)
                else:
                    result = await self._call_in_thread(call, slot)
            except GeneratorExit:  # the event loop was closed
                raise
            except BaseException:
                await _take_back_requests(is_called_off)
                raise
            await _take_back_requests(is_called_off)
            return result

    def _is_dropped(self, call: Submission) -> bool:
        return self._drops_waiting and not call.has_begun

    async def _call_in_thread(self, call: Submission, slot: int) -> Any:
        thread = self.threads.get(slot)
        if thread is None:
            name = f"AsyncExecutor-W{slot}"
            thread = self.threads[slot] = WorkerThread(name, self._answers)
        try:
            return await thread.call(partial(call.function, *call.args, **call.kwargs))
        except asyncio.CancelledError:
            if thread.at_work is not None and not thread.at_work.done():
                self.slots.keep(slot, thread.at_work)
            raise

    def _settle(self, task: asyncio.Task[ValueOrError]) -> None:
        """Pass a call's outcome on to its future, unless the future was cancelled before."""
        future, _ = self._calls.pop(task)
        future._task = None
        if not future.done():
            result, error = (None, asyncio.CancelledError()) if task.cancelled() else task.result()
            future._complete(result, error)

    def _left(self, ended: Callable[[asyncio.Task[Any]], None], task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        ended(task)
        self.end_threads()

    def _leave_threads(self) -> None:
        for thread in self.threads.values():
            thread.end()
        self.threads.clear()


async def _take_back_requests(is_called_off: Callable[[], bool]) -> None:
    """Take back cancel requests that a client library left, so they do not hit the next await."""
    if not is_called_off():
        await absorb_requests()


async def until_ended(
    tasks: Collection[asyncio.Task[Any]], *, outlasts_first: bool = False
) -> None:
    """Wait until tasks have ended, except the current one: a call may abandon itself.

    Args:
        tasks: The tasks.
        outlasts_first: See `outlast_shower`.
    """
    if tasks and (others := {*tasks} - {asyncio.current_task()}):
        # Calls that abandon each other must not wait for each other.
        await outlast_shower(others, outlasts_first and len(others) == len(tasks))
