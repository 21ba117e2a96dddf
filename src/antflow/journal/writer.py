"""Writes the rows of a journal, many in one transaction.

They are written in a thread. While a transaction is committed, further rows gather; they are the
next one. So nothing waits for a batch to fill, and the more there is to write, the more share one
commit. In an event loop with virtual time they are written at once, so that a run with a journal
can be tested as fast, and repeats as exactly, as any other.
"""

from __future__ import annotations

import asyncio
import atexit
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any

from antflow._core.log import warn
from antflow._core.waits import Wait
from antflow.journal.schema import SEALED, sealed

Values = tuple[Any, ...] | dict[str, Any]
Row = tuple[str, Values]
"""A statement, and the values for it."""

Connect = Callable[[], sqlite3.Connection]

MOST_AT_ONCE = 10_000
"""Rows in one transaction."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds to wait before a transaction that failed is tried again."""

LONGEST_FLUSH = 10.0
"""Seconds that the end of the program waits for what is not written yet."""


class Writer:
    """Writes rows in their order; a row is written with all before it, or not at all.

    This one writes in the event loop, when something waits for it.

    Args:
        connect: Opens the database, where the rows are written.

    Attributes:
        error: Why it has given up, if it has. Nothing more is written then.
        stalled: Why rows cannot be written for the moment, if they cannot.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._rows: deque[Row] = deque()
        self._connection: sqlite3.Connection | None = None
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
        """Write a row, soon."""
        self._rows.append((statement, row))

    def durable(self, most: int | None = None) -> Wait:
        """Wait until all rows so far are committed; ``None`` if no more than ``most`` are not."""
        if self._connection is None:
            self._connection = self._connect()
        self._write_all(self._connection)
        return None

    def end(self) -> None:
        """Write what is left, and close the database."""
        self.durable(0)
        assert self._connection is not None
        self._connection.close()

    def _write_all(self, connection: sqlite3.Connection) -> None:
        count = len(self._rows)
        while count:
            rows = [self._rows.popleft() for _ in range(min(count, MOST_AT_ONCE))]
            count -= len(rows)
            self._write(connection, rows)

    def _write(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, some in groupby(rows, itemgetter(0)):
                values: list[Any] = [sealed(row) if statement in SEALED else row for _, row in some]
                connection.executemany(statement, values)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise


class WriterThread(Writer):
    """Writes rows in a thread of its own.

    Args:
        connect: Opens the database, in the thread.
        max_unflushed: How many rows may wait to be committed without anything waiting for them.
        pauses: Whether rows that cannot be written are tried again until they can.
    """

    def __init__(self, connect: Connect, max_unflushed: int, pauses: bool) -> None:
        super().__init__(connect)
        self._max_unflushed = max_unflushed
        self._pauses = pauses
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._put = 0
        self._committed = 0
        self._all_committed = monotonic()
        self._wake = threading.Event()
        self._is_awake = False
        self._is_ending = False
        self._is_late = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="antflow-journal", daemon=True)
        self._thread.start()
        atexit.register(self._flush_at_exit)

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet."""
        return self._put - self._committed

    @property
    def behind(self) -> float:
        """Seconds since all rows were committed last, or would have been."""
        return monotonic() - self._all_committed if self.waiting else 0.0

    def put(self, statement: str, row: Values) -> None:
        """Write a row, soon."""
        if self.error is not None:
            raise self.error
        self._rows.append((statement, row))
        self._put += 1
        self._wake_up()

    def durable(self, most: int | None = None) -> Wait:
        """Wait until all rows so far are committed; ``None`` if no more than ``most`` are not.

        Args:
            most: How many; ``None`` = ``max_unflushed``.
        """
        if self._put - self._committed <= (self._max_unflushed if most is None else most):
            return None
        future = self._loop.create_future()
        self._waiters.append(future)
        self._wake_up()  # the rows may have been committed meanwhile
        if self.error is not None:  # the thread may have released the others already
            _release([future])
        return future

    def end(self) -> None:
        """Write what is left, and wait until the thread has ended."""
        self._is_ending = True
        self._wake.set()
        self._thread.join()

    def _wake_up(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    # In the thread

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = self._connect()
            while not (self._is_ending and not self._rows):
                self._write_some(connection)
        except Exception as error:
            self.error = error
        finally:
            atexit.unregister(self._flush_at_exit)
            if connection is not None:
                connection.close()
            self._release_soon(self._taken_waiters())

    def _write_some(self, connection: sqlite3.Connection) -> None:
        self._wake.wait()
        self._wake.clear()
        self._is_awake = False
        waiters = self._taken_waiters()  # first: the rows that they wait for are there already
        began = monotonic()
        try:
            self._write_all(connection)
            self._all_committed = began
        finally:
            self._release_soon(waiters)

    def _write(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                super()._write(connection, rows)
                break
            except sqlite3.OperationalError as error:
                if not self._pauses or self._is_late.is_set():
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

    def _taken_waiters(self) -> list[asyncio.Future[None]]:
        return [self._waiters.popleft() for _ in range(len(self._waiters))]

    def _release_soon(self, waiters: list[asyncio.Future[None]]) -> None:
        if waiters:
            with suppress(RuntimeError):  # the loop is closed: nothing waits any more
                self._loop.call_soon_threadsafe(_release, waiters)

    def _flush_at_exit(self) -> None:
        self._is_late.set()
        self._is_ending = True
        self._wake.set()
        self._thread.join(LONGEST_FLUSH)


def _release(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
