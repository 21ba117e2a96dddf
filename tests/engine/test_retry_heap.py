"""Items that wait for their next try: in turn, a bounded number of them, without a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusTracker, current_item
from antflow._engine.retry_heap import RetryHeap
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import assert_balanced, endless, in_background, now, raising, virtual


def test_failed_items_that_wait_hold_no_worker() -> None:
    """One worker, a failed item that waits 10 s: the others are through meanwhile."""

    async def task(value: int) -> int:
        if value == 0 and current_item().attempt == 1:
            raise ValueError
        return value

    async def main() -> list[tuple[int, float]]:
        pipeline = Pipeline([Stage("A", 1, [task], task_wait_seconds=10)])
        return [(result.value, now()) async for result in pipeline.stream(range(3))]

    assert run_virtual(main) == [(1, 0), (2, 0), (0, pytest.approx(10))]


def test_item_that_is_due_sooner_is_tried_sooner() -> None:
    """What waits for its next try waits as long as it should, whatever waited there before it."""

    async def task(seconds: int) -> int:
        if current_item().attempt == 1:
            raise ValueError
        return seconds

    def as_long_as_it_says(attempt: int) -> float:
        return float(current_item().id)

    async def main() -> list[tuple[int, float]]:
        stage = Stage("A", 1, [task], wait=as_long_as_it_says)
        items = [{"id": seconds, "value": seconds} for seconds in (100, 1, 10)]
        return [(result.value, now()) async for result in Pipeline([stage]).stream(items)]

    assert run_virtual(main) == [(1, 1), (10, 10), (100, 100)]


def test_waiting_retries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that all fail: no more of them wait for a retry than there is room for."""
    most = 0
    push = RetryHeap.push

    def watched(self: RetryHeap, envelope: Any, delay: float) -> None:
        nonlocal most
        push(self, envelope, delay)
        most = max(most, len(self))

    monkeypatch.setattr(RetryHeap, "push", watched)

    async def main() -> None:
        stage = Stage("A", 3, [FailTimes(1)], queue_capacity=4, task_wait_seconds=60)
        await Pipeline([stage]).run(range(100))

    run_virtual(main)
    assert 3 < most < 3 + 4


def pause_of(retry: str, seconds: float) -> dict[str, Any]:
    """The option for the pause between tries."""
    return {f"{retry.removeprefix('per_')}_wait_seconds": seconds}


@pytest.mark.fault
@pytest.mark.parametrize("wait", [0, 1])
def test_retries_come_in_turn(wait: float) -> None:
    """Items that are to be tried again at the same moment are, in the order they failed."""

    async def main() -> list[Any]:
        calls = Calls(FailTimes(1))
        await Pipeline([Stage("Work", 1, [calls], task_wait_seconds=wait)]).run(range(5))
        tried = [call.value for call in calls.made]
        return [value for place, value in enumerate(tried) if value in tried[:place]]

    assert virtual(main) == [0, 1, 2, 3, 4]


@pytest.mark.fault
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_worker_is_free_while_an_item_waits_for_its_next_try(retry: str) -> None:
    """A worker is free for others while an item waits for its next try."""

    async def main() -> None:
        flaky = FailTimes(1)

        async def work(value: int) -> int:
            return await flaky(value) if value == 0 else value

        stage = Stage("W", 1, [work], retry, **pause_of(retry, 100))
        pipeline = Pipeline([stage])
        run = await in_background(pipeline.run(range(8)), 1)
        assert pipeline.results.values() == [1, 2, 3, 4, 5, 6, 7]
        assert len(await run) == 8
        assert now() == 100

    virtual(main)


@pytest.mark.fault
def test_items_that_wait_for_their_next_try_are_bounded() -> None:
    """While all items fail, no more are taken in than channel, workers and waiting ones may be."""

    async def main() -> None:
        stage = Stage("W", 2, [raising(ValueError("no"))], task_wait_seconds=1000, queue_capacity=5)
        pipeline = Pipeline([stage])
        run = await in_background(pipeline.run(endless()), 10)
        stats = pipeline.get_stats()
        assert 5 <= stats.stage_stats["W"].retrying_items <= 5 + 2
        assert stats.items_in_flight <= 5 + 5 + 2
        run.cancel()
        await asyncio.wait([run])
        assert_balanced(pipeline.get_stats())

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("wait", [0.0, 0.7])
@pytest.mark.parametrize(("count", "workers"), [(1, 1), (3, 3), (20, 1), (20, 4)])
def test_items_that_need_their_last_try_all_come_through(
    retry: str, wait: float, count: int, workers: int
) -> None:
    """Items that need the last try they are allowed all come through, also as the last ones in."""
    flaky = FailTimes(2)

    async def work(value: int) -> int:
        await asyncio.sleep(0.05)
        return await flaky(value)

    stage = Stage("Work", workers, [work], retry, **pause_of(retry, wait))
    results = virtual(lambda: Pipeline([stage]).run(range(count)))
    assert results.values() == list(range(count))
    assert set(flaky.tries.values()) == {3}
    assert_balanced(results.stats)


@pytest.mark.fault
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("workers", [1, 4])
def test_last_item_when_it_alone_is_retried(retry: str, workers: int) -> None:
    """The run does not end while its last item waits for another try."""
    flaky = FailTimes(2)

    async def work(value: int) -> int:
        await asyncio.sleep(0.2)
        return await flaky(value) if value == 19 else value

    stage = Stage("Work", workers, [work], retry, **pause_of(retry, 5))
    results = virtual(lambda: Pipeline([stage]).run(range(20)))
    assert results.values() == list(range(20))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("retry", "options"),
    [("per_stage", {"stage_attempts": 4}), ("per_task", {"task_attempts": 4})],
)
def test_item_that_always_fails_is_tried_as_often_as_was_said(
    retry: str, options: dict[str, int]
) -> None:
    """An item that always fails is tried as often as was said, and then is failed."""
    calls = Calls(raising(ValueError("no")))
    stage = Stage("Work", 1, [calls], retry, **options)  # type: ignore[call-overload]
    results = virtual(lambda: Pipeline([stage]).run(["bad"]))
    assert len(calls.made) == 4
    assert [result.id for result in results.failed] == [0]
    assert results.summary.failed_items[0].attempts == 4


@pytest.mark.fault
def test_statuses_of_an_item_that_is_retried() -> None:
    """The last thing a tracker hears of an item is never that it will be tried again."""
    tracker = StatusTracker()
    stage = Stage("Work", 2, [FailTimes(2)], "per_stage")
    virtual(lambda: Pipeline([stage], status_tracker=tracker).run(range(5)))
    assert tracker.get_stats()["completed"] == 5
    assert tracker.get_stats()["retrying"] == 0


@pytest.mark.fault
@pytest.mark.parametrize("capacity", [1, None])
def test_per_stage_when_everything_fails_and_the_channel_is_full(capacity: int | None) -> None:
    """A retry never waits for room in the channel that its own workers empty."""
    stage = Stage("Work", 4, [raising(ValueError("no"))], "per_stage", queue_capacity=capacity)
    results = virtual(lambda: Pipeline([stage]).run(range(100)))
    assert len(results.failed) == 100
    assert results.stats.stage_stats["Work"].retried_items == 200
