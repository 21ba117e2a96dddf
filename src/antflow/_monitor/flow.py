"""How many items came into a stage, left it, and go on to the next."""

from __future__ import annotations

from antflow._core.snapshot import StageStats


def going_on(stage: StageStats, following: StageStats) -> float:
    """How many items enter the next stage for one that is done with this one.

    Fewer than one where some fail, more where items are made from others.
    """
    done = done_items(stage)
    return entered_items(following) / done if done else 1.0


def entered_items(stage: StageStats) -> int:
    """How many items a stage has been given."""
    return stage.entered_items


def items_inside(stage: StageStats) -> int:
    """How many items a stage was given that have not left it."""
    return stage.inside_items


def left_items(stage: StageStats) -> int:
    """How many items have left a stage, in whatever way."""
    return stage.left_items


def ended_tries(stage: StageStats) -> int:
    """How many tries are over, without those that a cancellation stopped."""
    ended = stage.completed_items + stage.failed_items + stage.retried_items
    return ended + stage.dropped_items + stage.expanded_items


def done_items(stage: StageStats) -> int:
    """How many items are done with a stage; those stopped by a cancellation do not count."""
    return left_items(stage) - stage.cancelled_items
