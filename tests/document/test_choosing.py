"""Choosing the right tool: a dashboard, a tracker, or both."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import run_virtual

from .screen import Window
from .watchers import Frames, database, lasting, rows_in

pytestmark = pytest.mark.document


async def convert(value: int) -> int:
    await asyncio.sleep(0.2)
    if value == 6:
        raise ValueError("cannot be converted")
    return value


def stages() -> list[Stage]:
    return [
        Stage("Load", 4, [lasting(0.1)]),
        Stage("Convert", 1, [convert], task_attempts=1, queue_capacity=5),
        Stage("Store", 4, [lasting(0.1)]),
    ]


def test_neither_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """A run without dashboard and tracker prints nothing, and its results say everything."""
    results = run_virtual(Pipeline(stages()).run(range(12)))
    assert capfd.readouterr() == ("", "")
    assert len(results) == 11
    assert [outcome.id for outcome in results.failed] == [6]
    assert results.summary.errors_by_stage == {"Convert": 1}


def test_dashboard_alone_shows_progress_and_bottleneck() -> None:
    """Without a tracker, a dashboard shows how far the run is and which stage holds it up."""
    frames = Frames()
    run_virtual(
        Pipeline(stages()).run(range(40), custom_dashboard=frames, dashboard_update_interval=0.33)
    )
    stats = [snapshot.pipeline_stats for snapshot in frames.snapshots]
    settled = [each.items_processed + each.items_failed for each in stats]
    assert settled == sorted(settled)
    assert (settled[0], settled[-1]) == (0, 40)
    assert len(set(settled)) > 15
    midway = [each.queue_sizes for each in stats if 5 < each.items_processed < 25]
    assert len(midway) > 8
    # Items wait before the slow stage, and before those that it holds up; after it none do.
    assert {[name for name in sizes if sizes[name]][-1] for sizes in midway} == {"Convert"}
    assert {sizes["Convert"] for sizes in midway} == {5}


def test_dashboard_alone_stores_no_history() -> None:
    """Without a tracker, no snapshot has anything of the items that went through."""
    frames = Frames()
    items = [{"id": f"item-{number}", "value": number} for number in range(12)]
    pipeline = Pipeline(stages(), collect_results=False)
    run_virtual(pipeline.run(items, custom_dashboard=frames))
    shown = repr(frames.snapshots[-1])
    assert [number for number in range(12) if f"'item-{number}'" in shown] == [6]
    assert pipeline.results == pipeline.results.outcomes == []


@pytest.mark.parametrize("name", ["compact", "detailed", "full"])
def test_dashboard_in_an_interactive_terminal(name: Any, window: Window) -> None:
    """On a terminal each built-in dashboard names the stages, and leaves what tasks print."""

    async def speak(value: int) -> int:
        sys.stdout.write(f"I am number {value}\n")
        return value

    window.run(Pipeline([*stages(), Stage("Speak", 1, [speak])]).run(range(8), dashboard=name))
    assert any("Convert" in line for frame in window.frames for line in frame)
    said = [line for line in window.last if line.startswith("I am number ")]
    assert said == [f"I am number {value}" for value in range(8) if value != 6]
    assert window.last[-1] == "7 ok, 1 failed"


def test_tracker_alone_logs_and_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tracker without a dashboard stores every event and prints nothing."""
    path = tmp_path / "events.sqlite"
    with database(path) as db:
        tracker = StatusTracker(on_status_change=db.insert)
        run_virtual(Pipeline(stages(), status_tracker=tracker).run(range(12)))
    assert capfd.readouterr() == ("", "")
    assert len(rows_in(path)) == 11 * 9 + 6
    assert sum(len(tracker.get_history(item_id)) for item_id in range(12)) == 11 * 9 + 6


def test_tracker_alone_decides() -> None:
    """Business logic in a callback can act on one event of one item, while the run goes on."""
    alarms: list[Any] = []

    async def alarm(event: StatusEvent) -> None:
        if event.status == "failed":
            alarms.append((asyncio.get_running_loop().time(), event.item_id))

    async def main() -> float:
        pipeline = Pipeline(stages(), status_tracker=StatusTracker(on_status_change=alarm))
        await pipeline.run(range(12))
        return asyncio.get_running_loop().time()

    end = run_virtual(main)
    # The seventh item is converted from 0.1 + 6 × 0.2 s on.
    assert alarms == [(pytest.approx(1.5), 6)]
    assert end > 2


def test_both_show_progress_and_log_internally(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With both, users see the progress only, and the log has every event and no drawing."""
    path = tmp_path / "events.log"
    with path.open("w", encoding="utf-8") as log:

        async def write(event: StatusEvent) -> None:
            log.write(f"secret {event.item_id} {event.stage} {event.status}\n")

        tracker = StatusTracker(on_status_change=write)
        run_virtual(Pipeline(stages(), status_tracker=tracker).run(range(12), dashboard="detailed"))
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith("11 ok, 1 failed")
    assert "secret" not in captured.out + captured.err
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 11 * 9 + 6
    assert all(line.startswith("secret ") for line in lines)


def test_both_end_with_the_same_numbers() -> None:
    """The last snapshot, the tracker's totals and the results count the same."""
    frames, tracker = Frames(), StatusTracker()
    results = run_virtual(
        Pipeline(stages(), status_tracker=tracker).run(range(12), custom_dashboard=frames)
    )
    last = frames.snapshots[-1]
    assert last.pipeline_stats.items_processed == tracker.get_stats()["completed"] == 11
    assert last.pipeline_stats.items_failed == tracker.get_stats()["failed"] == 1
    assert len(results) == 11
    assert last.error_summary == tracker.get_error_summary() == results.summary
    assert last.run_id == results.run_id
