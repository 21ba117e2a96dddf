"""Reads keys from the terminal while a display is up.

`Keys` are for the display, if the run was begun with ``keys=True``; those for a program that reads
from the pseudo terminal are in `passage`.

The terminal is set to hand over each key at once and to echo none. Everything else stays: Ctrl-C
and Ctrl-Z are signals as before. A thread reads, because it needs no event loop: a blocked loop, or
a loop of another kind, changes nothing. It waits for a key and for a pipe that wakes it, and it is
a daemon, so it never delays the end of the program.

It reads only while the keyboard is ours:

- This process is in the foreground (`look` asks at each frame). One in the background that reads,
  or changes the settings, would be stopped.
- No function of this process asks a question (`rest`), and the program is not stopped (`rest`).
- The settings are those made here. If they are not, another program reads a password or single
  keys. One that reads a password switches ``ECHO`` off, which is off already; most switch off
  ``ECHONL`` with it, so that is switched on here, where it has no effect.

It reads from a descriptor of its own that never waits: what another reader has taken meanwhile is
not waited for.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from antflow.display.environment import is_terminal
from antflow.display.terminal.device import is_in_front

PIECE_BYTES = 1024
MOST_KEYS = 16
"""Characters that arrive at once; more than this were pasted, and are not keys."""

LONGEST_WAIT = 1.0
"""Seconds a signal handler waits for the thread, which never holds the lock for long."""

IN_BACKGROUND = {signal.SIGTTIN, signal.SIGTTOU}
ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}

Settings = list[Any]


class KeyReader(ABC):
    """Reads what is typed on a terminal, while the keyboard is ours.

    Args:
        name: The file of the terminal.
        on_change: Called before and after the settings of the terminal are changed here, with those
            to restore if the program ends without a word; ``None`` = none.

    Attributes:
        is_over: Whether it reads no more.

    Raises:
        OSError: It cannot be opened.
        RuntimeError: No thread can be started.
        termios.error: It has no settings.
    """

    look_every: float | None = None
    """Seconds after which the thread asks whether it is still wanted, though no key has come."""

    def __init__(self, name: str, on_change: Callable[[Settings | None], object]) -> None:
        self._on_change = on_change
        self._lock = threading.RLock()
        self._found: Settings | None = None
        self._original: Settings = []
        self._ours: Settings = []
        self.is_over: bool = False
        self._terminal = os.open(name, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        self._wakes, self._waker = os.pipe()
        try:
            termios.tcgetattr(self._terminal)
            self._thread = threading.Thread(target=self._run, name="antflow-keys", daemon=True)
            self._thread.start()
        except BaseException:
            for each in (self._terminal, self._wakes, self._waker):
                os.close(each)
            raise

    @abstractmethod
    def _wanted(self, found: Settings) -> Settings:
        """The settings to read with, where these were found."""

    @abstractmethod
    def _hand_on(self, data: bytes) -> None:
        """Do something with what was typed. In the thread."""

    def _is_wanted(self) -> bool:
        """Whether to go on. In the thread."""
        return True

    def _is_for_another(self) -> bool:
        """Whether keys that have come are for another program. In the thread."""
        return False

    def fileno(self) -> int:
        """The descriptor it reads from."""
        return self._terminal

    @property
    def are_heard(self) -> bool:
        """Whether the keyboard is ours now."""
        return self._found is not None

    @property
    def is_taken(self) -> bool:
        """Whether another program has changed the settings, and reads."""
        return self._found is not None and not self._are_ours()

    @property
    def are_restored(self) -> bool:
        """Whether a shell has restored the settings: the program was stopped, and goes on."""
        with suppress(OSError, termios.error):
            found = self._found
            return found is not None and termios.tcgetattr(self._terminal) == found
        return False

    def look(self) -> None:
        """Read if the keyboard is ours. Called at each frame."""
        with self._held():
            if self.is_over:
                return
            if not is_in_front(self):
                self._let_go()
            elif self._found is None:
                self._take()
            self._wake()

    def rest(self) -> None:
        """Restore the settings, and read nothing until the next `look`."""
        with self._held():
            self._give_back()

    def renew(self) -> None:
        """The program goes on after a stop: the settings may be others. `look` takes them again."""
        with self._held():
            self._let_go()

    def end(self) -> None:
        """Restore the settings, and end the thread. May be called twice."""
        with self._held():
            self._give_back()
            if not self.is_over:
                self.is_over = True
                self._wake()

    def forget(self) -> None:
        """In a child process after a fork: the terminal is the parent's, and so is the thread."""
        self._lock = threading.RLock()
        self._found, self.is_over = None, True
        for each in (self._terminal, self._wakes, self._waker):
            with suppress(OSError):
                os.close(each)

    # Inside

    @contextmanager
    def _held(self) -> Iterator[None]:
        has_it = self._lock.acquire(timeout=LONGEST_WAIT)
        try:
            yield
        finally:
            if has_it:
                self._lock.release()

    def _take(self) -> None:
        with suppress(OSError, termios.error):
            found = termios.tcgetattr(self._terminal)
            if found == self._ours:  # a shell has restored those that a stopped job had
                found = self._original
            self._original = found
            self._found = found  # first: the program may end between the two
            self._on_change(found)
            self._set(self._wanted(found))
            self._ours = termios.tcgetattr(self._terminal)
            self._on_change(found)

    def _give_back(self) -> None:
        found, self._found = self._found, None
        if found is not None and is_in_front(self):
            with suppress(OSError, termios.error):
                self._set(found)
        if found is not None:
            self._on_change(None)

    def _let_go(self) -> None:
        """Restore nothing: the shell has set the terminal for others."""
        if self._found is not None:
            self._found = None
            self._on_change(None)

    def _set(self, settings: Settings) -> None:
        """Change the settings; even if a job was put into the background just now, it goes on."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IN_BACKGROUND)
        try:
            termios.tcsetattr(self._terminal, termios.TCSANOW, settings)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _are_ours(self) -> bool:
        with suppress(OSError, termios.error):
            return termios.tcgetattr(self._terminal) == self._ours
        return False

    def _may_read(self) -> bool:
        return self._found is not None and self._are_ours() and is_in_front(self)

    def _wake(self) -> None:
        if threading.current_thread() is not self._thread:
            with suppress(OSError):
                os.write(self._waker, b"\0")

    # In the thread

    def _run(self) -> None:
        # All signals are for other threads; those for a background job would stop the program.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        may_read = False
        try:
            while not self.is_over and self._is_wanted():
                sources = [self._wakes, self._terminal] if may_read else [self._wakes]
                ready = select.select(sources, [], [], self.look_every)[0]
                if self._wakes in ready:
                    os.read(self._wakes, PIECE_BYTES)
                is_ready = self._terminal in ready and not self._is_for_another()
                may_read, data = self._read(is_ready)
                self._hand_on(data)
        except (OSError, ValueError):  # the terminal is gone, or has too high a number
            pass
        finally:
            with self._lock:
                self._give_back()
                self.is_over = True
                for each in (self._terminal, self._wakes, self._waker):
                    with suppress(OSError):
                        os.close(each)

    def _read(self, is_ready: bool) -> tuple[bool, bytes]:
        """Read what there is, if the keyboard is ours; whether to wait for more."""
        with self._lock:
            if self.is_over or not self._may_read():
                return False, b""
            if not is_ready:
                return True, b""
            try:
                data = os.read(self._terminal, PIECE_BYTES)
            except BlockingIOError:  # another reader was faster
                return True, b""
            return bool(data), data


class Keys(KeyReader):
    """The keys that are typed on the terminal of standard input.

    Args:
        press: Called in a thread with each key: a character, or ``"up"`` and the like.
        on_change: As in `KeyReader`.

    Raises:
        OSError: Standard input is not a terminal that can be read.
        RuntimeError: As in `KeyReader`.
        termios.error: As in `KeyReader`.
    """

    def __init__(
        self, press: Callable[[str], object], on_change: Callable[[Settings | None], object]
    ) -> None:
        if sys.stdin is None or not is_terminal(sys.stdin):
            raise OSError("standard input is not a terminal")
        self._press = press
        super().__init__(os.ttyname(sys.stdin.fileno()), on_change)

    def _wanted(self, found: Settings) -> Settings:
        return single_keys(found)

    def _hand_on(self, data: bytes) -> None:
        for key in keys_in(data):
            self._press(key)


def single_keys(settings: Settings) -> Settings:
    """Settings of a terminal that hands over each key at once and echoes none."""
    wanted = [*settings[:6], [*settings[6]]]
    wanted[3] = wanted[3] & ~(termios.ECHO | termios.ICANON) | termios.ECHONL
    wanted[6][termios.VMIN], wanted[6][termios.VTIME] = 1, 0
    return wanted


def keys_in(data: bytes) -> list[str]:
    """The keys in what was read at once: arrows by name, other sequences left out."""
    text = data.decode("utf-8", "ignore")
    keys: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "\x1b":
            keys.append(text[at])
            at += 1
            continue
        end = at + 1
        if text[end : end + 1] in ("[", "O"):
            end += 1
            while end < len(text) and text[end] in "0123456789;:<=>?":
                end += 1
        if (arrow := ARROWS.get(text[end : end + 1])) is not None and end == at + 2:
            keys.append(arrow)
        at = end + 1
    return keys if len(keys) <= MOST_KEYS else []
