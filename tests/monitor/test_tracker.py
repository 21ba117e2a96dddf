"""`StatusTracker`: its callbacks, their order, and its queries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent
from antflow.testing import FailTimes, run_virtual
from tests.support import defaults, double, now, odd_only, positional, same, slow, values

pytestmark = pytest.mark.contract


CALLBACKS = [
    "on_status_change",
    "on_task_start",
    "on_task_complete",
    "on_task_retry",
    "on_task_fail",
]


def follow(tracker: StatusTracker, items: Any, *stages: Stage) -> Any:
    """Run items through stages with a tracker, in virtual time."""
    return run_virtual(lambda: Pipeline([*stages], status_tracker=tracker).run(items))


class Notes:
    """Callbacks that write down what they hear."""

    def __init__(self) -> None:
        self.statuses: list[StatusEvent] = []
        self.tasks: list[TaskEvent] = []

    async def status(self, event: StatusEvent) -> None:
        self.statuses.append(event)

    async def task(self, event: TaskEvent) -> None:
        self.tasks.append(event)

    def tracker(self) -> StatusTracker:
        """A tracker that calls them all, given by place."""
        return StatusTracker(self.status, self.task, self.task, self.task, self.task)

    def of(self, item_id: Any) -> list[tuple[str | None, str]]:
        """Stage and status of an item's events."""
        return [(e.stage, e.status) for e in self.statuses if e.item_id == item_id]


def test_tracker_keeps_its_parameters() -> None:
    """The five callbacks keep their order, and all are `None` by default."""
    assert positional(StatusTracker) == CALLBACKS
    assert [defaults(StatusTracker)[name] for name in CALLBACKS] == [None] * 5


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_are_plain_attributes(name: str) -> None:
    """A callback may be set later, and is read back."""
    heard: list[Any] = []

    async def note(event: Any) -> None:
        heard.append(event)

    tracker = StatusTracker()
    assert getattr(tracker, name) is None
    setattr(tracker, name, note)
    assert getattr(tracker, name) is note
    follow(tracker, [1, 2], Stage("A", 1, [odd_only], task_attempts=2, task_wait_seconds=0))
    assert heard


def test_order_of_statuses_in_two_stages() -> None:
    """In each stage an item is queued, in progress, completed; "completed" is per stage."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [same]), Stage("B", 1, [same]))
    assert notes.of(0) == [
        (stage, status) for stage in "AB" for status in ("queued", "in_progress", "completed")
    ]


def test_failed_ends_the_order() -> None:
    """An item that fails is queued, in progress, failed, and goes no further."""
    notes = Notes()
    stages = [Stage("A", 1, [odd_only], task_attempts=1), Stage("B", 1, [same])]
    follow(notes.tracker(), [2], *stages)
    assert notes.of(0) == [("A", "queued"), ("A", "in_progress"), ("A", "failed")]


def test_workers_of_events() -> None:
    """An event in a worker's hands names the worker; "queued" names none."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [same]))
    assert [event.worker for event in notes.statuses] == [None, "A-W0", "A-W0"]


def test_failed_carries_the_error() -> None:
    """A failed event has text and class of the error in its metadata."""
    notes = Notes()
    follow(notes.tracker(), [2], Stage("A", 1, [odd_only], task_attempts=1))
    metadata = notes.statuses[-1].metadata
    assert (metadata["error"], metadata["error_type"]) == ("2 is even", "ValueError")


def test_retrying_carries_error_and_next_attempt() -> None:
    """Under "per_stage" a retrying event has the error, the number of the next try and a flag."""
    notes = Notes()
    follow(notes.tracker(), [7, 8, 9], Stage("A", 1, [FailTimes(1)], retry="per_stage"))
    event = next(event for event in notes.statuses if event.status == "retrying")
    assert (event.metadata["attempt"], event.metadata["retry"]) == (2, True)
    assert (event.metadata["error_type"], "planned" in event.metadata["error"]) == (
        "ValueError",
        True,
    )


def test_per_task_retries_are_task_events_only() -> None:
    """Under "per_task" a retry is no status."""
    notes = Notes()
    follow(notes.tracker(), [7], Stage("A", 1, [FailTimes(2)], task_wait_seconds=0))
    assert [event.status for event in notes.statuses] == ["queued", "in_progress", "completed"]
    assert [(event.event_type, event.attempt) for event in notes.tasks] == [
        ("start", 1),
        ("retry", 1),
        ("start", 2),
        ("retry", 2),
        ("start", 3),
        ("complete", 3),
    ]


def test_task_fail_comes_after_the_last_try() -> None:
    """``on_task_fail`` is called once, after the last try, with the error."""
    notes = Notes()
    stage = Stage("A", 1, [odd_only], task_attempts=2, task_wait_seconds=0)
    follow(notes.tracker(), [2], stage)
    assert [event.event_type for event in notes.tasks] == ["start", "retry", "start", "fail"]
    assert str(notes.tasks[-1].error) == "2 is even"
    assert notes.tasks[-1].attempt == 2


def test_task_events_name_task_stage_and_worker() -> None:
    """A task event has item, stage, name of the task and worker."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [double, same]))
    assert [(e.item_id, e.stage, e.task_name, e.worker) for e in notes.tasks] == [
        (0, "A", name, "A-W0") for name in ("double", "double", "same", "same")
    ]


def test_task_complete_has_a_duration() -> None:
    """A completed task has a duration in seconds, one that starts has none."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [slow]))
    start, complete = notes.tasks
    assert start.duration is None
    assert isinstance(complete.duration, float)


def test_skipped_items_are_queued_then_skipped() -> None:
    """An item that passes a stage by is queued, then skipped there."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [same], skip_if=lambda value: True))
    assert notes.of(0) == [("A", "queued"), ("A", "skipped")]


def test_callback_may_query_the_tracker() -> None:
    """A callback may ask the tracker it belongs to."""
    seen: list[Any] = []

    async def ask(event: StatusEvent) -> None:
        status = tracker.get_status(event.item_id)
        seen.append(status.status if status else None)

    tracker = StatusTracker(on_status_change=ask)
    follow(tracker, [1], Stage("A", 1, [same]))
    assert seen == ["queued", "in_progress", "completed"]


def test_timestamps_are_unix_seconds_in_order() -> None:
    """Timestamps are Unix seconds and never go back for one item."""
    tracker = StatusTracker()
    follow(tracker, [1], Stage("A", 1, [same]), Stage("B", 1, [same]))
    stamps = [event.timestamp for event in tracker.get_history(0)]
    assert stamps == sorted(stamps)
    assert stamps[0] > 1_500_000_000


def test_script_with_a_tracker() -> None:
    """A script as users have it: log all events, count retries, look at failures afterwards."""
    log: list[str] = []
    retries = 0

    async def on_status(event: StatusEvent) -> None:
        log.append(f"{event.item_id} {event.status} @ {event.stage}")
        if event.status == "failed":
            log.append(f"error: {event.metadata.get('error', 'unknown')}")

    async def on_retry(event: TaskEvent) -> None:
        nonlocal retries
        retries += 1

    tracker = StatusTracker(on_status_change=on_status, on_task_retry=on_retry)
    pipeline = Pipeline(
        stages=[Stage(name="Check", workers=2, tasks=[odd_only], task_attempts=3)],
        status_tracker=tracker,
    )
    run_virtual(lambda: pipeline.run([{"id": f"n{n}", "value": n} for n in range(1, 5)]))
    assert log.count("n1 completed @ Check") == log.count("n4 failed @ Check") == 1
    assert "error: 4 is even" in log
    assert retries == 4
    assert {item.item_id for item in tracker.get_failed_items()} == {"n2", "n4"}
    assert [event.status for event in tracker.get_history("n3")][-1] == "completed"


# New since 0.10.0


def test_callback_timeout_comes_by_keyword() -> None:
    """``callback_timeout`` is 30 seconds, and given by keyword."""
    assert defaults(StatusTracker)["callback_timeout"] == 30.0


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("kind", ["plain", "lambda", "object", "awaitable"])
def test_callbacks_of_every_kind(name: str, kind: str) -> None:
    """A callback is sync or async, function, lambda or object, and changes no outcome."""
    heard: list[Any] = []

    class Listener:
        async def __call__(self, event: Any) -> None:
            heard.append(event)

    async def note(event: Any) -> None:
        heard.append(event)

    kinds = {
        "plain": heard.append,
        "lambda": lambda event: heard.append(event),
        "object": Listener(),
        "awaitable": lambda event: note(event),
    }
    callbacks: dict[str, Any] = {name: kinds[kind]}
    stage = Stage("A", 1, [odd_only], task_attempts=2, task_wait_seconds=0)
    results = follow(StatusTracker(**callbacks), [1, 2, 3], stage)
    assert values(results) == [1, 3]
    assert results.summary.errors_by_type == {"ValueError": 1}
    assert heard


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_raise_change_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged once, counted, called again, and changes nothing."""
    calls = 0

    def fail(_: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("the callback is broken")

    callbacks: dict[str, Any] = {name: fail}
    tracker = StatusTracker(**callbacks)
    stage = Stage("A", 1, [odd_only], task_attempts=2, task_wait_seconds=0)
    results = follow(tracker, [1, 2, 4, 3], stage)
    assert (values(results), results.summary.errors_by_type) == ([1, 3], {"ValueError": 2})
    assert calls == tracker.callback_errors > 1
    assert sum(record.exc_info is not None for record in caplog.records) <= 1
    assert sum(name in record.getMessage() for record in caplog.records) == 1


def test_callback_that_hangs_is_cancelled() -> None:
    """An async callback that hangs ends after ``callback_timeout``, and is counted."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    tracker = StatusTracker(on_task_start=hang, callback_timeout=2.0)

    async def main() -> float:
        began = now()
        await Pipeline([Stage("A", 1, [same])], status_tracker=tracker).run([1])
        return now() - began

    assert run_virtual(main) == 2.0
    assert tracker.callback_errors == 1


@pytest.mark.parametrize("name", CALLBACKS)
def test_callback_that_cannot_be_called_is_refused_at_any_time(name: str) -> None:
    """What cannot be called is a `TypeError` at construction, and when set later."""
    wrong: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError, match=name):
        StatusTracker(**wrong)
    with pytest.raises(TypeError, match=name):
        setattr(StatusTracker(), name, 5)


def test_slow_callback_is_awaited_in_line() -> None:
    """A slow async callback slows its worker, and one item's events keep their order."""
    heard: list[str] = []

    async def note(event: StatusEvent) -> None:
        await asyncio.sleep(1)
        heard.append(event.status)

    tracker = StatusTracker(on_status_change=note)
    follow(tracker, [1], Stage("A", 1, [same]))
    assert heard == ["queued", "in_progress", "completed"]


def test_retrying_is_followed_by_in_progress() -> None:
    """Under "per_stage" every try is announced: retrying, in_progress, and completed at last."""
    tracker = StatusTracker()
    follow(tracker, [7], Stage("A", 1, [FailTimes(2)], retry="per_stage"))
    assert [event.status for event in tracker.get_history(0)] == [
        "queued",
        "in_progress",
        "retrying",
        "in_progress",
        "retrying",
        "in_progress",
        "completed",
    ]


def test_failed_carries_the_exception() -> None:
    """A failed event has the exception itself in its metadata."""
    tracker = StatusTracker()
    follow(tracker, [2], Stage("A", 1, [odd_only], task_attempts=1))
    status = tracker.get_status(0)
    assert status is not None
    assert isinstance(status.metadata["exception"], ValueError)


def test_unknown_status_is_refused() -> None:
    """Asking for a status that is none is a `ValueError`, not an empty answer."""
    wrong: Any = "faild"
    with pytest.raises(ValueError, match="faild"):
        StatusTracker().get_by_status(wrong)


def test_duration_is_how_long_the_try_took() -> None:
    """The duration of a try is its seconds on the loop's clock."""
    notes = Notes()
    follow(notes.tracker(), [1], Stage("A", 1, [slow]))
    assert notes.tasks[-1].duration == 1.0
