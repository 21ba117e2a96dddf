"""The values a pipeline gives you, and the types of its arguments."""

from antflow._core.counters import CounterStats
from antflow._core.durations import Durations
from antflow._core.estimates import Eta, WhatIf
from antflow._core.events import StatusEvent, StatusType, TaskEvent, TaskEventType
from antflow._core.first_tries import FirstTries
from antflow._core.levers import Advice
from antflow._core.ports import DashboardProtocol
from antflow._core.recent import RecentStageStats, RecentStats
from antflow._core.result import PipelineResult, RunResults
from antflow._core.snapshot import (
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    FailureGroup,
    HotSpot,
    LoopHealth,
    LoopStall,
    PipelineStats,
    StageStats,
    WorkerMetrics,
    WorkerState,
    WorkerStatus,
)
from antflow._core.stage import TaskFunc
from antflow._core.workers_change import WorkersChange

__all__ = [
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
]
