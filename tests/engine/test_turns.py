"""Turns of the event loop, where tasks never suspend."""

from __future__ import annotations

import asyncio
import time
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


def test_all_workers_get_their_turns() -> None:
    """Where tasks never suspend, each worker has about as many items as any other."""

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("Work", 5, [Block()])])
        await pipeline.run(range(200))
        return [each.items_processed for each in pipeline.get_worker_metrics().values()]

    assert min(asyncio.run(main())) >= 20


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
