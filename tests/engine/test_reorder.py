"""Ordered streams: the order of the input, a bounded number that waits, no idle worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from antflow import Drop, Pipeline, Stage
from antflow.testing import Calls, FailTimes, Gate, cancel_at_every_step, run_virtual
from tests.support import now


async def in_no_order(value: int) -> int:
    """Take a time that has nothing to do with the place in the input."""
    await asyncio.sleep(value * 7 % 10)
    return value


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
@pytest.mark.parametrize("seed", [None, *range(4)])
def test_results_come_in_the_order_of_the_input(seed: int | None, kind: str) -> None:
    """Items that overtake each other in two stages come out as they went in."""

    def generate() -> Iterator[int]:
        yield from range(50)

    async def generate_async() -> AsyncIterator[int]:
        for item in range(50):
            yield item

    async def main() -> list[int]:
        items: Any = {"list": range(50), "generator": generate()}.get(kind) or generate_async()
        pipeline = Pipeline([Stage("A", 5, [in_no_order]), Stage("B", 3, [in_no_order])])
        return [result.value async for result in pipeline.stream(items, ordered=True)]

    assert run_virtual(main, seed=seed) == list(range(50))


def test_slow_first_item_does_not_idle_the_workers_behind_it() -> None:
    """The first item takes 100 s on one worker; the other brings the other 99 through meanwhile."""

    async def head_is_slow(value: int) -> int:
        await asyncio.sleep(100 if value == 0 else 1)
        return value

    async def main() -> list[tuple[int, float]]:
        pipeline = Pipeline([Stage("A", 2, [head_is_slow])])
        return [(r.value, now()) async for r in pipeline.stream(range(100), ordered=True)]

    seen = run_virtual(main)
    assert seen == [(value, 100) for value in range(100)]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("buffer_size", [0, 1, 5, 20])
def test_results_that_wait_are_bounded(buffer_size: int, is_async: bool) -> None:
    """Behind a stuck first item: what the stages hold and the results that may wait, no more."""
    taken: list[int] = []

    def endless() -> Iterator[int]:
        item = 0
        while True:
            taken.append(item)
            yield item
            item += 1

    async def endless_async() -> AsyncIterator[int]:
        for item in endless():
            yield item

    async def main() -> int:
        gate = Gate()

        async def head_is_stuck(value: int) -> int:
            return await gate(value) if value == 0 else value

        pipeline = Pipeline([Stage("A", 2, [head_is_stuck], queue_capacity=3)])
        source = endless_async() if is_async else endless()
        results = pipeline.stream(source, ordered=True, buffer_size=buffer_size)
        async with aclosing(results):
            first = asyncio.ensure_future(anext(results))
            await asyncio.sleep(50)
            most = len(taken)
            assert pipeline.get_stats().items_accepted == most
            gate.open()
            assert (await first).value == 0
            for value in range(1, 200):
                assert (await anext(results)).value == value
        return most

    assert run_virtual(main) == 2 + 3 + buffer_size


def test_buffer_of_none_hands_over_one_by_one_and_does_not_hang() -> None:
    """``buffer_size=0`` together with an order: it goes on, and in order."""

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("A", 3, [in_no_order], queue_capacity=1)])
        results = pipeline.stream(range(30), ordered=True, buffer_size=0)
        return [result.value async for result in results]

    assert run_virtual(main) == list(range(30))


def test_slow_consumer_slows_the_source() -> None:
    """A consumer that takes one result a second: what is taken in stays a few ahead of it."""
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [Calls()], queue_capacity=2)])
        async with aclosing(pipeline.stream(source(), ordered=True, buffer_size=4)) as results:
            async for result in results:
                await asyncio.sleep(1)
                assert len(taken) - result.value <= 2 * (2 + 2 + 4) + 1
                if result.value == 40:
                    break

    run_virtual(main)
    assert len(taken) < 60


def test_failed_dropped_and_expanded_items_hold_nothing_up() -> None:
    """Failures and children are where the item was; what was dropped or expanded leaves no gap."""

    async def task(value: int) -> Any:
        await asyncio.sleep(value * 3 % 7)
        if value == 2:
            raise ValueError
        if value == 3:
            return Drop
        return [value * 10 + n for n in range(value % 3)]

    async def main() -> list[tuple[Any, str]]:
        stages = [
            Stage("A", 3, [task], task_attempts=1, expand=True),
            Stage("B", 3, [in_no_order]),
        ]
        results = Pipeline(stages).stream(range(6), ordered=True)
        return [(result.value, result.outcome) async for result in results]

    assert run_virtual(main) == [
        (10, "completed"),
        (2, "failed"),
        (40, "completed"),
        (50, "completed"),
        (51, "completed"),
    ]


def test_result_behind_a_dropped_item_comes_at_once() -> None:
    """It does not wait for the end of the run, as behind an item that is still on its way."""

    async def task(value: int) -> Any:
        await asyncio.sleep(100 if value == 2 else 1)
        return Drop if value == 0 else value

    async def main() -> list[tuple[int, float]]:
        results = Pipeline([Stage("A", 3, [task])]).stream(range(3), ordered=True)
        return [(result.value, now()) async for result in results]

    assert run_virtual(main) == [(1, 1.0), (2, 100.0)]


def test_retries_keep_their_place() -> None:
    """An item that fails twice and waits comes out where it was in the input."""

    async def main() -> list[int]:
        fails = FailTimes(2)

        async def some_fail(value: int) -> int:
            return await fails(value) if value % 3 == 0 else value

        stages = [Stage("A", 2, [some_fail], task_wait_seconds=10), Stage("B", 1, [in_no_order])]
        return [r.value async for r in Pipeline(stages).stream(range(12), ordered=True)]

    assert run_virtual(main) == list(range(12))


def test_window_smaller_than_a_batch_does_not_hang() -> None:
    """Few may be taken in, a batch wants more: it does not wait for what cannot come."""

    async def batch(values: list[int]) -> list[int]:
        return values

    async def main() -> tuple[list[int], float]:
        stages = [
            Stage("A", 1, [batch], batch=50, batch_wait=5, queue_capacity=1),
            Stage("B", 1, [batch], batch=50, batch_wait=5, queue_capacity=1),
        ]
        results = Pipeline(stages).stream(range(300), ordered=True, buffer_size=1)
        return [result.value async for result in results], now()

    values, seconds = run_virtual(main)
    assert values == list(range(300))
    assert seconds < 100


@pytest.mark.parametrize("seed", range(4))
def test_ordered_stream_that_is_left_early_leaves_nothing(seed: int) -> None:
    """Left after a few results: nothing is left behind, every accepted item has ended."""
    choose = random.Random(seed)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 3, [in_no_order]), Stage("B", 2, [in_no_order])])
        stop_at = choose.randrange(10)
        async with aclosing(pipeline.stream(range(40), ordered=True, buffer_size=2)) as results:
            async for result in results:
                if result.value == stop_at:
                    break
        assert pipeline.get_stats().items_in_flight == 0

    run_virtual(main, seed=seed)


def test_ordered_stream_cancelled_at_every_step_leaves_nothing() -> None:
    """Cancelled before any step, with results waiting for the first one: balanced books."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(Pipeline([Stage("A", 2, [in_no_order]), Stage("B", 2, [FailTimes(1)])]))
        results = pipelines[-1].stream(range(6), ordered=True, buffer_size=1)
        async with aclosing(results):
            async for _ in results:
                await asyncio.sleep(0.5)

    def check(step: int) -> None:
        for pipeline in pipelines:
            assert pipeline.get_stats().items_in_flight == 0
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 50


def test_error_of_the_source_comes_after_the_results_before_it() -> None:
    """The source breaks after five items: their results come in order, then its error."""

    def breaks() -> Iterator[int]:
        yield from range(5)
        raise OSError("gone")

    seen: list[int] = []

    async def main() -> None:
        async for result in Pipeline([Stage("A", 3, [in_no_order])]).stream(breaks(), ordered=True):
            seen.append(result.value)

    with pytest.raises(OSError, match="gone"):
        run_virtual(main)
    assert seen == list(range(5))
