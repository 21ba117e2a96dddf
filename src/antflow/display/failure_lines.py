"""The lines about failures: each kind, and the last ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from antflow._core.snapshot import FailedItem
from antflow._monitor.view import ErrorRow, View
from antflow.display.canvas import Canvas, joined
from antflow.display.numbers import ago_text
from antflow.display.tables import more_line

LONGEST_ID = 24
FEWEST_FOR_AGES = 70
"""Columns: on a narrower terminal the message needs all of them."""

FEWEST_FOR_STAGES = 110
"""Columns: on a narrower terminal the line of code, where it is known, stands for the stage."""


def error_table(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """A heading, then a row per kind: how often, where, when and what the newest was."""
    errors = view.errors
    if rows < 2 or not errors:
        return []
    failed = view.snapshot.error_summary.total_failed
    heading = canvas.rule([("errors ", "bold"), (f"{failed:,}  by place, newest first", "dim")])
    if rows == 2 and len(errors) > 1:
        return [heading, errors_line(canvas, errors)]
    shown = errors if len(errors) < rows else errors[: rows - 2]
    count_width = max(len(f"{error.count:,}") for error in shown)
    counts = [[(f"{error.count:>{count_width},}", "bold red")] for error in shown]
    types = [error.error_type for error in shown]
    items = [error.shown for error in shown]
    now = None if view.is_over else view.snapshot.timestamp
    lines = [heading, *_failure_lines(canvas, types, items, counts, now)]
    if len(shown) < len(errors):
        lines.append(more_line(canvas, len(errors) - len(shown), "kinds"))
    return lines


def last_failures(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """The last failed items, oldest first; the newest is nearest to the prompt."""
    items = view.snapshot.error_summary.failed_items[-rows:] if rows > 0 else []
    return _failure_lines(canvas, [item.error_type for item in items], items)


def _failure_lines(
    canvas: Canvas,
    types: Sequence[str],
    items: Sequence[FailedItem | None],
    before: Sequence[list[tuple[str, str]]] = (),
    now: float | None = None,
) -> list[Text]:
    """A line per failure: type, stage, line of code, age, item and message, in columns."""
    names = [canvas.text(name) for name in types]
    places = ["" if item is None else canvas.text(item.location) for item in items]
    stages = ["" if item is None else canvas.text(item.stage) for item in items]
    if canvas.width < FEWEST_FOR_STAGES:
        places = [place or stage for place, stage in zip(places, stages, strict=True)]
        stages = [""] * len(items)
    name_width = min(max(map(cell_len, names), default=0), max(canvas.width // 3, 1))
    stage_width = min(max(map(cell_len, stages), default=0), max(canvas.width // 5, 1))
    share = 2 if canvas.width < FEWEST_FOR_STAGES else 3  # a line of code tells more than the rest
    place_width = min(max(map(cell_len, places), default=0), max(canvas.width // share, 1))
    ages = ["" if not now or item is None else ago_text(now - item.timestamp) for item in items]
    age_width = max(map(len, ages), default=0) if canvas.width >= FEWEST_FOR_AGES else 0
    lines: list[Text] = []
    for index, item in enumerate(items):
        pieces = [*(before[index] if before else ()), (canvas.pad(names[index], name_width), "red")]
        if item is not None:
            item_id = canvas.crop(canvas.text(item.item_id), LONGEST_ID)
            if stage_width:
                pieces.append((canvas.pad(stages[index], stage_width), "cyan"))
            if place_width:
                # Its end is the file, the line and the function.
                place = canvas.crop_start(places[index], place_width)
                pieces.append((canvas.pad(place, place_width), "cyan"))
            if age_width:
                pieces.append((f"{ages[index]:>{age_width}}", "dim"))
            pieces.append((told(item_id, canvas.text(item.error)), ""))
        lines.append(canvas.line(pieces, gap="  "))
    return lines


def errors_line(canvas: Canvas, errors: Sequence[ErrorRow]) -> Text:
    """``TimeoutError 7, ValueError 3``, then where the newest is from, and it, on one line."""
    counts: Counter[str] = Counter()
    for error in errors:
        counts[error.error_type] += error.count
    texts = [f"{canvas.text(name)} {count:,}" for name, count in counts.items()]
    pieces = joined(([(text, "red")] for text in texts), ", ", "dim")
    newest = errors[0].shown if errors else None
    if newest is not None:
        text = told(canvas.text(newest.item_id), canvas.text(newest.error))
        if newest.location:
            pieces.append((f" {canvas.glyphs.separator} {canvas.text(newest.location)}", "dim"))
        pieces.append((f" {canvas.glyphs.separator} {text}", "dim"))
    return canvas.line(pieces)


def told(item_id: str, message: str) -> str:
    """``7: no answer``; an error may have no text."""
    return f"{item_id}: {message}" if message else item_id
