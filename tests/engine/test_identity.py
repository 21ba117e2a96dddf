"""Which ids count as taken, what becomes of one that is, and that an endless run forgets them."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import DuplicateItemError, Pipeline, RunResults, Stage, StatusTracker, current_item
from antflow.testing import Calls, Gate, run_virtual
from tests.engine.test_intake import run_items
from tests.support import lasting, same, virtual


def own(*ids: Any) -> list[Any]:
    """An item with each of these ids; ``...`` stands for one without."""
    return ["numbered" if each is ... else {"id": each, "value": each} for each in ids]


def one_at_a_time(**options: Any) -> Pipeline[Any, Any]:
    return Pipeline([Stage("Work", 1, [lasting(1)], queue_capacity=1)], **options)


async def streamed(items: Any, **options: Any) -> list[Any]:
    """Ids in a stream that has one or two items in flight at a time."""
    stream = one_at_a_time(**options).stream(items, buffer_size=0)
    return [result.id async for result in stream]


async def not_collected(items: Any, **options: Any) -> list[Any]:
    """Ids in a run that keeps no results."""
    seen: list[Any] = []

    async def note(_: Any) -> None:
        await asyncio.sleep(1)
        seen.append(current_item().id)

    stage = Stage("Work", 1, [note], queue_capacity=1)
    await Pipeline([stage], collect_results=False, **options).run(items)
    return seen


async def fed_one_by_one(items: Any, **options: Any) -> list[Any]:
    """Ids in a run that keeps no results, where each item has left before the next one comes."""
    seen: list[Any] = []
    stage = Stage("Work", 1, [lasting(1)], on_success=lambda item_id, *_: seen.append(item_id))
    async with Pipeline([stage], collect_results=False, **options).open() as run:
        for item in items:
            await run.feed([item])
            await asyncio.sleep(2)
    return seen


WAYS: list[Callable[..., Coroutine[Any, Any, list[Any]]]] = [
    streamed,
    not_collected,
    fed_one_by_one,
]


of_every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


FILLERS = ["x", "y", "z", "u", "v"]
"""Enough items for those before them to have left."""


@pytest.mark.fault
@of_every_way
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
@pytest.mark.parametrize("again", ["a", 2, 2.0], ids=repr)
def test_id_that_left_may_come_again(way: Any, again: Any, duplicates: Any) -> None:
    """Where no results are kept, an id is free again when its item has left."""
    items = own("f", "g", again, *FILLERS, again, "h", "i", "j", "k", "l", again)
    ids = run_virtual(lambda: way(items, duplicates=duplicates))
    assert [item_id for item_id in ids if item_id == again] == [again] * 3
    assert len(ids) == len(items)


@pytest.mark.fault
@of_every_way
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
@pytest.mark.parametrize("again", [2, 2.0, complex(2)], ids=repr)
def test_running_number_that_left_costs_no_item(way: Any, again: Any, duplicates: Any) -> None:
    """An id equal to an earlier running number is renamed where that is asked for, else free."""
    items = own("f", "g", ..., *FILLERS, again, "h", "i", "j", "k", "l")
    ids = run_virtual(lambda: way(items, duplicates=duplicates))
    assert len(ids) == len(items)
    assert ids[2:9:6] == ([2, f"{again}#2"] if duplicates == "number" else [2, again])


@pytest.mark.fault
@of_every_way
def test_number_that_was_no_id_is_free(way: Any) -> None:
    """The number of an item that brought an id is not taken by it."""
    ids = run_virtual(lambda: way(own(..., "a", ..., *FILLERS, 1, 4)))
    assert ids == [0, "a", 2, *FILLERS, 1, 4]


@pytest.mark.fault
@pytest.mark.parametrize("duplicates", ["error", "skip"])
def test_id_of_an_item_in_flight_is_taken(duplicates: Any) -> None:
    """Where no results are kept, an id that was brought is taken while its item is in flight."""

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stage = Stage("Work", 9, [gate], on_success=lambda item_id, *_: seen.append(item_id))
        pipeline = Pipeline([stage], collect_results=False, duplicates=duplicates)
        async with pipeline.open() as run:
            await run.feed(own(1))
            for equal in (1, 1.0, True):
                if duplicates == "error":
                    with pytest.raises(DuplicateItemError):
                        await run.feed(own(equal))
                else:
                    await run.feed(own(equal))
            await asyncio.sleep(1)
            gate.open()
        assert run.stats().items_skipped_duplicates == (3 if duplicates == "skip" else 0)
        return seen

    assert run_virtual(main) == [1]


@pytest.mark.fault
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("equal", [1, 1.0, True], ids=repr)
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
def test_id_that_is_a_running_number_is_no_duplicate(
    equal: Any, duplicates: Any, keeps: bool
) -> None:
    """An item that brings the number of another is taken in under a name, whatever the option."""

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stage = Stage("Work", 9, [gate], on_success=lambda item_id, *_: seen.append(item_id))
        pipeline = Pipeline([stage], collect_results=keeps, duplicates=duplicates)
        async with pipeline.open() as run:
            await run.feed(own(..., ..., equal))
            if duplicates == "error":
                with pytest.raises(DuplicateItemError):
                    await run.feed(own(1))
            elif duplicates == "skip":
                await run.feed(own(1))
            await asyncio.sleep(1)
            gate.open()
        assert run.stats().items_skipped_duplicates == (duplicates == "skip")
        return sorted(seen, key=str)

    assert run_virtual(main) == [0, 1, f"{equal}#2"]


@pytest.mark.fault
@pytest.mark.parametrize("duplicates", ["error", "skip"])
def test_id_that_was_renamed_may_come_again_when_its_item_has_left(duplicates: Any) -> None:
    """What is remembered is the id that was brought, for as long as its own item is in flight."""

    async def main() -> list[Any]:
        gates = {name: Gate() for name in ("numbered", 0, "again")}
        seen: list[Any] = []

        async def work(value: Any) -> None:
            await gates["again" if value == "again" else value](value)

        stage = Stage("Work", 9, [work], on_success=lambda item_id, *_: seen.append(item_id))
        pipeline = Pipeline([stage], collect_results=False, duplicates=duplicates)
        async with pipeline.open() as run:
            await run.feed(own(..., 0))
            gates["numbered"].open()  # its number is free, and the id of the other is not
            await asyncio.sleep(1)
            if duplicates == "error":
                with pytest.raises(DuplicateItemError):
                    await run.feed([{"id": 0, "value": "again"}])
            else:
                await run.feed([{"id": 0, "value": "again"}])
            gates[0].open()
            await asyncio.sleep(1)
            await run.feed([{"id": 0, "value": "again"}])
            gates["again"].open()
        return seen

    assert run_virtual(main) == [0, "0#2", 0]


@pytest.mark.fault
@pytest.mark.parametrize("duplicates", ["error", "skip"])
@pytest.mark.parametrize("keeps", [True, False])
def test_id_that_is_the_name_of_a_child_is_no_duplicate(duplicates: Any, keeps: bool) -> None:
    """The ids of children are the run's own: an item that brings such an id is taken in."""

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stages = [
            Stage("Split", 1, [list], expand=True),
            Stage("Work", 9, [gate], on_success=lambda item_id, *_: seen.append(item_id)),
        ]
        pipeline = Pipeline(stages, collect_results=keeps, duplicates=duplicates)
        async with pipeline.open() as run:
            await run.feed(["a"])
            await asyncio.sleep(1)
            await run.feed([{"id": "0/0", "value": "b"}], target_stage="Work")
            await run.feed([{"id": "1/0", "value": "c"}], target_stage="Work")
            await run.feed(["d"])
            await asyncio.sleep(1)
            gate.open()
        assert run.stats().items_skipped_duplicates == 0
        return seen

    assert run_virtual(main) == ["0/0", "0/0#2", "1/0", "3/0"]


@pytest.mark.fault
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("key", [None, "sku", lambda row: row.get("sku")])
def test_item_that_goes_on_is_a_duplicate_of_one_with_its_own_id_alone(
    keeps: bool, key: Any
) -> None:
    """Of items of an earlier run too, the ids that they brought count, and not their numbers."""

    async def main() -> None:
        failed = [True]
        seen: list[Any] = []

        async def work(value: Any) -> Any:
            if failed:
                raise LookupError
            await asyncio.sleep(9)
            return value

        field = key if isinstance(key, str) else "sku" if key else "id"
        stage = Stage(
            "Work", 9, [work], task_attempts=1, on_success=lambda item_id, *_: seen.append(item_id)
        )
        rows: list[Any] = [{}, {field: 7}, {field: "a"}]
        earlier = await Pipeline([stage]).run(rows, key=key)
        assert [result.id for result in earlier.failed] == [0, 7, "a"]
        failed.clear()
        pipeline = Pipeline([stage], collect_results=keeps, duplicates="skip")
        more = [{field: 0}, {field: 7}, {field: "a"}]
        results = await pipeline.run(more, key=key, retry_failed=earlier.failed)
        assert results.stats.items_skipped_duplicates == 2
        assert seen == [0, 7, "a", "0#2"]

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("keeps", [True, False])
def test_numbers_are_kept_apart_from_ids_that_were_brought(keeps: bool) -> None:
    """An item without an id never gets one that is taken, be it in flight or kept."""

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stage = Stage("Work", 99, [gate], on_success=lambda item_id, *_: seen.append(item_id))
        async with Pipeline([stage], collect_results=keeps).open() as run:
            await run.feed(own(1, ..., 2.0, ..., "1#2", ...))
            await asyncio.sleep(1)
            gate.open()
        return seen

    ids = run_virtual(main)
    assert len(set(ids)) == 6


NAMES = st.sampled_from(["a", "a#2", "a#3", "a#2#2", "0", "0#2", 0, 1, 2, 1.0, "1#2", ...])


@pytest.mark.fault
@given(st.lists(NAMES, max_size=12), st.booleans())
def test_ids_of_one_run_are_all_different(ids: list[Any], keeps: bool) -> None:
    """Whatever ids come, and whatever they are renamed, no two items in flight have one id."""
    logging.getLogger("antflow").disabled = True

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stage = Stage("Work", 99, [gate], on_success=lambda item_id, *_: seen.append(item_id))
        async with Pipeline([stage], collect_results=keeps).open() as run:
            await run.feed(own(*ids))
            await asyncio.sleep(1)
            gate.open()
        return seen

    try:
        seen = run_virtual(main)
    finally:
        logging.getLogger("antflow").disabled = False
    assert len(set(seen)) == len(ids)


@pytest.mark.fault
def test_name_that_an_id_was_given_is_taken() -> None:
    """A name that was made for a duplicate is kept apart from one that is brought later."""
    results = run_virtual(
        lambda: Pipeline([Stage("Work", 1, [same])]).run(own("a", "a", "a#2", "a", "a#3"))
    )
    assert [result.id for result in results] == ["a", "a#2", "a#2#2", "a#3", "a#3#2"]


@pytest.mark.fault
def test_name_is_not_made_where_it_was_brought() -> None:
    """A duplicate is given the first name that is free."""
    results = run_virtual(
        lambda: Pipeline([Stage("Work", 1, [same])]).run(own("a#2", "a", "a", "a"))
    )
    assert [result.id for result in results] == ["a#2", "a", "a#3", "a#4"]


class Name:
    """An id that is equal to others of its text, and that can be seen to go."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


PATTERNS: dict[str, Callable[[int], str]] = {
    "all different": str,
    "each twice": lambda number: str(number // 2),
    "all the same": lambda number: "a",
}


@pytest.mark.fault
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("keeps", ["stream", "run"])
def test_endless_run_forgets_ids(keeps: str, pattern: str) -> None:
    """Where no results are kept, no more ids are than of the items in flight, and a few."""
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    alive: list[int] = []

    class Watched(Name):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def items() -> Iterator[Any]:
        for number in count():
            name = Watched(PATTERNS[pattern](number))
            made.add(name)
            yield {"id": Twin(name)}
            if number % 5000 == 4999:
                gc.collect()
                alive.append(len(made))
            if number == 20_000:
                return

    class Twin(Name):
        """Equal to others of its text, and holds one that is not."""

        def __init__(self, watched: Watched) -> None:
            super().__init__(watched.text)
            self.watched = watched

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 4, [same])], collect_results=False)
        if keeps == "stream":
            async for _ in pipeline.stream(items()):
                pass
        else:
            await pipeline.run(items())

    run_virtual(main)
    assert len(alive) == 4
    assert max(alive) < 3000


def test_id_that_cannot_be_compared_stays_what_it_is() -> None:
    """Ids whose __eq__ raises cost neither the items nor the run: each is equal to itself alone."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError

    first, second = Odd(), Odd()

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        return [result.id for result in await pipeline.run([{"id": first}, {"id": second}])]

    ids = run_virtual(main)
    assert len(ids) == 2
    assert ids[0] is first
    assert ids[1] is second


@pytest.mark.fault
def test_id_that_cannot_be_hashed_goes_by_its_text() -> None:
    """An id that cannot be hashed goes by its text, with a tracker and without."""

    async def main() -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        results = await pipeline.run([1, {"id": ["x"], "value": 2}, {"id": {"k": 1}, "value": 3}])
        assert [result.id for result in results] == [0, "['x']", "{'k': 1}"]
        assert tracker.get_tracked_ids() == [0, "['x']", "{'k': 1}"]

    virtual(main)


# -- duplicates ------------------------------------------------------------------------------------


def test_duplicates_are_left_out_and_counted() -> None:
    """``duplicates="skip"``: the first of each id comes through, the others are a number."""

    async def main() -> RunResults[Any]:
        pipeline = Pipeline([Stage("A", 2, [Calls()])], duplicates="skip")
        return await pipeline.run([{"id": n % 3, "value": n} for n in range(10)])

    results = run_virtual(main)
    assert [(result.id, result.value) for result in results] == [(0, 0), (1, 1), (2, 2)]
    assert results.stats.items_skipped_duplicates == 7
    assert results.stats.items_accepted == 3


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
def test_duplicate_that_is_an_error_stops_the_intake(kind: str) -> None:
    """``duplicates="error"``: what came before finishes, nothing after it is taken in."""
    items = [{"id": id, "value": id} for id in ("a", "b", "a", "c")]

    def generate() -> Iterator[Any]:
        yield from items

    async def generate_async() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def main() -> Any:
        source: Any = {"list": items, "generator": generate()}.get(kind) or generate_async()
        with pytest.raises(DuplicateItemError, match="'a'") as caught:
            await Pipeline([Stage("A", 1, [Calls()])], duplicates="error").run(source)
        return caught.value.results

    assert run_virtual(main).values() == ["a", "b"]


def test_duplicate_that_was_fed_by_hand_concerns_that_call_alone() -> None:
    """`feed` raises for the call that brought the duplicate; the run goes on and takes others."""

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])], duplicates="error")
        async with pipeline.open() as run:
            await run.feed([{"id": "a"}])
            with pytest.raises(DuplicateItemError):
                await run.feed([{"id": "b"}, {"id": "a"}, {"id": "c"}])
            await run.feed([{"id": "d"}])
        return [result.id for result in run.results]

    assert run_virtual(main) == ["a", "b", "d"]


def test_many_items_with_one_id_are_named_without_trying_all_names() -> None:
    """The name for an id that comes again is found at once, not after all earlier ones."""
    asked = 0

    class Name:
        """An id that counts how often its text is asked for."""

        def __str__(self) -> str:
            nonlocal asked
            asked += 1
            return "x"

    name = Name()
    results = run_virtual(
        lambda: Pipeline([Stage("A", 1, [Calls()])]).run([{"id": name} for _ in range(200)])
    )
    assert [results[1].id, results[-1].id] == ["x#2", "x#200"]
    assert asked < 5 * 200


@pytest.mark.fault
def test_ids_that_come_twice_are_numbered(caplog: pytest.LogCaptureFixture) -> None:
    """Items with one id are kept apart: later ones are numbered, with one warning per run."""
    ids, _ = run_items([{"id": "a", "value": n} for n in range(4)])
    assert ids == ["a", "a#2", "a#3", "a#4"]
    assert len([record for record in caplog.records if "twice" in record.getMessage()]) == 1


@pytest.mark.fault
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


@pytest.mark.fault
def test_failure_of_an_id_is_not_hidden_by_a_success() -> None:
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


@pytest.mark.fault
@pytest.mark.parametrize("equal", [0, 0.0, False, Decimal(0)])
@pytest.mark.parametrize("own_first", [False, True])
def test_own_id_is_kept_apart_from_an_equal_number(equal: Any, own_first: bool) -> None:
    """An item that brings an id is kept apart from one that was numbered with its like."""
    own = {"id": equal, "value": "own"}
    items = [{"id": 1, "value": "own"}, "numbered"] if own_first else ["numbered", own]
    ids, _ = run_items(items)
    assert len(set(ids)) == 2


@pytest.mark.fault
def test_ids_of_two_pipelines_of_one_tracker_are_kept_apart() -> None:
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


@pytest.mark.fault
def test_dict_with_an_id_has_its_value_and_metadata() -> None:
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


@pytest.mark.parametrize("ids", [[0, 1, 3], [0.0, Decimal(2), True], ["0", [1], 10**30]])
def test_running_numbers_are_none_of_retried_ids(ids: list[Any]) -> None:
    """Items that go on from an earlier run keep their ids, and new items get other numbers."""

    async def work(value: Any) -> Any:
        if is_down:
            raise LookupError
        return value

    is_down = True

    async def main() -> list[Any]:
        nonlocal is_down
        pipeline = Pipeline([Stage("Work", 1, [work], task_attempts=1)])
        earlier = (await pipeline.run({"id": each} for each in ids)).failed
        is_down = False
        results = await pipeline.run(["new"] * 5, retry_failed=earlier)
        assert [result.id for result in results[: len(ids)]] == [each.id for each in earlier]
        return [result.id for result in results]

    found = virtual(main)
    assert all(type(each) is int for each in found[len(ids) :])
    assert len(set(found)) == len(ids) + 5


def test_running_number_is_none_that_was_brought() -> None:
    """Where an item brought a number, the items without ids get the next ones, and no name."""

    async def main() -> list[Any]:
        results = await Pipeline([Stage("Work", 1, [same])]).run(own(2, ..., 4, ..., ...))
        return [result.id for result in results]

    assert virtual(main) == [2, 1, 4, 3, 5]


def test_running_number_is_none_of_an_id_that_has_yet_to_enter() -> None:
    """An item that a task feeds early takes no number of an item of ``retry_failed``."""

    async def main() -> None:
        async def work(value: Any) -> Any:
            if value == 0 and not failed:
                await pipeline.feed(["new"])
            await asyncio.sleep(1)
            if not failed:
                return value
            raise LookupError

        stage = Stage("Work", 1, [work], queue_capacity=1, task_attempts=1)
        pipeline = Pipeline([stage])
        failed = [True]
        retried = (await pipeline.run(range(6))).failed
        failed.clear()
        results = await pipeline.run([], retry_failed=retried)
        assert sorted(result.id for result in results) == [0, 1, 2, 3, 4, 5, 6]

    virtual(main)


def test_children_of_retried_items_keep_their_ids() -> None:
    """The children of a new item have other names, so that no child is renamed."""

    async def main() -> list[Any]:
        def work(text: str) -> str:
            if is_down:
                raise LookupError
            return text

        is_down = True
        stages = [Stage("Split", 1, [list], expand=True), Stage("Work", 1, [work])]
        pipeline = Pipeline(stages)
        failed = (await pipeline.run(["ab"])).failed
        is_down = False
        return [result.id for result in await pipeline.run(["cd"], retry_failed=failed)]

    assert virtual(main) == ["0/0", "0/1", "1/0", "1/1"]


ROWS: list[Any] = [{"id": 1, "value": "a", "price": 2}, {"id": 2, "value": "b", "price": 3}]

WITH_KEY: dict[str, Callable[[Pipeline[Any, Any], Any, Any], Coroutine[Any, Any, Any]]] = {}


def way(call: Callable[[Pipeline[Any, Any], Any, Any], Coroutine[Any, Any, Any]]) -> Any:
    WITH_KEY[call.__name__] = call
    return call


@way
async def run_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    return (await pipeline.run(items, key=key)).outcomes


@way
async def streamed_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    return [result async for result in pipeline.stream(items, key=key)]


@way
async def built_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    builder = Pipeline.create().add("Work", same, workers=1)
    return (await builder.run(items, key=key)).outcomes


@way
async def opened_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    async with pipeline.open(key=key) as run:
        await run.feed(items)
    return run.results.outcomes


@way
async def fed_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    async with pipeline.open(key="unused") as run:
        await run.feed(items, key=key)
    return run.results.outcomes


@way
async def fed_to_the_pipeline_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    async with pipeline:
        await pipeline.feed(items, key=key)
    return pipeline.results.outcomes


@way
async def fed_async_with_key(pipeline: Pipeline[Any, Any], items: Any, key: Any) -> Any:
    async def each() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async with pipeline:
        await pipeline.feed_async(each(), key=key)
    return pipeline.results.outcomes


@pytest.mark.parametrize("name", WITH_KEY)
@pytest.mark.parametrize("key", ["id", lambda row: row["id"]])
def test_key_gives_the_id_and_the_row_is_passed_whole(name: str, key: Any) -> None:
    """With ``key``, a dict that has an id and a value loses none of its columns."""
    pipeline = Pipeline([Stage("Work", 1, [same])])
    outcomes = virtual(lambda: WITH_KEY[name](pipeline, ROWS, key))
    assert [result.id for result in outcomes] == [1, 2]
    assert [result.value for result in outcomes] == ROWS
    assert [result.metadata for result in outcomes] == [{}, {}]


def test_key_of_items_that_are_not_dicts() -> None:
    """A name stands for an attribute of other objects; an id that is None is a running number."""

    class Row:
        def __init__(self, sku: Any) -> None:
            self.sku = sku

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        results = await pipeline.run([Row("a"), {"sku": "b"}, Row(None), Row("a")], key="sku")
        return [result.id for result in results]

    assert virtual(main) == ["a", "b", 2, "a#2"]


def test_item_whose_key_cannot_be_read_fails() -> None:
    """It fails with an error that says why, and the others go on."""

    def odd(item: Any) -> Any:
        return 10 // item

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        results = await pipeline.run([{"sku": "a"}, {"id": 1}, 5], key="sku")
        assert [result.id for result in results] == ["a"]
        assert [result.id for result in results.failed] == [1, 2]
        text = "key='sku': the item has no such field: {'id': 1}"
        assert str(results.failed[0].error) == text
        results = await pipeline.run([2, 0], key=odd)
        assert [result.id for result in results] == [5]
        assert isinstance(results.failed[0].error, ZeroDivisionError)

    virtual(main)
