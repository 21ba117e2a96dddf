"""Writing to standard output so that nothing ever comes back from it.

A pipe may be closed at the other end, a terminal may hang up, standard output may be closed, absent
or of an encoding that has no bars: a display then falls silent, and the run goes on.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from typing import Any, TextIO

from antflow.display.canvas import known_encoding

LONGEST_WAIT = 1.0
"""Seconds that `SafeStream.write_at_once` waits for a terminal that takes nothing."""

PIECE_BYTES = 256
"""What a terminal that takes anything takes at once."""


class SafeStream:
    """A text stream whose errors are kept here.

    Args:
        stream: Where to write, ``None`` for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding: str = known_encoding(getattr(stream, "encoding", None) or "utf-8")

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._stream is None

    def write(self, text: str) -> bool:
        """Write and flush; characters the encoding has not become ``?``.

        Returns:
            Whether all of it was written.
        """
        stream = self._stream
        if stream is None:
            return False
        if not text.isascii():
            text = self._encode(text).decode(self.encoding)
        try:
            stream.write(text)
            stream.flush()
        except BlockingIOError:
            return False  # a terminal that takes no more just now; the next frame is drawn whole
        except Exception as error:
            self._stream = None
            if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
                _discard_pending(stream)
            return False
        return True

    def write_at_once(self, text: str) -> None:
        """Write past all buffers, for a signal handler: it may stand in the middle of a `write`.

        What the terminal does not take is left out: a process that is to end must not hang on a
        terminal that somebody has halted with Ctrl-S.
        """
        if self._stream is None:
            return
        try:
            target = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self.write(text)
            return
        rest = self._encode(text)
        with suppress(OSError, ValueError):
            while rest and select.select([], [target], [], LONGEST_WAIT)[1]:
                rest = rest[os.write(target, rest[:PIECE_BYTES]) :]

    def _encode(self, text: str) -> bytes:
        return text.encode(self.encoding, "replace")


def _discard_pending(stream: Any) -> None:
    """Empty the buffer of a stream that nobody reads any more.

    Python would try to flush it when it ends, complain, and change the exit code. For that moment
    the file descriptor leads to the null device; afterwards it is again what it was.
    """
    try:
        target = stream.fileno()
        inheritable = os.get_inheritable(target)
        kept = os.dup(target)
    except (OSError, ValueError, AttributeError):
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, target)
        os.close(null)
        stream.flush()
    except (OSError, ValueError):
        pass
    finally:
        os.dup2(kept, target, inheritable)
        os.close(kept)
