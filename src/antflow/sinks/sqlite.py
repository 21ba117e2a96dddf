"""Events as rows of an SQLite database."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Unpack

from antflow._core.forked import leave_to_parent
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.same_file import is_same_file
from antflow.sinks.columns import EVENTS, RUNS, definitions
from antflow.sinks.file_sink import GONE, FileSink
from antflow.sinks.records import VERSION, EventRecord
from antflow.sinks.run_records import closed_record, opened_record
from antflow.sinks.sink import SinkOptions

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS runs (
{definitions(RUNS, "sqlite", "run")}
) STRICT;
CREATE TABLE IF NOT EXISTS events (
{definitions(EVENTS, "sqlite", "run, seq")}
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_item ON events (item);
"""

INSERT = f"INSERT OR IGNORE INTO events VALUES ({', '.join('?' * len(EVENTS))})"  # noqa: S608

OPEN_RUN = (
    "INSERT OR IGNORE INTO runs (run, pipeline, stages, per_task_stages, started) "
    "VALUES (:run, :pipeline, :stages, :per_task_stages, :timestamp)"
)

CLOSE_RUN = (
    "UPDATE runs SET ended = :timestamp, how = :how, accepted = :accepted, children = :children, "
    "completed = :completed, failed = :failed, dropped = :dropped, expanded = :expanded, "
    "cancelled = :cancelled, "
    "dropped_events = :dropped_events, error_type = :error_type, error = :error WHERE run = :run"
)

APPLICATION_ID = 0x616E7466
"""``antf``: tells an event log from other SQLite files."""

_left_to_parent: list[Path] = []
"""Databases that a parent process had open when it was forked."""

LONGEST_LOCK = 5.0
"""Seconds to wait while another program writes to the database."""


def opened_row(record: dict[str, Any]) -> dict[str, Any]:
    """The values of `OPEN_RUN`."""
    lists = {name: json.dumps(record[name]) for name in ("stages", "per_task_stages")}
    return record | lists


def closed_row(record: dict[str, Any]) -> dict[str, Any]:
    """The values of `CLOSE_RUN`."""
    return {"error_type": None, "error": None} | record


def execute(
    connection: sqlite3.Connection, statement: str, values: Any, many: bool = False
) -> sqlite3.Cursor:
    """Execute a statement with values, or with ``many`` rows of them.

    SQLite takes no lone surrogates, which Python has in names of files that are not UTF-8. As in
    other files they become a backslash and a number.
    """
    run = connection.executemany if many else connection.execute
    try:
        return run(statement, values)
    except UnicodeEncodeError:
        return run(statement, [_encodable(row) for row in values] if many else _encodable(values))


def check_database(path: str | os.PathLike[str]) -> None:
    """Refuse a file to which a `SqliteSink` would add nothing.

    Raises:
        ValueError: It is not a database, is one of something else, or a newer version wrote it.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, timeout=0, uri=True)) as connection:
        try:
            _check(connection)
        except sqlite3.OperationalError:  # busy or away: the sink tries again
            pass
        except sqlite3.DatabaseError as error:
            raise ValueError(f"it is not a database of events: {error}") from error


def _check(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and found != APPLICATION_ID:
        raise ValueError("it is a database of something else")
    if version > VERSION:
        raise ValueError(f"it was written by a newer version (its format is {version})")


def _encodable(row: Any) -> Any:
    if isinstance(row, dict):
        return dict(zip(row, _encodable(row.values()), strict=True))
    return [
        each.encode("utf-8", "backslashreplace").decode() if isinstance(each, str) else each
        for each in row
    ]


class SqliteSink(FileSink):
    """Writes each event as a row: ``observers=[SqliteSink("events.sqlite")]``.

    The tables are ``runs`` and ``events``, with an index on the item; their columns are the fields
    of `EventRecord`. Other programs can read while a run writes (the database is in WAL mode).

    Args:
        path: The database. Its folder must exist; the tables are made if there are none.
        options: See `SinkOptions`.

    Raises:
        TypeError: ``path`` is not a path, or an option is of the wrong type.
        ValueError: An option is not allowed.
        OSError: There is no such folder, or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[SinkOptions]) -> None:
        super().__init__(path, **options)

    def begin_anew(self) -> None:
        """See `Sink.begin_anew`."""
        super().begin_anew()
        if (connection := vars(self).get("_connection")) is not None:
            leave_to_parent(connection)
            _left_to_parent.append(self._path)
        self._connection: sqlite3.Connection | None = None
        self._status: os.stat_result | None = None

    def open(self) -> None:
        """Open the database, and make its tables if there are none."""
        if any(is_same_file(self._path, path) for path in _left_to_parent):
            # SQLite believes that this process has the locks of its parent.
            raise ValueError("this process was forked while the database was open: use another")
        connection = sqlite3.connect(self._path, timeout=LONGEST_LOCK, isolation_level=None)
        try:
            _check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(  # a lock that is needed later only is not waited for
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {VERSION}; COMMIT"
            )
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._status = os.stat(self._path)

    def write(self, records: list[EventRecord]) -> None:
        """Insert a batch, in one transaction. A row that is there already stays."""
        self._execute(INSERT, records, many=True)

    def write_opened(self, facts: RunFacts) -> None:
        """Insert the row of a run that began."""
        self._execute(OPEN_RUN, opened_row(opened_record(facts)))

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Complete the row of a run that is over."""
        self._execute(CLOSE_RUN, closed_row(closed_record(end, lost)))

    def close(self) -> None:
        """Close the database."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._check_place()

    def gives_up_on(self, error: Exception) -> bool:
        """The file is not a database, is damaged, or has other tables than these."""
        if isinstance(error, sqlite3.OperationalError):  # busy, full, away; or a fault in SQL
            return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
        return isinstance(error, sqlite3.DatabaseError) or super().gives_up_on(error)

    def _execute(self, statement: str, values: Any, many: bool = False) -> None:
        connection = self._connection
        assert connection is not None
        self._check_place()
        connection.execute("BEGIN IMMEDIATE")
        try:
            execute(connection, statement, values, many)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise

    def _check_place(self) -> None:
        """Refuse to go on if another program has taken the database away."""
        assert self._status is not None
        try:
            is_there = os.path.samestat(self._status, os.stat(self._path))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise ValueError(GONE)
