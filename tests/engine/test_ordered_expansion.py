"""Ordered streams of items that become others: in order, bounded, and never in a circle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antflow import Drop, Pipeline, PipelineError, PipelineResult, Stage
from antflow._core.envelope import Envelope
from antflow._engine.reorder import Reorder
from antflow.testing import Gate, run_virtual

Path = tuple[int, ...]


async def endless(value: int) -> AsyncIterator[Path]:
    """Children without end."""
    for number in count():
        yield (value, number)


async def same(value: Any) -> Any:
    """The value."""
    return value


def test_children_of_the_first_item_come_out_as_they_are_made() -> None:
    """An item that never ends to become others: its children are there at once, in order."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Make", 1, [endless], expand=True), Stage("B", 3, [same])])
        async with pipeline.stream([1], ordered=True, buffer_size=2) as results:
            for number in range(500):
                assert (await anext(results)).value == (1, number)
            await asyncio.sleep(10)
            assert pipeline.get_stats().items_children < 600

    run_virtual(main)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_children_of_later_items_are_bounded(workers: int) -> None:
    """While the first endless item comes out, the others on other workers wait for their turn."""

    async def main() -> None:
        stages = [Stage("Make", workers, [endless], expand=True), Stage("B", 3, [same])]
        pipeline = Pipeline(stages)
        async with pipeline.stream(count(), ordered=True, buffer_size=2) as results:
            for number in range(2000):
                assert (await anext(results)).value == (0, number)
            assert pipeline.get_stats().items_children < 2500

    run_virtual(main)


@pytest.mark.parametrize("slow", ["a child", "the item before"])
def test_children_are_bounded_while_a_slow_one_is_waited_for(slow: str) -> None:
    """One child is slow in a later stage: the endless rest of its family, or the next, waits."""

    async def main() -> None:
        gate = Gate()

        async def first_is_slow(value: Path) -> Path:
            return await gate(value) if value == (0, 0) else value

        async def children(value: int) -> AsyncIterator[Path]:
            for number in count() if slow == "a child" or value else range(1):
                yield (value, number)

        stages = [Stage("Make", 1, [children], expand=True), Stage("B", 2, [first_is_slow])]
        pipeline = Pipeline(stages)
        async with pipeline.stream(count(), ordered=True, buffer_size=5) as results:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(results), 50)
            assert pipeline.get_stats().items_children < 100
            gate.open()
            assert (await anext(results)).value == (0, 0)
            family = 0 if slow == "a child" else 1
            for number in range(1 - family, 300):
                assert (await anext(results)).value == (family, number)

    run_virtual(main)


def test_item_that_fails_after_it_made_some_comes_after_them() -> None:
    """Children that were made are in the stream before the failure of what made them."""

    async def fails(value: int) -> AsyncIterator[Path]:
        yield (value, 0)
        yield (value, 1)
        if value == 1:
            raise ValueError

    async def main() -> list[Any]:
        stages = [Stage("Make", 2, [fails], expand=True, task_attempts=1), Stage("B", 2, [same])]
        async with Pipeline(stages).stream(range(3), ordered=True) as results:
            return [result.id async for result in results]

    assert run_virtual(main) == ["0/0", "0/1", "1/0", "1/1", 1, "2/0", "2/1"]


class Tree:
    """A pipeline that makes trees of items: each has another shape, takes a while, and may fail."""

    def __init__(self, seed: int) -> None:
        self.choose = choose = random.Random(seed)
        self.depth = choose.randint(1, 3)
        self.width = choose.choice([2, 5, 30 if self.depth == 1 else 8])
        self.seed = seed
        self.failures: set[Path] = set()
        stages: list[Any] = []
        for level in range(self.depth):
            if choose.random() < 0.4:
                stages.append(Stage(f"Pass{level}", choose.randint(1, 2), [self.work]))
            stages.append(
                Stage(
                    f"Make{level}",
                    choose.randint(1, 3),
                    [self.make],
                    expand=True,
                    skip_if=(lambda path: self.chance(path, "skip") < 0.1) if level else None,
                    queue_capacity=choose.choice([1, 2, None]),
                    task_attempts=2,
                    task_wait_seconds=choose.choice([0.0, 3.0]),
                )
            )
        stages.append(Stage("Last", choose.randint(1, 2), [self.work], queue_capacity=1))
        self.pipeline = Pipeline(stages)

    def chance(self, path: Path, what: str) -> float:
        return random.Random(f"{self.seed} {path} {what}").random()

    async def work(self, path: Path) -> Path:
        await asyncio.sleep(self.chance(path, "work") * self.chance(path, "slow") ** 3 * 10)
        return path

    async def make(self, path: Path) -> AsyncIterator[Any]:
        made = self.children(path)
        for child in made:
            await asyncio.sleep(self.chance(child, "make") * 0.3)
            if path not in self.failures and self.chance(child, "fail") < 0.1:
                self.failures.add(path)
                raise ValueError
            yield Drop if self.chance(child, "drop") < 0.1 else child

    def children(self, path: Path) -> list[Path]:
        many = int(self.chance(path, "many") ** 2 * self.width + 0.5)
        return [(*path, number) for number in range(many)]

    def leaves(self, path: Path, level: int = 0) -> Iterator[Path]:
        if level == self.depth:
            yield path
        elif level and self.chance(path, "skip") < 0.1:
            yield from self.leaves(path, level + 1)
        else:
            for child in self.children(path):
                if self.chance(child, "drop") >= 0.1:
                    yield from self.leaves(child, level + 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9))
def test_trees_come_out_in_order(seed: int) -> None:
    """Nested, dropped, tried again, passed by; with little room, and workers added and removed."""
    tree = Tree(seed)
    items = tree.choose.randint(1, 12)
    buffer_size = tree.choose.choice([0, 1, 3, None])
    meddles = tree.choose.random() < 0.3

    async def main() -> list[Path]:
        async def meddle() -> None:
            names = [stage.name for stage in tree.pipeline.stages]
            for _ in range(20):
                await asyncio.sleep(1)
                run = tree.pipeline._runs.latest
                assert run is not None
                run.set_workers(tree.choose.choice(names), tree.choose.randint(1, 3))

        stream = tree.pipeline.stream(
            ((number,) for number in range(items)), ordered=True, buffer_size=buffer_size
        )
        came: list[Path] = []
        async with stream as results, asyncio.TaskGroup() as group:
            if meddles:
                group.create_task(meddle())
            async for result in results:
                came.append(result.value)
                if tree.chance(result.value, "consumer") < 0.1:
                    await asyncio.sleep(2)
        stats = tree.pipeline.get_stats()
        assert stats.items_in_flight == 0
        assert stats.items_failed == 0
        return came

    expected = [leaf for number in range(items) for leaf in tree.leaves((number,))]
    assert run_virtual(main, seed=seed % 100, max_time=1e6) == expected


@pytest.mark.parametrize("how", ["cancel", "shutdown", "leave"])
@pytest.mark.parametrize("after", [0.5, 3, 20])
def test_run_that_is_ended_while_workers_are_held(how: str, after: float) -> None:
    """However it ends while workers wait for the order: it ends, and every item has an outcome."""

    async def many(value: int) -> AsyncIterator[Path]:
        for number in range(50):
            await asyncio.sleep(0.1)
            yield (value, number)

    async def slow(value: Path) -> Path:
        await asyncio.sleep(1000 if value == (0, 0) else 0.01)
        return value

    async def main() -> None:
        stages = [Stage("Make", 3, [many], expand=True), Stage("B", 2, [slow])]
        pipeline = Pipeline(stages)
        async with pipeline.stream(count(), ordered=True, buffer_size=0) as results:
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(results), after)
            if how == "cancel":
                assert pipeline._runs.latest is not None
                pipeline._runs.latest.cancel()
            elif how == "shutdown":
                ending = asyncio.ensure_future(pipeline.shutdown())
                _ = [result async for result in results]
                await ending
        stats = pipeline.get_stats()
        assert stats.items_in_flight == 0
        assert len(pipeline.results.cancelled) == stats.items_cancelled

    run_virtual(main, max_time=1e5)


def test_worker_that_is_held_goes_on_when_the_others_leave() -> None:
    """The first item waits to be tried again, and the only worker left is the one that is held."""
    tries: list[int] = []

    async def make(value: int) -> AsyncIterator[Path]:
        tries.append(value)
        await asyncio.sleep(1 + value)
        if value == 0 and tries.count(0) == 1:
            raise ValueError("not yet")
        for number in range(500 if value == 2 else 1):
            yield (value, number)

    async def main() -> list[Path]:
        stage = Stage("Make", 2, [make], expand=True, task_wait_seconds=100)
        pipeline = Pipeline([stage])
        async with pipeline.stream(range(3), ordered=True, buffer_size=0) as results:
            first = asyncio.ensure_future(anext(results))
            await asyncio.sleep(50)
            assert pipeline.get_stats().items_children < 100
            assert pipeline._runs.latest is not None
            pipeline._runs.latest.set_workers("Make", 1)
            return [(await first).value, *[result.value async for result in results]]

    assert run_virtual(main) == [(0, 0), (1, 0), *((2, number) for number in range(500))]


def test_feeding_beside_an_ordered_stream_that_ends() -> None:
    """Who waits for the order to feed is refused when the run ends; it does not wait for ever."""

    async def main() -> None:
        gate = Gate()
        pipeline = Pipeline([Stage("A", 1, [gate], queue_capacity=1)])
        async with pipeline.stream([0], ordered=True, buffer_size=0) as results:
            asking = asyncio.ensure_future(anext(results))
            await asyncio.sleep(1)
            feeding = asyncio.ensure_future(pipeline.feed(range(100)))
            await asyncio.sleep(1)
            assert not feeding.done()
        with pytest.raises(StopAsyncIteration):
            await asking
        with pytest.raises(PipelineError):
            await feeding

    run_virtual(main)


def test_what_waits_for_an_item_that_never_came_is_passed_on_at_the_end() -> None:
    """Results behind an item that was never settled come out, in order, when the run is over."""
    came: list[int] = []

    async def main() -> None:
        reorder = Reorder(lambda result: came.append(result.id), 10)
        for number in (3, 2, 0):
            reorder.deliver(PipelineResult(number, None, number))
        assert came == [0]
        reorder.flush()

    run_virtual(main)
    assert came == [0, 2, 3]


@pytest.mark.parametrize("places", [(1, 2), (2, 1)])
def test_of_the_workers_that_could_be_held_the_one_nearest_to_the_head_goes_on(
    places: tuple[int, int],
) -> None:
    """Whoever asked first: what it makes can be passed on sooner."""
    went_on: list[int] = []

    async def main() -> None:
        reorder = Reorder(lambda result: None, 1)
        reorder.deliver(PipelineResult(3, None, 3))  # waits, and that is all that may

        async def make_more(place: int) -> None:
            wait = reorder.hold(Envelope(place, place, None, {}, None), lambda: 2)
            if wait is not None:
                await wait
            went_on.append(place)

        making = [asyncio.ensure_future(make_more(place)) for place in places]
        await asyncio.sleep(1)
        assert went_on == [1]
        reorder.end()
        await asyncio.wait(making)

    run_virtual(main)
    assert went_on == [1, 2]
