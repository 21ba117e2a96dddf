"""Querying the tracker: one item, all items of a status, the totals, and a whole history."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import Gate, run_virtual

from .document import run_block
from .watchers import lasting

pytestmark = pytest.mark.document

BLOCK = """\
# Get current status of an item
status = tracker.get_status(item_id=42)
print(f"Current status: {status.status}")

# Get all items in a specific status
failed_items = tracker.get_by_status("failed")
for item in failed_items:
    print(f"Failed item: {item.item_id}")

# Get aggregate statistics
stats = tracker.get_stats()
print(f"Completed: {stats['completed']}, Failed: {stats['failed']}")

# Get complete event history for an item
history = tracker.get_history(item_id=42)
for event in history:
    print(f"{event.timestamp}: {event.status} @ {event.stage}")
"""

STATUSES = ["queued", "in_progress", "completed", "failed", "retrying", "skipped"]


async def check(value: int) -> int:
    await asyncio.sleep(1)
    if value in (7, 13):
        raise LookupError(value)
    return value


def tracked(*callbacks: Any) -> StatusTracker:
    """A tracker that has followed fifty items through two stages; two of them failed."""
    tracker = StatusTracker(*callbacks)
    stages = [Stage("Check", 4, [check], task_attempts=1), Stage("Save", 2, [lasting(0.5)])]
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(50)))
    return tracker


def test_block_prints_what_the_tracker_knows(capsys: pytest.CaptureFixture[str]) -> None:
    """The block prints the status of item 42, both failed items, the totals, and six events."""
    names = run_virtual(run_block(BLOCK, tracker=tracked()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "Current status: completed",
        "Failed item: 7",
        "Failed item: 13",
        "Completed: 48, Failed: 2",
    ]
    matches = [re.fullmatch(r"(\d+\.\d+): (\w+) @ (\w+)", line) for line in lines[4:]]
    assert [match and match.groups()[1:] for match in matches] == [
        (status, stage)
        for stage in ("Check", "Save")
        for status in ("queued", "in_progress", "completed")
    ]
    times = [float(match[1]) for match in matches if match]
    assert times == sorted(times)
    assert times == [event.timestamp for event in names["history"]]
    assert times[2] - times[1] == pytest.approx(1, abs=1e-5)


def test_status_of_an_item() -> None:
    """The status of an item is its last event."""
    heard: list[StatusEvent] = []
    tracker = tracked(heard.append)
    for item_id in range(50):
        last = [event for event in heard if event.item_id == item_id][-1]
        assert tracker.get_status(item_id) == last
    failed = tracker.get_status(item_id=7)
    assert failed is not None
    assert (failed.item_id, failed.status, failed.stage) == (7, "failed", "Check")
    assert failed.metadata["error"] == "7"


def test_query_about_an_unknown_item() -> None:
    """Of an item that it never saw, a tracker has no status and no history."""
    tracker = tracked()
    assert tracker.get_status(item_id=50) is None
    assert tracker.get_history(item_id=50) == []


def test_query_without_any_callback() -> None:
    """A tracker that calls nobody back can be asked the same as one that does."""
    silent, loud = tracked(), tracked(lambda event: None)
    assert silent.get_stats() == loud.get_stats()
    for item_id in range(50):
        assert [
            (event.stage, event.status, event.metadata.get("error"))
            for event in silent.get_history(item_id)
        ] == [
            (event.stage, event.status, event.metadata.get("error"))
            for event in loud.get_history(item_id)
        ]


def test_by_status_while_the_run_goes_on() -> None:
    """Each item is found under the one status that it has at this moment."""
    gate = Gate()
    tracker = StatusTracker(on_status_change=lambda event: None)

    async def fail_or_hold(value: str) -> str:
        if value in ("failed", "retrying"):
            raise ValueError(value)
        return await gate(value) if value == "in_progress" else value

    stages = [
        Stage(
            "First",
            1,
            [fail_or_hold],
            retry="per_stage",
            stage_attempts=2,
            stage_wait_seconds=60,
            skip_if=lambda value: value == "skipped",
        ),
    ]
    pipeline = Pipeline(stages, status_tracker=tracker)

    async def main() -> dict[str, list[Any]]:
        await pipeline.start()
        await pipeline.feed([{"id": "f", "value": "failed"}])
        await asyncio.sleep(61)
        names = ["completed", "skipped", "retrying", "in_progress", "queued"]
        await pipeline.feed([{"id": name[0], "value": name} for name in names])
        await asyncio.sleep(1)
        found = {
            status: [event.item_id for event in tracker.get_by_status(status)]  # type: ignore[arg-type]
            for status in STATUSES
        }
        assert tracker.get_stats() == {status: len(ids) for status, ids in found.items()}
        gate.open()
        await pipeline.join()
        return found

    assert run_virtual(main) == {
        "queued": ["q"],
        "in_progress": ["i"],
        "completed": ["c"],
        "failed": ["f"],
        "retrying": ["r"],
        "skipped": ["s"],
    }
    assert tracker.get_stats() == dict.fromkeys(STATUSES, 0) | {
        "completed": 3,
        "skipped": 1,
        "failed": 2,
    }


def test_by_status_of_a_misspelt_word_is_an_error() -> None:
    """A misspelt status is an error, not an empty answer."""
    wrong: Any = "faild"
    with pytest.raises(ValueError, match="'failed'"):
        tracked().get_by_status(wrong)


def test_stats_count_all_items_at_any_time() -> None:
    """The totals have all six statuses, and every accepted item is in exactly one of them."""
    tracker = StatusTracker()
    stages = [Stage("Check", 4, [check], task_attempts=1), Stage("Save", 2, [lasting(0.7)])]
    pipeline = Pipeline(stages, status_tracker=tracker)
    assert tracker.get_stats() == dict.fromkeys(STATUSES, 0)

    async def main() -> int:
        running = asyncio.create_task(pipeline.run(range(50)))
        looks = 0
        while not running.done():
            await asyncio.sleep(0.3)
            stats = tracker.get_stats()
            assert list(stats) == STATUSES
            assert sum(stats.values()) == pipeline.get_stats().items_accepted
            looks += 1
        return looks

    assert run_virtual(main) > 30
    assert tracker.get_stats() == dict.fromkeys(STATUSES, 0) | {"completed": 48, "failed": 2}


def test_history_while_the_item_is_on_its_way() -> None:
    """The history of an item in progress ends with what it is doing now."""
    tracker = StatusTracker()
    stages = [Stage("A", 1, [lasting(10)]), Stage("B", 1, [lasting(10)])]
    pipeline = Pipeline(stages, status_tracker=tracker)

    async def main() -> list[list[str]]:
        running = asyncio.create_task(pipeline.run([1]))
        histories = []
        for _ in range(3):
            await asyncio.sleep(7.5)
            history = tracker.get_history(0)
            histories.append([f"{event.status} @ {event.stage}" for event in history])
        await running
        return histories

    told = ["queued @ A", "in_progress @ A", "completed @ A"]
    told += ["queued @ B", "in_progress @ B", "completed @ B"]
    assert run_virtual(main) == [told[:2], told[:5], told]


def test_history_is_a_list_of_its_own() -> None:
    """What is done to a history that was handed out does not reach the tracker."""
    tracker = tracked()
    tracker.get_history(42).clear()
    tracker.get_history(7)[-1].metadata.clear()
    assert len(tracker.get_history(42)) == 6
    assert tracker.get_history(7)[-1].metadata["error"] == "7"


def test_ids_and_failed_items() -> None:
    """A tracker lists all the items it saw, and those that failed."""
    tracker = tracked()
    assert tracker.get_tracked_ids() == list(range(50))
    assert [item.item_id for item in tracker.get_failed_items()] == [7, 13]
