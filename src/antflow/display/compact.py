"""``dashboard="compact"``: a few lines."""

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
from antflow.display.tables import chips_lines

MOST_CHIPS = 2
MOST_WHY = 2


class CompactDashboard(BaseDashboard):
    """A bar, the stages in a line (busy workers, queued items), errors by type, the counts.

    The stage that holds the run back is marked, and a sentence says what would help. Stages that
    need more than a line get two.
    """

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        view = self._see(snapshot)
        return Frame(lambda canvas: _lines(canvas, view))


def _lines(canvas: Canvas, view: View) -> list[Text]:
    if canvas.height < 2:
        return [bar_line(canvas, view, counts=True)]
    chips = chips_lines(canvas, view.stages, MOST_CHIPS) if view.stages else []
    wishes = {
        "bar": ONE,
        "counts": ONE,
        "stages": one_of(len(chips)),
        "why": one_of(len(bottleneck_lines(canvas, view, MOST_WHY))),
        "stalls": one_of(len(stall_lines(canvas, view, 1))),
        "errors": ONE if view.errors else NOTHING,
    }
    rows = share(canvas.height, wishes)
    lines = [bar_line(canvas, view)]
    if rows["stages"]:
        lines += chips_lines(canvas, view.stages, rows["stages"])
    lines += bottleneck_lines(canvas, view, rows["why"])
    lines += stall_lines(canvas, view, rows["stalls"])
    if rows["errors"]:
        lines.append(errors_line(canvas, view.errors))
    return [*lines, counts_line(canvas, view)]
