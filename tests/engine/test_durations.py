"""How long tries took and items waited, as a run tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from antflow import Drop, Limit, Pipeline, Stage, StageStats
from antflow.testing import run_virtual


async def stats_of(*stages: Stage, items: int, **options: float) -> dict[str, StageStats]:
    """The counts of each stage when all is done."""
    pipeline = Pipeline(stages)
    await asyncio.sleep(500)  # so that a moment that was not noted is a long time ago
    await pipeline.run(range(items), **options)  # type: ignore[arg-type]
    return pipeline.get_stats().stage_stats


def about(seconds: float) -> object:
    return pytest.approx(seconds, rel=0.05)


def test_run_times_of_known_tasks() -> None:
    """Nine of ten tries take a second, one takes ten: so say the median and the 95th percentile."""

    async def task(number: int) -> None:
        await asyncio.sleep(10 if number % 10 == 0 else 1)

    times = run_virtual(lambda: stats_of(Stage("A", 5, [task]), items=200))["A"].run_times
    assert times.count == 200
    assert (times.p50, times.p95) == (about(1), about(10))


@pytest.mark.parametrize("seconds", [0, 2])
def test_run_times_of_every_ending(seconds: float) -> None:
    """Tries that fail, are repeated or drop the item are tries, too, however short."""

    async def task(number: int) -> object:
        await asyncio.sleep(seconds)
        if number == 0:
            raise ValueError("never")
        return Drop if number == 1 else number

    stage = Stage("A", 3, [task], task_attempts=3, task_wait_seconds=1)
    times = run_virtual(lambda: stats_of(stage, items=3))["A"].run_times
    assert times.count == 5
    assert times.quantile(0) == times.quantile(1) == about(seconds)


def test_run_times_leave_out_what_a_limit_holds_up() -> None:
    """Who waits for a limit is not slow; each item's own time is left, not the wait before it."""

    async def task(number: int) -> None:
        await asyncio.sleep(2)

    stage = Stage("A", 2, [task], limits=[Limit(rate=1, period=10)])
    read = run_virtual(lambda: stats_of(stage, items=10))["A"]
    assert read.limited_seconds > 100
    assert read.run_times.quantile(0) == read.run_times.quantile(1) == about(2)


def test_run_times_leave_out_the_wait_for_room() -> None:
    """An item that becomes others takes as long as it takes to make them, however slow the next."""

    async def pages(number: int) -> AsyncIterator[int]:
        await asyncio.sleep(1)
        for page in range(4):
            yield page

    async def slow(page: int) -> None:
        await asyncio.sleep(5)

    stages = [Stage("A", 2, [pages], expand=True), Stage("B", 1, [slow], queue_capacity=1)]
    read = run_virtual(lambda: stats_of(*stages, items=10))["A"]
    assert read.blocked_seconds > 100
    assert read.run_times.count == 10
    assert read.run_times.quantile(0) == read.run_times.quantile(1) == about(1)


def test_run_times_of_a_batch_leave_out_the_wait_for_room() -> None:
    """Its items have all been done when the first of them waits for room."""

    async def read_rows(numbers: list[int]) -> list[int]:
        await asyncio.sleep(1)
        return numbers

    async def slow(number: int) -> None:
        await asyncio.sleep(5)

    stages = [Stage("A", 1, [read_rows], batch=6), Stage("B", 1, [slow], queue_capacity=1)]
    times = run_virtual(lambda: stats_of(*stages, items=12))["A"].run_times
    assert times.count == 12
    assert times.quantile(0) == times.quantile(1) == about(1)


def test_run_times_of_batches() -> None:
    """Each item of a batch has taken as long as its batch did."""

    async def task(numbers: list[int]) -> list[int]:
        await asyncio.sleep(3)
        return numbers

    stage = Stage("A", 1, [task], batch=5, limits=[Limit(rate=1, period=7)])
    times = run_virtual(lambda: stats_of(stage, items=20))["A"].run_times
    assert times.count == 20
    assert times.quantile(0) == times.quantile(1) == about(3)


def test_queue_waits_of_a_slow_stage() -> None:
    """One worker, a second for each: of ten items fed at once, the last waits for nine seconds."""

    async def nothing(number: int) -> int:
        return number

    async def slow(number: int) -> None:
        await asyncio.sleep(1)

    stages = Stage("A", 10, [nothing]), Stage("B", 1, [slow], queue_capacity=100)
    read = run_virtual(lambda: stats_of(*stages, items=10))
    waits = read["B"].queue_waits
    assert waits.count == 10
    assert (waits.quantile(0), waits.p50, waits.quantile(1)) == (0.0, about(4), about(9))
    assert read["A"].queue_waits.quantile(1) == 0.0


def test_queue_waits_do_not_count_the_pause_before_a_retry() -> None:
    """Between two tries an item waits for its time, not for a worker."""
    tries: list[int] = []

    async def task(number: int) -> None:
        tries.append(number)
        if len(tries) < 3:
            raise ValueError("not yet")

    stage = Stage("A", 1, [task], task_attempts=3, task_wait_seconds=60)
    waits = run_virtual(lambda: stats_of(stage, items=1))["A"].queue_waits
    assert waits.count == 3
    assert waits.quantile(1) == 0.0


@pytest.mark.parametrize("stops_at", [1000, 40])
def test_intake_ends_once(stops_at: float) -> None:
    """How long items could come is fixed by the end of the input, not by the end of the run."""

    async def task(number: int) -> None:
        await asyncio.sleep(1)

    async def program() -> tuple[float, float]:
        stages = [Stage("A", 1, [task]), Stage("B", 1, [task, task, task], queue_capacity=0)]
        pipeline = Pipeline(stages)
        running = asyncio.ensure_future(pipeline.run(range(20)))
        await asyncio.sleep(5)
        early = pipeline.get_dashboard_snapshot()
        assert early.intake_seconds == early.elapsed == 5
        await asyncio.wait([running], timeout=stops_at - 5)
        await pipeline.shutdown()
        late = pipeline.get_dashboard_snapshot()
        return late.intake_seconds, late.elapsed

    assert run_virtual(program) == (about(20), about(min(61, stops_at + 1)))
