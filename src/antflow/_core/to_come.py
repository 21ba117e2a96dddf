"""How many items have yet to go through each stage, by what became of those that did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from antflow._core.snapshot import StageStats

HALF = 0.5


class Expected(NamedTuple):
    """The items that a stage has yet to see.

    Attributes:
        to_leave: How many items have yet to leave it, those included that do not exist yet.
        to_make: How many of its children have yet to be made.
    """

    to_leave: float
    to_make: float


def expected(stages: Sequence[StageStats], coming: float) -> list[Expected]:
    """The items that each stage has yet to see, if items go on as they did so far.

    Args:
        stages: The stages.
        coming: How many items have yet to come from the source.
    """
    found: list[Expected] = []
    for stage in stages:
        to_leave = coming + stage.inside_items
        # Items in hand have become half of their children, on average.
        half = HALF * stage.in_progress_items if stage.made_items else 0.0
        to_make = 0.0
        if stage.made_items:
            parents = max(stage.left_items + half, HALF)  # the only one may wait for its next try
            to_make = (to_leave - half) * stage.made_items / parents
        found.append(Expected(to_leave, to_make))
        left, passed = stage.left_items, stage.completed_items + stage.skipped_items
        coming = to_make + to_leave * (passed / left if left else not stage.made_items)
    return found
