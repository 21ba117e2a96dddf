"""Whatever can be iterated goes in; every item keeps its own identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusTracker, TooManyFailures
from antflow.testing import Calls
from tests.support import (
    assert_balanced,
    endless,
    in_background,
    lasting,
    now,
    raising,
    same,
    virtual,
)

pytestmark = pytest.mark.fault


def generator() -> Iterator[int]:
    yield from range(5)


async def async_generator() -> AsyncIterator[int]:
    for number in range(5):
        await asyncio.sleep(0.1)
        yield number


class AsyncItems:
    def __aiter__(self) -> AsyncIterator[int]:
        return async_generator()


class OldProtocol:
    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise IndexError
        return index


class LyingLength(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


MAKERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [0, 1, 2, 3, 4],
    "tuple": lambda: (0, 1, 2, 3, 4),
    "range": lambda: range(5),
    "iterator": lambda: iter(range(5)),
    "keys": lambda: dict.fromkeys(range(5)).keys(),
    "length that raises": lambda: LyingLength(range(5)),
    "generator": generator,
    "async generator": async_generator,
    "async iterable": AsyncItems,
    "old protocol": OldProtocol,
}
of_every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class Silent:
    """A display that does nothing."""

    total_items = -1

    def on_start(self, pipeline: Any, total_items: int) -> None:
        self.total_items = total_items


@of_every_kind
@pytest.mark.parametrize("displayed", [False, True])
def test_run_of_anything_iterable(make: Callable[[], Any], displayed: bool) -> None:
    """`run` takes any iterable or async iterable, with a display and without."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        display = Silent() if displayed else None
        assert (await pipeline.run(make(), custom_dashboard=display)).values() == [0, 1, 2, 3, 4]

    virtual(main)


@of_every_kind
def test_stream_of_anything_iterable(make: Callable[[], Any]) -> None:
    """`stream` takes any iterable or async iterable."""

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        return [result.value async for result in pipeline.stream(make())]

    assert sorted(virtual(main)) == [0, 1, 2, 3, 4]


@of_every_kind
def test_feed_of_anything_iterable(make: Callable[[], Any]) -> None:
    """`feed` takes any iterable or async iterable."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        await pipeline.feed(make())
        await pipeline.join()
        assert pipeline.results.values() == [0, 1, 2, 3, 4]

    virtual(main)


def test_feed_async() -> None:
    """`feed_async` takes in each item as it comes."""

    async def main() -> None:
        calls = Calls()
        pipeline = Pipeline([Stage("Work", 2, [calls])])
        await pipeline.feed_async(async_generator())
        await pipeline.join()
        assert [call.start for call in calls.made] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])

    virtual(main)


def test_total_that_is_told() -> None:
    """A display is told the total of a generator where it is given, else the length."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        for items, total, expected in [(generator(), 5, 5), (generator(), None, 0), ([1], None, 1)]:
            display = Silent()
            await pipeline.run(items, custom_dashboard=display, total=total)
            assert display.total_items == expected

    virtual(main)


@pytest.mark.parametrize("items", ["abc", "", b"abc", bytearray(b"a"), {"a": 1}, {}], ids=repr)
@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_items_that_would_be_taken_apart(how: str, items: Any) -> None:
    """A string or a mapping in place of a list of items is refused, and the way out is told."""
    assert_refused(how, items, "wrap it in a list")


@pytest.mark.parametrize("items", [None, 5, 1.5, Silent(), same, int])
@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_items_that_cannot_be_iterated(how: str, items: Any) -> None:
    """What cannot be iterated is refused at once."""
    assert_refused(how, items, "items=")


async def begin(pipeline: Pipeline, how: str, items: Any) -> list[Any]:
    if how == "stream":
        return [result async for result in pipeline.stream(items)]
    return await getattr(pipeline, how)(items) or []


def assert_refused(how: str, items: Any, match: str) -> None:
    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(TypeError, match=match):
            await begin(pipeline, how, items)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


@pytest.mark.parametrize("collect_results", [False, True])
def test_endless_input_that_is_cancelled(collect_results: bool) -> None:
    """A run over an endless input works until it is cancelled, and its counts are exact."""

    async def main() -> None:
        stage = Stage("Work", 10, [lasting(0.1)])
        pipeline = Pipeline([stage], collect_results=collect_results)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.05):
                await pipeline.run(endless())
        assert now() == 1.05
        stats = pipeline.get_stats()
        assert stats.items_processed == 100
        assert_balanced(stats)
        assert len(pipeline.results) == (100 if collect_results else 0)

    virtual(main)


def test_endless_input_is_taken_as_there_is_room() -> None:
    """No more is taken from an input than there is room for."""
    taken: list[int] = []

    async def main() -> None:
        source = (taken.append(number) or number for number in endless())  # type: ignore[func-returns-value]
        stages = [
            Stage("A", 3, [same], queue_capacity=4),
            Stage("B", 2, [lasting(1)], queue_capacity=5),
        ]
        run = await in_background(Pipeline(stages).run(source), 0.5)
        assert len(taken) <= 3 + 4 + 2 + 5 + 1
        run.cancel()
        await asyncio.wait([run])

    virtual(main)
    assert taken


def test_endless_input_and_tasks_that_never_wait() -> None:
    """Others have their turn while an endless input meets tasks that never wait."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])], collect_results=False)
        run = asyncio.ensure_future(pipeline.run(endless()))
        while pipeline.get_stats().items_processed < 1000:
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])

    virtual(main)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("position", [0, 1, 7])
def test_source_that_raises(position: int, is_async: bool) -> None:
    """What a source raises comes out after what came before it is through, with the results."""

    def failing() -> Iterator[int]:
        yield from range(position)
        raise KeyError("source")

    async def failing_later() -> AsyncIterator[int]:
        for number in failing():
            yield number

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [lasting(1)]), Stage("B", 2, [lasting(1)])])
        with pytest.raises(KeyError) as caught:
            await pipeline.run(failing_later() if is_async else failing())
        assert caught.value.results.values() == list(range(position))  # type: ignore[attr-defined]
        assert pipeline.results.values() == list(range(position))

    virtual(main)


def test_generator_is_closed_when_the_intake_stops() -> None:
    """Its clean-up has run when the run is over, even while the test still refers to it."""
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            closed.append(True)

    async def main() -> None:
        items = source()
        stage = Stage("Work", 1, [raising(ValueError())], task_attempts=1)
        with pytest.raises(TooManyFailures):
            await Pipeline([stage]).run(items, max_failures=3)
        assert closed == [True]
        assert next(items, None) is None

    virtual(main)


CANCELLED = [asyncio.CancelledError(), BaseExceptionGroup("", [asyncio.CancelledError()])]


@pytest.mark.parametrize("error", CANCELLED, ids=["alone", "in a group"])
@pytest.mark.parametrize("way", ["pulled", "fed", "async"])
def test_clean_up_that_raises_cancelled_error(
    error: BaseException, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError of a source's clean-up is logged, and cancels nothing."""

    def numbers() -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise error

    async def async_numbers() -> AsyncIterator[int]:
        try:
            for number in count():
                yield number
        finally:
            raise error

    async def refuse_nine(value: int) -> int:
        if value == 9:
            raise ValueError(value)
        return value

    async def main() -> None:
        tracker = StatusTracker(on_status_change=same) if way == "fed" else None
        stage = Stage("Work", 1, [refuse_nine], task_attempts=1)
        pipeline = Pipeline([stage], status_tracker=tracker)
        with pytest.raises(TooManyFailures) as info:
            await pipeline.run(async_numbers() if way == "async" else numbers(), max_failures=1)
        results = info.value.results
        assert results is not None
        assert results.values()[:9] == list(range(9))
        assert not results.cancelled

    virtual(main)
    assert "the source's clean-up failed" in caplog.text


def test_stream_of_a_source_that_raises() -> None:
    """A stream yields what came before the source raised, then raises."""

    def failing() -> Iterator[int]:
        yield from range(5)
        raise KeyError("source")

    async def main() -> None:
        got: list[int] = []
        stream = Pipeline([Stage("Work", 1, [lasting(1)])]).stream(failing())

        async def consume() -> None:
            async for result in stream:
                got.append(result.value)

        with pytest.raises(KeyError):
            await consume()
        assert got == [0, 1, 2, 3, 4]

    virtual(main)


def test_source_that_changes_while_it_is_read() -> None:
    """What Python raises for a set that grows while it is read comes out of the run."""
    items = {0, 1, 2}

    async def grow(value: int) -> int:
        items.add(value + 100)
        await asyncio.sleep(1)
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [grow], queue_capacity=1)])
        with pytest.raises(RuntimeError, match="changed size"):
            await pipeline.run(items)
        assert len(pipeline.results) >= 1
        assert_balanced(pipeline.get_stats())

    virtual(main)


# Identity


def run_items(items: Any, **options: Any) -> tuple[list[Any], StatusTracker]:
    """Run them, and see that the tracker has a whole history for each result."""
    tracker = StatusTracker()

    async def main() -> list[Any]:
        stage = Stage("Work", 1, [lasting(1)])
        pipeline = Pipeline([stage], status_tracker=tracker, **options)
        results = await pipeline.run(items)
        assert len(results) == len(items)
        return [result.id for result in results]

    ids = virtual(main)
    assert tracker.get_tracked_ids() == ids
    for item_id in ids:
        statuses = [event.status for event in tracker.get_history(item_id)]
        assert statuses == ["queued", "in_progress", "completed"]
    return ids, tracker


def test_ids_that_come_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Items with one id are kept apart: later ones are numbered, with one warning per run."""
    ids, _ = run_items([{"id": "a", "value": n} for n in range(4)])
    assert ids == ["a", "a#2", "a#3", "a#4"]
    assert len([record for record in caplog.records if "twice" in record.getMessage()]) == 1


def test_id_may_come_again_where_results_are_not_collected() -> None:
    """Ids are compared with those in flight: once an item has left, its id is free."""
    seen: list[Any] = []

    async def main() -> None:
        stage = Stage("Work", 1, [same], on_success=lambda item_id, *_: seen.append(item_id))
        async with Pipeline([stage], collect_results=False).open() as run:
            for _ in range(2):
                await run.feed([{"id": "a"}])
                await asyncio.sleep(1)

    virtual(main)
    assert seen == ["a", "a"]


def test_failure_of_one_of_two_with_one_id() -> None:
    """A failure is not hidden by a success of another item with the same id."""
    tracker = StatusTracker()

    async def work(value: int) -> int:
        if value == 1:
            raise ValueError("no")
        return value

    stage = Stage("Work", 1, [work], task_attempts=1)
    items = [{"id": "a", "value": 1}, {"id": "a", "value": 2}]
    results = virtual(lambda: Pipeline([stage], status_tracker=tracker).run(items))
    assert (len(results), len(results.failed)) == (1, 1)
    assert tracker.get_stats()["failed"] == tracker.get_stats()["completed"] == 1


@pytest.mark.parametrize("equal", [0, 0.0, False, Decimal(0)])
@pytest.mark.parametrize("own_first", [False, True])
def test_own_id_that_equals_an_automatic_one(equal: Any, own_first: bool) -> None:
    """An item that brings an id is kept apart from one that was numbered with its like."""
    own = {"id": equal, "value": "own"}
    items = [{"id": 1, "value": "own"}, "numbered"] if own_first else ["numbered", own]
    ids, _ = run_items(items)
    assert len(set(ids)) == 2


def test_ids_when_one_tracker_follows_two_pipelines() -> None:
    """A tracker keeps the items of two pipelines apart by run."""
    tracker = StatusTracker()

    async def main() -> None:
        first = Pipeline([Stage("A", 1, [lasting(1)])], status_tracker=tracker)
        second = Pipeline([Stage("B", 1, [lasting(1)])], status_tracker=tracker)
        runs = await asyncio.gather(first.run([1, 2]), second.run([3]))
        for run, stage in zip(runs, "AB", strict=True):
            history = tracker.get_history(0, run=run.run_id)
            assert [event.stage for event in history] == [stage] * 3
        assert tracker.get_stats()["completed"] == 3
        assert tracker.get_stats(run=runs[1].run_id)["completed"] == 1

    virtual(main)


@pytest.mark.parametrize(
    "items",
    [
        [None, None],
        [{"id": "x", "value": None}],
        [{"id": ("tuple", 1), "value": 2}],
        [float("nan"), [], {}, set()],
        [ValueError("as a value")],
        ["x" * 1_000_000],
    ],
    ids=lambda items: repr(items)[:30],
)
def test_items_of_any_kind(items: list[Any]) -> None:
    """Any value is an item."""
    ids, _ = run_items(items)
    assert len(ids) == len(items)


def test_dict_with_id() -> None:
    """Of a dict with an id, the value is its ``"value"`` or the whole; the rest is metadata."""

    async def main() -> None:
        bare = {"id": "b", "url": "u"}
        items = [{"id": "a", "value": 1, "kind": "k"}, bare, {"url": "v"}]
        a, b, c = await Pipeline([Stage("Work", 1, [same])]).run(items)
        assert (a.id, a.value, a.metadata) == ("a", 1, {"kind": "k"})
        assert (b.id, b.value, b.metadata) == ("b", bare, {"url": "u"})
        assert (c.value, c.metadata) == ({"url": "v"}, {})
        assert a.input is items[0]
        assert items[0] == {"id": "a", "value": 1, "kind": "k"}

    virtual(main)


@pytest.mark.parametrize("value", [None, ValueError("returned"), StopIteration(), ..., same])
def test_task_that_returns_something_odd(value: Any) -> None:
    """What a task returns is the item's value, an exception object too."""

    async def work(_: Any) -> Any:
        return value

    results = virtual(lambda: Pipeline([Stage("Work", 1, [work])]).run([1]))
    assert results.values() == [value]
    assert results[0].is_success


def test_results_are_in_input_order() -> None:
    """Results come in the order of the input, whatever the order they were ready in."""

    async def work(value: int) -> int:
        await asyncio.sleep(10 - value)
        return value

    results = virtual(lambda: Pipeline([Stage("Work", 10, [work])]).run(range(10)))
    assert [result.sequence_id for result in results] == list(range(10))
    assert results.values() == list(range(10))


# feed()


@pytest.mark.parametrize("priority", [None, "high", 1.5, float("nan"), True])
def test_priority_that_is_none(priority: Any) -> None:
    """A priority that is no whole number is refused before anything is taken in."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(TypeError, match="priority="):
            await pipeline.feed([1], priority=priority)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


def test_priority_of_any_size() -> None:
    """Lower priorities go first, first in first out within one, through all stages."""

    async def main() -> None:
        calls = Calls(seconds=1)
        stages = [Stage("A", 1, [same]), Stage("B", 1, [calls])]
        pipeline = Pipeline(stages)
        await pipeline.start()
        fed = {"a": 100, "late": 10**400, "first": -(10**400), "early": 5, "b": 100}
        for item, priority in fed.items():
            await pipeline.feed([item], priority=priority)
        await pipeline.join()
        assert [call.value for call in calls.made] == ["first", "early", "a", "b", "late"]

    virtual(main)


@pytest.mark.parametrize("stage", ["Nowhere", "", 5, b"A", ["A"]])
def test_target_stage_that_is_none(stage: Any) -> None:
    """An unknown stage is refused, with the names of those there are."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [same])])
        with pytest.raises(ValueError, match=r"not found.*'A', 'B'"):
            await pipeline.feed([1], target_stage=stage)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


def test_target_stage() -> None:
    """Items fed to a later stage begin there."""

    async def main() -> None:
        calls = Calls()
        pipeline = Pipeline([Stage("A", 1, [calls]), Stage("B", 1, [same])])
        await pipeline.feed([1], target_stage="B")
        await pipeline.feed([2])
        await pipeline.join()
        assert [call.value for call in calls.made] == [2]
        assert pipeline.results.values() == [1, 2]

    virtual(main)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt()], ids=repr)
def test_source_that_ends_the_program(error: BaseException, is_async: bool, tracked: bool) -> None:
    """It comes out of `run`, and not of the event loop; what was taken in has an outcome."""

    def source() -> Iterator[int]:
        yield from range(5)
        raise error

    async def later() -> AsyncIterator[int]:
        for item in source():
            yield item

    async def main() -> None:
        tracker = StatusTracker(on_status_change=lambda event: None) if tracked else None
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        with pytest.raises(type(error)):
            await pipeline.run(later() if is_async else source())
        assert_balanced(pipeline.get_stats())
        assert pipeline.get_stats().items_in_flight == 0

    virtual(main)
