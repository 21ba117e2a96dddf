"""``dashboard="detailed"``: a row per stage."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import Progress
from antflow.display.bars import bar_line, counts_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.failures import last_failures
from antflow.display.layout import NOTHING, Wish, share
from antflow.display.tables import stage_lines

ONE = Wish(1, 1, 1)
SHARE_OF_HEIGHT = 0.6
"""What it takes of the terminal, so that there is room for what is printed above it."""

MOST_FAILURES = 3


class DetailedDashboard(BaseDashboard):
    """A bar, a table with a row per stage, the last errors, and the counts.

    A row says how many items wait (of how many that have room), how many workers are busy, and how
    many items were done, failed, tried again and skipped.
    """

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        progress = self._see(snapshot)
        return Frame(lambda canvas: detailed_lines(canvas, snapshot, progress))


def detailed_lines(canvas: Canvas, snapshot: DashboardSnapshot, progress: Progress) -> list[Text]:
    """The lines of a detailed frame; every stage if the terminal has room for it."""
    if canvas.height < 2:
        return [bar_line(canvas, progress, counts=True)]
    stages = list(snapshot.pipeline_stats.stage_stats.values())
    summary = snapshot.error_summary
    failures = min(len(summary.failed_items), MOST_FAILURES)
    table = len(stages) + 1
    rows = max(int(canvas.height * SHARE_OF_HEIGHT), min(table + 3, canvas.height))
    wishes = [
        ONE,
        ONE,
        Wish(1, table, table) if stages else NOTHING,
        Wish(1, 1, failures) if failures else NOTHING,
    ]
    _, _, for_stages, for_failures = share(rows, wishes)
    return [
        bar_line(canvas, progress),
        *stage_lines(canvas, stages, for_stages),
        *last_failures(canvas, summary, for_failures),
        counts_line(canvas, progress),
    ]
