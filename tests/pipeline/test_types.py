"""The values that come out: their fields, defaults and derived properties."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import re
import threading
from typing import Any, get_args

import pytest

import antflow
from antflow import (
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    Pipeline,
    PipelineResult,
    PipelineStats,
    Stage,
    StatusEvent,
    StatusTracker,
    StatusType,
    TaskEvent,
    TaskEventType,
    WorkerMetrics,
    WorkerState,
    WorkerStatus,
)
from antflow.testing import FailTimes, run_virtual
from antflow.types import StageStats
from tests.support import odd_only, same, slow

pytestmark = pytest.mark.contract

FIELDS: dict[type[Any], str] = {
    PipelineResult: "id value sequence_id metadata error",
    StageStats: "stage_name pending_items in_progress_items completed_items failed_items",
    PipelineStats: "items_processed items_failed items_in_flight queue_sizes stage_stats",
    WorkerState: "worker_name stage status current_item_id current_task processing_since",
    WorkerMetrics: (
        "worker_name stage items_processed items_failed total_processing_time last_active"
    ),
    StatusEvent: "item_id stage status worker timestamp metadata",
    TaskEvent: "item_id stage task_name worker event_type attempt timestamp error duration",
    FailedItem: "item_id error error_type stage attempts timestamp",
    ErrorSummary: "total_failed errors_by_type errors_by_stage failed_items",
    DashboardSnapshot: "worker_states worker_metrics pipeline_stats error_summary timestamp",
}

NEW_FIELDS: dict[type[Any], str] = {
    PipelineResult: "stage attempts input",
    StageStats: (
        "retried_items skipped_items dropped_items busy_seconds starved_seconds blocked_seconds "
        "limited_seconds retry_waiting_seconds"
    ),
    PipelineStats: "items_accepted items_dropped items_expanded items_cancelled",
    StatusEvent: "run_id",
    TaskEvent: "run_id",
    DashboardSnapshot: "run_id total_items state",
}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_fields_keep_their_order(kind: type[Any]) -> None:
    """Each value is a dataclass that begins with the fields of 0.10.0, in that order."""
    expected = FIELDS[kind].split()
    assert [field.name for field in dataclasses.fields(kind)][: len(expected)] == expected


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_values_are_made_from_the_old_fields(kind: type[Any]) -> None:
    """A value can be made by place from the fields of 0.10.0, and gives them back."""
    names = FIELDS[kind].split()
    made = kind(*names)
    assert [getattr(made, name) for name in names] == names


@pytest.mark.parametrize(
    ("made", "name", "default"),
    [
        (PipelineResult(1, 2, 3), "metadata", {}),
        (PipelineResult(1, 2, 3), "error", None),
        (PipelineStats(1, 2, 3, {}), "stage_stats", {}),
        (WorkerState("A-W0", "A", "idle"), "current_item_id", None),
        (WorkerState("A-W0", "A", "idle"), "current_task", None),
        (WorkerState("A-W0", "A", "idle"), "processing_since", None),
        (WorkerMetrics("A-W0", "A"), "items_processed", 0),
        (WorkerMetrics("A-W0", "A"), "items_failed", 0),
        (WorkerMetrics("A-W0", "A"), "total_processing_time", 0.0),
        (WorkerMetrics("A-W0", "A"), "last_active", None),
        (StatusEvent(1, "A", "queued", None, 0.0), "metadata", {}),
        (TaskEvent(1, "A", "t", "A-W0", "start", 1, 0.0), "error", None),
        (TaskEvent(1, "A", "t", "A-W0", "start", 1, 0.0), "duration", None),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_fields_keep_their_defaults(made: Any, name: str, default: Any) -> None:
    """The fields that had a default have it still."""
    assert getattr(made, name) == default


def test_is_success_without_an_error() -> None:
    """A result is a success if it has no error."""
    assert PipelineResult(1, 2, 0).is_success
    assert not PipelineResult(1, 2, 0, error=ValueError()).is_success


def test_avg_processing_time() -> None:
    """Seconds per item, and 0.0 before the first."""
    assert WorkerMetrics("A-W0", "A").avg_processing_time == 0.0
    assert WorkerMetrics("A-W0", "A", 4, 0, 8.0).avg_processing_time == 2.0


@pytest.mark.parametrize(("worker", "number"), [("Fetch-W3", 3), ("a-W1-W12", 12), (None, None)])
def test_worker_id_is_the_number_in_the_name(worker: str | None, number: int | None) -> None:
    """``StatusEvent.worker_id`` is the worker's number, or `None`."""
    assert StatusEvent(1, "Fetch", "queued", worker, 0.0).worker_id == number


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        (StatusType, "queued in_progress completed failed retrying skipped"),
        (TaskEventType, "start complete retry fail"),
        (WorkerStatus, "idle busy"),
    ],
    ids=["status", "task event", "worker"],
)
def test_literals_keep_their_values(alias: Any, names: str) -> None:
    """The words for statuses, task events and workers are the old ones, and only these."""
    assert set(get_args(alias)) == set(names.split())


def test_error_summary_as_text() -> None:
    """``str()`` of a summary says "No errors occurred", or how many and a line per type."""
    assert str(ErrorSummary(0, {}, {}, [])) == "No errors occurred"
    text = str(ErrorSummary(3, {"ValueError": 2, "KeyError": 1}, {"A": 3}, []))
    assert "3 failed items" in text
    lines = [line.strip() for line in text.splitlines()]
    assert "ValueError: 2" in lines
    assert "KeyError: 1" in lines


def test_snapshot_of_an_idle_pipeline() -> None:
    """A snapshot may be taken before any run: workers idle, nothing counted."""
    snapshot = Pipeline([Stage("A", 2, [same])]).get_dashboard_snapshot()
    assert isinstance(snapshot, DashboardSnapshot)
    assert snapshot.pipeline_stats.items_processed == 0
    assert {state.status for state in snapshot.worker_states.values()} <= {"idle"}


def test_snapshot_after_a_run() -> None:
    """A snapshot has workers, their metrics, the counts, the errors and the time."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [odd_only], task_attempts=1)], status_tracker=tracker)
    run_virtual(lambda: pipeline.run(range(10)))
    snapshot = pipeline.get_dashboard_snapshot()
    assert list(snapshot.worker_states) == ["A-W0", "A-W1"]
    assert sum(metrics.items_processed for metrics in snapshot.worker_metrics.values()) == 5
    assert snapshot.pipeline_stats.items_failed == snapshot.error_summary.total_failed == 5
    assert snapshot.timestamp > 1_500_000_000


# New since 0.10.0


@pytest.mark.parametrize("kind", NEW_FIELDS, ids=lambda kind: kind.__name__)
def test_new_fields_have_defaults(kind: type[Any]) -> None:
    """The new fields exist, and who makes a value by hand need not give them."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in NEW_FIELDS[kind].split():
        field = fields[name]
        defaults = (field.default, field.default_factory)
        assert defaults != (dataclasses.MISSING, dataclasses.MISSING)


def test_stage_stats_is_exported() -> None:
    """`StageStats` can be imported from the top."""
    assert antflow.StageStats is StageStats


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_failed_item_has_the_real_attempts(retry: str) -> None:
    """``FailedItem.attempts`` is how often it was really tried."""
    stage = Stage("A", 1, [FailTimes(9)], retry, 4, 0.0, 4)
    results = run_virtual(lambda: Pipeline([stage]).run([1]))
    (failed,) = results.summary.failed_items
    assert (failed.item_id, failed.error_type, failed.stage) == (0, "ValueError", "A")
    assert failed.attempts == 4


def test_snapshot_never_changes() -> None:
    """A snapshot taken during a run is a true copy that stays what it was."""

    async def main() -> tuple[Any, Any, Any]:
        pipeline = Pipeline([Stage("A", 2, [slow])])
        running = asyncio.create_task(pipeline.run(range(10)))
        await asyncio.sleep(2.5)
        snapshot = pipeline.get_dashboard_snapshot()
        before = copy.deepcopy(snapshot)
        await running
        return snapshot, before, pipeline.get_dashboard_snapshot()

    snapshot, before, after = run_virtual(main)
    assert snapshot == before
    assert snapshot.pipeline_stats.items_processed == 4
    assert after.pipeline_stats.items_processed == 10


def test_snapshot_says_which_run_and_where_it_is() -> None:
    """``run_id``, ``total_items`` and ``state`` say which run it is, of how many, and how far."""

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 2, [slow])])
        before = pipeline.get_dashboard_snapshot()
        running = asyncio.create_task(pipeline.run(range(10)))
        await asyncio.sleep(0.5)
        during = pipeline.get_dashboard_snapshot()
        results = await running
        assert during.run_id == results.run_id
        return [before, during, pipeline.get_dashboard_snapshot()]

    before, during, after = run_virtual(main)
    assert (before.run_id, before.state) == ("", "idle")
    assert (during.total_items, after.total_items, after.state) == (10, 10, "finished")


def test_snapshot_from_another_thread() -> None:
    """Another thread may take snapshots while the run goes on; it is never an error."""
    pipeline = Pipeline([Stage("A", 3, [same])])
    errors: list[BaseException] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                pipeline.get_dashboard_snapshot()
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        asyncio.run(pipeline.run(range(2000)))
    finally:
        over.set()
        thread.join()
    assert errors == []


def test_stage_stats_count_retries_skips_and_drops() -> None:
    """A stage counts what was tried again, what passed by and what was dropped."""
    flaky = FailTimes(1)

    async def work(value: int) -> Any:
        return antflow.Drop if value == 2 else await flaky(value)

    stage = Stage("A", 1, [work], task_wait_seconds=0, skip_if=lambda value: value == 3)
    stats = run_virtual(lambda: Pipeline([stage]).run([1, 2, 3])).stats.stage_stats["A"]
    assert (stats.retried_items, stats.skipped_items, stats.dropped_items) == (1, 1, 1)


def test_stage_stats_account_for_the_workers_seconds() -> None:
    """A worker's seconds are busy, starved, blocked, limited or waiting for retries."""
    stages = [Stage("A", 1, [slow]), Stage("B", 1, [same])]
    stats = run_virtual(lambda: Pipeline(stages).run(range(3))).stats.stage_stats
    assert stats["A"].busy_seconds == pytest.approx(3.0)
    assert stats["B"].starved_seconds == pytest.approx(3.0)


def test_results_are_a_small_table_in_a_notebook() -> None:
    """A few rows and the counts; what items bring is text in it, and no markup."""

    async def work(number: int) -> str:
        if number % 4 == 0:
            raise ValueError(f"<script>{number}</script>")
        return f"<b>{number}</b> & more"

    pipeline = Pipeline([Stage("<i>Work</i>", 5, [work], task_attempts=1)])
    results = run_virtual(lambda: pipeline.run(range(2000)))
    html = results._repr_html_()
    assert "<caption>RunResults: 1,500 ok, 500 failed</caption>" in html
    assert html.count("<tr>") == 1 + 10 + 1 + 5 + 1
    assert "1,490 more completed" in html
    assert "495 more failed" in html
    assert "input 0 in stage &lt;i&gt;Work&lt;/i&gt; after 1 attempt: &lt;script&gt;0" in html
    assert "&#x27;&lt;b&gt;1&lt;/b&gt; &amp; more&#x27;" in html
    tags = set(re.findall(r"</?(\w+)", html))
    assert tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_results_in_a_notebook_whatever_is_in_them() -> None:
    """Values that cannot be shown cost their own cell; without items there are the counts."""
    pipeline = Pipeline([Stage("Work", 1, [same])])
    odd = run_virtual(lambda: pipeline.run([Unshown(), "x" * 1000, "\x1b[31mred"]))
    html = odd._repr_html_()
    assert "repr() failed" in html
    assert "x" * 100 not in html
    assert "\x1b" not in html
    empty = run_virtual(lambda: pipeline.run([]))._repr_html_()
    assert empty == "<table><caption>RunResults: 0 ok, 0 failed</caption></table>"


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError


def test_completion_offers_public_names_only() -> None:
    """``dir`` has what users read, of results, snapshots and events alike."""
    results = run_virtual(lambda: Pipeline([Stage("Work", 1, [same])]).run([1]))
    names = "id value sequence_id metadata error stage attempts input is_success outcome location"
    assert sorted(dir(results[0])) == sorted(names.split())
    for value in (results, results.stats, results.summary, *results.stats.stage_stats.values()):
        assert [name for name in dir(value) if name.startswith("_") or name.isupper()] == []
        assert dir(value)
    assert {"failed", "outcomes", "values", "stats", "append"} <= set(dir(results))
