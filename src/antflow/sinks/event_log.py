"""Reads what sinks have written: the tracker's queries, on a finished or a running log."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, Self, TypeVar

from antflow._core.addresses import SCHEMES
from antflow._core.brief import Brief
from antflow._core.checks import check_choice, refusal
from antflow._core.events import STATUSES, StatusEvent, StatusType
from antflow._core.failures import MOST_GROUPS
from antflow._core.file_names import check_home
from antflow._core.observers import RunEnding
from antflow._core.snapshot import ErrorSummary, FailedItem, FailureGroup
from antflow.sinks.postgres import PostgresRows
from antflow.sinks.records import VERSION, EventRecord, text_of_id
from antflow.sinks.sqlite import (
    APPLICATION_ID,
    CLOSE_RUN,
    INSERT,
    OPEN_RUN,
    SCHEMA,
    closed_row,
    execute,
    opened_row,
)

Answer = TypeVar("Answer")

FIRST_BYTES_OF_SQLITE = b"SQLite format 3\x00"

LONGEST_READ = 5.0
"""Seconds to wait for a database that is being changed."""

FAILED = ("failed", "cancelled")

TAKES_IN = ("admitted", "emitted")

LAST = (
    "SELECT events.* FROM events JOIN (SELECT run, max(seq) AS seq FROM events "
    "WHERE (run = :run OR :run IS NULL) GROUP BY run, sequence_id, branch) AS latest "
    "USING (run, seq)"
)
"""The last event of each item."""


class UnreadableLog(ValueError):
    """A log that was opened turns out to be damaged, or lacks something."""


class RunRecord(NamedTuple):
    """One run in a log.

    Attributes:
        run: Its id.
        pipeline: The pipeline's name.
        stages: Names of the stages, in order.
        per_task_stages: Those in which only the failed task is tried again.
        started: When it began, in Unix seconds.
        ended: When it ended; ``None``: it is under way, or its program was killed.
        how: "finished", "stopped", "cancelled" or "failed".
        accepted: Items taken in. With ``children`` it is the sum of the next five.
        children: Items made from others.
        completed: Items that came out at the end.
        failed: Items that failed for good.
        dropped: Items that ended without a result.
        expanded: Items that became others.
        cancelled: Items stopped by a cancellation or shutdown.
        dropped_events: Events that the sink lost.
        error_type: Class name of the error that the run raised.
        error: Its message.
    """

    run: str
    pipeline: str
    stages: tuple[str, ...]
    per_task_stages: tuple[str, ...]
    started: float
    ended: float | None = None
    how: RunEnding | None = None
    accepted: int | None = None
    children: int | None = None
    completed: int | None = None
    failed: int | None = None
    dropped: int | None = None
    expanded: int | None = None
    cancelled: int | None = None
    dropped_events: int | None = None
    error_type: str | None = None
    error: str | None = None


class EventLog(Brief):
    """The events that a `JsonlSink`, `SqliteSink` or `PostgresSink` has written.

    Made with `EventLog.open`. The queries are those of `StatusTracker`, and answer the same; but
    ids are text, and there are no exceptions, only their types and messages. A log may be read
    while a run writes to it: each query sees what has been written by then.

    ``run=None`` means the latest run that saw the item, or all runs.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source

    def _said(self) -> str:
        return f" {self._source.name}"

    @staticmethod
    def open(source: str | os.PathLike[str]) -> EventLog:
        """Open a log.

        Args:
            source: The file of a `SqliteSink` or a `JsonlSink`, or the address of a
                `PostgresSink`'s database, ``"postgresql://…"``. Nothing is written to it. A JSONL
                file is read into memory.

        Raises:
            TypeError: ``source`` is not a path.
            OSError: It cannot be read. Queries raise `ConnectionError` if the server fails.
            ValueError: It is not a log of events, or a newer version wrote it. Queries raise it if
                it is damaged, or lacks the record of a run that they need.
            ImportError: A database of PostgreSQL needs asyncpg: the extra ``antflow[postgres]``.
        """
        if not isinstance(source, str | os.PathLike) or not os.fspath(source):
            raise refusal(TypeError, "source", source, "must be the path of a log of events")
        if isinstance(source, str) and source.startswith(SCHEMES):
            return EventLog(PostgresRows(source))
        check_home("source", source)
        path = Path(source)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError("must be a file, not a pipe or a device: it is read more than once")
        with path.open("rb") as file:
            is_database = file.read(len(FIRST_BYTES_OF_SQLITE)) == FIRST_BYTES_OF_SQLITE
        return EventLog(Database(path) if is_database else _Lines(path))

    def close(self) -> None:
        """Close the file, or the connection."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is in it

    def runs(self) -> list[RunRecord]:
        """All runs, in the order in which they began."""
        rows = self._source.rows("SELECT * FROM runs ORDER BY started, run", {})
        return [
            RunRecord(run, pipeline, tuple(json.loads(stages)), tuple(json.loads(per_task)), *more)
            for run, pipeline, stages, per_task, *more in rows
        ]

    def events(
        self,
        *,
        run: str | None = None,
        item: object = None,
        kinds: Sequence[str] | None = None,
    ) -> Iterator[EventRecord]:
        """Events in the order in which they happened, run by run.

        Args:
            run: Only those of this run.
            item: Only those of the item with this id.
            kinds: Only those of these kinds.
        """
        wanted = {"run": run, "item": None if item is None else text_of_id(item)}
        query = "SELECT * FROM events WHERE (run = :run OR :run IS NULL)"
        if item is not None:
            query += " AND item = :item"
        if kinds is not None:
            names = {f"kind{number}": str(kind) for number, kind in enumerate(kinds)}
            query += f" AND kind IN ({', '.join(f':{name}' for name in names) or 'NULL'})"
            wanted |= names
        query += " ORDER BY (SELECT started FROM runs WHERE runs.run = events.run), run, seq"
        for row in self._source.rows(query, wanted):
            yield EventRecord(*row)

    def to_records(self) -> list[dict[str, Any]]:
        """All events as dicts, for pandas, polars and their like."""
        return [record._asdict() for record in self.events()]

    # The tracker's queries

    def get_status(self, item_id: object, run: str | None = None) -> StatusEvent | None:
        """The item's latest event; ``None`` for an unknown id."""
        history = self.get_history(item_id, run)
        return history[-1] if history else None

    def get_history(self, item_id: object, run: str | None = None) -> list[StatusEvent]:
        """All events of an item so far, oldest first; ``[]`` for an unknown id."""
        records = list(self.events(run=run, item=item_id))
        if not records:
            return []
        # Two items may have one text: `1` and `"1"`, or ids that begin with the same 200 letters.
        taken_in = [each for each in records if each.kind in TAKES_IN]
        item = _key((taken_in or records)[-1])
        return self._events_of([each for each in records if _key(each) == item])

    def _events_of(self, records: Sequence[EventRecord]) -> list[StatusEvent]:
        """The changes of status that the records of one item are, in order."""
        runs = self._known_runs()
        events: list[StatusEvent] = []
        goes_on = False  # a try of the same visit follows
        for record in records:
            facts = runs[record.run]
            if record.kind != "started" or not goes_on:
                events += self._told_by(record, facts)
            goes_on = record.kind == "retrying" and record.stage in facts.per_task_stages
        return events

    def get_by_status(self, status: StatusType, run: str | None = None) -> list[StatusEvent]:
        """The latest events of all items that have this status now.

        Raises:
            ValueError: ``status`` is not one of the six.
        """
        check_choice(ValueError, "status", status, STATUSES)
        runs = self._known_runs()
        found: list[StatusEvent] = []
        for record in self._last(run):
            if _status_after(record, runs[record.run]) == status:
                found += self.get_history(record.item, record.run)[-1:]
        return found

    def get_stats(self, run: str | None = None) -> dict[str, int]:
        """Status → how many items have it now, for all six; over all runs, or one."""
        runs = self._known_runs()
        counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
        for record in self._last(run):
            counts[_status_after(record, runs[record.run])] += 1
        return counts

    def get_tracked_ids(self, run: str | None = None) -> list[str]:
        """Ids of all items seen, each once, in the order in which they were taken in."""
        return list(dict.fromkeys(each.item for each in self.events(run=run, kinds=TAKES_IN)))

    def get_failed_items(self, run: str | None = None) -> list[FailedItem]:
        """All items that failed for good or were cancelled, oldest first."""
        return [failed_item_of(record) for record in self.events(run=run, kinds=FAILED)]

    def get_error_summary(self, run: str | None = None) -> ErrorSummary:
        """A summary of the failed and cancelled items, over all runs or one."""
        items = self.get_failed_items(run)
        by_type: dict[str, int] = {}
        by_stage: dict[str, int] = {}
        groups: dict[tuple[str, str, str], FailureGroup] = {}
        for item in items:
            by_type[item.error_type] = by_type.get(item.error_type, 0) + 1
            by_stage[item.stage] = by_stage.get(item.stage, 0) + 1
            key = (item.error_type, item.stage, item.location)
            groups.setdefault(key, FailureGroup(0, item)).count += 1
        largest = sorted(groups.values(), key=lambda group: -group.count)[:MOST_GROUPS]
        return ErrorSummary(len(items), by_type, by_stage, items, largest)

    # Inside

    def _known_runs(self) -> dict[str, RunRecord]:
        return KnownRuns((each.run, each) for each in self.runs())

    def _last(self, run: str | None) -> Iterator[EventRecord]:
        for row in self._source.rows(LAST, {"run": run}):
            yield EventRecord(*row)

    def _told_by(self, record: EventRecord, run: RunRecord) -> Iterator[StatusEvent]:
        """The changes of status that one event is."""
        stage, worker = record.stage, record.worker
        metadata: dict[str, Any] = {}
        status: StatusType | None = None
        match record.kind:
            case "admitted":
                status, worker = "queued", None
            case "started":
                status = "in_progress"
            case "completed" | "skipped":
                status = record.kind
            case "emitted" if stage == run.stages[-1]:
                status = "completed"
            case "dropped":
                status, metadata = "completed", {"dropped": True}
            case "expanded":
                status, metadata = "completed", {"expanded": self._children(record)}
            case "retrying" if stage not in run.per_task_stages:
                status, metadata = "retrying", _of_error(record)
                metadata |= {"attempt": record.attempt + 1, "retry": True}
            case "failed" | "cancelled":
                status, metadata = "failed", _of_error(record)
            case _:
                pass
        if status is not None:
            yield StatusEvent(
                record.item, stage, status, worker, record.timestamp, metadata, record.run
            )
        if (following := _next_stage(record, run)) is not None:
            yield StatusEvent(
                record.item, following, "queued", None, record.timestamp, {}, record.run
            )

    def _children(self, record: EventRecord) -> int:
        """How many items were made from one."""
        query = (
            "SELECT branch FROM events WHERE run = :run AND sequence_id = :sequence_id "
            "AND kind = 'emitted' AND stage = :stage"
        )
        prefix = f"{record.branch}." if record.branch else ""
        depth = prefix.count(".")
        branches = [row[0] for row in self._source.rows(query, record._asdict())]
        return sum(
            branch.startswith(prefix) and branch.count(".") == depth for branch in set(branches)
        )


class KnownRuns(dict[str, Answer]):
    """Run → what is known of it; an error for a run of which the log has only events."""

    def __missing__(self, run: str) -> Answer:
        raise UnreadableLog(f"the log has events of run {run}, but lacks its beginning")


def failed_item_of(record: EventRecord) -> FailedItem:
    """The failed item that a record of its failure tells of."""
    return FailedItem(
        record.item,
        record.error or "",
        record.error_type or "",
        record.stage,
        record.attempt,
        record.timestamp,
        record.place or "",
    )


def _key(record: EventRecord) -> tuple[str, int, str]:
    """The key of an item over all runs."""
    return record.run, record.sequence_id, record.branch


def _of_error(record: EventRecord) -> dict[str, Any]:
    return {"error": record.error, "error_type": record.error_type, "exception": None}


def _next_stage(record: EventRecord, run: RunRecord) -> str | None:
    """The stage for which an item waits after an event that ends a visit well."""
    if record.kind not in ("completed", "skipped", "emitted"):
        return None
    index = run.stages.index(record.stage) + 1
    return run.stages[index] if index < len(run.stages) else None


def _status_after(record: EventRecord, run: RunRecord) -> StatusType:
    if record.kind == "admitted" or _next_stage(record, run) is not None:
        return "queued"
    if record.kind == "started":
        return "in_progress"
    if record.kind == "retrying":
        return "in_progress" if record.stage in run.per_task_stages else "retrying"
    if record.kind in FAILED:
        return "failed"
    return "skipped" if record.kind == "skipped" else "completed"


class _Source(Protocol):
    """A database of events."""

    @property
    def name(self) -> str: ...

    def rows(self, query: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]: ...

    def close(self) -> None: ...


class _Sqlite:
    """A database of SQLite."""

    _connection: sqlite3.Connection
    _path: Path

    @property
    def name(self) -> str:
        """The file, for messages."""
        return repr(str(self._path))

    def rows(self, query: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds in what is written so far."""
        try:
            # Not `yield from`: if this is left half way, that closes the cursor, perhaps too late.
            for row in execute(self._connection, query, values):  # noqa: UP028
                yield row
        except sqlite3.DatabaseError as error:
            raise UnreadableLog(f"{self._path}: cannot be read: {error}") from error

    def close(self) -> None:
        self._connection.close()


class Database(_Sqlite):
    """The file of a `SqliteSink`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(
            uri, timeout=LONGEST_READ, uri=True, isolation_level=None
        )
        try:
            (found,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if found != APPLICATION_ID or version > VERSION:
            self._connection.close()
            reason = (
                "was written by a newer version" if found == APPLICATION_ID else "has no events"
            )
            raise ValueError(f"{path}: {reason}")


class _Lines(_Sqlite):
    """The file of a `JsonlSink`, in a database in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines = 0
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            self._connection.executescript(SCHEMA)
            self._take_in()
        except BaseException:
            self._connection.close()
            raise

    def rows(self, query: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        self._take_in()
        return super().rows(query, values)

    def _take_in(self) -> None:
        """Read the whole lines that have come since."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read:
                    raise UnreadableLog(f"{self._path}: has become shorter while it was read")
                file.seek(self._read)
                self._take_in_lines(file)
        except OSError as error:
            raise UnreadableLog(f"{self._path}: {error.strerror}") from error

    def _take_in_lines(self, file: BinaryIO) -> None:
        self._connection.execute("BEGIN")
        try:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is still being written
                self._take_in_line(line)
                self._lines += 1
                self._read += len(line)
        finally:
            self._connection.execute("COMMIT")

    def _take_in_line(self, line: bytes) -> None:
        try:
            statement, values = _row_of(line)
            execute(self._connection, statement, values)
        except BROKEN as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            text = f"{self._path}, line {self._lines + 1:,}: not an event: {reason}"
            raise UnreadableLog(text) from error


def _row_of(line: bytes) -> tuple[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    kind, version = record["kind"], record["v"]
    if version > VERSION:
        raise ValueError(f"format {version} is newer than this version of antflow")
    if kind == "run_opened":
        return OPEN_RUN, opened_row(record)
    if kind == "run_closed":
        return CLOSE_RUN, closed_row(record)
    if "value" in record:
        record["value"] = json.dumps(record["value"])
    filled = {"branch": "", "duration": 0.0, "waited": 0.0} | record
    return INSERT, [filled.get(name) for name in EventRecord._fields]


BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,  # a number that is too large for SQLite
    sqlite3.Error,
)
"""What a line raises that is not an event."""
