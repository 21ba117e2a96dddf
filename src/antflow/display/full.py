"""``dashboard="full"``: the whole terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text

from antflow._core.checks import check_count
from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import View
from antflow._monitor.worker_order import worker_strips
from antflow.display.bars import bar_line, bottleneck_lines, counts_line, header_line
from antflow.display.base import BaseDashboard
from antflow.display.canvas import Canvas, Frame
from antflow.display.counter_lines import counter_lines
from antflow.display.failure_lines import error_table
from antflow.display.layout import NOTHING, ONE, Wish, one_of, share
from antflow.display.sections import (
    CURVE,
    FEWEST_FOR_TWO,
    GOOD_ERRORS,
    MOST_COUNTERS,
    MOST_ERRORS,
    MOST_WHY,
    Sections,
    listing,
    two_columns,
)
from antflow.display.sparks import throughput_lines
from antflow.display.tables import stage_lines

MOST_PRINTED = 200
FEWEST_WITH_HEADER = 5
"""Rows beside the advice: with fewer, the bar says the state of the run."""


class FullDashboard(BaseDashboard):
    """The whole terminal: stages, rate over time, every worker, errors, log, items in progress.

    While it runs it is on the alternate screen; prints are shown in its log meanwhile, and all of
    them appear when the run ends, above the last frame, which is a detailed one with the errors by
    type.

    From 160 columns on, there are two columns: the stages on the left, the workers on the right.
    If there are few rows, sections give way in this order: items in progress, the log, then the
    rate over time, workers (a cell stands for 2, 4, 8 … of them), errors (in one line), then
    stages. The bottleneck and the advice stay longest.

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
        log = self._printed(MOST_PRINTED)
        return Frame(lambda canvas: self._compose(canvas, view, log))

    def _compose(self, canvas: Canvas, view: View, log: Sequence[str]) -> list[Text]:
        self._bar_row = 0
        if canvas.height < 2:
            return [bar_line(canvas, view, counts=True)]
        strips = worker_strips(view.snapshot)
        lines: list[Text] = []
        sentence = len(bottleneck_lines(canvas, view, MOST_WHY))
        if canvas.height >= sentence + FEWEST_WITH_HEADER:
            lines.append(header_line(canvas, view, sum(len(strip.doing) for strip in strips)))
        self._bar_row = len(lines)
        lines.append(bar_line(canvas, view, named=not lines))
        room = replace(canvas, height=canvas.height - len(lines) - 1)
        if canvas.width < FEWEST_FOR_TWO:
            lines += Sections(room, view, strips, log, self.max_items_shown).column()
        else:
            lines += two_columns(room, view, strips, log, self.max_items_shown)
        return [*lines, counts_line(canvas, view)]

    def _last_frame(self, snapshot: DashboardSnapshot) -> RenderableType:
        view = self._see(snapshot)
        return Frame(lambda canvas: _last_lines(canvas, view))


def _last_lines(canvas: Canvas, view: View) -> list[Text]:
    """The frame left on the first screen: a detailed one with the errors by type."""
    errors = listing(len(view.errors), GOOD_ERRORS, MOST_ERRORS)
    why = bottleneck_lines(canvas, view, MOST_WHY)
    table = len(view.stages) + 1
    wishes = {
        "bar": ONE,
        "counts": ONE,
        "why": one_of(len(why)),
        "stages": Wish(1, table, table) if view.stages else NOTHING,
        "counters": one_of(len(counter_lines(canvas, view, MOST_COUNTERS))),
        "errors": errors,
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
        counts_line(canvas, view),
    ]
