"""Turns of the event loop: workers whose tasks never suspend must not hold it for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LONGEST_TURN = 0.005
"""Seconds that such tasks may hold the event loop, all workers of a run together."""

HALF_TURN = LONGEST_TURN / 2


class Turns:
    """Says when a run's workers must give way.

    Where tasks suspend, the loop turns anyway, and workers need not give way. So when half a turn
    is over, the loop is asked to tell of its next one. Only if that does not come for another half
    must all workers give way.

    Args:
        loop: The event loop.
        now: The run's clock.

    Attributes:
        ends: When to ask `must_give_way` (loop time).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._waits_for_next = False
        self.ends: float = now() + HALF_TURN

    def must_give_way(self, now: float) -> bool:
        """Whether a worker must give way, asked when `ends` is past."""
        if self._waits_for_next:
            return True
        self._waits_for_next = True
        self.ends = now + HALF_TURN
        self._loop.call_soon(self._begin)
        return False

    async def give_way(self) -> None:
        """Give everything else on the event loop a turn."""
        await asyncio.sleep(0)
        self._begin()

    def _begin(self) -> None:
        self._waits_for_next = False
        self.ends = self._now() + HALF_TURN
