"""The lines about workers: a glyph per worker, and the workers that have been busy longest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil

from rich.cells import cell_len
from rich.text import Text

from antflow._core.snapshot import WorkerState
from antflow._core.text import clock
from antflow._monitor.worker_order import DOINGS, Cell, Doing, WorkerStrip
from antflow.display.canvas import Canvas
from antflow.display.tables import more_line

LONGEST_NAME = 20
STYLES: dict[Doing, str] = {
    "busy": "blue",
    "slow": "bold yellow",
    "retrying": "magenta",
    "limited": "magenta",
    "blocked": "cyan",
    "idle": "dim",
}
MOST_IN_PLACE = 64
"""With more workers than this in all, a stage's busy ones are drawn first: a bar, not a flicker."""


class WorkerMap:
    """The workers of all stages, a glyph for each, or for 2, 4, 8 … of them if there are few rows.

    Args:
        canvas: Room; all of its width is used.
        strips: The stages.
    """

    def __init__(self, canvas: Canvas, strips: Sequence[WorkerStrip]) -> None:
        self._canvas = canvas
        self._strips = strips
        self.workers: int = sum(len(strip.doing) for strip in strips)
        self._names = [canvas.text(strip.stage) for strip in strips]
        self._counts = [f"{strip.running:,}/{len(strip.doing):,}" for strip in strips]
        longest = min(max(map(cell_len, self._names), default=0), LONGEST_NAME)
        count_width = max(map(len, self._counts), default=0)
        self._name_width = min(longest, max(canvas.width // 3, 1))
        self._cells = max(canvas.width - self._name_width - count_width - 4, 1)

    def rows(self, per_cell: int = 1) -> int:
        """Rows it takes with this many workers per cell, without its heading."""
        return sum(
            max(ceil(len(strip.doing) / per_cell / self._cells), 1) for strip in self._strips
        )

    def lines(self, rows: int) -> list[Text]:
        """Its lines in at most ``rows``: a heading, and one or more for each stage, or for all."""
        if rows < 2:
            return []
        if len(self._strips) >= rows:
            workers: list[Doing] = []
            for strip in self._strips:
                workers.extend(strip.doing)
            busy = sum(strip.busy for strip in self._strips)
            return WorkerMap(self._canvas, [WorkerStrip("all", tuple(workers), busy)]).lines(rows)
        per_cell = 1
        while self.rows(per_cell) >= rows:
            per_cell *= 2
        lines = [self._heading(per_cell)]
        for index in range(len(self._strips)):
            lines += self._strip(index, per_cell)
        return lines

    def _heading(self, per_cell: int) -> Text:
        title = [("workers ", "bold"), (f"{self.workers:,}", "dim")]
        if per_cell > 1:
            title.append((f"  {per_cell} to a sign", "dim"))
        for doing in DOINGS:
            if count := sum(strip.doing.count(doing) for strip in self._strips):
                glyph = self._glyph(Cell(doing, 1, 1), per_cell)
                title += [(f"  {glyph} ", STYLES[doing]), (f"{count:,} {doing}", "dim")]
        return self._canvas.rule(title)

    def _strip(self, index: int, per_cell: int) -> list[Text]:
        strip = self._strips[index]
        cells = strip.cells(per_cell, by_state=self.workers > MOST_IN_PLACE)
        lines: list[Text] = []
        for start in range(0, len(cells), self._cells):
            name = "" if start else self._names[index]
            pieces = [(self._canvas.pad(name, self._name_width) + "  ", "cyan")]
            pieces += self._glyphs(cells[start : start + self._cells], per_cell)
            if not start:
                pieces.append((f"  {self._counts[index]}", "dim"))
            lines.append(self._canvas.line(pieces))
        return lines

    def _glyphs(self, cells: list[Cell], per_cell: int) -> list[tuple[str, str]]:
        """Runs of equal glyphs: few spans, however many workers."""
        pieces: list[tuple[str, str]] = []
        for cell, run in groupby(cells):
            glyph = self._glyph(cell, per_cell)
            pieces.append((glyph * len(list(run)), STYLES[cell.doing]))
        return pieces

    def _glyph(self, cell: Cell, per_cell: int) -> str:
        glyphs = self._canvas.glyphs
        if per_cell == 1 or cell.doing != "busy":
            return glyphs.doings[DOINGS.index(cell.doing)]
        return glyphs.shades[ceil(cell.at_work / cell.workers * (len(glyphs.shades) - 1))]


def item_lines(
    canvas: Canvas, workers: Sequence[WorkerState], busy: int, now: float, rows: int
) -> list[Text]:
    """A heading, then each busy worker with its item, task and time.

    Args:
        canvas: Room; all of its width is used.
        workers: Those that have been busy longest, first.
        busy: How many are busy in all.
        now: The time, in Unix seconds.
        rows: Rows there are.
    """
    room = max(rows - 1, 0)
    shown = workers[:room]
    if 1 < room < busy:
        shown = shown[: room - 1]
    if not shown:
        return []
    title = [("in progress ", "bold"), (f"{busy:,}  longest first", "dim")]
    names = [canvas.text(worker.worker_name) for worker in shown]
    times = [_busy_for(worker, now) for worker in shown]
    tasks = [canvas.text(_doing(worker)) for worker in shown]
    third = max(canvas.width // 3, 1)
    name_width = min(max(map(cell_len, names)), third)
    time_width = max(map(len, times))
    task_width = min(max(map(cell_len, tasks)), third)
    lines = [canvas.rule(title)]
    for worker, name, time, task in zip(shown, names, times, tasks, strict=True):
        pieces = [
            (canvas.pad(name, name_width), "cyan"),
            (f"{time:>{time_width}}", "bold"),
            (canvas.pad(task, task_width), "dim"),
            (canvas.text(worker.current_item_id), ""),
        ]
        lines.append(canvas.line([piece for piece in pieces if piece[0]], gap="  "))
    if len(lines) < rows and len(shown) < busy:
        lines.append(more_line(canvas, busy - len(shown), "busy"))
    return lines


def _doing(worker: WorkerState) -> str:
    """A worker's activity: waiting for a limit, else its task's status, else the task's name."""
    if worker.waits_for == "limited":
        return "waits for a limit"
    return worker.task_status or worker.current_task or ""


def _busy_for(worker: WorkerState, now: float) -> str:
    return "" if worker.processing_since is None else clock(now - worker.processing_since)
