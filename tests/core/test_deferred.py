"""Fields that are made when they are first read."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from antflow._core.deferred import Deferred


@dataclass(slots=True)
class Pair(Deferred):
    """A value with two fields."""

    left: list[int]
    right: list[int]


def test_field_is_made_once_and_only_if_it_is_read() -> None:
    """The function of a field runs at the first reading, and of no other field."""
    made: list[str] = []

    def left() -> list[int]:
        made.append("left")
        return [1]

    def right() -> list[int]:
        made.append("right")
        return [2]

    pair = Pair([], [])
    pair._defer(left=left, right=right)
    assert made == []
    assert pair.left is pair.left
    assert made == ["left"]
    pair.left.append(3)
    assert pair == Pair([1, 3], [2])
    assert made == ["left", "right"]


def test_field_that_is_written_first_is_not_made() -> None:
    """A value that was put into a field stays there."""
    pair = Pair([], [])
    pair._defer(left=lambda: [1])
    pair.left = [9]
    assert pair == Pair([9], [])


@pytest.mark.parametrize("is_deferred", [False, True])
def test_misspelt_field_is_an_error(is_deferred: bool) -> None:
    """A name that is not there raises the error that any object raises."""
    pair = Pair([], [])
    if is_deferred:
        pair._defer(left=lambda: [1])
    with pytest.raises(AttributeError, match="'Pair' object has no attribute 'lift'"):
        _ = pair.lift  # type: ignore[attr-defined]
    assert not hasattr(pair, "lift")
