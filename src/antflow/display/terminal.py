"""One terminal: how large it is, and what a frame looks like on it.

A frame is rendered by a rich console into rows, which are nothing but cells and their styles: never
wider or taller than asked for, and without anything that drives a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from contextlib import suppress
from typing import NamedTuple, TextIO, TypeGuard

from rich.cells import cell_len, set_cell_size
from rich.console import COLOR_SYSTEMS, Console, RenderableType
from rich.segment import Segment


class Row(NamedTuple):
    """A line: as it is written, its width in cells, and what it says."""

    text: str
    cells: int
    plain: str

    def cut(self, columns: int) -> Row:
        """The row, no wider than so many columns; one that is cut loses its style."""
        if self.cells <= columns:
            return self
        said = set_cell_size(self.plain, columns)
        return Row(said, columns, said)


class Size(NamedTuple):
    """Columns and rows."""

    columns: int
    rows: int


def size_of(stream: TextIO) -> Size:
    """How large a terminal is now; 80 × 24 if it does not tell."""
    columns = rows = 0
    with suppress(OSError, ValueError, AttributeError):
        columns, rows = os.get_terminal_size(stream.fileno())
    return Size(columns or 80, rows or 24)


def device_of(stream: TextIO) -> Hashable:
    """The same for all streams that lead to one terminal."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        if os.name == "nt":
            return "console"  # a process has one, and it has no number
        return os.fstat(descriptor).st_rdev
    return id(stream)  # no file at all, but it says it is a terminal


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream leads to a terminal, as far as it can tell."""
    try:
        return stream is not None and stream.isatty()
    except Exception:
        return False  # closed, or a stand-in that is no stream at all


def can_draw_on(stream: TextIO | None) -> TypeGuard[TextIO]:
    """Whether a stream is a terminal that shows what is drawn on it.

    Not one: a stream that leads elsewhere, a "dumb" terminal (or on POSIX one without a name), and
    the terminal of a build server, which nobody is looking at.
    """
    name = os.environ.get("TERM", "" if os.name == "posix" else "windows").lower()
    return is_terminal(stream) and name not in ("", "dumb", "unknown") and not is_build_server()


def is_build_server() -> bool:
    """Whether this is a build server, as the environment says."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def is_in_front(stream: TextIO) -> bool:
    """Whether this process may use its terminal now, rather than having been sent behind (``&``).

    So it is wherever nobody can tell.
    """
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return True


class Renderer:
    """Turns frames into rows for one terminal.

    Args:
        stream: Where the terminal is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, force_jupyter=False)
        self._colors = COLOR_SYSTEMS.get(self._console.color_system or "")

    @property
    def can_draw(self) -> bool:
        """Whether the terminal knows escape sequences. Old consoles of Windows do not."""
        return not self._console.legacy_windows

    @property
    def colors(self) -> str:
        """What colors it has, as far as it tells: "truecolor", "256", "standard" or "none"."""
        return (not self._console.no_color and self._console.color_system) or "none"

    def render(self, renderable: RenderableType, size: Size) -> list[Row]:
        """The rows of a frame, as many as there is room for.

        Raises:
            Exception: Whatever rendering raises.
        """
        if not size.rows:
            return []
        self._console.size = (size.columns, size.rows)
        lines = self._console.render_lines(renderable, pad=False)
        return [self._row(line, size.columns) for line in lines[: size.rows]]

    def _row(self, line: list[Segment], columns: int) -> Row:
        pieces: list[str] = []
        plain: list[str] = []
        segments = Segment.remove_color(line) if self._console.no_color else line
        for text, style, control in segments:
            if control:
                continue
            said = _printable(text)
            plain.append(said)
            pieces.append(style.render(said, color_system=self._colors) if style else said)
        said = "".join(plain)
        return Row("".join(pieces), min(cell_len(said), columns), said)


def _printable(text: str) -> str:
    """The last guard: whatever a renderable is made of, only cells change."""
    if text.isprintable():
        return text
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isprintable() or character == "\u3000":  # the wide space is two cells
        return character
    return " " if character.isspace() else ""
