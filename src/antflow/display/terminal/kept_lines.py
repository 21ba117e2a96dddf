"""Printed lines that wait for the first screen while "full" has the second one.

They are in a file, so there is no limit but the disk. It has no name: only this program and its
relay can read it, and it is gone when both have ended. The relay prints it if the program is
killed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

PIECE_BYTES = 1_000_000
"""Read at once."""

MOST_IN_MEMORY = 10_000
"""Lines that are kept where there is no file, or no room in it: the newest."""


class KeptLines:
    """Lines, in the order in which they were printed.

    Args:
        encoding: That of the terminal.
        opens_at_once: Whether the file is opened now, as a relay needs it; else with the first
            lines.

    Attributes:
        descriptor: The file; -1 = there is none.
    """

    def __init__(self, encoding: str, opens_at_once: bool) -> None:
        self._encoding = encoding
        self._may_open = not opens_at_once
        self._size = 0
        self._in_memory: deque[str] = deque(maxlen=MOST_IN_MEMORY)
        self._lost = 0
        self.descriptor: int = _nameless_file() if opens_at_once else -1

    def add(self, lines: Sequence[str]) -> None:
        """Keep lines, without newlines."""
        if self._in_memory or not self._write(printed(lines).encode(self._encoding, "replace")):
            before = len(self._in_memory)
            self._in_memory.extend(lines)
            self._lost += before + len(lines) - len(self._in_memory)

    def take(self) -> Iterator[str]:
        """The text, a piece at a time; nothing is kept any more."""
        size, self._size = self._size, 0
        position = 0
        unread = b""
        while position < size:
            data = os.pread(self.descriptor, min(PIECE_BYTES, size - position), position)
            if not data:
                break
            position += len(data)
            whole, newline, unread = (unread + data).rpartition(b"\n")
            yield (whole + newline).decode(self._encoding, "replace")
        if size:
            os.ftruncate(self.descriptor, 0)
        lines, lost = list(self._in_memory), self._lost
        self._in_memory.clear()
        self._lost = 0
        if lost:
            lines.insert(0, f"({lost:,} lines were not kept: there was no room on the disk)")
        if lines:
            yield printed(lines)

    def close(self) -> None:
        """Keep no more in the file."""
        descriptor, self.descriptor = self.descriptor, -1
        self._size, self._may_open = 0, False
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, data: bytes) -> bool:
        """Whether all of it is in the file; else nothing."""
        if self._may_open:
            self.descriptor, self._may_open = _nameless_file(), False
        if self.descriptor < 0:
            return False
        end = self._size
        try:
            while data:
                written = os.pwrite(self.descriptor, data, end)
                end += written
                data = data[written:]
        except OSError:  # the disk is full
            with suppress(OSError):
                os.ftruncate(self.descriptor, self._size)
            return False
        self._size = end
        return True


def printed(lines: Sequence[str]) -> str:
    """Lines as they are written to a terminal."""
    return "".join(f"{line}\r\n" for line in lines)


def _nameless_file() -> int:
    """A file without a name that only this user could open; -1 if there is no place for one."""
    if not hasattr(os, "pread"):  # Windows
        return -1
    # Here and not above: few programs show "full".
    from tempfile import TemporaryFile

    try:
        with TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except OSError:
        return -1
