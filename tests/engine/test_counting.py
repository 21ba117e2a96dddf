"""What tasks count, wherever they run, and what is said of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, RunResults, Stage, count
from antflow.testing import run_virtual
from tests.engine.process_tasks import count_and_fail_once, count_and_hang, count_many


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find the tasks."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def results_of(*stages: Stage, items: Any = range(10), **options: Any) -> RunResults[Any]:
    return run_virtual(lambda: Pipeline(stages).run(items, on_failures="ignore", **options))


async def counting(value: int) -> int:
    await asyncio.sleep(1)
    assert count("tokens", 10)
    return value


def counting_in_a_thread(value: int) -> int:
    assert count("tokens", 0.5)
    return value


def test_counts_of_async_tasks_and_threads() -> None:
    """Each stage has its own; the run and its results have the sums."""
    stages = [Stage("Ask", 2, [counting]), Stage("Thread", 2, [counting_in_a_thread])]
    results = results_of(*stages)
    stats = results.stats.stage_stats
    assert stats["Ask"].counters["tokens"].total == 100
    assert stats["Thread"].counters["tokens"].total == 5
    assert results.stats.counters["tokens"].total == 105
    assert results.counters == {"tokens": 105}
    assert stats["Ask"].counters["tokens"].per_second == pytest.approx(100 / 5)


@pytest.mark.parametrize("options", [{}, {"batch": 2}, {"expand": True}])
def test_counts_of_tries_that_fail_stay(options: dict[str, Any]) -> None:
    """Each try was paid for."""
    tries = 0

    async def task(value: Any) -> Any:
        nonlocal tries
        tries += 1
        count("tries")
        if tries % 2:
            raise ValueError("no")
        return value if options.get("batch") else [value]

    results = results_of(Stage("Ask", 1, [task], task_attempts=3, **options))
    assert results.counters == {"tries": tries}
    assert tries > 10 / options.get("batch", 1)


def test_amount_in_the_whole_run() -> None:
    """From the items so far, those to come, and how many of them come so far."""
    seen: list[DashboardSnapshot] = []

    class Display:
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            seen.append(snapshot)

    async def half(value: int) -> Any:
        await asyncio.sleep(0.1)
        if value % 2:
            raise ValueError(value)
        return value

    stages = [Stage("Half", 2, [half], task_attempts=1), Stage("Ask", 2, [counting])]
    results_of(*stages, items=range(400), custom_dashboard=Display())
    projected = [
        each.pipeline_stats.counters["tokens"].projected
        for each in seen
        if each.pipeline_stats.counters
    ]
    assert projected[-1] == 2000
    assert all(each == pytest.approx(2000, rel=0.1) for each in projected[10:])


def test_amount_in_a_run_of_unknown_length() -> None:
    """Nothing is said until no more items come."""
    seen: list[float | None] = []

    async def source() -> Any:
        for number in range(20):
            yield number

    async def task(value: int) -> None:
        await counting(value)
        seen.append(pipeline.get_stats().counters["tokens"].projected)

    pipeline = Pipeline([Stage("Ask", 1, [task], queue_capacity=2)])
    run_virtual(lambda: pipeline.run(source()))
    assert seen[0] is None
    assert seen[-1] == pytest.approx(200, rel=0.1)


def test_one_name_too_many_fails_the_item() -> None:
    """It says how many there may be; the others are counted."""

    async def task(value: int) -> None:
        count(f"name {value}")

    results = results_of(Stage("Ask", 1, [task], task_attempts=1), items=range(34))
    assert len(results.counters) == 32
    assert [failed.id for failed in results.failed] == [32, 33]
    assert "32 other names" in str(results.failed[0].error)


def test_run_inside_a_task_counts_for_itself() -> None:
    """Its source and its display belong to no task, and its tasks to their own stage."""
    taken: list[bool] = []

    def source() -> Any:
        taken.append(count("x"))
        yield 1

    async def outer(value: int) -> Any:
        count("outer")
        return (await Pipeline([Stage("Inner", 1, [counting])]).run(source())).counters

    results = results_of(Stage("Outer", 1, [outer]), items=[1])
    assert taken == [False]
    assert results.counters == {"outer": 1}
    assert results.values() == [{"tokens": 10}]


def test_nothing_is_said_where_nothing_is_counted() -> None:
    """Most pipelines count nothing: their numbers have no place for it."""
    results = results_of(Stage("Plain", 1, [str]))
    assert results.counters == {}
    assert results.stats.counters == {}


@pytest.mark.process
def test_counts_of_child_processes() -> None:
    """They come with the answers, those of failed tries too."""
    stage = Stage(
        "Child",
        2,
        [count_and_fail_once],
        executor="process",
        task_attempts=2,
        task_wait_seconds=0,
    )
    results = asyncio.run(Pipeline([stage]).run(range(6)))
    assert len(results) == 6
    assert results.counters == {"tries": 6 + results.stats.stage_stats["Child"].retried_items}
    assert results.stats.stage_stats["Child"].retried_items >= 1


@pytest.mark.process
def test_counts_of_child_that_fails() -> None:
    """They come with the error, not with the next answer: there may be none."""
    stage = Stage("Child", 1, [count_and_fail_once], executor="process", task_attempts=1)
    results = asyncio.run(Pipeline([stage]).run([1], on_failures="ignore"))
    assert len(results.failed) == 1
    assert results.counters == {"tries": 1}


@pytest.mark.process
def test_counts_of_a_call_that_is_cut_off() -> None:
    """What a child counted more than a moment before it was killed is there."""
    stage = Stage("Child", 1, [count_and_hang], executor="process", timeout=3, task_attempts=1)
    results = asyncio.run(Pipeline([stage]).run([1], on_failures="ignore"))
    assert len(results.failed) == 1
    assert results.counters == {"rows": 7}


@pytest.mark.process
def test_children_that_use_too_many_names_together() -> None:
    """The item with whose answer the last ones come fails, with the error of a single process."""
    stage = Stage("Child", 2, [count_many], executor="process", task_attempts=1)
    pipeline = Pipeline([stage])
    results = asyncio.run(pipeline.run(["a", "b"], on_failures="ignore"))
    assert len(results.counters) == 32
    assert len(results.failed) == 1
    assert "32 other names" in str(results.failed[0].error)
