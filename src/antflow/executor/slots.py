"""The slots of an executor: as many calls as there are workers may be at work."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Slots:
    """Slots for calls at work, given in the order in which they asked.

    An `asyncio.Semaphore` would do, but cancelling thousands that wait for one takes seconds: each
    looks at all others.

    Args:
        count: How many there are.

    Attributes:
        queue: Those that wait for a slot, the first one first.
    """

    def __init__(self, count: int) -> None:
        self._unused = iter(range(count))
        self._free: list[int] = []
        self._kept: dict[int, asyncio.Future[None]] = {}
        self.queue: OrderedDict[asyncio.Future[int], None] = OrderedDict()

    async def take(self) -> int:
        """Wait for a slot, to be passed on. Its number, from 0."""
        number = self._free.pop() if self._free else next(self._unused, None)
        if number is not None:
            return number
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.queue[turn] = None
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self.queue.pop(turn, None)
            else:  # the slot was handed over just before
                self.pass_on(turn.result())
            raise

    def keep(self, number: int, until: asyncio.Future[None]) -> None:
        """Have a slot wait, when it is passed on, until ``until`` is done."""
        self._kept[number] = until

    def pass_on(self, number: int) -> None:
        """Give a slot to the first that waits for one."""
        if (kept := self._kept.pop(number, None)) is not None:
            kept.add_done_callback(lambda _: self.pass_on(number))
            return
        while self.queue:
            turn, _ = self.queue.popitem(last=False)
            if not turn.cancelled():
                turn.set_result(number)
                return
        self._free.append(number)
