"""How much of its time an event loop is at work.

A loop of asyncio waits in one place only, its selector; the rest of its time it is at work, or held
up by something that blocks it. So the clock is read before and after each wait, which costs about
0.15 µs for each turn of the loop. Node.js defines its event loop utilisation in the same way.

A loop that is not written in Python, like uvloop's, has no such place. There the processor time of
its thread has to do, which knows nothing of a thread that sleeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from antflow._engine.clock import clock_seconds, processor_clock


class LoopUse:
    """The seconds that one event loop has been at work.

    Args:
        loop: The event loop. It must be running, in this thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._selector: Any = getattr(loop, "_selector", None)
        self._users = 0
        self._worked = 0.0
        self._woke: float | None = monotonic()  # `None` while the loop waits
        self._processor_clock = processor_clock()
        self._select: Callable[..., Any] | None = None

    def seconds(self) -> float:
        """How long it has been at work, since a time before the run. Any thread may ask."""
        if self._select is None:
            return 0.0 if self._processor_clock is None else clock_seconds(self._processor_clock)
        woke = self._woke
        return self._worked + (0.0 if woke is None else max(monotonic() - woke, 0.0))

    def begin(self) -> None:
        """A run begins to ask."""
        self._users += 1
        select = getattr(self._selector, "select", None)
        if self._users > 1 or select is None:
            return

        def timed(timeout: float | None = None) -> Any:
            self._worked += monotonic() - (self._woke or 0.0)
            self._woke = None
            try:
                return select(timeout)
            finally:
                self._woke = monotonic()

        self._woke = monotonic()
        try:
            self._selector.select = timed
        except AttributeError:  # a selector of someone else's making
            return
        self._select = timed

    def end(self) -> None:
        """A run asks no more."""
        self._users -= 1
        if self._users or self._select is None:
            return
        # Unless something else has put itself in front of it.
        if getattr(self._selector, "select", None) is self._select:
            del self._selector.select
        self._select = None


_used: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopUse] = WeakKeyDictionary()


def use_of(loop: asyncio.AbstractEventLoop) -> LoopUse:
    """The one of an event loop."""
    use = _used.get(loop)
    if use is None:
        use = _used[loop] = LoopUse(loop)
    return use
