"""Calls the user's callbacks, which see everything and change nothing.

A callback is called in line and, if it returns an awaitable, awaited in line: at once, and in order
per item. Its first error is logged, and all are counted. A callback that hangs is cancelled after a
time limit, and counted.

Most callbacks' coroutines end without suspending. So the first step is taken without a time limit,
and only a coroutine that has not ended then gets one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any

from antflow._core.cancellation import (
    absorb_requests,
    awaited_failure,
    cancel_requests,
    is_called_off,
    is_failure,
)
from antflow._core.foreign import is_awaitable
from antflow._core.held_time import Alarm
from antflow._core.log import warn
from antflow._core.ports import Caller
from antflow._core.text import clean
from antflow._core.tracebacks import trimmed
from antflow._core.waits import Wait, discard

THROUGH: Any = object()


class CallbackGuard:
    """Calls callbacks so that they cannot influence the run.

    Args:
        timeout: Seconds that an awaitable may take. Time in which a source holds the event loop
            does not count.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.errors = 0
        self._logged: set[str] = set()

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Wait:
        """Call ``function(*args)``; see `antflow._core.ports.Guard.call`."""
        before = cancel_requests()
        answer = None
        try:
            answer = function(*args)
            if answer is not None and not is_awaitable(answer):
                answer = None
        except BaseException as error:  # why: `contain` raises what ends the program
            self.contain(name, error)
            answer = None
        if answer is None and cancel_requests() <= before:
            return None
        return _Told(self, name, answer, before)

    def caller(self, name: str, function: Callable[[Any], Any]) -> Caller:
        """`call`, for a function that is called often; see `antflow._core.ports.Guard.caller`."""

        def call(event: Any, requests: Callable[[], int]) -> Wait:
            if requests():
                return self.call(name, function, event)  # a request must not hit the first step
            try:
                answer = function(event)
            except BaseException as error:  # why: `contain` raises what ends the program
                self.contain(name, error)
                answer = None
            if type(answer) is CoroutineType:
                steps = answer.__await__()
                try:
                    awaited = next(steps, THROUGH)  # with a default: a StopIteration costs 60 ns
                except BaseException as error:  # why: `finish` finds out whose it is
                    return _Told(self, name, _raised(error), 0)
                answer = None if awaited is THROUGH else _Begun(steps, awaited)
            elif answer is not None and not is_awaitable(answer):
                answer = None
            if answer is None and not requests():
                return None
            return _Told(self, name, answer, 0)

        return call

    async def finish(self, name: str, answer: Awaitable[Any] | None, before: int) -> None:
        """Await what a callback returned, and take back the cancel requests that it leaves.

        Cancellation: passed on to the callback; it is the run that cancels the worker that waits
            here.
        """
        if before and not is_called_off():
            await absorb_requests()  # left by the code before: they must not hit the callback
            before = 0
            if is_called_off():
                discard(answer)
                raise asyncio.CancelledError
        work = None if answer is None else self._in_time(answer)
        if (error := await awaited_failure(work, before)) is not None:
            self.contain(name, error)

    async def _in_time(self, answer: Awaitable[Any]) -> None:
        if type(answer) is CoroutineType:
            steps = answer.__await__()
            if (awaited := next(steps, THROUGH)) is THROUGH:
                return
            answer = _Begun(steps, awaited)
        async with asyncio.timeout(None) as limit:
            with Alarm(limit, self.timeout, asyncio.get_running_loop()):
                await answer

    def contain(self, name: str, error: BaseException) -> None:
        """Log the first failure of ``name``; count all. See `antflow._core.ports.Guard.contain`."""
        if not is_failure(error):
            raise error
        self.errors += 1
        if name not in self._logged:
            self._logged.add(name)
            warn(
                "%s failed; it is still called, and further failures are only counted",
                clean(name),
                error=error,
            )
        trimmed(error)  # one object may be raised for every event, or be an item's error


class _Told:
    """The rest of a callback: to be awaited, or closed if nothing will await it."""

    __slots__ = ("_answer", "_before", "_guard", "_name")

    def __init__(
        self, guard: CallbackGuard, name: str, answer: Awaitable[Any] | None, before: int
    ) -> None:
        self._guard = guard
        self._name = name
        self._answer = answer
        self._before = before

    def __await__(self) -> Generator[Any, Any, None]:
        return self._guard.finish(self._name, self._answer, self._before).__await__()

    def close(self) -> None:
        discard(self._answer)


class _Begun(Generator[Any, Any, None]):
    """A coroutine that has taken its first step; awaiting it runs the rest."""

    __slots__ = ("_awaited", "_steps")

    def __init__(self, steps: Generator[Any, Any, None], awaited: Any) -> None:
        self._steps = steps
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def send(self, value: Any, /) -> Any:
        awaited, self._awaited = self._awaited, THROUGH
        return self._steps.send(value) if awaited is THROUGH else awaited

    def throw(self, *error: Any) -> Any:
        self._awaited = THROUGH
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()


async def _raised(error: BaseException) -> None:
    raise error
