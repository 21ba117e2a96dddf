"""An async iterator that can be asked again after its ``anext`` was cancelled.

An async generator cannot: a cancellation is raised where it waits, and ends it for good. So a
heartbeat like ``asyncio.wait_for(anext(results), 1.0)`` would silently end the loop around it.
Here, to wait and to take are two things. `Steps.wait` only waits until there may be something and
has nothing in hand; `Steps.take` never waits, and what it takes is returned in the same step.
Whatever is cancelled and when, a value has been returned or is still to be had.

What an iteration has under way belongs to its `Steps` and never refers to the `Iteration`. So the
garbage collector notices that nothing reads it any more, and `Iteration.__del__` has the event loop
stop it: what Python's async generators get from the event loop's hooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)

NOTHING: Final[Any] = object()
"""There is no value yet."""

END: Final[Any] = object()
"""There are no more values."""


class Steps(Protocol[T_co]):
    """What an `Iteration` steps through; all methods are called in one event loop."""

    def begin(self) -> None:
        """Start. Called once, when the first value is asked for."""

    def take(self) -> T_co:
        """The next value, or `NOTHING` if it is not there yet, or `END`.

        Raises:
            BaseException: It has failed; nothing more is taken.
        """
        ...

    async def wait(self) -> None:
        """Wait until `take` may have something, or `leave` was called.

        Raises:
            Exception: It is not going to; nothing more is taken.
        """

    def leave(self) -> None:
        """Stop what is under way, and wake all that wait. May be called twice."""

    async def left(self) -> None:
        """Wait until nothing is under way, after `leave`."""


class Iteration(AsyncIterator[T_co]):
    """Values that come one by one: to loop over, and to close.

    ``anext`` may be cancelled, by ``asyncio.wait_for`` or ``asyncio.timeout`` for example, and
    asked again: no value is lost. Several tasks may ask at the same time: each value goes to one of
    them. Once it has ended, ``anext`` raises `StopAsyncIteration` for ever; an error that ended it
    comes out once, before that.

    It begins with the first ``anext``, or with ``async with``. Leaving it early stops what is still
    under way: at once with ``async with``, ``contextlib.aclosing`` or `aclose`, else soon after the
    last reference to it is gone.

    It belongs to the event loop it began in: asked in another one it raises `RuntimeError`.

    Args:
        steps: Where the values come from.
    """

    def __init__(self, steps: Steps[T_co]) -> None:
        self._steps = steps
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = False
        self._error: BaseException | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
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
        """Stop what is under way, and wait until it has ended. May be called twice.

        An ``anext`` that waits meanwhile raises `StopAsyncIteration`.

        Cancellation: It is stopped all the same, and waited for where something could be left
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
            # The garbage collector may come in any thread, and in the middle of anything.
            with suppress(RuntimeError):  # the event loop is closed, and all in it is gone
                self._loop.call_soon_threadsafe(self._steps.leave)

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
