"""``progress=True``: one line."""

from __future__ import annotations

from rich.console import RenderableType

from antflow._core.checks import check_count
from antflow._core.snapshot import DashboardSnapshot
from antflow.display.bars import bar_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Frame


class ProgressDisplay(BaseDashboard):
    """One line: bar, percent, done of total, rate, time left, time gone, how many ok and failed.

    Where the total is not known there is no bar. On a narrow terminal the less important parts go
    first; the counts stay.

    Args:
        total: Number of items, where the pipeline does not know it; 0 or ``None`` = not known.
        width: Cells of the bar, at most; at least 1.

    Raises:
        ValueError: One of them is not such a number.
    """

    def __init__(self, total: int | None = None, width: int = 30) -> None:
        super().__init__()
        if total is not None:
            allowed = "must be a whole number >= 0, or None"
            total = check_count(ValueError, "total", total, 0, allowed)
        width = check_count(ValueError, "width", width, 1, "must be a whole number >= 1")
        self.total: int = total or 0
        self._expected = self.total
        self.width = width

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The line, as a rich renderable."""
        view = self._see(snapshot)
        return Frame(lambda canvas: [bar_line(canvas, view, self.width, counts=True)])
