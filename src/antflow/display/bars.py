"""The lines about a run as a whole: the bar, the header, the bottleneck, the counts."""

from __future__ import annotations

import re
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from antflow._core.journal_state import journal_trouble
from antflow._core.sink_counts import lost_text
from antflow._core.snapshot import LoopStall, RunState
from antflow._core.text import clock, counted, safe_str
from antflow._monitor.progress import Progress
from antflow._monitor.view import UNNAMED, View
from antflow.display.canvas import Canvas, Pieces, joined
from antflow.display.numbers import duration_text, eta_text, rate_text

_FOLDER = re.compile(r"^.*[/\\]")

GAP = "  "
SHORTEST_BAR = 8
LONGEST_ID = 80
ROOM_TO_COUNT = 60
"""Cells of a line in which there is room for the number of items in flight."""

ROOM_FOR_BLOCK = 30
"""Cells in which a line says at least that the event loop is blocked, and for how long."""

STALL_SHOWN = 30.0
"""Seconds for which a block of the event loop is shown."""

LOOP_BUSY = 0.8
"""Share of its time at work from which the event loop has hardly any to spare."""

LEAST_LOOP = 0.005
"""Less is not worth a word."""

STATE_WORDS: dict[RunState, str] = {
    "idle": "waiting",
    "running": "running",
    "paused": "paused",
    "draining": "running",
    "stopping": "draining",
    "cancelling": "cancelling",
    "finished": "finished",
}


class Part(NamedTuple):
    """A part of a line that may be left out.

    Attributes:
        rank: Importance, 0 = stays longest.
        pieces: Its text, as ``(text, style)``.
    """

    rank: int
    pieces: Pieces

    @property
    def cells(self) -> int:
        """Its width."""
        return sum(cell_len(text) for text, _ in self.pieces)


def bar_line(
    canvas: Canvas,
    view: View,
    longest_bar: int | None = None,
    counts: bool = False,
    named: bool = True,
    loop: bool = False,
) -> Text:
    """Name, bar, percent, done of total, rate, time left, time gone; what does not fit is left out.

    Args:
        canvas: Where to draw; one row is used.
        view: What to show.
        longest_bar: Cells the bar may have; ``None`` = the rest.
        counts: Show how many are ok and failed, too.
        named: Show the pipeline's name, if it was given one.
        loop: Show how busy the event loop is.
    """
    progress = view.progress
    bar = Part(1, [(" " * min(SHORTEST_BAR, longest_bar or SHORTEST_BAR), "")])
    parts = [Part(3, [(progress.count, "")])]
    if progress.percent is not None:
        parts = [bar, Part(0, [(f"{progress.percent:3d}%", "bold")]), *parts]
    parts.append(Part(4, [(f"{rate_text(progress.per_second)}/s", "cyan")]))
    if view.eta is not None:
        left = eta_text(view.eta, canvas.glyphs.dash)
        parts.append(Part(2, [("ETA ", "dim"), (left, "bold")]))
        if view.eta.waits_for:
            parts.append(Part(6, [(f"({view.eta.waits_for})", "dim")]))
    parts.append(Part(5, [(clock(progress.elapsed), "dim")]))
    if loop:
        parts += _loop(canvas, view, 7)
    if counts:
        parts.append(Part(-1, counts_pieces(progress)))
        parts += _lost(canvas, view, 1)
    if named and progress.state in ("paused", "stopping", "cancelling"):
        parts.insert(0, Part(1, [(state_text(progress, canvas.width), "bold")]))
    if named and view.name != UNNAMED:
        shown = canvas.crop(canvas.text(view.name), max(canvas.width // 4, 1))
        parts.insert(0, Part(6, [(shown, "bold")]))
    kept = fitting(parts, canvas.width)
    if bar in kept:
        spare = canvas.width - _width(kept) + bar.cells
        cells = spare if longest_bar is None else min(spare, longest_bar)
        kept[kept.index(bar)] = Part(bar.rank, _bar(canvas, progress, cells))
    return canvas.line(joined((part.pieces for part in kept), GAP))


def header_line(canvas: Canvas, view: View, workers: int) -> Text:
    """State, name of the pipeline, number of workers, and whether the event loop gets its turns."""
    word = state_text(view.progress, canvas.width)
    style = "bold green" if word in ("running", "finished") else "bold yellow"
    parts = [
        Part(0, [(canvas.glyphs.dot, style), (f" {word}", "bold")]),
        Part(1, [(canvas.crop(canvas.text(view.name), max(canvas.width // 2, 1)), "bold")]),
        Part(2, [(counted(workers, "worker"), "dim")]),
    ]
    parts += _loop(canvas, view, 3)
    if view.loop.lag >= 0.001 and not view.is_over:
        late = view.loop.lag >= 0.05
        text = f"event loop {duration_text(view.loop.lag)} late"
        parts.append(Part(3, [(text, "bold" if late else "dim")]))
    kept = fitting(parts, canvas.width)
    return canvas.line(joined((part.pieces for part in kept), GAP))


def _loop(canvas: Canvas, view: View, rank: int) -> list[Part]:
    """``loop 42%``: how busy the event loop is, while it has something to do."""
    if view.is_over or view.loop_busy < LEAST_LOOP:
        return []
    if view.loop_busy < LOOP_BUSY:
        return [Part(rank, [(loop_text(view), "dim")])]
    return [Part(rank, [(f"{canvas.glyphs.warning} {loop_text(view)}", "bold yellow")])]


def loop_text(view: View) -> str:
    """``loop 42%``."""
    return f"loop {view.loop_busy:.0%}"


def state_text(progress: Progress, width: int | None = None) -> str:
    """The run's state; while it is being stopped ``draining: 3 in flight, 0:12``.

    Args:
        progress: How far the run is.
        width: Cells of the line: of a narrow one, the word alone is enough.
    """
    word = STATE_WORDS.get(progress.state, "running")
    if progress.state != "stopping" or (width is not None and width < ROOM_TO_COUNT):
        return word
    return f"{word}: {progress.stats.items_in_flight:,} in flight, {clock(progress.draining)}"


def bottleneck_lines(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """The bottleneck, in a sentence on up to ``rows`` lines."""
    sentence = view.advice.sentence
    return _marked(canvas, canvas.glyphs.marker, "yellow", sentence, rows) if sentence else []


def stall_lines(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """A line about a recent block of the event loop, and its cause."""
    stall = view.loop.last_stall
    if stall is None or view.is_over or view.advice.lever == "loop":
        return []  # or the sentence about the bottleneck says it
    if view.snapshot.timestamp - stall.timestamp > STALL_SHOWN:
        return []
    return _marked(canvas, canvas.glyphs.warning, "bold red", stall_text(stall), rows)


def _marked(canvas: Canvas, marker: str, style: str, sentence: str, rows: int) -> list[Text]:
    """A sentence on up to ``rows`` lines.

    Only its marker is coloured: there is no colour that can be read on every background.
    """
    lines = canvas.wrapped(f"{marker} {sentence}", rows)
    for line in lines[:1]:
        line.stylize(style, 0, len(marker))
    return lines


def blocked_line(canvas: Canvas, progress: Progress, stall: LoopStall, elapsed: float) -> Text:
    """A line instead of the bar while the event loop is blocked: nothing in it stands still.

    Args:
        canvas: Where to draw; one row is used.
        progress: How far the run was when it began.
        stall: The block that goes on.
        elapsed: Seconds since the run began.
    """
    done = progress.count
    if progress.percent is not None:
        done = f"{progress.percent}%{GAP}{done}"
    gone = Part(1, [(clock(elapsed), "dim")])
    room = canvas.width - gone.cells - len(GAP)
    if room < ROOM_FOR_BLOCK:
        room = canvas.width
    mark = canvas.glyphs.warning
    text = canvas.text(f" {block_text(stall)}")
    if cell_len(mark + text) > room:
        text = canvas.text(f" {block_text(stall, with_folder=False)}")
    text = canvas.crop(text, max(room - len(mark), 0))
    parts = [Part(0, [(mark, "bold red"), (text, "bold")]), Part(2, [(done, "")]), gone]
    return canvas.line(joined((part.pieces for part in fitting(parts, canvas.width)), GAP))


def block_text(stall: LoopStall, *, with_folder: bool = True) -> str:
    """``event loop blocked for 0:07 by stage Parse at app.py:41 in parse: sleep(20)``."""
    text = f"event loop blocked for {clock(stall.seconds)}"
    if stall.stage:
        text += f" by stage {stall.stage}"
    if stall.location:
        text += f" at {stall.location if with_folder else _FOLDER.sub('', stall.location)}"
    return f"{text}: {stall.line}" if stall.line else text


def stall_text(stall: LoopStall) -> str:
    """``event loop blocked for 0.45s by Parse-W0 on item 7 at app.py:41 in parse: sleep(1)``."""
    text = f"event loop blocked for {duration_text(stall.seconds)}"
    if stall.worker_name:
        text += f" by {stall.worker_name} on item {safe_str(stall.item_id)[:LONGEST_ID]}"
    if stall.location:
        text += f" at {stall.location}"
    return f"{text}: {stall.line}" if stall.line else text


def counts_line(canvas: Canvas, view: View) -> Text:
    """``90 ok, 10 failed``, how many were resumed, and what is wrong with sinks and journal."""
    parts = [Part(0, counts_pieces(view.progress)), *_resumed(view, 2), *_lost(canvas, view, 1)]
    return canvas.line(joined((part.pieces for part in fitting(parts, canvas.width)), GAP))


def _lost(canvas: Canvas, view: View, rank: int) -> list[Part]:
    """``⚠ JsonlSink lost 1,234 events``, if it has; the same for a journal that is stalled."""
    snapshot = view.snapshot
    texts = [canvas.text(journal_trouble(snapshot.journal)), canvas.text(lost_text(snapshot.sinks))]
    mark = canvas.glyphs.warning
    return [Part(rank, [(f"{mark} {text}", "bold yellow")]) for text in texts if text]


def _resumed(view: View, rank: int) -> list[Part]:
    """``7 resumed``, if some were."""
    resumed = view.snapshot.pipeline_stats.items_resumed
    return [Part(rank, [(f"{resumed:,} resumed", "dim")])] if resumed else []


def counts_pieces(progress: Progress) -> Pieces:
    """The counts, with failures standing out."""
    ok, *others = progress.counts.split(", ")
    groups = [[(ok, "green" if progress.stats.items_processed else "")]]
    for text in others:
        bad = text.endswith("failed") and progress.stats.items_failed
        groups.append([(text, "bold red" if bad else "")])
    return joined(groups, ", ")


def fitting(parts: list[Part], width: int) -> list[Part]:
    """The parts that fit side by side, in their order; always one."""
    possible = [part for part in parts if part.cells <= width] or parts
    kept = sorted(possible, key=lambda part: part.rank)
    while len(kept) > 1 and _width(kept) > width:
        kept.pop()
    return [part for part in parts if part in kept]


def _width(parts: list[Part]) -> int:
    return sum(part.cells for part in parts) + len(GAP) * (len(parts) - 1)


def _bar(canvas: Canvas, progress: Progress, cells: int) -> Pieces:
    """Items ok, failed, left: three glyphs, so no colour is needed."""
    ratio = progress.ratio or 0.0
    filled = int(cells * ratio + 1e-9)
    bad, failed = 0, progress.stats.items_failed
    if failed and progress.settled:
        bad = min(max(round(filled * failed / progress.settled), 1), filled)
    glyphs = canvas.glyphs
    return [
        (glyphs.done * (filled - bad), "green"),
        (glyphs.failed * bad, "red"),
        (glyphs.left * (cells - filled), "dim"),
    ]
