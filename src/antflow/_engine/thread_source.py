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
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from inspect import isasyncgenfunction
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, TypeVar, cast

from antflow._core.checks import examine, refusal, takes
from antflow._core.foreign import asked, attribute, is_a
from antflow._core.items import check_items
from antflow._core.log import warn
from antflow._core.text import clean
from antflow._engine.calls import is_async
from antflow._engine.source import CLEAN_UP_FAILED
from antflow._engine.source_watch import NeverBlocks, name_of

A = TypeVar("A")

Request = tuple[Future[Any], Callable[[], Any]]

READ_AHEAD = 32
"""Items that may wait to be taken."""

PATIENCE = 1.0
"""Seconds that `Reader.close` waits for a step of the source that is under way."""

MADE_ELSEWHERE = (
    "the source was made in one thread and read in another; if it must not change threads, "
    "give in_thread() the function that makes it"
)


def in_thread(source: Iterable[A] | Callable[[], Iterable[A]]) -> AsyncIterable[A]:
    """Read a blocking source in its own thread: a cursor, a paginator, a file.

    A plain iterable is read on the event loop, and blocks it. Wrapped in `in_thread` it does not.
    Its iterator is made, read and closed in one thread, with the context variables of the run. Up
    to 32 items are read ahead; each goes on as soon as it is ready.

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

    async def __aiter__(self) -> AsyncIterator[A]:
        reader = Reader(self._source)
        try:
            while await reader.wait():
                yield reader.take()
        finally:
            await reader.close()

    def __repr__(self) -> str:
        return f"in_thread({_name_of(self._source)})"


class SizedThreadSource(ThreadSource[A]):
    """A `ThreadSource` with a length."""

    def __len__(self) -> int:
        return len(cast("Sized", self._source))

    def __bool__(self) -> bool:
        return True  # do not ask for the length, which may be costly


class Reader:
    """Reads a source once, in its own thread. Made in the event loop that wants the items.

    Args:
        source: See `in_thread`.
    """

    _is_closed = True  # until it has a thread

    def __init__(self, source: Any) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._reading: asyncio.Future[None] | None = None
        # In the thread alone:
        self._iterator: Iterator[Any] | None = None
        self._has_begun = False
        # Behind the lock:
        self._lock = Lock()
        self._items: deque[Any] = deque()
        self._sleeper: asyncio.Future[None] | None = None
        self._is_reading = False
        self._has_ended = False
        self._error: BaseException | None = None
        self._thread = OneThread(f"antflow source {_name_of(source)}")
        self._is_closed = False

    def __del__(self) -> None:
        # The event loop was closed, and Python then only drops what waits at a ``yield``. The
        # garbage collector may run in any thread; the source is closed in its own all the same.
        if not self._is_closed:
            self._thread.submit(partial(self._context.run, _close, self._iterator))
            self._thread.shutdown()

    async def wait(self) -> bool:
        """Wait for an item; return whether there is one.

        Raises:
            BaseException: The source's error, once all items before it have been taken.
        """
        while True:
            sleeper = None
            with self._lock:
                reads_on = not (self._is_reading or self._has_ended)
                if reads_on := reads_on and len(self._items) <= READ_AHEAD // 2:
                    self._is_reading = True
                if not (self._items or self._has_ended):
                    sleeper = self._sleeper = self._loop.create_future()
            if reads_on:
                self._reading = self._loop.run_in_executor(self._thread, self._read)
            if sleeper is not None:
                await sleeper
            elif self._items:
                return True
            else:
                self._raise_error()
                return False

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback has this frame

    def take(self) -> Any:
        """Take the next item, which must be there."""
        return self._items.popleft()

    async def close(self) -> None:
        """Close the source in its thread, then end the thread. Clean-up errors are logged."""
        with self._lock:
            self._is_closed = True
        if self._loop.is_closed():  # Python is disposing of the async generator
            self._thread.submit(self._close)
            self._thread.shutdown()
            return
        closing = self._loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown()
        if self._reading is not None and not self._reading.done():
            await asyncio.wait([self._reading], timeout=PATIENCE)
            if not self._reading.done():
                warn(
                    "the source %s is still busy with a step, but no more items are wanted; its "
                    "thread is left behind and ends after that step",
                    _name_of(self._source),
                )
                return
        if (error := await closing) is not None:
            warn(CLEAN_UP_FAILED, error=error)

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
            sleeper, self._sleeper = self._sleeper, None
        return self._wake(sleeper) and has_room

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._error = error
            self._has_ended = True
            self._is_reading = False
            sleeper, self._sleeper = self._sleeper, None
        self._wake(sleeper)

    def _wake(self, sleeper: asyncio.Future[None] | None) -> bool:
        """Wake the event loop if it waits; return whether it is still open."""
        try:
            if sleeper is not None:
                self._loop.call_soon_threadsafe(_wake, sleeper)
        except RuntimeError:  # it was closed
            return False
        return not self._loop.is_closed()

    def _close(self) -> BaseException | None:
        self._is_closed = True
        iterator, self._iterator = self._iterator, None
        self._thread.kept.clear()
        return self._context.run(_close, iterator)


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
    except BaseException as error:  # why: `Reader.close` logs it
        return error
    return None


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _name_of(source: Any) -> str:
    function = _function(source)
    if function is None:
        return name_of(source)
    name = attribute(function, "__qualname__", type(function).__qualname__)
    return clean(str(name).rpartition("<locals>.")[2])
