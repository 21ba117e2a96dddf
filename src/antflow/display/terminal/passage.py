"""Passes keys on to a program that reads them from the pseudo terminal.

A pager, ``vim -`` and the like read keys from the terminal that is their standard error, because
their standard input is a pipe. While a display is up, that is the pseudo terminal. Such a program
shows itself by its settings: it has keys handed over at once, or not echoed. The real terminal
then gets the same settings, and a thread copies what is typed.

A program that draws with curses sets its standard output in the same way, and reads the real
terminal. It gets the settings, but no key of its own may be copied. So a key is copied only if it
is still there after a while; and when another program has once taken one, none is.
"""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Callable
from contextlib import suppress

from antflow.display.terminal.capture import Passing
from antflow.display.terminal.device import unmarked
from antflow.display.terminal.keyboard import Keyboard
from antflow.display.terminal.keys import KeyReader, Settings, single_keys

LOOK = 0.01
"""Seconds between two looks at whether a key has been taken."""

FIRST_LOOKS = 25
"""Looks at the first key: a program may not be ready for it."""

LOOKS = 3


class Passage(KeyReader):
    """The keys for a program that reads from a pseudo terminal, until it reads no more.

    Args:
        name: The file of the real terminal.
        pseudo: The pseudo terminal.
        keyboard: Knows whether something reads from that.
        on_change: As in `KeyReader`.

    Raises:
        OSError: The terminal cannot be opened.
        RuntimeError: No thread can be started.
        termios.error: One of them has no settings.
    """

    look_every: float | None = 0.1

    def __init__(
        self,
        name: str,
        pseudo: int,
        keyboard: Keyboard,
        on_change: Callable[[Settings | None], object],
    ) -> None:
        self._settings: Settings = termios.tcgetattr(pseudo)
        self._looks = FIRST_LOOKS
        self._another_reads = False
        # Its own: the other one may be closed at any time, and its number taken by a file.
        self._pseudo = os.dup(pseudo)
        self._keyboard = keyboard.by(self._pseudo)
        try:
            super().__init__(name, on_change)
        except BaseException:
            os.close(self._pseudo)
            raise

    def forget(self) -> None:
        """In a child process after a fork: the terminal is the parent's, and so is the thread."""
        super().forget()
        with suppress(OSError):
            os.close(self._pseudo)

    def _wanted(self, found: Settings) -> Settings:
        return single_keys(unmarked(self._settings, found))

    def _is_wanted(self) -> bool:
        if not self._keyboard.is_read(unfinished=True):
            return False
        with self._lock, suppress(termios.error):
            settings = termios.tcgetattr(self._pseudo)
            if settings != self._settings and self._found is not None and self._may_read():
                self._settings = settings
                self._set(self._wanted(self._found))
                self._ours = termios.tcgetattr(self._terminal)
        return True

    def _is_for_another(self) -> bool:
        for _ in range(self._looks):
            time.sleep(LOOK)
            if not select.select([self._terminal], [], [], 0)[0]:
                self._another_reads = True
                return True
        self._looks = LOOKS
        return False

    def _may_read(self) -> bool:
        return not self._another_reads and super()._may_read()

    def _hand_on(self, data: bytes) -> None:
        # A program that reads none of it must not hold the thread up.
        if data and select.select([], [self._pseudo], [], 0)[1]:
            os.write(self._pseudo, data)

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            os.close(self._pseudo)


class PassingOn(Passing):
    """Passes keys on as long as a program reads them from a pseudo terminal.

    Args:
        name: The file of the real terminal.
        pseudo: The pseudo terminal.
        on_change: As in `KeyReader`.

    Attributes:
        keyboard: The keyboard of the pseudo terminal.
    """

    def __init__(
        self, name: str, pseudo: int, on_change: Callable[[Settings | None], object]
    ) -> None:
        self._name = name
        self._pseudo = pseudo
        self._on_change = on_change
        self._passage: Passage | None = None
        self.keyboard: Keyboard = Keyboard(pseudo)

    @property
    def is_wanted(self) -> bool:
        """Whether a program has set the pseudo terminal to read keys from it."""
        return self.keyboard.is_read(unfinished=True)

    def begin(self) -> None:
        """Pass on what is typed on the terminal, if that is possible."""
        if self._passage is None or self._passage.is_over:
            self._passage = None
            with suppress(OSError, RuntimeError, termios.error):
                self._passage = Passage(self._name, self._pseudo, self.keyboard, self._on_change)
        if self._passage is not None:
            self._passage.look()

    def end(self) -> None:
        """Pass nothing on, and restore the settings of the terminal."""
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.end()

    def forget(self) -> None:
        """In a child process after a fork: the terminal is the parent's."""
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.forget()
