"""Turns of the event loop, where tasks never suspend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from antflow import Pipeline, Stage

pytestmark = pytest.mark.real_time


class Block:
    """A task that holds the event loop for 2 ms, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, value: Any) -> Any:
        self.calls += 1
        time.sleep(0.002)  # noqa: ASYNC251 - it must not suspend: then workers give way
        return value


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize(("stages", "runs"), [(1, 1), (3, 1), (1, 3)])
def test_workers_together_hold_the_loop_no_longer_than_one(
    stages: int, runs: int, batch: int | None
) -> None:
    """However many workers, stages and runs there are, others on the loop wait for a few items."""
    task = Block()

    async def main() -> list[int]:
        made = [Stage(f"Stage {n}", 20, [task], batch=batch) for n in range(stages)]
        running = [asyncio.create_task(Pipeline(made).run(range(60))) for _ in range(runs)]
        seen = []
        while not all(each.done() for each in running):
            seen.append(task.calls)
            await asyncio.sleep(0)
        assert [len(await each) for each in running] == [60] * runs
        return seen

    seen = asyncio.run(main())
    assert task.calls == 60 * stages * runs
    assert max(after - before for before, after in pairwise(seen)) <= 4


async def as_async(values: range) -> AsyncIterator[int]:
    """The values, as an async generator that never suspends."""
    for value in values:
        yield value


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", [list, iter, as_async])
def test_item_that_becomes_a_great_many_lets_others_have_a_turn(
    kind: Callable[[range], Any], stages: int
) -> None:
    """Where nothing makes an expansion wait, it does not hold the event loop to its end."""

    async def task(number: int) -> Any:
        return kind(range(50_000))

    async def keep(value: int) -> int:
        return value

    async def main() -> list[int]:
        last = [Stage("Keep", 1, [keep], queue_capacity=None)][: stages - 1]
        pipeline = Pipeline([Stage("Expand", 1, [task], expand=True), *last])
        running = asyncio.create_task(pipeline.run([0]))
        seen = []
        while not running.done():
            await asyncio.sleep(0)
            seen.append(pipeline.get_stats().items_children)
        return seen

    seen = asyncio.run(main())
    assert seen[-1] == 50_000
    assert max(after - before for before, after in pairwise(seen)) < 25_000


def test_runs_in_one_loop_take_turns() -> None:
    """Where tasks never suspend, no run waits until another one is through."""
    tasks = [Block(), Block()]

    async def main() -> None:
        runs = [Pipeline([Stage("Work", 5, [task])]).run(range(150)) for task in tasks]
        running = [asyncio.create_task(run) for run in runs]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        assert min(task.calls for task in tasks) > 50
        await asyncio.wait(running)

    asyncio.run(main())


def test_no_worker_that_gave_way_begins_during_a_pause() -> None:
    """A worker without an item when the run is paused does not begin another one."""
    task = Block()

    async def main() -> None:
        async with Pipeline([Stage("Work", 20, [task])]).open() as run:
            await run.feed(range(100))
            while task.calls < 60:
                await asyncio.sleep(0)
            run.pause()
            begun = task.calls
            await asyncio.sleep(0.1)
            assert task.calls == begun
            run.resume()

    asyncio.run(main())
    assert task.calls == 100
