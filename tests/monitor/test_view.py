"""What is worth showing, read from snapshots."""

from __future__ import annotations

from antflow import ErrorSummary, FailedItem
from antflow._monitor.view import error_rows


def test_errors_by_type_newest_first() -> None:
    """Types come in the order they were last seen; those not kept any more come last."""
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
    assert [row.newest and row.newest.error for row in rows] == ["text 3", "text 2", "text 1", None]
