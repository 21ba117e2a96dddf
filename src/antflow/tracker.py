"""Following a pipeline: callbacks on every event, and the history of every item."""

from antflow._monitor.tracker import StatusTracker

__all__ = ["StatusTracker"]
