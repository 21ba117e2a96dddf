"""Error summary: failures by type, by stage, and one by one."""

from __future__ import annotations

import asyncio
import time

import pytest

from antflow import ErrorSummary, FailedItem, Pipeline, Stage, StatusTracker
from antflow.testing import run_virtual

from .document import run_block

pytestmark = pytest.mark.document

BLOCK = """\
error_summary = tracker.get_error_summary()
print(f"Total failed: {error_summary.total_failed}")

# Group by error type
for error_type, count in error_summary.errors_by_type.items():
    print(f"  {error_type}: {count}")

# Group by stage
for stage, count in error_summary.errors_by_stage.items():
    print(f"  {stage}: {count}")

# Get individual failed items
for failed_item in error_summary.failed_items:
    print(f"Item {failed_item.item_id}: {failed_item.error}")
"""


async def fetch(value: int) -> int:
    await asyncio.sleep(1)
    if value % 10 == 1:
        raise TimeoutError(f"no answer for {value}")
    if value == 5:
        raise ConnectionError("refused")
    return value


async def save(value: int) -> int:
    await asyncio.sleep(1)
    if value == 8:
        raise TimeoutError("disk is slow")
    return value


def tracked(count: int = 20) -> tuple[StatusTracker, Pipeline]:
    tracker = StatusTracker()
    stages = [
        Stage("Fetch", 1, [fetch], task_attempts=2, task_wait_seconds=0),
        Stage("Save", 1, [save], retry="per_stage", stage_attempts=4),
    ]
    pipeline = Pipeline(stages, status_tracker=tracker)
    run_virtual(pipeline.run(range(count)))
    return tracker, pipeline


def test_block_prints_each_failed_item_and_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """The block prints the total, the counts by type and by stage, and each failed item."""
    tracker, _ = tracked()
    run_virtual(run_block(BLOCK, tracker=tracker))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Total failed: 4"
    assert sorted(lines[1:3]) == ["  ConnectionError: 1", "  TimeoutError: 3"]
    assert sorted(lines[3:5]) == ["  Fetch: 3", "  Save: 1"]
    assert len(lines) == 9
    assert set(lines[5:]) == {
        "Item 1: no answer for 1",
        "Item 5: refused",
        "Item 8: disk is slow",
        "Item 11: no answer for 11",
    }


def test_block_without_failures(capsys: pytest.CaptureFixture[str]) -> None:
    """If nothing failed, the block prints a zero and nothing more."""
    tracker, _ = tracked(1)
    run_virtual(run_block(BLOCK, tracker=tracker))
    assert capsys.readouterr().out == "Total failed: 0\n"
    assert str(tracker.get_error_summary()) == "No errors occurred"


def test_failed_item_says_everything() -> None:
    """A failed item has its error's text and type, its stage, the number of tries, and the time."""
    before = time.time()
    tracker, _ = tracked()
    summary = tracker.get_error_summary()
    assert type(summary) is ErrorSummary
    by_id = {item.item_id: item for item in summary.failed_items}
    assert all(type(item) is FailedItem for item in by_id.values())
    assert {
        item.item_id: (item.error, item.error_type, item.stage, item.attempts)
        for item in by_id.values()
    } == {
        1: ("no answer for 1", "TimeoutError", "Fetch", 2),
        5: ("refused", "ConnectionError", "Fetch", 2),
        8: ("disk is slow", "TimeoutError", "Save", 4),
        11: ("no answer for 11", "TimeoutError", "Fetch", 2),
    }
    times = [item.timestamp for item in summary.failed_items]
    assert times == sorted(times)
    assert times[0] >= before
    # One worker, so item 1 fails with its second try, 3 s after the start; item 0 took one.
    first = tracker.get_history(0)[0].timestamp
    assert by_id[1].timestamp - first == pytest.approx(3, abs=1e-5)


def test_summary_adds_up() -> None:
    """Types, stages and items each add up to the total, as in the pipeline's own summary."""
    tracker, pipeline = tracked(60)
    summary = tracker.get_error_summary()
    assert summary.total_failed == 8
    assert sum(summary.errors_by_type.values()) == 8
    assert sum(summary.errors_by_stage.values()) == 8
    assert len(summary.failed_items) == 8
    assert summary == pipeline.get_error_summary()
    assert summary == pipeline.results.summary


def test_summary_counts_items_and_not_tries() -> None:
    """An item that came through in the end is no failure, however often it was tried."""
    tries: list[int] = []

    async def flaky(value: int) -> int:
        tries.append(value)
        if len(tries) < 3:
            raise OSError("again")
        return value

    tracker = StatusTracker()
    stage = Stage("Flaky", 1, [flaky], retry="per_stage", stage_attempts=3)
    run_virtual(Pipeline([stage], status_tracker=tracker).run([1]))
    assert tries == [1, 1, 1]
    assert tracker.get_error_summary() == ErrorSummary(0, {}, {}, [])


def test_summary_is_a_copy() -> None:
    """What is done to a summary does not reach the tracker."""
    tracker, _ = tracked()
    summary = tracker.get_error_summary()
    summary.errors_by_type.clear()
    summary.failed_items.clear()
    assert tracker.get_error_summary().errors_by_type == {"TimeoutError": 3, "ConnectionError": 1}
    assert len(tracker.get_error_summary().failed_items) == 4


def test_summary_as_text() -> None:
    """As a string, a summary says the total and the counts."""
    text = str(tracked()[0].get_error_summary())
    for part in ("4 failed items", "TimeoutError: 3", "ConnectionError: 1", "Fetch: 3", "Save: 1"):
        assert part in text
