"""Time limits whose errors say which limit ran out.

Most work with a time limit ends long before its time is over, and some of it without suspending:
then no timer could ring. So the first step is taken here, without a timer, and only work that
suspends is watched. All watched work shares one timer, which is set for the earliest deadline known
at the time. When it rings, that work has usually ended, and the timer is set again. While no work
is watched there is no timer.
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
"""No timer is set for fewer seconds: they may come from rounding, and it would ring at once."""


class TimeLimit:
    """Time limits of one kind.

    Seconds for which a source of items holds the event loop do not count: all times are read from
    the clock `LoopTimers.unheld`.

    Args:
        timers: The run's timers.
        message: The text of the `TimeoutError`.
        seconds: How long a call may take if it is not given a deadline.
    """

    def __init__(self, timers: LoopTimers, message: str, seconds: float = 0.0) -> None:
        self._timers = timers
        self._message = message
        self._seconds = seconds
        self._watched: dict[_Rest, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> Awaitable[T]:
        """Call an async function, with the time limit counted from now.

        Raises:
            TimeoutError: When time ran out.
        """
        return self._until(self._timers.unheld() + self._seconds, function, *args)

    def call_until(
        self, deadline: float, function: Callable[..., Awaitable[T]], *args: Any
    ) -> Awaitable[T]:
        """Call an async function, which must end by the deadline.

        Raises:
            TimeoutError: When time ran out. If it has run out already, the function is not called.
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
        """Note that the work has ended; return whether its time had run out."""
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

    When its time is over, it is cancelled as the body of `asyncio.timeout` is.
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
        """Cancel it: its time is over."""
        self.is_late = True
        self._task.cancel()

    def ended_late(self, error: BaseException | None) -> bool:
        """Take back the request to cancel it; return whether it ended because of that."""
        requests = self._task.uncancel()
        if not is_a(error, asyncio.CancelledError):
            return is_a(error, TimeoutError)
        # If a client library has left a request of its own, the number of requests does not tell.
        is_called_off = has_called_off_caller.get()
        return requests <= self._requests or (is_called_off is not None and not is_called_off())


async def _awaited(work: Awaitable[T]) -> T:
    return await work
