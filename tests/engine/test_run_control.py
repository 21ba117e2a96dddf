"""Runs under control: paused, resized, stopped by time or failures, and gone on with later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antflow import (
    Drop,
    DuplicateItemError,
    ItemCancelled,
    Limit,
    Pipeline,
    RetryAfter,
    RunResults,
    Stage,
    StatusTracker,
    TooManyFailures,
)
from antflow.testing import Calls, FailTimes, Gate, cancel_at_every_step, run_virtual


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


async def refuse_thirds(value: int) -> int:
    """Fail on every third item."""
    if value % 3 == 0:
        raise ValueError(value)
    return value


# -- pause and resume -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(4)])
def test_paused_run_begins_nothing_and_loses_nothing(seed: int | None) -> None:
    """Paused: items in hand end, nothing else begins in any stage; resumed: all come through."""
    first, second = Calls(seconds=1), Calls(seconds=1)

    async def main() -> float:
        pipeline = Pipeline([Stage("A", 2, [first]), Stage("B", 1, [second])])
        async with pipeline.open() as run:
            await run.feed(range(10))
            await asyncio.sleep(2.5)
            run.pause()
            run.pause()
            await asyncio.sleep(100)
            assert run.snapshot().state == "paused"
            assert (len(first.made), len(second.made)) == (6, 2)
            assert (first.running, second.running) == (0, 0)
            assert run.stats().queue_sizes == {"A": 4, "B": 4}
            run.resume()
            run.resume()
            await asyncio.sleep(0)
            assert run.snapshot().state == "running"
        assert len(run.results) == 10
        return now()

    # 6 of A and 2 of B at the pause, at 3; then 8 more of B, one a second.
    assert run_virtual(main, seed=seed) == 102.5 + 8


def test_pause_before_the_first_item_and_a_retry_that_falls_due() -> None:
    """A retry that becomes due while the run is paused waits for it to go on."""
    calls = Calls(FailTimes(1))

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [calls], task_wait_seconds=5)]).open() as run:
            run.pause()
            await run.feed([0])
            await asyncio.sleep(10)
            assert not calls.made
            run.resume()
            await asyncio.sleep(1)
            run.pause()
            await asyncio.sleep(100)
            run.resume()

    run_virtual(main)
    assert [call.start for call in calls.made] == [10, 111]


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("waits", ["held", "held by a limit", "for a rate", "for a slot"])
def test_pause_of_items_that_wait_to_begin(waits: str, batch: int | None) -> None:
    """An item in hand that waits for a hold or a limit does not begin before the run goes on."""
    began: list[float] = []

    async def work(value: Any) -> Any:
        began.append(now())
        if len(began) == 1 and waits.startswith("held"):
            raise RetryAfter(10)
        await asyncio.sleep(3)
        return value

    limits = {
        "held": [],
        "held by a limit": [Limit(5)],
        "for a rate": [Limit(rate=batch or 1, period=10, cost=lambda _: batch or 1)],
        "for a slot": [Limit(1)],
    }[waits]

    async def main() -> Any:
        stage = Stage("A", 3, [work], limits=limits, batch=batch)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(6))
            await asyncio.sleep(1)
            run.pause()
            await asyncio.sleep(100)
            assert began == [0]
            assert [limit.statistics().in_use for limit in limits] in ([], [0])
            run.resume()
        return run.results.values()

    assert sorted(run_virtual(main)) == list(range(6))
    assert began[1] == 101


@pytest.mark.parametrize("end", ["cancel", "shutdown"])
def test_paused_run_can_be_ended_while_items_wait_to_begin(end: str) -> None:
    """Their workers do not wait for a run to go on that ends."""

    async def main() -> float:
        calls = Calls(seconds=1)
        async with Pipeline([Stage("A", 3, [calls], limits=[Limit(1)])]).open() as run:
            await run.feed(range(6))
            await asyncio.sleep(0.5)
            run.pause()
            await asyncio.sleep(10)
            if end == "cancel":
                run.cancel()
            else:
                await run.shutdown()
        assert (len(calls.made), run.stats().items_cancelled) == (1, 5)
        return now()

    assert run_virtual(main) == 10.5


def test_pause_and_resume_at_once_changes_nothing() -> None:
    """Paused and resumed while every worker is busy: as many workers as before, no more."""
    calls = Calls(seconds=1)

    async def main() -> float:
        async with Pipeline([Stage("A", 3, [calls])]).open() as run:
            await run.feed(range(12))
            for _ in range(7):
                await asyncio.sleep(0.3)
                run.pause()
                run.resume()
        return now()

    assert run_virtual(main) == 4
    assert calls.most_at_once == 3


@pytest.mark.parametrize("batch", [None, 2])
def test_worker_that_is_still_leaving_when_the_run_goes_on(batch: int | None) -> None:
    """A worker leaves at the pause, and lets go of its resource until after it: its place stays."""

    @asynccontextmanager
    async def slow_to_leave() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(2)

    async def task(value: Any, resource: None) -> Any:
        await asyncio.sleep(1)
        return value

    async def main() -> list[int]:
        stage = Stage(
            "A",
            2,
            [task],
            batch=batch,
            resources={"resource": slow_to_leave},
            resource_scope="worker",
        )
        async with Pipeline([stage]).open() as run:
            await run.feed(range(8))
            await asyncio.sleep(0.5)
            run.pause()
            await asyncio.sleep(1)  # the items in hand have ended, the resources have not
            run.resume()
        return sorted(result.value for result in run.results)

    assert run_virtual(main, max_time=100) == list(range(8))


def test_paused_run_still_takes_items_in_until_the_queue_is_full() -> None:
    """Feeding goes on while there is room; then it waits, and goes on after the pause."""

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [Calls()], queue_capacity=3)]).open() as run:
            run.pause()
            feeding = asyncio.create_task(run.feed(range(10)))
            await asyncio.sleep(10)
            assert run.stats().items_accepted <= 4
            assert not feeding.done()
            run.resume()
            await feeding
        assert len(run.results) == 10

    run_virtual(main)


def test_paused_run_goes_on_when_its_block_is_left() -> None:
    """Nothing can resume it any more: what was fed is worked on all the same."""

    async def main() -> Any:
        async with Pipeline([Stage("A", 1, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(3))
            run.pause()
            await asyncio.sleep(10)
        return run.results.values(), now()

    assert run_virtual(main) == ([0, 1, 2], 13)


@pytest.mark.parametrize("end", ["cancel", "shutdown"])
def test_paused_run_can_be_ended(end: str) -> None:
    """Cancelled or shut down while paused: what waits is settled, nothing hangs."""

    async def main() -> Any:
        async with Pipeline([Stage("A", 1, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(0.5)
            run.pause()
            await asyncio.sleep(10)
            if end == "cancel":
                run.cancel()
            else:
                await run.shutdown()
        return run.stats()

    stats = run_virtual(main)
    assert (stats.items_processed, stats.items_cancelled, stats.items_in_flight) == (1, 4, 0)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("waits", ["held", "held again", "limited"])
def test_shutdown_does_not_wait_for_what_has_not_begun(waits: str, batch: int | None) -> None:
    """Items that are held back, or wait for a limit, are settled: only running attempts end."""

    async def held(value: Any) -> Any:
        await asyncio.sleep(2 if waits == "held again" else 0)
        raise RetryAfter(600)

    async def main() -> Any:
        limit = Limit(rate=1, period=600)
        limited = Stage("A", 3, [Calls()], limits=[limit], batch=batch, task_attempts=1)
        stage = limited if waits == "limited" else Stage("A", 1, [held], batch=batch)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(9))
            await asyncio.sleep(1)
            await run.shutdown()
        return run.stats(), now()

    stats, when = run_virtual(main)
    assert when == (2 if waits == "held again" else 1)
    assert stats.items_processed == ((batch or 1) if waits == "limited" else 0)
    assert stats.items_cancelled == 9 - stats.items_processed


def test_shutdown_does_not_wait_for_what_comes_to_a_limit_afterwards() -> None:
    """A worker that was at a ``skip_if`` during the shutdown does not begin to wait for a limit."""

    async def ask(_: int) -> bool:
        await asyncio.sleep(2)
        return False

    async def main() -> Any:
        limit = Limit(rate=1, period=600)
        stage = Stage("A", 3, [Calls()], limits=[limit], skip_if=ask)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(9))
            await asyncio.sleep(1)
            await run.shutdown()
        return run.stats(), now()

    stats, when = run_virtual(main)
    assert when == 2
    assert (stats.items_processed, stats.items_cancelled) == (1, 8)


# -- workers --------------------------------------------------------------------------------------


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


# -- time limits ----------------------------------------------------------------------------------


def test_run_that_takes_too_long_is_cancelled() -> None:
    """``timeout``: TimeoutError with the results so far, the rest settled as cancelled."""

    async def main() -> Any:
        pipeline = Pipeline([Stage("A", 1, [Calls(seconds=1)])])
        with pytest.raises(TimeoutError) as caught:
            await pipeline.run(range(10), timeout=3.5)
        return caught.value, now()

    error, when = run_virtual(main)
    assert when == 3.5
    assert "3.5" in str(error)
    assert error.results.values() == [0, 1, 2]
    assert error.results.stats.items_cancelled == error.results.stats.items_accepted - 3


def test_run_that_is_in_time_leaves_no_timer() -> None:
    """A timeout of an hour costs nothing when the run is over in a second."""

    async def main() -> list[Any]:
        await Pipeline([Stage("A", 1, [Calls(seconds=1)])]).run([0], timeout=3600)
        loop: Any = asyncio.get_running_loop()
        assert loop.time() == 1
        return [timer for *_, timer in loop._timers if not timer.cancelled()]

    assert run_virtual(main) == []


def test_run_that_is_in_time_may_take_long_to_leave_a_resource() -> None:
    """The timeout does not count what comes after the last item."""

    @asynccontextmanager
    async def slow_to_leave() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(10)

    async def task(value: int, resource: int) -> int:
        return value + resource

    async def main() -> list[int]:
        stage = Stage("A", 1, [task], resources={"resource": slow_to_leave})
        return (await Pipeline([stage]).run([0], timeout=5)).values()

    assert run_virtual(main) == [1]


def test_run_that_is_cancelled_leaves_no_timer() -> None:
    """Neither for an item that waits for its next try, nor for one that a limit holds."""

    async def fail_or_hold(value: int) -> int:
        if value:
            raise RetryAfter(3600)
        raise ValueError

    async def main() -> list[Any]:
        stages = [
            Stage("A", 2, [fail_or_hold], task_wait_seconds=3600),
            Stage("B", 2, [fail_or_hold], task_wait_seconds=3600, limits=[Limit(concurrency=1)]),
        ]
        async with Pipeline(stages).open(timeout=7200, item_timeout=7200) as run:
            await run.feed(range(2))
            await run.feed(range(2), "B")
            await asyncio.sleep(1)
            run.cancel()
        loop: Any = asyncio.get_running_loop()
        return [timer for *_, timer in loop._timers if not timer.cancelled()]

    assert run_virtual(main) == []


@pytest.mark.parametrize(
    "where", ["in the task", "in the queue", "in a retry", "in a hold", "at a limit", "in a batch"]
)
def test_item_that_is_late_fails(where: str) -> None:
    """``item_timeout``: wherever the time went, the item fails with TimeoutError, and soon."""
    limit = Limit(rate=1, period=100)
    tries: list[int] = []

    async def task(value: Any) -> Any:
        tries.append(1)
        if where in ("in the task", "in a batch"):
            await asyncio.sleep(50)
        if where == "in a retry":
            raise ValueError
        if where == "in a hold":
            raise RetryAfter(50)
        if where == "in the queue" and len(tries) == 1:
            await asyncio.sleep(4)
        return value

    async def main() -> tuple[RunResults[Any], float]:
        stage = Stage(
            "A",
            1,
            [task],
            task_wait_seconds=50,
            limits=[limit] if where == "at a limit" else [],
            batch=2 if where == "in a batch" else None,
            task_attempts=1 if where in ("in the task", "in a batch") else 3,
        )
        items = range(2) if where in ("at a limit", "in the queue") else [0]
        return await Pipeline([stage]).run(items, item_timeout=5), now()

    results, when = run_virtual(main)
    if where == "in the queue":
        assert len(results) == 2  # the second began at 4 and is through at once
        return
    assert len(results.failed) == 1
    expected = ValueError if where == "in a retry" else TimeoutError
    assert type(results.failed[0].error) is expected
    assert when <= 5


def test_item_that_is_late_in_the_queue_is_not_begun() -> None:
    """Its time was over before a worker had it: the task is not called for it."""
    calls = Calls(seconds=4)

    async def main() -> RunResults[Any]:
        return await Pipeline([Stage("A", 1, [calls])]).run(range(4), item_timeout=5)

    results = run_virtual(main)
    assert results.values() == [0]
    assert [call.value for call in calls.made] == [0, 1]
    assert [result.id for result in results.failed] == [1, 2, 3]
    assert all("item_timeout" in str(result.error) for result in results.failed)


def test_children_have_the_time_of_their_parent() -> None:
    """What was made from an item is late when the item would be."""

    async def slowly(value: int) -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(1)
            yield n

    async def main() -> RunResults[Any]:
        stages = [Stage("A", 1, [slowly], expand=True), Stage("B", 3, [Calls(seconds=2.5)])]
        return await Pipeline(stages).run([0], item_timeout=5)

    results = run_virtual(main)
    assert [result.id for result in results] == ["0/0", "0/1"]
    assert [result.id for result in results.failed] == ["0/2"]


# -- failures -------------------------------------------------------------------------------------


def test_failures_of_one_stage_stop_the_intake() -> None:
    """``max_failures`` of a stage: failures elsewhere do not count, what was accepted finishes."""

    async def main() -> Any:
        stages = [
            Stage("A", 1, [refuse_thirds], task_attempts=1),
            Stage("B", 1, [FailTimes(1)], task_attempts=1, max_failures=2, queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        with pytest.raises(TooManyFailures, match="'B'") as caught:
            await pipeline.run(range(1000))
        return caught.value.results

    results = run_virtual(main)
    assert results.stats.items_accepted < 50
    assert results.stats.items_in_flight == 0
    assert len(results.outcomes) == results.stats.items_accepted


def test_first_of_two_errors_comes_out() -> None:
    """Too many failures stop the intake; that what goes on is too late then is not the cause."""

    async def work(value: int) -> int:
        await asyncio.sleep(value)
        if value == 1:
            raise ValueError
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [work], task_attempts=1)])
        with pytest.raises(TooManyFailures):
            await pipeline.run([100, 1], max_failures=1, timeout=10)
        assert now() == 10

    run_virtual(main)


def test_ratio_of_failures_of_one_stage_counts_from_twenty_on() -> None:
    """A share of what left the stage, judged once there are twenty."""

    async def main() -> Any:
        pipeline = Pipeline(
            [Stage("A", 1, [refuse_thirds], task_attempts=1, max_failures=0.3, queue_capacity=1)]
        )
        with pytest.raises(TooManyFailures) as caught:
            await pipeline.run(range(1000))
        return caught.value.results

    assert 20 <= len(run_virtual(main).outcomes) <= 24


def test_failed_items_go_on_where_they_failed() -> None:
    """``retry_failed``: stages that were through are not run again, ids and inputs are kept."""
    first, broken = Calls(), [True]

    async def second(value: int) -> int:
        if broken[0] and value >= 12:
            raise ValueError
        return value + 100

    async def add_ten(value: int) -> int:
        return value + 10

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        stages = [
            Stage("A", 2, [first, add_ten]),
            Stage("B", 2, [second], task_attempts=1),
            Stage("C", 2, [Calls()]),
        ]
        pipeline = Pipeline(stages)
        items = [{"id": f"item {n}", "value": n, "colour": "red"} for n in range(4)]
        before = await pipeline.run(items)
        broken[0] = False
        return before, await pipeline.run([7], retry_failed=before.failed)

    before, after = run_virtual(main)
    assert before.values() == [110, 111]
    assert [(result.id, result.value) for result in after] == [
        ("item 2", 112),
        ("item 3", 113),
        (after[2].id, 117),
    ]
    assert [call.value for call in first.made] == [0, 1, 2, 3, 7]
    assert after[0].metadata == {"colour": "red"}
    assert after[0].input == {"id": "item 2", "value": 2, "colour": "red"}


def test_item_that_failed_in_the_middle_of_expanding_goes_on_from_there() -> None:
    """What was made from it in the first run is not made again in the second."""
    broken = [True]

    async def some(value: int) -> AsyncIterator[int]:
        for n in range(4):
            if n == 2 and broken[0]:
                raise ValueError
            yield value + n

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        stages = [Stage("A", 1, [some], task_attempts=1, expand=True), Stage("B", 1, [Calls()])]
        pipeline = Pipeline(stages)
        before = await pipeline.run([10])
        broken[0] = False
        return before, await pipeline.run([], retry_failed=before.failed)

    before, after = run_virtual(main)
    assert (before.values(), after.values()) == ([10, 11], [12, 13])
    assert [result.id for result in after] == ["0/2", "0/3"]


def test_cancelled_items_can_go_on_later() -> None:
    """The results of a cancelled run tell where each item was: a later run finishes them."""
    calls = Calls(seconds=1)

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("A", 1, [calls]), Stage("B", 1, [Calls(seconds=3)])])
        with pytest.raises(TimeoutError) as caught:
            await pipeline.run(range(6), timeout=4.5)
        error: Any = caught.value
        before: RunResults[Any] = error.results
        left = [item for item in before.outcomes if item.outcome == "cancelled"]
        assert all(isinstance(item.error, ItemCancelled) for item in left)
        after = await pipeline.run([], retry_failed=left)
        return sorted(before.values() + after.values())

    assert run_virtual(main) == list(range(6))
    assert len(calls.made) <= 7


def test_retry_of_failed_items_cancelled_at_every_step_loses_nothing() -> None:
    """Cancelled before any step of the second run: balanced books."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        stages = [Stage("A", 2, [Calls()]), Stage("B", 1, [refuse_thirds], task_attempts=1)]
        pipeline = Pipeline(stages)
        before = await pipeline.run(range(7))
        pipelines.append(pipeline)
        await pipeline.run([8], retry_failed=before.failed)

    def check(step: int) -> None:
        for pipeline in pipelines:
            stats = pipeline.get_stats()
            assert stats.items_in_flight == 0
            assert len(pipeline.results.outcomes) == stats.items_accepted
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 30


# -- duplicates -----------------------------------------------------------------------------------


def test_duplicates_are_left_out_and_counted() -> None:
    """``duplicates="skip"``: the first of each id comes through, the others are a number."""

    async def main() -> RunResults[Any]:
        pipeline = Pipeline([Stage("A", 2, [Calls()])], duplicates="skip")
        return await pipeline.run([{"id": n % 3, "value": n} for n in range(10)])

    results = run_virtual(main)
    assert [(result.id, result.value) for result in results] == [(0, 0), (1, 1), (2, 2)]
    assert results.stats.items_skipped_duplicates == 7
    assert results.stats.items_accepted == 3


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
def test_duplicate_that_is_an_error_stops_the_intake(kind: str) -> None:
    """``duplicates="error"``: what came before finishes, nothing after it is taken in."""
    items = [{"id": id, "value": id} for id in ("a", "b", "a", "c")]

    def generate() -> Iterator[Any]:
        yield from items

    async def generate_async() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def main() -> Any:
        source: Any = {"list": items, "generator": generate()}.get(kind) or generate_async()
        with pytest.raises(DuplicateItemError, match="'a'") as caught:
            await Pipeline([Stage("A", 1, [Calls()])], duplicates="error").run(source)
        return caught.value.results

    assert run_virtual(main).values() == ["a", "b"]


def test_duplicate_that_was_fed_by_hand_concerns_that_call_alone() -> None:
    """`feed` raises for the call that brought the duplicate; the run goes on and takes others."""

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])], duplicates="error")
        async with pipeline.open() as run:
            await run.feed([{"id": "a"}])
            with pytest.raises(DuplicateItemError):
                await run.feed([{"id": "b"}, {"id": "a"}, {"id": "c"}])
            await run.feed([{"id": "d"}])
        return [result.id for result in run.results]

    assert run_virtual(main) == ["a", "b", "d"]


def test_cancel_then_leaving_the_block_returns() -> None:
    """`RunHandle.cancel` with a task that is stuck: leaving the block settles everything."""

    async def main() -> Any:
        gate = Gate()
        async with Pipeline([Stage("A", 2, [gate])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(1)
            run.cancel()
            run.cancel()
        return run.stats()

    stats = run_virtual(main)
    assert (stats.items_cancelled, stats.items_in_flight) == (5, 0)


def test_error_of_an_open_run_has_its_results() -> None:
    """What comes out of ``open()`` has the results so far, as what comes out of ``run()`` has."""

    async def main() -> Any:
        with pytest.raises(TooManyFailures) as caught:
            async with Pipeline([Stage("A", 1, [FailTimes(9)], task_attempts=1)]).open(
                max_failures=1
            ) as handle:
                await handle.feed([0])
        return caught.value.results

    results = run_virtual(main)
    assert results is not None
    assert results.stats.items_failed == 1


def test_many_items_with_one_id_are_named_without_trying_all_names() -> None:
    """The name for an id that comes again is found at once, not after all earlier ones."""
    asked = 0

    class Name:
        """An id that counts how often its text is asked for."""

        def __str__(self) -> str:
            nonlocal asked
            asked += 1
            return "x"

    name = Name()
    results = run_virtual(
        lambda: Pipeline([Stage("A", 1, [Calls()])]).run([{"id": name} for _ in range(200)])
    )
    assert [results[1].id, results[-1].id] == ["x#2", "x#200"]
    assert asked < 5 * 200


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


def test_results_read_while_the_run_ends_are_not_final() -> None:
    """Whoever reads the results just before the end does not make an incomplete list the last."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        async with pipeline.open() as run:
            engine = run._run
            await run.feed([1, 2])
            stats = engine.stats

            def slow_stats() -> Any:
                # What another thread does between taking the results and asking for the end.
                is_over.append(True)
                return stats()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(engine), "is_over", property(lambda _: bool(is_over)))
                patch.setattr(engine, "stats", slow_stats)
                assert len(run.results) == 0
        assert len(run.results) == 2

    is_over: list[bool] = []
    run_virtual(main)


def test_feed_beside_a_run_goes_into_that_run() -> None:
    """``pipeline.feed()`` from outside adds to the run under way, and begins no other."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Sleeper()])])
        running = asyncio.ensure_future(pipeline.run(range(30)))
        await asyncio.sleep(1.5)
        await pipeline.feed([99])
        assert 99 in (await running).values()
        async with pipeline.open() as run:
            await pipeline.feed([3])
        assert run.results.values() == [3]

    run_virtual(main)


def test_shutdown_beside_a_run_ends_that_run() -> None:
    """``pipeline.shutdown()`` from outside ends the run under way."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Sleeper()])])
        running = asyncio.ensure_future(pipeline.run(range(30)))
        await asyncio.sleep(1.5)
        await pipeline.shutdown()
        results = await running
        assert results.values() == [0, 1]
        assert results.stats.items_cancelled == results.stats.items_accepted - 2

    run_virtual(main)


class Sleeper:
    """A task that takes a second."""

    async def __call__(self, value: int) -> int:
        await asyncio.sleep(1)
        return value
