"""Time limits whose errors say which one it was.

Most of what has a time limit is through long before its time is over, and some of it at once:
while it does not suspend, no timer could ring. So the first step is made by hand, and only work
that suspends is watched. All of it shares one timer, which is set for the deadline that was the
next one at the time. When it rings that work is mostly through, and the timer is set again. While
no work is watched there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType, coroutine
from typing import Any, TypeVar

from antflow._core.cancellation import has_called_off_caller
from antflow._core.foreign import is_a
from antflow._engine.clock import LoopTimers
from antflow._engine.contexts import resumed

T = TypeVar("T")

ROUNDING = 1e-6
"""Seconds left for which no timer is set: where they come from rounding, it would ring at once."""


class TimeLimit:
    """Time limits of one kind.

    Seconds for which a source of items holds the event loop do not count: times are those of the
    clock `LoopTimers.unheld`.

    Args:
        timers: The run's.
        message: The text of the `TimeoutError`.
        seconds: How long each call may take, where it is not given a deadline.
    """

    def __init__(self, timers: LoopTimers, message: str, seconds: float = 0.0) -> None:
        self._timers = timers
        self._message = message
        self._seconds = seconds
        self._watched: dict[_Rest, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> Awaitable[T]:
        """Call an async function, which has its seconds from now on.

        Raises:
            TimeoutError: When time ran out.
        """
        return self._until(self._timers.unheld() + self._seconds, function, *args)

    def call_until(
        self, deadline: float, function: Callable[..., Awaitable[T]], *args: Any
    ) -> Awaitable[T]:
        """Call an async function, which has to be through at the deadline.

        Raises:
            TimeoutError: When time ran out; it is not called if that is so already.
        """
        if deadline <= self._timers.unheld():
            raise TimeoutError(self._message)
        return self._until(deadline, function, *args)

    # Inside

    @coroutine
    def _until(
        self, deadline: float, function: Callable[..., Awaitable[T]], *args: Any
    ) -> Generator[Any, Any, T]:
        called = function(*args)
        work = called if isinstance(called, CoroutineType) else _awaited(called)
        try:
            awaited = work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        rest = _Rest(deadline, self._timers.loop)
        self._watch(rest)
        try:
            result = yield from resumed(work, awaited)
        except BaseException as error:
            if self._is_over(rest, error):
                raise TimeoutError(self._message) from None
            raise
        self._is_over(rest, None)
        return result

    def _watch(self, rest: _Rest) -> None:
        self._watched[rest] = None
        if self._timer is None or rest.deadline < self._rings_at:
            self._set_timer(rest.deadline)

    def _is_over(self, rest: _Rest, error: BaseException | None) -> bool:
        """The work has ended; whether because its time ran out."""
        del self._watched[rest]
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return rest.is_late and rest.ended_late(error)

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = deadline - self._timers.unheld()
        self._timer = self._timers.loop.call_later(max(left, 0.0), self._ring)
        self._rings_at = deadline

    def _ring(self) -> None:
        self._timer = None
        soon = self._timers.unheld() + ROUNDING
        in_time = [rest for rest in self._watched if not rest.is_late]
        for rest in in_time:
            if rest.deadline <= soon:
                rest.cut_off()
        if later := [rest.deadline for rest in in_time if not rest.is_late]:
            self._set_timer(min(later))


class _Rest:
    """Work that has suspended, in the running `asyncio.Task`.

    It ends with it as the body of `asyncio.timeout` does.
    """

    __slots__ = ("_requests", "_task", "deadline", "is_late")

    def __init__(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._requests = task.cancelling()
        self.deadline = deadline
        self.is_late = False

    def cut_off(self) -> None:
        """Its time is over."""
        self.is_late = True
        self._task.cancel()

    def ended_late(self, error: BaseException | None) -> bool:
        """Take back the request to cancel it; whether that is what it ended with."""
        requests = self._task.uncancel()
        if not is_a(error, asyncio.CancelledError):
            return is_a(error, TimeoutError)
        # Where a client library has left its own request, their number does not tell.
        is_called_off = has_called_off_caller.get()
        return requests <= self._requests or (is_called_off is not None and not is_called_off())


async def _awaited(work: Awaitable[T]) -> T:
    return await work
