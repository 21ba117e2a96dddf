"""Writing to standard output so that nothing ever comes back from it.

A pipe may be closed at the other end, a terminal may hang up, standard output may be closed, absent
or of an encoding that has no bars: a display then falls silent, and the run goes on. It goes on as
well while a terminal is halted, where that can be opened once more (`Outlet`); elsewhere a write
waits, as a print does.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TextIO

from antflow.display.canvas import known_encoding
from antflow.display.outlet import open_outlet, takes_something

LONGEST_WAIT = 1.0
"""Seconds in which a terminal may take nothing, when somebody wants to get out.

That is a signal that ends or stops the program, or a Ctrl-C while the end waits.
"""

LONGEST_END = 5.0
"""Seconds that it has in all then: one that is slow, but alive."""

LONGEST_POLL = 1.0
"""Seconds after which whoever waits for a terminal looks whether it is still there."""

PIECE_BYTES = 256
"""What a terminal that takes anything takes at once."""


class SafeStream:
    """A text stream whose errors are kept here.

    Args:
        stream: Where to write, ``None`` for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._outlet = open_outlet(stream)
        self.encoding: str = known_encoding(getattr(stream, "encoding", None) or "utf-8")

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._stream is None or getattr(self._stream, "closed", False)

    def write(self, text: str) -> bool:
        """Write and flush; characters the encoding has not become ``?``.

        Returns:
            Whether all of it was written, or is going to be.
        """
        stream = self._stream
        if stream is None or self.is_lost:
            return False
        try:
            if self._outlet is None:
                stream.write(text if text.isascii() else self._encode(text).decode(self.encoding))
                stream.flush()
            else:
                if self._outlet.takes_something:  # else this flush would wait: later, then
                    with suppress(BlockingIOError):
                        stream.flush()  # somebody may have written half a line
                self._outlet.write(self._encode(text))
        except BlockingIOError:
            return False  # a terminal that takes no more just now; the next frame is drawn whole
        except Exception as error:
            self._lose(error)
            return False
        return True

    def flush(self) -> bool:
        """Write what a halted terminal did not take before, as far as it does now.

        Returns:
            Whether nothing is left.
        """
        try:
            return self._outlet is None or self._outlet.flush()
        except OSError as error:
            self._lose(error)
            return True

    def drain(
        self,
        most: int = 0,
        holding: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Wait until the terminal has taken what was written up to now, as a print would.

        Args:
            most: So many bytes may be left.
            holding: What has to be held while this stream is used; nothing is while it waits.
        """
        outlet = self._outlet
        if outlet is None:
            return
        goal = outlet.taken_in - most  # others may go on writing
        while self._outlet is outlet and outlet.given_out < goal:
            outlet.wait(LONGEST_POLL)  # not for ever: in another thread it may be closed
            with holding():
                self.flush()

    def close(self) -> None:
        """Write to the stream alone from now on.

        After a `drain` nothing is left. Otherwise somebody did not want to wait: what the terminal
        does not take in time stays behind, and nothing is written any more, for that would wait.
        """
        try:
            if self._outlet is not None:
                self._outlet.flush_within(LONGEST_WAIT, LONGEST_END)
        except OSError as error:
            self._lose(error)
        finally:
            if self._let_go():
                self._stream = None

    def forget(self) -> None:
        """In a child process after a fork: what is left is the parent's."""
        self._let_go()

    def write_at_once(self, text: str) -> None:
        """Write past all buffers, for a signal handler: it may stand in the middle of a `write`.

        What the terminal does not take in time stays behind: a process that is to end must not hang
        on a terminal that somebody has halted with Ctrl-S.
        """
        if self._stream is None:
            return
        if self._outlet is not None:
            with suppress(OSError):
                self._outlet.write_at_once(self._encode(text), LONGEST_WAIT, LONGEST_END)
            return
        try:
            target = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self.write(text)
            return
        rest = self._encode(text)
        deadline = time.monotonic() + LONGEST_WAIT
        with suppress(OSError, ValueError, AttributeError):  # Windows cannot wait like that
            while rest and (left := deadline - time.monotonic()) > 0:
                if not takes_something(target, left):
                    break
                rest = rest[os.write(target, rest[:PIECE_BYTES]) :]

    def _lose(self, error: Exception) -> None:
        stream, self._stream = self._stream, None
        self._let_go()
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
            _discard_pending(stream)

    def _let_go(self) -> bytes:
        """Close the outlet; what is left in it is returned."""
        outlet, self._outlet = self._outlet, None
        return b"" if outlet is None else outlet.close()

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
