"""Amounts over time in a fixed number of bins, which get wider as a run gets longer."""

from __future__ import annotations

from array import array

MOST_BINS = 512
"""When more are needed, each two become one: so there are at least half as many in the end."""

FIRST_WIDTH = 0.001
"""Seconds."""


class Grid:
    """Rows of bins of one width.

    Args:
        rows: How many rows there are at first.

    Attributes:
        width: Seconds of each bin.
        rows: The amounts, row by row; bins at the end that are empty may be missing.
    """

    def __init__(self, rows: int = 0) -> None:
        self.width: float = FIRST_WIDTH
        self.rows: list[array[float]] = [array("d") for _ in range(rows)]

    def add(self, row: int, at: float, amount: float = 1.0) -> None:
        """Add an amount at one moment, in seconds from the beginning."""
        index = self._reach(at)
        self._cells(row, index)[index] += amount

    def spread(self, row: int, begin: float, end: float) -> None:
        """Add the seconds of a span to the bins that it touches."""
        last = self._reach(end)
        first, width = min(self._reach(begin), last), self.width
        cells = self._cells(row, last)
        for index in range(first, last + 1):
            inside = min(end, (index + 1) * width) - max(begin, index * width)
            cells[index] += max(inside, 0.0)

    def widen(self) -> None:
        """Make one bin of each two."""
        self.width *= 2
        self.rows = [
            array("d", (sum(cells[index : index + 2]) for index in range(0, len(cells), 2)))
            for cells in self.rows
        ]

    def join_rows(self) -> None:
        """Make one row of each two."""
        rows, self.rows = self.rows, []
        for index in range(0, len(rows), 2):
            longer, *shorter = sorted(rows[index : index + 2], key=len, reverse=True)
            for other in shorter:
                for at, amount in enumerate(other):
                    longer[at] += amount
            self.rows.append(longer)

    def _reach(self, at: float) -> int:
        """The bin of a moment; the bins are made wide enough for it."""
        while at >= self.width * MOST_BINS:
            self.widen()
        return int(at / self.width) if at > 0 else 0

    def _cells(self, row: int, index: int) -> array[float]:
        cells = self.rows[row]
        if index >= len(cells):
            cells.extend([0.0] * (index + 1 - len(cells)))
        return cells
