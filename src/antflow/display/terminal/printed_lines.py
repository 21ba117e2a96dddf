"""Printed text as lines that can stand above a display.

A program may print progress bars that go back to the start of the line, switch screens, set the
title, ask the terminal something. Above a display there is room for text only: its colours stay,
but nothing that moves the cursor or talks to the terminal.
"""

from __future__ import annotations

import re
from threading import RLock

from antflow._core.text import ESCAPE_SEQUENCES
from antflow.display.rich_live import is_live_up

PLAIN = "\x1b[0m"

LONGEST_LINE = 65536
"""Characters of an unfinished line that are held back; then it counts as a line."""

MOST_HELD_BACK = 1_000_000
"""Characters of a `Live` that are held back; then they count as lines."""

_SEQUENCES = re.compile(f"({ESCAPE_SEQUENCES})", re.VERBOSE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")  # with "?" or ">" it is not a style, but a mode of xterm


def shown(line: str) -> str:
    """The text of a line, with its colours; of a bar drawn over and over, its last state.

    Args:
        line: The line without its newline.
    """
    if not _CONTROL.search(line):
        return line
    line = line.rstrip("\r").rpartition("\r")[2]
    pieces = _SEQUENCES.split(line)  # text and sequences in turn
    pieces[0::2] = [_CONTROL.sub("", text) for text in pieces[0::2]]
    pieces[1::2] = [found if _STYLE.fullmatch(found) else "" for found in pieces[1::2]]
    return "".join(pieces)


class Lines:
    """Cuts text into whole lines, and holds back the unfinished one.

    If the user starts a `rich.live.Live` meanwhile, its text has cursor movements. It is held back
    unchanged until the display steps aside (`take_rest`), and then reaches the terminal whole.

    Any thread may call the methods.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a finalizer may come in the middle
        self._pending: list[str] = []
        self._pending_length = 0

    @property
    def is_unfinished(self) -> bool:
        """Whether text is held back."""
        return self._pending_length > 0

    def add(self, text: str) -> str:
        """Add text; returns the lines that are complete now, each with its newline."""
        with self._lock:
            if self._pending_length < MOST_HELD_BACK and is_live_up():
                self._hold_back(text)
                return ""
            lines, newline, rest = text.rpartition("\n")
            if newline:
                lines = self.take_rest() + lines + newline
            self._hold_back(rest)
            if self._pending_length > LONGEST_LINE:
                lines += self._take_what_is_long()
            return lines

    def take_rest(self) -> str:
        """Take the unfinished line, unchanged."""
        with self._lock:
            text = "".join(self._pending)
            self._pending.clear()
            self._pending_length = 0
            return text

    def _take_what_is_long(self) -> str:
        text = self.take_rest()
        last = text.rpartition("\n")[2]
        if "\r" in last and len(visible := shown(last)) <= LONGEST_LINE // 2:
            self._hold_back(visible)  # a bar that is drawn in one line, over and over
            return text[: len(text) - len(last)]
        return text + "\n"

    def _hold_back(self, text: str) -> None:
        if text:
            self._pending.append(text)
            self._pending_length += len(text)
