"""A display's part of the screen, as the display sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from rich.console import COLOR_SYSTEMS, Console, RenderableType
from rich.style import Style

from antflow.display.environment import terminal_console
from antflow.display.rich_live import is_live_up
from antflow.display.rows import Row, rendered
from antflow.display.terminal.device import Size
from antflow.display.terminal.listening import Listening


class _Host(Protocol):
    """The screen as its panes see it."""

    @property
    def size(self) -> Size: ...

    @property
    def is_lost(self) -> bool: ...

    def room_for(self, pane: Pane) -> Size: ...

    def show(
        self, pane: Pane, rows: list[Row], note: Note | None = None, *, again: bool = False
    ) -> None: ...

    def printed(self, count: int) -> list[str]: ...

    def leave(self, pane: Pane, rows: list[Row] | None, last_line: str) -> None: ...

    def step_aside(self) -> None: ...

    @property
    def keys(self) -> Listening: ...


class Note(NamedTuple):
    """A row that is shown instead of one of the frame.

    Attributes:
        place: Of which one, from 0.
        row: What is shown.
    """

    place: int
    row: Row


class Pane:
    """A display's part of the screen.

    Args:
        screen: The screen.
        console: Renders frames; its own, for the thread of the display.
        fills_screen: Whether it wants the whole screen.
        press: Called with each key, in another thread; ``None`` = it wants no keys.

    Attributes:
        is_open: Whether it is part of the screen; not after `close`, nor when the screen was left
            to a `Live`.
        rows: Its newest frame.
        noted: What is shown instead of a row of it.
    """

    def __init__(
        self,
        screen: _Host,
        console: Console,
        fills_screen: bool,
        press: Callable[[str], object] | None = None,
    ) -> None:
        self._screen = screen
        self._console = console
        self._colors = COLOR_SYSTEMS.get(console.color_system or "")
        self.fills_screen = fills_screen
        self.press = press
        self.is_open = False
        self.rows: list[Row] = []
        self.noted: Note | None = None

    def shown(self, most: int) -> list[Row]:
        """The first rows of the newest frame, as they are shown; its note is one of them."""
        rows = self.rows[:most]
        if self.noted is not None and rows:
            rows[min(self.noted.place, len(rows) - 1)] = self.noted.row
        return rows

    def hold(self) -> bool:
        """Whether it is still open; the screen is left to a `Live` that has begun."""
        if self.is_open and is_live_up():
            self._screen.step_aside()
        return self.is_open

    @property
    def why_no_keys(self) -> str:
        """Why no keys can be read there; "" if they can."""
        has_keyboard = self._screen.keys.has_keyboard
        return "" if has_keyboard else "standard input is not a terminal that can be read"

    @property
    def hears_keys(self) -> bool:
        """Whether keys that are typed now are for it."""
        return self.is_open and self._screen.keys.go_to(self)

    def draw(self, renderable: RenderableType) -> None:
        """Show the next frame.

        Raises:
            Exception: Whatever rendering raises.
        """
        if self.is_open and not self._screen.is_lost:
            size = self._screen.room_for(self)
            self._screen.show(self, self._rendered(self._console, renderable, size))

    def note(self, row: int, renderable: RenderableType | None) -> None:
        """Show a line instead of a row of the frame, until the next frame; ``None`` = no longer.

        It may be called in any thread, and does nothing where there is not such a row.

        Raises:
            Exception: Whatever rendering raises.
        """
        frame = self.rows
        if row >= len(frame) or self._screen.is_lost or is_live_up():
            return
        note = None
        if renderable is not None:
            console = terminal_console(self._console.file)  # the other one renders frames meanwhile
            size = Size(self._screen.size.columns, 1)
            note = Note(row, *self._rendered(console, renderable, size))
        self._screen.show(self, frame, note, again=True)

    def printed(self, count: int) -> list[str]:
        """The newest lines that were printed, as plain text, the newest last."""
        return self._screen.printed(count) if self.is_open else []

    def close(self, last: RenderableType | None = None, last_line: str = "") -> None:
        """Leave the screen; after the last pane the terminal is as before.

        Args:
            last: A last frame that stays; ``None`` = the current one, if any.
            last_line: A line below it, unless the last row of the frame says it already.

        Raises:
            Exception: Whatever rendering raises, when all is done.
        """
        if not self.is_open:
            return
        rows = None
        try:
            if last is not None:
                rows = self._rendered(self._console, last, self._screen.size)
        finally:
            self._screen.leave(self, rows, last_line)

    def _rendered(self, console: Console, renderable: RenderableType, size: Size) -> list[Row]:
        if not size.rows:
            return []
        console.size = (size.columns, size.rows)
        return rendered(console, renderable, _printable, self._styled)[: size.rows]

    def _styled(self, text: str, style: Style | None) -> str:
        return style.render(text, color_system=self._colors) if style else text


def _printable(text: str) -> str:
    """The last guard: whatever a renderable contains, only cells change."""
    if text.isprintable():
        return text
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isprintable() or character == "\u3000":  # the wide space is two cells
        return character
    return " " if character.isspace() else ""
