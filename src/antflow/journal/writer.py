"""Writes the rows of a journal, many in one transaction.

They are written in a thread. While a transaction is committed, further rows gather; they are the
next one. So nothing waits for a batch to fill, and the more there is to write, the more share one
commit. Only rows that nothing waits for gather for a few milliseconds. In an event loop with
virtual time rows are written at once, so that a run with a journal can be tested as fast, and
repeats as exactly, as any other.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from weakref import WeakSet

from antflow._core.errors import (
    JournalCorruptError,
    JournalError,
    JournalForkError,
    JournalWriteError,
)
from antflow._core.foreign import is_a
from antflow._core.log import warn
from antflow._core.text import counted, safe_str
from antflow._core.waits import Wait
from antflow.journal.connections import Connection, Row, Values
from antflow.journal.schema import TOLD

Connect = Callable[[], Connection]

MOST_AT_ONCE = 10_000
"""Rows in one transaction."""

GATHERING = 0.005
"""Seconds for which rows gather if nothing waits for them: each commit disturbs the event loop."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds to wait before a transaction that failed is tried again."""

LAST_PATIENCE = 5.0
"""Seconds that a run which is being cancelled waits for a server that does not answer."""

LONGEST_FLUSH = 10.0
"""Seconds that the end of the program waits for what is not written yet."""


class Writer:
    """Writes rows in their order; a row is written with all before it, or not at all.

    This one writes in the event loop, when something waits for it.

    Args:
        connect: Opens the database, where the rows are written.
        on_end: Called when all is written and that is closed, or the writer has given up.

    Attributes:
        error: Why it has given up, if it has. Nothing more is written then.
        stalled: Why rows cannot be written for the moment, if they cannot.
    """

    def __init__(self, connect: Connect, on_end: Callable[[], None]) -> None:
        self._connect = connect
        self._on_end = on_end
        self._rows: deque[Row] = deque()
        self._connection: Connection | None = None
        self.error: Exception | None = None
        self.stalled: Exception | None = None

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet."""
        return len(self._rows)

    @property
    def behind(self) -> float:
        """Seconds since all rows were committed last, or would have been."""
        return 0.0

    def put(self, statement: str, row: Values) -> None:
        """Write a row, soon.

        Raises:
            JournalError: The writer has given up.
        """
        if self.error is not None:
            raise self.error
        self._rows.append((statement, row))

    def durable(self, most: int | None = None) -> Wait:
        """Wait until all rows so far are committed; ``None`` if no more than ``most`` are not."""
        if self.error is not None:
            raise self.error
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._write_all(self._connection)
        except Exception as error:
            self.error = self._told(error)
            raise self.error from error
        return None

    def give_up(self) -> None:
        """From now on, give up when rows cannot be written, rather than try again."""

    def end(self) -> Wait:
        """Write what is left, and close the database, even if nothing waits for that."""
        try:
            if self.error is None:
                with suppress(JournalError):  # it is in `error`
                    self.durable(0)
        finally:
            if self._connection is not None:
                self._connection.close()
            self._on_end()
        return None

    def _write_all(self, connection: Connection) -> None:
        count = len(self._rows)
        while count:
            rows = list(islice(self._rows, min(count, MOST_AT_ONCE)))
            self._write(connection, rows)
            for _ in rows:  # now that they are committed
                self._rows.popleft()
            count -= len(rows)

    def _write(self, connection: Connection, rows: Sequence[Row]) -> None:
        if not connection.is_in_place():
            raise JournalWriteError("it was removed or replaced while a run used it")
        connection.write(rows)

    def _told(self, error: Exception) -> Exception:
        """An error with which the writer gives up."""
        if is_a(error, JournalError) and not is_a(error, JournalWriteError):
            return error
        kinds = Counter(TOLD[statement] for statement, _ in self._rows.copy() if statement in TOLD)
        left = ", ".join(counted(count, kind) for kind, count in kinds.items())
        path = "" if self._connection is None else f" {self._connection.path!r}"
        told = f"journal{path}: {safe_str(error)}" + (f"; not written: {left}" if left else "")
        is_damaged = self._connection is not None and self._connection.is_damage(error)
        return JournalCorruptError(told) if is_damaged else JournalWriteError(told)


class WriterThread(Writer):
    """Writes rows in a thread of its own.

    Args:
        connect: Opens the database, in the thread.
        max_unflushed: How many rows may wait to be committed without anything waiting for them.
        on_broken: Called, in the event loop, with the error when the writer has given up.
        pauses: Whether rows that cannot be written are tried again until they can.
        on_end: Called, in the thread, when it has closed the database.
    """

    error: Exception | None
    stalled: Exception | None

    def __init__(
        self,
        connect: Connect,
        max_unflushed: int,
        on_broken: Callable[[Exception], None],
        pauses: bool,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(connect, on_end)
        self._max_unflushed = max_unflushed
        self._on_broken = on_broken
        self._pauses = pauses
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._ends: deque[asyncio.Future[None]] = deque()
        self._has_ended = self._is_exiting = False
        self._put = 0
        self._committed = 0
        self._all_committed = monotonic()
        self._wake: SimpleQueue[None] = SimpleQueue()  # rung in C, unlike an `Event`
        self._is_awake = self._is_urgent = False
        self._is_ending = False
        self._is_late = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="antflow-journal", daemon=True)
        self._thread.start()
        atexit.register(self._flush_at_exit)
        _writers.add(self)

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet."""
        return self._put - self._committed

    @property
    def behind(self) -> float:
        """Seconds since all rows were committed last, or would have been."""
        return monotonic() - self._all_committed if self.waiting else 0.0

    def put(self, statement: str, row: Values) -> None:
        """Write a row, soon.

        Raises:
            JournalError: The writer has given up.
        """
        if self.error is not None:
            raise self.error
        self._rows.append((statement, row))
        self._put += 1
        if not self._is_awake:
            self._is_awake = True
            self._wake.put(None)

    def durable(self, most: int | None = None) -> Wait:
        """Wait until all rows so far are committed; ``None`` if no more than ``most`` are not.

        Args:
            most: How many; ``None`` = ``max_unflushed``.
        """
        if self._put - self._committed <= (self._max_unflushed if most is None else most):
            return None
        future = self._loop.create_future()
        self._waiters.append(future)
        if not self._is_urgent:
            self._is_urgent = True
            self._wake.put(None)
        if self.error is not None:  # the thread may have released the others already
            _release([future])
        return future

    def give_up(self) -> None:
        """From now on, give up when rows cannot be written, rather than try again."""
        self._is_late.set()
        if self._connection is not None:
            self._loop.call_later(LAST_PATIENCE, self._connection.interrupt)

    def end(self) -> Wait:
        """Write what is left, and close the database, even if nothing waits for that."""
        future = self._loop.create_future()
        self._ends.append(future)
        self._is_ending = True
        self._wake.put(None)
        if self._has_ended:  # the thread may have released the others already
            _release([future])
        return future

    # In the thread

    def _work(self) -> None:
        try:
            self._connection = self._connect()
            while not (self._is_ending and not self._rows):
                self._write_some(self._connection)
        except Exception as error:
            self.error = broken = self._told(error)
            self._call_soon(self._on_broken, broken)
            self._call_soon(_release, _taken(self._waiters))
            while not self._is_ending:  # the run may be reading what is closed then
                self._wake.get()
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            if not self._is_exiting:
                self._on_end()
            self._has_ended = True
            self._call_soon(_release, _taken(self._waiters) + _taken(self._ends))
            atexit.unregister(self._flush_at_exit)

    def _write_some(self, connection: Connection) -> None:
        self._wake.get()
        if not (self._is_urgent or self._is_ending):
            with suppress(Empty):  # nothing waits for these rows
                self._wake.get(timeout=GATHERING)
        self._is_awake = self._is_urgent = False  # what comes later rings again
        waiters = _taken(self._waiters)  # first: the rows that they wait for are there already
        began = monotonic()
        try:
            self._write_all(connection)
            self._all_committed = began
        except BaseException:
            self._waiters.extend(waiters)  # the run is told before they are released
            raise
        if waiters:  # else the event loop sleeps on: woken early, it would sleep longer afterwards
            self._call_soon(_release, waiters)

    def _write(self, connection: Connection, rows: Sequence[Row]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                super()._write(connection, rows)
                break
            except Exception as error:
                if not self._pauses or self._is_late.is_set() or not connection.passes(error):
                    raise
                if self.stalled is None:
                    warn("the journal cannot be written, and the run waits: %s", error)
                self.stalled = error
                self._is_late.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        self._committed += len(rows)
        if self.stalled is not None:
            self.stalled = None
            warn("the journal can be written again, and the run goes on")

    def _call_soon(self, function: Callable[[Any], None], argument: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(function, argument)

    def _flush_at_exit(self) -> None:
        """Write what is left; the run may go on in another thread meanwhile."""
        self._is_exiting = True
        self._is_late.set()
        self._is_ending = True
        self._wake.put(None)
        self._thread.join(LONGEST_FLUSH)


def _taken(waiters: deque[asyncio.Future[None]]) -> list[asyncio.Future[None]]:
    return [waiters.popleft() for _ in range(len(waiters))]


_writers: WeakSet[WriterThread] = WeakSet()


def _refuse_in_child() -> None:
    for writer in _writers:
        told = "a forked process cannot continue its parent's run"
        writer.error = JournalForkError(told)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)


def _release(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
