"""``progress=True``: one line."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow.display.bars import bar_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame


class ProgressDisplay(BaseDashboard):
    """One line: bar, percent, done of total, rate, elapsed, how many are ok and failed.

    Where the total is not known there is no bar. On a narrow terminal the less important parts go
    first; the counts stay.

    Args:
        total: Number of items, where the pipeline does not know it; 0 or ``None`` = not known.
        width: Cells of the bar, at most.
    """

    def __init__(self, total: int | None = None, width: int = 30) -> None:
        super().__init__()
        self._expected = self.total = total or 0
        self.width = width

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The line, as a rich renderable."""
        progress = self._see(snapshot)

        def compose(canvas: Canvas) -> list[Text]:
            return [bar_line(canvas, progress, longest_bar=self.width, counts=True)]

        return Frame(compose)
