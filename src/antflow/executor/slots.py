"""The slots of an executor: as many calls as there are workers may be at work."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator

from antflow._engine.contexts import around


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

    @around
    async def one(self) -> AsyncGenerator[int, None]:
        """Wait for a slot and hold it inside the block; gives its number, from 0."""
        number = await self._take()
        try:
            yield number
        finally:
            self._pass_on(number)

    async def _take(self) -> int:
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
                self._pass_on(turn.result())
            raise

    def keep(self, number: int, until: asyncio.Future[None]) -> None:
        """Free a slot not at the end of its block, but only when ``until`` is done as well."""
        self._kept[number] = until

    def _pass_on(self, number: int) -> None:
        if (kept := self._kept.pop(number, None)) is not None:
            kept.add_done_callback(lambda _: self._pass_on(number))
            return
        while self.queue:
            turn, _ = self.queue.popitem(last=False)
            if not turn.cancelled():
                turn.set_result(number)
                return
        self._free.append(number)
