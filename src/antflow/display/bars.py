"""The lines about a run as a whole: the bar, the header, the counts."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from antflow._core.snapshot import RunState
from antflow._monitor.view import Progress
from antflow.display.canvas import Canvas

GAP = "  "
SHORTEST_BAR = 8
STATE_WORDS: dict[RunState, str] = {
    "idle": "waiting",
    "running": "running",
    "draining": "running",
    "stopping": "stopping",
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
    pieces: list[tuple[str, str]]

    @property
    def cells(self) -> int:
        """Its width."""
        return sum(cell_len(text) for text, _ in self.pieces)


def bar_line(
    canvas: Canvas, progress: Progress, longest_bar: int | None = None, counts: bool = False
) -> Text:
    """Bar, percent, done of total, rate, elapsed; what does not fit is left out, by importance.

    Args:
        canvas: Room; one row of it is used.
        progress: What to show.
        longest_bar: Cells the bar may have; ``None`` = what is left.
        counts: Say how many are ok and failed, too.
    """
    bar = Part(1, [(" " * min(SHORTEST_BAR, longest_bar or SHORTEST_BAR), "")])
    parts = [Part(2, [(_count_of(progress), "")])]
    if progress.percent is not None:
        parts = [bar, Part(0, [(f"{progress.percent:3d}%", "bold")]), *parts]
    parts += [
        Part(3, [(f"{rate_text(progress.per_second)}/s", "cyan")]),
        Part(4, [(clock(progress.elapsed), "dim")]),
    ]
    if counts:
        parts.append(Part(-1, counts_pieces(progress)))
    kept = fitting(parts, canvas.width)
    if bar in kept:
        spare = canvas.width - _width(kept) + bar.cells
        cells = spare if longest_bar is None else min(spare, longest_bar)
        kept[kept.index(bar)] = Part(bar.rank, _bar(canvas, progress, cells))
    return _joined(canvas, kept)


def header_line(canvas: Canvas, progress: Progress, name: str, workers: int) -> Text:
    """State, name of the pipeline, workers."""
    word = STATE_WORDS.get(progress.state, progress.state)
    style = "bold green" if word in ("running", "finished") else "bold yellow"
    parts = [
        Part(0, [(f"{canvas.glyphs.dot} {word}", style)]),
        Part(1, [(canvas.crop(canvas.text(name), max(canvas.width // 2, 1)), "bold")]),
        Part(2, [(f"{workers} workers" if workers != 1 else "1 worker", "dim")]),
    ]
    return _joined(canvas, fitting(parts, canvas.width))


def counts_line(canvas: Canvas, progress: Progress) -> Text:
    """``90 ok, 10 failed``."""
    return canvas.line(counts_pieces(progress))


def counts_pieces(progress: Progress) -> list[tuple[str, str]]:
    """The counts, with failures standing out."""
    ok, *others = progress.counts.split(", ")
    pieces = [(ok, "green" if progress.ok else "")]
    for text in others:
        bad = text.endswith("failed") and progress.failed
        pieces.append((", ", ""))
        pieces.append((text, "bold red" if bad else ""))
    return pieces


def fitting(parts: list[Part], width: int) -> list[Part]:
    """The parts that fit side by side, in their order; always one."""
    possible = [part for part in parts if part.cells <= width] or parts
    kept = sorted(possible, key=lambda part: part.rank)
    while len(kept) > 1 and _width(kept) > width:
        kept.pop()
    return [part for part in parts if part in kept]


def _width(parts: list[Part]) -> int:
    return sum(part.cells for part in parts) + len(GAP) * (len(parts) - 1)


def _joined(canvas: Canvas, parts: list[Part]) -> Text:
    pieces: list[tuple[str, str]] = []
    for part in parts:
        if pieces:
            pieces.append((GAP, ""))
        pieces += part.pieces
    return canvas.line(pieces)


def _bar(canvas: Canvas, progress: Progress, cells: int) -> list[tuple[str, str]]:
    """What came out well, what did not, what is left: three glyphs, so no colour is needed."""
    ratio = progress.ratio or 0.0
    filled = int(cells * ratio + 1e-9)
    bad = 0
    if progress.failed and progress.settled:
        bad = min(max(round(filled * progress.failed / progress.settled), 1), filled)
    glyphs = canvas.glyphs
    return [
        (glyphs.done * (filled - bad), "green"),
        (glyphs.failed * bad, "red"),
        (glyphs.left * (cells - filled), "dim"),
    ]


def _count_of(progress: Progress) -> str:
    if progress.total is None:
        return f"{progress.settled:,} done"
    return f"{progress.settled:,}/{progress.total:,}"


def rate_text(per_second: float) -> str:
    """A rate with as many digits as are worth reading."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def clock(seconds: float) -> str:
    """``0:05``, ``12:30``, ``1:02:03``."""
    minutes, second = divmod(int(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
