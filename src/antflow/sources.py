"""Sources of items: blocking ones are read in a thread."""

from antflow._engine.thread_source import in_thread

__all__ = ["in_thread"]
