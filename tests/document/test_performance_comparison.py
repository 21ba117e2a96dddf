"""Performance comparison: what each mechanism costs, counted rather than timed."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antflow import DashboardSnapshot, Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent
from antflow.testing import run_virtual

from .watchers import Frames, PolledPipeline, lasting, now

pytestmark = pytest.mark.document

# The cost of a dashboard: one snapshot every N seconds


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("items", "seconds"), [(1, 30.05), (601, 0.05)])
def test_dashboard_costs_a_snapshot_per_interval(
    interval: float, items: int, seconds: float
) -> None:
    """A run of T seconds costs T/N snapshots, one at its start and one at its end, for any work."""
    pipeline = PolledPipeline([Stage("Work", 1, [lasting(seconds)])])
    run_virtual(
        pipeline.run(range(items), custom_dashboard=Frames(), dashboard_update_interval=interval)
    )
    assert pipeline.poll_times[-1] == pytest.approx(30.05)
    assert len(pipeline.polled) == int(30.05 / interval) + 2


def calls_of(function: Any) -> int:
    """How many calls of functions, of Python and of C, a call makes."""
    count = 0

    def on_event(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def parts_of(value: Any) -> int:
    """How many values a snapshot is made of."""
    if dataclasses.is_dataclass(value):
        return sum(parts_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(parts_of(each) for each in value.values())
    if isinstance(value, list):
        return sum(parts_of(each) for each in value)
    return 1


async def fail_often(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


def run_of(count: int, tracker: StatusTracker | None = None) -> Pipeline:
    stages = [
        Stage("First", 5, [fail_often], task_attempts=1),
        Stage("Second", 5, [lasting(0)]),
    ]
    pipeline = Pipeline(stages, status_tracker=tracker)
    run_virtual(pipeline.run(range(count)))
    return pipeline


@pytest.mark.parametrize("tracked", [False, True])
def test_snapshot_costs_the_same_at_any_scale(tracked: bool) -> None:
    """After 10 000 items a snapshot takes as many steps as after 300, with a tracker or without."""
    costs = [
        calls_of(run_of(count, StatusTracker() if tracked else None).get_dashboard_snapshot)
        for count in (300, 10_000)
    ]
    assert costs[0] == costs[1] > 0


def test_snapshot_is_as_large_at_any_scale() -> None:
    """A snapshot holds the current state only: as many values after 10 000 items as after 300."""
    small, large = (run_of(count).get_dashboard_snapshot() for count in (300, 10_000))
    assert large.pipeline_stats.items_processed == 5000
    assert large.error_summary.total_failed == 5000
    assert parts_of(small) == parts_of(large)


def test_dashboard_keeps_no_items() -> None:
    """With a dashboard, a run that keeps no results grows by nothing while items go through it."""
    sizes: list[int] = []

    class Weighing(Frames):
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            sizes.append(tracemalloc.get_traced_memory()[0])

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 4, [lasting(0.001)])], collect_results=False)
        await pipeline.run(range(20_000), custom_dashboard=Weighing())

    tracemalloc.start()
    try:
        run_virtual(main)
    finally:
        tracemalloc.stop()
    assert len(sizes) > 8
    # 2000 items between two updates; one kept object of 64 bytes each would be 128 kB.
    assert max(sizes[3:]) - min(sizes[3:]) < 60_000


# The cost of a tracker: a callback per event


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("items", [0, 1, 50])
def test_tracker_costs_three_callbacks_per_item_and_stage(
    items: int, stages: int, workers: int
) -> None:
    """Where all goes well, an item is told three times per stage, and each task of it twice."""
    told: list[StatusEvent] = []
    tried: list[TaskEvent] = []
    tracker = StatusTracker(told.append, tried.append, tried.append, tried.append, tried.append)
    pipeline = Pipeline(
        [Stage(f"S{n}", workers, [lasting(0.1), lasting(0.2)]) for n in range(stages)],
        status_tracker=tracker,
    )
    run_virtual(pipeline.run(range(items)))
    assert len(told) == items * stages * 3
    assert len(tried) == items * stages * 2 * 2


# One item: for each stage whether it is skipped, and how many of its tries fail.
PLANS = st.lists(
    st.tuples(*[st.tuples(st.booleans(), st.integers(0, 3))] * 3), min_size=1, max_size=12
)
ATTEMPTS = 3


def events_of_plan(plan: tuple[tuple[bool, int], ...], whole_stage: bool) -> tuple[int, int]:
    """How many status and task events an item with this plan brings about."""
    status = task = 0
    for skipped, failures in plan:
        if skipped:
            status += 2  # queued, skipped
            continue
        tries = min(failures + 1, ATTEMPTS)
        task += 2 * tries  # start; complete, retry or fail
        status += 3  # queued, in_progress; completed or failed
        if whole_stage:
            status += 2 * (tries - 1)  # retrying, in_progress
        if failures >= ATTEMPTS:
            break
    return status, task


@settings(max_examples=60, deadline=None)
@given(plans=PLANS, workers=st.integers(1, 4), seed=st.integers(0, 1000), whole=st.booleans())
def test_tracker_costs_exactly_one_callback_per_event(
    plans: list[tuple[tuple[bool, int], ...]], workers: int, seed: int, whole: bool
) -> None:
    """With any mixture of skips, retries and failures, there are exactly as many events."""

    def task(stage: int) -> Any:
        tries: dict[int, int] = {}

        async def work(number: int) -> int:
            tries[number] = tries.get(number, 0) + 1
            await asyncio.sleep(0.1)
            if tries[number] <= plans[number][stage][1]:
                raise ValueError(stage)
            return number

        return work

    def skips(stage: int) -> Any:
        return lambda number: plans[number][stage][0]

    told: list[StatusEvent] = []
    tried: list[TaskEvent] = []
    tracker = StatusTracker(told.append, tried.append, tried.append, tried.append, tried.append)
    stages = [
        Stage(
            f"S{n}",
            workers,
            [task(n)],
            retry="per_stage" if whole else "per_task",
            task_attempts=ATTEMPTS,
            stage_attempts=ATTEMPTS,
            skip_if=skips(n),
        )
        for n in range(3)
    ]
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(len(plans))), seed=seed)
    expected = [events_of_plan(plan, whole) for plan in plans]
    assert len(told) == sum(status for status, _ in expected)
    assert len(tried) == sum(task for _, task in expected)


def test_tracker_without_callbacks_calls_nothing() -> None:
    """Without callbacks, following a run costs no event object at all."""
    made: list[str] = []
    tracker = StatusTracker()

    def spy(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_qualname in ("make_event", "status_events"):
            made.append(frame.f_code.co_qualname)

    pipeline = Pipeline([Stage("Work", 2, [lasting(0.1)])], status_tracker=tracker)
    before = sys.getprofile()
    sys.setprofile(spy)
    try:
        run_virtual(pipeline.run(range(50)))
    finally:
        sys.setprofile(before)
    assert made == []
    assert len(tracker.get_history(7)) == 3


# Memory of a tracker: the history


def test_tracker_stores_every_event() -> None:
    """The history grows with the events: all of them are there afterwards, over all the runs."""
    tracker = StatusTracker()
    for runs in (1, 2):
        pipeline = run_of(100, tracker)
        run_id = pipeline.results.run_id
        lengths = [len(tracker.get_history(n, run=run_id)) for n in tracker.get_tracked_ids(run_id)]
        assert sorted(lengths) == [3] * 50 + [6] * 50
        assert sum(tracker.get_stats().values()) == 100 * runs


def test_tracker_needs_less_than_its_events() -> None:
    """What a tracker keeps takes less than half the memory of the events it stands for."""
    items = 4000
    tracker = StatusTracker()
    stages = [Stage(name, 4, [lasting(0)]) for name in ("First", "Second")]
    pipeline = Pipeline(stages, collect_results=False, status_tracker=tracker)
    tracemalloc.start()
    try:
        run_virtual(pipeline.run(range(items)))
        kept = tracemalloc.get_traced_memory()[0]
        events = [tracker.get_history(item_id) for item_id in range(items)]
        made = tracemalloc.get_traced_memory()[0] - kept
    finally:
        tracemalloc.stop()
    assert sum(map(len, events)) == items * 2 * 3
    assert kept < made / 2


# Latency


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.0])
def test_latency_of_both(interval: float) -> None:
    """The tracker tells of each completion when it happens, the dashboard up to N seconds later."""
    happened: list[float] = []
    told: list[float] = []

    async def work(value: int) -> int:
        await asyncio.sleep(0.1 + (value * 37 % 50) / 100)
        happened.append(now())
        return value

    def on_status_change(event: StatusEvent) -> None:
        if event.status == "completed":
            told.append(now())

    frames = Frames()
    tracker = StatusTracker(on_status_change=on_status_change)
    pipeline = Pipeline([Stage("Work", 3, [work])], status_tracker=tracker)
    run_virtual(
        pipeline.run(range(100), custom_dashboard=frames, dashboard_update_interval=interval)
    )
    assert told == happened
    delays = []
    for count, moment in enumerate(happened, 1):
        shown = next(
            at
            for at, snapshot in zip(frames.times, frames.snapshots, strict=True)
            if snapshot.pipeline_stats.items_processed >= count
        )
        delays.append(shown - moment)
    assert min(delays) >= 0
    assert interval / 2 < max(delays) <= interval + 1e-9


# Scalability


def duration_of(pipeline: Pipeline, count: int, **options: Any) -> float:
    async def main() -> float:
        await pipeline.run(range(count), **options)
        return now()

    return run_virtual(main)


@pytest.mark.parametrize("cost", [0.0, 0.25, 2.0])
def test_tracker_slows_workers_by_what_its_callback_takes(cost: float) -> None:
    """With one worker, a run takes longer by the time of the callbacks that the worker waits for.

    "queued" is told beside it, and only the first one before it can begin.
    """

    async def on_status_change(event: StatusEvent) -> None:
        await asyncio.sleep(cost)

    tracker = StatusTracker(on_status_change=on_status_change)
    pipeline = Pipeline([Stage("Work", 1, [lasting(1)])], status_tracker=tracker)
    assert duration_of(pipeline, 8) == pytest.approx(cost + 8 * (1 + 2 * cost))


def test_dashboard_does_not_slow_workers() -> None:
    """Even a dashboard that takes three seconds to draw leaves the run as fast as it was."""

    class Slow(Frames):
        async def on_update(self, snapshot: DashboardSnapshot) -> None:  # type: ignore[override]
            self.snapshots.append(snapshot)
            if len(self.snapshots) > 1:
                await asyncio.sleep(3)

    slow = Slow()
    pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
    assert duration_of(pipeline, 20) == 20
    # Updates at 0, 0.5, 4, 7.5, 11, 14.5 and 18 s, and one when it is over.
    assert duration_of(pipeline, 20, custom_dashboard=slow) <= 24
    assert len(slow.snapshots) == 8
    assert slow.snapshots[-1].pipeline_stats.items_processed == 20
