"""What the displays that draw on one terminal share.

Each has a `Pane`; the panes stand one below the other, in the order in which they began. The rows
of the terminal are shared out fairly, and what one does not need the others may have. The area is
the alternate screen while any of them wants the whole screen, else the last lines of the screen; it
changes over when such a one comes or goes. A pane that is closed leaves its last frame and a line:
above the area, or on the first screen when that is back. What is printed meanwhile appears above
the area, or is kept as well. Nothing is drawn unasked: there is no thread, no timer.

A terminal may be halted (Ctrl-S, a connection that hangs). That holds the picture and not the run:
while it takes nothing, frames are left out, and what is printed waits its turn in the stream, up to
a limit. From there on a print waits, and so do the end of the last pane and the moment in which the
terminal is left to somebody's `Live`: whoever waits holds no lock meanwhile, and a pane that begins
then joins this very screen. A Ctrl-C ends the wait.

Displays may live in several event loops and threads. A frame is rendered by the thread of its
display, and until its next one a pane that has too many rows is cut off. Locks, in the order in
which they are taken:

- `_opening`, for panes that come and go, together with the capture. Capturing takes the locks of
  log handlers, so nobody who prints may want this one.
- the lock of a `Screen`, for what is drawn. `_print` takes it, in any thread, mostly while a log
  handler holds its own lock.

A signal handler takes neither for sure: it may stand in the middle of whatever they protect.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TextIO

from antflow._core.text import clean
from antflow.display import signals
from antflow.display.area import SHOW_CURSOR, AlternateScreen, Area, LiveArea
from antflow.display.canvas import LONGEST_TEXT
from antflow.display.capture import Capture, origin_of
from antflow.display.layout import fair_shares
from antflow.display.pane import Pane
from antflow.display.printed_lines import PLAIN, shown
from antflow.display.rich_live import is_live_up
from antflow.display.stream import SafeStream
from antflow.display.terminal import Renderer, Row, Size, device_of, is_in_front, size_of

BEGIN_UPDATE = "\x1b[?2026h"
END_UPDATE = "\x1b[?2026l"
"""Between these two a terminal that knows them shows nothing half drawn; others ignore them."""

FRAMES_UNTIL_REPAIR = 20
"""Every so many frames all lines are written, in case somebody else wrote to the terminal."""

NEWEST_LINES = 200
"""Printed lines that a display can have again."""

MOST_BYTES_WAITING = 1_000_000
"""What may be left for a halted terminal; beyond it, printing waits."""

LONGEST_HANDLER_WAIT = 1.0
"""Seconds a signal handler waits for another thread to end its frame."""


def open_pane(stream: TextIO, *, fills_screen: bool) -> Pane | None:
    """Begin to draw on a terminal, together with all who draw there already.

    Args:
        stream: Where the terminal is: standard output, or what captures it.
        fills_screen: Whether the whole screen is wanted.

    Returns:
        Where to draw; ``None`` where that is impossible.
    """
    stream = origin_of(stream)
    renderer = Renderer(stream)
    if is_live_up() or not renderer.can_draw:
        return None
    with _opening:
        device = device_of(stream)
        screen = _screens.get(device)
        if screen is None or screen.is_lost:
            screen = _screens[device] = Screen(stream)
        pane = Pane(screen, renderer, fills_screen)
        screen.join(pane)
    return pane


class Screen:
    """One terminal while something is drawn on it.

    Args:
        stream: Where it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._device = device_of(stream)
        self._out = SafeStream(stream)
        self._capture = Capture(stream, self._print)
        self._area: Area = LiveArea()
        self._panes: list[Pane] = []
        self._leaving: set[object] = set()
        self._is_up = False
        self._lock = RLock()
        self._drawing_thread: int | None = None
        self._printed_meanwhile: deque[str] = deque()
        self._newest: deque[str] = deque(maxlen=NEWEST_LINES)
        self._frames = 0
        self._size = Size(0, 0)
        self._is_paused = False

    @property
    def size(self) -> Size:
        """How large the terminal is now."""
        return size_of(self._stream)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._out.is_lost

    def has(self, pane: Pane) -> bool:
        """Whether a pane is part of it."""
        return pane in self._panes

    def printed(self, count: int) -> list[str]:
        """The newest lines that were printed, as plain text, the newest last."""
        with self._lock:
            return list(self._newest)[max(len(self._newest) - count, 0) :]

    def room_for(self, pane: Pane) -> Size:
        """How large the next frame of a pane may be."""
        columns, rows = self.size
        with self._lock:
            wishes = [rows if other is pane else len(other.rows) for other in self._panes]
            shares = dict(zip(self._panes, fair_shares(wishes, rows), strict=True))
        return Size(columns, shares.get(pane, 0))

    def join(self, pane: Pane) -> None:
        """Take a pane in, below the others. The registry is locked."""
        if not self._is_up:
            self._is_up = True
            atexit.register(self.close)
            signals.watch(self)
        self._capture.start()
        with self._drawing():
            opening = "" if self._panes else self._area.opening()
            self._panes.append(pane)
            changed = self._change_over()
            self._out.write(opening + changed + (self._repainted() if changed else ""))

    def show(self, pane: Pane, rows: list[Row]) -> None:
        """Draw the next frame of a pane."""
        with self._drawing():
            if pane not in self._panes:
                return
            pane.rows = rows
            if not self._is_paused:
                self._draw()
            elif is_in_front(self._stream):
                self._come_back()

    def leave(self, pane: Pane, rows: list[Row] | None, last_line: str) -> None:
        """Let a pane go.

        Args:
            pane: The pane.
            rows: Its last frame; ``None`` = the one that is there.
            last_line: A line below, unless the frame says it already.
        """
        with self._taking_leave(self._capture.stop):
            try:
                if self._panes == [pane]:
                    self._capture.end_lines()  # like any print it may wait, and be interrupted
            finally:
                self._take_out(pane, rows, last_line)

    def step_aside(self) -> None:
        """Leave the frames that can stay, and the terminal to somebody else."""
        with self._taking_leave(self._capture.hand_over):
            for pane in tuple(self._panes):
                self._take_out(pane, None, "")

    def close(self) -> None:
        """Let all panes go."""
        for pane in tuple(self._panes):
            self.leave(pane, None, "")

    def forget(self) -> None:
        """In a child process after a fork: the terminal is the parent's."""
        self._lock = RLock()  # a thread that is no more may have held it
        self._panes.clear()
        self._is_up = False
        self._capture.forget()
        self._out.forget()
        atexit.unregister(self.close)

    # What a signal handler calls

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal handler that asks stands in the middle of a frame."""
        return self._drawing_thread == threading.get_ident()

    def end(self) -> None:
        """Give the terminal back at once: the program ends."""
        with self._hastily():
            self._out.write_at_once(self._area.closing() + PLAIN + SHOW_CURSOR)

    def pause(self) -> None:
        """Give the terminal back: the program stops."""
        with self._hastily():
            self._is_paused = True
            self._out.write_at_once(self._area.pause() + PLAIN + SHOW_CURSOR)

    def resume(self) -> None:
        """The program goes on. It may have been sent behind: then nothing is drawn."""
        self._frames = 0
        if not self._is_paused or not self._panes or self.is_interrupted:
            return
        if not is_in_front(self._stream):
            return
        with self._hastily():
            self._is_paused = False
            self._out.write_at_once(self._area.opening() + self._repainted())

    @contextmanager
    def _hastily(self) -> Iterator[None]:
        has_it = self._lock.acquire(timeout=LONGEST_HANDLER_WAIT)
        try:
            yield
        finally:
            if has_it:
                self._lock.release()

    # Inside

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Whoever changes what is drawn holds the lock, and has what comes in between done after.

        That is what this thread prints meanwhile (a finalizer may, at any time), and a stop.
        """
        with self._lock:
            self._drawing_thread = threading.get_ident()
            try:
                yield
                while self._printed_meanwhile:
                    self._print_now(self._printed_meanwhile.popleft())
            finally:
                self._drawing_thread = None
        signals.catch_up()

    def _draw(self) -> None:
        if not self._out.flush():
            return  # halted: the frame is left out, as if nobody had asked for it
        size = self.size
        whole = size != self._size or self._frames % FRAMES_UNTIL_REPAIR == 0
        self._frames += 1
        self._size = size
        text = self._area.paint(self._rows(size), size, whole)
        if not self._write(text):
            self._frames = 0

    def _rows(self, size: Size) -> list[Row]:
        """What all panes show, in the size that the terminal has now."""
        shares = fair_shares([len(pane.rows) for pane in self._panes], size.rows)
        return [
            row.cut(size.columns)
            for pane, share in zip(self._panes, shares, strict=True)
            for row in pane.rows[:share]
        ]

    def _repainted(self) -> str:
        """All rows, drawn anew."""
        if self._is_paused:
            return ""
        self._size = self.size
        return self._area.paint(self._rows(self._size), self._size, whole=True)

    def _write(self, text: str) -> bool:
        return self._out.write(text and f"{BEGIN_UPDATE}{text}{END_UPDATE}")

    def _change_over(self) -> str:
        """Text that makes the area the one that the panes want."""
        wanted = AlternateScreen if any(pane.fills_screen for pane in self._panes) else LiveArea
        if isinstance(self._area, wanted):
            return ""
        text = self._area.switching()
        self._area = wanted()
        return text if self._is_paused else text + self._area.opening()

    def _rows_left_by(self, pane: Pane) -> list[Row]:
        # A frame for the second screen is of its size, and shows lines that come out anyway.
        return [] if isinstance(self._area, AlternateScreen) else pane.rows

    def _take_out(self, pane: Pane, rows: list[Row] | None, last_line: str) -> None:
        with _opening, self._drawing():
            if pane in self._panes:
                self._panes.remove(pane)
                self._say_farewell(self._rows_left_by(pane) if rows is None else rows, last_line)

    def _say_farewell(self, rows: list[Row], last_line: str) -> None:
        lines = [row.text for row in rows]
        if last_line and last_line not in (rows[-1].plain if rows else ""):
            lines.append(last_line)
        text = self._area.say(lines, is_frame=True)
        if self._panes:
            self._write(text + self._change_over() + self._repainted())
        else:
            self._out.write(text + self._area.closing() + PLAIN + SHOW_CURSOR)
            self._area = LiveArea()

    def _come_back(self) -> None:
        self._is_paused = False
        self._write(self._area.opening() + self._repainted())

    @contextmanager
    def _taking_leave(self, release: Callable[[], None]) -> Iterator[None]:
        """Wait afterwards: the last pane for all it has written, others as a print does.

        Who is the last to have waited ends the screen, unless a pane has joined it meanwhile. All
        of that is done, too, when a Ctrl-C comes, but then nobody waits.
        """
        this = object()
        has_waited = False
        self._leaving.add(this)
        try:
            yield
            self._out.drain(MOST_BYTES_WAITING if self._panes else 0, self._drawing)
            has_waited = True
        finally:
            with _opening:
                self._leaving.discard(this)
                if self._is_up and not self._panes and not self._leaving:
                    self._end_with(release, has_waited)

    def _end_with(self, release: Callable[[], None], has_waited: bool) -> None:
        """The screen is over. The registry is locked.

        What is printed while the last pane waits comes after it, in order. So the capture is
        released when whoever prints has to wait for the terminal himself.
        """
        try:
            with self._drawing():
                self._close_stream(has_waited)
        finally:
            if self._out.is_lost:
                release = self._capture.stop  # which writes nothing past the screen
            release()
            self._is_over()

    def _close_stream(self, has_waited: bool) -> None:
        try:
            if has_waited:
                self._out.drain()  # what others have printed since
        finally:
            self._out.close()

    def _is_over(self) -> None:
        self._is_up = False
        signals.unwatch(self)
        atexit.unregister(self.close)
        if _screens.get(self._device) is self:  # a lost one may have been replaced
            del _screens[self._device]

    def _print(self, text: str) -> None:
        """Show what somebody printed: text that ends in a newline, from any thread."""
        with self._lock:
            if self.is_interrupted:
                self._printed_meanwhile.append(text)
                return
            with self._drawing():
                self._print_now(text)
        self._out.drain(MOST_BYTES_WAITING, self._drawing)

    def _print_now(self, text: str) -> None:
        lines = [shown(line) for line in text.removesuffix("\n").split("\n")]
        self._newest.extend(clean(line)[:LONGEST_TEXT] for line in lines[-NEWEST_LINES:])
        text = self._area.say(lines)
        if text:  # while the terminal is halted, no more than that: the area comes with a frame
            self._write(text + (self._repainted() if self._out.flush() else ""))


_screens: dict[Hashable, Screen] = {}
_opening = RLock()


def _forget_all() -> None:
    global _opening
    _opening = RLock()
    for screen in _screens.values():
        screen.forget()
    _screens.clear()
    signals.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
