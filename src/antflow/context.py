"""Functions for running tasks: to ask for their item, to set their status, to count, to log."""

from antflow._core.counters import count
from antflow._engine.current import CurrentItem, current_batch, current_item, set_task_status
from antflow._engine.limits.call_limits import call_rate_has_capacity, concurrency_limit, rate_limit
from antflow._engine.log_context import LogContextFilter, log_context

__all__ = [
    "CurrentItem",
    "LogContextFilter",
    "call_rate_has_capacity",
    "concurrency_limit",
    "count",
    "current_batch",
    "current_item",
    "log_context",
    "rate_limit",
    "set_task_status",
]
