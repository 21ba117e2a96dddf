"""The two ways of drawing on a terminal, as text to be written.

A `LiveArea` is the last lines of the screen: printed lines go above it. An `AlternateScreen` is the
whole of a second screen: printed lines are kept, and appear when the first screen is back.

Only the rows that differ from those before are drawn. The cursor rests at the start of the last
one, so that nothing scrolls and the ``^C`` of a keyboard ends up where it is soon repaired.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from antflow.display.rows import Row
from antflow.display.terminal.device import Size
from antflow.display.terminal.kept_lines import KeptLines, printed
from antflow.display.terminal.printed_lines import PLAIN

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"
ENTER_SCREEN = "\x1b[?1049h"
LEAVE_SCREEN = "\x1b[?1049l"
ERASE_LINE_END = "\x1b[K"
ERASE_BELOW = "\x1b[J"


class Area(ABC):
    """A way of drawing on a terminal. Each method returns text to be written.

    Attributes:
        last_words: Gives the terminal back when the program has ended without a word.
    """

    last_words: str

    def __init__(self) -> None:
        self._drawn: list[Row] = []

    @abstractmethod
    def opening(self) -> str:
        """Begin, and begin again when the program goes on after a stop."""

    @abstractmethod
    def paint(self, rows: list[Row], size: Size, whole: bool) -> str:
        """Turn the rows that are drawn into these, or draw them all."""

    @abstractmethod
    def say(self, lines: Sequence[str]) -> str:
        """Leave lines behind for good; the area is drawn again if the text is not empty."""

    @abstractmethod
    def pause(self) -> str:
        """Give the terminal back while the program is stopped. `opening` is the way back."""

    def closing(self) -> str:
        """Give the terminal back for good. Lines that are kept must be written next."""
        return self.pause()

    @abstractmethod
    def switching(self) -> str:
        """Make room for another kind of area, which is going to draw the same rows."""

    @abstractmethod
    def yielding(self) -> str:
        """Make room for a question on the first screen. `opening` is the way back.

        Lines that are kept must be written next: the question may be about them.
        """

    def leave_as_it_is(self) -> str:
        """Make room for what is being asked already, where the cursor is. As in `yielding`."""
        self._drawn = []
        return ERASE_LINE_END


class LiveArea(Area):
    """The last lines of the screen.

    Args:
        columns: Tells how wide a terminal is that wraps the rows again when it becomes narrower;
            ``None`` = it does not.
    """

    last_words = f"{PLAIN}\r\n{ERASE_BELOW}"

    def __init__(self, columns: Callable[[], int] | None = None) -> None:
        super().__init__()
        self._columns = columns

    def opening(self) -> str:
        """Hide the cursor."""
        return HIDE_CURSOR

    def paint(self, rows: list[Row], size: Size, whole: bool) -> str:
        """From the top to the bottom, with a newline between two rows."""
        drawn = self._drawn
        if rows == drawn and not whole:
            return ""
        pieces = [self._erased() if drawn and (whole or not rows) else self._to_top()]
        for index, row in enumerate(rows):
            if index:
                pieces.append("\r\n")
            if whole or index >= len(drawn) or row != drawn[index]:
                pieces.append(row.text)
                if row.cells < size.columns:  # in the last column it would erase what it stands on
                    pieces.append(ERASE_LINE_END)
        if len(drawn) > len(rows) > 0 and not whole:  # then there is a line below
            pieces.append(f"\r\n{ERASE_BELOW}\x1b[A")
        pieces.append("\r")
        self._drawn = rows
        return "".join(pieces)

    def say(self, lines: Sequence[str]) -> str:
        """Print them where the area was."""
        return f"{self.switching()}{printed(lines)}{PLAIN}" if lines else ""

    def pause(self) -> str:
        """Leave the rows, and go below them."""
        # If this comes in the middle of a frame, the rows below are from the frame before.
        text = self.last_words if self._drawn else ""
        self._drawn = []
        return text

    def switching(self) -> str:
        """Take the rows away."""
        text = self._erased() if self._drawn else ""
        self._drawn = []
        return text

    def yielding(self) -> str:
        """Take the rows away."""
        return self.switching()

    def _erased(self) -> str:
        """Erase the rows, from the last to the first.

        If the first row is that of the screen, to erase all below it would be to clear the screen,
        and tmux keeps in its history what is cleared.
        """
        heights = [1] * len(self._drawn)
        if self._columns is not None:
            columns = self._columns()
            heights = [row.height(columns) for row in self._drawn]
        above = sum(heights[:-1])
        last = ERASE_BELOW if sum(heights) > 1 else ERASE_LINE_END
        return f"\r{last}" + f"\x1b[A{ERASE_LINE_END}" * above

    def _to_top(self) -> str:
        return "\r" + (f"\x1b[{len(self._drawn) - 1}A" if len(self._drawn) > 1 else "")


class AlternateScreen(Area):
    """The whole of a second screen.

    Args:
        kept: Where lines wait for the first screen.
    """

    last_words = PLAIN + LEAVE_SCREEN

    def __init__(self, kept: KeptLines) -> None:
        super().__init__()
        self._is_up = False
        self._yields = False
        self._kept = kept

    def opening(self) -> str:
        """Enter the second screen."""
        self._is_up = True
        self._yields = False
        self._drawn = []
        return f"{ENTER_SCREEN}{HIDE_CURSOR}\x1b[H{ERASE_BELOW}"

    def paint(self, rows: list[Row], size: Size, whole: bool) -> str:
        """Each row at its place."""
        drawn, self._drawn = self._drawn, rows
        pieces: list[str] = []
        for index, row in enumerate(rows):
            if whole or index >= len(drawn) or row != drawn[index]:
                pieces.append(f"\x1b[{index + 1}H{row.text}")
                if row.cells < size.columns:
                    pieces.append(ERASE_LINE_END)
        if (whole or len(drawn) > len(rows)) and len(rows) < size.rows:
            pieces.append(f"\x1b[{len(rows) + 1}H{ERASE_BELOW}")
        if pieces:
            pieces.append(f"\x1b[{max(len(rows), 1)}H")
        return "".join(pieces)

    def say(self, lines: Sequence[str]) -> str:
        """Keep them for the first screen, unless that is up for a question."""
        if self._yields:
            return printed(lines)
        self._kept.add(lines)
        return ""

    def pause(self) -> str:
        """Leave the second screen; kept lines stay kept."""
        text = self.last_words if self._is_up else ""
        self._is_up = False
        return text

    def closing(self) -> str:
        """Leave the second screen."""
        # The screen and the cursor come first, in case the pipe breaks among the lines.
        return self.pause() + SHOW_CURSOR

    def switching(self) -> str:
        """Leave the second screen, and print what was kept."""
        return f"{self.closing()}{''.join(self._kept.take())}{PLAIN}"

    def yielding(self) -> str:
        """Leave the second screen."""
        self._yields = True
        return self.closing()
