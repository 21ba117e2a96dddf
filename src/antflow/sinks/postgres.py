"""Events as rows of a PostgreSQL database: the sink, and what reads its tables.

Both the sink and the log are used by code that has no event loop, in a thread: see `Server`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, Unpack

from antflow._core.checks import refusal
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.text import error_text, error_type_name
from antflow._postgres.server import LONGEST_WAIT, Connection, Server
from antflow.sinks.columns import EVENTS, RUNS, TIME, Column, definitions, names
from antflow.sinks.records import VERSION, EventRecord
from antflow.sinks.run_records import closed_record, opened_record
from antflow.sinks.sink import Sink, SinkOptions
from antflow.sinks.sqlite import CLOSE_RUN, closed_row, opened_row

Answer = TypeVar("Answer")

TABLES = {
    "runs": f"""
CREATE TABLE runs (
{definitions(RUNS, "postgres", "run")}
)""",
    "events": f"""
CREATE TABLE events (
{definitions(EVENTS, "postgres", "run, seq")}
);
CREATE INDEX events_item ON events (item)""",
}

MARK = re.compile(r"antflow (?:runs|events), format (\d+)")
"""The comment on each table: it tells a log's tables from others."""

FORMATS = (
    "SELECT relname, obj_description(oid, 'pg_class') AS comment FROM pg_class "
    "WHERE oid IN (to_regclass('runs'), to_regclass('events'))"
)

LOCK = 0x616E7466
"""``antf``: held while the tables are made, which two sinks must not do at once."""

# COPY is the fastest way in, but fails at a row that is there. So a batch is copied to a table of
# the connection's own, and goes on from there.
MAKE_BATCH = f"""
CREATE TEMP TABLE IF NOT EXISTS antflow_batch (
{definitions(EVENTS, "postgres")}
) ON COMMIT DELETE ROWS"""
INSERT = f"INSERT INTO events ({names(EVENTS)}) TABLE antflow_batch ON CONFLICT DO NOTHING"

OPEN_RUN = (
    "INSERT INTO runs (run, pipeline, stages, per_task_stages, started) "
    "VALUES (:run, :pipeline, :stages, :per_task_stages, :timestamp) ON CONFLICT DO NOTHING"
)


def _as_in_sqlite(columns: Sequence[Column]) -> str:
    return ", ".join(
        f"extract(epoch FROM {each.name})::double precision AS {each.name}"
        if each.type is TIME
        else each.name
        for each in columns
    )


AS_IN_SQLITE = f"""
WITH runs AS NOT MATERIALIZED (SELECT {_as_in_sqlite(RUNS)} FROM runs),
events AS NOT MATERIALIZED (SELECT {_as_in_sqlite(EVENTS)} FROM events)
"""  # noqa: S608
"""Goes before a query for the tables of a `SqliteSink`: it finds the same columns here."""

ROWS_AT_ONCE = 1_000
"""How many rows are fetched from the server at a time."""

BAD_ESCAPES = re.compile(r"\\(?:(u0000|ud[89a-f][0-9a-f]{2})|.)", re.DOTALL)
"""Escapes in JSON text. The first group has those that ``jsonb`` refuses: of NUL and surrogates."""


class PostgresSink(Sink):
    r"""Writes each event as a row: ``observers=[PostgresSink("postgresql://user@host/name")]``.

    The tables are ``runs`` and ``events``, with an index on the item; their columns are the fields
    of `EventRecord`. Times are ``timestamptz``, values ``jsonb``. NUL, which PostgreSQL cannot
    keep, is written out as ``\u0000``.

    Needs asyncpg: the extra ``antflow[postgres]``.

    Args:
        dsn: The database. The tables are made if there are none, in the first schema of its search
            path: ``postgresql://user@host/name?search_path=monitoring``. A password that is not in
            it is read from the variable ``PGPASSWORD``, or from ``~/.pgpass``. It is in no message.
        options: See `SinkOptions`.

    Raises:
        TypeError: ``dsn`` is not a string, or an option is of the wrong type.
        ValueError: ``dsn`` is not the address of a PostgreSQL database, or an option is not
            allowed.
        ImportError: asyncpg is not installed.
    """

    def __init__(self, dsn: str, **options: Unpack[SinkOptions]) -> None:
        super().__init__(**options)
        if not isinstance(dsn, str) or not dsn:
            raise refusal(TypeError, "dsn", dsn, "must be the address of a PostgreSQL database")
        self._server = Server("dsn", dsn, LONGEST_WAIT)

    def begin_anew(self) -> None:
        """See `Sink.begin_anew`."""
        super().begin_anew()
        if (server := vars(self).get("_server")) is not None:
            server.leave()

    @property
    def target(self) -> str:
        """The database, for messages."""
        return repr(self._server)

    def open(self) -> None:
        """Connect, and make the tables if there are none."""
        self._server.do(_make_tables)

    def write(self, records: list[EventRecord]) -> None:
        """Insert a batch, in one transaction. A row that is there already stays."""
        self._server.do(partial(_insert, list(map(row_of, records))))

    def write_opened(self, facts: RunFacts) -> None:
        """Insert the row of a run that began."""
        self._execute(OPEN_RUN, opened_row(opened_record(facts)))

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Complete the row of a run that is over."""
        self._execute(CLOSE_RUN, closed_row(closed_record(end, lost)))

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def gives_up_on(self, error: Exception) -> bool:
        """Its tables are of something else, or a newer version made them."""
        return isinstance(error, ValueError)

    def _execute(self, statement: str, values: dict[str, Any]) -> None:
        query, arguments = bound(statement, values | {"timestamp": _when(values["timestamp"])})
        self._server.do(lambda connection: connection.execute(query, *arguments))


class PostgresRows:
    """What queries for the tables of a `SqliteSink` find in those of a `PostgresSink`.

    Args:
        dsn: The database.

    Raises:
        ConnectionError: It cannot be read.
        ValueError: It has no events, or a newer version wrote them.
        ImportError: asyncpg is not installed.
    """

    def __init__(self, dsn: str) -> None:
        self._server = Server("source", dsn, None)
        # The caller's thread may have an event loop that is running.
        self._thread = ThreadPoolExecutor(1, "antflow EventLog")
        self._transaction: Any = None
        self._open = 0
        try:
            formats = self._do(_formats)
            if len(formats) < len(TABLES) or None in formats.values():
                raise ValueError(f"{self._server!r}: has no events")
            _check_version(formats, f"{self._server!r}: ")
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The database, for messages."""
        return repr(self._server)

    def rows(self, query: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds in what is written so far."""
        query, arguments = bound(query, values)
        self._open += 1
        try:
            cursor = self._do(partial(self._begin, AS_IN_SQLITE + query, arguments))
            while rows := self._do(lambda _: cursor.fetch(ROWS_AT_ONCE)):
                yield from map(tuple, rows)
        finally:
            self._open -= 1
            if not self._open:
                self._thread.submit(self._end).result()

    def close(self) -> None:
        """Close the connection."""
        with self._thread:
            self._thread.submit(self._server.close).result()

    def _do(self, action: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        try:
            return self._thread.submit(self._server.do, action).result()
        except Exception as error:
            text = f"{self._server!r}: {error_type_name(error)}: {error_text(error)}"
            raise ConnectionError(text) from error
        except BaseException:  # Ctrl-C, while the server takes its time
            self._server.interrupt()
            raise

    async def _begin(self, query: str, arguments: list[Any], connection: Connection) -> Any:
        """A cursor, in a transaction with the other queries whose rows are being read.

        Each sees what is written by the time it begins ("read committed").
        """
        if not connection.is_in_transaction():
            self._transaction = connection.transaction(readonly=True)
            await self._transaction.start()
        return await connection.cursor(query, *arguments)

    def _end(self) -> None:
        """End the transaction, so that the server need not keep anything for it."""
        if self._server.is_connected:
            with suppress(Exception):  # why: a connection that fails has no transaction either
                self._server.do(lambda _: self._transaction.rollback())


def bound(query: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A query whose arguments are ``:name``, as PostgreSQL has it: they are numbered."""
    numbers: dict[str, int] = {}
    numbered = re.sub(
        r":(\w+)", lambda found: f"${numbers.setdefault(found[1], len(numbers) + 1)}", query
    )
    return numbered, [_plain(values[name]) for name in numbers]


def row_of(record: EventRecord) -> tuple[Any, ...]:
    """A record as a row of ``events``."""
    (run, seq, timestamp, kind, stage, item) = record[:6]
    error_type, error, place, value = record[12:]
    if error_type is not None:
        error_type, error, place = _plain(error_type), _plain(error), _plain(place)
    if value is not None and "\\u" in value:
        value = BAD_ESCAPES.sub(lambda found: f"\\{found[0]}" if found[1] else found[0], value)
    when = _when(timestamp)
    return (
        run,
        seq,
        when,
        kind,
        stage,
        _plain(item),
        *record[6:12],
        error_type,
        error,
        place,
        value,
    )


def _plain(value: Any) -> Any:
    """A text as PostgreSQL takes it; other values as they are."""
    if type(value) is str and "\x00" in value:
        return value.replace("\x00", "\\u0000")
    return value


def _when(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


# What is done with a connection


async def _make_tables(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        formats = await _formats(connection)
        for table, version in formats.items():
            if version is None:
                raise ValueError(f"its table {table!r} belongs to something else")
        _check_version(formats, "")
        for table, statement in TABLES.items():
            if table not in formats:
                await connection.execute(statement)
                mark = f"antflow {table}, format {VERSION}"
                await connection.execute(f"COMMENT ON TABLE {table} IS '{mark}'")


async def _formats(connection: Connection) -> dict[str, int | None]:
    """Table → version of the format, ``None`` = of something else; those that there are."""
    marks = {name: MARK.fullmatch(mark or "") for name, mark in await connection.fetch(FORMATS)}
    return {name: None if mark is None else int(mark[1]) for name, mark in marks.items()}


def _check_version(formats: Mapping[str, int | None], where: str) -> None:
    version = max(filter(None, formats.values()), default=0)
    if version > VERSION:
        raise ValueError(f"{where}was written by a newer version (its format is {version})")


async def _insert(rows: list[tuple[Any, ...]], connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(MAKE_BATCH)
        await connection.copy_records_to_table(
            "antflow_batch", records=rows, columns=EventRecord._fields
        )
        await connection.execute(INSERT)
