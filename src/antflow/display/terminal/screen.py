"""One terminal, shared by all displays that draw on it.

Each has a `Pane`; the panes stand one below the other, in the order in which they began. The rows
of the terminal are shared out fairly, and a pane may have what another does not need. The picture
is the alternate screen while a pane wants the whole screen, else the last lines of the screen. A
pane that is closed leaves its last frame and a line: above the picture, or on the first screen
when that is back. Prints appear above the picture meanwhile, or are kept as well. Nothing
is drawn unasked: there is no timer.

While an event loop is blocked, another thread may draw a frame of a display in it again, with a
note in place of a row (`Pane.note`).

Displays may live in several event loops and threads. A frame is rendered by the thread of its
display, and until its next one a pane with too many rows is cut off. Locks, in the order in which
they are taken:

- `_opening`, for panes that come and go, together with the capture. Capturing takes the locks of
  log handlers, so it is not taken by prints.
- the lock of a `Screen`, for what is drawn. `_print` takes it, in any thread, mostly while a log
  handler holds its own lock.

A signal handler may come in the middle of whatever they protect, so it waits for neither: for the
second one a moment, in case another thread has it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TextIO

from antflow._core.text import clean
from antflow.display.canvas import LONGEST_TEXT
from antflow.display.environment import can_draw_on, terminal_console
from antflow.display.rich_live import is_live_up
from antflow.display.rows import Row
from antflow.display.stream import SafeStream, open_stream
from antflow.display.terminal import questions, stop_signals
from antflow.display.terminal.capture import Action, Capture, Write
from antflow.display.terminal.composition import Composition
from antflow.display.terminal.device import Front, Size, device_of, is_in_front, is_marked, size_of
from antflow.display.terminal.listening import Listening
from antflow.display.terminal.pane import Note, Pane
from antflow.display.terminal.printed_lines import shown
from antflow.display.terminal.stream_capture import StreamCapture, origin_of

NEWEST_LINES = 200
"""Printed lines kept for displays to show."""

PIECES_AT_ONCE = 32
"""Pieces of kept lines that may wait for the terminal; a log may be larger than the memory."""

LONGEST_HANDLER_WAIT = 1.0
"""Seconds a signal handler waits for another thread to end its frame."""


def open_pane(
    stream: TextIO | None,
    *,
    fills_screen: bool,
    press: Callable[[str], object] | None = None,
) -> Pane | None:
    """Begin to draw on a terminal, together with displays that draw there already.

    Args:
        stream: Where the terminal is: standard error or output, or the stream that captures it.
        fills_screen: Whether the whole screen is wanted.
        press: Called with each key that is typed, in another thread; ``None`` = keys are not read.

    Returns:
        Where to draw; ``None`` where the stream is not such a terminal, or where a `Live` or a
        display of a parent process has it.
    """
    if not can_draw_on(stream) or is_live_up():
        return None
    stream = origin_of(stream)
    console = terminal_console(stream)
    if console.legacy_windows:  # it knows no escape sequences
        return None
    with _opening:
        device = device_of(stream)
        screen = next((each for each in _screens.values() if each.is_on(device)), None)
        if screen is None and is_marked(stream):
            return None
        if screen is None or screen.is_lost:
            screen = _screens[device] = Screen(stream)
        pane = Pane(screen, console, fills_screen, press)
        screen.join(pane)
    return pane


class Screen:
    """One terminal, from the first pane to the last.

    Args:
        stream: Where it is.

    Attributes:
        keys: Its keyboard, for panes that want keys.
    """

    def __init__(self, stream: TextIO) -> None:
        self._device = device_of(stream)
        self._out, self._capture = _reach(stream, self._print, self._echo)
        self._picture = Composition(self._out, self._capture.kept)
        self.keys: Listening = Listening(self._picture.panes, self._capture)
        self._lock = RLock()
        self._drawing_thread: int | None = None
        self._printed_meanwhile: deque[str] = deque()
        self._newest: deque[str] = deque(maxlen=NEWEST_LINES)
        self._front = Front(self._out)
        self._is_over = False
        atexit.register(self.close)
        stop_signals.watch(self)
        questions.watch(self)

    @property
    def size(self) -> Size:
        """The size of the terminal now."""
        return size_of(self._out)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._out.is_lost

    def is_on(self, device: Hashable) -> bool:
        """Whether a device is this terminal, or stands for it."""
        return device == self._device or self._capture.stands_for(device)

    def printed(self, count: int) -> list[str]:
        """The newest lines that were printed, as plain text, the newest last."""
        with self._drawing():
            return list(self._newest)[max(len(self._newest) - count, 0) :]

    def room_for(self, pane: Pane) -> Size:
        """The size that the next frame of a pane may have."""
        with self._drawing():
            return self._picture.room_for(pane)

    def join(self, pane: Pane) -> None:
        """Add a pane below the others. The registry is locked."""
        stop_signals.set_handlers()
        self._capture.start()
        with self._drawing():
            pane.is_open = True
            self._out.write(self._picture.add(pane))
            self.keys.begin()
            if not self._picture.is_paused and not questions.are_open():
                self.keys.look()

    def show(
        self, pane: Pane, rows: list[Row], note: Note | None = None, *, again: bool = False
    ) -> None:
        """Draw the next frame of a pane; on a halted terminal it is left out.

        Args:
            pane: The pane.
            rows: The frame.
            note: What is shown instead of one of its rows.
            again: Only draw if this frame is the newest, and its note has changed.
        """
        with self._drawing():
            if not pane.is_open or (again and (pane.rows is not rows or pane.noted == note)):
                return
            pane.rows = rows
            pane.noted = note
            self._capture.fit()
            if self.keys.is_keyboard_restored:
                # After a stop of which no handler knows: a thread may have opened the screen.
                self.keys.renew()
                if not self._picture.is_paused:
                    self._out.write(self._picture.pause())
            if self.keys.is_keyboard_taken or self._capture.is_keyboard_read():
                # An unfinished line is the question; it would wait for its end.
                self.keys.pass_on()
                self._print_what_waits()
                is_ours = self._capture.passing.is_wanted or questions.are_open()
                room = self._picture.make_room(asked_already=not is_ours)
                _write(self._out, room, self._picture.kept())
                self._out.write(self._picture.echo(self._capture.take_rest()))
            elif self._picture.is_paused:
                if is_in_front(self._out):
                    self._out.write(self._picture.resume())
            elif self._front.is_left():
                self._out.write(self._picture.pause())
            elif self._picture.is_dragged():
                pass
            elif not self._out.is_halted and not self._out.write(self._picture.frame()):
                self._picture.repair()
            if not self._picture.is_paused:
                self.keys.look()

    def leave(self, pane: Pane, rows: list[Row] | None, last_line: str) -> None:
        """Remove a pane, and give the terminal back after the last one.

        Args:
            pane: The pane.
            rows: Its last frame; ``None`` = the current one.
            last_line: A line below, unless the frame says it already.
        """
        with self._leaving(self._capture.stop):
            try:
                if self._picture.panes == [pane]:
                    self._capture.end_lines()
                else:
                    self._capture.catch_up()
            finally:
                self._take_out(pane, rows, last_line)

    def step_aside(self) -> None:
        """Leave the frames that can stay, and the terminal to a `Live`."""
        with self._leaving(lambda then: self._capture.hand_over(self._out.write, then)):
            for pane in tuple(self._picture.panes):
                self._take_out(pane, None, "")

    def close(self) -> None:
        """Remove all panes."""
        for pane in tuple(self._picture.panes):
            self.leave(pane, None, "")

    def forget(self) -> None:
        """In a child process after a fork: the terminal is the parent's."""
        self._lock = RLock()  # a thread that does not exist here may have held it
        for pane in self._picture.panes:
            pane.is_open = False
        self._picture.panes.clear()
        self.keys.forget()
        self._capture.forget()
        self._out.forget()
        atexit.unregister(self.close)

    @contextmanager
    def question(self) -> Iterator[None]:
        """Make room for a question in here. The last pane may leave before the answer comes."""
        with _opening:
            if not self._is_over:
                self._capture.catch_up()
                with self._drawing():
                    self.keys.rest()
                    self._print_what_waits()
                    room = self._picture.make_room(asked_already=False)
                    _write(self._out, room, self._picture.kept())
                    self._out.write(self._capture.take_rest())
        try:
            yield
        finally:
            with _opening:
                if not self._is_over:
                    self._capture.catch_up()  # the question is not a part of the next print

    # What a signal handler calls

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal handler that asks stands in the middle of a frame."""
        return self._drawing_thread == threading.get_ident()

    def end(self) -> None:
        """Give the terminal back at once: the program ends."""
        self.keys.end()
        self._write_hastily(self._picture.closing)

    def pause(self) -> None:
        """Give the terminal back: the program stops."""
        self.keys.rest()
        self._write_hastily(self._picture.pause)

    def fit(self) -> None:
        """The window has another size; the next frame has it as well."""
        self._capture.fit()
        self._picture.is_dragged()  # from now on

    def resume(self) -> None:
        """The program goes on. Nothing is drawn in the background, or while a question is asked."""
        self._picture.repair()
        self.keys.renew()
        if not self._picture.is_paused or not self._picture.panes or self.is_interrupted:
            return
        if is_in_front(self._out) and not self._capture.is_keyboard_read():
            self._write_hastily(self._picture.resume)

    def _write_hastily(self, text: Callable[[], str]) -> None:
        if not self.is_interrupted:
            self._capture.catch_up()
        has_it = self._lock.acquire(timeout=LONGEST_HANDLER_WAIT)
        try:
            if has_it and not self.is_interrupted:
                self._print_what_waits()
            _write(self._out, text(), self._picture.kept())
            self._out.finish()
            self._capture.prepare(self._picture.last_words)
        finally:
            if has_it:
                self._lock.release()

    # Inside

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Hold the lock to change what is drawn; afterwards, do what came in between.

        That is what this thread prints meanwhile (a finalizer may, at any time), and a stop.
        """
        with self._lock:
            self._drawing_thread = threading.get_ident()
            try:
                yield
                if not self._picture.is_dragged():
                    self._print_what_waits()
                self._capture.prepare(self._picture.last_words)
            finally:
                self._drawing_thread = None
        stop_signals.catch_up()

    def _take_out(self, pane: Pane, rows: list[Row] | None, last_line: str) -> None:
        with self._drawing():
            if pane.is_open:
                pane.is_open = False
                self._print_what_waits()
                try:
                    text = self._picture.remove(pane, rows, last_line)
                    _write(self._out, text, self._picture.kept())
                finally:
                    self.keys.end(unless_wanted=True)

    @contextmanager
    def _leaving(self, release: Callable[[Action], None]) -> Iterator[None]:
        """Panes leave in here; the screen ends with the last one, even if a Ctrl-C comes.

        Args:
            release: Releases what is captured, and then calls what it is given.
        """
        with _opening:
            try:
                yield
            finally:
                if not self._picture.panes and not self._is_over:
                    self._is_over = True
                    # Prints are released when the terminal has taken all, so that they come in
                    # order. A Ctrl-C ends that wait, as does a terminal that takes nothing; what is
                    # left may still come.
                    try:
                        self._out.finish()
                    finally:
                        release(self._out.close)
                        stop_signals.unwatch(self)
                        questions.unwatch(self)
                        atexit.unregister(self.close)
                        if _screens.get(self._device) is self:  # a lost one may have been replaced
                            del _screens[self._device]

    def _echo(self, text: str, rest: Callable[[], str]) -> bool:
        """Write text as it is if it belongs to a question.

        Args:
            text: The text.
            rest: Takes the unfinished line before it.
        """
        with self._drawing():
            is_asked = self.keys.is_keyboard_taken or self._capture.is_keyboard_read(text)
            if is_asked:
                self.keys.pass_on()  # first: what is typed from now on is not echoed
                self._print_what_waits()
                room = self._picture.make_room(asked_already=False)
                _write(self._out, room, self._picture.kept())
                self._out.write(self._picture.echo(rest() + text))
        return is_asked

    def _print(self, text: str) -> None:
        """Show printed text that ends in a newline, from any thread."""
        with self._lock:
            if self.is_interrupted:
                self._printed_meanwhile.append(text)
                return
            with self._drawing():
                self._printed_meanwhile.append(text)
        if self._out.is_full:
            self._out.finish()

    def _print_what_waits(self) -> None:
        while self._printed_meanwhile:
            text = self._printed_meanwhile.popleft()
            lines = [shown(line) for line in text.removesuffix("\n").split("\n")]
            self._newest.extend(clean(line)[:LONGEST_TEXT] for line in lines[-NEWEST_LINES:])
            if text := self._picture.say(lines, is_halted=self._out.is_halted):
                self._out.write(text)


def _write(out: SafeStream, text: str, kept: Iterator[str]) -> None:
    """Write text, and lines that have waited for the first screen."""
    out.write(text)
    for number, piece in enumerate(kept, 1):
        out.write(piece)
        if number % PIECES_AT_ONCE == 0:
            out.finish()


def _reach(
    stream: TextIO, emit: Write, claim: Callable[[str, Callable[[], str]], bool]
) -> tuple[SafeStream, Capture]:
    """Where to draw, and what captures the rest.

    Descriptors are better, even those of an object that wraps the true stream: others hold that
    one, as log handlers do, and a "tee" copies what is printed and no frame.
    """
    out = open_stream(stream, past_wrappers=True)
    # Descriptors carry marks between the texts, as single bytes: not possible in UTF-16.
    if out.has_own_descriptor and "\n".encode(out.encoding) == b"\n":
        # Here and not above: Windows has no such descriptors.
        import termios

        from antflow.display.terminal.descriptors import open_capture

        with suppress(OSError, RuntimeError, termios.error):
            return out, open_capture(out, emit, claim)
    out.close()
    # What is printed comes here instead of to the object, and so do frames.
    return open_stream(stream), StreamCapture(stream, emit)


_screens: dict[Hashable, Screen] = {}
_opening = RLock()


def _forget_all() -> None:
    global _opening
    _opening = RLock()
    for screen in _screens.values():
        screen.forget()
    _screens.clear()
    stop_signals.forget()
    questions.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
