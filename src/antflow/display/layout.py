"""Sharing out the rows of a terminal.

When there is not room for everything, the sections of a display give way in a fixed order: see
`share`. The displays on one screen each get their fair part: see `fair_shares`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Wish(NamedTuple):
    """Rows a section would like to have.

    Attributes:
        least: Fewer are useless.
        good: Enough to be useful.
        most: More are of no use. ``least <= good <= most``.
    """

    least: int
    good: int
    most: int


NOTHING = Wish(0, 0, 0)
ONE = Wish(1, 1, 1)


def one_of(number: int) -> Wish:
    """All of this many rows; if necessary, the first of them."""
    return Wish(min(number, 1), number, number)


def share(
    rows: int, *groups: Mapping[str, Wish], spare: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Rows for each section, by its name; never more than ``rows`` together.

    Args:
        rows: Rows there are.
        groups: The sections, the most important first. In a group each gets its ``least`` before
            any gets more, then each its ``good``; then comes the next group; and when all have
            that, each gets its ``most``. Later ones go short, or without.
        spare: Up to how many rows some have in the end, if there are more than all wish.
    """
    given: dict[str, int] = {}
    for group in groups:
        for name, wish in group.items():
            given[name] = wish.least if wish.least <= rows else 0
            rows -= given[name]
        rows = _raise(given, {name: wish.good for name, wish in group.items()}, rows)
    for group in groups:
        rows = _raise(given, {name: wish.most for name, wish in group.items()}, rows)
    _raise(given, spare or {}, rows)
    return given


def _raise(given: dict[str, int], wanted: Mapping[str, int], rows: int) -> int:
    """Give each section with rows what it wants while rows last; return how many are left."""
    for name, number in wanted.items():
        if given.get(name):
            more = min(max(number - given[name], 0), rows)
            given[name] += more
            rows -= more
    return rows


def fair_shares(wishes: Sequence[int], room: int) -> list[int]:
    """Rows for each: none goes short while another has more.

    Args:
        wishes: How many rows each would like.
        room: How many there are. The remainder goes to the first ones.
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
