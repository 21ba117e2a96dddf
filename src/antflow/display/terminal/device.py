"""The device behind a stream or a descriptor: which terminal, its size, and who may use it."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

_MARK = b"\xaf"
_UNUSED_CHARACTER = 19 if sys.platform == "darwin" else 18
"""A control character that the system keeps in the settings of a terminal, and nothing uses."""


class Size(NamedTuple):
    """Columns and rows."""

    columns: int
    rows: int


class File(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


def size_of(stream: File) -> Size:
    """The size of a terminal now; 80 × 24 if it does not tell."""
    columns = rows = 0
    with suppress(OSError, ValueError, AttributeError):
        columns, rows = os.get_terminal_size(stream.fileno())
    return Size(columns or 80, rows or 24)


def device_of(stream: File | int) -> Hashable:
    """The same for all streams and descriptors that lead to one terminal."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = stream if isinstance(stream, int) else stream.fileno()
        if os.name == "nt":
            return "console"  # a process has one, and it has no number
        with suppress(OSError):
            os.tcgetpgrp(descriptor)
            return "terminal of the session"  # ``/dev/tty`` leads there too, with another number
        return os.fstat(descriptor).st_rdev
    return id(stream)  # not a file, but it says it is a terminal


def marked(settings: list[Any]) -> list[Any]:
    """The settings of a terminal, marked as those of a pseudo terminal that a display reads.

    Child processes see the mark, whatever their environment is.
    """
    settings[6][_UNUSED_CHARACTER] = _MARK
    return settings


def unmarked(settings: list[Any], original: list[Any]) -> list[Any]:
    """Settings for the terminal itself, made of those of its pseudo terminal.

    Args:
        settings: Those of the pseudo terminal.
        original: Those of the terminal.
    """
    characters = [*settings[6]]
    characters[_UNUSED_CHARACTER] = original[6][_UNUSED_CHARACTER]
    return [*settings[:6], characters]


def is_marked(stream: File) -> bool:
    """Whether a display of another process reads what is written to a stream, and draws."""
    if os.name == "nt":
        return False
    import termios

    with suppress(OSError, ValueError, AttributeError, IndexError, termios.error):
        return bool(termios.tcgetattr(stream.fileno())[6][_UNUSED_CHARACTER] == _MARK)
    return False


def is_in_front(stream: File) -> bool:
    """Whether this process may use its terminal now: it is not in the background (``&``).

    True as well where that cannot be known.
    """
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return True


class Front:
    """Notices when this process is put into the background, though no handler has seen a stop.

    One that began there draws all the same: ``timeout`` and the like put it there.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: File) -> None:
        self._stream = stream
        self._was_in_front = is_in_front(stream)

    def is_left(self) -> bool:
        """Whether the process was in front at the last call, and is not now."""
        was_in_front, self._was_in_front = self._was_in_front, is_in_front(self._stream)
        return was_in_front and not self._was_in_front
