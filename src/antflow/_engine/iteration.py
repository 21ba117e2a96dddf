"""An async iterator that goes on after its ``anext`` was cancelled.

An async generator does not: a cancellation is raised where it waits, and ends it for good. So a
heartbeat like ``asyncio.wait_for(anext(results), 1.0)`` would silently end the loop around it.
Here, waiting and taking are separate. `Steps.wait` only waits until there may be a value, with
nothing in hand; `Steps.take` never waits, and the value it takes is returned in the same step. So
whenever a cancellation comes, each value has been returned or can still be taken.

The work behind an iteration belongs to its `Steps` and never refers to the `Iteration`. So the
garbage collector notices that nothing reads it any more, and `Iteration.__del__` makes the event
loop stop that work. Python's async generators get this from the event loop's hooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, Self, TypeVar

from antflow._core.brief import Brief

T_co = TypeVar("T_co", covariant=True)

NOTHING: Final[Any] = object()
"""There is no value yet."""

END: Final[Any] = object()
"""There are no more values."""


class Steps(Protocol[T_co]):
    """The source of an `Iteration`'s values; all methods are called in one event loop."""

    def begin(self) -> None:
        """Start. Called once, when the first value is asked for."""

    def take(self) -> T_co:
        """Take the next value; `NOTHING` if there is none yet, `END` if there are no more.

        Raises:
            BaseException: It has failed; nothing more is taken.
        """
        ...

    async def wait(self) -> None:
        """Wait until `take` may have a value, or `leave` is called.

        Raises:
            Exception: No value will come; nothing more is taken.
        """

    def leave(self) -> None:
        """Stop the work under way, and wake all that wait. May be called twice."""

    async def left(self) -> None:
        """After `leave`: wait until nothing is under way."""


class Iteration(Brief, AsyncIterator[T_co]):
    """Values that come one by one: loop over them, and close it.

    ``anext`` may be cancelled, for example by ``asyncio.wait_for`` or ``asyncio.timeout``, and
    called again: no value is lost. Several tasks may call it at the same time: each value goes to
    one of them. After the end, ``anext`` raises `StopAsyncIteration` every time; an error that
    ended the iteration comes out once, before that.

    It begins with the first ``anext``, or with ``async with``. Leaving it early stops the work
    under way: at once with ``async with``, ``contextlib.aclosing`` or `aclose`, otherwise soon
    after the last reference to it is gone.

    It belongs to the event loop it began in, and raises `RuntimeError` in any other.

    Args:
        steps: Where the values come from.
    """

    def __init__(self, steps: Steps[T_co]) -> None:
        self._steps = steps
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = False
        self._error: BaseException | None = None

    def _said(self) -> str:
        return ": over" if self._is_over else ": not begun" if self._loop is None else ": under way"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._loop is not asyncio.get_running_loop():
            self._begin()
        steps = self._steps
        while not self._is_over:
            try:
                value = steps.take()
            except BaseException as error:  # why: raised below, when all has ended
                self._end(error)
                break
            if value is END:
                self._end(None)
            elif value is not NOTHING:
                return value
            else:
                try:
                    await steps.wait()
                except Exception as error:
                    self._end(error)
        if self._loop is not None:
            await steps.left()
        ending, self._error = self._error, None
        raise StopAsyncIteration if ending is None else ending

    async def aclose(self) -> None:
        """Stop the work under way, and wait until it has ended. May be called twice.

        An ``anext`` that is waiting raises `StopAsyncIteration`.

        Cancellation: the work is stopped all the same, and waited for if it could leave something
        behind.
        """
        is_under_way = self._loop is not None and not self._loop.is_closed()
        if is_under_way:
            self._check_loop()
        self._is_over = True
        self._error = None
        if is_under_way:
            self._steps.leave()
            await self._steps.left()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and not self._is_over:
            # The garbage collector may run in any thread, in the middle of anything.
            with suppress(RuntimeError):  # the event loop is closed, and all in it is gone
                self._loop.call_soon_threadsafe(self._steps.leave)

    def __getitem__(self, _: object) -> NoReturn:
        # What a plain `for` falls back to. `__iter__` would make it an `Iterable`.
        raise TypeError("write `async for`, not `for`; the values come one by one")

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"this {name} cannot be copied or pickled: each value comes out once")

    def _begin(self) -> None:
        if self._loop is not None:
            self._check_loop()
        elif not self._is_over:
            try:
                self._steps.begin()
            except BaseException:
                self._is_over = True
                raise
            self._loop = asyncio.get_running_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"this {type(self).__name__} belongs to another event loop")

    def _end(self, error: BaseException | None) -> None:
        self._is_over = True
        self._error = error
        if isinstance(error, StopAsyncIteration):  # it would end a loop as if all had gone well
            self._error = RuntimeError(f"{type(self).__name__}: StopAsyncIteration was raised")
            self._error.__cause__ = error
        self._steps.leave()
