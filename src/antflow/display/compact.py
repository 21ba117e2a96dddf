"""``dashboard="compact"``: three or four lines."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import error_rows
from antflow.display.bars import bar_line, counts_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.failures import errors_line
from antflow.display.layout import NOTHING, Wish, share
from antflow.display.tables import chips_line

ONE = Wish(1, 1, 1)


class CompactDashboard(BaseDashboard):
    """A bar, the stages on one line (busy workers, queued items), errors by type, the counts."""

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        progress = self._see(snapshot)
        stages = list(snapshot.pipeline_stats.stage_stats.values())
        errors = error_rows(snapshot.error_summary)

        def compose(canvas: Canvas) -> list[Text]:
            if canvas.height < 2:
                return [bar_line(canvas, progress, counts=True)]
            wishes = [ONE, ONE, ONE if stages else NOTHING, ONE if errors else NOTHING]
            _, _, for_stages, for_errors = share(canvas.height, wishes)
            lines = [bar_line(canvas, progress)]
            if for_stages:
                lines.append(chips_line(canvas, stages))
            if for_errors:
                lines.append(errors_line(canvas, errors))
            return [*lines, counts_line(canvas, progress)]

        return Frame(compose)
