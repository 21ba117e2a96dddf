"""Whether something else reads from the terminal, so that the cursor is where it wants it."""

from __future__ import annotations

import termios
from contextlib import suppress
from typing import Any

from antflow.display.terminal.device import File, is_in_front


class Keyboard:
    """The keyboard of a terminal, as its settings tell.

    A password is read without echo. An editor, a pager, or a prompt that can be edited reads
    single keys, and so may a program that listens to keys and prints nothing: only with an
    unfinished line they are an editor. While this program reads keys itself (`look_again`), any
    other setting is another program's.

    Args:
        terminal: The terminal.
        found: Its settings when nothing else read from it; ``None`` = those it has now.
    """

    def __init__(self, terminal: File | int, found: list[Any] | None = None) -> None:
        self._terminal = terminal
        self._before = self._settings() if found is None else _flags(found)
        self._is_read = False

    def is_read(self, *, unfinished: bool) -> bool:
        """Whether something reads from it.

        Args:
            unfinished: Whether there is text without a newline.
        """
        settings = self._settings()
        echoes, edits = settings
        if settings == self._before:
            self._is_read = False
        elif not any(self._before) or (edits and not echoes) or (unfinished and not edits):
            self._is_read = True
        return self._is_read

    def look_again(self, found: list[Any] | None = None) -> None:
        """Take these settings for those that nothing else has made; ``None`` = those it has now."""
        self._before = self._settings() if found is None else _flags(found)

    def by(self, descriptor: int) -> Keyboard:
        """The same keyboard by another descriptor."""
        other = Keyboard(descriptor)
        other._before = self._before
        return other

    def _settings(self) -> tuple[bool, bool]:
        """Whether what is typed is shown, and edited in whole lines."""
        with suppress(OSError, ValueError, termios.error):
            return _flags(termios.tcgetattr(self._terminal))
        return True, True


def _flags(settings: list[Any]) -> tuple[bool, bool]:
    """Whether what is typed is shown, and edited in whole lines."""
    return bool(settings[3] & termios.ECHO), bool(settings[3] & termios.ICANON)


def settings_of(terminal: File) -> list[Any]:
    """The settings of a terminal, as this process has them when it is in the foreground.

    While it is in the background, a shell edits its own line, and has changed some for that.

    Raises:
        OSError: It has hung up.
        termios.error: It has no settings.
    """
    settings: list[Any] = termios.tcgetattr(terminal.fileno())
    if not is_in_front(terminal):
        settings[0] |= termios.ICRNL
        settings[3] |= termios.ECHO | termios.ICANON
    return settings
