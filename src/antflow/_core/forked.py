"""Objects that a forked process must leave alone."""

from __future__ import annotations

_of_parent: list[object] = []


def leave_to_parent(place: object) -> None:
    """Keep what a parent process has open from being closed, which may be to write to it."""
    if place is not None:
        _of_parent.append(place)
