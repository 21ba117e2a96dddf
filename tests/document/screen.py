"""A terminal window in memory: what a display draws on it, frame by frame."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import pyte

from antflow.testing import run_virtual

T = TypeVar("T")

COLUMNS, ROWS = 80, 24
SWITCHES = re.compile(r"(\x1b\[\?1049[hl])")


class Window(io.StringIO):
    """A standard output that is a terminal of 80 × 24, with an alternate screen.

    Attributes:
        frames: What it showed after each write, line by line; empty lines at the end are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[list[str]] = []
        self._screen = self._first = pyte.Screen(COLUMNS, ROWS)

    @property
    def last(self) -> list[str]:
        """What it shows now."""
        return self.frames[-1] if self.frames else []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a program in virtual time that has this window as its standard streams."""
        with contextlib.redirect_stdout(self), contextlib.redirect_stderr(self):
            return run_virtual(main)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        # A terminal in its usual mode goes to the first column with each new line.
        for piece in SWITCHES.split(text.replace("\r\n", "\n").replace("\n", "\r\n")):
            if SWITCHES.match(piece):
                alternate = pyte.Screen(COLUMNS, ROWS)
                self._screen = alternate if piece.endswith("h") else self._first
            else:
                pyte.Stream(self._screen).feed(piece)
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        self.frames.append(lines)
        return len(text)
