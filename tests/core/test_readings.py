"""Snapshots, read from the books of a run at any moment."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest

from antflow import (
    DashboardSnapshot,
    Limit,
    Pipeline,
    Stage,
    StatusTracker,
    count,
    set_task_status,
)
from antflow._core.ledger import Ledger
from antflow.testing import FailTimes, MemoryStore, run_virtual
from tests.support import lasting, raising, same, virtual

pytestmark = pytest.mark.fault


def test_snapshot_that_was_taken_earlier_stays_as_it_was() -> None:
    """A snapshot does not change afterwards, not even if it is only read at the end."""
    taken: list[tuple[DashboardSnapshot, DashboardSnapshot]] = []

    async def together(values: list[int]) -> list[int]:
        set_task_status(f"{len(values)} of them")
        count("values", len(values))
        await asyncio.sleep(0.2)
        return values

    async def main() -> None:
        tracker = StatusTracker()
        stages = [
            Stage("A", 2, [FailTimes(1)], "per_stage"),
            Stage("B", 2, [raising(ValueError("no"), 3, 5)], task_wait_seconds=0.3),
            Stage("C", 1, [lasting(0.1)], limits=[Limit(rate=8)]),
            Stage("D", 2, [together], batch=3, batch_wait=0.2),
        ]
        pipeline = Pipeline(stages, status_tracker=tracker)
        run = asyncio.ensure_future(pipeline.run(range(30)))
        while not run.done():
            unread, read = pipeline.get_dashboard_snapshot(), pipeline.get_dashboard_snapshot()
            read.cpu_seconds = unread.cpu_seconds
            taken.append((unread, copy.deepcopy(read)))
            await asyncio.sleep(0.31)
        await pipeline.run(range(3))

    virtual(main)
    assert len(taken) > 20
    states = [state for _, read in taken for state in read.worker_states.values()]
    assert {state.batch_size for state in states} >= {0, 1, 2}
    assert {state.waits_for for state in states} >= {None, "blocked", "limited"}
    assert {state.task_status for state in states} >= {"", "2 of them"}
    for unread, read in taken:
        assert unread == read
    last = taken[-1][0].pipeline_stats
    assert last.counters["values"].total > 3
    assert last.stage_stats["A"].retries_by_type
    assert last.stage_stats["B"].errors_by_type == {"ValueError": 2}


def test_snapshot_makes_no_value_for_each_worker_before_they_are_read() -> None:
    """A snapshot of 500 busy workers makes as few objects as one of 5, until it is read."""

    def objects_made(workers: int) -> tuple[int, int]:
        counts: list[int] = []

        async def main() -> None:
            pipeline = Pipeline([Stage("Work", workers, [lasting(1)])])
            run = asyncio.ensure_future(pipeline.run(range(workers)))
            await asyncio.sleep(0.5)
            gc.collect()
            gc.disable()
            try:
                before = len(gc.get_objects())
                snapshot = pipeline.get_dashboard_snapshot()
                counts.append(len(gc.get_objects()) - before)
                assert len(snapshot.worker_states) == workers
                counts.append(len(gc.get_objects()) - before)
            finally:
                gc.enable()
            await run

        virtual(main)
        return counts[0], counts[1]

    objects_made(5)  # what is only made once
    (few, _), (many, read) = objects_made(5), objects_made(500)
    assert abs(many - few) < 10
    assert read >= 500


def test_snapshot_keeps_no_item() -> None:
    """A snapshot that is kept, read or not, keeps neither the items nor their values."""

    class Value:
        pass

    values: list[ref[Value]] = []
    kept: list[DashboardSnapshot] = []

    def source() -> Iterator[Value]:
        for _ in range(2):
            value = Value()
            values.append(ref(value))
            yield value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], collect_results=False)
        run = asyncio.ensure_future(pipeline.run(source()))
        await asyncio.sleep(0.5)
        kept.extend(pipeline.get_dashboard_snapshot() for _ in range(2))
        assert all(value() is not None for value in values)
        assert kept[0].worker_states["Work-W1"].current_item_id == 1
        await run
        gc.collect()
        assert [value() for value in values] == [None, None]

    virtual(main)
    assert kept[1].worker_states == kept[0].worker_states


@pytest.mark.parametrize(
    "changed",
    [
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
        lambda snapshot: pickle.loads(pickle.dumps(snapshot)),
        lambda snapshot: DashboardSnapshot(
            **{each.name: getattr(snapshot, each.name) for each in dataclasses.fields(snapshot)}
        ),
    ],
    ids=["copy", "deepcopy", "replace", "pickle", "made by hand"],
)
def test_snapshot_that_was_not_read_yet_is_an_ordinary_value(changed: Any) -> None:
    """It can be copied, pickled, compared and printed before its workers are read."""
    snapshots: list[DashboardSnapshot] = []

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
        run = asyncio.ensure_future(pipeline.run(range(2)))
        await asyncio.sleep(0.5)
        snapshots.extend(pipeline.get_dashboard_snapshot() for _ in range(4))
        await run

    virtual(main)
    for snapshot in snapshots:
        snapshot.cpu_seconds = 0.0
    unread, read, shown, turned = snapshots
    assert {type(read.worker_states), type(read.worker_metrics)} == {dict}
    assert read.worker_states["Work-W0"].status == "busy"
    assert repr(shown) == repr(read)
    assert dataclasses.asdict(turned) == dataclasses.asdict(read)
    assert changed(unread) == read
    assert unread == read


def test_writing_into_a_snapshot_changes_nothing_else() -> None:
    """Writing into a snapshot changes nothing but the snapshot."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [raising(ValueError("no"), 2)])])
        await pipeline.run(range(4))
        snapshot = pipeline.get_dashboard_snapshot()
        before = copy.deepcopy(snapshot)
        snapshot.worker_states.clear()
        snapshot.worker_metrics["Work-W0"].items_processed = 99
        snapshot.pipeline_stats.stage_stats.clear()
        snapshot.error_summary.failed_items.clear()
        snapshot.error_summary.errors_by_type["ValueError"] = 99
        after = pipeline.get_dashboard_snapshot()
        before.timestamp = after.timestamp
        before.elapsed = after.elapsed
        assert after == before

    virtual(main)


def test_snapshot_before_and_after_a_run() -> None:
    """A snapshot can be taken at any time: all zero before the first run, final after it."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 3, [same])])
        before = pipeline.get_dashboard_snapshot()
        assert before.state == "idle"
        assert list(before.worker_states) == ["Work-W0", "Work-W1", "Work-W2"]
        assert before.pipeline_stats.items_accepted == 0
        await pipeline.run(range(7))
        after = pipeline.get_dashboard_snapshot()
        assert after.state == "finished"
        assert after.pipeline_stats.items_processed == 7

    virtual(main)


def test_counts_of_snapshots_from_another_thread_never_go_back() -> None:
    """Snapshots can be taken in another thread without end; none raises, no counter goes back."""
    errors: list[BaseException] = []
    counts: list[tuple[int, int]] = []
    over = threading.Event()
    stages = [
        Stage("A", 7, [raising(ValueError("no"), *range(0, 3000, 7))], task_attempts=1),
        Stage("B", 5, [same]),
    ]
    pipeline = Pipeline(stages, status_tracker=StatusTracker())

    def look() -> None:
        while not over.is_set():
            try:
                snapshot = pipeline.get_dashboard_snapshot()
                stats = snapshot.pipeline_stats
                assert len(snapshot.worker_states) == len(snapshot.worker_metrics) > 5
                pipeline.get_worker_names()
                pipeline.get_error_summary()
            except BaseException as error:
                errors.append(error)
                return
            counts.append((stats.items_accepted, stats.items_processed))

    async def main() -> None:
        async with pipeline.open() as run:
            for n in range(30):
                run.set_workers("A", 1 + n % 7)
                await run.feed(range(100 * n, 100 * n + 100))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert errors == []
    assert counts
    assert counts == sorted(counts)
    assert pipeline.results.stats.items_failed == len(range(0, 3000, 7))


@pytest.mark.parametrize("tracked", [False, True])
def test_snapshot_costs_the_same_however_many_items_there_were(tracked: bool) -> None:
    """Taking a snapshot is as much work after 2000 items as after 200, failed ones included."""

    def lines_run_after(count: int) -> int:
        tracker = StatusTracker() if tracked else None
        stages = [
            Stage("A", 4, [raising(ValueError("no"), *range(0, count, 2))], task_attempts=1),
            Stage("B", 4, [same]),
        ]
        pipeline = Pipeline(stages, status_tracker=tracker)
        lines = 0

        async def main() -> None:
            nonlocal lines
            await pipeline.run(range(count))

            def trace(frame: Any, event: str, arg: Any) -> Any:
                nonlocal lines
                lines += 1
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                pipeline.get_dashboard_snapshot()
            finally:
                sys.settrace(before)

        virtual(main, max_steps=1_000_000)
        return lines

    assert lines_run_after(2000) == lines_run_after(200) > 20


def test_errors_of_a_stage_by_type() -> None:
    """Each stage says which errors its items failed with, and which tries are repeated."""
    left = {1: 2, 2: 1}

    async def flaky(number: int) -> int:
        if left.get(number, 0):
            left[number] -= 1
            raise TimeoutError
        return 10 // (number - 3)

    store = MemoryStore()
    stages = [Stage("Ask", 1, [flaky], task_attempts=2), Stage("Say", 1, [str])]
    pipeline = Pipeline(stages, store=store)
    run_virtual(pipeline.run(range(1, 5), on_failures="ignore"))
    ask, say = pipeline.get_stats().stage_stats.values()
    assert ask.errors_by_type == {"TimeoutError": 1, "ZeroDivisionError": 1}
    assert ask.retries_by_type == {"TimeoutError": 2, "ZeroDivisionError": 1}
    assert sum(ask.errors_by_type.values()) == ask.failed_items
    assert sum(ask.retries_by_type.values()) == ask.retried_items
    assert (say.errors_by_type, say.retries_by_type) == ({}, {})
    again = Ledger(2)
    for transition in store.transitions:
        again.apply(transition)
    assert again.stages[0].errors == ask.errors_by_type
    assert again.stages[0].retries == ask.retries_by_type
