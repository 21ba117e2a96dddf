"""``dashboard="detailed"``: a row per stage."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import View
from antflow.display.bars import bar_line, bottleneck_lines, counts_line, stall_lines
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.counter_lines import counter_lines
from antflow.display.failure_lines import last_failures
from antflow.display.layout import NOTHING, ONE, Wish, one_of, share
from antflow.display.sparks import throughput_line
from antflow.display.tables import stage_lines

SHARE_OF_HEIGHT = 0.6
"""Its share of the terminal's rows, so that there is room for prints above it; more only if the
stages and the advice need it."""

MOST_FAILURES = 3
MOST_WHY = 3
MOST_COUNTERS = 2


class DetailedDashboard(BaseDashboard):
    """A bar, a row per stage, the rate over time, what holds the run back, the last errors.

    A row says how many items wait (of how many that have room), how many workers are busy, how many
    items were done, failed and tried again, how long a try takes (the median, and the time that 95
    % do not exceed), and how many items come through per second. If there is room, also where the
    time goes.
    """

    _logs_stages: ClassVar[bool] = True

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        view = self._see(snapshot)
        return Frame(lambda canvas: _lines(canvas, view))


def _lines(canvas: Canvas, view: View) -> list[Text]:
    """The lines of a detailed frame; every stage and the advice if the terminal has room for it."""
    if canvas.height < 2:
        return [bar_line(canvas, view, counts=True)]
    failures = min(len(view.snapshot.error_summary.failed_items), MOST_FAILURES)
    curve = throughput_line(canvas, view)
    stalls = stall_lines(canvas, view, MOST_WHY)
    why = bottleneck_lines(canvas, view, MOST_WHY)
    table = len(view.stages) + 1
    wishes = {
        "bar": ONE,
        "counts": ONE,
        "why": one_of(len(why)),
        "stages": Wish(1, table, table) if view.stages else NOTHING,
        "counters": one_of(len(counter_lines(canvas, view, MOST_COUNTERS))),
        "stalls": one_of(len(stalls)),
        "failures": Wish(1, 1, failures) if failures else NOTHING,
    }
    last = {"curve": NOTHING if curve is None else ONE}
    needed = sum(wish.good for wish in (*wishes.values(), *last.values()))
    rows = share(
        min(max(int(canvas.height * SHARE_OF_HEIGHT), needed), canvas.height), wishes, last
    )
    return [
        bar_line(canvas, view, loop=True),
        *stage_lines(canvas, view.stages, rows["stages"]),
        *counter_lines(canvas, view, rows["counters"]),
        *([curve] if curve is not None and rows["curve"] else []),
        *bottleneck_lines(canvas, view, rows["why"]),
        *stall_lines(canvas, view, rows["stalls"]),
        *last_failures(canvas, view, rows["failures"]),
        counts_line(canvas, view),
    ]
