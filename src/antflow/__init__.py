"""Staged asynchronous pipelines that can be watched and followed, and that never lose an item."""

import logging

from antflow._version import __version__
from antflow.context import CurrentItem, current_item
from antflow.exceptions import (
    AntFlowError,
    InternalError,
    ItemCancelled,
    PipelineError,
    StageValidationError,
    TaskFailedError,
    TooManyFailures,
)
from antflow.pipeline import Pipeline, RunHandle, Stage
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
    "CurrentItem",
    "DashboardProtocol",
    "DashboardSnapshot",
    "ErrorSummary",
    "FailedItem",
    "InternalError",
    "ItemCancelled",
    "Pipeline",
    "PipelineError",
    "PipelineResult",
    "PipelineStats",
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
    "WorkerMetrics",
    "WorkerState",
    "WorkerStatus",
    "__version__",
    "current_item",
]
