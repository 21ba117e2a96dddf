"""Futures of calls, and ways to wait for several of them.

The state of a future changes in one place, `AsyncFuture._complete`, which then tells the watchers.
Watchers are internal: they only note or wake something, and must not raise. Names with an
underscore are for the executor.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import aclosing
from contextvars import copy_context
from enum import Enum
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from antflow._core.brief import Brief
from antflow._core.checks import check_callback, check_choice, refusal
from antflow._core.foreign import is_a, number, traceback_of, with_traceback
from antflow._core.log import warn
from antflow._core.tracebacks import outlined, trimmed
from antflow._core.value_or_error import ValueOrError
from antflow._engine.channel import Channel
from antflow._engine.iteration import END, NOTHING, Iteration

R = TypeVar("R")


class WaitStrategy(Enum):
    """When `AsyncExecutor.wait` returns.

    Attributes:
        FIRST_COMPLETED: When any is done, even if it failed.
        FIRST_EXCEPTION: When any has failed (being cancelled does not count), or all are done.
        ALL_COMPLETED: When all are done.
    """

    FIRST_COMPLETED = "FIRST_COMPLETED"
    FIRST_EXCEPTION = "FIRST_EXCEPTION"
    ALL_COMPLETED = "ALL_COMPLETED"


class AsyncFuture(Brief, Generic[R]):
    """The future result of a call. Made by `AsyncExecutor.submit`.

    ``await future`` is ``await future.result()``. Any number of tasks may wait, at any time.

    Cancellation: cancelling a task that waits here ends its wait. The call goes on; `cancel` ends
        it.

    Args:
        sequence_id: Number of the call in its executor, from 0.

    Attributes:
        sequence_id: The same number.
    """

    def __init__(self, sequence_id: int) -> None:
        self.sequence_id = sequence_id
        self._is_done = False
        self._is_cancelled = False
        self._result: R | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._watchers: dict[Callable[[AsyncFuture[R]], object], None] = {}
        self._task: asyncio.Task[ValueOrError] | None = None

    def __await__(self) -> Generator[Any, None, R]:
        return self.result().__await__()

    def _said(self) -> str:
        state = (
            "pending" if not self._is_done else "failed" if self._error is not None else "completed"
        )
        return f" {self.sequence_id}: {'cancelled' if self._is_cancelled else state}"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the call's return value.

        Args:
            timeout: The longest to wait, in seconds; ``None`` = any time.

        Raises:
            TimeoutError: It was not done in time. The call goes on, and may be waited for again.
            BaseException: What the call raised. After `cancel`, `asyncio.CancelledError`; if the
                executor cancelled the call in its shutdown, `ExecutorShutdownError`.
        """
        seconds = seconds_of(timeout)
        if not self._is_done:
            try:
                async with asyncio.timeout(seconds):
                    await self._wait()
            except TimeoutError:
                if not self._is_done:  # else it was done just as time was up
                    raise
        return self._outcome()

    def done(self) -> bool:
        """Whether it has a result, has failed or was cancelled."""
        return self._is_done

    def exception(self) -> BaseException | None:
        """The error `result` would raise; ``None`` if it succeeded or is not done yet."""
        return self._error

    def cancelled(self) -> bool:
        """Whether it was cancelled: by `cancel`, by a shutdown, or by the function itself."""
        return self._is_cancelled

    def cancel(self) -> bool:
        """Stop the call, or prevent it from starting. The future is done at once.

        A coroutine gets `asyncio.CancelledError` and keeps its worker until it has ended. A plain
        function cannot be stopped: it goes on in its thread, keeps its worker until it ends, and
        its result is dropped.

        Returns:
            ``False`` if the future was already done.
        """
        return self._cancel(asyncio.CancelledError())

    def set_result(self, result: R) -> None:
        """Complete a future that belongs to no executor.

        Raises:
            asyncio.InvalidStateError: It is done.
        """
        self._complete(result, None)

    def set_exception(self, exception: BaseException) -> None:
        """Fail a future that belongs to no executor.

        Raises:
            asyncio.InvalidStateError: It is done already.
            TypeError: ``exception`` is not an exception.
        """
        if not isinstance(exception, BaseException):
            allowed = "must be an exception (an instance of a class of exceptions)"
            raise refusal(TypeError, "exception", exception, allowed)
        self._complete(None, exception)

    def add_done_callback(self, fn: Callable[[AsyncFuture[R]], object]) -> None:
        """Call ``fn(future)`` as soon as the future is done; at once if it already is.

        ``fn`` runs in the current context. If it raises, the error is logged and changes nothing.

        Args:
            fn: A plain function. It should be quick: the event loop waits for it.

        Raises:
            TypeError: ``fn`` is not such a function.
        """
        if not callable(fn) or inspect.iscoroutinefunction(fn):
            raise refusal(TypeError, "fn", fn, "must be a plain function of the future")
        check_callback(TypeError, "fn", fn, "future")
        context = copy_context()
        self._watch(lambda future: context.run(_call_back, fn, future))

    def _watch(self, watcher: Callable[[AsyncFuture[R]], object]) -> None:
        if self._is_done:
            watcher(self)
        else:
            self._watchers[watcher] = None

    def _unwatch(self, watcher: Callable[[AsyncFuture[R]], object]) -> None:
        self._watchers.pop(watcher, None)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()

        def wake(_: AsyncFuture[R]) -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._watch(wake)
        try:
            await waiter
        finally:
            self._unwatch(wake)

    def _outcome(self) -> R:
        if self._error is not None:
            # Each caller raises it again; its traceback would grow each time.
            raise with_traceback(self._error, self._traceback)
        return cast("R", self._result)

    def _cancel(self, error: BaseException) -> bool:
        if self._is_done:
            return False
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()
        self._complete(None, error)
        return True

    def _complete(self, result: R | None, error: BaseException | None) -> None:
        if self._is_done:
            raise asyncio.InvalidStateError(f"{self!r} is already done")
        self._is_done = True
        self._result = result
        self._error = error
        if error is not None:
            # Another call may raise the same error, with other variables in its traceback.
            self._traceback = outlined(traceback_of(error))
            self._is_cancelled |= is_a(error, asyncio.CancelledError)
        watchers, self._watchers = self._watchers, {}
        for watcher in watchers:
            watcher(self)


def _call_back(fn: Callable[[AsyncFuture[R]], object], future: AsyncFuture[R]) -> None:
    try:
        fn(future)
    except Exception as error:
        warn("a done callback of an AsyncFuture raised", error=error)
        trimmed(error)


def as_completed(
    futures: Iterable[AsyncFuture[R]], timeout: float | None
) -> Iteration[AsyncFuture[R]]:
    """See `AsyncExecutor.as_completed`."""
    return Iteration(_AsCompleted(_unique(futures), seconds_of(timeout)))


class _AsCompleted(Generic[R]):
    """Futures in the order in which they are done. See `Steps`."""

    _ended: Channel[AsyncFuture[R]]

    def __init__(self, wanted: Collection[AsyncFuture[R]], seconds: float | None) -> None:
        self._wanted = wanted
        self._seconds = seconds
        self._deadline: float | None = None
        self._left = len(wanted)

    def begin(self) -> None:
        if self._seconds is not None:
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        self._ended = Channel(None)
        for future in self._wanted:
            future._watch(self._ended.put)

    def take(self) -> Any:
        if not self._left:
            return END
        if (future := self._ended.take()) is None:
            return NOTHING
        self._left -= 1
        return future

    async def wait(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._ended.wait()
        except TimeoutError:
            if not len(self._ended):  # else one was done just as time was up
                raise

    def leave(self) -> None:
        for future in self._wanted:
            future._unwatch(self._ended.put)
        self._wanted = ()
        self._ended.close()
        while self._ended.take() is not None:
            pass

    async def left(self) -> None:
        pass


async def wait(
    futures: Iterable[AsyncFuture[R]], timeout: float | None, return_when: WaitStrategy | str
) -> tuple[set[AsyncFuture[R]], set[AsyncFuture[R]]]:
    """See `AsyncExecutor.wait`."""
    strategy = _strategy(return_when)
    wanted = _unique(futures)
    try:
        async with aclosing(as_completed(wanted, timeout)) as ended:
            async for future in ended:
                failed = future.exception() is not None and not future.cancelled()
                if strategy is WaitStrategy.FIRST_COMPLETED:
                    break
                if strategy is WaitStrategy.FIRST_EXCEPTION and failed:
                    break
    except TimeoutError:
        if strategy is WaitStrategy.ALL_COMPLETED:
            raise
    done = {future for future in wanted if future.done()}
    return done, wanted.keys() - done


def seconds_of(timeout: object) -> float | None:
    """The seconds of a ``timeout`` option; ``None`` = any time.

    A negative number is allowed, and means that time is up: it may be what is left of another
    limit.

    Raises:
        ValueError: It is neither a number nor ``None``.
    """
    if timeout is None:
        return None
    seconds = number(timeout)
    if seconds is None or math.isnan(seconds):
        raise refusal(ValueError, "timeout", timeout, "must be a number of seconds, or None")
    return seconds


def _strategy(return_when: WaitStrategy | str) -> WaitStrategy:
    if isinstance(return_when, WaitStrategy):
        return return_when
    names = tuple(strategy.value for strategy in WaitStrategy)
    check_choice(ValueError, "return_when", return_when, names, ", or a WaitStrategy")
    return WaitStrategy(return_when)


def _unique(futures: Iterable[AsyncFuture[R]]) -> dict[AsyncFuture[R], None]:
    allowed = "must be futures of an AsyncExecutor"
    if not isinstance(futures, Iterable):
        raise refusal(TypeError, "futures", futures, f"{allowed}, in a list")
    wanted: dict[AsyncFuture[R], None] = {}
    for future in futures:
        if not isinstance(future, AsyncFuture):
            raise refusal(TypeError, "futures", future, allowed)
        wanted[future] = None
    return wanted
