"""What waits inside a try for a limit: it counts as such, once, and never beyond the try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Literal

import pytest

from antflow import (
    Limit,
    Pipeline,
    PipelineStats,
    RunResults,
    Stage,
    StageStats,
    concurrency_limit,
    rate_limit,
)
from antflow.testing import Calls, run_virtual

Way = Literal["task_concurrency_limits", "concurrency_limit", "rate_limit"]
WAYS: tuple[Way, ...] = ("task_concurrency_limits", "concurrency_limit", "rate_limit")


def one_at_a_time(way: Way, workers: int, seconds: float, **options: Any) -> Stage:
    """A stage of which one task runs at a time, or begins in the time that one takes."""
    gates: dict[Way, Callable[[], AbstractAsyncContextManager[None]]] = {
        "task_concurrency_limits": nullcontext,
        "concurrency_limit": concurrency_limit,
        "rate_limit": rate_limit,
    }

    async def task(value: Any) -> Any:
        async with gates[way]():
            await asyncio.sleep(seconds)
        return value

    limits: dict[Way, dict[str, Any]] = {
        "task_concurrency_limits": {"task_concurrency_limits": {"task": 1}},
        "concurrency_limit": {"call_concurrency": 1},
        "rate_limit": {"call_rate": 1, "call_rate_period": seconds},
    }
    return Stage("A", workers, [task], **limits[way], **options)


def stats_of(*stages: Stage, items: int, **options: Any) -> StageStats:
    """The counts of the first stage when all is done."""
    pipeline = Pipeline(stages)

    async def main() -> PipelineStats:
        await pipeline.run(range(items), **options)
        return pipeline.get_stats()

    return run_virtual(main, max_time=100_000.0).stage_stats[stages[0].name]


def seconds_of(stats: StageStats) -> dict[str, object]:
    """What the workers were at for any time at all → worker-seconds."""
    kinds = {
        "busy": stats.busy_seconds,
        "limited": stats.limited_seconds,
        "blocked": stats.blocked_seconds,
        "retrying": stats.retry_waiting_seconds,
        "starved": stats.starved_seconds,
        "stalled": stats.stalled_seconds,
    }
    return {kind: pytest.approx(seconds) for kind, seconds in kinds.items() if seconds > 1e-9}


@pytest.mark.parametrize("way", WAYS)
def test_waits_inside_a_try_are_the_limits(way: Way) -> None:
    """Three workers, one call at a time: what is not work, nor idle at the end, is limited."""
    stats = stats_of(one_at_a_time(way, 3, 2.0), items=9)
    # The last three end two seconds apart.
    assert seconds_of(stats) == {"busy": 18.0, "limited": 3 * 18.0 - 18.0 - 6.0, "starved": 6.0}


@pytest.mark.parametrize("way", WAYS)
def test_waits_inside_a_try_are_no_part_of_its_run_time(way: Way) -> None:
    """However long a limit held it: each try took two seconds."""
    times = stats_of(one_at_a_time(way, 3, 2.0), items=9).run_times
    assert times.quantile(0) == times.quantile(1) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [None, 2])
def test_worker_that_waits_inside_a_try_is_shown_so(way: Way, batch: int | None) -> None:
    """It has its items in hand and waits for a limit; all that it has counts as limited."""

    async def main() -> None:
        stage = one_at_a_time(way, 3, 10.0, batch=batch)
        pipeline = Pipeline([stage])
        size = batch or 1
        running = asyncio.create_task(pipeline.run(range(3 * size)))
        for moment, waiting in ((5, 2), (15, 1), (25, 0)):
            await asyncio.sleep(moment - asyncio.get_running_loop().time())
            snapshot = pipeline.get_dashboard_snapshot()
            states = list(snapshot.worker_states.values())
            assert [state.waits_for for state in states].count("limited") == waiting
            assert snapshot.pipeline_stats.stage_stats["A"].limited_items == waiting * size
            # Read in the middle of a wait, the seconds add up as well.
            stats = snapshot.pipeline_stats.stage_stats["A"]
            assert stats.limited_seconds == pytest.approx({5: 10, 15: 20 + 5, 25: 30}[moment])
            assert stats.busy_seconds == pytest.approx(moment)
        await running

    run_virtual(main)


async def _several(count: int, seconds: float) -> None:
    async def call() -> None:
        async with concurrency_limit():
            await asyncio.sleep(seconds)

    await asyncio.gather(*[call() for _ in range(count)])


def test_several_calls_of_one_item_wait_as_one() -> None:
    """Five calls at once, two of them let in at a time: held up until the last one is let in."""

    async def task(value: int) -> int:
        await _several(5, 1.0)
        return value

    stats = stats_of(Stage("A", 1, [task], call_concurrency=2), items=10)
    assert seconds_of(stats) == {"limited": 20.0, "busy": 10.0}
    assert stats.run_times.quantile(0) == pytest.approx(1, rel=0.05)
    assert stats.run_times.quantile(1) == pytest.approx(1, rel=0.05)


def test_calls_without_anybody_before_them_book_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room nothing is waited for, and the book is not even opened."""
    from antflow._core.ledger import WorkerBook

    monkeypatch.delattr(WorkerBook, "call_waits")

    async def task(value: int) -> int:
        async with concurrency_limit(), rate_limit():
            return value

    stage = Stage(
        "A",
        3,
        [task],
        task_concurrency_limits={"task": 3},
        call_concurrency=3,
        call_rate=100,
    )
    assert "limited" not in seconds_of(stats_of(stage, items=30))


@pytest.mark.parametrize("batch", [None, 1])  # the two ways through the books
def test_call_that_outlives_its_item_holds_no_other(batch: int | None) -> None:
    """The worker counts as limited until the item is through, not with the next nor without any."""
    calls: list[asyncio.Task[None]] = []

    async def call() -> None:
        async with rate_limit():
            pass

    async def task(value: Any) -> Any:
        if value in (0, [0]):
            calls.extend(asyncio.create_task(call()) for _ in range(2))
        await asyncio.sleep(2)
        return value

    stage = Stage("A", 1, [task], call_rate=1, call_rate_period=100.0, batch=batch)

    async def main() -> dict[str, object]:
        pipeline = Pipeline([stage])
        async with pipeline.open() as run:
            await run.feed([0, 1])
            await asyncio.sleep(7)
            states = run.snapshot().worker_states.values()
            assert [state.waits_for for state in states] == [None]
            await run.feed([2])
            await asyncio.sleep(1)
            assert not calls[-1].done()
            stats = run.stats().stage_stats["A"]
            assert stats.run_times.quantile(0) == pytest.approx(0, abs=0.001)
            assert stats.run_times.quantile(1) == pytest.approx(2, rel=0.05)
            await asyncio.wait(calls)
        return seconds_of(stats)

    assert run_virtual(main) == {"limited": 2.0, "busy": 3.0, "starved": 3.0}


def test_call_that_outlives_its_try_does_not_hold_the_next_try() -> None:
    """A batch fails, and its items are tried alone: what it left behind waits for itself."""
    calls: list[asyncio.Task[None]] = []

    async def call() -> None:
        async with rate_limit():
            pass

    async def task(values: list[int]) -> list[int]:
        if len(values) > 1:
            calls.extend(asyncio.create_task(call()) for _ in range(2))
            await asyncio.sleep(1)
            raise ValueError("not all at once")
        await asyncio.sleep(5)
        return values

    stage = Stage("A", 1, [task], task_attempts=1, batch=2, call_rate=1, call_rate_period=100.0)

    async def main() -> StageStats:
        pipeline = Pipeline([stage])
        assert len(await pipeline.run(range(2))) == 2
        await asyncio.wait(calls)
        return pipeline.get_stats().stage_stats["A"]

    assert seconds_of(run_virtual(main)) == {"limited": 1.0, "busy": 10.0}


def test_time_limit_of_a_try_counts_the_waits_of_its_own_calls_alone() -> None:
    """``timeout`` is for the task: in it for `concurrency_limit`, not before it begins."""

    def outcome(way: Way) -> tuple[RunResults[Any], StageStats]:
        pipeline = Pipeline([one_at_a_time(way, 3, 1.0, timeout=2.5, task_attempts=1)])

        async def main() -> RunResults[Any]:
            return await pipeline.run(range(3))

        results = run_virtual(main)
        return results, pipeline.get_stats().stage_stats["A"]

    results, _ = outcome("task_concurrency_limits")
    assert len(results) == 3
    results, stats = outcome("concurrency_limit")
    assert [type(each.error) for each in results.failed] == [TimeoutError]
    # The third waits for two of its seconds, and has too few left.
    assert seconds_of(stats) == {"busy": 2.5, "limited": 1.0 + 2.0, "starved": 1.5 + 0.5}


def test_call_that_outlives_a_cancelled_item_waits_alone() -> None:
    """The run is cancelled, and a call that was left behind is not: no worker waits any more."""
    calls: list[asyncio.Task[None]] = []

    async def call() -> None:
        async with rate_limit():
            pass

    async def task(value: int) -> int:
        calls.extend(asyncio.create_task(call()) for _ in range(2))
        await asyncio.sleep(1000)
        return value

    stage = Stage("A", 1, [task], call_rate=1, call_rate_period=100.0)

    async def main() -> StageStats:
        pipeline = Pipeline([stage])
        running = asyncio.create_task(pipeline.run(range(1)))
        await asyncio.sleep(4)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        (state,) = pipeline.get_dashboard_snapshot().worker_states.values()
        assert state.waits_for is None
        await asyncio.wait(calls)
        return pipeline.get_stats().stage_stats["A"]

    assert seconds_of(run_virtual(main)) == {"limited": 4.0}


def test_wait_that_its_task_gives_up_is_over() -> None:
    """Cancelled by the task itself, which goes on without the call: from then on it is at work."""

    async def task(value: int) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(3), rate_limit():
                pass
        await asyncio.sleep(2)
        return value

    stage = Stage("A", 1, [task], call_rate=1, call_rate_period=1000.0)
    assert seconds_of(stats_of(stage, items=3)) == {"busy": 6.0, "limited": 6.0}


@pytest.mark.parametrize("way", WAYS)
def test_shutdown_lets_a_try_end_that_waits_for_a_call(way: Way) -> None:
    """It has begun: it is let in, in its turn, and its item comes through."""

    async def main() -> PipelineStats:
        pipeline = Pipeline([one_at_a_time(way, 2, 1.0)])
        async with pipeline.open() as run:
            await run.feed(range(5))
            await asyncio.sleep(0.5)
            await run.shutdown()
        return pipeline.get_stats()

    stats = run_virtual(main)
    assert (stats.items_processed, stats.items_cancelled) == (2, 3)
    assert seconds_of(stats.stage_stats["A"]) == {"busy": 2.0, "limited": 1.0, "starved": 1.0}


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_waits_are_over(way: Way) -> None:
    """Cancelled in the middle of it: what was waited for is booked, and nobody waits any more."""

    async def main() -> PipelineStats:
        pipeline = Pipeline([one_at_a_time(way, 2, 10.0)])
        running = asyncio.create_task(pipeline.run(range(5)))
        await asyncio.sleep(4)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await asyncio.sleep(100)
        states = pipeline.get_dashboard_snapshot().worker_states.values()
        assert [state.waits_for for state in states] == [None, None]
        return pipeline.get_stats()

    assert seconds_of(run_virtual(main).stage_stats["A"]) == {"busy": 4.0, "limited": 4.0}


def test_slot_that_was_given_back_is_waited_for_as_a_limit() -> None:
    """Who gave its slot back while it waited for room waits for a limit until it has one again."""

    async def expanding(value: int) -> AsyncIterator[int]:
        await asyncio.sleep(1)
        yield value
        await asyncio.sleep(4)

    stats = stats_of(
        Stage("A", 2, [expanding], limits=[Limit(concurrency=1)], expand=True),
        Stage("B", 1, [Calls(seconds=3)], pull=True),
        items=4,
    )
    assert stats.busy_seconds == pytest.approx(4 * 5)
    assert stats.limited_seconds > 5
