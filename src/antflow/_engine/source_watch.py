"""Watches a run's sources, because nothing else can run during a step of one.

The time for which sources hold the event loop is added up (`antflow._core.held_time`), so that no
time limit counts it against the tasks that had to wait. A long step is logged once per run.
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
from antflow._engine.loop_health.whereabouts import Place

T = TypeVar("T")

LONG_STEP = 0.1
"""A step of a source that takes this many seconds or more is logged."""


class NeverBlocks:
    """A source whose steps only wait: if the loop is held during one, something else holds it."""


class SourceWatch:
    """Measures how long the sources of one run hold its event loop.

    Args:
        timers: The run's clock.
        tells: Whether to log a long step.

    Attributes:
        asked: The source that is taking a step right now, as it was fed; otherwise ``None``.
    """

    def __init__(self, timers: LoopTimers, *, tells: bool) -> None:
        self.asked: Any = None
        self._now = timers.now
        self._held = timers.held
        self._tells = tells
        self._told = Lock()  # for good, by the first to log: this thread or the watchdog's

    def step(self, source: Any, function: Callable[..., T], *args: Any) -> T:
        """Call a function of a source, and note how long it holds the loop.

        Args:
            source: The source, as it was fed.
            function: The function.
            args: Its arguments.
        """
        if is_a(source, NeverBlocks):
            return function(*args)
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
        """Whether no long step of the run's sources has been logged yet; true only once."""
        return self._told.acquire(blocking=False)


class AsyncSource:
    """Takes items from any async iterable, measuring each step: ``await source`` is the next item.

    Args:
        items: The async iterable. Its iterator is made at once.
        watch: Measures the steps.

    Attributes:
        iterator: Its iterator.

    Raises:
        StopAsyncIteration: From ``await``, when there are no more items.
    """

    __slots__ = ("_coroutine", "_items", "_watch", "iterator")

    def __init__(self, items: AsyncIterable[Any], watch: SourceWatch) -> None:
        self._items = items
        self._watch = watch
        self.iterator: AsyncIterator[Any] = watch.step(items, _iterator_of, items)
        self._coroutine: Any = None

    def __await__(self) -> Any:
        # One object for all items, and its own iterator: that cuts the cost to a third.
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

    # Tools that show where a task waits read these, as on a coroutine.

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
    """The name of a source: of its function for a generator, otherwise of its type."""
    code = _code(source)
    name = type(source).__qualname__ if code is None else code.co_qualname
    return clean(name.rpartition("<locals>.")[2])


def what_helps(source: Any) -> str:
    """The advice about a source that blocks."""
    if is_a(source, AsyncIterable):
        return "use an async call in it, or asyncio.to_thread(…)"
    return "wrap it in antflow.in_thread(…)"


def _where(source: Any) -> str:
    """The place of a generator after a long step: its innermost ``yield``."""
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
