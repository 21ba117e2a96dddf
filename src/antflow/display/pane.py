"""A display's part of the screen, as the display sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from antflow.display.rich_live import is_live_up
from antflow.display.terminal import Renderer, Row

if TYPE_CHECKING:
    from antflow.display.screen import Screen


class Pane:
    """A display's part of the screen.

    Args:
        screen: What it is a part of.
        renderer: Its own: it is used by the display's thread alone.
        fills_screen: Whether it wants the whole screen.
    """

    def __init__(self, screen: Screen, renderer: Renderer, fills_screen: bool) -> None:
        self._screen = screen
        self._renderer = renderer
        self.fills_screen = fills_screen
        self.rows: list[Row] = []

    @property
    def is_open(self) -> bool:
        """Whether it is part of the screen; not after `close`, nor when the screen was given up."""
        return self._screen.has(self)

    def hold(self) -> bool:
        """Whether it is still there; the screen is given up where somebody's `Live` has begun."""
        if self.is_open and is_live_up():
            self._screen.step_aside()
        return self.is_open

    def draw(self, renderable: RenderableType) -> None:
        """Show the next frame.

        Raises:
            Exception: Whatever rendering raises.
        """
        if self.is_open and not self._screen.is_lost:
            size = self._screen.room_for(self)
            self._screen.show(self, self._renderer.render(renderable, size))

    def printed(self, count: int) -> list[str]:
        """The newest lines that were printed, as plain text, the newest last."""
        return self._screen.printed(count) if self.is_open else []

    def close(self, last: RenderableType | None = None, last_line: str = "") -> None:
        """Leave the screen; when nobody is left, the terminal is as it was found.

        Args:
            last: A last frame that stays; ``None`` = the one that is there, if any.
            last_line: A line below it, unless the last line of the frame says it already.

        Raises:
            Exception: Whatever rendering raises, when all is done.
        """
        if not self.is_open:
            return
        rows = None
        try:
            if last is not None:
                rows = self._renderer.render(last, self._screen.size)
        finally:
            self._screen.leave(self, rows, last_line)
