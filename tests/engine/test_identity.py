"""Which ids count as taken, what becomes of one that is, and that an endless run forgets them."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import DuplicateItemError, Pipeline, Stage, current_item
from antflow.testing import Gate, run_virtual
from tests.support import lasting, same

pytestmark = pytest.mark.fault


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


@of_every_way
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
@pytest.mark.parametrize("again", ["a", 2, 2.0], ids=repr)
def test_id_that_left_may_come_again(way: Any, again: Any, duplicates: Any) -> None:
    """Where no results are kept, an id is free again when its item has left."""
    items = own("f", "g", again, *FILLERS, again, "h", "i", "j", "k", "l", again)
    ids = run_virtual(lambda: way(items, duplicates=duplicates))
    assert [item_id for item_id in ids if item_id == again] == [again] * 3
    assert len(ids) == len(items)


@of_every_way
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
@pytest.mark.parametrize("again", [2, 2.0, complex(2)], ids=repr)
def test_running_number_that_left_costs_no_item(way: Any, again: Any, duplicates: Any) -> None:
    """An id equal to an earlier running number is renamed where that is asked for, else free."""
    items = own("f", "g", ..., *FILLERS, again, "h", "i", "j", "k", "l")
    ids = run_virtual(lambda: way(items, duplicates=duplicates))
    assert len(ids) == len(items)
    assert ids[2:9:6] == ([2, f"{again}#2"] if duplicates == "number" else [2, again])


@of_every_way
def test_number_that_was_no_id_is_free(way: Any) -> None:
    """The number of an item that brought an id is not taken by it."""
    ids = run_virtual(lambda: way(own(..., "a", ..., *FILLERS, 1, 4)))
    assert ids == [0, "a", 2, *FILLERS, 1, 4]


@pytest.mark.parametrize("equal", [1, 1.0, True], ids=repr)
@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
def test_id_of_an_item_in_flight_is_taken(equal: Any, duplicates: Any) -> None:
    """Where no results are kept, an id in flight is taken, brought or numbered."""

    async def main() -> list[Any]:
        gate = Gate()
        seen: list[Any] = []
        stage = Stage("Work", 9, [gate], on_success=lambda item_id, *_: seen.append(item_id))
        pipeline = Pipeline([stage], collect_results=False, duplicates=duplicates)
        async with pipeline.open() as run:
            await run.feed(own(..., ...))
            if duplicates == "error":
                with pytest.raises(DuplicateItemError):
                    await run.feed(own(equal))
            else:
                await run.feed(own(equal))
            await asyncio.sleep(1)
            gate.open()
        assert run.stats().items_skipped_duplicates == (duplicates == "skip")
        return sorted(seen, key=str)

    more = [f"{equal}#2"] if duplicates == "number" else []
    assert run_virtual(main) == [0, 1, *more]


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


def test_name_that_an_id_was_given_is_taken() -> None:
    """A name that was made for a duplicate is kept apart from one that is brought later."""
    results = run_virtual(
        lambda: Pipeline([Stage("Work", 1, [same])]).run(own("a", "a", "a#2", "a", "a#3"))
    )
    assert [result.id for result in results] == ["a", "a#2", "a#2#2", "a#3", "a#3#2"]


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
