"""The way from one stage to the next: in order, with room, or from hand to hand."""

from __future__ import annotations

import asyncio

import pytest

from antflow import Pipeline, Stage, StatusTracker
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import now


@pytest.mark.parametrize("seed", [None, *range(5)])
@pytest.mark.parametrize("capacity", [1, None])
def test_stages_overlap(seed: int | None, capacity: int | None) -> None:
    """Three stages of 2 workers, 20 items of 1 s each: the line is full but for its ends."""

    async def main() -> float:
        stages = [
            Stage(name, 2, [Calls(seconds=1)], queue_capacity=capacity) for name in ("A", "B", "C")
        ]
        await Pipeline(stages).run(range(20))
        return now()

    assert run_virtual(main, seed=seed) == pytest.approx(20 / 2 + 2)


@pytest.mark.parametrize("listens", [False, True])
def test_first_queue_shows_a_slow_stage(listens: bool) -> None:
    """Items wait before a first stage that is slow, whether or not somebody is told of each."""

    async def main() -> int:
        tracker = StatusTracker(print if listens else None)
        pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)])], status_tracker=tracker)
        running = asyncio.create_task(pipeline.run(range(60)))
        await asyncio.sleep(2.5)
        pending = pipeline.get_stats().queue_sizes["A"]
        await running
        return pending

    assert run_virtual(main) > 10


def test_urgent_items_overtake_those_that_wait_in_every_stage() -> None:
    """An urgent item overtakes those that wait, in every stage; equals keep their order."""
    order: list[str] = []

    async def last(value: str) -> str:
        order.append(value)
        await asyncio.sleep(1)
        return value

    async def main() -> None:
        async with Pipeline(
            [Stage("A", 1, [Calls(seconds=0.1)]), Stage("B", 1, [last])]
        ).open() as run:
            await run.feed(["a", "b", "c", "d"])
            await asyncio.sleep(1.5)
            await run.feed(["late"], priority=200)
            await run.feed(["urgent"], priority=1)

    run_virtual(main)
    assert order == ["a", "b", "urgent", "c", "d", "late"]


def test_items_of_one_priority_keep_their_order() -> None:
    """FIFO: one worker sees the items as they were fed, whatever their priority is."""
    calls = Calls()

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [calls])]).open() as run:
            await run.feed(range(30), priority=7)

    run_virtual(main)
    assert [call.value for call in calls.made] == list(range(30))


def test_blocked_items_are_those_whose_sender_waits() -> None:
    """An item that was put back for its next try is no blocked sender."""

    async def main() -> None:
        calls = Calls(FailTimes(1), seconds=1)
        stage = Stage("A", 1, [calls], queue_capacity=2, task_wait_seconds=0.5)
        async with Pipeline([stage]).open() as run:
            await run.feed([0])
            await asyncio.sleep(0.5)
            await run.feed([1, 2])
            await asyncio.sleep(1.2)
            assert run.stats().stage_stats["A"].blocked_items == 0

    run_virtual(main)


# -- stages that pull ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(4)])
def test_nothing_waits_before_a_stage_that_pulls(seed: int | None) -> None:
    """``pull=True``: the stage before holds its item until a worker has nothing to do."""

    async def main() -> float:
        fast = Calls()
        stages = [Stage("Fast", 1, [fast]), Stage("Slow", 2, [Calls(seconds=1)], pull=True)]
        pipeline = Pipeline(stages)
        running = asyncio.create_task(pipeline.run(range(10)))
        await asyncio.sleep(2.5)
        stats = pipeline.get_stats()
        assert stats.queue_sizes["Slow"] == 0
        assert stats.stage_stats["Slow"].blocked_items == 1
        assert len(fast.made) == 3 * 2 + 1
        await running
        return now()

    assert run_virtual(main, seed=seed) == 5


def test_retry_in_a_stage_that_pulls_comes_back() -> None:
    """A failed item of a pulling stage waits for its next try and is through then."""
    tries: list[int] = []

    async def once(value: int) -> int:
        tries.append(value)
        if len(tries) == 1:
            raise ValueError
        return value

    async def main() -> list[int]:
        stages = [
            Stage("A", 1, [Calls()]),
            Stage("B", 1, [once], pull=True, task_wait_seconds=5),
        ]
        return (await Pipeline(stages).run(range(5))).values()

    assert run_virtual(main) == list(range(5))
    assert len(tries) == 6


def test_expanding_into_a_stage_that_pulls_goes_hand_to_hand() -> None:
    """Children are handed over one by one to a stage that pulls."""

    async def many(value: int) -> list[int]:
        return list(range(10))

    async def main() -> float:
        stages = [
            Stage("Split", 1, [many], expand=True),
            Stage("Slow", 2, [Calls(seconds=1)], pull=True),
        ]
        pipeline = Pipeline(stages)
        running = asyncio.create_task(pipeline.run([0]))
        await asyncio.sleep(2.5)
        assert pipeline.get_stats().items_children == 3 * 2 + 1
        await running
        return now()

    assert run_virtual(main) == 5
