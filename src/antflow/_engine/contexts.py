"""What is around the user's code: async context managers, and context variables."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context
from functools import partial, wraps
from types import TracebackType, coroutine
from typing import Any, ParamSpec, TypeVar

from antflow._core.foreign import with_traceback

P = ParamSpec("P")
T = TypeVar("T")


def around(function: Callable[P, AsyncGenerator[None, None]]) -> Callable[P, Around]:
    """`contextlib.asynccontextmanager`, for what yields nothing and swallows nothing.

    That one sets attributes of the exception that passes through. A frozen dataclass refuses that,
    and then another exception comes out.
    """

    @wraps(function)
    def enclose(*args: P.args, **kwargs: P.kwargs) -> Around:
        return Around(function(*args, **kwargs))

    return enclose


class Around:
    """An async generator that yields once, as a context manager; see `around`."""

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
            # No generator can let StopAsyncIteration out: it becomes the cause of another error.
            if raised is not error and raised.__cause__ is not error:
                raise
            with_traceback(error, traceback)  # without the steps that it passed through


@coroutine
def in_context(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await ``work`` in the running `asyncio.Task`, but with context variables of its own.

    Nothing that it binds is seen outside, which costs less than a task for it.
    """
    step = partial(work.send, None)
    try:
        while True:
            try:
                awaited = context.run(step)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                sent = yield awaited
            except GeneratorExit:
                raise
            except BaseException as error:  # why: it is for who waits in there
                step = partial(work.throw, error)
            else:
                step = partial(work.send, sent)
    finally:
        context.run(work.close)
