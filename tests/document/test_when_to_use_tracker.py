"""When to use a tracker: logs, metrics, decisions, debugging, audits; and when not to."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent
from antflow.testing import FailTimes, run_virtual

from .watchers import database, lasting, rows_in

pytestmark = pytest.mark.document


async def sell(value: int) -> int:
    await asyncio.sleep(0.1)
    if value % 5 == 4:
        raise ValueError(f"sold out: {value}")
    return value


def shop(tracker: StatusTracker, workers: int = 3) -> Pipeline:
    stages = [
        Stage("Sell", workers, [sell], task_attempts=1),
        Stage("Send", workers, [FailTimes(1), lasting(0.3)], retry="per_stage"),
    ]
    return Pipeline(stages, status_tracker=tracker)


# Of 20 items 4 fail in Sell; each of the others needs two tries in Send.
EXPECTED = Counter(
    {
        ("Sell", "queued"): 20,
        ("Sell", "in_progress"): 20,
        ("Sell", "completed"): 16,
        ("Sell", "failed"): 4,
        ("Send", "queued"): 16,
        ("Send", "in_progress"): 32,
        ("Send", "retrying"): 16,
        ("Send", "completed"): 16,
    }
)


def test_logging_to_a_database(tmp_path: Path) -> None:
    """Every event ends up in an external database, in the order of each item, errors included."""
    path = tmp_path / "events.sqlite"
    with database(path) as db:
        tracker = StatusTracker(on_status_change=db.insert)
        run_virtual(shop(tracker).run(range(20)))
    assert Counter(row[1:] for row in rows_in(path)) == EXPECTED
    for item_id in range(20):
        stored = [row[1:] for row in rows_in(path) if row[0] == item_id]
        assert stored == [(event.stage, event.status) for event in tracker.get_history(item_id)]
    failed = rows_in(path, "SELECT item, metadata FROM events WHERE status = 'failed'")
    assert {item: json.loads(metadata)["error"] for item, metadata in failed} == {
        number: f"sold out: {number}" for number in (4, 9, 14, 19)
    }


def test_logging_to_a_file(tmp_path: Path) -> None:
    """Every event is a line of a log file."""
    path = tmp_path / "events.log"
    with path.open("w", encoding="utf-8") as log:
        tracker = StatusTracker(
            on_status_change=lambda event: log.write(f"{event.stage} {event.status}\n")
        )
        run_virtual(shop(tracker).run(range(20)))
    lines = path.read_text("utf-8").splitlines()
    assert Counter(tuple(line.split()) for line in lines) == EXPECTED


def test_monitoring_tool_counts_and_measures() -> None:
    """A metrics client with counters and durations agrees with the pipeline at all times."""
    counters: Counter[tuple[str | None, str]] = Counter()
    seconds: Counter[str] = Counter()

    def count(event: StatusEvent) -> None:
        counters[event.stage, event.status] += 1

    def measure(event: TaskEvent) -> None:
        assert event.duration is not None
        seconds[event.stage] += event.duration  # type: ignore[assignment]

    tracker = StatusTracker(count, on_task_complete=measure)
    pipeline = shop(tracker)

    async def main() -> None:
        running = asyncio.create_task(pipeline.run(range(20)))
        while not running.done():
            await asyncio.sleep(0.15)  # a scrape
            for stage, stats in pipeline.get_stats().stage_stats.items():
                assert counters[stage, "completed"] == stats.completed_items
                assert counters[stage, "failed"] == stats.failed_items

    run_virtual(main)
    assert counters == EXPECTED
    assert seconds == {"Sell": pytest.approx(1.6), "Send": pytest.approx(4.8)}


def test_business_logic_sends_failures_elsewhere() -> None:
    """A callback can decide by the event, and feed what failed to another pipeline."""
    refunds = Pipeline([Stage("Refund", 1, [lasting(1)])])

    async def refund(event: StatusEvent) -> None:
        if event.status == "failed" and event.metadata["error_type"] == "ValueError":
            await refunds.feed([{"id": event.item_id, "value": event.metadata["error"]}])

    async def main() -> list[Any]:
        await refunds.start()
        await shop(StatusTracker(on_status_change=refund)).run(range(20))
        await refunds.join()
        return [(result.id, result.value) for result in refunds.results]

    assert sorted(run_virtual(main)) == [(n, f"sold out: {n}") for n in (4, 9, 14, 19)]


def test_business_logic_stops_the_pipeline() -> None:
    """A callback can shut the pipeline down after two failures; no item is unaccounted for."""
    failures: list[Any] = []

    async def give_up_after_two(event: StatusEvent) -> None:
        if event.status == "failed":
            failures.append(event.item_id)
            if len(failures) == 2:
                await pipeline.shutdown()

    tracker = StatusTracker(on_status_change=give_up_after_two)
    pipeline = shop(tracker, workers=1)

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed(range(10))
        await pipeline.join()

    run_virtual(main)
    stats = pipeline.get_stats()
    assert failures[:2] == [4, 9]
    assert stats.items_failed == 2
    assert stats.items_in_flight == 0
    assert stats.items_processed + stats.items_cancelled + 2 == stats.items_accepted == 10
    assert stats.items_cancelled > 0


def test_debugging_a_complex_failure() -> None:
    """For an item that failed after some tries, the tracker has each try and its error."""
    errors = iter([TimeoutError("slow"), ConnectionError("reset"), KeyError("user")])

    async def resolve(value: str) -> str:
        raise next(errors)

    tracker = StatusTracker()
    stages = [Stage("Read", 1, [lasting(1)]), Stage("Resolve", 2, [resolve], retry="per_stage")]
    run_virtual(Pipeline(stages, status_tracker=tracker).run(["x"]))
    history = tracker.get_history(0)
    told = [(event.stage, event.status, event.metadata.get("error_type")) for event in history]
    assert told[4:] == [
        ("Resolve", "in_progress", None),
        ("Resolve", "retrying", "TimeoutError"),
        ("Resolve", "in_progress", None),
        ("Resolve", "retrying", "ConnectionError"),
        ("Resolve", "in_progress", None),
        ("Resolve", "failed", "KeyError"),
    ]
    assert [event.metadata.get("error") for event in history if event.metadata] == [
        "slow",
        "reset",
        "'user'",
    ]
    frames = traceback.extract_tb(history[-1].metadata["exception"].__traceback__)
    assert frames[-1].name == "resolve"
    (failed,) = tracker.get_failed_items()
    assert (failed.stage, failed.attempts, failed.error_type) == ("Resolve", 3, "KeyError")


@pytest.mark.parametrize("seed", range(5))
def test_audit_trail_is_complete(seed: int) -> None:
    """Every accepted item has a history without a gap, from its intake to exactly one outcome."""
    delivered: list[StatusEvent] = []
    tracker = StatusTracker(on_status_change=delivered.append)
    pipeline = shop(tracker)
    results = run_virtual(pipeline.run(range(100)), seed=seed)
    follows = {
        None: {"queued"},
        "queued": {"in_progress"},
        "in_progress": {"completed", "failed", "retrying"},
        "retrying": {"in_progress"},
        "completed": {"queued"},
    }
    failed = {outcome.id for outcome in results.failed}
    assert tracker.get_tracked_ids() == list(range(100))
    for item_id in range(100):
        history = tracker.get_history(item_id)
        assert history == [event for event in delivered if event.item_id == item_id]
        last = None
        for event in history:
            assert event.status in follows[last]
            last = event.status
        assert last == ("failed" if item_id in failed else "completed")
        assert history[-1].stage == ("Sell" if item_id in failed else "Send")
        times = [event.timestamp for event in history]
        assert times == sorted(times)
        assert {event.run_id for event in history} == {results.run_id}
    assert len(failed) == 20


def test_audit_trail_of_items_that_were_not_finished() -> None:
    """Items that a shutdown left unfinished have an end of their history too, which says so."""
    delivered: list[StatusEvent] = []
    tracker = StatusTracker(on_status_change=delivered.append)
    pipeline = shop(tracker)

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed(range(30))
        await asyncio.sleep(0.5)
        await pipeline.shutdown()

    run_virtual(main)
    cancelled = pipeline.get_stats().items_cancelled
    assert cancelled > 10
    types = Counter(item.error_type for item in tracker.get_failed_items())
    assert types["ItemCancelled"] == cancelled
    for item_id in tracker.get_tracked_ids():
        history = tracker.get_history(item_id)
        assert history == [event for event in delivered if event.item_id == item_id]
        assert history[-1].status in ("completed", "failed")
        assert history[-1].status == "failed" or history[-1].stage == "Send"


def test_progress_needs_no_tracker() -> None:
    """What a progress display shows is in a snapshot, without any tracker."""
    pipeline = Pipeline([Stage("Sell", 1, [sell], task_attempts=1)])
    run_virtual(pipeline.run(range(20)))
    snapshot = pipeline.get_dashboard_snapshot()
    assert snapshot.pipeline_stats.items_processed == 16
    assert snapshot.error_summary.errors_by_type == {"ValueError": 4}


def test_aggregate_statistics_need_no_callback() -> None:
    """For the totals alone, asking is enough: a tracker without callbacks counts the same."""
    silent, heard = StatusTracker(), StatusTracker(on_status_change=lambda event: None)
    run_virtual(shop(silent).run(range(20)))
    run_virtual(shop(heard).run(range(20)))
    assert silent.get_stats() == heard.get_stats()
    assert (silent.get_stats()["completed"], silent.get_stats()["failed"]) == (16, 4)
    assert silent.get_error_summary().errors_by_stage == {"Sell": 4}
