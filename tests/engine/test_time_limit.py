"""Time limits: of a whole run, and of each item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from antflow import Limit, Pipeline, RetryAfter, RunResults, Stage
from antflow.context import current_item
from antflow.testing import Calls, run_virtual
from tests.support import now


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


async def _end_of(work: Any) -> float:
    """When some work was cancelled or through."""
    with suppress(asyncio.CancelledError):
        await work
    return now()


def test_each_try_is_cut_off_at_its_own_time() -> None:
    """Three that began one after the other, and one that was through meanwhile."""
    ends: list[float] = []

    async def task(seconds: float) -> None:
        ends.append(await _end_of(asyncio.sleep(seconds)))

    async def main() -> None:
        stage = Stage("A", 4, [task], timeout=5, task_attempts=1)
        async with Pipeline([stage]).open() as run:
            for seconds in (2.5, 100, 100, 100):
                await run.feed([seconds])
                await asyncio.sleep(1)

    run_virtual(main)
    assert ends == [2.5, 6, 7, 8]


def test_item_that_began_later_may_be_late_earlier() -> None:
    """What is watched already has more time than an item that comes back from a retry."""
    ends: dict[str, float] = {}

    async def task(name: str) -> None:
        if name == "first" and current_item().attempt == 1:
            raise ValueError
        ends[name] = await _end_of(asyncio.sleep(100))

    async def main() -> None:
        stage = Stage("A", 2, [task], task_attempts=2, task_wait_seconds=2)
        async with Pipeline([stage]).open(item_timeout=5) as run:
            for name in ("first", "second"):
                await run.feed([name])
                await asyncio.sleep(1)

    run_virtual(main)
    assert ends == {"first": 5, "second": 6}


def test_try_that_is_in_time_leaves_no_timer() -> None:
    """Neither the time limit of a task nor that of an item, once no task is under way."""

    async def main() -> list[Any]:
        stage = Stage("A", 2, [Calls(seconds=1)], timeout=3600)
        await Pipeline([stage]).run(range(4), item_timeout=3600)
        loop: Any = asyncio.get_running_loop()
        assert loop.time() == 2
        return [timer for *_, timer in loop._timers if not timer.cancelled()]

    assert run_virtual(main) == []


def test_task_that_does_not_suspend_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is through before any timer could ring, however long it took."""
    set_timers: list[float] = []

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def counted(delay: float, *args: Any) -> asyncio.TimerHandle:
            set_timers.append(delay)
            return call_later(delay, *args)

        monkeypatch.setattr(loop, "call_later", counted)
        stage = Stage("A", 2, [Calls()], timeout=77)
        return (await Pipeline([stage]).run(range(4), item_timeout=88)).values()

    assert run_virtual(main) == [0, 1, 2, 3]
    assert not [delay for delay in set_timers if 50 < delay < 100]


def test_task_that_swallows_the_end_of_its_time_is_through() -> None:
    """As under `asyncio.timeout`: the next task and the callback are not cancelled by it."""
    counts: list[int] = []

    def count_requests(*_: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())

    async def stubborn(value: int) -> int:
        await _end_of(asyncio.sleep(100))
        return value

    async def next_one(value: int) -> int:
        count_requests()
        return value

    async def main(*tasks: Callable[[int], Awaitable[int]]) -> tuple[list[int], float]:
        stage = Stage("A", 1, tasks, timeout=5, task_attempts=1, on_success=count_requests)
        return (await Pipeline([stage]).run(range(2))).values(), now()

    assert run_virtual(lambda: main(stubborn, next_one)) == ([0, 1], 10)
    assert run_virtual(lambda: main(stubborn)) == ([0, 1], 10)
    assert counts == [0] * 6
