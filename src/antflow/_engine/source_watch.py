"""The watch over a run's sources: each step of one is a step in which nothing else can go on.

For how long a source holds the event loop is added up (`antflow._core.held_time`), so that no time
limit blames it on what had to wait. A long step is told of once.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from threading import Lock
from types import AsyncGeneratorType, CodeType, FrameType, GeneratorType
from typing import Any, TypeVar

from antflow._core.foreign import is_a
from antflow._core.log import warn
from antflow._core.text import clean
from antflow._engine.clock import LoopTimers
from antflow._engine.whereabouts import Place

T = TypeVar("T")

LONG_STEP = 0.1
"""Seconds from which on a step of a source is told of."""


class SourceWatch:
    """For how long the sources of one run hold its event loop.

    Args:
        timers: The run's time.
        tells: Whether a long step is told of.

    Attributes:
        asked: The source that holds the loop just now, as it was fed; else ``None``.
    """

    def __init__(self, timers: LoopTimers, *, tells: bool) -> None:
        self.asked: Any = None
        self._now = timers.now
        self._held = timers.held
        self._tells = tells
        self._told = Lock()  # taken for good by the first to tell, here or in the watchdog's thread

    def step(self, source: Any, function: Callable[..., T], *args: Any) -> T:
        """Call a function of a source's, and note for how long it holds the loop.

        Args:
            source: The source, as it was fed.
            function: What to call.
            args: With what.
        """
        self.asked = source
        began = self._now()
        try:
            return function(*args)
        finally:
            seconds = self._now() - began
            self.asked = None
            self._held.seconds += seconds
            if seconds >= LONG_STEP and self._tells and self.is_first_to_tell():
                warn(
                    "the source %s blocked the event loop for %.2f s in one step; nothing else "
                    "could go on meanwhile: %s",
                    name_of(source) + _where(source),
                    seconds,
                    what_helps(source),
                )

    def is_first_to_tell(self) -> bool:
        """Whether a long step of the run's sources is still to be told of; true once."""
        return self._told.acquire(blocking=False)


class AsyncSource:
    """Takes items from any async iterable, each step noted: ``await source`` is the next one.

    Args:
        items: The async iterable. Its iterator is made at once.
        watch: Notes the steps.

    Attributes:
        iterator: Its iterator.

    Raises:
        StopAsyncIteration: By ``await``: there are no more.
    """

    __slots__ = ("_coroutine", "_items", "_watch", "iterator")

    def __init__(self, items: AsyncIterable[Any], watch: SourceWatch) -> None:
        self._items = items
        self._watch = watch
        self.iterator: AsyncIterator[Any] = watch.step(items, _iterator_of, items)
        self._coroutine: Any = None

    def __await__(self) -> Any:
        # One object for all items, which is its own iterator as well: that is a third of the cost.
        self._coroutine = _next_of(self.iterator)
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._watch.step(self._items, self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        return self._watch.step(self._items, self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._watch.step(self._items, self._coroutine.throw, *error)

    def close(self) -> None:
        self._watch.step(self._items, self._coroutine.close)

    # For those who ask where a task waits, as of a coroutine.

    @property
    def cr_frame(self) -> Any:
        return self._coroutine.cr_frame

    @property
    def cr_await(self) -> Any:
        return self._coroutine.cr_await


def _iterator_of(source: AsyncIterable[Any]) -> AsyncIterator[Any]:
    return aiter(source)


async def _next_of(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


def name_of(source: Any) -> str:
    """What to call a source: its function, for a generator, else its type."""
    code = _code(source)
    name = type(source).__qualname__ if code is None else code.co_qualname
    return clean(name.rpartition("<locals>.")[2])


def what_helps(source: Any) -> str:
    """What to do about a source that blocks."""
    if is_a(source, AsyncIterable):
        return "use an async call in it, or asyncio.to_thread(…)"
    return "wrap it in antflow.in_thread(…)"


def _where(source: Any) -> str:
    """Where a generator stands after a long step: at its ``yield``, the innermost one."""
    code = _code(source)
    if code is None:
        return ""
    while is_a(inner := getattr(source, "gi_yieldfrom", None), GeneratorType):
        source, code = inner, inner.gi_code
    frame: FrameType | None = getattr(source, "gi_frame", None) or getattr(source, "ag_frame", None)
    line = code.co_firstlineno if frame is None else frame.f_lineno
    function = code.co_qualname.rpartition("<locals>.")[2]
    return f" (at {clean(Place(code.co_filename, line, function).location)})"


def _code(source: Any) -> CodeType | None:
    if is_a(source, GeneratorType):
        return source.gi_code
    return source.ag_code if is_a(source, AsyncGeneratorType) else None
