"""Basic usage: one callback that prints every change."""

from __future__ import annotations

import pytest

from antflow import Pipeline, Stage, StatusTracker
from antflow.testing import run_virtual

from .document import run_block
from .watchers import lasting

pytestmark = pytest.mark.document

BLOCK = """\
from antflow import Pipeline, StatusTracker, StatusEvent

async def on_status_change(event: StatusEvent):
    print(f"Item {event.item_id}: {event.status} @ {event.stage}")

tracker = StatusTracker(on_status_change=on_status_change)

pipeline = Pipeline(stages=[...], status_tracker=tracker)
await pipeline.run(items)
"""


def test_block_prints_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    """The block prints a line for each change of each item, and the pipeline runs as ever."""
    stages = [Stage("Fetch", 1, [lasting(1)]), Stage("Save", 1, [lasting(3)])]
    names = run_virtual(run_block(BLOCK, stages=stages, items=["a", {"id": "b", "value": 7}]))
    assert names["pipeline"].results.values() == ["a", 7]
    lines = capsys.readouterr().out.splitlines()
    expected = [
        f"{status} @ {stage}"
        for stage in ("Fetch", "Save")
        for status in ("queued", "in_progress", "completed")
    ]
    assert [line for line in lines if "Item 0" in line] == [f"Item 0: {text}" for text in expected]
    assert [line for line in lines if "Item b" in line] == [f"Item b: {text}" for text in expected]
    assert len(lines) == 12


def test_block_prints_failures_and_detours(capsys: pytest.CaptureFixture[str]) -> None:
    """Retries, failures and skips are changes like all others."""

    async def always_late(value: int) -> int:
        raise TimeoutError

    stages = [
        Stage("Odd", 1, [lasting(1)], skip_if=lambda value: value % 2 == 0),
        Stage("Try", 1, [always_late], retry="per_stage", stage_attempts=2),
    ]
    run_virtual(run_block(BLOCK, stages=stages, items=[2]))
    assert capsys.readouterr().out.splitlines() == [
        "Item 0: queued @ Odd",
        "Item 0: skipped @ Odd",
        "Item 0: queued @ Try",
        "Item 0: in_progress @ Try",
        "Item 0: retrying @ Try",
        "Item 0: in_progress @ Try",
        "Item 0: failed @ Try",
    ]


def test_callback_may_be_set_later(capsys: pytest.CaptureFixture[str]) -> None:
    """A callback is a plain attribute of the tracker."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("Work", 1, [lasting(1)])], status_tracker=tracker)
    assert tracker.on_status_change is None
    heard: list[str] = []
    run_virtual(pipeline.run([1]))
    tracker.on_status_change = lambda event: heard.append(event.status)
    run_virtual(pipeline.run([2]))
    assert heard == ["queued", "in_progress", "completed"]
    assert capsys.readouterr().out == ""
