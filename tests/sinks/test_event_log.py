"""A log read back answers what the tracker that heard the same run answers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, ErrorSummary, Pipeline, Stage, StatusEvent, StatusTracker
from antflow._core.events import STATUSES
from antflow.sinks import EventLog, JsonlSink, PostgresSink, Sink, SqliteSink
from antflow.testing import FailTimes, run_virtual

SINKS: dict[str, Callable[[str], Sink]] = {
    "jsonl": JsonlSink,
    "sqlite": SqliteSink,
    "postgres": PostgresSink,
}


@pytest.fixture(params=["jsonl", "sqlite", pytest.param("postgres", marks=pytest.mark.process)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    """Where a log of this kind is going to be."""
    if kind == "postgres":
        return str(request.getfixturevalue("postgres").schema())
    return str(tmp_path / "log")


def by_three(number: int) -> int:
    if number % 3 == 0:
        raise ValueError(f"no {number}")
    return number


def no_fours(number: int) -> int:
    if number % 4 == 0:
        raise Drop
    return number


def twice(number: int) -> list[int]:
    return [number, number + 100]


def flaky() -> FailTimes:
    return FailTimes(1)


def together(numbers: list[int]) -> list[Any]:
    return [ValueError(f"bad {number}") if number == 5 else number for number in numbers]


async def soon(number: int) -> int:
    await asyncio.sleep(number / 10)
    return number


PIPELINES: dict[str, Callable[[], list[Stage[Any, Any]]]] = {
    "plain": lambda: [Stage("A", 3, [soon]), Stage("B", 2, [soon])],
    "failures": lambda: [Stage("A", 2, [by_three], task_attempts=1), Stage("B", 1, [soon])],
    "tries per task": lambda: [Stage("A", 2, [soon, flaky()], task_attempts=3)],
    "tries per stage": lambda: [
        Stage("A", 2, [soon, flaky()], retry="per_stage", stage_attempts=3),
        Stage("B", 1, [by_three], retry="per_stage", stage_attempts=2, stage_wait_seconds=1),
    ],
    "drop": lambda: [Stage("A", 2, [no_fours]), Stage("B", 2, [soon])],
    "skip": lambda: [
        Stage("A", 1, [soon], skip_if=lambda value: value == 2),
        Stage("B", 1, [soon]),
    ],
    "expand": lambda: [
        Stage("A", 1, [twice], expand=True),
        Stage("B", 2, [twice], expand=True),
        Stage("C", 2, [by_three], task_attempts=1),
    ],
    "expand last": lambda: [Stage("A", 1, [soon]), Stage("B", 2, [twice], expand=True)],
    "batch": lambda: [
        Stage("A", 2, [soon]),
        Stage("B", 1, [together], batch=3, task_attempts=1),
    ],
}


def told(event: StatusEvent, kind: str) -> StatusEvent:
    """An event as a log has it: the id is text, and the exception is gone."""
    metadata = event.metadata | {"exception": None} if "exception" in event.metadata else {}
    metadata = metadata or event.metadata
    timestamp = event.timestamp
    if kind == "postgres":  # which keeps microseconds
        timestamp = datetime.fromtimestamp(timestamp, UTC).timestamp()
    return replace(event, item_id=str(event.item_id), metadata=metadata, timestamp=timestamp)


def summed(summary: ErrorSummary) -> Any:
    items = [(str(each.item_id), each.error, each.stage) for each in summary.failed_items]
    groups = [(group.count, group.error_type, group.location) for group in summary.groups]
    return summary.total_failed, summary.errors_by_type, summary.errors_by_stage, items, groups


def place(event: StatusEvent) -> Any:
    return event.item_id, event.timestamp


def watched(stages: list[Stage[Any, Any]], source: str, kind: str, **options: Any) -> StatusTracker:
    tracker = StatusTracker()
    pipeline = Pipeline(stages, status_tracker=tracker, observers=[SINKS[kind](source)])
    run_virtual(lambda: pipeline.run(range(1, 8), on_failures="ignore", **options))
    return tracker


@pytest.mark.parametrize("name", PIPELINES)
def test_answers_as_the_tracker(source: str, kind: str, name: str) -> None:
    """History, statuses, counts, ids and failures are those of the tracker."""
    tracker = watched(PIPELINES[name](), source, kind)
    with EventLog.open(source) as log:
        ids = tracker.get_tracked_ids()
        assert sorted(log.get_tracked_ids()) == sorted(map(str, ids))
        for item_id in ids:
            assert log.get_history(item_id) == [told(e, kind) for e in tracker.get_history(item_id)]
            status = tracker.get_status(item_id)
            assert status is not None
            assert log.get_status(item_id) == told(status, kind)
        assert log.get_stats() == tracker.get_stats()
        (run,) = log.runs()
        assert run.accepted == 7
        settled = (run.completed, run.failed, run.dropped, run.expanded, run.cancelled)
        assert sum(filter(None, settled)) == run.accepted + (run.children or 0)
        assert summed(log.get_error_summary()) == summed(tracker.get_error_summary())
        for name in STATUSES:
            found = [told(event, kind) for event in tracker.get_by_status(name)]
            assert sorted(log.get_by_status(name), key=place) == sorted(found, key=place)


def test_answers_as_the_tracker_after_a_timeout(source: str, kind: str) -> None:
    """Items that were cancelled have the same history, too."""
    tracker = StatusTracker()
    pipeline = Pipeline(
        PIPELINES["plain"](), status_tracker=tracker, observers=[SINKS[kind](source)]
    )

    async def stopped() -> None:
        with pytest.raises(TimeoutError):
            await pipeline.run(range(50), timeout=1.05)

    run_virtual(stopped)
    with EventLog.open(source) as log:
        for item_id in tracker.get_tracked_ids():
            assert log.get_history(item_id) == [told(e, kind) for e in tracker.get_history(item_id)]
        assert log.get_stats() == tracker.get_stats()
        (run,) = log.runs()
        assert (run.how, run.error_type) == ("failed", "TimeoutError")


def test_tells_runs_apart(source: str, kind: str) -> None:
    """Of two runs with the same ids, the latest is asked, or the one that is named."""
    watched(PIPELINES["failures"](), source, kind)
    watched(PIPELINES["plain"](), source, kind)
    with EventLog.open(source) as log:
        first, second = log.runs()
        assert first.started <= second.started
        assert (first.failed, second.failed) == (2, 0)
        latest = log.get_status(2)
        assert latest is not None
        assert (latest.run_id, latest.status) == (second.run, "completed")
        earlier = log.get_status(2, first.run)
        assert earlier is not None
        assert earlier.status == "failed"
        assert log.get_stats(first.run) == log.get_stats() | {"completed": 5}
        assert log.get_status("none") is None


@pytest.mark.real_time
def test_reads_a_running_log(source: str, kind: str) -> None:
    """While a run writes, each query sees what is written by then."""
    seen: list[int] = []

    async def reading() -> None:
        sink = SINKS[kind](source)
        sink._every = 0.001
        stages = [Stage("A", 1, [asyncio.sleep])]
        running = asyncio.create_task(Pipeline(stages, observers=[sink]).run([0.05] * 5))
        await asyncio.sleep(0.06)
        sink.flush()
        with EventLog.open(source) as log:
            while not running.done():
                seen.append(sum(1 for _ in log.events()))
                await asyncio.sleep(0.01)
            await running
            seen.append(sum(1 for _ in log.events()))

    asyncio.run(reading())
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == 15


def test_events_are_filtered(source: str, kind: str) -> None:
    """Events can be asked for by run, item and kind, and come as dicts."""
    watched(PIPELINES["failures"](), source, kind)
    with EventLog.open(source) as log:
        assert {event.item for event in log.events(kinds=["failed"])} == {"2", "5"}
        assert {event.item for event in log.events(item=2)} == {"2"}
        assert not list(log.events(run="other"))
        records = log.to_records()
        assert len(records) == sum(1 for _ in log.events())
        assert records[0]["kind"] == "admitted"


@pytest.mark.parametrize(
    "item_id",
    ["é😀", "a\udcffb", "\x00", "a:b", "%s", "x" * 300, "\ud800" * 150, 12, (1, "x")],
    ids=ascii,
)
def test_any_item_is_found_by_its_id(source: str, kind: str, item_id: Any) -> None:
    """Whatever an id is, the log that has the item finds it by that id; and messages are kept."""

    def fail(value: str) -> None:
        raise ValueError(value)

    stages = [Stage("A", 1, [fail], task_attempts=1)]
    sink = SINKS[kind](source)
    pipeline = Pipeline(stages, name="\ud800\x00", observers=[sink])
    text = str(item_id)
    run_virtual(
        lambda: pipeline.run([{"id": item_id, "value": text}, "other"], on_failures="ignore")
    )
    assert sink.counts.error is None
    with EventLog.open(source) as log:
        event = log.get_status(item_id)
        assert event is not None
        assert event.status == "failed"
        other = log.get_status(1)
        assert other is not None
        assert other.metadata["error"] == "other"
        assert len(log.get_failed_items()) == 2
        assert len(log.runs()) == 1


@pytest.mark.parametrize(
    "value",
    ["é😀", "a\udcffb", "\x00", "\\u0000", "\\\x00\ud800\\ud800", '\n"\\', "x" * 40_000],
    ids=ascii,
)
def test_any_value_is_read_back(source: str, kind: str, value: str) -> None:
    """Values come back as they were; PostgreSQL has NUL and surrogates written out."""
    sink = SINKS[kind](source)
    sink.wants_values = True
    pipeline = Pipeline([Stage("A", 1, [lambda each: {each: [each]}])], observers=[sink])
    run_virtual(lambda: pipeline.run([value]))
    if kind == "postgres":
        value = value.replace("\x00", "\\u0000").encode("utf-8", "backslashreplace").decode()
    with EventLog.open(source) as log:
        (event,) = log.events(kinds=["completed"])
        assert event.to_dict()["value"] == {value: [value]}


def test_ids_with_one_text(source: str, kind: str) -> None:
    """Of items whose ids are the same in a text, the latest is found, and not a mixture."""
    tracker = StatusTracker()
    stages: list[Stage[Any, Any]] = [Stage("A", 1, [soon])]
    pipeline = Pipeline(stages, status_tracker=tracker, observers=[SINKS[kind](source)])
    ids = [1, "1", "x" * 300, "a\ud800"]
    run_virtual(lambda: pipeline.run([{"id": each, "value": 1} for each in ids]))
    with EventLog.open(source) as log:
        for each in ids:
            latest = "1" if each == 1 else each
            found = log.get_history(each)
            assert [event.status for event in found] == ["queued", "in_progress", "completed"]
            timestamps = [event.timestamp for event in tracker.get_history(latest)]
            close = pytest.approx(timestamps, abs=1e-6, rel=0)  # a database keeps microseconds
            assert [event.timestamp for event in found] == close


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    """Part of a line at the end is read when it is whole."""
    path = tmp_path / "log"
    watched(PIPELINES["plain"](), str(path), "jsonl")
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with EventLog.open(path) as log:
        assert log.runs()[0].ended is None
        path.write_bytes(data)
        assert log.runs()[0].ended is not None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hello\n", "line 1: not an event"),
        (b'{"a": 1}\n', "line 1: not an event: it has no 'kind'"),
        (b"[1]\n", "line 1: not an event"),
        (b'{"v": 9, "kind": "failed"}\n', "format 9 is newer"),
        (b'{"v": 1, "kind": "failed", "run": "a", "seq": 99999999999999999999}\n', "too large"),
        (b'{"v": 1, "kind": "failed", "run": {}}\n', "line 1: not an event"),
        (b"SQLite format 3\x00 and more", "cannot be read"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    """A file that holds something else is refused, with the place."""
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text):
        EventLog.open(path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    """A database of something else, or of a newer version, is refused."""
    path = tmp_path / "log"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE events (mine TEXT)")
    with pytest.raises(ValueError, match="has no events"):
        EventLog.open(path)
    path.unlink()
    watched(PIPELINES["plain"](), str(path), "sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match="written by a newer version"):
        EventLog.open(path)


@pytest.mark.parametrize("source", [None, 3, ""])
def test_no_path_is_refused(source: Any) -> None:
    """Something that is not a path is refused."""
    with pytest.raises(TypeError, match="must be the path of a log of events"):
        EventLog.open(source)


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"], indirect=True)
def test_reading_changes_nothing(source: str, kind: str) -> None:
    """The file is the same after it has been read."""
    path = Path(source)
    watched(PIPELINES["plain"](), source, kind)
    before = path.read_bytes()
    with EventLog.open(path) as log:
        log.get_stats()
    assert path.read_bytes() == before
    if kind == "jsonl":
        assert all(json.loads(line) for line in before.splitlines())


def test_a_log_that_lacks_the_beginning_of_a_run_says_so(tmp_path: Path) -> None:
    """Of the end of a file, what needs no more than events is answered; the rest is refused."""
    path = a_log(tmp_path / "events.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[3:]))
    with EventLog.open(path) as log:
        assert len(list(log.events())) == 7
        assert log.get_failed_items()
        queries: list[Callable[[], object]] = [
            lambda: log.get_history(2),
            lambda: log.get_by_status("completed"),
            log.get_stats,
        ]
        for query in queries:
            with pytest.raises(ValueError, match=r"has events of run .*, but lacks its beginning"):
                query()


@pytest.mark.parametrize("statement", ["DROP TABLE runs", "DROP TABLE events"])
def test_a_database_that_is_damaged_is_refused(tmp_path: Path, statement: str) -> None:
    """A query that cannot be answered says which file is damaged."""
    path = a_log(tmp_path / "events.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    with EventLog.open(path) as log, pytest.raises(ValueError, match="sqlite: cannot be read: no"):
        log.get_history(2)


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """What stands in a file that has become shorter is not taken for what was added."""
    path = a_log(tmp_path / "events.jsonl")
    with EventLog.open(path) as log:
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(ValueError, match="has become shorter"):
            log.runs()
        path.unlink()
        with pytest.raises(ValueError, match="No such file"):
            log.runs()


def test_a_line_that_is_no_event_keeps_its_number(tmp_path: Path) -> None:
    """Each query names the same line."""
    path = a_log(tmp_path / "events.jsonl")
    with EventLog.open(path) as log:
        lines = len(path.read_bytes().splitlines())
        with path.open("ab") as file:
            file.write(b"[" * 100_000 + b"\n")
        for _ in range(2):
            with pytest.raises(ValueError, match=f"line {lines + 1}: not an event"):
                log.runs()


def test_events_may_be_left_half_way(tmp_path: Path) -> None:
    """An iterator that outlives its log does no harm."""
    with EventLog.open(a_log(tmp_path / "events.sqlite")) as log:
        events = log.events()
        assert next(events).kind == "admitted"
    del events


def a_log(path: Path) -> Path:
    sink = JsonlSink(path) if path.suffix == ".jsonl" else SqliteSink(path)
    stages = [Stage("A", 1, [by_three], task_attempts=1)]
    run_virtual(
        lambda: Pipeline(stages, observers=[sink]).run([1, 2, 3], on_failures="ignore"),
    )
    return path
