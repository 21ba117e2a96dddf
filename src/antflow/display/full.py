"""``dashboard="full"``: the whole terminal."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text

from antflow._core.checks import check_count
from antflow._core.options import named_options
from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import (
    Progress,
    WorkerStrip,
    error_rows,
    longest_running,
    worker_strips,
)
from antflow.display.bars import bar_line, counts_line, header_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.failures import error_table
from antflow.display.layout import NOTHING, Wish, share
from antflow.display.strips import WorkerMap, item_lines
from antflow.display.tables import stage_lines

ONE = Wish(1, 1, 1)
GOOD_ERRORS = 3
MOST_ERRORS = 8
LEAST_ITEMS = 3
GOOD_ITEMS = 5


class FullDashboard(BaseDashboard):
    """The whole terminal: stages, every worker, errors by type, items in progress.

    While it runs it is on the alternate screen; what is printed meanwhile appears when it ends,
    above the last frame, which is a detailed one with the errors by type.

    Where rows are few, sections give way in this order: items in progress, then workers (a cell
    stands for 2, 4, 8 … of them), then errors (in one line), then stages.

    Args:
        refresh_rate: As in `BaseDashboard`.
        max_items_shown: Items in progress that are listed, at most.
    """

    _fills_screen: ClassVar[bool] = True

    @named_options
    def __init__(self, refresh_rate: float = 4.0, max_items_shown: int = 20) -> None:
        super().__init__(refresh_rate)
        check_count(
            ValueError, "max_items_shown", max_items_shown, 0, "must be a whole number >= 0"
        )
        self.max_items_shown = max_items_shown

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The lines, as a rich renderable."""
        progress = self._see(snapshot)
        strips = worker_strips(snapshot)
        return Frame(lambda canvas: self._compose(canvas, snapshot, progress, strips))

    def _compose(
        self,
        canvas: Canvas,
        snapshot: DashboardSnapshot,
        progress: Progress,
        strips: list[WorkerStrip],
    ) -> list[Text]:
        if canvas.height < 2:
            return [bar_line(canvas, progress, counts=True)]
        stages = list(snapshot.pipeline_stats.stage_stats.values())
        summary = snapshot.error_summary
        errors = len(error_rows(summary))
        workers = WorkerMap(canvas, strips)
        busy = sum(strip.busy for strip in strips)
        items = min(busy, self.max_items_shown)
        if 0 < items < busy:
            items += 1  # the line that counts the others
        table = len(stages) + 1
        wishes = [
            ONE,  # bar
            ONE,  # counts
            Wish(max(min(table, canvas.height // 2), 1), table, table) if stages else NOTHING,
            _list(errors, GOOD_ERRORS, MOST_ERRORS),
            Wish(2, len(strips) + 1, workers.rows() + 1) if strips else NOTHING,
            ONE,  # header
            _list(items, GOOD_ITEMS, items, least=LEAST_ITEMS),
        ]
        _, _, for_stages, for_errors, for_workers, header, for_items = share(canvas.height, wishes)
        lines: list[Text] = []
        if header:
            lines.append(header_line(canvas, progress, self._name, workers.workers))
        lines.append(bar_line(canvas, progress))
        lines += stage_lines(canvas, stages, for_stages)
        lines += workers.lines(for_workers)
        lines += error_table(canvas, summary, for_errors)
        if for_items:
            longest = longest_running(snapshot.worker_states.values(), for_items)
            lines += item_lines(canvas, longest, busy, snapshot.timestamp, for_items)
        return [*lines, counts_line(canvas, progress)]

    def _last_frame(self, snapshot: DashboardSnapshot) -> RenderableType:
        progress = self._see(snapshot)
        return Frame(lambda canvas: _last_lines(canvas, snapshot, progress))


def _last_lines(canvas: Canvas, snapshot: DashboardSnapshot, progress: Progress) -> list[Text]:
    """What stays on the first screen: a detailed frame with the errors by type."""
    stages = list(snapshot.pipeline_stats.stage_stats.values())
    errors = _list(len(error_rows(snapshot.error_summary)), GOOD_ERRORS, MOST_ERRORS)
    table = len(stages) + 1
    wishes = [ONE, ONE, Wish(1, table, table) if stages else NOTHING, errors]
    _, _, for_stages, for_errors = share(canvas.height, wishes)
    return [
        bar_line(canvas, progress),
        *stage_lines(canvas, stages, for_stages),
        *error_table(canvas, snapshot.error_summary, for_errors),
        counts_line(canvas, progress),
    ]


def _list(entries: int, good: int, most: int, least: int = 1) -> Wish:
    """Rows for a heading and a list."""
    if not entries:
        return NOTHING
    return Wish(*(1 + min(entries, rows) for rows in (least, good, max(good, most))))
