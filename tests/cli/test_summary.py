"""What is said when a run is over."""

from __future__ import annotations

from antflow import DashboardSnapshot, ErrorSummary, PipelineStats
from antflow.cli.summary import summary_lines


def test_most_frequent_errors_are_named_and_the_others_counted() -> None:
    """Of seven types the five most frequent are named, of six stages five."""
    types = {f"Error{n}": n for n in range(1, 8)}
    stages = {f"Stage{n}": n for n in range(1, 7)}
    errors = ErrorSummary(28, types, stages, [])
    snapshot = DashboardSnapshot({}, {}, PipelineStats(2, 28, 0, {}), errors, 0.0, elapsed=3.0)
    fault = "in.csv:2:1: \x1b[2Jfault"
    lines = summary_lines(snapshot, bad_lines=1, has_display=True, first_bad_line=fault)
    assert lines == [
        "2 ok, 28 failed in 3.0 s",
        "1 line of the input could not be read, e.g. in.csv:2:1: fault",
        *(f"failed: {n} × Error{n}" for n in range(7, 2, -1)),
        "failed: 2 more kinds",
        "--failed FILE keeps the failed items",
        "failed in: Stage6 6, Stage5 5, Stage4 4, Stage3 3, Stage2 2, 1 more",
    ]
