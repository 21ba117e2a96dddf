"""Reads a blocking source in its own thread.

The thread makes the iterator, takes all its steps and closes it, because some sources, such as a
database cursor, must not change threads. It reads until enough items wait, and goes on when half of
them are taken; in between it is parked. Each item is handed over at once: the thread wakes the
event loop if that waits for one. A lock, never held for more than a few lines, guards the state
that the two share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sized,
)
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from inspect import isasyncgenfunction
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, TypeVar, cast
from weakref import ref

from antflow._core.checks import examine, refusal, takes
from antflow._core.foreign import asked, attribute, is_a
from antflow._core.items import check_items
from antflow._core.log import info, warn
from antflow._core.stage_checks import is_async
from antflow._core.text import brief_repr, clean, counted
from antflow._engine.iteration import END, NOTHING, Iteration
from antflow._engine.source import CLEAN_UP_FAILED, NeverBlocks, name_of

A = TypeVar("A")

Request = tuple[Future[Any], Callable[[], Any]]

READ_AHEAD = 32
"""Items that may wait to be taken."""

PATIENCE = 1.0
"""Seconds that `Reader.left` waits for a step of the source that is under way."""

MADE_ELSEWHERE = (
    "the source was made in one thread and read in another; if it must not change threads, "
    "give in_thread() the function that makes it"
)


def in_thread(source: Iterable[A] | Callable[[], Iterable[A]]) -> AsyncIterable[A]:
    """Read a blocking source in its own thread: a cursor, a paginator, a file.

    A plain iterable is read on the event loop, and blocks it. Wrapped in `in_thread` it does not.
    Its iterator is made, read and closed in one thread, with the context variables of the run. Up
    to 32 items are read ahead; each goes on as soon as it is ready. A run that ends early drops
    those it has not taken in yet; a log record says how many, and which is the first: a warning if
    ``source`` is an iterator, which cannot be read again, else at level INFO.

    ```python
    def rows():
        with closing(sqlite3.connect("shop.db")) as connection:
            yield from connection.execute("SELECT * FROM orders")


    results = await pipeline.run(in_thread(rows))
    ```

    Args:
        source: A function without parameters that returns an iterable, such as a generator
            function; or an iterable. Make objects that must not change threads (a `sqlite3` cursor)
            inside the function. With a function, or an iterable that can be read again, the result
            can be used for several runs, each with its own thread.

    Returns:
        An async iterable for `Pipeline.run`, `stream` and `feed`, and for ``async for``. It has a
        length if ``source`` is an iterable with a length.

    Raises:
        TypeError: ``source`` is neither, or is async, a string or a mapping.

    Cancellation:
        A step that is under way cannot be stopped. After one second it is left behind, with a
        warning; when it ends, the thread closes the source and ends too. It is a daemon thread:
        Python does not wait for it when it exits.
    """
    function = examine(TypeError, "source", _function, source)
    if examine(TypeError, "source", _gives_async, source, function):
        raise refusal(TypeError, "source", source, "is async and needs no thread")
    if function is None:
        check_items(source, "source")
        if is_a(source, Sized):
            return SizedThreadSource(cast("Iterable[A]", source))
        return ThreadSource(source)
    if not examine(TypeError, "source", takes, function, 0):
        allowed = "must be an iterable, or a function without parameters that returns one"
        raise refusal(TypeError, "source", source, allowed)
    return ThreadSource(source)


class ThreadSource(NeverBlocks, Generic[A]):
    """The return value of `in_thread`."""

    def __init__(self, source: Iterable[A] | Callable[[], Iterable[A]]) -> None:
        self._source = source

    def __aiter__(self) -> Iteration[A]:
        return Iteration(Reader(self._source))

    def __repr__(self) -> str:
        return f"in_thread({_name_of(self._source)})"


class SizedThreadSource(ThreadSource[A]):
    """A `ThreadSource` with a length."""

    def __len__(self) -> int:
        return len(cast("Sized", self._source))

    def __bool__(self) -> bool:
        return True  # do not ask for the length, which may be costly


class Reader:
    """Reads a source once, in its own thread. See `Steps`.

    Args:
        source: See `in_thread`.
    """

    _is_closed = True  # until it has a thread

    _loop: asyncio.AbstractEventLoop
    _context: Context
    _thread: OneThread
    _reading: asyncio.Future[None]
    _left: asyncio.Future[None]
    _keeper: AsyncGenerator[None, None]

    def __init__(self, source: Any) -> None:
        self._source = source
        self._news = asyncio.Event()
        # In the thread alone:
        self._iterator: Iterator[Any] | None = None
        self._has_begun = False
        # Behind the lock:
        self._lock = Lock()
        self._items: deque[Any] = deque()
        self._is_awaited = False
        self._is_reading = False
        self._has_ended = False
        self._error: BaseException | None = None

    def __del__(self) -> None:
        # The event loop was closed under it. The garbage collector may run in any thread; the
        # source is closed in its own all the same.
        if not self._is_closed:
            self._thread.submit(partial(self._context.run, _close, self._iterator))
            self._thread.shutdown()

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._left = self._loop.create_future()
        self._thread = OneThread(f"antflow source {_name_of(self._source)}")
        self._is_closed = False
        self._keeper = _leave_with_loop(ref(self))
        _until_it_suspends(self._keeper.asend(None))
        self._read_on()

    def take(self) -> Any:
        has_ended = self._has_ended  # first: the thread notes it after the last item
        if self._items:
            item = self._items.popleft()
            self._read_on()
            return item
        if not has_ended:
            return NOTHING
        error, self._error = self._error, None
        if error is None:
            return END
        try:
            raise error
        finally:
            del error  # its traceback has this frame

    async def wait(self) -> None:
        with self._lock:
            if self._items or self._has_ended:
                return
            self._is_awaited = True
            self._news.clear()
        await self._news.wait()

    def leave(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._news.set()
        closing = self._loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown()
        patience = self._loop.call_later(PATIENCE, self._leave_behind)
        closing.add_done_callback(partial(self._has_closed, patience))

    async def left(self) -> None:
        if not self._left.done():
            await asyncio.wait([self._left])

    def _read_on(self) -> None:
        """Make the thread read if it does not, and there is room."""
        with self._lock:
            if self._is_reading or self._has_ended or len(self._items) > READ_AHEAD // 2:
                return
            self._is_reading = True
        self._reading = self._loop.run_in_executor(self._thread, self._read)

    def _leave_behind(self) -> None:
        """Wait no longer for the step that is under way."""
        if not self._reading.done():
            warn(
                "the source %s is still busy with a step, but no more items are wanted; its "
                "thread is left behind and ends after that step",
                _name_of(self._source),
            )
            _wake(self._left)

    def _has_closed(
        self, patience: asyncio.TimerHandle, closing: asyncio.Future[BaseException | None]
    ) -> None:
        patience.cancel()
        if (error := closing.result()) is not None:
            warn(CLEAN_UP_FAILED, error=error)
        if self._items:
            self._tell_dropped()
        _wake(self._left)
        _until_it_suspends(self._keeper.aclose())  # else Python begins a task for that

    def _tell_dropped(self) -> None:
        """Say which items were read and not taken: a warning if they cannot be read again."""
        tell = warn if is_a(self._source, Iterator) else info
        tell(
            "the run ended early, and drops %s that it had read ahead from %s: from %s on, they "
            "are no outcomes. To go on, read the source again from there",
            counted(len(self._items), "item"),
            _name_of(self._source),
            clean(brief_repr(self._items[0], asks=False)),
        )
        self._items.clear()

    # In the thread

    def _read(self) -> None:
        """Read until enough items wait, or there are no more."""
        try:
            if self._iterator is None:
                self._iterator = self._context.run(_iterator_of, self._source)
                self._thread.kept.append(self._iterator)
            while True:
                try:
                    item = self._context.run(next, self._iterator)
                except StopIteration:
                    self._end(None)
                    break
                self._has_begun = True
                has_room = self._put(item)
                del item  # it may be long until the next
                if not has_room:
                    break
        except BaseException as error:  # why: raised again where the items are taken
            if is_a(self._source, Iterator) and not self._has_begun:
                asked(BaseException.add_note, error, MADE_ELSEWHERE, instead=None)
            self._end(error)
        if self._loop.is_closed():
            self._close()
            self._thread.shutdown()

    def _put(self, item: Any) -> bool:
        """Hand an item over; return whether there is room for another one."""
        with self._lock:
            self._items.append(item)
            has_room = len(self._items) < READ_AHEAD and not self._is_closed
            self._is_reading = has_room
        return self._tell() and has_room

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._error = error
            self._has_ended = True
            self._is_reading = False
        self._tell()

    def _tell(self) -> bool:
        """Wake those who wait for news, if any; return whether the event loop is still open."""
        with self._lock:
            is_awaited, self._is_awaited = self._is_awaited, False
        try:
            if is_awaited:
                self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # it was closed
            return False
        return not self._loop.is_closed()

    def _close(self) -> BaseException | None:
        self._is_closed = True
        iterator, self._iterator = self._iterator, None
        self._thread.kept.clear()
        return self._context.run(_close, iterator)


async def _leave_with_loop(reader: ref[Reader]) -> AsyncGenerator[None, None]:
    """Close a source that is still open when `asyncio.run` ends, which closes all generators."""
    try:
        yield
    finally:
        if (left := reader()) is not None:
            left.leave()
            await left.left()


def _until_it_suspends(step: Coroutine[Any, Any, Any]) -> None:
    with suppress(StopIteration, StopAsyncIteration, RuntimeError):  # another takes a step
        step.send(None)


class OneThread(Executor):
    """A thread that makes one call after another. Calls must not raise.

    It is a daemon, so a call that blocks for ever does not keep Python from exiting.

    Args:
        name: The thread's name.

    Attributes:
        kept: Objects that are not collected before the thread has ended.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Request | None] = SimpleQueue()
        self.kept: list[Any] = []
        Thread(target=_work, args=(self._calls, self.kept), name=name, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Make a call, after those before it."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # close a source even if the wait is cancelled
        self._calls.put((future, partial(fn, *args, **options)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the thread after the calls so far, without waiting for it."""
        self._calls.put(None)


def _work(calls: SimpleQueue[Request | None], _kept: list[Any]) -> None:
    while (call := calls.get()) is not None:
        future, function = call
        future.set_result(function())
        del call, future, function  # keep nothing alive while waiting


def _function(source: Any) -> Callable[[], Any] | None:
    """The function that makes the items; ``None`` if the source is an iterable itself."""
    return source if callable(source) and not isinstance(source, Iterable) else None


def _gives_async(source: Any, function: Callable[[], Any] | None) -> bool:
    if function is None:
        return isinstance(source, AsyncIterable)
    return isinstance(source, AsyncIterable) or is_async(function) or isasyncgenfunction(function)


def _iterator_of(source: Any) -> Iterator[Any]:
    function = _function(source)
    items = source if function is None else function()
    check_items(items)
    return iter(items)


def _close(iterator: Any) -> BaseException | None:
    try:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
    except BaseException as error:  # why: `Reader._has_closed` logs it
        return error
    return None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _name_of(source: Any) -> str:
    function = _function(source)
    if function is None:
        return name_of(source)
    name = attribute(function, "__qualname__", type(function).__qualname__)
    return clean(str(name).rpartition("<locals>.")[2])
