"""`AsyncExecutor`, in the style of `concurrent.futures`: the public face of a `Pool`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar, overload
from weakref import WeakSet

from antflow._core.checks import check_count, check_flag, check_seconds, refusal
from antflow._core.errors import ExecutorShutdownError
from antflow._core.foreign import asked, is_a, type_name
from antflow._core.misspellings import explained
from antflow._core.text import counted
from antflow._engine.iteration import Iteration
from antflow.executor.future import (
    AsyncFuture,
    WaitStrategy,
    as_completed,
    seconds_of,
    wait,
)
from antflow.executor.mapped_calls import AllCalls, CallsAhead, MappedCalls
from antflow.executor.pool import Pool, Submission, until_ended

__all__ = ["AsyncExecutor", "AsyncFuture", "Iteration", "WaitStrategy"]

R = TypeVar("R")


class AsyncExecutor:
    """Runs functions, at most ``max_workers`` at a time, in the order of submission.

    ``async`` functions run in the event loop, plain ones in the executor's threads, at most one per
    worker. Both see the context variables of the code that submitted them. The executor belongs to
    one event loop at a time.

    As a context manager, it finishes the submitted calls at the end of its block. If the block
    raises or is cancelled, all calls are cancelled instead, even running ones.

    A call that waits for another call of the same executor keeps its worker meanwhile. If all
    workers wait like that, none is left to run the calls they wait for.

    Args:
        max_workers: How many calls may run at the same time, 1 or more.

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

    @explained
    def __init__(self, max_workers: int = 5) -> None:
        # Code written for version 0.10.0 looks for the words up to the 1.
        allowed = "max_workers must be at least 1 and must be a whole number"
        self._pool = Pool(check_count(ValueError, "max_workers", max_workers, 1, allowed))
        self._mapped: WeakSet[MappedCalls] = WeakSet()  # running ones are kept by their workers

    def __repr__(self) -> str:
        return asked(self._told, instead=f"<{type_name(self)}>")

    def _told(self) -> str:
        pool = self._pool
        state = f"{len(pool.tasks):,} in progress" if pool.tasks else "idle"
        ended = ", shut down" if pool.is_shut_down else ""
        return f"<{type_name(self)}: {counted(pool.workers, 'worker')}, {state}{ended}>"

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
            if not self._pool.is_left_behind:
                await self._abandon_all("the executor's block raised or was cancelled")

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
            retries: How many more tries there are after a try that raised an `Exception`, 0 or
                more. A group that contains a ``CancelledError`` counts as an `Exception`.
            retry_delay: Seconds before the second try; doubled before each further one. The worker
                is free in between.
            semaphore: Entered by the worker around each try, to limit some calls more tightly than
                others.
            **kwargs: Its keyword arguments.

        Raises:
            ExecutorShutdownError: The executor was shut down.
            RuntimeError: No event loop is running, or calls are under way in another one.
            TypeError: ``fn`` cannot be called, or ``semaphore`` cannot be entered.
            ValueError: ``retries`` or ``retry_delay`` is not such a number.
        """
        if self._pool.is_shut_down:
            raise ExecutorShutdownError("submit(): the executor was shut down")
        retries = _check_call(fn, retries, retry_delay)
        if semaphore is not None and not isinstance(semaphore, AbstractAsyncContextManager):
            raise refusal(TypeError, "semaphore", semaphore, "must be a semaphore or None")
        pool, delay = self._pool, float(retry_delay)
        pool.enter()
        return pool.submit(Submission(pool.number(), fn, args, kwargs, semaphore, retries, delay))

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

    @explained
    async def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> list[Any]:
        """Call ``fn`` with the first item of each iterable, the second of each, and so on.

        The first call that fails ends the map: its exception is raised once the other calls have
        been cancelled and have ended.

        Cancellation: cancels all calls, and waits until they have ended.

        Args:
            fn: As in `submit`; so are ``retries`` and ``retry_delay``.
            *iterables: As many as ``fn`` has parameters; the map ends with the shortest. At most
                two calls per worker are begun at a time, and items are taken only when needed.
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
        retries = _check_call(fn, retries, retry_delay)
        _check_iterables(iterables)
        seconds = seconds_of(timeout)
        request = (self._pool, fn, iterables, retries, float(retry_delay))
        calls = AllCalls(*request) if seconds is None else CallsAhead(seconds, True, *request)
        self._mapped.add(calls)
        del fn, iterables, request  # a raised error keeps this frame
        if isinstance(calls, CallsAhead):
            async with Iteration(calls) as results:
                return [result async for result in results]
        try:
            return await calls.results()
        finally:
            calls.leave()
            await calls.left()

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

    @explained
    def map_iter(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.1,
    ) -> Iteration[Any]:
        """Call ``fn`` as `map` does and yield the results, in the order of the input.

        The calls see the context variables of the code that asks for the first result.

        At most two calls per worker are begun but not yet yielded, so the iterables may be endless,
        and a slow loop over the results slows down the calls. An exception is raised in place of
        its result; that ends the iteration.

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
        retries = _check_call(fn, retries, retry_delay)
        _check_iterables(iterables)
        seconds = seconds_of(timeout)
        request = (self._pool, fn, iterables, retries, float(retry_delay))
        calls = CallsAhead(seconds, False, *request)
        self._mapped.add(calls)
        return Iteration(calls)

    def as_completed(
        self, futures: Iterable[AsyncFuture[R]], timeout: float | None = None
    ) -> Iteration[AsyncFuture[R]]:
        """Yield each future as it is done, even if it failed; those already done come first.

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
            The futures that are done, and the others.

        Raises:
            TimeoutError: All were waited for, and not all were done in time. With the other two
                strategies, the sets at that moment are returned.
            TypeError: One is not an `AsyncFuture`.
            ValueError: ``return_when`` is not a `WaitStrategy`.
        """
        return await wait(futures, timeout, return_when)

    async def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Accept no more calls. May be called twice.

        Cancellation: ends the wait; the calls go on.

        Args:
            wait: Wait until all submitted calls have ended. ``False``: return at once; the calls go
                on, even those that wait for a worker.
            cancel_futures: Cancel the calls that have not begun; their futures raise
                `ExecutorShutdownError`. Running calls go on.
        """
        check_flag(TypeError, "wait", wait)
        check_flag(TypeError, "cancel_futures", cancel_futures)
        pool = self._pool
        pool.is_shut_down = True
        if pool.is_left_behind:
            pool.end_threads()
            return  # nothing of it goes on
        for mapped in [*self._mapped]:
            mapped.cut(0 if cancel_futures else pool.workers)
        if cancel_futures:
            pool.cancel_waiting()
        pool.end_threads()
        # A call that shuts down its own executor does not wait for itself.
        while wait and pool.tasks - {asyncio.current_task()}:
            await until_ended(pool.tasks)

    async def _abandon_all(self, why: str) -> None:
        for mapped in [*self._mapped]:
            mapped.break_off(ExecutorShutdownError(why))
        self._pool.cancel_all(why)
        await until_ended(self._pool.tasks, outlasts_first=True)


def _check_call(fn: object, retries: object, retry_delay: object) -> int:
    """Refuse what is not allowed; return the number of retries."""
    if not callable(fn):
        raise refusal(TypeError, "fn", fn, "must be a function; its arguments come after it")
    check_seconds(ValueError, "retry_delay", retry_delay)
    return check_count(ValueError, "retries", retries, 0, "must be a whole number >= 0")


def _check_iterables(iterables: Sequence[object]) -> None:
    """Refuse what gives no arguments one by one."""
    for index, each in enumerate(iterables):
        if not is_a(each, Iterable) and not hasattr(type(each), "__getitem__"):
            allowed = "must be an iterable: fn is called once for each of its values"
            raise refusal(TypeError, f"iterables[{index}]", each, allowed)
