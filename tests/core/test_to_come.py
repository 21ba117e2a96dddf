"""How many items have yet to leave each stage."""

from __future__ import annotations

import pytest

from antflow import StageStats
from antflow._core.to_come import expected


def test_items_to_come_are_made_as_before() -> None:
    """Three from each, of which a third is dropped: those to come will be the same."""
    first = StageStats("List", 20, 0, 0, 0, expanded_items=10, made_items=30)
    second = StageStats("Fetch", 0, 0, 20, 0, dropped_items=10)
    third = StageStats("Save", 0, 0, 20, 0)
    assert expected([first, second, third], 5) == [(25, 75), (75, 0), (50, 0)]


def test_items_in_hand_are_half_done() -> None:
    """What they have made so far is half of what they will make, on average."""
    stage = StageStats("List", 0, 2, 0, 0, expanded_items=9, made_items=30)
    (found,) = expected([stage], 0)
    assert found.to_make == pytest.approx(3)


def test_only_parent_that_waits_for_its_next_try() -> None:
    """It has made something, none is done, and none is in hand: any guess will do."""
    stage = StageStats("List", 1, 0, 0, 0, made_items=2)
    assert 0 < expected([stage], 0)[0].to_make < 10
