"""Staged asynchronous pipelines that can be watched and followed, and that never lose an item.

Each public module is loaded with the first use of a name from it. So a program that only makes
calls with `AsyncExecutor` does not wait for pipelines, nor does a child process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from antflow._core.version import __version__

if TYPE_CHECKING:
    from antflow.builder import PipelineBuilder
    from antflow.context import (
        CurrentItem,
        call_rate_has_capacity,
        concurrency_limit,
        count,
        current_batch,
        current_item,
        rate_limit,
        set_task_status,
    )
    from antflow.exceptions import (
        AntFlowError,
        Drop,
        DuplicateItemError,
        ExecutorShutdownError,
        InternalError,
        ItemCancelled,
        PipelineError,
        RetryAfter,
        StageValidationError,
        StandInError,
        TaskFailedError,
        TooManyFailures,
        WorkerLostError,
        WouldDeadlockError,
    )
    from antflow.executor import AsyncExecutor, AsyncFuture, Iteration, WaitStrategy
    from antflow.loops import install_fast_loop
    from antflow.observers import ItemStep, Observer, RunEnd, RunFacts
    from antflow.pipeline import (
        Limit,
        LimitStatistics,
        Pipeline,
        ResultStream,
        Retry,
        RunHandle,
        RunOptions,
        Stage,
        backoff,
    )
    from antflow.sources import in_thread
    from antflow.telemetry import configure_telemetry, telemetry_enabled
    from antflow.tracker import StatusTracker
    from antflow.types import (
        Advice,
        CounterStats,
        DashboardProtocol,
        DashboardSnapshot,
        Durations,
        ErrorSummary,
        Eta,
        FailedItem,
        FailureGroup,
        FirstTries,
        HotSpot,
        LoopHealth,
        LoopStall,
        PipelineResult,
        PipelineStats,
        RecentStageStats,
        RecentStats,
        RunResults,
        StageStats,
        StatusEvent,
        StatusType,
        TaskEvent,
        TaskEventType,
        TaskFunc,
        WhatIf,
        WorkerMetrics,
        WorkersChange,
        WorkerState,
        WorkerStatus,
    )
else:
    _HOMES = {
        "builder": {"PipelineBuilder"},
        "context": {
            "CurrentItem",
            "call_rate_has_capacity",
            "concurrency_limit",
            "count",
            "current_batch",
            "current_item",
            "rate_limit",
            "set_task_status",
        },
        "exceptions": {
            "AntFlowError",
            "Drop",
            "DuplicateItemError",
            "ExecutorShutdownError",
            "InternalError",
            "ItemCancelled",
            "PipelineError",
            "RetryAfter",
            "StageValidationError",
            "StandInError",
            "TaskFailedError",
            "TooManyFailures",
            "WorkerLostError",
            "WouldDeadlockError",
        },
        "executor": {"AsyncExecutor", "AsyncFuture", "Iteration", "WaitStrategy"},
        "loops": {"install_fast_loop"},
        "observers": {"ItemStep", "Observer", "RunEnd", "RunFacts"},
        "pipeline": {
            "Limit",
            "LimitStatistics",
            "Pipeline",
            "ResultStream",
            "Retry",
            "RunHandle",
            "RunOptions",
            "Stage",
            "backoff",
        },
        "sources": {"in_thread"},
        "telemetry": {"configure_telemetry", "telemetry_enabled"},
        "tracker": {"StatusTracker"},
        "types": {
            "Advice",
            "CounterStats",
            "DashboardProtocol",
            "DashboardSnapshot",
            "Durations",
            "ErrorSummary",
            "Eta",
            "FailedItem",
            "FailureGroup",
            "FirstTries",
            "HotSpot",
            "LoopHealth",
            "LoopStall",
            "PipelineResult",
            "PipelineStats",
            "RecentStageStats",
            "RecentStats",
            "RunResults",
            "StageStats",
            "StatusEvent",
            "StatusType",
            "TaskEvent",
            "TaskEventType",
            "TaskFunc",
            "WhatIf",
            "WorkerMetrics",
            "WorkerState",
            "WorkerStatus",
            "WorkersChange",
        },
    }

    # Not for type checkers: they would believe that a misspelt name exists.
    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name == home or name in names:
                module = import_module(f"{__name__}.{home}")
                found = module if name == home else getattr(module, name)
                return globals().setdefault(name, found)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Advice",
    "AntFlowError",
    "AsyncExecutor",
    "AsyncFuture",
    "CounterStats",
    "CurrentItem",
    "DashboardProtocol",
    "DashboardSnapshot",
    "Drop",
    "DuplicateItemError",
    "Durations",
    "ErrorSummary",
    "Eta",
    "ExecutorShutdownError",
    "FailedItem",
    "FailureGroup",
    "FirstTries",
    "HotSpot",
    "InternalError",
    "ItemCancelled",
    "ItemStep",
    "Iteration",
    "Limit",
    "LimitStatistics",
    "LoopHealth",
    "LoopStall",
    "Observer",
    "Pipeline",
    "PipelineBuilder",
    "PipelineError",
    "PipelineResult",
    "PipelineStats",
    "RecentStageStats",
    "RecentStats",
    "ResultStream",
    "Retry",
    "RetryAfter",
    "RunEnd",
    "RunFacts",
    "RunHandle",
    "RunOptions",
    "RunResults",
    "Stage",
    "StageStats",
    "StageValidationError",
    "StandInError",
    "StatusEvent",
    "StatusTracker",
    "StatusType",
    "TaskEvent",
    "TaskEventType",
    "TaskFailedError",
    "TaskFunc",
    "TooManyFailures",
    "WaitStrategy",
    "WhatIf",
    "WorkerLostError",
    "WorkerMetrics",
    "WorkerState",
    "WorkerStatus",
    "WorkersChange",
    "WouldDeadlockError",
    "__version__",
    "backoff",
    "call_rate_has_capacity",
    "concurrency_limit",
    "configure_telemetry",
    "count",
    "current_batch",
    "current_item",
    "in_thread",
    "install_fast_loop",
    "rate_limit",
    "set_task_status",
    "telemetry_enabled",
]
