"""Sharing out the rows of a terminal.

When there is not room for everything, the sections of a display give way in a fixed order: see
`share`. The displays on one screen each get their fair part: see `fair_shares`.
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
ONE = Wish(1, 1, 1)


def one_of(number: int) -> Wish:
    """All of so many rows; if need be, the first of them."""
    return Wish(min(number, 1), number, number)


def share(rows: int, *groups: Sequence[Wish]) -> list[int]:
    """Rows for each section; never more than ``rows`` together.

    Args:
        rows: Rows there are.
        groups: The sections, the most important first. In a group each gets its ``least`` before
            any gets more, then each its ``good``; then comes the next group; and when all have
            that, each gets its ``most``. Who comes late goes short, or without.
    """
    wishes = [wish for group in groups for wish in group]
    given = [0] * len(wishes)
    begin = 0
    for group in groups:
        for level in (0, 1):
            for index in range(begin, begin + len(group)):
                rows -= _give(given, index, wishes[index], level, rows)
        begin += len(group)
    for index, wish in enumerate(wishes):
        rows -= _give(given, index, wish, 2, rows)
    return given


def _give(given: list[int], index: int, wish: Wish, level: int, rows: int) -> int:
    more = wish[level] - given[index]
    if level == 0 and more > rows:
        return 0
    if level > 0 and not given[index]:
        return 0
    more = max(min(more, rows), 0)
    given[index] += more
    return more


def fair_shares(wishes: Sequence[int], room: int) -> list[int]:
    """Rows for each: nobody goes short while another has more.

    Args:
        wishes: How many rows each would like.
        room: How many there are. What does not divide goes to those who come first.
    """
    # Max-min fairness (Bertsekas and Gallager, Data Networks, 6.5.2), by filling up in rounds.
    given = [0] * len(wishes)
    while short := [index for index, wish in enumerate(wishes) if given[index] < wish and room]:
        each = max(room // len(short), 1)
        for index in short:
            more = min(each, wishes[index] - given[index], room)
            given[index] += more
            room -= more
    return given
