"""Events as rows of a database."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import EventRecord, RunRecord, SqliteSink

from .test_sink import run


def rows_of(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.sqlite"


def test_columns_of_runs_are_the_fields_of_what_is_read(path: Path) -> None:
    """``runs`` has the fields of `RunRecord`, in their order."""
    asyncio.run(run(SqliteSink(path)))
    rows = rows_of(path, "SELECT name FROM pragma_table_info('runs')")
    assert [name for (name,) in rows] == list(RunRecord._fields)


def test_writes_a_row_for_each_event(path: Path) -> None:
    """Each event is a row, and each run one with its counts."""
    sink = SqliteSink(path)
    asyncio.run(run(sink))
    asyncio.run(run(sink))
    assert rows_of(path, "SELECT count(*) FROM events") == [(sink.counts.delivered,)]
    assert (
        rows_of(path, "SELECT pipeline, stages, how, completed, failed FROM runs")
        == [("pipeline", '["Halve", "Keep"]', "finished", 4, 1)] * 2
    )
    failed = rows_of(path, "SELECT item, stage, error_type FROM events WHERE kind = 'failed'")
    assert failed == [("3", "Halve", "ValueError")] * 2


def test_columns_are_the_fields_of_the_record(path: Path) -> None:
    """The columns stand in the order of the record's fields, with their names."""
    asyncio.run(run(SqliteSink(path)))
    columns = [row[1] for row in rows_of(path, "PRAGMA table_info(events)")]
    assert tuple(columns) == EventRecord._fields


def test_any_text_is_a_row(path: Path) -> None:
    """Whatever an id or a message holds, also a lone surrogate, each event is a row."""

    def fail(value: object) -> None:
        raise ValueError("\ud800 and é")

    sink = SqliteSink(path, values=True)
    pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)], observers=[sink])
    items = [{"id": each, "value": each} for each in ("a\ud800", "\x00", "é", "😀")]
    asyncio.run(pipeline.run(items, on_failures="ignore"))
    assert (sink.counts.delivered, sink.counts.error) == (12, None)
    rows = rows_of(path, "SELECT item, error FROM events WHERE kind = 'failed' ORDER BY seq")
    assert [item for item, _ in rows] == ["a\\ud800", "\x00", "é", "😀"]
    assert {error for _, error in rows} == {"\\ud800 and é"}


def test_items_are_found_by_an_index(path: Path) -> None:
    """A query for one item reads no other rows."""
    asyncio.run(run(SqliteSink(path)))
    plan = rows_of(path, "EXPLAIN QUERY PLAN SELECT * FROM events WHERE item = '3'")
    assert "USING INDEX events_item" in plan[0][-1]


def test_can_be_read_while_a_run_writes(path: Path) -> None:
    """Another program reads rows before the run is over."""
    seen: list[int] = []

    async def reading() -> None:
        running = asyncio.create_task(
            Pipeline(
                [Stage("A", 1, [asyncio.sleep])], observers=[SqliteSink(path, every=0.001)]
            ).run([0.0, 0.05, 0.05])
        )
        while not running.done():
            await asyncio.sleep(0.005)
            with suppress(sqlite3.OperationalError):  # the tables are not made yet
                seen.extend(rows_of(path, "SELECT count(*) FROM events")[0])
        await running

    asyncio.run(reading())
    assert 0 < min(filter(None, seen)) < 9


def test_a_row_written_twice_is_there_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose commit was not heard of is written again, and no row is there twice."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.0,))

    class Doubting(SqliteSink):
        times = 0

        def write(self, records: list[EventRecord]) -> None:
            super().write(records)
            self.times += 1
            if self.times % 2:
                raise sqlite3.OperationalError("disk I/O error")

    sink = Doubting(path)
    asyncio.run(run(sink))
    assert rows_of(path, "SELECT count(*) FROM events") == [(sink.counts.emitted,)]


def test_a_disk_that_was_full_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that has no room for a moment gets every row, once there is some again."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.001,))

    class Small(SqliteSink):
        def open(self) -> None:
            super().open()
            self.limit(10)

        def write(self, records: list[EventRecord]) -> None:
            try:
                super().write(records)
            except sqlite3.OperationalError:
                self.limit(1_000)
                raise

        def limit(self, pages: int) -> None:
            assert self._connection is not None
            self._connection.execute(f"PRAGMA max_page_count = {pages}")

    sink = Small(path)
    asyncio.run(run(sink, 300))
    assert sink.counts.failures == 1
    assert not caplog.records
    assert rows_of(path, "SELECT count(*) FROM events") == [(sink.counts.emitted,)]


@pytest.mark.real_time
def test_a_later_run_waits_for_another_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins while another program writes opens the database when that is done."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())
    sink = SqliteSink(path)
    asyncio.run(run(sink))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, ["ROLLBACK"])
        timer.start()
        asyncio.run(run(sink))
        timer.join()
    assert sink.counts.failures == 0
    assert sink.counts.delivered == sink.counts.emitted


def test_waits_for_another_writer(path: Path) -> None:
    """While another program writes to the database, the sink waits and loses nothing."""
    sink = SqliteSink(path)
    asyncio.run(run(sink))
    written = sink.counts.delivered

    async def locked() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            running = asyncio.create_task(run(sink))
            await asyncio.sleep(0.05)
            connection.execute("ROLLBACK")
        await running

    asyncio.run(locked())
    assert sink.counts.delivered == 2 * written
    assert sink.counts.error is None


@pytest.mark.parametrize("kind", ["other database", "no database", "newer", "missing table"])
def test_another_file_is_left_alone(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is something else, or newer, is not touched, nor tried again; the run goes on."""
    if kind == "no database":
        path.write_bytes(b"some text of the user's\n" * 100)
    elif kind in ("newer", "missing table"):
        asyncio.run(run(SqliteSink(path)))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            change = "PRAGMA user_version = 9" if kind == "newer" else "DROP TABLE runs"
            connection.execute(change)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if kind == "missing table":
                connection.execute("CREATE TABLE runs (other TEXT)")
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE events (mine TEXT)")
    before = path.read_bytes()
    sink = SqliteSink(path)
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(sink))
    assert sink.counts.error is not None
    assert sink.counts.emitted == sink.counts.dropped > 0
    assert "SqliteSink is off, after 1 attempt at writing to" in caplog.text
    if kind != "missing table":
        assert path.read_bytes() == before


def test_a_read_only_file_is_refused(path: Path) -> None:
    """A path in a folder that does not exist is refused when the sink is made."""
    with pytest.raises(FileNotFoundError):
        SqliteSink(path / "x" / "y")
