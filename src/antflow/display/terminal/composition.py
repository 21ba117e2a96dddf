"""The panes of one terminal as one picture, and the text that draws it.

Nothing is written here and nothing is locked: `Screen` does both. Each method returns text that
has to be written, in the order of the calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from time import monotonic

from antflow.display.environment import wraps_again
from antflow.display.layout import fair_shares
from antflow.display.rows import Row, is_said
from antflow.display.terminal.area import (
    ERASE_LINE_END,
    SHOW_CURSOR,
    AlternateScreen,
    Area,
    LiveArea,
)
from antflow.display.terminal.device import File, Size, size_of
from antflow.display.terminal.kept_lines import KeptLines
from antflow.display.terminal.pane import Pane
from antflow.display.terminal.printed_lines import PLAIN

BEGIN_UPDATE = "\x1b[?2026h"
END_UPDATE = "\x1b[?2026l"
"""Between these two a terminal that knows them shows nothing half drawn; others ignore them."""

FRAMES_UNTIL_REPAIR = 20
"""All rows are written once in this many frames, in case another program wrote there too."""

LONGEST_PAUSE = 1.0
"""Seconds after which a frame draws all rows again: perhaps the program was stopped (Ctrl-Z) where
no handler sees it, and the shell has written over the picture."""

SETTLING_SECONDS = 0.3
"""Nothing is drawn for this long after a terminal that wraps rows again had another size."""

_SWITCHES = re.compile(r"\x1b\[\?(1|47|1047|1049|100[0-6]|1015|2004)([hl])")
"""Modes that are off as a rule: a second screen, keys of another kind, the mouse, pasted text."""


class Composition:
    """The panes of one terminal as one picture.

    Args:
        terminal: Where the terminal is.
        kept: Where printed lines wait for the first screen.

    Attributes:
        panes: From the top to the bottom.
        is_paused: Whether the terminal was given back for a while: the program is stopped, or in
            the background, or something asks a question.
    """

    def __init__(self, terminal: File, kept: KeptLines) -> None:
        self._terminal = terminal
        self._kept = kept
        self._wraps = wraps_again()
        self._newest_size = size_of(terminal)
        self._settles_at = 0.0
        self._area: Area = self._live_area()
        self._frames = 0
        self._drawn_at = 0.0
        self._size = Size(0, 0)
        self._left: list[str] = []
        self.panes: list[Pane] = []
        self.is_paused: bool = False
        self._may_be_in_a_line = True
        self._is_given_back = True
        self._is_first_screen_up = False
        self._switched_on: dict[str, None] = {}

    def is_dragged(self) -> bool:
        """Whether a terminal that wraps rows again has just had another size: draw nothing now.

        How many rows those of the picture take depends on how wide it is, and that comes late: tmux
        tells it at most four times a second.
        """
        if not self._wraps or isinstance(self._area, AlternateScreen):
            return False
        size, now = size_of(self._terminal), monotonic()
        if size != self._newest_size:
            self._newest_size = size
            self._settles_at = now + SETTLING_SECONDS
        return now < self._settles_at

    @property
    def last_words(self) -> str:
        """What gives the terminal back if the program ends now without a word."""
        return "" if self._is_given_back else self._area.last_words + SHOW_CURSOR

    def room_for(self, pane: Pane) -> Size:
        """The size that the next frame of a pane may have."""
        columns, rows = size_of(self._terminal)
        wishes = [rows if other is pane else len(other.rows) for other in self.panes]
        shares = dict(zip(self.panes, fair_shares(wishes, rows), strict=True))
        return Size(columns, shares.get(pane, 0))

    def add(self, pane: Pane) -> str:
        """Add a pane below the others."""
        opening = "" if self.panes else _as_update(self._new_line()) + self._opening()
        self.panes.append(pane)
        changed = self._change_over()
        return opening + changed + (self.whole() if changed else "")

    def remove(self, pane: Pane, rows: list[Row] | None, last_line: str) -> str:
        """Remove a pane, and leave its last frame; after the last pane, give the terminal back.

        While something reads what is typed, the frame waits until the others are drawn again.
        `kept` must be written next.

        Args:
            pane: The pane.
            rows: Its last frame; ``None`` = the current one.
            last_line: A line below, unless the frame says it already.
        """
        self.panes.remove(pane)
        if rows is None:  # one of the second screen has its size, and shows lines that come anyway
            rows = [] if isinstance(self._area, AlternateScreen) else pane.rows
        lines = [row.text for row in rows]
        if not is_said(last_line, rows):
            lines.append(last_line)
        if lines:
            lines[0] = PLAIN + lines[0]  # what was printed before may have left a colour
        lines = self._left + lines
        self._left = []
        if self.is_paused and self.panes:  # perhaps a pager has the screen now
            self._left = lines
            return _as_update(self._change_over())
        text = self._new_line() + self._area.say(lines)
        if self.panes:
            return _as_update(text + self._change_over() + self.whole())
        text += self.closing()
        self._area = self._live_area()
        return text

    def frame(self) -> str:
        """Draw the changes; now and then, after a pause, and in another size, all of it."""
        size = size_of(self._terminal)
        before, self._drawn_at = self._drawn_at, monotonic()
        whole = size != self._size or self._frames % FRAMES_UNTIL_REPAIR == 0
        whole = whole or self._drawn_at - before > LONGEST_PAUSE
        self._frames += 1
        self._size = size
        return _as_update(self._area.paint(self._rows(size), size, whole))

    def whole(self) -> str:
        """Draw all of it."""
        if self.is_paused:
            return ""
        self._size = size_of(self._terminal)
        return self._area.paint(self._rows(self._size), self._size, whole=True)

    def repair(self) -> None:
        """Make the next frame draw all of it."""
        self._frames = 0

    def say(self, lines: Sequence[str], *, is_halted: bool) -> str:
        """Show printed lines above the picture, or keep them for the first screen.

        Args:
            lines: The lines, without newlines.
            is_halted: The terminal takes nothing: the picture comes with the next frame.
        """
        text = self._area.say(lines)
        if text:
            text = self._switched_off() + text + ("" if is_halted else self.whole())
        return _as_update(text)

    def pause(self) -> str:
        """Give the terminal back while the program is stopped."""
        self.is_paused = self._is_given_back = True
        return self._area.pause() + PLAIN + SHOW_CURSOR

    def make_room(self, *, asked_already: bool) -> str:
        """Give the terminal back while something reads what is typed. `kept` must be written next.

        Args:
            asked_already: The question was written at the cursor, past this program.
        """
        if self.is_paused:
            return ""
        self.is_paused = self._is_given_back = self._may_be_in_a_line = True
        self._is_first_screen_up = not asked_already
        text = self._area.leave_as_it_is() if asked_already else self._area.yielding()
        return text + PLAIN + SHOW_CURSOR

    def echo(self, text: str) -> str:
        """Leave the text of a program that reads what is typed as it is.

        The program may put the settings of the terminal back before its last words are read. They
        are not known as its own then, so what it has switched on is switched off afterwards.
        """
        for mode, switch in _SWITCHES.findall(text):
            self._switched_on.pop(mode, None)
            if switch == "h":
                self._switched_on[mode] = None
        return text

    def resume(self) -> str:
        """Draw again."""
        self.is_paused = False
        text = self._new_line() + self._area.say(self._left)
        self._left = []
        return text + self._opening() + self.whole()

    def closing(self) -> str:
        """Give the terminal back for good. `kept` must be written next."""
        self._is_given_back = self._is_first_screen_up = True
        return self._switched_off() + self._area.closing() + PLAIN + SHOW_CURSOR

    def kept(self) -> Iterator[str]:
        """Lines that waited for the first screen, if that has just come back for them."""
        if self._is_first_screen_up:
            self._is_first_screen_up = False
            end = ""
            for text in self._kept.take():
                yield text
                end = PLAIN + SHOW_CURSOR
            if end:
                yield end

    def _live_area(self) -> LiveArea:
        return LiveArea((lambda: size_of(self._terminal).columns) if self._wraps else None)

    def _opening(self) -> str:
        self._is_given_back = False
        return self._area.opening()

    def _new_line(self) -> str:
        """After what others wrote: go to the start of a line, unless the cursor is there.

        In the middle of a line these spaces end in the next one, else in the same.
        """
        if not self._may_be_in_a_line:
            return ""
        self._may_be_in_a_line = False
        return (
            f"{self._switched_off()}{' ' * (size_of(self._terminal).columns - 1)}\r{ERASE_LINE_END}"
        )

    def _switched_off(self) -> str:
        modes, self._switched_on = self._switched_on, {}
        return "".join(f"\x1b[?{mode}l" for mode in reversed(modes))

    def _rows(self, size: Size) -> list[Row]:
        shares = fair_shares([len(pane.rows) for pane in self.panes], size.rows)
        return [
            row.cut(size.columns)
            for pane, share in zip(self.panes, shares, strict=True)
            for row in pane.shown(share)
        ]

    def _change_over(self) -> str:
        """Switch to the area that the panes want."""
        wanted = AlternateScreen if any(pane.fills_screen for pane in self.panes) else LiveArea
        if isinstance(self._area, wanted):
            return ""
        text = self._area.switching()
        is_live = wanted is LiveArea
        self._area = self._live_area() if is_live else AlternateScreen(self._kept)
        return text if self.is_paused else text + self._opening()


def _as_update(text: str) -> str:
    return text and f"{BEGIN_UPDATE}{text}{END_UPDATE}"
