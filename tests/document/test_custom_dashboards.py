"""Custom dashboards: the document's own class, and the protocol it follows."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antflow import (
    DashboardProtocol,
    DashboardSnapshot,
    ErrorSummary,
    Pipeline,
    PipelineResult,
    Stage,
)
from antflow.testing import run_virtual

from .document import run_block
from .watchers import Frames, lasting, now

pytestmark = pytest.mark.document

BLOCK = """\
from antflow import Pipeline, PipelineResult, DashboardSnapshot, DashboardProtocol

class MyDashboard(DashboardProtocol):
    def on_start(self, pipeline, total_items):
        self.total = total_items
        print(f"Starting to process {total_items} items...")

    def on_update(self, snapshot: DashboardSnapshot):
        stats = snapshot.pipeline_stats
        progress = (stats.items_processed / self.total) * 100
        print(f"Progress: {progress:.1f}% ({stats.items_processed}/{self.total})")

    def on_finish(self, results: list[PipelineResult], summary):
        print(f"Done! Processed {len(results)} items")
        if summary.total_failed > 0:
            print(f"Failed: {summary.total_failed}")

# Use custom dashboard
pipeline = Pipeline(stages=[...])
await pipeline.run(items, custom_dashboard=MyDashboard())
"""


def failing_for(*bad: int) -> Any:
    async def task(value: int) -> int:
        if value in bad:
            raise ValueError(f"no {value}")
        return value

    return task


def stages(*bad: int) -> list[Stage]:
    """One item after the other, each 0.4 s; then the bad ones fail."""
    return [Stage("Work", 1, [lasting(0.4), failing_for(*bad)], task_attempts=1)]


def printed_by_block(
    capsys: pytest.CaptureFixture[str], items: list[int], *bad: int
) -> tuple[list[str], Pipeline]:
    names = run_virtual(run_block(BLOCK, items=items, stages=stages(*bad)), max_time=100)
    return capsys.readouterr().out.splitlines(), names["pipeline"]


def test_block_prints_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """The document's dashboard prints the start, the progress every half second, and the end."""
    lines, pipeline = printed_by_block(capsys, [0, 1, 2, 3])
    assert lines == [
        "Starting to process 4 items...",
        "Progress: 0.0% (0/4)",
        "Progress: 25.0% (1/4)",  # 0.5 s
        "Progress: 50.0% (2/4)",  # 1.0 s
        "Progress: 75.0% (3/4)",  # 1.5 s
        "Progress: 100.0% (4/4)",  # 1.6 s, the end
        "Done! Processed 4 items",
    ]
    assert pipeline.results.values() == [0, 1, 2, 3]


def test_block_prints_the_results_and_the_number_of_failures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Items that failed are not among the results, and are counted in the summary."""
    lines, pipeline = printed_by_block(capsys, [0, 1, 2, 3], 1, 3)
    assert lines == [
        "Starting to process 4 items...",
        "Progress: 0.0% (0/4)",
        "Progress: 25.0% (1/4)",
        "Progress: 25.0% (1/4)",
        "Progress: 50.0% (2/4)",
        "Progress: 50.0% (2/4)",
        "Done! Processed 2 items",
        "Failed: 2",
    ]
    assert pipeline.results.values() == [0, 2]


def test_block_when_all_items_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """A run in which everything failed ends like any other."""
    lines, _ = printed_by_block(capsys, [5], 5)
    assert lines[-3:] == ["Progress: 0.0% (0/1)", "Done! Processed 0 items", "Failed: 1"]


def test_block_without_items(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without items the document's dashboard divides by zero: logged, and the run goes well."""
    with caplog.at_level(logging.WARNING, "antflow"):
        lines, pipeline = printed_by_block(capsys, [])
    assert lines == ["Starting to process 0 items...", "Done! Processed 0 items"]
    assert pipeline.results == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "ZeroDivisionError" in caplog.text


def test_methods_are_given_what_the_protocol_says() -> None:
    """A dashboard is given the pipeline and the count, then snapshots, then results and summary."""
    frames = Frames()
    pipeline = Pipeline(stages(1))
    returned = run_virtual(pipeline.run([0, 1, 2], custom_dashboard=frames))
    assert frames.pipeline is pipeline
    assert frames.total_items == 3
    assert len(frames.snapshots) > 2
    assert all(type(snapshot) is DashboardSnapshot for snapshot in frames.snapshots)
    ((results, summary),) = frames.finishes
    assert results == returned
    assert isinstance(results, list)
    assert [type(result) for result in results] == [PipelineResult, PipelineResult]
    assert [(result.id, result.value, result.is_success) for result in results] == [
        (0, 0, True),
        (2, 2, True),
    ]
    assert type(summary) is ErrorSummary
    assert summary.total_failed == 1
    assert summary.errors_by_type == {"ValueError": 1}


def test_methods_are_called_in_order() -> None:
    """First the start, then at least two updates, then the finish; each at its time."""
    calls: list[tuple[str, float]] = []

    class Noting(DashboardProtocol):
        def on_start(self, pipeline: Any, total_items: int) -> None:
            calls.append(("start", now()))

        def on_update(self, snapshot: DashboardSnapshot) -> None:
            calls.append(("update", now()))

        def on_finish(self, results: Any, summary: ErrorSummary) -> None:
            calls.append(("finish", now()))

    run_virtual(Pipeline(stages()).run([0, 1], custom_dashboard=Noting()))
    assert calls == [
        ("start", 0),
        ("update", 0),
        ("update", 0.5),
        ("update", 0.8),
        ("finish", 0.8),
    ]


@pytest.mark.parametrize("missing", ["on_start", "on_update", "on_finish"])
def test_protocol_when_a_method_is_missing(missing: str) -> None:
    """A subclass of the protocol may leave out any of its methods."""
    kept: list[str] = []

    def noting(name: str) -> Any:
        return lambda self, *args: kept.append(name)

    names = [name for name in ("on_start", "on_update", "on_finish") if name != missing]
    dashboard = type("Partly", (DashboardProtocol,), {name: noting(name) for name in names})()
    results = run_virtual(Pipeline(stages()).run([7], custom_dashboard=dashboard))
    assert results.values() == [7]
    assert list(dict.fromkeys(kept)) == names


def test_protocol_need_not_be_subclassed() -> None:
    """Any object with a method of these names is a dashboard."""

    class Plain:
        def __init__(self) -> None:
            self.last = -1

        def on_update(self, snapshot: DashboardSnapshot) -> None:
            self.last = snapshot.pipeline_stats.items_processed

    dashboard: Any = Plain()
    run_virtual(Pipeline(stages()).run([1, 2, 3], custom_dashboard=dashboard))
    assert dashboard.last == 3


def test_last_update_of_an_asynchronous_dashboard() -> None:
    """A dashboard that takes a moment for each update shows the end of the run as well."""
    shown: list[int] = []

    class Remote:
        async def on_update(self, snapshot: DashboardSnapshot) -> None:
            await asyncio.sleep(0.01)
            shown.append(snapshot.pipeline_stats.items_processed)

    remote: Any = Remote()
    run_virtual(Pipeline(stages()).run([0, 1, 2], custom_dashboard=remote))
    assert shown == [0, 1, 2, 3]


def test_dashboard_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A custom dashboard with a fault gets no more updates, and the run returns its results."""

    class Broken(Frames):
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            super().on_update(snapshot)
            raise KeyError("fault")

    broken = Broken()
    pipeline = Pipeline(stages())
    results = run_virtual(pipeline.run(range(5), custom_dashboard=broken), max_time=100)
    assert results.values() == [0, 1, 2, 3, 4]
    assert len(broken.snapshots) == 1
    assert len(broken.finishes) == 1
    assert "KeyError" in caplog.text
