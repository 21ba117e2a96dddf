"""The length of the items is asked for where it is shown, and can do no harm."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, Stage, StatusTracker
from antflow.testing import Calls, VirtualLoop
from tests.support import lasting, same, virtual

pytestmark = pytest.mark.fault


class Query:
    """Items that count themselves at a price, like the rows of a database."""

    def __init__(self, length: Callable[[], Any] = lambda: 5) -> None:
        self.length = length
        self.asked = 0

    def __len__(self) -> Any:
        self.asked += 1
        return self.length()

    def __iter__(self) -> Iterator[int]:
        yield from range(5)


class Shown:
    total_items: int | None = None

    def on_start(self, pipeline: Any, total_items: int) -> None:
        self.total_items = total_items

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.snapshot = snapshot


def pipeline(**options: Any) -> Pipeline[Any, Any]:
    return Pipeline([Stage("Work", 2, [lasting(1)])], **options)


@pytest.mark.parametrize("way", ["run", "stream", "tracked", "retried", "fed"])
def test_length_is_not_asked_where_nothing_shows_it(way: str) -> None:
    """Without a display and a snapshot, the items are not asked how many there are."""
    items = Query()

    async def main() -> None:
        if way == "stream":
            assert len([result async for result in pipeline().stream(items)]) == 5
        elif way == "fed":
            async with pipeline().open() as run:
                await run.feed(items)
        elif way == "retried":
            failed = (await pipeline().run([9], item_timeout=0.5)).failed
            assert len(await pipeline().run(items, retry_failed=failed)) == 6
        else:
            tracker = StatusTracker(on_status_change=same) if way == "tracked" else None
            results = await pipeline(status_tracker=tracker).run(items)
            assert len(results) == 5
            results.raise_for_failures()

    virtual(main)
    assert items.asked == 0


@pytest.mark.parametrize("way", ["run", "stream"])
def test_length_is_asked_once_for_a_display(way: str) -> None:
    """A display is told the length, for which the items are asked once; not where it is given."""

    async def main(items: Query, total: int | None) -> Shown:
        shown = Shown()
        if way == "run":
            await pipeline().run(items, custom_dashboard=shown, total=total)
        else:
            async for _ in pipeline().stream(items, custom_dashboard=shown, total=total):
                pass
        return shown

    for total, expected, asked in [(None, 5, 1), (7, 7, 0)]:
        items = Query()
        shown = virtual(lambda items=items, total=total: main(items, total))  # type: ignore[misc]
        assert (shown.total_items, shown.snapshot.total_items) == (expected, expected)
        assert items.asked == asked


def test_length_counts_what_is_retried() -> None:
    """The items of an earlier run come on top."""

    async def main() -> None:
        failed = (await pipeline().run(range(3), item_timeout=0.5)).failed
        for items in (Query(), range(5)):
            shown = Shown()
            await pipeline().run(items, retry_failed=failed, custom_dashboard=shown)
            assert shown.total_items == 8

    virtual(main)


def raising(error: BaseException) -> Callable[[], Any]:
    def length() -> Any:
        raise error

    return length


LENGTHS: dict[str, Callable[[], Any]] = {
    "raises": raising(RuntimeError("no length")),
    "raises CancelledError": raising(asyncio.CancelledError()),
    "raises a group": raising(BaseExceptionGroup("", [asyncio.CancelledError()])),
    "negative": lambda: -1,
    "text": lambda: "5",
    "not whole": lambda: 5.0,
    "None": lambda: None,
    "huge": lambda: 10**30,
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_length_that_is_not_a_count_is_unknown(length: Callable[[], Any]) -> None:
    """A length that cannot be had, or that is silly, is the same as none."""

    async def main() -> None:
        shown = Shown()
        results = await pipeline().run(Query(length), custom_dashboard=shown)
        assert results.values() == list(range(5))
        assert (shown.total_items, shown.snapshot.total_items) == (0, None)

    virtual(main)


def test_length_that_takes_long_makes_no_item_late() -> None:
    """Counting that blocks the loop counts towards no time limit."""

    def count() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._now += 100
        return 5

    async def work(value: int) -> int:
        await asyncio.sleep(1)
        await asyncio.sleep(1)
        return value

    async def main() -> None:
        a_pipeline = Pipeline([Stage("Work", 5, [work], timeout=3, task_attempts=1)])
        running = asyncio.ensure_future(a_pipeline.run(Query(count), item_timeout=3))
        await asyncio.sleep(0.5)
        assert a_pipeline.get_dashboard_snapshot().total_items == 5
        assert (await running).failed == []

    virtual(main)


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, deque, lambda items: items])
def test_length_that_is_at_hand_is_always_known(make: Any) -> None:
    """Python's own collections have their length in every snapshot, during a run and after it."""

    async def main() -> list[int | None]:
        items = make(range(3))
        a_pipeline = pipeline()
        running = asyncio.ensure_future(a_pipeline.run(items))
        await asyncio.sleep(0.5)
        during = await asyncio.to_thread(a_pipeline.get_dashboard_snapshot)
        await running
        return [during.total_items, a_pipeline.get_dashboard_snapshot().total_items]

    assert virtual(main) == [3, 3]


def test_first_snapshot_asks_for_the_length() -> None:
    """A snapshot asks the items, but never in another thread than the run's own."""
    items = Query(lambda: 5 if threading.current_thread() is threading.main_thread() else 6)

    async def main() -> list[int | None]:
        a_pipeline = pipeline()
        running = asyncio.ensure_future(a_pipeline.run(items))
        await asyncio.sleep(0.5)
        snapshots = [
            await asyncio.to_thread(a_pipeline.get_dashboard_snapshot),
            a_pipeline.get_dashboard_snapshot(),
            await asyncio.to_thread(a_pipeline.get_dashboard_snapshot),
        ]
        await running
        snapshots.append(a_pipeline.get_dashboard_snapshot())
        return [snapshot.total_items for snapshot in snapshots]

    assert virtual(main) == [None, 5, 5, 5]
    assert items.asked == 1


def test_items_are_not_kept_for_their_length() -> None:
    """When a run is over, it no longer has the items."""

    async def main() -> None:
        items = Query()
        a_pipeline = Pipeline([Stage("Work", 2, [Calls()])])
        await a_pipeline.run(items)
        gone = weakref.ref(items)
        del items
        gc.collect()
        assert gone() is None
        assert a_pipeline.get_dashboard_snapshot().total_items is None

    virtual(main)


def test_length_that_is_known_only_later() -> None:
    """What the run is told to expect counts from then on, instead of what it knew."""
    seen: list[int | None] = []

    async def main() -> None:
        async with pipeline().open(total=7) as run:
            await run.feed(range(3))
            for total in (9, None, 3):
                seen.append(run.snapshot().total_items)
                run.expect(total)
            seen.append(run.snapshot().total_items)

    virtual(main)
    assert seen == [7, 9, None, 3]
