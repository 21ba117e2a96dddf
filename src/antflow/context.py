"""What a task can ask about itself."""

from antflow._engine.current import CurrentItem, current_item

__all__ = ["CurrentItem", "current_item"]
