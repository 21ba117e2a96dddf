"""Task-level events: each try of each task within a stage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusTracker, TaskEvent
from antflow.testing import FailTimes, run_virtual

from .document import run_block
from .watchers import lasting, now

pytestmark = pytest.mark.document

BLOCK = """\
async def on_task_start(event):
    print(f"Task '{event.task_name}' started on {event.worker}")

async def on_task_complete(event):
    duration = event.duration
    print(f"Task '{event.task_name}' completed in {duration:.2f}s")

async def on_task_retry(event):
    print(f"Task '{event.task_name}' retrying (attempt {event.attempt})")

async def on_task_fail(event):
    print(f"Task '{event.task_name}' failed: {event.error}")

tracker = StatusTracker(
    on_task_start=on_task_start,
    on_task_complete=on_task_complete,
    on_task_retry=on_task_retry,
    on_task_fail=on_task_fail,
)
"""


async def parse(value: str) -> str:
    await asyncio.sleep(1.5)
    return value


async def store(value: str) -> str:
    await asyncio.sleep(0.25)
    raise OSError(f"no room for {value}")


def block_tracker() -> StatusTracker:
    tracker = run_virtual(run_block(BLOCK, StatusTracker=StatusTracker))["tracker"]
    assert isinstance(tracker, StatusTracker)
    return tracker


def task_events(*stages: Stage, items: Any = ("x",)) -> list[TaskEvent]:
    heard: list[TaskEvent] = []
    tracker = StatusTracker(None, heard.append, heard.append, heard.append, heard.append)
    run_virtual(Pipeline(list(stages), status_tracker=tracker).run(items))
    return heard


def test_block_prints_each_try(capsys: pytest.CaptureFixture[str]) -> None:
    """The block prints when each task starts, how long it took, each retry, and the failure."""
    stage = Stage("Work", 1, [parse, store], task_attempts=3, task_wait_seconds=10)
    run_virtual(Pipeline([stage], status_tracker=block_tracker()).run(["x"]))
    assert capsys.readouterr().out.splitlines() == [
        "Task 'parse' started on Work-W0",
        "Task 'parse' completed in 1.50s",
        "Task 'store' started on Work-W0",
        "Task 'store' retrying (attempt 1)",
        "Task 'store' started on Work-W0",
        "Task 'store' retrying (attempt 2)",
        "Task 'store' started on Work-W0",
        "Task 'store' failed: no room for x",
    ]


def test_block_where_the_stage_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a whole stage is tried again, its first task starts again too."""
    stage = Stage("Work", 1, [parse, store], retry="per_stage", stage_attempts=2)
    run_virtual(Pipeline([stage], status_tracker=block_tracker()).run(["x"]))
    assert capsys.readouterr().out.splitlines() == [
        "Task 'parse' started on Work-W0",
        "Task 'parse' completed in 1.50s",
        "Task 'store' started on Work-W0",
        "Task 'store' retrying (attempt 1)",
        "Task 'parse' started on Work-W0",
        "Task 'parse' completed in 1.50s",
        "Task 'store' started on Work-W0",
        "Task 'store' failed: no room for x",
    ]


def test_event_of_a_start() -> None:
    """The start of a try says item, stage, task, worker and number; it has no duration or error."""
    event = task_events(Stage("Work", 1, [parse]), items=[{"id": "page", "value": "x"}])[0]
    assert type(event) is TaskEvent
    assert (event.item_id, event.stage, event.task_name) == ("page", "Work", "parse")
    assert (event.worker, event.event_type, event.attempt) == ("Work-W0", "start", 1)
    assert event.duration is None
    assert event.error is None
    assert event.run_id


def test_event_of_an_end() -> None:
    """The end of a try says how long this one took, and comes that much after its start."""
    events = task_events(Stage("Work", 1, [parse, store], task_attempts=2, task_wait_seconds=7))
    assert [(event.event_type, event.attempt) for event in events] == [
        ("start", 1),
        ("complete", 1),
        ("start", 1),
        ("retry", 1),
        ("start", 2),
        ("fail", 2),
    ]
    assert [event.duration for event in events[1::2]] == pytest.approx([1.5, 0.25, 0.25])
    took = [
        end.timestamp - start.timestamp
        for start, end in zip(events[::2], events[1::2], strict=True)
    ]
    assert took == pytest.approx([1.5, 0.25, 0.25], abs=1e-5)
    assert events[4].timestamp - events[3].timestamp == pytest.approx(7, abs=1e-5)


def test_event_of_an_error() -> None:
    """A try that failed brings the exception itself, and one that did not brings none."""
    events = task_events(Stage("Work", 1, [parse, store], task_attempts=2, task_wait_seconds=0))
    errors = [event.error for event in events if event.event_type in ("retry", "fail")]
    assert [repr(error) for error in errors] == ["OSError('no room for x')"] * 2
    assert errors[0] is not errors[1]
    assert all(event.error is None for event in events if event.event_type in ("start", "complete"))


def test_retry_is_told_before_each_further_try_and_failure_after_the_last() -> None:
    """Of n tries that fail, n - 1 are told as retries and the last as the failure."""
    for attempts in (1, 2, 5):
        stage = Stage("Work", 1, [FailTimes(9)], task_attempts=attempts, task_wait_seconds=1)
        ends = [event for event in task_events(stage) if event.event_type != "start"]
        assert [event.event_type for event in ends] == ["retry"] * (attempts - 1) + ["fail"]
        assert [event.attempt for event in ends] == list(range(1, attempts + 1))


def test_attempts_are_counted_per_task() -> None:
    """The number of the try begins at 1 with each task, however often the one before was tried."""
    events = task_events(
        Stage("Work", 1, [FailTimes(2), parse], task_attempts=3, task_wait_seconds=1)
    )
    completed = [event for event in events if event.event_type == "complete"]
    assert [(event.task_name, event.attempt) for event in completed] == [
        ("FailTimes", 3),
        ("parse", 1),
    ]


def test_events_are_of_the_worker_that_did_it() -> None:
    """Each try is told with the worker that ran it; several workers run at the same time."""
    events = task_events(Stage("Work", 3, [parse]), items=range(9))
    starts = [event for event in events if event.event_type == "start"]
    assert [event.worker for event in starts[:3]] == ["Work-W0", "Work-W1", "Work-W2"]
    assert starts[0].timestamp == starts[2].timestamp
    ends = {event.item_id: event.worker for event in events if event.event_type == "complete"}
    assert ends == {event.item_id: event.worker for event in starts}


def test_task_events_are_told_at_once_and_in_line() -> None:
    """A task begins after its start was told, and the next one after its end was."""
    order: list[tuple[str, float]] = []

    async def tell(event: TaskEvent) -> None:
        await asyncio.sleep(1)
        order.append((f"{event.event_type} {event.task_name}", now()))

    def task(name: str) -> Any:
        async def work(value: int) -> int:
            order.append((name, now()))
            return value

        work.__name__ = name
        return work

    tracker = StatusTracker(on_task_start=tell, on_task_complete=tell)
    stage = Stage("Work", 1, [task("first"), task("second")])
    run_virtual(Pipeline([stage], status_tracker=tracker).run([1]))
    assert order == [
        ("start first", 1),
        ("first", 1),
        ("complete first", 2),
        ("start second", 3),
        ("second", 3),
        ("complete second", 4),
    ]


def test_task_events_come_within_their_stage() -> None:
    """Tasks are told within the stage: between its "in_progress" and its "completed"."""
    heard: list[str] = []
    tracker = StatusTracker(
        on_status_change=lambda event: heard.append(event.status),
        on_task_start=lambda event: heard.append(event.task_name),
    )
    stage = Stage("Work", 1, [lasting(1, "one"), lasting(1, "two")])
    run_virtual(Pipeline([stage], status_tracker=tracker).run([1]))
    assert heard == ["queued", "in_progress", "one", "two", "completed"]
