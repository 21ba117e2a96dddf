"""Events to the user's callbacks, which see everything and change nothing.

A callback is called in line and, if it returns an awaitable, awaited in line: at once, and in
order per item. What it raises is logged once and counted. One that hangs is cancelled after a time
limit and counted.

Most coroutines of callbacks end without suspending. So each takes its first step alone, and only
one that is not through then gets a time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any

from antflow._core.cancellation import (
    awaited_failure,
    cancel_requests,
    is_failure,
)
from antflow._core.foreign import is_awaitable
from antflow._core.held_time import Alarm
from antflow._core.log import warn
from antflow._core.text import clean
from antflow._core.tracebacks import trimmed
from antflow._core.waits import Wait, discard

THROUGH: Any = object()


class CallbackGuard:
    """Calls callbacks so that they have no power.

    Args:
        timeout: Seconds an awaitable may take; time in which a source holds the event loop does not
            count.
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

    def caller(
        self,
        name: str,
        function: Callable[[Any], Any],
        running: Callable[[], asyncio.Task[Any] | None],
    ) -> Callable[[Any], Wait]:
        """`call`, for a function with one argument that is called often.

        A coroutine takes its first step at once. What is returned then must be awaited by the same
        task, or the callback ends in the middle.

        Args:
            name: As for `call`.
            function: As for `call`.
            running: Tells which task is running.
        """

        def call(event: Any) -> Wait:
            task = running()
            if task is None or task.cancelling():
                return self.call(name, function, event)  # a request must not hit the first step
            try:
                answer = function(event)
            except BaseException as error:  # why: `contain` raises what ends the program
                self.contain(name, error)
                answer = None
            if type(answer) is CoroutineType:
                steps = answer.__await__()
                try:
                    awaited = next(steps, THROUGH)  # raises no StopIteration, which costs 60 ns
                except BaseException as error:  # why: `finish` tells whose it is
                    return _Told(self, name, _raised(error), 0)
                answer = None if awaited is THROUGH else _Begun(steps, awaited)
            elif answer is not None and not is_awaitable(answer):
                answer = None
            if answer is None and not task.cancelling():
                return None
            return _Told(self, name, answer, 0)

        return call

    async def finish(self, name: str, answer: Awaitable[Any] | None, before: int) -> None:
        """Await what a callback returned, and take back the cancel requests it leaves behind.

        Cancellation: the run cancels the worker that waits here; passed on to the callback.
        """
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
        """Log the first failure of ``name``, count all; see `antflow._core.ports.Guard.contain`."""
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
        trimmed(error)  # one object may be raised for each event, or be the error of an item


class _Told:
    """The rest of a callback: awaited, or closed if nothing is going to wait for it."""

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
    """A coroutine that has taken its first step, to be awaited to its end."""

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
