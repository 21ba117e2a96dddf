"""The sections of "full" between the bar and the counts: one below the other, or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from rich.text import Text

from antflow._monitor.view import View
from antflow._monitor.worker_order import WorkerStrip, longest_running
from antflow.display.bars import bottleneck_lines, stall_lines
from antflow.display.canvas import Canvas
from antflow.display.counter_lines import counter_lines
from antflow.display.failure_lines import error_table
from antflow.display.layout import NOTHING, Wish, one_of, share
from antflow.display.sparks import throughput_lines
from antflow.display.strips import WorkerMap, item_lines
from antflow.display.tables import stage_lines

FEWEST_FOR_TWO = 160
"""Cells from which on there are two columns."""

GAP = 2
MOST_WHY = 5
MOST_COUNTERS = 3
LEAST_TABLE = 3
GOOD_ERRORS = 3
MOST_ERRORS = 8
LEAST_ITEMS = 3
GOOD_ITEMS = 5
GOOD_LOG = 5
MOST_LOG = 12
CURVE = Wish(2, 2, 3)
TALLEST_CURVE = 9

FIRST = ("why", "stages", "counters", "stalls", "errors", "workers", "curve")
LAST = ("log", "items")
"""Those that give way first, from the last to the first."""

DRAWN = ("stages", "counters", "why", "stalls", "curve", "workers", "errors", "items", "log")
"""From the top to the bottom."""

LEFT = ("why", "stages", "counters", "stalls", "curve")
RIGHT = ("errors", "workers")


class Section(NamedTuple):
    """A section.

    Attributes:
        wish: Rows it would like to have.
        lines: Draws it in at most this many rows.
        whole: Rows it can fill, if rows are left when all have what they wish.
    """

    wish: Wish
    lines: Callable[[int], list[Text]]
    whole: int = 0


class Sections:
    """The sections, all as wide as a canvas.

    Args:
        canvas: Room for them.
        view: What to show.
        strips: The workers.
        log: The newest printed lines.
        most_items: Items in progress that are listed, at most.
    """

    def __init__(
        self,
        canvas: Canvas,
        view: View,
        strips: Sequence[WorkerStrip],
        log: Sequence[str],
        most_items: int,
    ) -> None:
        self._rows = canvas.height
        busy = sum(strip.busy for strip in strips)
        listed = min(busy, most_items)
        if 0 < listed < busy:
            listed += 1  # the line that counts the others

        def longest(rows: int) -> list[Text]:
            items = longest_running(view.snapshot.worker_states.values(), rows)
            return item_lines(canvas, items, busy, view.snapshot.timestamp, rows)

        workers = WorkerMap(canvas, strips)
        strip_rows = Wish(2, len(strips) + 1, workers.rows() + 1) if strips else NOTHING
        # The stage and the sentence on what holds the run back are the last to go.
        sentence = len(bottleneck_lines(canvas, view, MOST_WHY))
        sentence = min(sentence, max(canvas.height - LEAST_TABLE, 1))
        table = len(view.stages) + 1
        half = max(canvas.height // 2, LEAST_TABLE)
        least = max(min(table, half, canvas.height - sentence), 1)
        curve = CURVE if len(view.rates) > 1 else NOTHING
        errors = listing(len(view.errors), GOOD_ERRORS, MOST_ERRORS)
        self._all = {
            "why": Section(
                Wish(sentence, sentence, sentence), partial(bottleneck_lines, canvas, view)
            ),
            "stages": Section(
                Wish(least, table, table) if view.stages else NOTHING,
                partial(stage_lines, canvas, view.stages),
            ),
            "counters": Section(
                one_of(len(counter_lines(canvas, view, MOST_COUNTERS))),
                partial(counter_lines, canvas, view),
            ),
            "stalls": Section(
                one_of(len(stall_lines(canvas, view, MOST_WHY))), partial(stall_lines, canvas, view)
            ),
            "errors": Section(errors, partial(error_table, canvas, view), len(view.errors) + 1),
            "workers": Section(strip_rows, workers.lines),
            "curve": Section(curve, partial(throughput_lines, canvas, view), TALLEST_CURVE),
            "log": Section(
                listing(len(log), GOOD_LOG, MOST_LOG), partial(log_lines, canvas, log), len(log) + 1
            ),
            "items": Section(listing(listed, GOOD_ITEMS, listed, LEAST_ITEMS), longest),
        }

    def good(self, names: Iterable[str]) -> int:
        """Rows in which some of them are useful."""
        return sum(self._all[name].wish.good for name in names)

    def column(self, names: Iterable[str] = DRAWN, rows: int | None = None) -> list[Text]:
        """Some of them, one below the other; the less important give way.

        Args:
            names: Which ones.
            rows: Rows there are; ``None`` = those of the canvas.
        """
        wanted = set(names)
        wishes = [
            {name: self._all[name].wish for name in group if name in wanted}
            for group in (FIRST, LAST)
        ]
        spare = {name: self._all[name].whole for name in ("errors", "log", "curve")}
        given = share(self._rows if rows is None else rows, *wishes, spare=spare)
        lines: list[Text] = []
        for name in DRAWN:
            if given.get(name):
                lines += self._all[name].lines(given[name])
        return lines


def two_columns(
    canvas: Canvas,
    view: View,
    strips: Sequence[WorkerStrip],
    log: Sequence[str],
    most_items: int,
) -> list[Text]:
    """The sections side by side: as in `Sections`.

    The log is below both columns, over the whole width, if they leave enough rows for it.
    """
    width = (canvas.width - GAP) * 3 // 5
    left, right = (
        Sections(replace(canvas, width=cells), view, strips, log, most_items)
        for cells in (width, canvas.width - GAP - width)
    )
    on_left, on_right = {*LEFT}, {*RIGHT}
    (on_left if left.good(LEFT) <= right.good(RIGHT) else on_right).add("items")
    below = canvas.height - max(left.good(on_left), right.good(on_right))
    below = min(below, len(log) + 1) if log else 0
    if log and below <= GOOD_LOG:  # then beside the stages there are more rows for it
        below = 0
        on_left.add("items")
        on_right = {*RIGHT, "log"}
    rows = canvas.height - below
    lines = [
        _side_by_side(pair, width + GAP)
        for pair in zip_longest(left.column(on_left, rows), right.column(on_right, rows))
    ]
    return lines + (log_lines(canvas, log, canvas.height - len(lines)) if below else [])


def _side_by_side(pair: tuple[Text | None, Text | None], width: int) -> Text:
    left, right = pair
    line = Text(end="") if left is None else left
    if right is not None:
        line.append(" " * (width - line.cell_len)).append_text(right)
    return line


def log_lines(canvas: Canvas, log: Sequence[str], rows: int) -> list[Text]:
    """A heading, then the latest prints."""
    if rows < 2 or not log:
        return []
    heading = canvas.rule([("log ", "bold"), ("all of it is printed at the end", "dim")])
    return [heading, *(canvas.line([(canvas.text(line), "")]) for line in log[-(rows - 1) :])]


def listing(entries: int, good: int, most: int, least: int = 1) -> Wish:
    """Rows for a heading and a list."""
    if not entries:
        return NOTHING
    return Wish(*(1 + min(entries, rows) for rows in (least, good, max(good, most))))
