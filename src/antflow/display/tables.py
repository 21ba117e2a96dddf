"""The lines about stages: chips, and a table with a row per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from antflow._core.text import counted
from antflow._monitor.view import StageView
from antflow.display.canvas import Canvas, Pieces, joined
from antflow.display.numbers import count_text, duration_text, rate_text

GAP = 2
SHORTEST_NAME = 5
LONGEST_NAME = 32
SHORTEST_ADVICE = 12
GAUGE_CELLS = 5
BUSY_CELLS = 8


class Column(NamedTuple):
    """One column of numbers.

    Attributes:
        title: Its heading.
        rank: Importance, 0 = stays longest.
        read: Its entry for a stage.
        is_wanted: Whether it has an entry for a stage; it is shown only if it has at least one.
        lead: The part before that, at the left of the column: always equally wide.
    """

    title: str
    rank: int
    read: Callable[[Canvas, StageView], Pieces]
    is_wanted: Callable[[StageView], bool] = lambda _: True
    lead: Callable[[Canvas, StageView], Pieces] = lambda _, __: []


def _queue(canvas: Canvas, stage: StageView) -> Pieces:
    stats = stage.stats
    text = count_text(stats.pending_items)
    if stats.capacity and not stage.is_over:  # then nothing waits for room
        text += f"/{count_text(stats.capacity)}"
    return [(text, "" if stats.pending_items else "dim")]


def _gauge(canvas: Canvas, stage: StageView) -> Pieces:
    """How full its queue is: a bar of a few cells, empty if its room is unbounded."""
    stats, cells, levels = stage.stats, GAUGE_CELLS, canvas.glyphs.levels
    if not stats.capacity:
        return [(" " * (cells + 1), "")]
    full, style = _fullness(stage)
    steps = len(levels) - 1
    # Eighths of a cell stand upright: the last cell rises while it fills.
    whole, part = divmod(max(round(full * cells * steps), 1 if full > 0 else 0), steps)
    bar = levels[-1] * whole + (levels[part] if part else "")
    return [(bar, style), (canvas.glyphs.shades[0] * (cells - len(bar)) + " ", "dim")]


def _fullness(stage: StageView) -> tuple[float, str]:
    """How full a queue is, from 0 to 1, and its colour.

    That of the first stage is full whenever the source has more: that is how it should be.
    """
    full = min(stage.stats.pending_items / (stage.stats.capacity or 1), 1.0)
    alarming = "red" if full >= 0.9 else "yellow" if full >= 0.5 else "green"
    return full, "green" if stage.is_first else alarming


def _running(canvas: Canvas, stage: StageView) -> Pieces:
    stats = stage.stats
    text = f"{stats.running_workers:,}/{stats.workers:,}"
    where = [(f" on {counted(stats.nodes, 'node')}", "dim")] if stats.nodes else []
    return [(text, "bold" if stats.running_workers else "dim"), *where]


def _waiting(canvas: Canvas, stage: StageView) -> Pieces:
    """How many workers wait, and for what."""
    stats = stage.stats
    counts = {
        "room": stats.blocked_workers,
        "limit": stats.limited_workers,
        "retry": stats.retrying_workers,
    }
    text = " ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return [(text or "0", "" if text else "dim")]


def _waits(stage: StageView) -> bool:
    """Whether its workers have ever waited: a column that comes and goes cannot be read."""
    stats = stage.stats
    return stats.blocked_seconds + stats.limited_seconds + stats.retry_waiting_seconds > 0


def _batches(canvas: Canvas, stage: StageView) -> Pieces:
    """How many batches, and how many items they had on average."""
    stats = stage.stats
    if not stats.batches:
        return [("", "")]
    size = f"{stats.batched_items / stats.batches:.1f}".removesuffix(".0")
    return [(f"{count_text(stats.batches)}{canvas.glyphs.times}{size}", "")]


def _number(attribute: str, style: str) -> Callable[[Canvas, StageView], Pieces]:
    def read(canvas: Canvas, stage: StageView) -> Pieces:
        number: int = getattr(stage.stats, attribute)
        return [(count_text(number), style if number else "dim")]

    return read


def _duration(quantile: str) -> Callable[[Canvas, StageView], Pieces]:
    def read(canvas: Canvas, stage: StageView) -> Pieces:
        return [(duration_text(getattr(stage.recent.run_times, quantile)), "")]

    return read


def _wait(canvas: Canvas, stage: StageView) -> Pieces:
    return [(duration_text(stage.recent.queue_waits.p95), "dim")]


def _rate(canvas: Canvas, stage: StageView) -> Pieces:
    return [(f"{rate_text(stage.per_second)}/s", "cyan" if stage.per_second else "dim")]


def _busy(canvas: Canvas, stage: StageView) -> Pieces:
    return [(f"{stage.recent.busy:.0%}", "")]


def _busy_bar(canvas: Canvas, stage: StageView) -> Pieces:
    glyphs = canvas.glyphs
    done = round(stage.recent.busy * BUSY_CELLS)
    style = "yellow" if stage.is_bottleneck else "blue"
    return [(glyphs.done * done, style), (glyphs.left * (BUSY_CELLS - done) + " ", "dim")]


def _share(name: str) -> Callable[[Canvas, StageView], Pieces]:
    def read(canvas: Canvas, stage: StageView) -> Pieces:
        share: float = getattr(stage.recent, name)
        return [(f"{share:.0%}", "" if share >= 0.005 else "dim")]

    return read


def _has(attribute: str) -> Callable[[StageView], bool]:
    return lambda stage: bool(getattr(stage.stats, attribute))


COLUMNS = (
    Column("queue", 3, _queue, lead=_gauge),
    Column("running", 1, _running),
    Column("waiting", 10, _waiting, _waits),
    Column("in", 11, _number("entered_items", "")),
    Column("inside", 11, _number("inside_items", "")),
    Column("done", 0, _number("through_items", "green")),
    Column("made", 2, _number("made_items", "green"), _has("made_items")),
    Column("failed", 2, _number("failed_items", "bold red")),
    Column("dropped", 3, _number("dropped_items", "cyan"), _has("dropped_items")),
    Column("cancelled", 4, _number("cancelled_items", ""), _has("cancelled_items")),
    Column("retried", 6, _number("retried_items", ""), _has("retried_items")),
    Column("skipped", 8, _number("skipped_items", "cyan"), _has("skipped_items")),
    Column("batches", 8, _batches, _has("batches")),
    Column("p50", 7, _duration("p50")),
    Column("p95", 4, _duration("p95")),
    Column("rate", 5, _rate),
    Column("busy", 9, _busy, lead=_busy_bar),
    Column("p99", 12, _duration("p99")),
    Column("wait p95", 11, _wait, lambda stage: bool(stage.stats.queue_waits.p95)),
    Column("starved", 12, _share("starved")),
    Column("blocked", 12, _share("blocked")),
    Column("limited", 10, _share("limited"), _has("limited_seconds")),
    Column("retrying", 12, _share("retrying"), _has("retry_waiting_seconds")),
    Column("stalled", 12, _share("stalled"), _has("stalled_seconds")),
)
ADVICE_RANK = 10
"""A column of this rank or above gives way to the advice."""


def stage_lines(canvas: Canvas, stages: Sequence[StageView], rows: int) -> list[Text]:
    """The stages in at most ``rows``: a table, or a few words each if there is no room for one."""
    if rows < 1 or not stages:
        return []
    if rows < min(len(stages) + 1, 3):
        return chips_lines(canvas, stages, rows)
    return _table(canvas, stages, rows)


def _most_important(stages: Sequence[StageView], count: int) -> list[int]:
    """The places of those shown where there is room for some: the bottleneck is the last to go."""
    places = range(len(stages))
    ranked = sorted(places, key=lambda n: (not stages[n].is_bottleneck, not stages[n].is_chosen, n))
    return sorted(ranked[:count])


def _table(canvas: Canvas, stages: Sequence[StageView], rows: int) -> list[Text]:
    """A heading and a row per stage; those without room are counted, the bottleneck is shown."""
    count = len(stages) if len(stages) < rows else rows - 2
    shown = [stages[place] for place in _most_important(stages, count)]
    names = [canvas.text(stage.stats.stage_name) for stage in shown]
    needed = 1 + min(max(map(cell_len, ["stage", *names])), LONGEST_NAME)
    columns = _columns_that_fit(canvas, shown, needed)
    width = min(needed, canvas.width - _widths(columns))
    heading: Pieces = [(canvas.pad(" stage", width), "dim")]
    heading += [(f"{each.column.title:>{each.width}}", "dim") for each in columns]
    lines = [canvas.line(heading)]
    room = canvas.width - width - _widths(columns) - GAP
    for index, (stage, name) in enumerate(zip(shown, names, strict=True)):
        pieces = _name(canvas, stage, name, width)
        for each in columns:
            pieces += each.cell(index)
        words = canvas.text(stage.hint)
        if words and cell_len(words) <= room:  # cut off they say nothing
            pieces.append((" " * GAP + words, "bold" if stage.is_bottleneck else "dim"))
        lines.append(canvas.line(pieces))
    if len(shown) < len(stages):
        lines.append(more_line(canvas, len(stages) - len(shown), "stages"))
    return lines


class _Filled:
    """A column with its entries for some stages.

    Attributes:
        width: Its width, with the gap before it.
    """

    def __init__(self, canvas: Canvas, column: Column, stages: Sequence[StageView]) -> None:
        self.column = column
        self._leads = [column.lead(canvas, stage) for stage in stages]
        self._cells = [column.read(canvas, stage) for stage in stages]
        widest = max(map(_width, self._leads)) + max(map(_width, self._cells))
        self.width: int = GAP + max(len(column.title), widest)

    def cell(self, index: int) -> Pieces:
        """Its entry for one of them: the lead at the left, the rest at the right."""
        lead, text = self._leads[index], self._cells[index]
        between = self.width - GAP - _width(lead) - _width(text)
        return [(" " * GAP, ""), *lead, (" " * between, ""), *text]


def _columns_that_fit(canvas: Canvas, stages: Sequence[StageView], name: int) -> list[_Filled]:
    """The columns beside a name of this many cells: the least important give way first."""
    wanted = [column for column in COLUMNS if any(map(column.is_wanted, stages))]
    columns = [_Filled(canvas, column, stages) for column in wanted]
    longest = max(cell_len(canvas.text(stage.hint)) for stage in stages)
    advice = GAP + min(max(longest, SHORTEST_ADVICE), LONGEST_NAME)
    while columns:
        least = max(columns, key=lambda each: each.column.rank)
        more = advice if least.column.rank >= ADVICE_RANK else 0
        if name + _widths(columns) + more <= canvas.width:
            break
        if len(columns) == 1 and SHORTEST_NAME + _widths(columns) <= canvas.width:
            break  # one column and a cropped name say more than a name
        columns.remove(least)
    return columns


def _widths(columns: Sequence[_Filled]) -> int:
    return sum(each.width for each in columns)


def _name(canvas: Canvas, stage: StageView, name: str, width: int) -> Pieces:
    if stage.is_chosen:
        return [(canvas.pad(f"{canvas.glyphs.chosen}{name}", width), "bold reverse")]
    if stage.is_bottleneck:
        marker = canvas.glyphs.marker
        return [(marker, "bold yellow"), (canvas.pad(name, width - len(marker)), "bold")]
    return [(canvas.pad(f" {name}", width), "cyan")]


def _width(pieces: Pieces) -> int:
    return sum(cell_len(text) for text, _ in pieces)


def more_line(canvas: Canvas, count: int, what: str) -> Text:
    """``… 12 more stages``."""
    return canvas.line([(f"{canvas.glyphs.ellipsis} {count:,} more {what}", "dim")])


def chips_lines(canvas: Canvas, stages: Sequence[StageView], rows: int) -> list[Text]:
    """Every stage in a few words, on few lines: the longest wording that fits.

    Args:
        canvas: Where to draw.
        stages: The stages.
        rows: Most lines; the shortest wording comes before a second line.
    """
    names = [canvas.text(stage.stats.stage_name) for stage in stages]
    chips: list[Pieces] = []
    wordings: list[list[Text]] = []
    for shortness in range(4):
        chips = [_chip(canvas, *pair, shortness) for pair in zip(names, stages, strict=True)]
        wordings.append(_lined_up(canvas, chips))
    fewest = min(map(len, wordings))
    if fewest <= rows:
        return next(lines for lines in wordings if len(lines) == fewest)
    for count in range(len(stages) - 1, 0, -1):
        shown = [chips[place] for place in _most_important(stages, count)]
        for word in (" more", ""):
            more = [(f"{canvas.glyphs.ellipsis} {len(stages) - count:,}{word}", "dim")]
            if len(lines := _lined_up(canvas, [*shown, more])) <= rows:
                return lines
    (place,) = _most_important(stages, 1)
    return [canvas.line(chips[place])]


def _lined_up(canvas: Canvas, chips: list[Pieces]) -> list[Text]:
    """Chips side by side, on as many lines as they need."""
    separator = f" {canvas.glyphs.separator} "
    lines: list[list[Pieces]] = [[]]
    room = canvas.width
    for chip in chips:
        cells = _width(chip)
        if lines[-1] and cells + len(separator) > room:
            lines.append([])
            room = canvas.width
        room -= cells + (len(separator) if lines[-1] else 0)
        lines[-1].append(chip)
    return [canvas.line(joined(line, separator, "dim")) for line in lines]


def _chip(canvas: Canvas, name: str, stage: StageView, shortness: int) -> Pieces:
    stats = stage.stats
    running = "bold" if stats.running_workers else "dim"
    chip: Pieces = [(name, "cyan")]
    if stage.is_chosen:
        chip = [(f"{canvas.glyphs.chosen}{name}", "bold reverse")]
    elif stage.is_bottleneck:
        chip = [(canvas.glyphs.marker, "bold yellow"), (name, "bold")]
    chip.append((f" {stats.running_workers:,}/{stats.workers:,}", running))
    if shortness == 0:
        chip += [(" running", running), (f", {count_text(stats.pending_items)} queued", "dim")]
        if stats.dropped_items:
            chip.append((f", {count_text(stats.dropped_items)} dropped", "dim"))
    elif shortness == 1:
        chip += [(f" +{count_text(stats.pending_items)}", "dim")]
    if shortness < 3 and stats.capacity:
        full, full_style = _fullness(stage)
        level = canvas.glyphs.levels[round(full * (len(canvas.glyphs.levels) - 1))]
        chip.append((f" {level}", full_style))
    return chip
