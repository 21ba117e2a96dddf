"""A journal in a PostgreSQL database: the same tables, with one writer.

The writer holds an advisory lock, which belongs to its connection and ends with it. So what writes
always has the lock: a connection that was lost is replaced by another one, which takes the lock
again before it does anything else. If another process has had it meanwhile, the table ``writer``
says so, and the run ends.

A commit whose answer was lost is made again. All rows have keys, so that makes no second ones.

The first schema of the search path has the tables, and only that is looked at.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from antflow._core.addresses import shown_address
from antflow._core.checks import check_choice
from antflow._core.errors import (
    JournalError,
    JournalForkError,
    JournalOpenError,
    JournalVersionError,
)
from antflow._core.text import clean, error_text
from antflow._postgres.server import Server
from antflow.journal.connections import Durability, Row, Trouble
from antflow.journal.file import told_as
from antflow.journal.postgres_lock import HERE, NAMES, SYNCHRONOUS, Lost, Tenancy
from antflow.journal.postgres_text import TABLES, batches, made_of, numbered, read_rows
from antflow.journal.read_ahead import ReadAhead

Answer = TypeVar("Answer")
Action = Callable[[Any], Awaitable[Answer]]

LONGEST_ACTION = 30.0
"""Seconds that the server may take for a transaction, or for an answer."""

ROWS_AT_ONCE = 1_000
"""How many rows are fetched from the server at a time."""

OTHERS = f"""
SELECT relname FROM pg_class, aclexplode(relacl) AS granted
WHERE {HERE} AND relname = ANY($1::text[]) AND grantee <> relowner
AND privilege_type IN ('INSERT', 'UPDATE')
UNION SELECT relname FROM pg_class
WHERE {HERE} AND relname = ANY($1::text[]) AND NOT pg_has_role(relowner, 'USAGE')
"""  # noqa: S608
"""Tables that other roles may write to."""

PASSING = ("08", "40", "53", "57", "58", "25P03", "25P04", "55P03")
"""How the codes of errors begin that may pass: of the connection, of locks, of what the server has
too little of, and of its end.
"""

ELSEWHERE = ("25006",)
"""Errors after which a new connection may be one to another server: this one can only be read."""

DAMAGE = ("XX001", "XX002")


class Rows(list[tuple[Any, ...]]):
    """The rows that a statement has found.

    Attributes:
        rowcount: How many rows it has changed.
    """

    rowcount: int = -1

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        return self.pop(0) if self else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All that are left."""
        return self


class PostgresConnection:
    """A connection to a journal in PostgreSQL: see `antflow.journal.databases.Connection`.

    Args:
        dsn: The database.
        durability: What a commit of the writer survives; ``None``: it only reads.

    Attributes:
        path: The database, as messages call it.
    """

    def __init__(self, dsn: str, durability: Durability | None) -> None:
        self.path: str = shown_address(dsn)
        self._dsn = dsn
        self._durability = durability
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._in_transaction = self._is_interrupted = False
        self._beside: PostgresConnection | None = None
        self._tenancy = Tenancy(self.path, durability)
        settings = {"application_name": self._tenancy.name}
        if durability is None:
            settings["default_transaction_read_only"] = "on"
        self._server = Server("path", dsn, LONGEST_ACTION, self._tenancy.begin, settings)
        _connections.add(self)

    # As each connection

    def execute(self, statement: str, values: Any = ()) -> Rows:
        """Execute a statement."""
        query, arguments = numbered(statement, values)
        found = self._do(partial(_executed, query, arguments), repeats=not self._in_transaction)
        if query in ("BEGIN", "COMMIT", "ROLLBACK"):
            self._in_transaction = query == "BEGIN"
        return found

    def executemany(self, statement: str, rows: Any) -> None:
        """Execute a statement with many rows."""
        values = [numbered(statement, row)[1] for row in rows]
        if values:
            query, _ = numbered(statement, [None] * len(values[0]))
            self._do(lambda connection: connection.executemany(query, values))

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows in one transaction, in their order."""
        parts = list(batches(rows))
        self._do(partial(_written, parts), repeats=True)

    def passes(self, error: Exception) -> bool:
        """Whether an error may pass."""
        return isinstance(error, Trouble) and error.passes

    def is_damage(self, error: Exception) -> bool:
        """Whether an error says that data is damaged."""
        return isinstance(error, Trouble) and error.is_damage

    def is_in_place(self) -> bool:
        """It is: what takes the lock has looked."""
        return True

    def is_new(self) -> bool:
        """Whether it has no tables yet."""
        return not self.has_table("journal")

    def has_table(self, name: str) -> bool:
        """Whether it has a table of this name."""
        query = f"SELECT count(*) FROM pg_class WHERE {HERE} AND relname = ?"  # noqa: S608
        return bool(self.execute(query, (name,)).fetchone() == (1,))

    def make_table(self, statement: str) -> None:
        """Make a table, if there is none of this name."""
        self.execute(made_of(statement))

    def make_tables(self) -> None:
        """Make the tables of a new journal."""
        for statement in TABLES:
            self.execute(statement)

    def size(self) -> int:
        """The size of its tables and their indexes, in bytes."""
        query = (
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "  # noqa: S608
            f"WHERE {HERE} AND relname = ANY(?)"
        )
        found = self.execute(query, (list(NAMES),)).fetchone()
        return int(found[0]) if found else 0

    def shrink(self) -> None:
        """Nothing: the server itself uses the space again."""

    def again(self, durability: Durability) -> PostgresConnection:
        """This one, which has the lock."""
        del durability
        return self

    def beside(self, positions: Mapping[int, int], last: int) -> ReadAhead:
        """Another one, closed with this one; if this one only reads, itself."""
        if self._durability is None:
            return ReadAhead(self, positions, last)
        if self._beside is None:
            self._beside = PostgresConnection(self._dsn, None)
        return ReadAhead(self._beside, positions, last)

    def interrupt(self) -> None:
        """Make what is waited for in another thread fail."""
        self._is_interrupted = True
        self._server.interrupt()

    def refuse_untrusted(self) -> None:
        """Refuse tables that others can write to.

        Raises:
            JournalOpenError: There are some.
        """
        found = self._do(lambda connection: connection.fetch(OTHERS, list(NAMES)))
        if found:
            told = f"pickles in it cannot be trusted: others can write to the table {found[0][0]!r}"
            raise JournalOpenError(f"journal {self.path!r}: {told}")

    def discard(self) -> None:
        """Remove the tables of a journal that was just made, and close it."""
        with suppress(Trouble):
            if self._in_transaction:
                self.execute("ROLLBACK")
            self.execute("DROP TABLE writer")
        self.close()

    def close(self) -> None:
        """Close it, which gives back the lock. Does nothing in a forked process."""
        if os.getpid() != self._process:
            return
        _connections.discard(self)
        if self._beside is not None:
            self._beside.interrupt()
            self._beside.close()
        with self._lock, suppress(OSError):
            _outside_of_loops(self._server.close)

    def leave(self) -> None:
        """In a forked process: it is the parent's."""
        self._server.leave()
        self._lock = threading.RLock()

    # Inside

    def _do(self, action: Action[Answer], *, repeats: bool = False) -> Answer:
        """Do something with a connection.

        Args:
            action: What.
            repeats: Whether to do it once more, at once, with a new connection, if the one that was
                there is found to be lost. It may have been for hours.
        """
        if os.getpid() != self._process:
            raise JournalForkError(
                f"journal {self.path!r} was opened by process {self._process}, and this is "
                f"process {os.getpid()}, forked from it: open it where it is used"
            )
        with self._lock:
            was_connected = self._server.is_connected
            try:
                return self._done(action)
            except Lost:
                self._in_transaction = False
                if self._is_interrupted or not (repeats and was_connected):
                    raise
            return self._done(action)

    def _done(self, action: Action[Answer]) -> Answer:
        try:
            done = _outside_of_loops(partial(self._server.do, partial(_outcome, action)))
        except JournalError:
            raise
        except Exception as error:
            raise _trouble(error) from error
        if isinstance(done, Failed):
            raise _trouble(done.error) from done.error
        answer: Answer = done
        return answer


class Failed:
    """A server error after which the connection can be used again."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception = error


def open_for_writing(dsn: str, durability: Durability = "process") -> PostgresConnection:
    """Open a journal to write to it, and make it if needed.

    Args:
        dsn: The database.
        durability: What a commit survives.

    Raises:
        ValueError: It is not the address of a PostgreSQL database.
        JournalInUseError: Another writer has it open, in this process or another.
        JournalOpenError: The tables are of something else, or they cannot be written.
        JournalVersionError: A newer version of the library has written it.
        ImportError: asyncpg is not installed.
    """
    check_choice(ValueError, "durability", durability, tuple(SYNCHRONOUS))
    return _connected(PostgresConnection(dsn, durability))


def open_for_reading(dsn: str) -> PostgresConnection:
    """Open a journal to read it, even while it is being written.

    Args:
        dsn: The database.

    Raises:
        ValueError: It is not the address of a PostgreSQL database.
        JournalOpenError: There is none, the tables are of something else, or cannot be read.
        JournalVersionError: A newer version of the library has written it.
        ImportError: asyncpg is not installed.
    """
    connection = _connected(PostgresConnection(dsn, None))
    try:
        with told_as(connection.path):
            if connection.is_new():
                raise JournalOpenError(f"journal {connection.path!r}: it does not exist")
    except BaseException:
        connection.close()
        raise
    return connection


def is_there(dsn: str) -> bool:
    """Whether a journal is in a database.

    Raises:
        JournalOpenError: Something else is there, or that cannot be found out.
        JournalVersionError: A newer version of the library has written it.
    """
    connection = PostgresConnection(dsn, None)
    try:
        with told_as(connection.path):
            return not connection.is_new()
    finally:
        connection.close()


def is_journal(dsn: str) -> bool:
    """Whether a journal is in a database, of whatever version, and not something else.

    Raises:
        JournalOpenError: That cannot be found out.
    """
    try:
        return is_there(dsn)
    except JournalVersionError:
        return True
    except JournalOpenError as error:
        if isinstance(error.__cause__, Trouble):
            raise
        return False


def _connected(connection: PostgresConnection) -> PostgresConnection:
    try:
        with told_as(connection.path):
            connection.execute("SELECT 1")
    except BaseException:
        connection.close()
        raise
    return connection


async def _executed(query: str, arguments: Sequence[Any], connection: Any) -> Rows:
    if query.startswith("SELECT"):
        return Rows(read_rows(await connection.fetch(query, *arguments)))
    status = await connection.execute(query, *arguments)
    if query == "COMMIT" and status != "COMMIT":
        raise Trouble("the transaction was rolled back")
    rows = Rows()
    if (count := status.rpartition(" ")[2]).isdecimal():
        rows.rowcount = int(count)
    return rows


async def _written(parts: Sequence[tuple[str, list[Any]]], connection: Any) -> None:
    async with connection.transaction():
        for query, values in parts:
            await connection.executemany(query, values)


async def _outcome(action: Action[Any], connection: Any) -> Any:
    """The answer to an action; or the server's error, if the connection can still be used."""
    try:
        return await action(connection)
    except Exception as error:
        state = getattr(error, "sqlstate", None)
        if connection.is_closed() or state is None or state in ELSEWHERE:
            raise
        return Failed(error)


def _trouble(error: Exception) -> Trouble:
    """An error of asyncpg, or of the system, as one of the journal."""
    if isinstance(error, Trouble):
        return error
    text = clean(error_text(error)) or type(error).__name__
    if type(error).__name__ == "InternalClientError":  # its text is about asyncpg's own states
        text = "the connection to the server was lost"
    state = getattr(error, "sqlstate", None)
    if state is None:  # of the network, or of asyncpg's own: the connection was closed
        is_of_asyncpg = type(error).__module__.startswith("asyncpg.")
        is_lost = is_of_asyncpg and not isinstance(error, ValueError)  # those are of arguments
        is_lost |= isinstance(error, OSError)
        return Lost(text) if is_lost else Trouble(text)
    if state.startswith(("08", "57P")) or state in ELSEWHERE:
        return Lost(text)
    return Trouble(text, passes=state.startswith(PASSING), is_damage=state in DAMAGE)


def _outside_of_loops(function: Callable[[], Answer]) -> Answer:
    """Call a function that runs an event loop; if this thread runs one, in another thread."""
    if asyncio._get_running_loop() is None:
        return function()
    done: Future[Answer] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # why: it is raised in the caller's thread
            done.set_exception(error)

    threading.Thread(target=call, name="antflow journal", daemon=True).start()
    return done.result()


_connections: WeakSet[PostgresConnection] = WeakSet()


def _leave_all() -> None:
    for connection in list(_connections):
        connection.leave()
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
