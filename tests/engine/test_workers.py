"""The workers of a stage: at work together, called, sent away and called back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from antflow import Drop, Limit, Pipeline, RetryAfter, Stage, StageStats, StatusTracker
from antflow._engine import turns
from antflow._engine.workers import Workers
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import lasting, now, virtual


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_all_workers_work_at_the_same_time(seed: int | None) -> None:
    """100 items of 1 s, 10 workers: 10 s, in any schedule. A lost wake-up would take longer."""
    calls = Calls(seconds=1)

    async def main() -> float:
        await Pipeline([Stage("A", 10, [calls])]).run(range(100))
        return now()

    assert run_virtual(main, seed=seed) == pytest.approx(10)
    assert calls.most_at_once == 10


def test_small_run_takes_few_tasks_and_steps() -> None:
    """Items that wait for nothing need one worker in each stage, and some turns of the loop."""
    tasks: list[Any] = []

    async def plain(item: int) -> int:
        return item

    async def main() -> int:
        loop: Any = asyncio.get_running_loop()

        def make(loop: Any, work: Any, **options: Any) -> Any:
            tasks.append(work)
            return asyncio.Task(work, loop=loop, **options)

        loop.set_task_factory(make)
        before = int(loop.steps)
        pipeline = Pipeline([Stage(name, 10, [plain]) for name in "ABC"])
        assert (await pipeline.run(range(5))).values() == [0, 1, 2, 3, 4]
        return int(loop.steps) - before

    assert run_virtual(main) <= 24
    assert [task.__name__ for task in tasks[:5]].count("_serve") == 3


def test_idle_workers_cost_no_step_of_the_event_loop() -> None:
    """400 workers, nothing to do for an hour: the loop runs a handful of steps, not thousands."""

    async def main() -> int:
        async with Pipeline([Stage("A", 400, [Calls()])]).open() as run:
            await run.feed(range(400))
            await asyncio.sleep(1)
            loop: Any = asyncio.get_running_loop()
            before = int(loop.steps)
            await asyncio.sleep(3600)
            assert run.stats().items_processed == 400
            return int(loop.steps) - before

    assert run_virtual(main) < 10


def test_more_workers_join_a_run_under_way() -> None:
    """After set_workers the stage works on more items at once."""
    calls = Calls(seconds=1)

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [calls])]).open() as run:
            feeding = asyncio.create_task(run.feed(range(13)))
            await asyncio.sleep(2.5)
            assert calls.most_at_once == 1
            run.set_workers("A", 5)
            await asyncio.sleep(1)
            assert calls.running == 5
            assert run.snapshot().worker_states["A-W4"].status == "busy"
            await feeding

    run_virtual(main)
    assert len(calls.made) == 13


def test_workers_leave_a_run_under_way_and_lose_nothing() -> None:
    """After set_workers down to one, running items end, one worker goes on, all items come out."""
    calls = Calls(seconds=1)

    async def main() -> int:
        pipeline = Pipeline([Stage("A", 5, [calls])])
        async with pipeline.open() as run:
            feeding = asyncio.create_task(run.feed(range(20)))
            await asyncio.sleep(0.5)
            assert calls.running == 5
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert calls.running == 1
            assert list(run.snapshot().worker_states) == ["A-W0"]
            assert pipeline.get_worker_names() == {"A": ["A-W0"]}
            await feeding
        return len(run.results)

    assert run_virtual(main) == 20


def test_idle_workers_leave_at_once() -> None:
    """Workers that have nothing to do when they are to leave do not stay as tasks."""

    async def main() -> None:
        async with Pipeline([Stage("A", 5, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(2)
            before = len(asyncio.all_tasks())
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert len(asyncio.all_tasks()) == before - 4

    run_virtual(main)


def test_workers_that_left_can_be_called_back() -> None:
    """Fewer, then more again, also while a worker that was to leave is still at work."""
    calls = Calls(seconds=1)

    async def main() -> int:
        async with Pipeline([Stage("A", 5, [calls])]).open() as run:
            feeding = asyncio.create_task(run.feed(range(40)))
            for count in (1, 5, 1, 3, 1, 5):
                await asyncio.sleep(0.7)
                run.set_workers("A", count)
            await asyncio.sleep(1.5)
            assert calls.running == 5
            busy = [state.current_item_id for state in run.snapshot().worker_states.values()]
            assert len(set(busy)) == 5
            await feeding
        return len(run.results)

    assert run_virtual(main) == 40
    assert calls.most_at_once == 5


def test_what_a_retired_worker_did_stays_in_the_books() -> None:
    """The stage's counts do not go back when a worker leaves."""

    async def main() -> None:
        async with Pipeline([Stage("A", 5, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(1.5)
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert run.stats().stage_stats["A"].completed_items == 5

    run_virtual(main)


def test_set_workers_names_the_stages_when_there_is_none_of_that_name() -> None:
    """A misspelt stage is a ValueError that lists the names."""

    async def main() -> None:
        async with Pipeline([Stage("Fetch", 1, [Calls()])]).open() as run:
            with pytest.raises(ValueError, match="'fetch' not found; the stages are 'Fetch'"):
                run.set_workers("fetch", 2)
            with pytest.raises(ValueError, match="count=0"):
                run.set_workers("Fetch", 0)

    run_virtual(main)


def test_workers_whose_tasks_suspend_need_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop turns meanwhile, so an item costs no further turn of it."""

    async def give_way(*_: object) -> float:
        raise AssertionError("the worker gave way")

    monkeypatch.setattr(turns, "HALF_TURN", 0.5)
    monkeypatch.setattr(Workers, "give_way", give_way)
    stage = Stage("Work", 1, [Calls(seconds=1)])
    assert len(run_virtual(Pipeline([stage]).run(range(30)))) == 30


@pytest.mark.real_time
def test_worker_that_gives_way_is_not_starved() -> None:
    """Where others keep the event loop busy, nobody says that a worker had nothing to do."""

    async def task(number: int) -> None:
        time.sleep(0.004)  # noqa: ASYNC251 - it must not suspend: then workers give way

    async def others() -> None:
        while True:
            time.sleep(0.006)  # noqa: ASYNC251
            await asyncio.sleep(0)

    async def main() -> StageStats:
        pipeline = Pipeline([Stage("Work", 1, [task])])
        keeping = asyncio.create_task(others())
        await pipeline.run(range(80))
        keeping.cancel()
        return pipeline.get_stats().stage_stats["Work"]

    stats = asyncio.run(main())
    assert stats.starved_seconds < 0.2 * stats.busy_seconds


async def refuse_thirds(value: int) -> int:
    """Fail on every third item."""
    if value % 3 == 0:
        raise ValueError(value)
    return value


def test_workers_set_while_paused_work_afterwards() -> None:
    """The number of workers set during a pause holds from its end on."""
    calls = Calls(seconds=1)

    async def main() -> float:
        async with Pipeline([Stage("A", 1, [calls])]).open() as run:
            run.pause()
            await run.feed(range(10))
            run.set_workers("A", 5)
            await asyncio.sleep(10)
            assert not calls.made
            run.resume()
        return now()

    assert run_virtual(main) == 12
    assert calls.most_at_once == 5


@pytest.mark.parametrize("batch", [None, 2])
def test_workers_come_and_go_and_lose_nothing(batch: int | None) -> None:
    """Resized every half second, down to one and up to eight: each item is tried once."""

    async def each(value: Any) -> Any:
        await asyncio.sleep(0.7)
        return value

    async def main() -> list[int]:
        async with Pipeline([Stage("A", 3, [each], batch=batch)]).open() as run:
            await run.feed(range(30))
            for count in (1, 8, 2, 5, 1, 7):
                await asyncio.sleep(0.5)
                run.set_workers("A", count)
        return run.results.values()

    assert run_virtual(main) == list(range(30))


def test_seconds_of_the_workers_add_up() -> None:
    """Busy, limited, blocked, waiting for retries and starved: together all workers' seconds."""

    async def main() -> Any:
        async def each(value: int) -> int:
            await asyncio.sleep(1)
            if value == 2 and len(calls.made) < 4:
                raise RetryAfter(3)
            return value

        async def told(*_: Any) -> None:
            await asyncio.sleep(0.5)

        calls = Calls(each)
        stages = [
            Stage(
                "A",
                2,
                [calls],
                queue_capacity=1,
                limits=[Limit(rate=1, period=2)],
                on_success=told,
            ),
            Stage("B", 1, [Calls(refuse_thirds, seconds=3)], on_failure=told, queue_capacity=1),
            Stage("C", 3, [Calls(seconds=1)], batch=None),
        ]
        async with Pipeline(stages).open() as run:
            await run.feed(range(8))
            await asyncio.sleep(3.3)
            run.set_workers("C", 1)
            resized = now()
        return run.stats(), resized, now()

    stats, resized, elapsed = run_virtual(main)
    for stage in stats.stage_stats.values():
        parts = (
            stage.busy_seconds,
            stage.limited_seconds,
            stage.blocked_seconds,
            stage.retry_waiting_seconds,
            stage.starved_seconds,
        )
        assert min(parts) >= 0
        workers = {"A": 2 * elapsed, "B": elapsed, "C": 2 * resized + elapsed}[stage.stage_name]
        assert sum(parts) == pytest.approx(workers)
    a = stats.stage_stats["A"]
    assert a.busy_seconds == pytest.approx(9)
    assert a.limited_seconds > 10
    assert stats.stage_stats["B"].busy_seconds == pytest.approx(8 * 3 + 3 * 6)


@pytest.mark.parametrize("ending", ["failed", "dropped", "completed", "retried"])
def test_slow_callback_counts_as_waiting(ending: str) -> None:
    """The second that a callback takes is one of waiting, not of work nor of idleness."""

    async def task(value: int) -> Any:
        await asyncio.sleep(1)
        if ending == "dropped":
            return Drop
        if ending != "completed":
            raise ValueError
        return value

    async def told(event: Any) -> None:
        if event.status in ("failed", "retrying", "completed"):
            await asyncio.sleep(10)

    async def main() -> Any:
        attempts = 2 if ending == "retried" else 1
        stage = Stage("A", 1, [task], "per_stage", stage_attempts=attempts)
        return (await Pipeline([stage], status_tracker=StatusTracker(told)).run([0])).stats

    stage = run_virtual(main).stage_stats["A"]
    times = 2 if ending == "retried" else 1
    assert stage.busy_seconds == pytest.approx(times)
    assert stage.blocked_seconds == pytest.approx(10 * times)
    assert stage.starved_seconds == pytest.approx(0)


def test_seconds_when_a_retry_follows_an_item_that_passed_by() -> None:
    """A worker that waited for a callback of a skipped item begins the next one when it does."""

    async def main() -> Any:
        async def slow(*_: Any) -> None:
            await asyncio.sleep(10)

        stage = Stage(
            "A",
            1,
            [FailTimes(1)],
            task_wait_seconds=1.0,
            skip_if=lambda value: value == 1,
            on_skip=slow,
        )
        return (await Pipeline([stage]).run([0, 1])).stats.stage_stats["A"]

    stats = run_virtual(main)
    assert (stats.busy_seconds, stats.blocked_seconds) == (0, 10)


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(20))
def test_workers_when_some_of_them_retire(seed: int) -> None:
    """No item waits for ever because the worker it was to wake has just retired."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 4, [lasting(0.1)]), Stage("B", 4, [lasting(0.1)])])
        async with pipeline.open() as run:
            for number in range(40):
                await run.feed([number])
                run.set_workers("AB"[number % 2], 1 + (number * 7 + seed) % 4)
                await asyncio.sleep(0.05 * (number % 3))
        assert run.results.values() == list(range(40))

    virtual(main, seed=seed)


@pytest.mark.fault
@pytest.mark.parametrize("workers", [1, 3])
def test_items_are_begun_in_turn(workers: int) -> None:
    """Items of one priority are begun in the order they came, in every stage."""

    async def main() -> None:
        first, second = Calls(seconds=0.1), Calls(seconds=0.2)
        stages = [Stage("A", workers, [first]), Stage("B", workers, [second], queue_capacity=1)]
        await Pipeline(stages).run(range(30))
        assert [call.value for call in first.made] == list(range(30))
        assert [call.value for call in second.made] == list(range(30))

    virtual(main)
