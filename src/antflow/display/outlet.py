"""A terminal that can be written to without waiting for it.

A terminal can be halted: by Ctrl-S, by a connection that hangs, by a window that nobody reads.
Whoever writes to it then waits until it goes on, and if that is the event loop, so does the run.
``O_NONBLOCK``, which lets a write return instead, belongs to what was opened, and that the program
shares with its shell. So the terminal is opened once more, for nobody else.

What it does not take is kept, and goes out before anything else. So no escape sequence is cut off,
and nothing that was printed is lost, but for those who want to get out: they give it some time in
all (`Outlet.flush_within`). A terminal that is merely slow is waited for, as in any write: it is
halted when it has taken nothing at all for a moment.
"""

from __future__ import annotations

import io
import os
import select
import time
from contextlib import suppress
from typing import TextIO

from antflow.display.terminal import is_terminal

LONGEST_LULL = 0.05
"""Seconds without taking anything after which a terminal is halted, rather than slow."""

MOMENT = 0.01
"""Seconds to sleep where a terminal cannot be waited for."""


class Outlet:
    """A terminal, opened once more.

    Args:
        descriptor: Of its own, and non-blocking.

    Attributes:
        taken_in: Bytes that were put here so far.
        is_halted: Whether the terminal took nothing when it was last asked.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = bytearray()
        self._waited_at = -1
        self.taken_in = 0
        self.is_halted = False

    @property
    def given_out(self) -> int:
        """How many of all bytes the terminal has taken."""
        return self.taken_in - len(self._rest)

    @property
    def takes_something(self) -> bool:
        """Whether it is not halted; that shows within a moment."""
        if not self.is_halted:
            self.is_halted = not takes_something(self._descriptor, LONGEST_LULL)
        return not self.is_halted

    def write(self, data: bytes) -> None:
        """Write; what a halted terminal does not take goes out with the next `flush`.

        Raises:
            OSError: The terminal is gone.
        """
        self._rest += data
        self.taken_in += len(data)
        self.flush(0.0 if self.is_halted else LONGEST_LULL)

    def write_at_once(self, data: bytes, patience: float, seconds: float) -> None:
        """Write, for a signal handler: it may stand in the middle of anything else here.

        Args:
            data: What to write, after all that is left.
            patience: Seconds in which the terminal may take nothing.
            seconds: For all of it. What is not taken by then is left.

        Raises:
            OSError: The terminal is gone.
        """
        self._rest = self._rest + data  # a new one: the old one may be in the middle of a write
        self.taken_in += len(data)
        self.flush_within(patience, seconds)

    def flush(self, patience: float = 0.0) -> bool:
        """Write what is left, as far as the terminal takes it.

        Args:
            patience: Seconds in which it may take nothing.

        Returns:
            Whether nothing is left.

        Raises:
            OSError: The terminal is gone.
        """
        with suppress(BlockingIOError):
            while self._rest:
                if patience:
                    takes_something(self._descriptor, patience)
                _write_off(self._descriptor, self._rest)
        self.is_halted = bool(self._rest)
        return not self.is_halted

    def flush_within(self, patience: float, seconds: float) -> bool:
        """Write what is left, as far as the terminal takes it in time.

        Args:
            patience: Seconds in which it may take nothing.
            seconds: In all.

        Returns:
            Whether nothing is left.

        Raises:
            OSError: The terminal is gone.
        """
        began = took_at = time.monotonic()
        while not self.flush():
            now = time.monotonic()
            if self.given_out != self._waited_at:
                took_at = now
            if (left := min(took_at + patience, began + seconds) - now) <= 0:
                break
            self.wait(left)
        return not self.is_halted

    def wait(self, seconds: float) -> None:
        """Wait until the terminal takes something, and so long at most.

        One that says so may still take less than the next character needs: where nothing was taken
        since the last wait, this one is not over at once, so that no loop spins.
        """
        if takes_something(self._descriptor, seconds) and self.given_out == self._waited_at:
            time.sleep(min(MOMENT, seconds))
        self._waited_at = self.given_out

    def close(self) -> bytes:
        """Close it.

        Returns:
            What is left.
        """
        os.close(self._descriptor)
        return bytes(self._rest)


def open_outlet(stream: TextIO | None) -> Outlet | None:
    """Open the terminal that a stream leads to.

    Returns:
        ``None`` where that is impossible: it is no terminal of POSIX, it has no name here (as in
        some containers) or belongs to another user; or the stream is a stand-in, which may do more
        with what is written than pass it on.
    """
    if type(stream) is not io.TextIOWrapper or not is_terminal(stream):
        return None
    try:
        name = os.ttyname(stream.fileno())
        return Outlet(os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except (OSError, ValueError, AttributeError):
        return None


def takes_something(descriptor: int, seconds: float) -> bool:
    """Wait until a write would not wait, or would fail, and so long at most.

    Where the system cannot say it of a terminal (macOS), a write has to tell, in a moment.
    """
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(descriptor, select.POLLOUT)
    events = poll.poll(seconds * 1000)
    if events and not events[0][1] & (select.POLLOUT | select.POLLHUP | select.POLLERR):
        time.sleep(min(MOMENT, seconds))
    return bool(events)


def _write_off(descriptor: int, rest: bytearray) -> None:
    """Write what is taken, and remove it.

    This is one call, so that a signal handler comes before both or after both: there is nothing
    between them that it would write again.
    """
    any(map(rest.__delitem__, map(slice, map(os.write, (descriptor,), (rest,)))))
