"""Async context managers around the user's code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec

from antflow._core.foreign import with_traceback

P = ParamSpec("P")


def around(function: Callable[P, AsyncGenerator[None, None]]) -> Callable[P, Around]:
    """`contextlib.asynccontextmanager` for generators that yield no value and swallow no error.

    The original sets attributes of the exception that passes through. A frozen dataclass refuses
    that, and then a different exception comes out.
    """

    @wraps(function)
    def enclose(*args: P.args, **kwargs: P.kwargs) -> Around:
        return Around(function(*args, **kwargs))

    return enclose


class Around:
    """A context manager made from an async generator that yields once; see `around`."""

    def __init__(self, steps: AsyncGenerator[None, None]) -> None:
        self._steps = steps

    async def __aenter__(self) -> None:
        await anext(self._steps)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await anext(self._steps, None)
            return
        try:
            await self._steps.athrow(error)
        except BaseException as raised:
            # A generator cannot raise StopAsyncIteration: it becomes the cause of another error.
            if raised is not error and raised.__cause__ is not error:
                raise
            with_traceback(error, traceback)  # drop the generator's own frames
