"""Turns of the event loop: workers whose tasks never suspend must not hold it for long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

LONGEST_TURN = 0.005
"""Seconds that such tasks may hold the event loop, all workers of all its runs together."""

HALF_TURN = LONGEST_TURN / 2

MOST_AT_ONCE = 1000
"""The most workers that go on in one turn of the loop."""


class Turns:
    """Says when the workers in an event loop must give way.

    Where tasks suspend, the loop turns anyway, and workers need not give way. So when half a turn
    is over, the loop is asked to tell of its next one. Only if that does not come for another half
    must all workers give way.

    Then they stand in line. One of them goes on in each turn of the loop, so that all of them
    together do not hold it longer than one would; and more and more of them, as long as that leaves
    time in the turn.

    Args:
        loop: The event loop.
        now: The clock of its runs.

    Attributes:
        ends: When to ask `must_give_way` (loop time).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._waits_for_next = False
        self._line: deque[asyncio.Future[None]] = deque()
        self._at_once = 1
        self.ends: float = now() + HALF_TURN

    def must_give_way(self, now: float) -> bool:
        """Whether a worker must give way, asked when `ends` is past."""
        if self._waits_for_next:
            return True
        self._waits_for_next = True
        self.ends = now + HALF_TURN
        self._loop.call_soon(self._begin)
        return False

    def is_over(self) -> bool:
        """Whether the caller must give way; for code that has not read the clock."""
        now = self._now()
        return now >= self.ends and self.must_give_way(now)

    async def give_way(self) -> None:
        """Give everything else on the event loop a turn, and other workers theirs.

        The turn in which it returns may be over again: ask again.
        """
        if self._now() < self.ends:
            await asyncio.sleep(0)
            return
        place = self._loop.create_future()
        self._line.append(place)
        if len(self._line) == 1:
            self._loop.call_soon(self._go_on)
        await place

    def _begin(self) -> None:
        self._waits_for_next = False
        self.ends = self._now() + HALF_TURN

    def _go_on(self) -> None:
        has_time = self._now() < self.ends
        self._at_once = min(2 * self._at_once, MOST_AT_ONCE) if has_time else 1
        left = self._at_once
        while self._line and left:
            place = self._line[0]
            if not place.done():  # done: it was cancelled
                place.set_result(None)
                left -= 1
            self._line.popleft()
        if self._line:
            self._loop.call_soon(self._go_on)


_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()
"""Id of an event loop → its turns, which have the loop: no other one gets its id meanwhile."""


def turns_of(loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> Turns:
    """The turns that all runs in an event loop share."""
    turns = _turns.get(id(loop))
    if turns is None:
        turns = _turns[id(loop)] = Turns(loop, now)
    return turns
