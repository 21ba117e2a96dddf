"""A pool of workers for single calls, in the form of `concurrent.futures`.

Every call is an `asyncio.Task` from the moment it is submitted, so cancelling all tasks of an event
loop ends it, and nothing has to be woken or polled. The task waits for one of the executor's slots,
tries the function as often as allowed, and returns the outcome: errors of the function never leave
the task, because they would take the event loop down (`SystemExit`) or be reported a second time.
Only `AsyncExecutor._ended` passes the outcome on to the future.

A future may be done before its task: when it was cancelled and the function is still cleaning up.
The slot is given back by the task, so there are never more calls at work than workers; and
cancelling on behalf of a caller (`_abandon`) waits for the tasks, so nothing is left behind. A
plain function that is cancelled goes on in its thread; its slot is free when the function has
ended.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar, overload

from antflow._core.cancellation import absorb_requests
from antflow._core.checks import check_count, check_flag, check_seconds, refusal
from antflow._core.errors import ExecutorShutdownError
from antflow._core.stage_checks import is_async
from antflow._core.value_or_error import ValueOrError
from antflow._engine.contexts import around, in_context
from antflow._engine.iteration import END, NOTHING, Iteration
from antflow._engine.task_failures import group_failure
from antflow._engine.tracebacks import trimmed
from antflow._engine.waiting import begin_task
from antflow._engine.worker_thread import WorkerThread
from antflow.executor.future import (
    AsyncFuture,
    WaitStrategy,
    as_completed,
    seconds_of,
    wait,
)
from antflow.sinks.opentelemetry import task_span

__all__ = ["AsyncExecutor", "AsyncFuture", "Iteration", "WaitStrategy"]

R = TypeVar("R")

LOOK_AHEAD = 2
"""Calls that `map` and `map_iter` have under way for each worker: one at work, one ready."""


@dataclass(slots=True)
class _Submission:
    """A function with its arguments and number of tries."""

    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    guard: AbstractAsyncContextManager[Any, Any]
    retries: int
    retry_delay: float
    has_begun: bool = False


class _Slots:
    """Slots for calls at work, given in the order in which they asked.

    An `asyncio.Semaphore` would do, but cancelling thousands that wait for one takes seconds: each
    looks at all others.
    """

    def __init__(self, count: int) -> None:
        self._unused = iter(range(count))
        self._free: list[int] = []
        self._queue: OrderedDict[asyncio.Future[int], None] = OrderedDict()
        self._kept: dict[int, asyncio.Future[None]] = {}

    @around
    async def one(self) -> AsyncGenerator[int, None]:
        """Wait for a slot and hold it inside the block; gives its number, from 0."""
        number = await self._take()
        try:
            yield number
        finally:
            self._pass_on(number)

    async def _take(self) -> int:
        number = self._free.pop() if self._free else next(self._unused, None)
        if number is not None:
            return number
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.pop(turn, None)
            else:  # the slot was handed over just before
                self._pass_on(turn.result())
            raise

    def keep(self, number: int, until: asyncio.Future[None]) -> None:
        """Free a slot not at the end of its block, but only when ``until`` is done as well."""
        self._kept[number] = until

    def _pass_on(self, number: int) -> None:
        if (kept := self._kept.pop(number, None)) is not None:
            kept.add_done_callback(lambda _: self._pass_on(number))
            return
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.cancelled():
                turn.set_result(number)
                return
        self._free.append(number)


class AsyncExecutor:
    """Runs functions, at most ``max_workers`` at a time, in the order submitted.

    ``async`` functions run in the event loop, plain ones in threads of the executor, at most one
    per worker. Both see the context variables of the code that submitted them. The executor belongs
    to one event loop at a time.

    As a context manager it ends with its block: submitted calls are finished. If the block raises
    or is cancelled, all calls are cancelled instead, even those at work.

    A call that waits for another call of the same executor keeps its worker meanwhile; if all
    workers do so, none is left for what they wait for.

    Args:
        max_workers: Calls that may be at work at the same time, 1 or more.

    Raises:
        ValueError: ``max_workers`` is not such a number.

    Example:
        >>> async def double(number):
        ...     await asyncio.sleep(0)
        ...     return 2 * number
        >>> async def main():
        ...     async with AsyncExecutor(max_workers=3) as executor:
        ...         future = executor.submit(double, 21)
        ...         return await future, await executor.map(double, range(5))
        >>> asyncio.run(main())
        (42, [0, 2, 4, 6, 8])
    """

    def __init__(self, max_workers: int = 5) -> None:
        check_count(ValueError, "max_workers", max_workers, 1, "must be a whole number >= 1")
        self._max_workers = max_workers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = _Slots(max_workers)
        self._threads: dict[int, WorkerThread] = {}
        self._calls: dict[asyncio.Task[ValueOrError], tuple[AsyncFuture[Any], _Submission]] = {}
        self._submitted = 0
        self._is_shut_down = False

    async def __aenter__(self) -> AsyncExecutor:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.shutdown(wait=error_type is None)
        finally:
            left = [future for future, _ in self._calls.values()]
            await _abandon(left, "the executor's block raised or was cancelled")

    @overload
    def submit(
        self,
        fn: Callable[..., Awaitable[R]],
        *args: Any,
        retries: int = 0,
        retry_delay: float = 0.1,
        semaphore: AbstractAsyncContextManager[Any, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[R]: ...

    @overload
    def submit(
        self,
        fn: Callable[..., R],
        *args: Any,
        retries: int = 0,
        retry_delay: float = 0.1,
        semaphore: AbstractAsyncContextManager[Any, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[R]: ...

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        retries: int = 0,
        retry_delay: float = 0.1,
        semaphore: AbstractAsyncContextManager[Any, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[Any]:
        """Call ``fn(*args, **kwargs)`` as soon as a worker is free. Returns at once.

        Args:
            fn: An ``async`` function or a plain one. If a plain one returns an awaitable, it is
                awaited.
            *args: Its positional arguments.
            retries: Further tries after a first one that raised an `Exception`, 0 or more. A group
                that contains a ``CancelledError`` counts as an `Exception`.
            retry_delay: Seconds before the second try; doubled before each further one. The worker
                is free meanwhile.
            semaphore: Entered around each try, by the worker, to bound some calls more tightly than
                the others.
            **kwargs: Its keyword arguments.

        Raises:
            ExecutorShutdownError: The executor was shut down.
            RuntimeError: No event loop is running, or calls are under way in another one.
            TypeError: ``fn`` cannot be called, or ``semaphore`` cannot be entered.
            ValueError: ``retries`` or ``retry_delay`` is not such a number.
        """
        if self._is_shut_down:
            raise ExecutorShutdownError("submit(): the executor was shut down")
        _check_call(fn, retries, retry_delay)
        if semaphore is not None and not isinstance(semaphore, AbstractAsyncContextManager):
            raise refusal(TypeError, "semaphore", semaphore, "must be a semaphore or None")
        guard = nullcontext() if semaphore is None else semaphore
        return self._begin(
            _Submission(self._submitted, fn, args, kwargs, guard, retries, float(retry_delay))
        )

    @overload
    async def map(
        self,
        fn: Callable[..., Awaitable[R]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> list[R]: ...

    @overload
    async def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> list[R]: ...

    async def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> list[Any]:
        """Call ``fn`` with the first of each iterable, the second of each, and so on.

        The first call that fails ends it all: its exception is raised once the other calls are
        cancelled and have ended.

        Cancellation: the same.

        Args:
            fn: As in `submit`; so are ``retries`` and ``retry_delay``.
            *iterables: As many as ``fn`` has parameters; the shortest ends it. At most two calls
                per worker are under way, and nothing is taken before it is needed.
            timeout: The longest to wait for each result, in seconds, counted from when all results
                before it were ready; ``None`` = any time.
            retries: Further tries of each call.
            retry_delay: Seconds before the second try.

        Returns:
            The results, in the order of the input.

        Raises:
            TimeoutError: A result did not come in time; handled as if a call had failed.
            BaseException: What a call or an iterable raised; and what `submit` raises.
        """
        _check_call(fn, retries, retry_delay)
        begin = partial(self.submit, fn, retries=retries, retry_delay=retry_delay)
        calls = _begun(begin, iterables)
        del fn, begin, iterables  # a raised error keeps this frame
        clock = asyncio.get_running_loop().time
        future: AsyncFuture[Any] | None = None
        futures: list[AsyncFuture[Any]] = []
        ended: asyncio.Queue[AsyncFuture[Any]] = asyncio.Queue()
        under_way = in_order = 0
        seconds = seconds_of(timeout)
        deadline = None if seconds is None else clock() + seconds
        try:
            while True:
                for future in islice(calls, LOOK_AHEAD * self._max_workers - under_way):
                    futures.append(future)
                    future._watch(ended.put_nowait)
                    under_way += 1
                if not under_way:
                    return [future._outcome() for future in futures]
                async with asyncio.timeout_at(deadline):
                    (await ended.get())._outcome()
                under_way -= 1
                while in_order < len(futures) and futures[in_order].done():
                    in_order += 1
                    deadline = None if seconds is None else clock() + seconds
        finally:
            await _abandon(futures)
            del calls, ended, future, futures

    @overload
    def map_iter(
        self,
        fn: Callable[..., Awaitable[R]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> Iteration[R]: ...

    @overload
    def map_iter(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> Iteration[R]: ...

    def map_iter(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> Iteration[Any]:
        """Call ``fn`` as `map` does and yield the results, in the order of the input.

        At most two calls per worker are begun and not yet yielded, so the iterables may be endless,
        and a slow loop over the results slows the calls. An exception is raised in place of its
        result; that ends the iteration.

        If the iteration is left early (at once with ``async with``), the calls that were not
        yielded are cancelled, and it waits until they have ended.

        Cancellation: a cancelled ``anext`` loses nothing; call it again.

        Args:
            fn: As in `submit`; so are ``retries`` and ``retry_delay``.
            *iterables: As in `map`.
            timeout: The longest to wait for each result, in seconds, counted from when it is asked
                for; ``None`` = any time.
            retries: Further tries of each call.
            retry_delay: Seconds before the second try.

        Raises:
            TimeoutError: A result did not come in time; that ends the iteration.
            BaseException: What a call or an iterable raised; and what `submit` raises.
        """
        _check_call(fn, retries, retry_delay)
        begin = partial(self.submit, fn, retries=retries, retry_delay=retry_delay)
        calls = _begun(begin, iterables)
        return Iteration(_Ahead(calls, LOOK_AHEAD * self._max_workers, seconds_of(timeout)))

    def as_completed(
        self, futures: Iterable[AsyncFuture[R]], timeout: float | None = None
    ) -> Iteration[AsyncFuture[R]]:
        """Yield each future when it is done, even if it failed; first those done already.

        Args:
            futures: Futures of any executor. Duplicates are yielded once.
            timeout: The longest to wait for all of them, in seconds; ``None`` = any time.

        Raises:
            TimeoutError: Not all were done in time. Nothing is cancelled.
            TypeError: One is not an `AsyncFuture`.
        """
        return as_completed(futures, timeout)

    async def wait(
        self,
        futures: Iterable[AsyncFuture[R]],
        timeout: float | None = None,
        return_when: WaitStrategy | str = WaitStrategy.ALL_COMPLETED,
    ) -> tuple[set[AsyncFuture[R]], set[AsyncFuture[R]]]:
        """Wait for some or all of the futures; none is cancelled, and their errors are not raised.

        Args:
            futures: Futures of any executor.
            timeout: The longest to wait, in seconds; ``None`` = any time.
            return_when: A `WaitStrategy`, or its value.

        Returns:
            Those that are done, and the others.

        Raises:
            TimeoutError: All were waited for, and not all were done in time. With the other two
                strategies, the sets at that moment are returned.
            TypeError: One is not an `AsyncFuture`.
            ValueError: ``return_when`` is not a `WaitStrategy`.
        """
        return await wait(futures, timeout, return_when)

    async def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Accept no more calls. May be called twice.

        Cancellation: the waiting ends, the calls go on.

        Args:
            wait: Wait until all submitted calls have ended. ``False``: return at once; the calls go
                on, even those that wait for a worker.
            cancel_futures: Cancel the calls that have not begun; their futures raise
                `ExecutorShutdownError`. Those at work go on.
        """
        check_flag(TypeError, "wait", wait)
        check_flag(TypeError, "cancel_futures", cancel_futures)
        self._is_shut_down = True
        if cancel_futures:
            for future, call in list(self._calls.values()):
                if not call.has_begun:
                    future._cancel(ExecutorShutdownError("cancelled by the executor's shutdown"))
        self._end_threads()
        # A call that shuts down its own executor does not wait for itself.
        if wait and (others := self._calls.keys() - {asyncio.current_task()}):
            await asyncio.wait(others)

    def _begin(self, call: _Submission) -> AsyncFuture[Any]:
        self._enter_loop()
        future: AsyncFuture[Any] = AsyncFuture(call.number)
        self._submitted += 1
        task = begin_task(self._run(call, future), f"AsyncExecutor call {future.sequence_id}")
        future._task = task
        self._calls[task] = (future, call)
        task.add_done_callback(self._ended)
        return future

    def _enter_loop(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            text = "submit(): no event loop is running; call it inside an async function"
            raise RuntimeError(text) from None
        if loop is not self._loop:
            if self._calls and self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("submit(): the executor has calls in another event loop")
            self._loop = loop
            self._slots = _Slots(self._max_workers)
            self._leave_threads()
            self._calls.clear()

    async def _run(self, call: _Submission, future: AsyncFuture[Any]) -> ValueOrError:
        """Try a call as often as allowed; its slot is held only during a try.

        Cancellation: passed on to the function, whose outcome is then dropped.
        """
        delay = call.retry_delay
        context = copy_context()
        for tries_left in range(call.retries, -1, -1):
            attempt = self._try(call, future)
            if tries_left < call.retries:  # earlier tries may have bound context variables
                attempt = in_context(context.copy(), attempt)
            try:
                return await attempt, None
            except asyncio.CancelledError as error:
                if future.cancelled():
                    raise
                return None, trimmed(error)
            except Exception as error:
                # At once, and after each try: other calls may raise the same object.
                trimmed(error)
                if not tries_left or future.cancelled():
                    return None, error
            except BaseException as error:  # why: it belongs to the code that asks for the result
                trimmed(error)
                is_failure = group_failure(error, "") is not None
                if not is_failure or not tries_left or future.cancelled():
                    return None, error
            if future.cancelled():
                raise asyncio.CancelledError
            await asyncio.sleep(delay)
            delay *= 2
        raise AssertionError("the last try returns")

    async def _try(self, call: _Submission, future: AsyncFuture[Any]) -> Any:
        """One try: the one place through which every call of a function goes."""
        async with self._slots.one() as worker_id, call.guard:
            call.has_begun = True
            with task_span(worker_id, call.number):
                try:
                    result = await self._call(call, worker_id)
                except GeneratorExit:  # the event loop was closed
                    raise
                except BaseException:
                    await _take_back_requests(future)
                    raise
                await _take_back_requests(future)
                return result

    async def _call(self, call: _Submission, worker_id: int) -> Any:
        if is_async(call.function):
            return await call.function(*call.args, **call.kwargs)
        return await self._call_in_thread(call, worker_id)

    async def _call_in_thread(self, call: _Submission, worker_id: int) -> Any:
        thread = self._threads.get(worker_id)
        if thread is None:
            name = f"AsyncExecutor-W{worker_id}"
            thread = self._threads[worker_id] = WorkerThread(name)
        try:
            return await thread.call(partial(call.function, *call.args, **call.kwargs))
        except asyncio.CancelledError:
            if thread.at_work is not None and not thread.at_work.done():
                self._slots.keep(worker_id, thread.at_work)
            raise

    def _ended(self, task: asyncio.Task[ValueOrError]) -> None:
        """Pass the outcome of a call on to its future, unless that was cancelled before."""
        future, _ = self._calls.pop(task)
        future._task = None
        self._end_threads()
        if not future.done():
            result, error = (None, asyncio.CancelledError()) if task.cancelled() else task.result()
            future._complete(result, error)

    def _end_threads(self) -> None:
        if self._is_shut_down and not self._calls:
            self._leave_threads()

    def _leave_threads(self) -> None:
        for thread in self._threads.values():
            thread.end()
        self._threads.clear()


class _Ahead:
    """Calls begun ahead of the reader, their results in order. See `Steps`."""

    def __init__(
        self,
        calls: Iterator[AsyncFuture[Any]],
        most: int,
        timeout: float | None,
    ) -> None:
        self._calls = calls
        self._most = most
        self._timeout = timeout
        self._ahead: deque[AsyncFuture[Any]] = deque()

    def begin(self) -> None:
        pass

    def take(self) -> Any:
        self._ahead.extend(islice(self._calls, self._most - len(self._ahead)))
        if not self._ahead:
            return END
        if not self._ahead[0].done():
            return NOTHING
        return self._ahead.popleft()._outcome()

    async def wait(self) -> None:
        async with asyncio.timeout(self._timeout):
            await self._ahead[0]._wait()

    def leave(self) -> None:
        self._calls = iter(())
        for future in self._ahead:
            future.cancel()

    async def left(self) -> None:
        await _abandon(self._ahead)
        self._ahead.clear()


def _begun(
    begin: Callable[..., AsyncFuture[Any]], iterables: Sequence[Iterable[Any]]
) -> Iterator[AsyncFuture[Any]]:
    """The call with the first of each iterable, that with the second, and so on, each begun here.

    It does not keep their arguments: a `zip` would keep the tuple that it made first.
    """
    return map(begin, *iterables) if iterables else iter(())


def _check_call(fn: object, retries: object, retry_delay: object) -> None:
    if not callable(fn):
        raise refusal(TypeError, "fn", fn, "must be a function; its arguments come after it")
    check_count(ValueError, "retries", retries, 0, "must be a whole number >= 0")
    check_seconds(ValueError, "retry_delay", retry_delay)


async def _take_back_requests(future: AsyncFuture[Any]) -> None:
    """Take back cancel requests that a client library left, so they do not hit the next await."""
    if not future.cancelled():
        await absorb_requests()


async def _abandon(futures: Collection[AsyncFuture[Any]], why: str | None = None) -> None:
    """Cancel what is not done, and wait until none of the calls is at work."""
    for future in futures:
        if not future.done():
            future._cancel(asyncio.CancelledError() if why is None else ExecutorShutdownError(why))
    tasks = {future._task for future in futures if future._task is not None}
    if tasks := tasks - {asyncio.current_task()}:  # a call may abandon itself
        await asyncio.wait(tasks)
