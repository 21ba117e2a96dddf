"""Functions for running tasks: to ask for their item, to set their status, to count."""

from antflow._core.counters import count
from antflow._engine.current import CurrentItem, current_batch, current_item, set_task_status
from antflow._engine.limits.call_limits import call_rate_has_capacity, concurrency_limit, rate_limit

__all__ = [
    "CurrentItem",
    "call_rate_has_capacity",
    "concurrency_limit",
    "count",
    "current_batch",
    "current_item",
    "rate_limit",
    "set_task_status",
]
