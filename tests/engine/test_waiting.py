"""Waiting despite cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow._engine.waiting import outlast, outlast_task
from antflow.executor import AsyncExecutor
from antflow.testing import run_virtual
from tests.support import now


def test_outlast_waits_however_often_it_is_cancelled() -> None:
    """Each cancellation is told, the last one is returned, and the wait goes on to the end."""

    async def main() -> None:
        told: list[float] = []
        loop = asyncio.get_running_loop()
        sleeping = asyncio.ensure_future(asyncio.sleep(5))
        waiting = asyncio.ensure_future(outlast([sleeping], lambda: told.append(loop.time())))
        for second in (1, 2):
            loop.call_later(second, waiting.cancel)
        assert isinstance(await waiting, asyncio.CancelledError)
        assert sleeping.done()
        assert [round(time - loop.time()) for time in told] == [-4, -3]

    run_virtual(main)


def test_outlast_waits_for_what_is_added_meanwhile() -> None:
    """Futures that join the collection during the wait count, too."""

    async def main() -> None:
        futures = [asyncio.ensure_future(asyncio.sleep(1))]
        later = asyncio.ensure_future(asyncio.sleep(9))
        futures[0].add_done_callback(lambda _: futures.append(later))
        assert await outlast(futures) is None
        assert later.done()

    run_virtual(main)


def test_outlast_task_raises_the_cancellation_at_the_end() -> None:
    """The task is told to stop, ends in its own time, and then the cancellation takes effect."""

    async def main() -> None:
        slow = asyncio.ensure_future(asyncio.sleep(5))
        stops: list[None] = []
        waiting = asyncio.ensure_future(outlast_task(slow, lambda: stops.append(None)))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert slow.done()
        assert stops == [None]

    run_virtual(main)


# Requests to cancel that come in showers

Work = Callable[[int], Awaitable[int]]


async def in_run(work: Work) -> None:
    await Pipeline([Stage("A", 2, [work])]).run(range(2))


async def in_stream(work: Work) -> None:
    async with Pipeline([Stage("A", 2, [work])]).stream(range(2)) as results:
        async for _ in results:
            pass


async def in_open_run(work: Work) -> None:
    async with Pipeline([Stage("A", 2, [work])]).open() as run:
        await run.feed(range(2))
        await asyncio.sleep(50)


async def in_block_of_executor(work: Work) -> None:
    async with AsyncExecutor(2) as executor:
        for number in range(2):
            executor.submit(work, number)
        await asyncio.sleep(50)


async def in_map(work: Work) -> None:
    executor = AsyncExecutor(2)
    await executor.map(work, range(2))


async def in_map_iter(work: Work) -> None:
    executor = AsyncExecutor(2)
    async with executor.map_iter(work, range(2)) as values:
        async for _ in values:
            pass


WAYS = [in_run, in_stream, in_open_run, in_block_of_executor, in_map, in_map_iter]


class CleansUp:
    """A task that takes three seconds to clean up; notes when each call has done so."""

    def __init__(self) -> None:
        self.cleaned: list[float] = []

    async def __call__(self, number: int) -> int:
        try:
            await asyncio.sleep(50)
        finally:
            await asyncio.sleep(3)
            self.cleaned.append(now())
        return number


def shower_on(task: asyncio.Task[Any], turns: int = 50) -> None:
    """Cancel a task in each turn of the event loop, as a cancel scope of anyio does."""
    if turns and not task.done():
        task.cancel()
        asyncio.get_running_loop().call_soon(shower_on, task, turns - 1)


@pytest.mark.parametrize("way", WAYS)
def test_shower_of_requests_does_not_cut_off_a_clean_up(
    way: Callable[[Work], Awaitable[None]],
) -> None:
    """A request in each turn counts as one: tasks clean up, and the cancelled code waits for it."""
    work = CleansUp()

    async def main() -> None:
        cancelled = asyncio.ensure_future(way(work))
        await asyncio.sleep(1)
        shower_on(cancelled)
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        assert work.cleaned == [4, 4]

    run_virtual(main)


@pytest.mark.parametrize("way", WAYS)
def test_later_request_cuts_off_a_clean_up_or_the_wait_for_it(
    way: Callable[[Work], Awaitable[None]],
) -> None:
    """A second request, half a second after the first, does not wait for the clean-up."""
    work = CleansUp()

    async def main() -> None:
        cancelled = asyncio.ensure_future(way(work))
        await asyncio.sleep(1)
        shower_on(cancelled)
        await asyncio.sleep(0.5)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        assert now() == 1.5
        await asyncio.sleep(5)  # calls of an executor go on with their clean-up

    run_virtual(main)


def test_display_ends_in_its_own_time_after_a_shower_of_requests() -> None:
    """An async ``on_finish`` is awaited."""
    finished: list[float] = []

    class Display:
        def on_start(self, *_: Any) -> None: ...
        def on_update(self, *_: Any) -> None: ...
        async def on_finish(self, *_: Any) -> None:
            await asyncio.sleep(1)
            finished.append(now())

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [CleansUp()])])
        cancelled = asyncio.ensure_future(pipeline.run(range(2), custom_dashboard=Display()))
        await asyncio.sleep(1)
        shower_on(cancelled, 1000)
        await asyncio.wait([cancelled])
        assert finished == [5]

    run_virtual(main)


def test_tasks_of_a_run_clean_up_when_its_event_loop_ends() -> None:
    """A run in the background is cancelled together with its tasks, and each only once."""

    async def main(work: Work) -> None:
        running = [asyncio.ensure_future(in_run(work)) for _ in range(10)]
        running += [asyncio.ensure_future(in_stream(work)) for _ in range(10)]
        await asyncio.sleep(1)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:  # what `asyncio.run` does at the end
            task.cancel()
        await asyncio.wait(tasks)

    work = CleansUp()
    run_virtual(main(work))
    assert work.cleaned == [4] * 40
