"""A tracker that keeps little: totals are exact, and what it does not have it does not make up."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from antflow import HistoryNotKept, Pipeline, Stage, StatusEvent, StatusTracker
from antflow._core.events import STATUSES
from antflow._monitor import short_history
from antflow.testing import FailTimes, run_virtual
from tests.monitor.test_spill import Twins
from tests.sinks.test_event_log import PIPELINES
from tests.support import odd_only, same

OPTIONS: dict[str, dict[str, Any]] = {
    "last": {"history": "last"},
    "last, no failed": {"history": "last", "keep_failed": False},
    "one": {"history": 1},
    "three": {"history": 3},
    "three, no failed": {"history": 3, "keep_failed": False},
    "none": {"history": None},
    "none, no failed": {"history": None, "keep_failed": False},
}


def run(tracker: StatusTracker, items: Iterable[Any], *stages: Stage[Any, Any]) -> str:
    """Run items through stages; return the run's id."""
    pipeline = Pipeline([*stages], status_tracker=tracker)
    return run_virtual(lambda: pipeline.run(items, on_failures="ignore")).run_id


def follow(tracker: StatusTracker, name: str, runs: int = 1) -> StatusTracker:
    for _ in range(runs):
        run(tracker, range(1, 8), *PIPELINES[name]())
    return tracker


def totals(tracker: StatusTracker, run: str | None = None) -> Any:
    summary = tracker.get_error_summary(run)
    groups = [(group.count, group.error_type, group.location) for group in summary.groups]
    counts = summary.total_failed, summary.errors_by_type, summary.errors_by_stage
    return tracker.get_stats(run), counts, groups


def expected(events: list[StatusEvent], history: Any, keep_failed: bool = True) -> Any:
    """The part of an item's history that is kept."""
    if keep_failed and events[-1].status == "failed":
        return events
    return events[-1 if history == "last" else -history :]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", PIPELINES)
def test_totals_are_exact(name: str, options: str) -> None:
    """Counts by status and of errors are those of a tracker that keeps everything, at any time."""
    differing: list[Any] = []

    def compare() -> None:
        if totals(tracker.other) != totals(tracker):
            differing.append((totals(tracker.other), totals(tracker)))

    tracker = Twins(StatusTracker(**OPTIONS[options]), compare)
    follow(tracker, name, runs=2)
    compare()
    assert differing == []


@pytest.mark.parametrize(
    "options", [each for each in OPTIONS if OPTIONS[each]["history"] is not None]
)
@pytest.mark.parametrize("name", PIPELINES)
def test_last_events_are_kept(name: str, options: str) -> None:
    """With a number, each item has its last events; statuses and ids are all there."""
    chosen = OPTIONS[options]
    tracker = Twins(StatusTracker(**chosen))
    follow(tracker, name, runs=2)
    little = tracker.other
    assert little.get_tracked_ids() == tracker.get_tracked_ids()
    assert little.get_failed_items() == tracker.get_failed_items()
    for status in STATUSES:
        assert little.get_by_status(status) == tracker.get_by_status(status)
    for item_id in tracker.get_tracked_ids():
        assert little.get_status(item_id) == tracker.get_status(item_id)
        events = tracker.get_history(item_id)
        assert little.get_history(item_id) == expected(events, **chosen)
    assert little.get_history("unknown") == []
    assert little.get_status("unknown") is None


@pytest.mark.parametrize("name", PIPELINES)
def test_failed_items_are_kept(name: str) -> None:
    """With ``history=None``, failed items have their whole history, with the exceptions."""
    tracker = Twins(StatusTracker(history=None))
    follow(tracker, name)
    little = tracker.other
    assert little.get_failed_items() == tracker.get_failed_items()
    assert little.get_by_status("failed") == tracker.get_by_status("failed")
    for event in tracker.get_by_status("failed"):
        assert little.get_history(event.item_id) == tracker.get_history(event.item_id)


def test_questions_about_items_that_are_not_kept() -> None:
    """With ``history=None``, there is an error instead of a wrong answer; and it says why."""
    tracker = follow(StatusTracker(history=None), "failures")
    for ask in (
        lambda: tracker.get_history(1),
        lambda: tracker.get_status(1),
        lambda: tracker.get_status("unknown"),
        lambda: tracker.get_by_status("completed"),
        lambda: tracker.get_tracked_ids(),
    ):
        with pytest.raises(HistoryNotKept, match=r"not kept: with history=None.*spill="):
            ask()
    assert tracker.get_by_status("skipped") == tracker.get_by_status("queued") == []
    assert len(tracker.get_history(2)) == 3
    assert sorted(item.item_id for item in tracker.get_failed_items()) == [2, 5]


def test_questions_without_failed_items() -> None:
    """With ``keep_failed=False``, failed items are only counted."""
    tracker = follow(StatusTracker(history=None, keep_failed=False), "failures")
    for ask in (
        lambda: tracker.get_history(2),
        lambda: tracker.get_by_status("failed"),
        lambda: tracker.get_failed_items(),
    ):
        with pytest.raises(HistoryNotKept):
            ask()
    summary = tracker.get_error_summary()
    assert (summary.total_failed, summary.failed_items) == (2, [])
    assert summary.groups[0].count == 2


def test_nothing_is_refused_that_is_known() -> None:
    """Before anything has ended, all questions have answers."""
    tracker = StatusTracker(history=None)
    assert tracker.get_history(1) == []
    assert tracker.get_tracked_ids() == []
    seen: list[Any] = []

    async def look(value: int) -> None:
        seen.append(
            (tracker.get_tracked_ids(), tracker.get_status(99), len(tracker.get_history(0)))
        )

    run_virtual(lambda: Pipeline([Stage("A", 1, [look])], status_tracker=tracker).run([1]))
    assert seen == [([0], None, 2)]


def test_items_in_flight_are_there() -> None:
    """An item in flight has its whole history, and its status is found."""
    seen: list[Any] = []
    tracker = StatusTracker(history=None)

    async def look(value: int) -> None:
        await asyncio.sleep(value)
        if value == 3:
            seen.extend(event.status for event in tracker.get_history(value))
            seen.extend(event.item_id for event in tracker.get_by_status("in_progress"))

    stages = [Stage("A", 5, [same]), Stage("B", 5, [look])]
    run_virtual(lambda: Pipeline(stages, status_tracker=tracker).run(range(5)))
    assert seen == ["queued", "in_progress", "completed", "queued", "in_progress", 3, 4]


def test_failed_items_that_are_kept_are_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of failed items whose history is kept has a limit; the counts are exact."""
    monkeypatch.setattr(short_history, "MOST_FAILED", 3)
    for history, left in ((None, 0), ("last", 1), (2, 2)):
        options: Any = {"history": history}
        tracker = StatusTracker(**options)
        run(tracker, range(20), Stage("A", 1, [odd_only], task_attempts=1))
        assert tracker.get_error_summary().total_failed == tracker.get_stats()["failed"] == 10
        assert [len(tracker.get_history(n)) for n in (14, 16, 18)] == [3, 3, 3]
        if left:
            assert len(tracker.get_history(12)) == left
            assert len(tracker.get_failed_items()) == 10
            continue
        with pytest.raises(HistoryNotKept, match="of the failed items, 7 are not kept"):
            tracker.get_failed_items()
        with pytest.raises(HistoryNotKept):
            tracker.get_history(12)
        failed = tracker.get_error_summary().failed_items
        assert [item.item_id for item in failed] == [14, 16, 18]


def test_records_are_used_again() -> None:
    """Memory for records is that of the items in flight, whatever the outcomes."""
    dice = random.Random(3)

    async def work(value: int) -> int:
        await asyncio.sleep(dice.random())
        if dice.random() < 0.3:
            raise ValueError("no")
        return value

    stages = [
        Stage("A", 3, [work, work], task_wait_seconds=0),
        Stage("B", 3, [lambda value: [value] * 2], expand=True, executor="inline"),
        Stage("C", 3, [work], retry="per_stage", stage_attempts=2),
    ]
    for name, most in (("none, no failed", 1_000), ("last, no failed", 3_000)):
        tracker = StatusTracker(**OPTIONS[name])
        run(tracker, range(500), *stages)
        [history] = tracker._runs.values()
        assert isinstance(history, short_history.ShortHistory)
        assert history._count < most
        in_use = history._count - len(history._free)
        assert len(history._details) <= in_use
        if "none" in name:
            assert (in_use, len(history._last), history._last_of_made) == (0, 0, {})
            assert not list(history._admissions.items())
        else:
            assert in_use == len(tracker.get_tracked_ids())


def test_callback_hears_the_same() -> None:
    """What a callback is told does not depend on what is kept; it finds its own event."""

    def told(**options: Any) -> list[Any]:
        def note(event: StatusEvent) -> None:
            heard.append((event.item_id, event.stage, event.status))
            if event.status not in ("completed", "skipped"):
                tracker.get_status(event.item_id)

        heard: list[Any] = []
        tracker = StatusTracker(note, **options)
        stages = [
            Stage("A", 2, [FailTimes(2)], task_attempts=3),
            Stage("B", 1, [FailTimes(1)], retry="per_stage"),
        ]
        run(tracker, [1, 2, 3], *stages)
        assert tracker.callback_errors == 0
        return heard

    assert told() == told(history="last") == told(history=None)


def test_several_runs() -> None:
    """A run is asked by its id; without one, the latest may have had the item."""
    tracker = StatusTracker(history=None)
    stage = Stage("A", 1, [odd_only], task_attempts=1)
    first, second = run(tracker, [2, 2], stage), run(tracker, [1], stage)
    assert len(tracker.get_history(0, first)) == 3
    with pytest.raises(HistoryNotKept):
        tracker.get_history(0)
    with pytest.raises(HistoryNotKept):
        tracker.get_history(0, second)
    assert tracker.get_stats() | {"completed": 1, "failed": 2} == tracker.get_stats()


def test_copies() -> None:
    """A copy, also one that was pickled, has the same answers."""
    tracker = follow(StatusTracker(history=None), "failures")
    for other in (copy.copy(tracker), copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        assert totals(other) == totals(tracker)
        assert len(other.get_history(2)) == 3
        follow(other, "failures")
        assert other.get_stats()["failed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["totals", "spill"])
def test_memory_does_not_grow_with_the_items(kind: str, tmp_path: Path) -> None:
    """A run of a million items needs no more memory than one of a hundred thousand."""

    def peak(items: int, **options: Any) -> int:
        tracker = StatusTracker(**options)
        stage = Stage("A", 10, [bad_now_and_then], task_attempts=1)
        pipeline = Pipeline([stage], collect_results=False, status_tracker=tracker)
        gc.collect()
        tracemalloc.start()
        try:
            asyncio.run(pipeline.run(range(items), on_failures="ignore"))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert tracker.get_stats()["failed"] == items // 1_000

    async def bad_now_and_then(number: int) -> None:
        if number % 1_000 == 0:
            raise ValueError(number)

    options: dict[str, Any] = {"history": None, "keep_failed": False}
    if kind == "spill":
        options = {"spill": tmp_path / "events.sqlite", "keep_failed": False}
    peak(1_000, **options)
    few, many = peak(100_000, **options), peak(1_000_000, **options)
    assert many < 1.3 * few
    assert peak(100_000) > 2 * peak(30_000)  # one that keeps everything does need more
