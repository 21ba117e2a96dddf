"""Limits that are shared, given back while waiting, and never lost or exceeded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from antflow import Limit, Pipeline, PipelineError, Stage
from antflow.testing import Calls, run_virtual


async def lasting(value: Any) -> Any:
    """Take a second."""
    await asyncio.sleep(1)
    return value


def assert_free(limit: Limit) -> None:
    stats = limit.statistics()
    assert (stats.in_use, stats.waiting) == (0, 0)


def test_two_feeds_at_once_in_one_attempt_give_back_one_slot() -> None:
    """A task that feeds twice at the same time has its slot once."""
    limit = Limit(concurrency=2)

    async def main() -> int:
        async def spread(value: Any) -> Any:
            if isinstance(value, int):
                await asyncio.gather(pipeline.feed(["a", "b"], "B"), pipeline.feed([0.5] * 3, "B"))
            return value

        stages = [
            Stage("A", 2, [spread], limits=[limit]),
            Stage("B", 1, [lasting], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        return len(await pipeline.run(range(5)))

    assert run_virtual(main) == 5 + 5 * 5
    assert_free(limit)


def test_feed_that_outlives_its_attempt_takes_no_slot() -> None:
    """A feed in the background goes on when its attempt is over, and keeps no slot."""
    limit = Limit(concurrency=1)

    async def main() -> int:
        feeds: list[asyncio.Task[None]] = []

        async def spread(value: Any) -> Any:
            if isinstance(value, int):
                feeds.append(asyncio.create_task(pipeline.feed([0.5] * 3, "B")))
                await asyncio.sleep(0.1)
            return value

        stages = [
            Stage("A", 2, [spread], limits=[limit]),
            Stage("B", 1, [lasting], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        results = await pipeline.run(range(3), timeout=1000)
        await asyncio.gather(*feeds)
        return len(results)

    assert run_virtual(main) == 3 + 3 * 3
    assert_free(limit)


def test_feed_that_waits_for_a_slot_when_its_attempt_ends() -> None:
    """What waits to have its slot again, and is let in too late, gives it back at once."""
    limit = Limit(concurrency=1)

    async def main() -> float:
        feeds: list[asyncio.Task[None]] = []

        async def spread(value: Any) -> Any:
            if value == 0:  # its feed has to wait for room, and lends the slot to the next
                feeds.append(asyncio.create_task(pipeline.feed([0.5] * 2, "B")))
                await asyncio.sleep(2)
            else:
                await asyncio.sleep(10)
            return value

        stages = [
            Stage("A", 2, [spread], limits=[limit]),
            Stage("B", 1, [lasting], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        assert len(await pipeline.run(range(3), timeout=1000)) == 3 + 2
        await asyncio.gather(*feeds)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 10 + 10 + 1
    assert_free(limit)


def test_task_whose_feed_was_cut_short_goes_on_with_its_slot() -> None:
    """After a feed that ran into a timeout of the task's own, the limit holds as before."""
    limit = Limit(concurrency=1)

    async def main() -> None:
        inside = most = 0

        async def spread(value: Any) -> Any:
            nonlocal inside, most
            if not isinstance(value, int):
                return value
            try:
                async with asyncio.timeout(0.1):
                    await pipeline.feed([0.5] * 30, "B")
            except TimeoutError:
                pass
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1
            return value

        async def slow(value: Any) -> Any:
            await asyncio.sleep(100)
            return value

        stages = [Stage("A", 5, [spread], limits=[limit]), Stage("B", 1, [slow], queue_capacity=1)]
        pipeline = Pipeline(stages)
        await pipeline.run(range(5))
        assert most == 1

    run_virtual(main)
    assert_free(limit)


def test_run_inside_a_limited_task_does_not_touch_its_slot() -> None:
    """The workers of a pipeline that runs inside a task do not hand the task's slot around."""
    limit = Limit(concurrency=3)

    async def five(value: int) -> list[int]:
        await asyncio.sleep(0.01)
        return [value] * 5

    async def outer(value: int) -> int:
        stages = [Stage("I", 4, [five], expand=True), Stage("J", 1, [lasting], queue_capacity=1)]
        return len(await Pipeline(stages).run(range(4)))

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("O", 3, [outer], limits=[limit])])
        return (await pipeline.run(range(6), timeout=10_000)).values()

    assert run_virtual(main) == [20] * 6
    assert_free(limit)


def test_run_that_cannot_be_made_keeps_no_limit() -> None:
    """A limit of a pipeline that was refused, for another of its limits, is free for others."""
    free, taken = Limit(concurrency=1), Limit(concurrency=1)
    is_running, is_refused = threading.Event(), threading.Event()

    async def wait(value: int) -> int:
        is_running.set()
        await asyncio.to_thread(is_refused.wait)
        return value

    other = threading.Thread(
        target=lambda: asyncio.run(Pipeline([Stage("A", 1, [wait], limits=[taken])]).run([1]))
    )

    async def refused() -> None:
        stages = [
            Stage(name, 1, [lasting], limits=[limit])
            for name, limit in zip("AB", [free, taken], strict=True)
        ]
        with pytest.raises(PipelineError, match="another event loop"):
            await Pipeline(stages).run([1])
        in_third = asyncio.to_thread(
            lambda: asyncio.run(Pipeline([Stage("A", 1, [Calls()], limits=[free])]).run([1]))
        )
        assert len(await in_third) == 1

    other.start()
    is_running.wait()
    try:
        asyncio.run(refused())
    finally:
        is_refused.set()
        other.join()


@pytest.mark.parametrize("end", ["join", "shutdown", "cancel"])
def test_limits_are_free_for_another_event_loop_after_a_run(end: str) -> None:
    """However the run ended, and although its event loop is still there."""
    limits = [Limit(concurrency=1), Limit(rate=1000, period=1)]
    pipeline = Pipeline([Stage("A", 2, [Calls(seconds=0.01)], limits=limits)])

    async def first() -> None:
        async with pipeline.open() as run:
            await run.feed(range(3))
            await asyncio.sleep(0)
            if end == "cancel":
                run.cancel()
            elif end == "shutdown":
                await run.shutdown()

    async def second() -> None:
        assert len(await pipeline.run(range(3))) == 3

    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(first())
        other.run(second())
    for limit in limits:
        assert_free(limit)


@pytest.mark.parametrize("by", ["limits", "task_concurrency_limits"])
def test_thread_that_outlives_its_time_counts_until_it_ends(by: str) -> None:
    """A thread cannot be stopped: as long as it goes on, it has its place in the limits."""
    inside = most = 0
    lock = threading.Lock()

    def slow(value: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.03)
        with lock:
            inside -= 1
        return value

    options: dict[str, Any] = {"limits": [Limit(concurrency=1)]}
    if by == "task_concurrency_limits":
        options = {by: {"slow": 1}}
    stage = Stage("A", 4, [slow], timeout=0.01, task_attempts=1, **options)
    results = asyncio.run(Pipeline([stage]).run(range(4)))
    assert len(results.failed) == 4
    assert most == 1


def test_ordered_stream_that_expands_feels_a_slow_consumer() -> None:
    """What is taken in while nobody takes results out is as bounded as in any other stream."""

    async def main() -> int:
        taken = 0

        def endless() -> Iterator[int]:
            nonlocal taken
            while True:
                taken += 1
                yield taken

        async def five(value: int) -> list[int]:
            await asyncio.sleep(0.001)
            return [value] * 5

        pipeline = Pipeline([Stage("E", 2, [five], expand=True)])
        stream = pipeline.stream(endless(), ordered=True, buffer_size=10)
        await anext(stream)
        await asyncio.sleep(60)
        await stream.aclose()
        return taken

    assert run_virtual(main) < 100


@pytest.mark.parametrize("how", ["expand", "feed"])
def test_both_kinds_of_limit_of_a_stage_whose_next_is_full(how: str) -> None:
    """A task's own limit is given back too while it waits for room: nobody waits in a circle."""

    async def main() -> int:
        async def task(value: Any) -> Any:
            await asyncio.sleep(0.01)
            if how == "expand":
                return [value] * 3
            await pipeline.feed([value] * 3, "B")
            return value

        stages = [
            Stage(
                "A",
                4,
                [task],
                limits=[Limit(concurrency=2)],
                task_concurrency_limits={"task": 1},
                expand=how == "expand",
            ),
            Stage("B", 1, [lasting], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        return len(await pipeline.run(range(10)))

    assert run_virtual(main) == (30 if how == "expand" else 40)


def test_rate_is_not_waited_for_again_after_waiting_for_room() -> None:
    """An attempt that has started goes on when there is room, whatever the rate says to others."""

    async def main() -> float:
        async def spread(value: Any) -> Any:
            if isinstance(value, int):
                await pipeline.feed([0.5] * 3, "B")
            return value

        stages = [
            Stage("A", 2, [spread], limits=[Limit(rate=1, period=60.0)]),
            Stage("B", 1, [lasting], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        await pipeline.run(range(3))
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 120 + 4


def test_hold_from_a_later_event_loop() -> None:
    """A limit whose event loop is over can be held from another one."""
    limit = Limit(concurrency=1)
    asyncio.run(Pipeline([Stage("A", 1, [Calls()], limits=[limit])]).run([1]))

    async def main() -> None:
        limit.hold(5)

    asyncio.run(main())
    assert 0 < limit.statistics().held <= 5
