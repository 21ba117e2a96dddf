"""Context managers made from generators, and contexts, around the user's code.

The context managers of `contextlib` set attributes of the exception that passes through. A frozen
dataclass refuses that, and then another exception is raised. These raise no other, and swallow
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Context, copy_context
from functools import partial, wraps
from types import TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from antflow._core.brief import Brief
from antflow._core.foreign import attribute, cause_of, is_a, with_traceback
from antflow._core.waits import Wait, discard

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


def around(function: Callable[P, AsyncGenerator[V, None]]) -> Callable[P, Around[V]]:
    """`contextlib.asynccontextmanager`, for what lets every exception pass."""

    @wraps(function)
    def enclose(*args: P.args, **kwargs: P.kwargs) -> Around[V]:
        return Around(function(*args, **kwargs))

    return enclose


def plainly_around(
    function: Callable[P, Generator[V, None, None]],
) -> Callable[P, PlainlyAround[V]]:
    """`contextlib.contextmanager`, for what lets every exception pass."""

    @wraps(function)
    def enclose(*args: P.args, **kwargs: P.kwargs) -> PlainlyAround[V]:
        return PlainlyAround(function(*args, **kwargs))

    return enclose


class Around(Brief, AbstractAsyncContextManager[V, None], Generic[V]):
    """An async generator that yields once, as a context manager; see `around`."""

    def __init__(self, steps: AsyncGenerator[V, None]) -> None:
        self._steps = steps

    def _said(self) -> str:
        return f" of {attribute(self._steps, '__qualname__')}(): write `async with`"

    def __enter__(self) -> NoReturn:
        raise TypeError("write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...  # Python looks for it before it calls `__enter__`

    def __await__(self) -> NoReturn:
        raise TypeError("write `async with`, not `await`")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"there is no {name!r} before `async with … as …`")

    async def __aenter__(self) -> V:
        return await anext(self._steps)

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
            if not _is_it(raised, error):
                raise
            with_traceback(error, traceback)  # without the steps that it passed through


class PlainlyAround(Brief, AbstractContextManager[V, None], Generic[V]):
    """A generator that yields once, as a context manager; see `plainly_around`."""

    def __init__(self, steps: Generator[V, None, None]) -> None:
        self._steps = steps

    def _said(self) -> str:
        return f" of {attribute(self._steps, '__qualname__')}(): write `with`"

    def __enter__(self) -> V:
        return next(self._steps)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            next(self._steps, None)
            return
        try:
            self._steps.throw(error)
        except BaseException as raised:
            if not _is_it(raised, error):
                raise
            with_traceback(error, traceback)


STOPS: Any = (StopIteration, StopAsyncIteration)
"""No generator can let these out: they become the cause of another error."""


def _is_it(raised: BaseException, error: BaseException) -> bool:
    return raised is error or (is_a(error, STOPS) and cause_of(raised) is error)


@coroutine
def in_context(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await ``work`` in the running `asyncio.Task`, but with its own context variables.

    Nothing it binds is seen outside, which costs less than a task for it.
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
            except BaseException as error:  # why: it belongs to the awaiting code inside
                step = partial(work.throw, error)
            else:
                step = partial(work.send, sent)
    finally:
        context.run(work.close)


def resumed(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """The rest of ``work``, whose first step was made by hand and gave ``awaited``."""
    while True:
        try:
            yield awaited
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # why: it belongs to the awaiting code inside
            try:
                awaited = work.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
        else:
            return (yield from work.__await__())


def apart(tell: Callable[P, Wait], *args: P.args, **kwargs: P.kwargs) -> Wait:
    """Tell the listeners about an item that no worker has, in a copy of the context.

    What its callbacks bind is for that item, not for the code that takes it in or settles it.
    """
    context = copy_context()
    wait = context.run(tell, *args, **kwargs)
    return None if wait is None else _WaitApart(context, wait)


class _WaitApart:
    """The rest of a call of `apart`, to be awaited."""

    def __init__(self, context: Context, wait: Awaitable[None]) -> None:
        self._context = context
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, None]:
        return self._in_context().__await__()

    async def _in_context(self) -> None:
        await in_context(self._context, _waited(self._wait))

    def close(self) -> None:
        self._context.run(discard, self._wait)


async def _waited(wait: Awaitable[None]) -> None:
    await wait
