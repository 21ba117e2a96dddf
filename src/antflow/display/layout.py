"""Sharing out the rows of a terminal.

When there is not room for everything, sections give way in a fixed order: see `share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Wish(NamedTuple):
    """Rows a section would like to have.

    Attributes:
        least: Fewer make no sense.
        good: Enough to be useful.
        most: More are of no use. ``least <= good <= most``.
    """

    least: int
    good: int
    most: int


NOTHING = Wish(0, 0, 0)


def share(rows: int, wishes: Sequence[Wish]) -> list[int]:
    """Rows for each section; never more than ``rows`` together.

    Args:
        rows: Rows there are.
        wishes: The sections, the most important first. Each gets its ``least`` before any gets
            more, then each its ``good``, then its ``most``; who comes late goes short, or without.
    """
    given = [0] * len(wishes)
    for level in range(3):
        for index, wish in enumerate(wishes):
            more = wish[level] - given[index]
            if level == 0 and more > rows:
                continue
            if level > 0 and not given[index]:
                continue
            more = max(min(more, rows), 0)
            given[index] += more
            rows -= more
    return given
