"""Takes items from the user's iterables, and measures how long each step holds the event loop.

Nothing else can run during a step of a source. So the time for which sources hold the loop is added
up (`antflow._core.held_time`), and no time limit counts it against the tasks that had to wait. A
long step is logged once per run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import islice
from threading import Lock
from types import AsyncGeneratorType, CodeType, FrameType, GeneratorType
from typing import Any, TypeVar

from antflow._core.cancellation import is_failure
from antflow._core.errors import PipelineError
from antflow._core.foreign import is_a
from antflow._core.groups import consists_of
from antflow._core.log import warn
from antflow._core.places import Place, function_name
from antflow._core.text import clean, error_type_name
from antflow._engine.clock import LoopTimers

T = TypeVar("T")

LONGEST_PULL = 0.005
"""Seconds after which one pull ends, so that a slow generator does not hold the event loop."""

LONG_STEP = 0.1
"""A step of a source that takes this many seconds or more is logged."""

CLEAN_UP_FAILED = "the source's clean-up failed"


@contextmanager
def clean_up(failed: str = CLEAN_UP_FAILED) -> Iterator[None]:
    """Log what the clean-up of an iterable raises: all of its values have been taken by then.

    A ``CancelledError`` passes: it may be meant for the caller.

    Args:
        failed: The message to log.
    """
    try:
        yield
    except (Exception, BaseExceptionGroup) as error:
        tell_clean_up_failed(error, failed)


def tell_clean_up_failed(error: BaseException, failed: str = CLEAN_UP_FAILED) -> None:
    """Log what the clean-up of an iterable raised.

    A generator that yields inside a task group hands back, in a group, the ``GeneratorExit`` that
    closed it. That is no failure.

    Args:
        error: The error.
        failed: The message to log.

    Raises:
        BaseException: The error, if it ends the program.
    """
    if not is_failure(error):
        raise error
    if not consists_of(error, GeneratorExit):
        warn(failed, error=error)


def source_failure(error: BaseException) -> PipelineError:
    """The failure to report for a source's own ``CancelledError``, alone or in a group.

    Raises:
        BaseException: The error, if it is another one, or a group that contains one that ends a
            program.
    """
    if not is_a(error, (asyncio.CancelledError, BaseExceptionGroup)) or not is_failure(error):
        raise error
    failure = PipelineError(f"the source raised {error_type_name(error)}")
    failure.__cause__ = error
    return failure


class IterableSource:
    """Takes items from any iterable, without ever holding all of them.

    Args:
        items: The iterable. Its iterator is made at once, so what cannot be iterated fails here.
        now: A monotonic clock, in seconds.
        context: The context in which the iterable always runs, and which it may change; ``None`` =
            the caller's. Needed where the caller varies: a token resets a variable only in the
            context that it was set in.
        failure_of: Makes the failure to report if the iterable raises something that is not an
            `Exception`; see `source_failure`.

    Attributes:
        items: The iterable.
        is_plain: Whether it is a list or something like it, whose steps take no time.
        left_over: Items that it gave before it raised an error that ends the program.
    """

    def __init__(
        self,
        items: Iterable[Any],
        now: Callable[[], float],
        context: Context | None = None,
        failure_of: Callable[[BaseException], Exception] = source_failure,
    ) -> None:
        self.items = items
        self._context = context
        self._iterator: Iterator[Any] = self._run(iter, items)
        self._now = now
        self._failure_of = failure_of
        self._error: Exception | None = None
        self._has_ended = False
        self.left_over: list[Any] = []
        self._is_taking = self._closes_later = False
        self.is_plain: bool = type(items) in (list, tuple, range)

    def take(self, most: int) -> list[Any]:
        """Up to ``most`` items, fewer when it takes longer than `LONGEST_PULL`; ``[]``: no more.

        Raises:
            Exception: What the iterable raised. Items it gave before that were returned by an
                earlier call.
        """
        if self.is_plain:
            return list(islice(self._iterator, most))
        self._is_taking = True
        try:
            taken: list[Any] = self._run(self._take, most)
        finally:
            self._is_taking = False
            if self._closes_later:
                with clean_up():
                    self.close()
        return taken

    @property
    def is_lent(self) -> bool:
        """Whether it is an iterator that the user made (like an open file) and not a generator."""
        return self._iterator is self.items and not is_a(self._iterator, GeneratorType)

    def close(self) -> None:
        """Close a generator, which runs its clean-up, and raise what that raises.

        A source that ends its own run in one of its steps is closed when that step is over.
        """
        self._closes_later = self._is_taking
        if self._is_taking:
            return
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._run(close)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args) if self._context is None else self._context.run(function, *args)

    def _take(self, most: int) -> list[Any]:
        if self._error is not None:
            raise self._error
        if self._has_ended:
            return []  # as in a `for` loop: a growing file would go on
        taken: list[Any] = []
        deadline = self._now() + LONGEST_PULL
        try:
            for item in self._iterator:
                taken.append(item)
                if len(taken) >= most or self._now() >= deadline:
                    break
            else:
                self._has_ended = True
        except Exception as error:
            self._error = error
        except BaseException as error:
            # The source raised it: a call that never awaits cannot be cancelled.
            try:
                self._error = self._failure_of(error)
            except BaseException:
                self.left_over = taken
                raise
        if self._error is not None and not taken:
            raise self._error
        return taken  # items before the error are taken in first


class NeverBlocks:
    """A source whose steps only wait: if the loop is held during one, something else holds it."""


class SourceWatch:
    """Measures how long the sources of one run hold its event loop.

    Args:
        timers: The run's clock.
        tells: Whether to log the first long step.

    Attributes:
        asked: The source that is taking a step right now, as it was fed; otherwise ``None``.
    """

    def __init__(self, timers: LoopTimers, *, tells: bool) -> None:
        self.asked: Any = None
        self._now = timers.now
        self._held = timers.held
        self._tells = tells
        self._told = Lock()  # taken for good by the first to log: this thread or the watchdog's

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

    __slots__ = ("_coroutine", "_interruption", "_items", "_watch", "iterator")

    def __init__(self, items: AsyncIterable[Any], watch: SourceWatch) -> None:
        self._items = items
        self._watch = watch
        self.iterator: AsyncIterator[Any] = watch.step(items, _iterator_of, items)
        self._coroutine: Any = None
        self._interruption: asyncio.CancelledError | None = None

    def interrupt(self, error: asyncio.CancelledError) -> bool:
        """Let the next step raise a cancellation where the source has given its last item.

        If a time limit or a task group is around its ``yield``, the source cancels the code that
        reads it, whatever that is doing, and alone knows the failure that this stands for.

        Returns:
            Whether that is possible.
        """
        self._interruption = error if hasattr(self.iterator, "athrow") else None
        return self._interruption is not None

    def __await__(self) -> Any:
        # One object for all items, and its own iterator: that cuts the cost to a third.
        if self._interruption is None:
            self._coroutine = _next_of(self.iterator)
        else:
            self._coroutine = _next_after(self._interruption, self.iterator)
            self._interruption = None
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


async def _next_after(error: BaseException, generator: Any) -> Any:
    return await generator.athrow(error)


def name_of(source: Any) -> str:
    """The name of a source: its function's for a generator, otherwise its type's."""
    code = _code(source)
    name = type(source).__qualname__ if code is None else code.co_qualname
    return clean(name.rpartition("<locals>.")[2])


def what_helps(source: Any) -> str:
    """Advice for a source that blocks."""
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
    place = Place(code.co_filename, line, function_name(code.co_qualname))
    return f" (at {clean(place.location)})"


def _code(source: Any) -> CodeType | None:
    if is_a(source, GeneratorType):
        return source.gi_code
    return source.ag_code if is_a(source, AsyncGeneratorType) else None
