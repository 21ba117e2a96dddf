"""Event types: callbacks for the changes of status, and specific ones for tasks."""

from __future__ import annotations

from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import FailTimes, run_virtual

from .document import run_block
from .watchers import lasting

pytestmark = pytest.mark.document

BLOCK = """\
async def on_queued(event: StatusEvent):
    print(f"Queued: {event.item_id}")

async def on_start(event: StatusEvent):
    print(f"Started: {event.item_id} on worker {event.worker}")

async def on_completed(event: StatusEvent):
    print(f"Completed: {event.item_id}")

async def on_failed(event: StatusEvent):
    error = event.metadata.get("error", "Unknown")
    print(f"Failed: {event.item_id} - {error}")

tracker = StatusTracker(
    on_status_change=on_queued,  # Called for ALL status changes
)
# Or use specific callbacks:
# tracker = StatusTracker(
#     on_status_change=lambda e: print(f"Status: {e.status}"),
#     on_task_start=lambda e: print(f"Task started: {e.task_name}"),
#     on_task_complete=lambda e: print(f"Task done: {e.task_name}"),
#     on_task_retry=lambda e: print(f"Retrying: {e.task_name}"),
#     on_task_fail=lambda e: print(f"Task failed: {e.task_name}"),
# )
"""

FIRST_WAY, _, SPECIFIC = BLOCK.partition("# Or use specific callbacks:\n")
SECOND_WAY = FIRST_WAY + SPECIFIC.replace("# ", "", SPECIFIC.count("\n"))


async def charge(value: str) -> str:
    if value == "bad":
        raise PermissionError("card refused")
    return value


def names_of(block: str) -> dict[str, Any]:
    return run_virtual(run_block(block, StatusEvent=StatusEvent, StatusTracker=StatusTracker))


def printed(
    capsys: pytest.CaptureFixture[str], tracker: StatusTracker, *stages: Stage
) -> list[str]:
    items = [{"id": "A1", "value": "good"}, {"id": "B2", "value": "bad"}]
    run_virtual(Pipeline(list(stages), status_tracker=tracker).run(items))
    return capsys.readouterr().out.splitlines()


def test_block_calls_for_all_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """The one callback is called for every change of status, not only for its own."""
    tracker = names_of(BLOCK)["tracker"]
    lines = printed(capsys, tracker, Stage("Charge", 1, [charge], task_attempts=1))
    assert sorted(lines) == ["Queued: A1"] * 3 + ["Queued: B2"] * 3
    assert tracker.get_stats()["failed"] == 1


def test_block_functions_read_their_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Each function of the block prints what it says when it is called for its own status."""
    names = names_of(BLOCK)
    by_status = {
        "queued": names["on_queued"],
        "in_progress": names["on_start"],
        "completed": names["on_completed"],
        "failed": names["on_failed"],
    }
    tracker = StatusTracker(on_status_change=lambda event: by_status[event.status](event))
    lines = printed(capsys, tracker, Stage("Charge", 1, [charge], task_attempts=1))
    assert lines == [
        "Queued: A1",
        "Queued: B2",
        "Started: A1 on worker Charge-W0",
        "Completed: A1",
        "Started: B2 on worker Charge-W0",
        "Failed: B2 - card refused",
    ]


def test_block_with_the_specific_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    """The second way of the block, taken out of its comments, prints changes and tasks in order."""
    assert "    on_task_fail=lambda e" in SECOND_WAY
    tracker = names_of(SECOND_WAY)["tracker"]
    flaky = FailTimes(1)
    lines = printed(
        capsys, tracker, Stage("Charge", 1, [flaky, charge], task_attempts=2, task_wait_seconds=0)
    )
    tries = ["Task started: FailTimes", "Retrying: FailTimes"]
    tries += ["Task started: FailTimes", "Task done: FailTimes", "Task started: charge"]
    assert lines == [
        "Status: queued",
        "Status: queued",
        "Status: in_progress",
        *tries,
        "Task done: charge",
        "Status: completed",
        "Status: in_progress",
        *tries,
        "Retrying: charge",
        "Task started: charge",
        "Task failed: charge",
        "Status: failed",
    ]


def test_metadata_of_an_event_without_an_error() -> None:
    """Where there is no error, the metadata has none, and asking for it gives the default."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("Work", 1, [lasting(1)])], status_tracker=tracker)
    run_virtual(pipeline.run([1]))
    for event in tracker.get_history(0):
        assert event.metadata == {}
        assert event.metadata.get("error", "Unknown") == "Unknown"


@pytest.mark.parametrize(
    "name",
    ["on_status_change", "on_task_start", "on_task_complete", "on_task_retry", "on_task_fail"],
)
def test_callback_alone(name: str) -> None:
    """Each of the five callbacks may be the only one."""
    heard: list[Any] = []
    kwargs: dict[str, Any] = {name: heard.append}
    tracker = StatusTracker(**kwargs)
    stage = Stage("Charge", 1, [charge], task_attempts=3)
    run_virtual(Pipeline([stage], status_tracker=tracker).run(["good", "bad"]))
    kinds = [getattr(event, "status", None) or event.event_type for event in heard]
    expected = {
        "on_status_change": "queued queued in_progress completed in_progress failed",
        "on_task_start": "start start start start",
        "on_task_complete": "complete",
        "on_task_retry": "retry retry",
        "on_task_fail": "fail",
    }
    assert " ".join(kinds) == expected[name]


@pytest.mark.parametrize("wrong", [5, "print", [print]])
def test_refuses_callbacks_that_cannot_be_called(wrong: Any) -> None:
    """What cannot be called is refused when the tracker is made."""
    with pytest.raises(TypeError, match="on_status_change"):
        StatusTracker(on_status_change=wrong)
