"""Results as rows of a table."""

from __future__ import annotations

from typing import Any

from antflow import Drop, Pipeline, RunResults, Stage
from antflow.testing import run_virtual


async def halves(number: int) -> list[int]:
    if number == 3:
        raise Drop
    return [number, -number]


async def check(number: int) -> str:
    if number == -2:
        raise LookupError("minus two")
    return f"<{number}>"


def run(**options: Any) -> RunResults[Any]:
    stages = [
        Stage("Split", 3, [halves], expand=True),
        Stage("Check", 2, [check], task_attempts=2, task_wait_seconds=0),
    ]
    return run_virtual(lambda: Pipeline(stages, **options).run([1, 2, 3], on_failures="ignore"))


def test_a_row_for_each_item() -> None:
    """All outcomes in input order; an item's children after it; one set of keys."""
    rows = run().to_records()
    assert [(row["sequence_id"], row["outcome"], row["stage"]) for row in rows] == [
        (0, "expanded", "Split"),
        (0, "completed", "Check"),
        (0, "completed", "Check"),
        (1, "expanded", "Split"),
        (1, "completed", "Check"),
        (1, "failed", "Check"),
        (2, "dropped", "Split"),
    ]
    assert [row["value"] for row in rows] == [None, "<1>", "<-1>", None, "<2>", None, None]
    assert len({tuple(row) for row in rows}) == 1
    failed = rows[5]
    assert (failed["error_type"], failed["error"]) == ("LookupError", "minus two")
    assert failed["location"].endswith(" in check")
    assert failed["attempts"] == 2
    assert rows[1] == {
        "id": rows[1]["id"],
        "outcome": "completed",
        "value": "<1>",
        "stage": "Check",
        "attempts": 1,
        "error_type": None,
        "error": None,
        "location": None,
        "sequence_id": 0,
    }


def test_no_rows_without_results() -> None:
    """With ``collect_results=False`` there are none."""
    assert run(collect_results=False).to_records() == []
