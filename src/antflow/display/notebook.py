"""Drawing in a notebook: one output of a cell, updated in place.

It is plain text and HTML, no widget and no script, so it is shown wherever notebooks are, and the
last frame is what a saved notebook holds. Prints of tasks are left to the kernel, which puts them
into the cell as always. As on a terminal, nothing is drawn unasked: there is no timer.

Nothing of IPython is imported. Where a kernel runs this code, all of it is loaded already; where
none does, it need not be installed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from html import escape
from io import StringIO
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console, RenderableType
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, TerminalTheme

from antflow._core.text import clean
from antflow.display.rows import Row, is_said, rendered

COLUMNS = 100
"""Columns that fit beside the prompt of a cell in a browser window of 1280 pixels."""

ROWS = 30
"""Rows that can be seen at once, with the cell above, on the screen of a laptop."""

SHORTEST_PAUSE = 0.5
"""Seconds between two frames: an update is a message to each page that shows the notebook, and is
kept by the kernel's server for those that are not connected just now."""

LATENESS_MADE_UP = 0.05
"""Seconds by which a frame may follow sooner because the last one was late. Without it, an interval
of half a second would miss every other frame by a hair."""

BLACK, WHITE = Color.parse("#000000"), Color.parse("#ffffff")

# The page is white or nearly black, and there is no way to know which. These differ from both by a
# contrast of more than 3:1; so does the grey for dim text. Text without a color has the page's own.
PAGE = TerminalTheme(
    background=(0x79, 0x79, 0x79),
    foreground=(0x79, 0x79, 0x79),
    normal=[
        (0x79, 0x79, 0x79),
        (0xE2, 0x35, 0x3B),
        (0x1D, 0x8A, 0x4B),
        (0xA3, 0x6E, 0x04),
        (0x1B, 0x76, 0xE6),
        (0xC0, 0x43, 0xC0),
        (0x11, 0x85, 0x97),
        (0x79, 0x79, 0x79),
    ],
    bright=[
        (0x8A, 0x8A, 0x8A),
        (0xE8, 0x5B, 0x60),
        (0x22, 0x9E, 0x55),
        (0xBB, 0x7E, 0x05),
        (0x3E, 0x8B, 0xEA),
        (0xCA, 0x61, 0xCA),
        (0x13, 0x98, 0xAC),
        (0x8A, 0x8A, 0x8A),
    ],
)

PRE_STYLE = (
    "margin:0; padding:0 0.6em; border:0; background:transparent; color:inherit; "
    "white-space:pre; overflow-x:auto; direction:ltr; line-height:1.25; "
    "font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
)


class NotebookCell:
    """An output of the cell that is running, as large as its largest frame.

    It appears with the first frame.

    Args:
        display: IPython's ``display``, see `kernel_display`.
        clock: A monotonic clock, in seconds.

    Attributes:
        why_no_keys: Why there are no keys.
        hears_keys: Always false.
    """

    why_no_keys = "the display is in a notebook"
    hears_keys = False

    def __init__(
        self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._clock = clock
        self._console = Console(
            file=StringIO(),
            width=COLUMNS,
            height=ROWS,
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
            legacy_windows=False,
        )
        self._handle: Any = None
        self._due = float("-inf")
        self._rows: list[Row] = []
        self._height = 0
        self._bundle: dict[str, str] = {}
        self._is_open = True

    def hold(self) -> bool:
        """True: nothing else draws in the output."""
        return True

    def note(self, row: int, renderable: RenderableType | None) -> None:
        """Do nothing: IPython's display serves the thread of the cell alone."""

    def printed(self, count: int) -> list[str]:
        """Nothing: the kernel shows what tasks print."""
        return []

    def draw(self, renderable: RenderableType) -> None:
        """Show the next frame, unless the last one was shown just now.

        Raises:
            Exception: Whatever rendering, or IPython's display, raises.
        """
        now = self._clock()
        if not self._is_open or now < self._due:
            return
        self._due = max(self._due, now - LATENESS_MADE_UP) + SHORTEST_PAUSE
        self._rows = self._render(renderable)
        self._height = max(self._height, len(self._rows))
        self._publish([*self._rows, *[Row("", "")] * (self._height - len(self._rows))])

    def close(self, last: RenderableType | None = None, last_line: str = "") -> None:
        """Leave the last frame in the cell. Does nothing the second time.

        Args:
            last: A last frame; ``None`` = the one that is there, if any.
            last_line: A line below it, unless the last line of the frame says it already.

        Raises:
            Exception: Whatever rendering, or IPython's display, raises, when all is done.
        """
        if not self._is_open:
            return
        try:
            if last is not None:
                self._rows = self._render(last)
        finally:
            if not is_said(last_line, self._rows):
                self._rows = [*self._rows, Row(escape(last_line), last_line)]
            if self._rows:
                self._publish(self._rows)
            self._is_open = False

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Called by IPython when it displays an object."""
        return self._bundle

    def _publish(self, rows: list[Row]) -> None:
        # A newline ends each line, so that empty ones at the end have a height, too; browsers leave
        # out the one right after the tag.
        lines = "".join(f"{row.text}\n" for row in rows)
        self._bundle = {
            "text/plain": "\n".join(row.plain.rstrip() for row in rows),
            "text/html": f'<pre style="{PRE_STYLE}">\n{lines}</pre>',
        }
        try:
            if self._handle is None:
                self._handle = self._display(self, display_id=True)
            else:
                self._handle.update(self)
        except Exception:
            self._is_open = False  # after a failure it is not tried again
            raise

    def _render(self, renderable: RenderableType) -> list[Row]:
        return rendered(self._console, renderable, clean, _html)[:ROWS]


def kernel_display(stream: Any) -> Callable[..., Any] | None:
    """IPython's ``display``, if a stream's text appears in the cells of a notebook.

    It does not where there is no kernel, in a process forked from one, and where the stream leads
    elsewhere (``%%capture``, ``redirect_stderr``): then lines of text are wanted.
    """
    streams: Any = sys.modules.get("ipykernel.iostream")
    displays: Any = sys.modules.get("IPython.display")
    if streams is None or displays is None or not isinstance(stream, streams.OutStream):
        return None
    return displays.display if stream.session.pid == os.getpid() else None


def _html(text: str, style: Style | None) -> str:
    css = _css(style) if style else ""
    return f'<span style="{css}">{_boxed(text)}</span>' if css else _boxed(text)


def _boxed(text: str) -> str:
    """HTML in which wide characters take two cells each, whatever font the page has for them."""
    if text.isascii():
        return escape(text)
    pieces: list[str] = []
    for is_wide, run in groupby(text, lambda character: cell_len(character) > 1):
        shown = "".join(run)
        box = f'<span style="display:inline-block; width:{2 * len(shown)}ch">'
        pieces.append(f"{box}{escape(shown)}</span>" if is_wide else escape(shown))
    return "".join(pieces)


@lru_cache(1024)
def _css(style: Style) -> str:
    color, ground = _told(style.color), _told(style.bgcolor)
    if style.reverse:
        color, ground = ground, color or BLACK
    theme = PAGE
    if ground is not None:
        # Text on its own background does not depend on the page, so the usual colors serve.
        theme = DEFAULT_TERMINAL_THEME
        color = color or (BLACK if _is_bright(ground) else WHITE)
    colors = Style(color=color, bgcolor=ground, reverse=False)
    return (style.without_color + colors).get_html_style(theme)


def _told(color: Color | None) -> Color | None:
    return None if color is None or color.is_default else color


def _is_bright(color: Color) -> bool:
    red, green, blue = color.get_truecolor(DEFAULT_TERMINAL_THEME)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 128  # luma, ITU-R BT.601
