"""When to use a dashboard: what it is good for, and what it cannot see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, Stage, StatusTracker
from antflow.testing import Gate, run_virtual

from .watchers import Frames, lasting

pytestmark = pytest.mark.document


def test_debugging_an_item_that_is_stuck() -> None:
    """A snapshot names the worker, the item and the task that do not come to an end."""
    gate = Gate()

    async def parse(value: str) -> str:
        await asyncio.sleep(0.1)
        return value

    async def look_up(value: str) -> Any:
        return await gate(value) if value == "odd" else value

    pipeline = Pipeline([Stage("Parse", 3, [parse, look_up])])
    frames = Frames()

    async def main() -> None:
        items = [{"id": f"{n}", "value": "even"} for n in range(9)]
        items.append({"id": "stuck", "value": "odd"})
        running = asyncio.create_task(pipeline.run(items, custom_dashboard=frames))
        await asyncio.sleep(60)
        gate.open()
        await running

    run_virtual(main)
    late = [snapshot for snapshot in frames.snapshots if 1 < snapshot.elapsed < 60]
    assert len(late) > 100
    for snapshot in late:
        busy = [state for state in snapshot.worker_states.values() if state.status == "busy"]
        assert [(state.current_item_id, state.current_task) for state in busy] == [
            ("stuck", "look_up")
        ]
        began = snapshot.timestamp - snapshot.elapsed
        assert busy[0].processing_since == pytest.approx(began + 0.3, abs=1e-5)


def test_progress_is_seen_while_it_is_made() -> None:
    """The count of finished items grows evenly over the updates when the work does."""
    frames = Frames()
    pipeline = Pipeline([Stage("Work", 2, [lasting(0.9)])])
    run_virtual(pipeline.run(range(10), custom_dashboard=frames, dashboard_update_interval=1))
    assert frames.times == [0, 1, 2, 3, 4, 4.5]
    seen = [snapshot.pipeline_stats.items_processed for snapshot in frames.snapshots]
    assert seen == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_bottleneck_is_where_items_wait(slow: int) -> None:
    """Of several stages, the slow one is where the queue is full and every worker is busy."""
    names = ["Read", "Fetch", "Parse", "Save"]
    stages = [
        Stage(name, 2, [lasting(3.03 if index == slow else 0.1)], queue_capacity=8)
        for index, name in enumerate(names)
    ]
    frames = Frames()
    run_virtual(Pipeline(stages).run(range(60), custom_dashboard=frames))
    midway = [snapshot for snapshot in frames.snapshots if 10 < snapshot.elapsed < 40]
    assert len(midway) > 50
    for snapshot in midway:
        stats = snapshot.pipeline_stats
        assert stats.queue_sizes[names[slow]] == 8
        assert all(stats.queue_sizes[name] <= 1 for name in names[slow + 1 :])
        by_stage = [
            state.status for state in snapshot.worker_states.values() if state.stage == names[slow]
        ]
        assert by_stage == ["busy", "busy"]


@pytest.mark.parametrize("tracked", [False, True])
def test_bottleneck_in_the_first_stage(tracked: bool) -> None:
    """If the first stage is the slow one, its workers are busy and nothing waits anywhere else."""
    stages = [Stage("Read", 2, [lasting(3.03)], queue_capacity=8), Stage("Save", 2, [lasting(0.1)])]
    frames = Frames()
    tracker = StatusTracker(on_status_change=lambda event: None) if tracked else None
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(60), custom_dashboard=frames))
    midway = [snapshot for snapshot in frames.snapshots if 10 < snapshot.elapsed < 60]
    assert len(midway) > 80
    for snapshot in midway:
        states = snapshot.worker_states.values()
        assert [state.status for state in states if state.stage == "Read"] == ["busy", "busy"]
        assert snapshot.pipeline_stats.queue_sizes["Save"] == 0
    idle = [snapshot.worker_states["Save-W0"].status == "idle" for snapshot in midway]
    assert sum(idle) > 0.8 * len(idle)


def test_bottleneck_workers_have_the_longest_times() -> None:
    """The metrics say how long an item takes in each stage on average."""
    stages = [Stage("Fast", 1, [lasting(0.5)]), Stage("Slow", 1, [lasting(2)])]
    pipeline = Pipeline(stages)
    run_virtual(pipeline.run(range(10)))
    average = {
        metrics.stage: metrics.avg_processing_time
        for metrics in pipeline.get_worker_metrics().values()
    }
    assert average == pytest.approx({"Fast": 0.5, "Slow": 2})


def test_monitoring_for_days_of_a_source_without_end() -> None:
    """A run of a day, fed by a generator of unknown length, is shown to its last second."""

    def readings() -> Iterator[int]:
        yield from range(24 * 60)

    frames = Frames()
    pipeline = Pipeline([Stage("Minute", 1, [lasting(60)])], collect_results=False)
    run_virtual(pipeline.run(readings(), custom_dashboard=frames, dashboard_update_interval=44))
    assert len(frames.snapshots) == 1 + 24 * 3600 // 44 + 1
    assert frames.total_items == 0
    assert frames.snapshots[-1].pipeline_stats.items_processed == 24 * 60
    assert [snapshot.pipeline_stats.items_processed for snapshot in frames.snapshots] == sorted(
        snapshot.pipeline_stats.items_processed for snapshot in frames.snapshots
    )


def test_monitoring_leaves_production_as_it_is() -> None:
    """Order of work, results and duration of a run are the same with a dashboard and without."""

    def program(**options: Any) -> tuple[list[Any], list[Any], float]:
        done: list[Any] = []

        async def work(value: int) -> int:
            await asyncio.sleep(0.1 * (value % 7))
            done.append((value, asyncio.get_running_loop().time()))
            return -value

        async def main() -> tuple[list[Any], list[Any], float]:
            results = await Pipeline([Stage("Work", 3, [work])]).run(range(50), **options)
            return results.values(), done, asyncio.get_running_loop().time()

        return run_virtual(main)

    assert program(custom_dashboard=Frames(), dashboard_update_interval=0.03) == program()


def test_events_between_two_updates_are_not_seen() -> None:
    """A dashboard misses what begins and ends between two updates; a tracker does not."""
    seen: set[Any] = set()

    class Spotter(Frames):
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            states = snapshot.worker_states.values()
            seen.update(state.current_item_id for state in states if state.status == "busy")

    tracker = StatusTracker()
    pipeline = Pipeline([Stage("Quick", 1, [lasting(0.02)])], status_tracker=tracker)
    run_virtual(pipeline.run(range(100), custom_dashboard=Spotter()))
    assert 1 <= len(seen) <= 5
    assert set(tracker.get_tracked_ids()) == set(range(100))
    assert all(
        [event.status for event in tracker.get_history(item)]
        == ["queued", "in_progress", "completed"]
        for item in range(100)
    )


@pytest.mark.parametrize("per_second", [2, 10, 50, 1000])
def test_updates_do_not_follow_the_frequency_of_events(per_second: int) -> None:
    """At any rate of events, a dashboard gets two updates a second and sees the true count."""
    frames = Frames()
    pipeline = Pipeline([Stage("Quick", 1, [lasting(1 / per_second)])])
    run_virtual(pipeline.run(range(per_second * 4), custom_dashboard=frames))
    assert 9 <= len(frames.times) <= 10
    for at, snapshot in zip(frames.times, frames.snapshots, strict=True):
        assert snapshot.pipeline_stats.items_processed == pytest.approx(at * per_second, abs=1)
