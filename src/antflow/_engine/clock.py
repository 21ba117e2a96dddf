"""Time for a run, taken from the event loop it runs in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from antflow._core.held_time import HeldTime, held_time_of
from antflow._core.ports import Timer


class LoopTimers:
    """The timers port over an event loop.

    A loop with its own time (virtual, in tests) is trusted. For all others the clock
    is `time.monotonic`: it is what asyncio's own loop reads, with one call less, and it is finer
    than uvloop's, which counts milliseconds.

    Args:
        loop: The event loop.

    Attributes:
        loop: The event loop.
        on_crash: Called with what a delayed call raises: the loop itself would only log it.
        has_own_time: Whether the loop brings its own time.
        held: For how long sources have held the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.on_crash: Callable[[Exception], object] | None = None
        self.has_own_time: bool = has_own_time(loop)
        self.now: Callable[[], float] = loop.time if self.has_own_time else time.monotonic
        self.held: HeldTime = held_time_of(loop)

    def unheld(self) -> float:
        """`now`, less the seconds for which sources have held the loop. Items are timed by this."""
        return self.now() - self.held.seconds

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback()`` after ``delay`` seconds."""
        return self.loop.call_later(delay, self._call, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` in the event loop; from any thread.

        Raises:
            RuntimeError: The event loop is closed.
        """
        self.loop.call_soon_threadsafe(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            if self.on_crash is None:
                raise
            self.on_crash(error)


def has_own_time(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an event loop brings its own time, as a virtual one in tests does."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    return type(loop).time is not asyncio.BaseEventLoop.time


def processor_clock() -> int | None:
    """The clock of the processor time of the thread that asks; ``None``: there is no such clock."""
    try:
        return time.pthread_getcpuclockid(threading.get_ident())
    except (AttributeError, OSError):  # not on Windows
        return None


def clock_seconds(clock: int) -> float:
    """What such a clock shows; 0.0 once its thread has ended."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0
