"""A terminal for tests: a real pty, read by a terminal emulator.

`PtyScreen` is the terminal. Give `PtyScreen.stream` to a program in this process as its standard
output, or `PtyScreen.spawn` a program of its own. The emulator (pyte) knows one screen only; here
it has two, and the alternate one is kept apart, as on a real terminal.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import pyte

SOURCE = Path(__file__).parents[1] / "src"
PATIENCE = 60.0
"""Seconds after which what should have happened is a failure; not waited for otherwise."""

WISHES = (
    *("CI", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "ANTFLOW_DISPLAY", "TERM_PROGRAM"),
    *("VTE_VERSION", "KONSOLE_VERSION", "WT_SESSION", "KITTY_WINDOW_ID"),
)
"""Variables that say how to draw, or on which terminal."""

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
_SWITCH = re.compile(rb"(\x1b\[\?1049[hl])")
_UNFINISHED = re.compile(rb"\x1b(\[[0-9?;]*|_[^\x1b]*\x1b?)?\Z")
_MARK = re.compile(rb"\x1b_mark (\d+)\x1b\\")


# What a program does that is started on a terminal: one in the background, or under nohup, may have
# been told to ignore them.
_HEARS_SIGNALS = """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
"""


class _AsReal(pyte.Screen):
    """Erases as terminals do: a cursor that waits behind the last column stands on it."""

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        self.cursor.x = min(self.cursor.x, self.columns - 1)
        super().erase_in_line(how, private)

    def erase_in_display(self, how: int = 0, *rest: Any, **more: Any) -> None:
        self.cursor.x = min(self.cursor.x, self.columns - 1)
        super().erase_in_display(how, *rest, **more)


class _HistoryScreen(_AsReal, pyte.HistoryScreen):
    """Keeps what is erased from the top of the screen, as tmux does: that clears the screen."""

    def erase_in_display(self, how: int = 0, *rest: Any, **more: Any) -> None:
        if how == 0 and self.cursor.x == self.cursor.y == 0:
            used = [y for y, line in enumerate(self.display) if line.strip()]
            for y in range(max(used, default=-1) + 1):
                self.history.top.append(self.buffer.pop(y))
        super().erase_in_display(how, *rest, **more)


class PtyScreen:
    """A terminal of so many columns and rows.

    Attributes:
        settle: Called before it is looked at: a program in this process writes what it holds back.
    """

    def __init__(self, columns: int = 80, rows: int = 24, encoding: str = "utf-8") -> None:
        self._master, self._slave = os.openpty()
        self.settle: Callable[[], None] = lambda: None
        self._raw = b""
        self._unread = b""
        self._marks = count(1)
        self._mark = 0
        self._news = threading.Condition()
        self._new_screens(columns, rows)
        self._set_size(columns, rows)
        self._reads = threading.Event()
        self._reads.set()
        self._stands = threading.Event()
        self._is_slow = False
        self.stream: TextIO = os.fdopen(os.dup(self._slave), "w", encoding=encoding, newline="")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._process: subprocess.Popen[bytes] | None = None

    # What it shows

    @property
    def raw(self) -> bytes:
        """Every byte that was written to it."""
        self.sync()
        return self._raw

    @property
    def rows(self) -> list[str]:
        """The rows that are on the screen now, without spaces at their ends."""
        self.sync()
        with self._news:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """All of the screen."""
        return "\n".join(self.rows).rstrip()

    @property
    def paper(self) -> str:
        """The first screen with everything that has scrolled off it: what stays."""
        self.sync()
        with self._news:
            main = self._main
            gone = ["".join(line[x].data for x in range(main.columns)) for line in main.history.top]
            return "\n".join(line.rstrip() for line in [*gone, *main.display]).rstrip()

    @property
    def is_alternate(self) -> bool:
        """Whether the alternate screen is up."""
        self.sync()
        return self._screen is not self._main

    @property
    def is_cursor_hidden(self) -> bool:
        """Whether the last word about the cursor was to hide it."""
        raw = self.raw
        return raw.rfind(b"\x1b[?25l") > raw.rfind(b"\x1b[?25h")

    @property
    def title(self) -> str:
        """What a program has set as the title; it should not."""
        self.sync()
        return str(self._screen.title + self._screen.icon_name)

    @property
    def modes(self) -> set[int]:
        """The modes of the emulator that are on."""
        self.sync()
        return set(self._screen.mode)

    def wait_until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Wait for the screen to show something."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"never seen: {what or holds}\n{self.text}")
            with self._news:
                self._news.wait(0.05)

    # What is done to it

    def resize(self, columns: int, rows: int) -> None:
        """Somebody drags the corner of the window."""
        self.sync()
        with self._news:
            for screen in (self._main, self._other):
                screen.resize(rows, columns)
        self._set_size(columns, rows)

    def spawn(self, script: str, *, stderr: Any = None, **environment: str | None) -> None:
        """Start a Python program with this terminal as its standard streams.

        Args:
            script: The program.
            stderr: Where its standard error goes instead.
            environment: Variables to set, or to remove (``None``).
        """
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _HEARS_SIGNALS + script],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave if stderr is None else stderr,
            env=clean_environment(**environment),
            start_new_session=True,
        )

    def scribble(self, text: bytes) -> None:
        """Another program writes on it."""
        os.write(self._slave, text)

    def type(self, keys: bytes) -> None:
        """Somebody types."""
        os.write(self._master, keys)

    def halt(self, how: str) -> None:
        """Make it take nothing any more, so that a write to it waits. Look at it after `go_on`.

        Args:
            how: "Ctrl-S" is typed; or it is "unread", until the system keeps no more for it.
        """
        self.sync()
        if how == "Ctrl-S":
            self.type(b"\x13")
        else:
            self._reads.clear()
            os.write(self._slave, b"\0")
            assert self._stands.wait(PATIENCE)
        filler = os.open(os.ttyname(self._slave), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        # It is full when it stays full: the system moves what was written on, when it has time.
        while select.select([], [filler], [], 0.2)[1]:
            with suppress(BlockingIOError):
                os.write(filler, b"\0" * 1000)
        os.close(filler)

    def read_slowly(self) -> None:
        """It is read again, some hundred bytes at a time, until `go_on`."""
        self._is_slow = True
        self._reads.set()

    def go_on(self) -> None:
        """Ctrl-Q is typed, and it is read again."""
        self._is_slow = False
        self._reads.set()
        if self._master >= 0:
            self.type(b"\x11")

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> list[Any]:
        """What the system does with what is typed and written: echo, signals, newlines."""
        return termios.tcgetattr(self._slave)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the program's end, and until what it wrote has been read.

        Returns:
            Its exit code.
        """
        code = self.wait_for_code()
        self.sync()
        return code

    def wait_for_code(self) -> int:
        """Wait for the program's end, also where the terminal takes nothing.

        Returns:
            Its exit code.
        """
        assert self._process is not None
        watch = threading.Timer(PATIENCE, self._process.kill)
        watch.start()
        try:
            return self._process.wait()  # with a timeout it would look only now and then
        finally:
            watch.cancel()

    def sync(self) -> None:
        """Wait until everything that was written has been read."""
        self.settle()
        deadline = time.monotonic() + PATIENCE
        mark = next(self._marks)
        while time.monotonic() < deadline:
            try:  # again and again: keys that send a signal empty the terminal's queue
                os.write(self._slave, b"\x1b_mark %d\x1b\\" % mark)
            except OSError:  # hung up
                return
            with self._news:
                if self._news.wait_for(lambda: self._mark >= mark, 0.1):
                    return
        raise AssertionError("the terminal does not read")

    def hang_up(self) -> None:
        """Close the window.

        The number stays taken, by a file without contents: the reader and `go_on` may still use it,
        and must not meet what another thread has opened since.
        """
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._master)
        os.close(nothing)
        if self._reads.is_set():  # a read that is under way keeps the terminal open: it is ended
            with suppress(OSError):
                os.write(self._slave, b"\0")
            self._reader.join(PATIENCE)

    def close(self) -> None:
        """The end of the test. May be called twice."""
        if self._slave < 0:
            return
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.go_on()
        if self._master >= 0:
            self.sync()
        try:
            self.stream.close()
        except OSError:
            pass
        os.close(self._slave)
        self._slave = -1
        self._reader.join(PATIENCE)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    # Inside

    def _new_screens(self, columns: int, rows: int) -> None:
        self._screen: pyte.Screen
        self._main = _HistoryScreen(columns, rows, history=100_000, ratio=1)
        self._other = _AsReal(columns, rows)
        self._main_input = pyte.ByteStream(self._main)
        self._other_input = pyte.ByteStream(self._other)
        self._screen, self._input = self._main, self._main_input

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                time.sleep(0.02 if self._is_slow else 0)
                data = os.read(self._master, 400 if self._is_slow else 65536)
            except OSError:  # nobody has the other end open any more
                data = b""
            if not self._reads.is_set():
                self._stands.set()
                self._reads.wait()
                self._stands.clear()
            with self._news:
                if data:
                    self._take(data)
                self._news.notify_all()
            if not data:
                return

    def _take(self, data: bytes) -> None:
        data = self._unread + data
        unfinished = _UNFINISHED.search(data)
        self._unread = unfinished.group() if unfinished else b""
        data = data[: len(data) - len(self._unread)]
        if marks := _MARK.findall(data):
            self._mark = int(marks[-1])
            data = _MARK.sub(b"", data)
        self._raw += data
        for part in _SWITCH.split(data):
            if part == ENTER:
                self._screen, self._input = self._other, self._other_input
                self._screen.reset()
            elif part == LEAVE:
                self._screen, self._input = self._main, self._main_input
            else:
                self._input.feed(part)


def clean_environment(**changes: str | None) -> dict[str, str]:
    """This process's environment as on a plain terminal, with changes."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    environment |= {"PYTHONPATH": str(SOURCE), "TERM": "xterm-256color"}
    for name in (*WISHES, "COLUMNS", "LINES"):
        environment.pop(name, None)
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment
