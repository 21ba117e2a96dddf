"""Runs that are paused and go on: nothing begins meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antflow import Limit, Pipeline, RetryAfter, Stage
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import now


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
