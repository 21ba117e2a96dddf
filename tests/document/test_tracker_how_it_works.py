"""StatusTracker, how it works: events, callbacks at once, and what callbacks can do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import FailTimes, run_virtual

from .watchers import lasting, now

pytestmark = pytest.mark.document


def events_of(*stages: Stage, items: Any = (1,)) -> list[StatusEvent]:
    heard: list[StatusEvent] = []
    tracker = StatusTracker(on_status_change=heard.append)
    run_virtual(Pipeline(list(stages), status_tracker=tracker).run(items))
    return heard


async def broken(value: Any) -> Any:
    raise ValueError("broken")


def test_events_of_an_item_that_comes_through() -> None:
    """An item is queued, in progress and completed in every stage, one after the other."""
    heard = events_of(Stage("A", 1, [lasting(1)]), Stage("B", 1, [lasting(1)]))
    assert [(event.stage, event.status, event.worker) for event in heard] == [
        ("A", "queued", None),
        ("A", "in_progress", "A-W0"),
        ("A", "completed", "A-W0"),
        ("B", "queued", None),
        ("B", "in_progress", "B-W0"),
        ("B", "completed", "B-W0"),
    ]


def test_events_of_an_item_that_fails() -> None:
    """An item that fails for good is told as failed, with the error, and is queued nowhere else."""
    heard = events_of(Stage("A", 1, [broken], task_attempts=1), Stage("B", 1, [lasting(1)]))
    assert [(event.stage, event.status) for event in heard] == [
        ("A", "queued"),
        ("A", "in_progress"),
        ("A", "failed"),
    ]
    assert heard[-1].metadata["error"] == "broken"
    assert heard[-1].metadata["error_type"] == "ValueError"


def test_events_of_an_item_that_is_tried_again() -> None:
    """Where a whole stage is tried again, each try is told, and why the one before it failed."""
    heard = events_of(Stage("A", 1, [FailTimes(2)], retry="per_stage"))
    assert [event.status for event in heard] == [
        "queued",
        "in_progress",
        "retrying",
        "in_progress",
        "retrying",
        "in_progress",
        "completed",
    ]
    retries = [event.metadata for event in heard if event.status == "retrying"]
    assert [(retry["attempt"], retry["retry"], retry["error_type"]) for retry in retries] == [
        (2, True, "ValueError"),
        (3, True, "ValueError"),
    ]
    assert retries[0]["error"] == "planned failure 1 of 2 for 1"


def test_events_of_an_item_that_passes_by() -> None:
    """An item that a stage does not want is told as skipped, and goes on."""
    heard = events_of(
        Stage("A", 1, [broken], skip_if=lambda value: True), Stage("B", 1, [lasting(1)])
    )
    assert [(event.stage, event.status) for event in heard] == [
        ("A", "queued"),
        ("A", "skipped"),
        ("B", "queued"),
        ("B", "in_progress"),
        ("B", "completed"),
    ]


def test_event_says_what_where_and_when() -> None:
    """An event has an item, a stage, a status, a worker, its number, a time and the run."""
    heard = events_of(Stage("A", 2, [lasting(1)]), items=[{"id": "x"}, {"id": "y"}])
    done = [event for event in heard if event.status == "completed"]
    assert {(event.item_id, event.worker, event.worker_id) for event in done} == {
        ("x", "A-W0", 0),
        ("y", "A-W1", 1),
    }
    assert [event.worker_id for event in heard if event.status == "queued"] == [None, None]
    assert len({event.run_id for event in heard}) == 1
    assert heard[0].run_id
    assert all(type(event) is StatusEvent for event in heard)


def test_callback_is_called_before_the_next_thing_happens() -> None:
    """Each callback has returned before the item goes on, even one that takes its time."""
    order: list[str] = []

    async def on_status_change(event: StatusEvent) -> None:
        await asyncio.sleep(5)
        order.append(f"{event.stage} {event.status}")

    def task(name: str) -> Any:
        async def work(value: int) -> int:
            order.append(f"{name} works")
            return value

        return work

    async def main() -> None:
        stages = [Stage(name, 2, [task(name)]) for name in ("A", "B")]
        tracker = StatusTracker(on_status_change=on_status_change)
        async for _ in Pipeline(stages, status_tracker=tracker).stream([1]):
            order.append("result")

    run_virtual(main)
    assert order == [
        "A queued",
        "A in_progress",
        "A works",
        "A completed",
        "B queued",
        "B in_progress",
        "B works",
        "B completed",
        "result",
    ]


@pytest.mark.parametrize("seed", range(10))
def test_callback_is_called_at_the_moment_of_the_event(seed: int) -> None:
    """Whatever the schedule, no time passes between an event and its callback."""
    lags: list[float] = []
    began: list[float] = []

    def on_status_change(event: StatusEvent) -> None:
        if not began:
            began.append(event.timestamp)
        lags.append(now() - (event.timestamp - began[0]))

    stages = [
        Stage("A", 3, [lasting(0.7)]),
        Stage("B", 2, [FailTimes(1), lasting(0.9)], retry="per_stage"),
    ]
    tracker = StatusTracker(on_status_change=on_status_change)
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(20)), seed=seed)
    assert len(lags) == 20 * (3 + 5)
    assert lags == pytest.approx([0] * len(lags), abs=1e-5)


@pytest.mark.parametrize("slow", [False, True])
def test_tracker_asked_in_a_callback_knows_what_was_told(slow: bool) -> None:
    """Inside a callback, the item's history is what was told of it so far, this event included.

    At most it also knows that the item is queued for the next stage: that is the same moment.
    """
    told: list[StatusEvent] = []
    ahead: list[list[StatusEvent]] = []

    async def on_status_change(event: StatusEvent) -> None:
        told.append(event)
        if slow:
            await asyncio.sleep(1)
        history = tracker.get_history(event.item_id)
        known = [other for other in told if other.item_id == event.item_id]
        assert history[: len(known)] == known
        ahead.append(history[len(known) :])

    tracker = StatusTracker(on_status_change=on_status_change)
    stages = [Stage("A", 2, [lasting(1)]), Stage("B", 2, [broken], retry="per_stage")]
    run_virtual(Pipeline(stages, status_tracker=tracker).run([1, 2]))
    assert len(told) == 2 * (3 + 7)
    assert len(ahead) == len(told)
    assert tracker.callback_errors == 0
    for event, more in zip(told, ahead, strict=True):
        expected = [("queued", event.timestamp)] if event.status == "completed" else []
        assert [(other.status, other.timestamp) for other in more] in ([], expected)


@pytest.mark.parametrize("way", ["run", "stream", "feed"])
def test_callback_of_one_item_does_not_hold_up_others(way: str) -> None:
    """An item enters as soon as its own event was told, whatever the callbacks of others take."""
    began: list[tuple[Any, float]] = []

    async def work(value: int) -> int:
        began.append((value, now()))
        await asyncio.sleep(100)
        return value

    async def on_status_change(event: StatusEvent) -> None:
        await asyncio.sleep(1)

    tracker = StatusTracker(on_status_change=on_status_change)
    pipeline = Pipeline([Stage("Work", 4, [work])], status_tracker=tracker)

    async def main() -> None:
        if way == "run":
            await pipeline.run(range(4))
        elif way == "stream":
            async for _ in pipeline.stream(range(4)):
                pass
        else:
            async with pipeline.open() as run:
                await run.feed(range(4))

    run_virtual(main)
    assert began == [(value, 2 + value) for value in range(4)]


def test_callback_can_log(caplog: pytest.LogCaptureFixture) -> None:
    """A callback can write a log line per event."""
    log = logging.getLogger("shop")
    tracker = StatusTracker(
        on_status_change=lambda event: log.info("%s %s", event.item_id, event.status)
    )
    with caplog.at_level(logging.INFO, "shop"):
        run_virtual(Pipeline([Stage("A", 1, [lasting(1)])], status_tracker=tracker).run([5]))
    assert caplog.messages == ["0 queued", "0 in_progress", "0 completed"]


def test_callback_can_store() -> None:
    """A callback can keep the events, which do not change afterwards."""
    kept: list[tuple[StatusEvent, str]] = []
    tracker = StatusTracker(on_status_change=lambda event: kept.append((event, repr(event))))
    stage = Stage("A", 2, [FailTimes(1)], retry="per_stage")
    run_virtual(Pipeline([stage], status_tracker=tracker).run(range(5)))
    assert len(kept) == 5 * 5
    assert all(repr(event) == text for event, text in kept)


def test_callback_can_process() -> None:
    """A callback can feed the pipeline that calls it: each item that comes out brings another."""

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "completed" and event.item_id < 4:
            await pipeline.feed([f"after {event.item_id}"])

    tracker = StatusTracker(on_status_change=on_status_change)
    pipeline = Pipeline([Stage("A", 1, [lasting(1)])], status_tracker=tracker)

    async def main() -> list[Any]:
        await pipeline.start()
        await pipeline.feed(["first"])
        while tracker.get_stats()["completed"] < 5:
            await asyncio.sleep(1)
        await pipeline.join()
        return pipeline.results.values()

    assert run_virtual(main, max_time=100) == ["first", "after 0", "after 1", "after 2", "after 3"]


@pytest.mark.parametrize("is_async", [False, True])
def test_callback_with_a_fault_changes_nothing(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises is called again for the next event, and every item comes through."""
    heard: list[str] = []

    def on_status_change(event: StatusEvent) -> None:
        heard.append(event.status)
        raise RuntimeError("callback is broken")

    async def on_status_change_later(event: StatusEvent) -> None:
        on_status_change(event)

    tracker = StatusTracker(on_status_change_later if is_async else on_status_change)
    pipeline = Pipeline([Stage("A", 1, [lasting(1)])], status_tracker=tracker)
    assert run_virtual(pipeline.run([1, 2])).values() == [1, 2]
    assert len(heard) == tracker.callback_errors == 6
    assert len([record for record in caplog.records if "callback" in record.message]) == 1
