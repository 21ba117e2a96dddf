"""Drawing on a terminal, and leaving it as it was found.

A `LiveArea` is the last lines of the screen: what others print goes above it, and its last frame
stays. An `AlternateScreen` is the whole of a second screen: what others print is kept, and printed
when the first screen is back.

A frame is rendered by a rich console into lines, and only the lines that differ from the last frame
are written, all in one write. Nothing is ever wider or taller than the terminal, whose size is
asked for each time. The cursor rests at the start of the last line, so that nothing scrolls and the
``^C`` of a keyboard ends up where the next frame repairs it. Nothing is drawn unasked: there is no
thread, no timer.

Locks: `print_above` is called from any thread that prints, mostly while a log handler holds its own
lock. So the capture is started and stopped, which takes those, while the lock here is free.
"""

from __future__ import annotations

import atexit
import os
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from threading import RLock
from typing import NamedTuple, TextIO

from rich.cells import cell_len
from rich.console import COLOR_SYSTEMS, Console, RenderableType
from rich.segment import Segment

from antflow.display.capture import Capture
from antflow.display.stream import SafeStream

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"
ENTER_SCREEN = "\x1b[?1049h"
LEAVE_SCREEN = "\x1b[?1049l"
PLAIN = "\x1b[0m"
ERASE_LINE_END = "\x1b[K"
ERASE_BELOW = "\x1b[J"

FRAMES_UNTIL_REPAIR = 20
"""Every so many frames all lines are written, in case somebody else wrote to the terminal."""

MOST_LINES_KEPT = 1000
"""Printed lines that are kept while the alternate screen is up."""


class Row(NamedTuple):
    """A line: as it is written, its width in cells, and what it says."""

    text: str
    cells: int
    plain: str


class Terminal(ABC):
    """What both ways of drawing share.

    Args:
        stream: Standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._out = SafeStream(stream)
        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, force_jupyter=False)
        self._colors = COLOR_SYSTEMS.get(self._console.color_system or "")
        self._capture = Capture(self.print_above)
        self._lock = RLock()
        self._drawn: list[Row] = []
        self._size = (0, 0)
        self._frames = 0
        self._is_open = False

    @property
    def can_draw(self) -> bool:
        """Whether it understands escape sequences. Old consoles of Windows do not."""
        return not self._console.legacy_windows

    @property
    def colors(self) -> str:
        """What colors it has, as far as it tells: "truecolor", "256", "standard" or "none"."""
        return (not self._console.no_color and self._console.color_system) or "none"

    def open(self) -> None:
        """Begin."""
        self._is_open = True
        atexit.register(self.close)
        self._capture.start()
        with self._lock:
            self._out.write(self._opening())

    def draw(self, renderable: RenderableType) -> None:
        """Show the next frame.

        Raises:
            Exception: Whatever rendering raises.
        """
        if not self._is_open or self._out.is_lost:
            return
        size = self._measure()
        rows = self._render(renderable, size)
        with self._lock:
            whole = size != self._size or self._frames % FRAMES_UNTIL_REPAIR == 0
            self._frames += 1
            self._size = size
            if not self._out.write(self._paint(rows, whole)):
                self._frames = 0
            self._drawn = rows

    def close(self, last: RenderableType | None = None, last_line: str = "") -> None:
        """Leave the terminal as it was found. Does nothing the second time.

        Args:
            last: A last frame that stays on the screen; ``None`` = the one that is there, if any.
            last_line: A line below it, unless the last line of the frame says it already.

        Raises:
            Exception: Whatever rendering raises, when all is done.
        """
        if not self._is_open:
            return
        size = self._measure()
        rows = None
        try:
            self._capture.stop()
            rows = None if last is None else self._render(last, size)
        finally:
            with self._lock:
                said = rows[-1].plain if rows else ""
                below = f"{last_line}\r\n" if last_line and last_line not in said else ""
                self._size = size
                self._out.write(self._closing(rows) + below + PLAIN + SHOW_CURSOR)
                self._is_open = False
            atexit.unregister(self.close)

    @abstractmethod
    def print_above(self, text: str) -> None:
        """Show what somebody printed. From any thread."""

    @abstractmethod
    def _opening(self) -> str:
        """What is written first."""

    @abstractmethod
    def _paint(self, rows: list[Row], whole: bool) -> str:
        """What turns the last frame into this one, or draws all of it."""

    @abstractmethod
    def _closing(self, rows: list[Row] | None) -> str:
        """What leaves ``rows`` (or the last frame) behind, and the cursor below them."""

    def _measure(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        columns = rows = 0
        with suppress(OSError, ValueError, AttributeError):
            columns, rows = os.get_terminal_size(self._stream.fileno())
        return columns or 80, rows or 24

    def _render(self, renderable: RenderableType, size: tuple[int, int]) -> list[Row]:
        self._console.size = size
        lines = self._console.render_lines(renderable, pad=False)
        return [self._row(line, size[0]) for line in lines[: size[1]]]

    def _row(self, line: list[Segment], columns: int) -> Row:
        pieces: list[str] = []
        plain: list[str] = []
        segments = Segment.remove_color(line) if self._console.no_color else line
        for text, style, control in segments:
            if control:
                continue
            shown = _printable(text)
            plain.append(shown)
            pieces.append(style.render(shown, color_system=self._colors) if style else shown)
        said = "".join(plain)
        return Row("".join(pieces), min(cell_len(said), columns), said)


class LiveArea(Terminal):
    """The last lines of the screen."""

    def print_above(self, text: str) -> None:
        """Show what somebody printed, above the area."""
        with self._lock:
            if self._is_open:
                top = self._to_top()
                rows, self._drawn = self._drawn, []
                self._out.write(top + ERASE_BELOW + text + PLAIN + self._paint(rows, whole=True))
                self._drawn = rows
            else:
                self._out.write(text)

    def _opening(self) -> str:
        return HIDE_CURSOR

    def _paint(self, rows: list[Row], whole: bool) -> str:
        columns = self._size[0]
        known = len(self._drawn)
        pieces = [self._to_top()]
        if whole and known:
            pieces.append(ERASE_BELOW)
        for index, row in enumerate(rows):
            if index:
                pieces.append("\r\n")
            if whole or index >= known or row != self._drawn[index]:
                pieces.append(row.text)
                if row.cells < columns:  # in the last column it would erase what was just written
                    pieces.append(ERASE_LINE_END)
        if not rows:
            pieces.append(ERASE_BELOW)
        elif known > len(rows):
            pieces.append(f"\r\n{ERASE_BELOW}\x1b[A")
        pieces.append("\r")
        return "".join(pieces)

    def _closing(self, rows: list[Row] | None) -> str:
        rows = self._drawn if rows is None else rows
        return self._paint(rows, whole=True) + ("\r\n" if rows else "")

    def _to_top(self) -> str:
        return "\r" + (f"\x1b[{len(self._drawn) - 1}A" if len(self._drawn) > 1 else "")


class AlternateScreen(Terminal):
    """The whole of a second screen."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._kept: deque[str] = deque(maxlen=MOST_LINES_KEPT)
        self._printed = 0

    def print_above(self, text: str) -> None:
        """Keep what somebody printed until the first screen is back."""
        with self._lock:
            if self._is_open:
                lines = text.splitlines(keepends=True)
                self._printed += len(lines)
                self._kept.extend(lines)
            else:
                self._out.write(text)

    def _opening(self) -> str:
        return f"{ENTER_SCREEN}{HIDE_CURSOR}\x1b[H{ERASE_BELOW}"

    def _paint(self, rows: list[Row], whole: bool) -> str:
        columns = self._size[0]
        known = len(self._drawn)
        pieces: list[str] = []
        for index, row in enumerate(rows):
            if whole or index >= known or row != self._drawn[index]:
                pieces.append(f"\x1b[{index + 1}H{row.text}")
                if row.cells < columns:
                    pieces.append(ERASE_LINE_END)
        if (whole or known > len(rows)) and len(rows) < self._size[1]:
            pieces.append(f"\x1b[{len(rows) + 1}H{ERASE_BELOW}")
        if pieces:
            pieces.append(f"\x1b[{max(len(rows), 1)}H")
        return "".join(pieces)

    def _closing(self, rows: list[Row] | None) -> str:
        lost = self._printed - len(self._kept)
        note = f"({lost} earlier lines were not kept)\r\n" if lost else ""
        frame = "".join(f"{row.text}\r\n" for row in rows or ())
        # First the screen and the cursor, so that a pipe that breaks now has not kept them.
        return f"{LEAVE_SCREEN}{SHOW_CURSOR}{note}{''.join(self._kept)}{PLAIN}{frame}"


def _printable(text: str) -> str:
    """The last guard: whatever a renderable is made of, only cells change."""
    if text.isprintable():
        return text
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isprintable() or character == "\u3000":  # the wide space is two cells
        return character
    return " " if character.isspace() else ""
