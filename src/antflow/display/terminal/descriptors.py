"""Captures what is written to a terminal through the descriptors of this process and its children.

While a display is up, descriptors 1 and 2, and those of `sys.stdout` and `sys.stderr`, lead to a
pseudo terminal if they lead to the terminal that is drawn on. So it does not matter who writes: an
object that was made long before, C code, a child process. All of them still see a terminal, of the
same size and with the same settings. Descriptors that lead elsewhere are left alone, and so is
standard input: what is typed goes to the terminal itself.

A `relay` reads the other end, and a thread here takes the text from it, decodes it and hands it on
in whole lines. Marks are put into the text: when the thread meets one, it has handed on all that
any process had written before.

When the last display is over, the descriptors lead to the terminal again. A child that was started
meanwhile keeps the pseudo terminal; from then on the relay writes its text to the terminal, even
when this program has ended.
"""

from __future__ import annotations

import codecs
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Hashable
from contextlib import ExitStack, suppress
from itertools import count
from threading import Event

from antflow.display import stream
from antflow.display.stream import SafeStream
from antflow.display.terminal import relay
from antflow.display.terminal.capture import Action, Capture, Write
from antflow.display.terminal.device import device_of
from antflow.display.terminal.keyboard import Keyboard
from antflow.display.terminal.printed_lines import Lines

PIECE_BYTES = 65536
"""Read at once."""

FROM_KEYS = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}

MOST_BYTES = 64_000_000
"""Text that waits for a halted terminal; then those who print wait."""


class DescriptorCapture(Capture):
    """Captures the descriptors that lead to a terminal.

    Args:
        out: Draws on the terminal, by a descriptor of its own.
        emit: Called with text that ends in a newline, in the thread that reads.
        claim: Called there with new text, and a function that takes the unfinished line before
            it. If it returns true, it has written both as they are.

    Raises:
        OSError: There are no pseudo terminals, too few descriptors, or no Python to start.
        RuntimeError: No thread can be started.
        termios.error: It is not a terminal.
    """

    def __init__(
        self, out: SafeStream, emit: Write, claim: Callable[[str, Callable[[], str]], bool]
    ) -> None:
        if not _can_start_python():
            raise OSError("there is no Python to start")
        self._out = out
        self._emit = emit
        self._claim = claim
        self._hand_on: Write = self._to_screen
        self._then: Action = _nothing
        self._keyboard = Keyboard(out)
        self._lines = Lines()
        self._decode = codecs.getincrementaldecoder(out.encoding)("replace").decode
        self._mark = b"\x1b_antflow %b " % secrets.token_hex(8).encode()
        self._marks = re.compile(re.escape(self._mark) + rb"(\d+)\x1b\\")
        self._numbers = count(1)
        self._awaited: dict[int, tuple[Action, Event]] = {}
        self._unread = b""
        self._pieces_taken = 0
        self._is_over = False
        self._last_words = b""
        self._captured: dict[int, int] = {}
        self._opened = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._opened.close)
            self._master, self._slave = self._kept(os.openpty())
            termios.tcsetattr(self._slave, termios.TCSANOW, termios.tcgetattr(out.fileno()))
            self.fit()
            orders, self._orders = os.pipe()
            self._pieces, pieces = os.pipe()
            self._kept((self._orders, self._pieces))
            self._thread = threading.Thread(
                target=self._run, args=(orders, pieces), name="antflow-prints", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:
                os.close(orders)
                os.close(pieces)
                raise
            on_error.pop_all()

    def stands_for(self, device: Hashable) -> bool:
        """Whether a device is the pseudo terminal."""
        return device == device_of(self._slave)

    def start(self) -> None:
        """Begin; or capture descriptors that are not captured yet."""
        device = device_of(self._out)
        for descriptor in _standard_descriptors():
            if os.isatty(descriptor) and device_of(descriptor) == device:
                _flush()
                self._captured[descriptor] = os.dup(descriptor)
                self._lead(descriptor, self._slave)

    def fit(self) -> None:
        """Give the pseudo terminal the size of the terminal."""
        with suppress(OSError, termios.error):
            termios.tcsetwinsize(self._slave, termios.tcgetwinsize(self._out.fileno()))

    def prepare(self, last_words: str) -> None:
        """Tell the relay."""
        words = last_words.encode()
        if words != self._last_words:
            self._last_words = words
            self._order(relay.LAST_WORDS + words)

    def catch_up(self) -> None:
        """Wait for the thread, unless the terminal takes nothing."""
        self._after_all(_nothing)

    def end_lines(self) -> None:
        """Hand on all that was written, even text that has no newline yet."""
        _flush()
        self._after_all(self._end_line)

    def stop(self, then: Action) -> None:
        """Put everything back. The thread calls ``then``."""
        self._then = then
        _flush()
        for descriptor, kept in self._captured.items():
            if device_of(descriptor) == device_of(self._slave):
                self._lead(descriptor, kept)
            os.close(kept)
        self._captured.clear()
        self._after_all(self._end)

    def hand_over(self, write: Write, then: Action) -> None:
        """Put everything back, and leave the terminal to a `Live`."""

        def begin() -> None:
            write(self._lines.take_rest())
            self._hand_on = write

        _flush()
        self._after_all(begin)
        self.stop(then)

    def forget(self) -> None:
        """In a child process after a fork; it goes on writing to the pseudo terminal."""
        for kept in self._captured.values():
            os.close(kept)
        self._captured.clear()
        self._opened.close()

    def is_keyboard_read(self, *, unfinished: bool) -> bool:
        """Whether something reads from the terminal."""
        return self.questions > 0 or self._keyboard.is_read(unfinished=unfinished)

    # In any thread

    def _kept(self, descriptors: tuple[int, int]) -> tuple[int, int]:
        for descriptor in descriptors:
            self._opened.callback(os.close, descriptor)
        return descriptors

    def _lead(self, descriptor: int, target: int) -> None:
        os.dup2(target, descriptor, os.get_inheritable(descriptor))

    def _order(self, order: bytes) -> None:
        with suppress(OSError):  # the relay was killed
            os.write(self._orders, order + relay.END)

    def _after_all(self, action: Action) -> None:
        """Have the thread do something after all that was written so far, and wait for it."""
        if threading.current_thread() is self._thread:  # a finalizer ends a display there
            action()
            return
        number, done = next(self._numbers), Event()
        self._awaited[number] = action, done
        progress: object = None
        while not select.select([], [self._slave], [], stream.PATIENCE)[1]:
            if progress == (progress := self._progress):
                self._is_over = self._is_over or action == self._end
                return
        os.write(self._slave, b"%b%d\x1b\\" % (self._mark, number))
        while not done.wait(stream.PATIENCE) and progress != (progress := self._progress):
            pass

    @property
    def _progress(self) -> object:
        return self._pieces_taken, self._out.pieces_written

    # In the thread

    def _run(self, orders: int, pieces: int) -> None:
        # The relay inherits this: a Ctrl-Z must not stop it before it is out of reach of the keys.
        signal.pthread_sigmask(signal.SIG_BLOCK, FROM_KEYS)
        try:
            _start_relay(self._master, self._out.fileno(), orders, pieces)
        finally:
            os.close(orders)
            os.close(pieces)
        source = self._pieces
        while not self._is_over:
            if data := os.read(source, PIECE_BYTES):
                reached = self._take(data)
                self._pieces_taken += 1
                self._order(relay.TAKEN)
                for done in reached:  # the program may end now: the relay must not have it as well
                    done.set()
            else:  # the relay could not be started, or was killed
                source = self._master
        self._opened.close()
        self._then()

    def _take(self, data: bytes) -> list[Event]:
        """Hand text on; returns the events of those who wait for marks that are reached."""
        reached: list[Event] = []
        *parts, rest = self._marks.split(self._unread + data)
        for text, number in zip(parts[::2], parts[1::2], strict=True):
            self._show(text)
            action, done = self._awaited.pop(int(number))
            action()
            reached.append(done)
        end = self._end_of_text(rest)
        self._unread = rest[end:]
        self._show(rest[:end])
        return reached

    def _end_of_text(self, data: bytes) -> int:
        """Where a mark begins of which there is only a part."""
        if (start := data.rfind(self._mark)) >= 0:
            return start
        lengths = range(len(self._mark) - 1, 0, -1)
        return len(data) - next((n for n in lengths if data.endswith(self._mark[:n])), 0)

    def _show(self, data: bytes) -> None:
        if text := self._decode(data):
            self._hand_on(text)

    def _to_screen(self, text: str) -> None:
        if not self._claim(text, self._lines.take_rest) and (lines := self._lines.add(text)):
            self._emit(lines)

    def _end_line(self) -> None:
        if rest := self._lines.take_rest():
            self._emit(rest + "\n")

    def _end(self) -> None:
        self._end_line()
        self._is_over = True


def _start_relay(master: int, terminal: int, orders: int, pieces: int) -> None:
    with suppress(OSError):
        process = subprocess.Popen(  # noqa: S603 - this Python, and a file of this package
            [sys.executable, "-I", "-S", relay.__file__, *map(str, (orders, pieces, MOST_BYTES))],
            stdin=master,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            pass_fds=(orders, pieces),
            cwd="/",
            start_new_session=True,  # no key and no closed window ends it
        )
        process.wait()


def _can_start_python() -> bool:
    """Whether `sys.executable` is Python, and not a program that contains it."""
    name = os.path.basename(sys.executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def _standard_descriptors() -> set[int]:
    found = {1, 2}
    for each in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a stand-in, closed, or absent
            found.add(each.fileno())
    return found


def _flush() -> None:
    for each in (sys.stdout, sys.stderr):
        with suppress(Exception):  # why: whatever a stand-in raises, or a print that stands there
            each.flush()


def _nothing() -> None:
    pass
