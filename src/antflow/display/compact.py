"""``dashboard="compact"``: three or four lines."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import View
from antflow.display.bars import bar_line, bottleneck_lines, counts_line, stall_lines
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.failure_lines import errors_line
from antflow.display.layout import NOTHING, ONE, one_of, share
from antflow.display.tables import chips_line


class CompactDashboard(BaseDashboard):
    """A bar, the stages on one line (busy workers, queued items), errors by type, the counts.

    The stage that holds the run back is marked. At the end a line says what held it back.
    """

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        view = self._see(snapshot)
        return Frame(lambda canvas: _lines(canvas, view))


def _lines(canvas: Canvas, view: View) -> list[Text]:
    if canvas.height < 2:
        return [bar_line(canvas, view, counts=True)]
    why, most = (bottleneck_lines, 2) if view.is_over else (stall_lines, 1)
    wishes = {
        "bar": ONE,
        "counts": ONE,
        "stages": ONE if view.stages else NOTHING,
        "errors": ONE if view.errors else NOTHING,
        "why": one_of(len(why(canvas, view, most))),
    }
    rows = share(canvas.height, wishes)
    lines = [bar_line(canvas, view)]
    if rows["stages"]:
        lines.append(chips_line(canvas, view.stages))
    if rows["errors"]:
        lines.append(errors_line(canvas, view.errors))
    return [*lines, *why(canvas, view, rows["why"]), counts_line(canvas, view.progress)]
