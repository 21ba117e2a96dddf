"""The slots of an executor: as many calls may run as there are slots."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Slots:
    """Slots for running calls, given out in the order of the requests.

    An `asyncio.Semaphore` would do, but cancelling thousands of waiters takes seconds, because each
    looks at all the others.

    Args:
        count: How many there are.

    Attributes:
        queue: The waiters for a slot, oldest first.
    """

    def __init__(self, count: int) -> None:
        self._unused = iter(range(count))
        self._free: list[int] = []
        self._kept: dict[int, asyncio.Future[None]] = {}
        self.queue: OrderedDict[asyncio.Future[int], None] = OrderedDict()

    async def take(self) -> int:
        """Wait for a slot and return its number, from 0. Give it back with `pass_on`."""
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
            else:  # the slot had just been handed over
                self.pass_on(turn.result())
            raise

    def keep(self, number: int, until: asyncio.Future[None]) -> None:
        """Hold a slot back, when it is passed on, until ``until`` is done."""
        self._kept[number] = until

    def pass_on(self, number: int) -> None:
        """Give a slot to its first waiter."""
        if (kept := self._kept.pop(number, None)) is not None:
            kept.add_done_callback(lambda _: self.pass_on(number))
            return
        while self.queue:
            turn, _ = self.queue.popitem(last=False)
            if not turn.cancelled():
                turn.set_result(number)
                return
        self._free.append(number)
