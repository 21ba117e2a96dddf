"""``dashboard="full"``: the whole terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text

from antflow._core.checks import check_count
from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import View
from antflow._monitor.worker_order import longest_running, worker_strips
from antflow.display.bars import (
    bar_line,
    bottleneck_lines,
    counts_line,
    header_line,
    stall_lines,
)
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.counter_lines import counter_lines
from antflow.display.failure_lines import error_table
from antflow.display.layout import NOTHING, ONE, Wish, one_of, share
from antflow.display.sparks import throughput_lines
from antflow.display.strips import WorkerMap, item_lines
from antflow.display.tables import stage_lines

MOST_WHY = 3
MOST_COUNTERS = 3
GOOD_ERRORS = 3
MOST_ERRORS = 8
LEAST_ITEMS = 3
GOOD_ITEMS = 5
GOOD_LOG = 5
MOST_LOG = 12
CURVE = Wish(2, 2, 3)


class FullDashboard(BaseDashboard):
    """The whole terminal: stages, rate over time, every worker, errors, log, items in progress.

    While it runs it is on the alternate screen; prints are shown in its log meanwhile, and all of
    them appear when the run ends, above the last frame, which is a detailed one with the errors by
    type.

    If there are few rows, sections give way in this order: items in progress, the log, then the
    rate over time, workers (a cell stands for 2, 4, 8 … of them), errors (in one line), then
    stages.

    Args:
        refresh_rate: As in `BaseDashboard`.
        max_items_shown: Items in progress that are listed, at most.
    """

    _fills_screen: ClassVar[bool] = True
    _logs_stages: ClassVar[bool] = True

    def __init__(self, refresh_rate: float = 4.0, max_items_shown: int = 20) -> None:
        super().__init__(refresh_rate)
        allowed = "must be a whole number >= 0"
        self.max_items_shown: int = check_count(
            ValueError, "max_items_shown", max_items_shown, 0, allowed
        )

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        view = self._see(snapshot)
        log = self._printed(MOST_LOG)
        return Frame(lambda canvas: self._compose(canvas, view, log))

    def _compose(self, canvas: Canvas, view: View, log: Sequence[str]) -> list[Text]:
        self._bar_row = 0
        if canvas.height < 2:
            return [bar_line(canvas, view, counts=True)]
        strips = worker_strips(view.snapshot)
        workers = WorkerMap(canvas, strips)
        busy = sum(strip.busy for strip in strips)
        items = min(busy, self.max_items_shown)
        if 0 < items < busy:
            items += 1  # the line that counts the others
        stalls = stall_lines(canvas, view, MOST_WHY)
        why = bottleneck_lines(canvas, view, MOST_WHY)
        table = len(view.stages) + 1
        least_stages = max(min(table, canvas.height // 2), 1)
        wishes = {
            "bar": ONE,
            "counts": ONE,
            "stages": Wish(least_stages, table, table) if view.stages else NOTHING,
            "counters": one_of(len(counter_lines(canvas, view, MOST_COUNTERS))),
            "stalls": one_of(len(stalls)),
            "errors": _list(len(view.errors), GOOD_ERRORS, MOST_ERRORS),
            "why": one_of(len(why)),
            "workers": Wish(2, len(strips) + 1, workers.rows() + 1) if strips else NOTHING,
            "header": ONE,
            "curve": CURVE if len(view.rates) > 1 else NOTHING,
        }
        more = {
            "log": _list(len(log), GOOD_LOG, MOST_LOG),
            "items": _list(items, GOOD_ITEMS, items, least=LEAST_ITEMS),
        }
        rows = share(canvas.height, wishes, more)
        self._bar_row = rows["header"]
        lines = [header_line(canvas, view, workers.workers)] if rows["header"] else []
        lines.append(bar_line(canvas, view, named=not rows["header"]))
        lines += stage_lines(canvas, view.stages, rows["stages"])
        lines += counter_lines(canvas, view, rows["counters"])
        lines += bottleneck_lines(canvas, view, rows["why"])
        lines += stall_lines(canvas, view, rows["stalls"])
        lines += throughput_lines(canvas, view, rows["curve"])
        lines += workers.lines(rows["workers"])
        lines += error_table(canvas, view, rows["errors"])
        if rows["items"]:
            longest = longest_running(view.snapshot.worker_states.values(), rows["items"])
            lines += item_lines(canvas, longest, busy, view.snapshot.timestamp, rows["items"])
        lines += _log_lines(canvas, log, rows["log"])
        return [*lines, counts_line(canvas, view.progress)]

    def _last_frame(self, snapshot: DashboardSnapshot) -> RenderableType:
        view = self._see(snapshot)
        return Frame(lambda canvas: _last_lines(canvas, view))


def _last_lines(canvas: Canvas, view: View) -> list[Text]:
    """The frame left on the first screen: a detailed one with the errors by type."""
    errors = _list(len(view.errors), GOOD_ERRORS, MOST_ERRORS)
    why = bottleneck_lines(canvas, view, MOST_WHY)
    table = len(view.stages) + 1
    wishes = {
        "bar": ONE,
        "counts": ONE,
        "stages": Wish(1, table, table) if view.stages else NOTHING,
        "counters": one_of(len(counter_lines(canvas, view, MOST_COUNTERS))),
        "errors": errors,
        "why": one_of(len(why)),
        "curve": CURVE if len(view.rates) > 1 else NOTHING,
    }
    rows = share(canvas.height, wishes)
    return [
        bar_line(canvas, view),
        *stage_lines(canvas, view.stages, rows["stages"]),
        *counter_lines(canvas, view, rows["counters"]),
        *throughput_lines(canvas, view, rows["curve"]),
        *error_table(canvas, view, rows["errors"]),
        *bottleneck_lines(canvas, view, rows["why"]),
        counts_line(canvas, view.progress),
    ]


def _log_lines(canvas: Canvas, log: Sequence[str], rows: int) -> list[Text]:
    """A heading, then the latest prints."""
    if rows < 2:
        return []
    shown = log[-(rows - 1) :]
    heading = canvas.rule([("log ", "bold"), ("all of it is printed at the end", "dim")])
    return [heading, *(canvas.line([(canvas.text(line), "")]) for line in shown)]


def _list(entries: int, good: int, most: int, least: int = 1) -> Wish:
    """Rows for a heading and a list."""
    if not entries:
        return NOTHING
    return Wish(*(1 + min(entries, rows) for rows in (least, good, max(good, most))))
