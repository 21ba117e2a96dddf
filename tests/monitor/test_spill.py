"""A tracker whose history is on disk answers as one that keeps everything in memory."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from antflow import HistoryNotKept, Pipeline, Stage, StatusEvent, StatusTracker
from antflow._core.events import STATUSES
from antflow._monitor import short_history
from antflow.sinks import EventLog, JsonlSink
from antflow.testing import FailTimes, run_virtual
from tests.sinks.test_event_log import PIPELINES, by_three
from tests.support import odd_only, same

OPTIONS: dict[str, dict[str, Any]] = {
    "spill": {},
    "no failed": {"keep_failed": False},
    "none": {"history": None},
    "last": {"history": "last"},
    "last, no failed": {"history": "last", "keep_failed": False},
    "two": {"history": 2},
}


class Twins(StatusTracker):
    """Two trackers that hear the same runs; the first one keeps everything.

    Args:
        other: The second one.
        each: Called after each step.
    """

    def __init__(self, other: StatusTracker, each: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.other = other
        self.each = each

    def follow(self) -> Any:
        return Pair([super().follow(), self.other.follow()], self.each)


class Pair:
    """Two listeners as one."""

    name = "twins"
    hears_starts = True
    may_hold = False
    tasks: Mapping[Any, Any] = MappingProxyType({})

    def __init__(self, listeners: Sequence[Any], each: Callable[[], None] | None) -> None:
        self.listeners = listeners
        self.each = each

    def entering(self, envelope: Any) -> None:
        pass

    def opened(self, *what: Any) -> None:
        for listener in self.listeners:
            listener.opened(*what)

    def tell(self, method: str, *what: Any) -> None:
        for listener in self.listeners:
            if method != "started" or listener.hears_starts:
                assert getattr(listener, method)(*what) is None
        if self.each is not None:
            self.each()

    def admitted(self, *what: Any) -> None:
        self.tell("admitted", *what)

    def started(self, *what: Any) -> None:
        self.tell("started", *what)

    def completed(self, *what: Any) -> None:
        self.tell("completed", *what)

    def ended(self, *what: Any) -> None:
        self.tell("ended", *what)

    def closed(self, end: Any) -> Any:
        waits = [listener.closed(end) for listener in self.listeners]
        assert waits[0] is None
        return waits[1]


def plain(event: StatusEvent | None) -> StatusEvent | None:
    """An event without its exception, which no file has."""
    if event is None or "exception" not in event.metadata:
        return event
    return replace(event, metadata=event.metadata | {"exception": None})


def answers(tracker: StatusTracker, run: str | None = None) -> dict[str, Any]:
    """The answers to all queries."""
    ids = tracker.get_tracked_ids(run)
    summary = tracker.get_error_summary(run)
    return {
        "ids": [(type(each), each) for each in ids],
        "stats": tracker.get_stats(run),
        "history": {
            str(each): [plain(event) for event in tracker.get_history(each, run)] for each in ids
        },
        "status": {str(each): plain(tracker.get_status(each, run)) for each in ids},
        "by status": {
            status: [plain(event) for event in tracker.get_by_status(status, run)]
            for status in STATUSES
        },
        "summary": replace(summary, failed_items=[_given(each) for each in summary.failed_items]),
        "groups": [(group.count, group.error_type, group.location) for group in summary.groups],
        "failed": [_given(each) for each in tracker.get_failed_items(run)],
    }


def _given(item: Any) -> Any:
    return replace(item, input="")


def follow(tracker: StatusTracker, items: Any) -> None:
    pipeline = Pipeline([Stage("A", 1, [same])], status_tracker=tracker)
    run_virtual(lambda: pipeline.run(items))


def twins(tmp_path: Path, each: Callable[[], None] | None = None, **options: Any) -> Twins:
    return Twins(StatusTracker(spill=tmp_path / "events.sqlite", **options), each)


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return OPTIONS[request.param]


@pytest.mark.parametrize("name", PIPELINES)
def test_answers_as_one_that_keeps_everything(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """After a run, and after a second one, every query has the same answer, in the same order."""
    tracker = twins(tmp_path, **options)
    pipeline = Pipeline(PIPELINES[name](), status_tracker=tracker)
    for _ in range(2):
        results = run_virtual(lambda: pipeline.run(range(1, 8), on_failures="ignore"))
        assert answers(tracker.other) == answers(tracker)
        assert answers(tracker.other, results.run_id) == answers(tracker, results.run_id)
    with EventLog.open(tmp_path / "events.sqlite") as log:
        assert log.get_stats() == tracker.get_stats()
        assert len(log.runs()) == 2


@pytest.mark.parametrize("name", PIPELINES)
def test_answers_the_same_in_the_middle_of_a_run(tmp_path: Path, name: str) -> None:
    """In the middle of a run, every query has the same answer."""
    tracker = twins(tmp_path, lambda: compare())
    steps = count()
    differing: list[Any] = []

    def compare() -> None:
        if next(steps) % 5:
            return
        mine, theirs = answers(tracker.other), answers(tracker)
        if mine != theirs:
            differing.append((mine, theirs))

    run_virtual(
        lambda: Pipeline(PIPELINES[name](), status_tracker=tracker).run(
            range(1, 8), on_failures="ignore"
        )
    )
    assert differing == []


def test_answers_the_same_after_a_timeout(tmp_path: Path, options: dict[str, Any]) -> None:
    """Items that were cancelled have the same history, too."""
    tracker = twins(tmp_path, **options)

    pipeline = Pipeline(PIPELINES["plain"](), status_tracker=tracker)

    async def stopped() -> None:
        with pytest.raises(TimeoutError):
            await pipeline.run(range(50), timeout=1.05)

    run_virtual(stopped)
    assert answers(tracker.other) == answers(tracker)


class Own:
    """An id of the user's own class."""

    def __str__(self) -> str:
        return "own"


OWN = [Own(), Own()]
IDS: dict[str, list[Any]] = {
    "numbers and their texts": [3, "3", 4, "5", "x"],
    "texts of numbers": ["3", "004", "-1", "x", 7],
    "long": ["x" * 300, "x" * 301, "y" * 200],
    "odd": [None, 2.5, True, (1, 2), b"3", "None", "\ud800", 10**300],
    "own": [*OWN, "own"],
    "equal": [3, Decimal(4), "4"],
}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_those_of_the_items(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """Ids come back as they were, also those that are the same in a text."""
    tracker = twins(tmp_path, **options)
    items = [{"id": each, "value": number} for number, each in enumerate(IDS[name])]
    pipeline = Pipeline([Stage("A", 1, [by_three], task_attempts=1)], status_tracker=tracker)
    run_virtual(lambda: pipeline.run(items, on_failures="ignore"))
    ids = tracker.get_tracked_ids()
    assert [*map(repr, tracker.other.get_tracked_ids())] == [*map(repr, ids)]
    for each in [*ids, 3.0, "4", "unknown", 99]:
        mine, theirs = tracker.other.get_history(each), tracker.get_history(each)
        assert [*map(plain, mine)] == [*map(plain, theirs)]
    for status in STATUSES:
        mine, theirs = tracker.other.get_by_status(status), tracker.get_by_status(status)
        assert [event.item_id for event in mine] == [event.item_id for event in theirs]


def test_ids_that_come_again(tmp_path: Path) -> None:
    """Of several items with one id, the latest is found."""
    tracker = twins(tmp_path)
    pipeline = Pipeline(
        [Stage("A", 1, [odd_only], task_attempts=1)], collect_results=False, status_tracker=tracker
    )
    items = [{"id": "x", "value": value} for value in (1, 2, 3)]

    async def main() -> None:
        async with pipeline.open() as run:
            for item in items:
                await run.feed([item])
                await asyncio.sleep(1)

    run_virtual(main)
    assert tracker.other.get_history("x") == tracker.get_history("x")


def test_failed_items_beyond_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed items that are no longer in memory are read from the file."""
    monkeypatch.setattr(short_history, "MOST_FAILED", 3)
    tracker = twins(tmp_path)
    pipeline = Pipeline([Stage("A", 2, [odd_only], task_attempts=1)], status_tracker=tracker)
    run_virtual(lambda: pipeline.run(range(20), on_failures="ignore"))
    assert answers(tracker.other) == answers(tracker)
    kept = tracker.other.get_status(18)
    assert kept is not None
    assert isinstance(kept.metadata["exception"], ValueError)


def test_callback_finds_its_own_event(tmp_path: Path) -> None:
    """A callback may ask for the item it is told of, and for any other."""
    seen: list[Any] = []

    def ask(event: StatusEvent) -> None:
        seen.append(event in tracker.get_history(event.item_id))
        seen.append(len(tracker.get_tracked_ids()) > 0)

    tracker = StatusTracker(ask, spill=tmp_path / "events.sqlite")
    stages = [Stage("A", 1, [FailTimes(1)], retry="per_stage"), Stage("B", 1, [odd_only])]
    run_virtual(
        lambda: Pipeline(stages, status_tracker=tracker).run(range(4), on_failures="ignore")
    )
    assert seen
    assert all(seen)
    assert tracker.callback_errors == 0


def test_copies_read_the_same_file(tmp_path: Path) -> None:
    """A copy, also one that was pickled, answers for the runs before, and follows new ones."""
    tracker = StatusTracker(spill=tmp_path / "events.sqlite")
    follow(tracker, range(3))
    for other in (copy.copy(tracker), copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        assert other.get_history(1) == tracker.get_history(1)
        follow(other, range(2))
        assert other.get_stats()["completed"] == 5
        assert len(other.get_history(1)) == 3
    assert tracker.get_stats()["completed"] == 3


def test_earlier_runs_in_the_file_stay(tmp_path: Path) -> None:
    """A tracker adds to a file, and answers only for runs that it followed."""
    path = tmp_path / "events.sqlite"
    for _ in range(2):
        tracker = StatusTracker(spill=path)
        follow(tracker, [1, 2])
        assert tracker.get_tracked_ids() == [0, 1]
        assert len(tracker.get_by_status("completed")) == 2
    with EventLog.open(path) as log:
        assert len(log.runs()) == 2


def test_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If events are lost, the totals stay exact, and other questions are refused."""
    from antflow._monitor.spill import SpillSink

    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())
    tracker = StatusTracker(spill=tmp_path / "events.sqlite", keep_failed=False)
    pipeline = Pipeline([Stage("A", 1, [odd_only], task_attempts=1)], status_tracker=tracker)
    with monkeypatch.context() as patched:
        patched.setattr(SpillSink, "write", fail)
        results = run_virtual(lambda: pipeline.run(range(5), on_failures="ignore"))
    assert tracker.get_stats() | {"completed": 2, "failed": 3} == tracker.get_stats()
    assert tracker.get_error_summary().total_failed == 3
    assert tracker.get_error_summary().errors_by_type == {"ValueError": 3}
    for ask in (
        lambda: tracker.get_history(1),
        lambda: tracker.get_status(1),
        lambda: tracker.get_by_status("completed"),
        lambda: tracker.get_failed_items(),
        lambda: tracker.get_tracked_ids(),
    ):
        with pytest.raises(HistoryNotKept, match=r"lacks 15 events .*No space left"):
            ask()
    again = run_virtual(lambda: pipeline.run(range(5), on_failures="ignore"))
    assert len(tracker.get_history(1)) == 3
    assert len(tracker.get_failed_items(again.run_id)) == 3
    with pytest.raises(HistoryNotKept, match="lacks 15 events"):
        tracker.get_history(1, results.run_id)


def test_file_that_is_gone(tmp_path: Path) -> None:
    """If the file is no longer there, the totals are, and other questions are refused."""
    path = tmp_path / "events.sqlite"
    tracker = StatusTracker(spill=path)
    follow(tracker, range(3))
    path.unlink()
    assert tracker.get_stats()["completed"] == 3
    assert tracker.get_error_summary().total_failed == 0
    with pytest.raises(HistoryNotKept, match="cannot be read"):
        tracker.get_history(1)


def test_file_that_is_damaged(tmp_path: Path) -> None:
    """A file that turns out to be damaged is as one that is not there."""
    path = tmp_path / "events.sqlite"
    tracker = StatusTracker(history=None, spill=path)
    follow(tracker, range(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")
    with pytest.raises(HistoryNotKept, match="cannot be read"):
        tracker.get_history(1)
    with pytest.raises(HistoryNotKept, match="cannot be read"):
        tracker.get_by_status("completed")


@pytest.mark.parametrize("history", ["full", "last", None])
def test_items_of_an_earlier_run(tmp_path: Path, history: Any) -> None:
    """Items that go on in a later run, also those made from others, have the same history."""
    tracker = twins(tmp_path, history=history)
    stages = [
        Stage("A", 1, [three_times], expand=True),
        Stage("B", 1, [FailTimes(1)], task_attempts=1),
        Stage("C", 1, [same]),
    ]
    pipeline = Pipeline(stages, status_tracker=tracker)

    async def main() -> None:
        results = await pipeline.run([1, 2], on_failures="ignore")
        assert results.failed
        await pipeline.run([3], retry_failed=results.failed, on_failures="ignore")

    run_virtual(main)
    assert answers(tracker.other) == answers(tracker)


async def three_times(value: int) -> list[int]:
    return [value, 10 * value, 100 * value]


def test_random_programs(tmp_path: Path) -> None:
    """Random outcomes in three stages, in several runs of one tracker: the same answers."""
    dice = random.Random(7)
    tracker = twins(tmp_path, history=2)

    async def work(value: int) -> int:
        await asyncio.sleep(dice.random())
        if dice.random() < 0.3:
            raise ValueError(f"no {value % 3}")
        return value

    def three(value: int) -> list[int]:
        return [value] * dice.randrange(3)

    options: Any = {"skip_if": lambda _: dice.random() < 0.2, "stage_attempts": 2}
    stages = [
        Stage("A", 2, [work, work], task_wait_seconds=0, **options),
        Stage("B", 1, [three], expand=True),
        Stage("C", 2, [work], retry="per_stage", **options),
    ]
    for _ in range(3):
        run_virtual(
            lambda: Pipeline(stages, status_tracker=tracker).run(range(30), on_failures="ignore")
        )
    assert answers(tracker.other) == answers(tracker)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file of something else, a folder, and a place that does not exist are refused at once."""
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE events (mine TEXT)")
    with pytest.raises(ValueError, match="has no events"):
        StatusTracker(spill=other)
    lines = tmp_path / "log.jsonl"
    run_virtual(lambda: Pipeline([Stage("A", 1, [same])], observers=[JsonlSink(lines)]).run([1]))
    with pytest.raises(ValueError, match="cannot be read: file is not a database"):
        StatusTracker(spill=lines)
    with pytest.raises(FileNotFoundError):
        StatusTracker(spill=tmp_path / "none" / "events.sqlite")
    with pytest.raises(IsADirectoryError):
        StatusTracker(spill=tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    StatusTracker(spill=empty)
