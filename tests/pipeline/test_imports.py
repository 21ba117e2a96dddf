"""Names and import paths."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

import antflow

pytestmark = pytest.mark.contract


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


OLD_NAMES = words("""
    __version__ AsyncExecutor AsyncFuture AntFlowError DashboardProtocol DashboardSnapshot
    ErrorSummary ExecutorShutdownError FailedItem PipelineResult Pipeline PipelineBuilder
    PipelineError PipelineStats Stage StageValidationError StatusEvent StatusTracker
    StatusType TaskEvent TaskEventType TaskFailedError TaskFunc WaitStrategy WorkerMetrics
    WorkerState WorkerStatus call_rate_has_capacity concurrency_limit rate_limit set_task_status
    install_fast_loop configure_telemetry telemetry_enabled
""")

NEW_NAMES = words("""
    StageStats RunResults Retry backoff Limit Drop RetryAfter current_item ItemCancelled
    DuplicateItemError TooManyFailures InternalError WouldDeadlockError WorkerLostError
""")

HOMES = {
    "antflow.pipeline": ["Pipeline", "PipelineBuilder", "Stage"],
    "antflow.executor": ["AsyncExecutor", "AsyncFuture", "WaitStrategy"],
    "antflow.tracker": ["StatusTracker"],
    "antflow.types": [
        "DashboardProtocol",
        "DashboardSnapshot",
        "ErrorSummary",
        "FailedItem",
        "PipelineResult",
        "PipelineStats",
        "StageStats",
        "StatusEvent",
        "StatusType",
        "TaskEvent",
        "TaskEventType",
        "TaskFunc",
        "WorkerMetrics",
        "WorkerState",
        "WorkerStatus",
    ],
    "antflow.context": [
        "call_rate_has_capacity",
        "concurrency_limit",
        "rate_limit",
        "set_task_status",
    ],
    "antflow.exceptions": [
        "AntFlowError",
        "ExecutorShutdownError",
        "PipelineError",
        "StageValidationError",
        "TaskFailedError",
    ],
    "antflow.display": [
        "BaseDashboard",
        "CompactDashboard",
        "DetailedDashboard",
        "FullDashboard",
        "ProgressDisplay",
    ],
    "antflow.display.base": ["BaseDashboard"],
    "antflow.telemetry": ["configure_telemetry"],
}

OLD_PARAMETERS = {
    "AsyncExecutor": "max_workers",
    "AsyncExecutor.as_completed": "futures timeout",
    "AsyncExecutor.map": "fn timeout retries retry_delay",
    "AsyncExecutor.map_iter": "fn timeout retries retry_delay",
    "AsyncExecutor.shutdown": "wait cancel_futures",
    "AsyncExecutor.submit": "fn retries retry_delay semaphore",
    "AsyncExecutor.wait": "futures timeout return_when",
    "AsyncFuture.result": "timeout",
    "Pipeline": "stages collect_results status_tracker",
    "Pipeline.feed": "items target_stage priority",
    "Pipeline.feed_async": "items target_stage priority",
    "Pipeline.quick": "items tasks workers retries progress dashboard",
    "Pipeline.run": "items progress dashboard custom_dashboard dashboard_update_interval",
    "Pipeline.stream": "items progress buffer_size",
    "PipelineBuilder.add": "name workers retries retry_policy",
    "PipelineBuilder.collect_results": "enabled",
    "PipelineBuilder.run": "items progress dashboard",
    "PipelineBuilder.with_tracker": "tracker",
    "StatusTracker": """on_status_change on_task_start on_task_complete on_task_retry
        on_task_fail""",
    "StatusTracker.get_by_status": "status",
    "StatusTracker.get_history": "item_id",
    "StatusTracker.get_status": "item_id",
    "call_rate_has_capacity": "amount",
    "configure_telemetry": "enabled",
    "set_task_status": "status min_interval",
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new Python that finds the library where this one does."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(antflow.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("name", OLD_NAMES)
def test_name_is_importable_from_the_top(name: str) -> None:
    """Every name that 0.10.0 exported is an attribute of ``antflow`` and listed there."""
    assert hasattr(antflow, name)
    assert name in antflow.__all__


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in HOMES.items() for name in names]
)
def test_name_is_importable_from_its_module(module: str, name: str) -> None:
    """The import paths of 0.10.0 stay valid, module by module."""
    found = getattr(importlib.import_module(module), name)
    assert getattr(antflow, name, found) is found


@pytest.mark.parametrize("function", OLD_PARAMETERS)
def test_parameters_have_their_old_names(function: str) -> None:
    """What a program of 0.10.0 passes by name has that name still."""
    names = inspect.signature(attrgetter(function)(antflow)).parameters
    assert [name for name in words(OLD_PARAMETERS[function]) if name not in names] == []


def test_star_import_brings_the_names() -> None:
    """``from antflow import *`` brings what a program of 0.10.0 uses."""
    done = python(
        "from antflow import *\n"
        "pipeline = Pipeline([Stage('A', 1, [print])], status_tracker=StatusTracker())\n"
        "print(type(pipeline).__name__, AsyncExecutor.__name__, WaitStrategy.__name__)"
    )
    assert done.stdout == "Pipeline AsyncExecutor WaitStrategy\n"


def test_version_is_text() -> None:
    """``__version__`` is a text of numbers with points between them."""
    assert antflow.__version__.split(".")[0].isdigit()
    assert antflow.__version__.count(".") >= 2


# New since 0.10.0


@pytest.mark.parametrize("name", NEW_NAMES)
def test_new_name_is_importable_from_the_top(name: str) -> None:
    """Every new everyday name is an attribute of ``antflow`` and listed there."""
    assert hasattr(antflow, name)
    assert name in antflow.__all__


def test_telemetry_module_has_both_functions() -> None:
    """``telemetry_enabled`` is at home beside ``configure_telemetry``."""
    telemetry = importlib.import_module("antflow.telemetry")
    assert telemetry.telemetry_enabled is antflow.telemetry_enabled


def test_import_adds_no_log_handler() -> None:
    """No logger has a handler, ``antflow`` included."""
    done = python(
        "import logging, antflow, antflow.executor, antflow.pipeline, antflow.tracker\n"
        "loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]\n"
        "print([type(h).__name__ for l in [logging.root, *loggers] for h in l.handlers])"
    )
    assert done.stdout == "[]\n"


def test_failing_items_write_one_line_to_stderr() -> None:
    """By default a run in which items failed ends with one line on standard error."""
    done = python(
        "import asyncio\n"
        "from antflow import Pipeline, Stage\n"
        "async def fail(value):\n"
        "    raise ValueError('no page')\n"
        "stage = Stage('A', 1, [fail], task_attempts=1)\n"
        "asyncio.run(Pipeline([stage]).run([7]))"
    )
    assert done.stdout == ""
    assert done.stderr == (
        "1 of 1 item failed: 1 × ValueError at <string>:4 in fail, "
        "e.g. input 7 in stage A after 1 attempt: no page\n"
    )
