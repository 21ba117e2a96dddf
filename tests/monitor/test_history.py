"""The history of a run, as a tracker is asked for it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from antflow import Drop, Pipeline, RetryAfter, Stage, StatusEvent, StatusTracker
from antflow.testing import FailTimes, run_virtual
from tests.monitor.test_tracker import Notes
from tests.support import odd_only, same

pytestmark = pytest.mark.contract


def follow(tracker: StatusTracker, items: Any, *stages: Stage) -> Any:
    """Run items through stages with a tracker, in virtual time."""
    return run_virtual(lambda: Pipeline([*stages], status_tracker=tracker).run(items))


def test_get_status_is_the_latest_event() -> None:
    """``get_status`` gives an item's latest event, and `None` for an unknown id."""
    tracker = StatusTracker()
    follow(tracker, [{"id": "a", "value": 1}], Stage("A", 1, [same]), Stage("B", 1, [same]))
    status = tracker.get_status("a")
    assert status is not None
    assert (status.item_id, status.stage, status.status) == ("a", "B", "completed")
    assert tracker.get_status("b") is None


def test_get_by_status_gives_events() -> None:
    """``get_by_status`` gives the latest events of the items that have the status now."""
    tracker = StatusTracker()
    follow(tracker, range(5), Stage("A", 1, [odd_only], task_attempts=1))
    assert sorted(event.item_id for event in tracker.get_by_status("failed")) == [0, 2, 4]
    assert tracker.get_by_status("queued") == []


def test_get_stats_has_all_six_statuses() -> None:
    """``get_stats`` counts the items by status, zeros included."""
    tracker = StatusTracker()
    follow(tracker, range(5), Stage("A", 1, [odd_only], task_attempts=1))
    assert tracker.get_stats() == {
        "queued": 0,
        "in_progress": 0,
        "completed": 2,
        "failed": 3,
        "retrying": 0,
        "skipped": 0,
    }


def test_get_history_is_in_order() -> None:
    """``get_history`` gives the events, oldest first, and an empty list for an unknown id."""
    notes = Notes()
    tracker = notes.tracker()
    follow(tracker, [1], Stage("A", 1, [same]))
    history = tracker.get_history(0)
    assert [event.status for event in history] == ["queued", "in_progress", "completed"]
    assert tracker.get_history("nobody") == []


def test_get_tracked_ids() -> None:
    """``get_tracked_ids`` has every id seen, in order."""
    tracker = StatusTracker()
    follow(tracker, [{"id": "b", "value": 1}, 5, {"id": "a", "value": 1}], Stage("A", 1, [same]))
    assert tracker.get_tracked_ids() == ["b", 1, "a"]


def test_get_failed_items_and_summary() -> None:
    """``get_failed_items`` has the failures, ``get_error_summary`` sums them up."""
    tracker = StatusTracker()
    follow(tracker, range(5), Stage("A", 1, [odd_only], task_attempts=1))
    failed = tracker.get_failed_items()
    assert [(item.item_id, item.error) for item in failed] == [
        (0, "0 is even"),
        (2, "2 is even"),
        (4, "4 is even"),
    ]
    summary = tracker.get_error_summary()
    assert (summary.total_failed, summary.errors_by_type) == (3, {"ValueError": 3})
    assert (summary.errors_by_stage, len(summary.failed_items)) == ({"A": 3}, 3)


def test_history_is_a_fresh_list() -> None:
    """Who changes the list that ``get_history`` gave changes no history."""
    tracker = StatusTracker()
    follow(tracker, [1], Stage("A", 1, [same]))
    tracker.get_history(0).clear()
    assert len(tracker.get_history(0)) == 3


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_history_equals_what_was_delivered(retry: str) -> None:
    """The history of an item is what ``on_status_change`` was called with."""
    notes = Notes()
    tracker = notes.tracker()
    stages = [
        Stage(name, 2, [FailTimes(2)], retry, task_wait_seconds=0, stage_attempts=3)
        for name in "AB"
    ]
    follow(tracker, [7, 8], *stages)
    for item_id in (0, 1):
        assert tracker.get_history(item_id) == [
            event for event in notes.statuses if event.item_id == item_id
        ]


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("seed", range(5))
def test_history_equals_what_was_delivered_of_any_item(
    seed: int, retry: str, is_slow: bool
) -> None:
    """Skipped, dropped, expanded, held, tried again or failed: the history is what was told."""
    dice = random.Random(seed)
    heard: list[StatusEvent] = []

    async def on_status_change(event: StatusEvent) -> None:
        heard.append(event)
        if is_slow and dice.random() < 0.5:
            await asyncio.sleep(0.01)

    async def work(value: Any) -> Any:
        chance = dice.random()
        if chance < 0.1:
            raise RetryAfter(0.5)
        if chance < 0.3:
            raise ValueError(value)
        return Drop if chance < 0.4 else value

    async def split(value: Any) -> list[Any]:
        await work(value)
        return [value] * dice.randrange(4)

    def skip(value: Any) -> bool:
        return dice.random() < 0.2

    options: Any = {"retry": retry, "task_attempts": 3, "stage_attempts": 3, "skip_if": skip}
    stages = [
        Stage("A", 2, [work, work], **options),
        Stage("B", 2, [split], expand=True, **options),
        Stage("C", 2, [work], **options),
    ]
    own_ids: Any = {0: "a", 5: 3.5, 8: None}
    items = [{"id": own_ids.get(n), "value": n} for n in range(20)]
    tracker = StatusTracker(on_status_change)
    run_virtual(lambda: Pipeline(stages, status_tracker=tracker).run(items))
    assert tracker.callback_errors == 0
    told = {
        event.item_id: [each for each in heard if each.item_id == event.item_id] for event in heard
    }
    ids = tracker.get_tracked_ids()
    assert len(ids) == len(told)
    told = {item_id: told[item_id] for item_id in ids}
    # Items that are taken in together are told of one by one, as the callback lets them enter.
    taken_in = [events[0].timestamp for events in told.values()]
    assert taken_in == sorted(taken_in)
    assert {item_id: tracker.get_history(item_id) for item_id in told} == told
    for status in ("queued", "completed", "failed", "skipped"):
        now = [events[-1] for events in told.values() if events[-1].status == status]
        assert tracker.get_by_status(status) == now


def test_one_tracker_for_two_runs() -> None:
    """Items are kept by run: a query takes ``run``, totals are over all of them."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 1, [odd_only], task_attempts=1)], status_tracker=tracker)

    async def main() -> list[str]:
        good, bad = {"id": "a", "value": 1}, {"id": "a", "value": 2}
        return [(await pipeline.run([item])).run_id for item in (bad, good)]

    first, second = run_virtual(main)
    assert tracker.get_stats() | {"completed": 1, "failed": 1} == tracker.get_stats()
    statuses = [tracker.get_status("a", run=run) for run in (first, second, None)]
    assert [status.status for status in statuses if status] == ["failed", "completed", "completed"]
    assert {event.run_id for event in tracker.get_history("a", run=first)} == {first}
