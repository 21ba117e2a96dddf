"""Waiting despite cancellation."""

from __future__ import annotations

import asyncio

import pytest

from antflow._engine.waiting import outlast, outlast_task
from antflow.testing import run_virtual


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
