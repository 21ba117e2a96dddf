"""Dashboard, how it works: poll a snapshot in the background, and render it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    Stage,
    StageStats,
    WorkerMetrics,
    WorkerState,
)
from antflow.testing import run_virtual

from .screen import Window
from .watchers import Frames, PolledPipeline, lasting

pytestmark = pytest.mark.document

# What two stages do in the first seconds of this program, drawn by hand:
#
#   second      0     1     2     3     4     5     6     7
#   Fetch-W0    a-----------c-----------|
#   Fetch-W1    b-----------d (fails)---|
#   Save-W0                 a-----------------b-----------------c …
ITEMS = [{"id": name, "value": name} for name in "abcd"]


async def fetch(value: str) -> str:
    await asyncio.sleep(2)
    if value == "d":
        raise ConnectionError("refused")
    return value


async def save(value: str) -> str:
    await asyncio.sleep(3)
    return value


def two_stages() -> PolledPipeline:
    return PolledPipeline([Stage("Fetch", 2, [fetch], task_attempts=1), Stage("Save", 1, [save])])


def snapshots_of_two_stages(interval: float) -> list[DashboardSnapshot]:
    pipeline = two_stages()
    run_virtual(pipeline.run(ITEMS, custom_dashboard=Frames(), dashboard_update_interval=interval))
    return pipeline.polled


def test_polling_by_default() -> None:
    """A snapshot is taken at the start, every 0.5 seconds, and at the end."""
    pipeline = PolledPipeline([Stage("Work", 1, [lasting(2.7)])])
    run_virtual(pipeline.run([1], custom_dashboard=Frames()))
    assert pipeline.poll_times == [0, 0.5, 1, 1.5, 2, 2.5, 2.7]


@pytest.mark.parametrize(
    ("interval", "times"),
    [
        (0.25, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.7]),
        (1, [0, 1, 2, 2.7]),
        (2.5, [0, 2.5, 2.7]),
        (60, [0, 2.7]),
    ],
)
def test_polling_with_an_interval(interval: float, times: list[float]) -> None:
    """The seconds between snapshots are those asked for."""
    pipeline = PolledPipeline([Stage("Work", 1, [lasting(2.7)])])
    run_virtual(pipeline.run([1], custom_dashboard=Frames(), dashboard_update_interval=interval))
    assert pipeline.poll_times == times


def test_polling_without_a_dashboard() -> None:
    """Where nobody looks, no snapshot is taken."""
    pipeline = PolledPipeline([Stage("Work", 1, [lasting(2.7)])])
    run_virtual(pipeline.run([1]))
    assert pipeline.poll_times == []


def test_polling_is_done_by_a_task_in_the_background() -> None:
    """One task polls, which is neither the caller's nor one of the workers'."""
    workers: set[Any] = set()

    async def work(value: int) -> int:
        workers.add(asyncio.current_task())
        await asyncio.sleep(1)
        return value

    async def main() -> asyncio.Task[Any] | None:
        await pipeline.run(range(6), custom_dashboard=Frames())
        return asyncio.current_task()

    pipeline = PolledPipeline([Stage("Work", 2, [work])])
    caller = run_virtual(main)
    pollers = set(pipeline.pollers)
    assert len(pipeline.pollers) > 3
    assert len(pollers) == 1
    assert len(workers) == 2
    assert not pollers & {caller, None, *workers}


def test_polling_ends_with_the_run() -> None:
    """When `run` returns, nothing polls any more."""
    pipeline = PolledPipeline([Stage("Work", 1, [lasting(1)])])

    async def main() -> tuple[int, int, int]:
        await pipeline.run([1], custom_dashboard=Frames())
        polls = len(pipeline.polled)
        tasks = len(asyncio.all_tasks())
        await asyncio.sleep(100)
        return polls, len(pipeline.polled), tasks

    assert run_virtual(main) == (4, 4, 1)


def test_polling_begins_before_the_first_item() -> None:
    """The first snapshot shows a run that has accepted nothing, however long the start takes."""

    class Slow(Frames):
        async def on_start(self, pipeline: Any, total_items: int) -> None:  # type: ignore[override]
            await asyncio.sleep(1)

    pipeline = two_stages()
    run_virtual(pipeline.run(ITEMS, custom_dashboard=Slow()))
    first = pipeline.polled[0]
    assert pipeline.poll_times[0] == 1
    assert first.pipeline_stats.items_accepted == 0
    assert first.pipeline_stats.items_in_flight == 0
    assert {state.status for state in first.worker_states.values()} == {"idle"}


def test_snapshot_contains_worker_states() -> None:
    """A snapshot says of every worker which item it has, in which task, and since when."""
    snapshot = snapshots_of_two_stages(1.5)[2]
    began = snapshot.timestamp - 3.0
    assert list(snapshot.worker_states) == ["Fetch-W0", "Fetch-W1", "Save-W0"]
    assert all(type(state) is WorkerState for state in snapshot.worker_states.values())
    assert [
        (state.worker_name, state.stage, state.status, state.current_item_id, state.current_task)
        for state in snapshot.worker_states.values()
    ] == [
        ("Fetch-W0", "Fetch", "busy", "c", "fetch"),
        ("Fetch-W1", "Fetch", "busy", "d", "fetch"),
        ("Save-W0", "Save", "busy", "a", "save"),
    ]
    assert [
        state.processing_since and state.processing_since - began
        for state in snapshot.worker_states.values()
    ] == pytest.approx([2, 2, 2], abs=1e-5)


def test_snapshot_contains_idle_workers() -> None:
    """A worker that has nothing is in the snapshot too, without item, task and time."""
    snapshot = snapshots_of_two_stages(1.5)[1]
    assert snapshot.worker_states["Save-W0"] == WorkerState("Save-W0", "Save", "idle")


def test_snapshot_contains_metrics() -> None:
    """A snapshot says of every worker what it has done, how long that took, and when it was."""
    snapshot = snapshots_of_two_stages(4.5)[1]
    began = snapshot.timestamp - 4.5
    metrics = snapshot.worker_metrics
    assert list(metrics) == ["Fetch-W0", "Fetch-W1", "Save-W0"]
    assert all(type(each) is WorkerMetrics for each in metrics.values())
    assert [
        (each.worker_name, each.stage, each.items_processed, each.items_failed)
        for each in metrics.values()
    ] == [("Fetch-W0", "Fetch", 2, 0), ("Fetch-W1", "Fetch", 1, 1), ("Save-W0", "Save", 0, 0)]
    assert [each.total_processing_time for each in metrics.values()] == pytest.approx([4, 4, 0])
    assert [each.avg_processing_time for each in metrics.values()] == pytest.approx([2, 2, 0])
    assert [
        each.last_active and each.last_active - began for each in metrics.values()
    ] == pytest.approx([4, 4, 2], abs=1e-5)


def test_snapshot_contains_pipeline_statistics() -> None:
    """A snapshot counts the items of the whole run and of each stage."""
    snapshots = snapshots_of_two_stages(4.5)
    stats = snapshots[1].pipeline_stats
    assert type(stats) is PipelineStats
    assert stats.items_accepted == 4
    assert stats.items_processed == 0
    assert stats.items_failed == 1
    assert stats.items_in_flight == 3
    assert stats.queue_sizes == {"Fetch": 0, "Save": 2}
    assert list(stats.stage_stats) == ["Fetch", "Save"]
    counts = [
        (
            each.stage_name,
            each.pending_items,
            each.in_progress_items,
            each.completed_items,
            each.failed_items,
        )
        for each in stats.stage_stats.values()
    ]
    assert all(type(each) is StageStats for each in stats.stage_stats.values())
    assert counts == [("Fetch", 0, 0, 3, 1), ("Save", 2, 1, 0, 0)]
    final = snapshots[-1].pipeline_stats
    assert (final.items_processed, final.items_failed, final.items_in_flight) == (3, 1, 0)


def test_snapshot_contains_errors() -> None:
    """A snapshot sums up the failures so far."""
    errors = snapshots_of_two_stages(4.5)[1].error_summary
    assert type(errors) is ErrorSummary
    assert errors.total_failed == 1
    assert errors.errors_by_type == {"ConnectionError": 1}
    assert errors.errors_by_stage == {"Fetch": 1}
    assert [failed.item_id for failed in errors.failed_items] == ["d"]


def test_snapshots_are_of_their_moment() -> None:
    """Snapshots are as far apart on the wall clock as they were taken."""
    timestamps = [snapshot.timestamp for snapshot in snapshots_of_two_stages(4.5)]
    since_first = [timestamp - timestamps[0] for timestamp in timestamps]
    assert since_first == pytest.approx([0, 4.5, 9.0, 11.0], abs=1e-5)


def test_dashboard_renders_what_was_polled() -> None:
    """Each snapshot taken is the one, and the only one, that the dashboard is given."""
    pipeline, frames = two_stages(), Frames()
    run_virtual(pipeline.run(ITEMS, custom_dashboard=frames))
    assert len(frames.snapshots) == len(pipeline.polled)
    for shown, taken in zip(frames.snapshots, pipeline.polled, strict=True):
        assert shown is taken
    assert frames.times == pipeline.poll_times


def test_dashboard_renders_to_the_terminal(window: Window) -> None:
    """A built-in dashboard draws each snapshot that was polled, when it was polled."""
    pipeline = two_stages()
    window.run(pipeline.run(ITEMS, dashboard="detailed"))
    assert len(pipeline.polled) > 20
    frames = [frame for frame in window.frames if frame]
    assert len(frames) - len(pipeline.polled) in (0, 1)  # and one that stays when it is over
    for snapshot, frame in zip(pipeline.polled, frames, strict=False):
        stats = snapshot.pipeline_stats
        assert frame[-1] == f"{stats.items_processed} ok, {stats.items_failed} failed"


def test_snapshot_may_be_asked_for_at_any_time() -> None:
    """A snapshot may be asked for at any time: before the run, while it goes on, and afterwards."""
    pipeline = two_stages()

    async def main() -> tuple[DashboardSnapshot, ...]:
        before = pipeline.get_dashboard_snapshot()
        running = asyncio.create_task(pipeline.run(ITEMS))
        await asyncio.sleep(4.5)
        during = pipeline.get_dashboard_snapshot()
        await running
        return before, during, pipeline.get_dashboard_snapshot()

    before, during, after = run_virtual(main)
    assert [snapshot.state for snapshot in (before, during, after)] == [
        "idle",
        "draining",
        "finished",
    ]
    assert [snapshot.pipeline_stats.items_processed for snapshot in (before, during, after)] == [
        0,
        0,
        3,
    ]
    assert list(before.worker_states) == list(after.worker_states) == list(during.worker_metrics)
