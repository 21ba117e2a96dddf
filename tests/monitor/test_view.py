"""What is worth showing, read from snapshots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from antflow import (
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    FailureGroup,
    PipelineStats,
    StageStats,
)
from antflow._monitor.view import Viewer, error_rows


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("starved", "waits for items", "waits for items"),
        ("blocked", "waits for Save", "waits for the consumer"),
        ("limited", "held by its limit", "held by its limit"),
        ("retry_waiting", "waits for retries", "waits for retries"),
        ("stalled", "loop blocked", "loop blocked"),
        ("busy", "", ""),
    ],
)
def test_advice_says_what_workers_mostly_wait_for(kind: str, first: str, last: str) -> None:
    """Three tenths of their time are worth a word, less are not."""
    for seconds, expected in ((30.0, (first, last)), (29.0, ("", ""))):
        stats = {
            name: StageStats(
                name,
                0,
                0,
                0,
                0,
                workers=1,
                **{"busy_seconds": 100.0 - seconds} | {f"{kind}_seconds": seconds},  # type: ignore[arg-type]
            )
            for name in ("Fetch", "Save")
        }
        snapshot = DashboardSnapshot(
            {}, {}, PipelineStats(0, 0, 0, {}, stats), ErrorSummary(0, {}, {}, []), 0.0
        )
        assert tuple(stage.hint for stage in Viewer().see(snapshot).stages) == expected


def test_errors_by_type_newest_first() -> None:
    """Without groups, types come in the order they were last seen; those not kept come last."""
    failures = [
        FailedItem(n, f"text {n}", kind, "Fetch", 1, float(n))
        for n, kind in enumerate(["A", "B", "A", "C"])
    ]
    summary = ErrorSummary(9, {"Old": 5, "A": 2, "B": 1, "C": 1}, {}, failures)
    rows = error_rows(summary)
    assert [(row.error_type, row.count) for row in rows] == [
        ("C", 1),
        ("A", 2),
        ("B", 1),
        ("Old", 5),
    ]
    assert [row.shown and row.shown.error for row in rows] == ["text 3", "text 2", "text 1", None]


def test_errors_by_place_newest_first() -> None:
    """Each line of code has a row, with its newest failure that is kept, else its first."""
    places = [("A", "app.py:1 in f"), ("A", "app.py:2 in f"), ("B", "app.py:2 in f")]
    firsts = [
        FailedItem(n, "first", kind, "Fetch", 1, float(n), place)
        for n, (kind, place) in enumerate(places)
    ]
    newest = replace(firsts[1], error="newest")
    groups = [FailureGroup(count, first) for count, first in zip((5, 2, 1), firsts, strict=True)]
    summary = ErrorSummary(9, {"A": 8, "B": 1}, {}, [firsts[2], newest], groups)
    rows = error_rows(summary)
    assert [(row.error_type, row.count, row.shown and row.shown.error) for row in rows] == [
        ("A", 2, "newest"),
        ("B", 1, "first"),
        ("A", 5, "first"),
        ("A", 1, None),
    ]
