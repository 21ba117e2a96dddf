"""Staged asynchronous pipelines that can be watched and followed, and that never lose an item."""

import logging

from antflow._version import __version__
from antflow.builder import PipelineBuilder
from antflow.context import (
    CurrentItem,
    call_rate_has_capacity,
    concurrency_limit,
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
    TaskFailedError,
    TooManyFailures,
    WorkerLostError,
    WouldDeadlockError,
)
from antflow.executor import AsyncExecutor, AsyncFuture, WaitStrategy
from antflow.loops import install_fast_loop
from antflow.pipeline import (
    Limit,
    LimitStatistics,
    Pipeline,
    Retry,
    RunHandle,
    Stage,
    backoff,
)
from antflow.telemetry import configure_telemetry, telemetry_enabled
from antflow.tracker import StatusTracker
from antflow.types import (
    DashboardProtocol,
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    PipelineResult,
    PipelineStats,
    RunResults,
    StageStats,
    StatusEvent,
    StatusType,
    TaskEvent,
    TaskEventType,
    TaskFunc,
    WorkerMetrics,
    WorkerState,
    WorkerStatus,
)

logging.getLogger("antflow").addHandler(logging.NullHandler())

__all__ = [
    "AntFlowError",
    "AsyncExecutor",
    "AsyncFuture",
    "CurrentItem",
    "DashboardProtocol",
    "DashboardSnapshot",
    "Drop",
    "DuplicateItemError",
    "ErrorSummary",
    "ExecutorShutdownError",
    "FailedItem",
    "InternalError",
    "ItemCancelled",
    "Limit",
    "LimitStatistics",
    "Pipeline",
    "PipelineBuilder",
    "PipelineError",
    "PipelineResult",
    "PipelineStats",
    "Retry",
    "RetryAfter",
    "RunHandle",
    "RunResults",
    "Stage",
    "StageStats",
    "StageValidationError",
    "StatusEvent",
    "StatusTracker",
    "StatusType",
    "TaskEvent",
    "TaskEventType",
    "TaskFailedError",
    "TaskFunc",
    "TooManyFailures",
    "WaitStrategy",
    "WorkerLostError",
    "WorkerMetrics",
    "WorkerState",
    "WorkerStatus",
    "WouldDeadlockError",
    "__version__",
    "backoff",
    "call_rate_has_capacity",
    "concurrency_limit",
    "configure_telemetry",
    "current_batch",
    "current_item",
    "install_fast_loop",
    "rate_limit",
    "set_task_status",
    "telemetry_enabled",
]
