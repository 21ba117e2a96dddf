"""Combining both mechanisms: a dashboard to look at, and a tracker that logs to a database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import run_virtual

from .document import run_block
from .screen import Window
from .watchers import Frames, database, lasting, rows_in

pytestmark = pytest.mark.document

BLOCK = """\
from antflow import Pipeline, StatusTracker

async def log_to_db(event):
    # Store event in database
    await db.insert(event)

tracker = StatusTracker(on_status_change=log_to_db)

pipeline = Pipeline(
    stages=[...],
    status_tracker=tracker,
)

# Use dashboard for visual monitoring + tracker for logging
await pipeline.run(items, dashboard="detailed")
"""

WITH_ANY_DASHBOARD = BLOCK.replace('dashboard="detailed"', "custom_dashboard=frames")


async def pay(value: int) -> int:
    await asyncio.sleep(0.4)
    if value == 3:
        raise PermissionError("card refused")
    return value


def stages() -> list[Stage]:
    return [Stage("Pay", 2, [pay], task_attempts=1), Stage("Ship", 1, [lasting(0.7)])]


def expected_of(item_id: int) -> list[tuple[str, str]]:
    if item_id == 3:
        return [("Pay", "queued"), ("Pay", "in_progress"), ("Pay", "failed")]
    return [
        (stage, status)
        for stage in ("Pay", "Ship")
        for status in ("queued", "in_progress", "completed")
    ]


def expect_every_event(path: Path, tracker: StatusTracker) -> None:
    """Database and tracker have all events of all eight items, each item's in order."""
    rows = rows_in(path)
    assert len(rows) == 7 * 6 + 3
    for item_id in range(8):
        assert [row[1:] for row in rows if row[0] == item_id] == expected_of(item_id)
        history = tracker.get_history(item_id)
        assert [(event.stage, event.status) for event in history] == expected_of(item_id)


def test_block_draws_and_logs(tmp_path: Path, window: Window) -> None:
    """The block draws both stages on the terminal while every event is stored in the database."""
    path = tmp_path / "events.sqlite"
    with database(path) as db:
        names = window.run(run_block(BLOCK, db=db, stages=stages(), items=range(8)))
    assert names["pipeline"].results.values() == [0, 1, 2, 4, 5, 6, 7]
    drawn = {tuple(frame) for frame in window.frames if frame}
    assert len(drawn) > 8
    for stage in ("Pay", "Ship"):
        assert all(any(line[1:].startswith(stage) for line in frame) for frame in drawn)
    assert window.last[-1] == "7 ok, 1 failed"
    expect_every_event(path, names["tracker"])


def test_block_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block works the same where its output is captured, and ends with the counts."""
    path = tmp_path / "events.sqlite"
    with database(path) as db:
        names = run_virtual(run_block(BLOCK, db=db, stages=stages(), items=range(8)))
    assert names["pipeline"].results.values() == [0, 1, 2, 4, 5, 6, 7]
    assert capsys.readouterr().err.splitlines()[-1] == "7 ok, 1 failed"
    expect_every_event(path, names["tracker"])


def test_block_with_a_dashboard_of_ones_own(tmp_path: Path) -> None:
    """With a custom dashboard the same events are stored, and it sees the run to its end."""
    path, frames = tmp_path / "events.sqlite", Frames()
    with database(path) as db:
        names = run_virtual(
            run_block(WITH_ANY_DASHBOARD, db=db, stages=stages(), items=range(8), frames=frames)
        )
    expect_every_event(path, names["tracker"])
    assert frames.times[:4] == [0, 0.5, 1, 1.5]
    final = frames.snapshots[-1].pipeline_stats
    assert (final.items_processed, final.items_failed, final.items_in_flight) == (7, 1, 0)


def test_log_is_persistent(tmp_path: Path) -> None:
    """An event is in the file, for others to read, before the item goes on."""
    path = tmp_path / "events.sqlite"
    found: list[Any] = []

    async def look(value: int) -> int:
        found.append(rows_in(path, "SELECT status FROM events ORDER BY rowid"))
        return value

    with database(path) as db:
        block = WITH_ANY_DASHBOARD
        run_virtual(
            run_block(block, db=db, stages=[Stage("Look", 1, [look])], items=[1], frames=Frames())
        )
    assert found == [[("queued",), ("in_progress",)]]


def test_log_stays_where_the_run_is_cancelled(tmp_path: Path) -> None:
    """What happened before a cancellation is in the database and in the tracker."""
    path = tmp_path / "events.sqlite"
    kept: dict[str, Any] = {}

    async def main() -> None:
        with database(path) as db:
            kept["tracker"] = StatusTracker(on_status_change=db.insert)
            pipeline = Pipeline(stages(), status_tracker=kept["tracker"])
            running = asyncio.create_task(pipeline.run(range(8), custom_dashboard=Frames()))
            await asyncio.sleep(1)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

    run_virtual(main)
    for item_id in kept["tracker"].get_tracked_ids():
        stored = [row[1:] for row in rows_in(path) if row[0] == item_id]
        history = [(event.stage, event.status) for event in kept["tracker"].get_history(item_id)]
        # Callbacks are not awaited any more while a run is being cancelled.
        assert stored == history[: len(stored)]
        assert history[-1][1] in ("completed", "failed")
    assert len(rows_in(path)) > 10


def test_dashboard_and_tracker_agree() -> None:
    """At every update, what the dashboard shows is what the tracker says of that moment."""
    tracker = StatusTracker(on_status_change=lambda event: None)
    disagreements: list[Any] = []

    class Comparing(Frames):
        def on_update(self, snapshot: Any) -> None:
            super().on_update(snapshot)
            shown = snapshot.pipeline_stats
            told = tracker.get_stats()
            if (
                (shown.items_processed, shown.items_failed) != (told["completed"], told["failed"])
                or sum(shown.queue_sizes.values()) != told["queued"]
                or snapshot.error_summary != tracker.get_error_summary()
            ):
                disagreements.append((snapshot, told))

    dashboard = Comparing()
    pipeline = Pipeline(stages(), status_tracker=tracker)
    run_virtual(pipeline.run(range(8), custom_dashboard=dashboard, dashboard_update_interval=0.17))
    assert len(dashboard.snapshots) > 30
    assert disagreements == []


def test_slow_logging_does_not_stop_the_dashboard() -> None:
    """While a worker waits for a slow log, the dashboard goes on being updated on time."""

    async def slow(event: StatusEvent) -> None:
        await asyncio.sleep(3)

    frames = Frames()
    pipeline = Pipeline(
        [Stage("Work", 1, [lasting(0.1)])], status_tracker=StatusTracker(on_status_change=slow)
    )
    run_virtual(pipeline.run([1], custom_dashboard=frames))
    assert frames.times == [*(0.5 * n for n in range(19)), pytest.approx(9.1)]


def test_history_is_complete_for_debugging() -> None:
    """With both in use, the history of the one item that failed says where, when and why."""
    tracker = StatusTracker()
    pipeline = Pipeline(stages(), status_tracker=tracker)
    run_virtual(pipeline.run(range(8), custom_dashboard=Frames()))
    (failed,) = tracker.get_failed_items()
    history = tracker.get_history(failed.item_id)
    assert [(event.stage, event.status) for event in history] == expected_of(3)
    assert history[-1].metadata["error"] == failed.error == "card refused"
    assert history[-1].timestamp == failed.timestamp
