"""The lines about stages: chips, and a table with a row per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from antflow._core.snapshot import StageStats
from antflow.display.canvas import Canvas

GAP = 2
SHORTEST_NAME = 4
LONGEST_NAME = 32


class Column(NamedTuple):
    """One column of numbers.

    Attributes:
        title: Its heading.
        rank: Importance, 0 = stays longest.
        read: What it says about a stage: text and style.
    """

    title: str
    rank: int
    read: Callable[[StageStats], tuple[str, str]]


def _queue(stage: StageStats) -> tuple[str, str]:
    if stage.capacity is None:
        return f"{stage.pending_items}", "" if stage.pending_items else "dim"
    text = f"{stage.pending_items}/{stage.capacity}"
    if stage.capacity and stage.pending_items >= stage.capacity:
        return text, "red"
    if stage.pending_items * 2 >= stage.capacity > 0:
        return text, "yellow"
    return text, "" if stage.pending_items else "dim"


def _running(stage: StageStats) -> tuple[str, str]:
    text = f"{stage.in_progress_items}/{stage.workers}"
    return text, "bold" if stage.in_progress_items else "dim"


def _number(attribute: str, style: str) -> Callable[[StageStats], tuple[str, str]]:
    def read(stage: StageStats) -> tuple[str, str]:
        number: int = getattr(stage, attribute)
        return f"{number}", style if number else "dim"

    return read


LIMITED = Column("limited", 6, _number("limited_items", "magenta"))
"""Shown from the first time that a limit made somebody wait."""

COLUMNS = (
    Column("queue", 3, _queue),
    Column("running", 1, _running),
    Column("done", 0, _number("completed_items", "green")),
    Column("failed", 2, _number("failed_items", "bold red")),
    Column("retried", 4, _number("retried_items", "yellow")),
    Column("skipped", 5, _number("skipped_items", "cyan")),
    LIMITED,
)


def stage_lines(canvas: Canvas, stages: Sequence[StageStats], rows: int) -> list[Text]:
    """The stages in at most ``rows``: a table, or one line where there is no room for a table."""
    if rows < 1 or not stages:
        return []
    if rows < min(len(stages) + 1, 3):
        return [chips_line(canvas, stages)]
    return _table(canvas, stages, rows)


def _table(canvas: Canvas, stages: Sequence[StageStats], rows: int) -> list[Text]:
    """A heading and a row per stage; stages that do not fit are counted.

    The name column gets what it needs, up to a limit; numbers give way first, by importance.
    """
    shown = stages if len(stages) < rows else stages[: rows - 2]
    names = [canvas.text(stage.stage_name) for stage in shown]
    needed = min(max(map(cell_len, ["stage", *names])), LONGEST_NAME)
    columns = [c for c in COLUMNS if c is not LIMITED or any(s.limited_seconds for s in shown)]
    widths = {column: _column_width(column, shown) for column in columns}
    while columns and needed + sum(widths[c] + GAP for c in columns) > canvas.width:
        if len(columns) == 1 and SHORTEST_NAME + widths[columns[0]] + GAP <= canvas.width:
            break  # one column and a name cut short say more than a name
        columns.remove(max(columns, key=lambda column: column.rank))
    width = min(needed, canvas.width - sum(widths[c] + GAP for c in columns))
    heading = [(canvas.pad("stage", width), "dim")]
    heading += [(f"{c.title:>{widths[c] + GAP}}", "dim") for c in columns]
    lines = [canvas.line(heading)]
    for name, stage in zip(names, shown, strict=True):
        pieces = [(canvas.pad(name, width), "cyan")]
        for column in columns:
            text, style = column.read(stage)
            pieces.append((f"{text:>{widths[column] + GAP}}", style))
        lines.append(canvas.line(pieces))
    if len(shown) < len(stages):
        lines.append(more_line(canvas, len(stages) - len(shown), "stages"))
    return lines


def _column_width(column: Column, stages: Sequence[StageStats]) -> int:
    return max([len(column.title), *(len(column.read(stage)[0]) for stage in stages)])


def more_line(canvas: Canvas, count: int, what: str) -> Text:
    """``… 12 more stages``."""
    return canvas.line([(f"{canvas.glyphs.ellipsis} {count} more {what}", "dim")])


def chips_line(canvas: Canvas, stages: Sequence[StageStats]) -> Text:
    """Every stage in a few words, on one line: the longest wording that fits."""
    chips: list[Chip] = []
    names = [canvas.text(stage.stage_name) for stage in stages]
    separator = f" {canvas.glyphs.separator} "
    for shortness in range(3):
        chips = [_chip(*pair, shortness) for pair in zip(names, stages, strict=True)]
        if _chips_width(chips, separator) <= canvas.width:
            return _chips(canvas, chips, separator)
    for count in range(len(stages) - 1, 0, -1):
        for word in (" more", ""):
            more = [(f"{canvas.glyphs.ellipsis} {len(stages) - count}{word}", "dim")]
            shown = [*chips[:count], more]
            if _chips_width(shown, separator) <= canvas.width:
                return _chips(canvas, shown, separator)
    return _chips(canvas, chips[:1], separator)


Chip = list[tuple[str, str]]


def _chip(name: str, stage: StageStats, shortness: int) -> Chip:
    busy = "bold" if stage.in_progress_items else "dim"
    chip = [(name, "cyan"), (f" {stage.in_progress_items}/{stage.workers}", busy)]
    if shortness == 0:
        chip += [(" busy", busy), (f", {stage.pending_items} queued", "dim")]
    elif shortness == 1:
        chip += [(f" +{stage.pending_items}", "dim")]
    return chip


def _chips_width(chips: list[Chip], separator: str) -> int:
    cells = sum(cell_len(text) for chip in chips for text, _ in chip)
    return cells + len(separator) * (len(chips) - 1)


def _chips(canvas: Canvas, chips: list[Chip], separator: str) -> Text:
    pieces: Chip = []
    for chip in chips:
        if pieces:
            pieces.append((separator, "dim"))
        pieces += chip
    return canvas.line(pieces)
