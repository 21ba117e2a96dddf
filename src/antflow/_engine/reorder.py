"""Results in the order of their items, although they come as they are ready.

A result waits here until all items before its own are settled. Its worker does not: it goes on to
the next item, and so a slow item does not idle those behind it. What is bounded is the intake: no
more than a *window* of items is taken in beyond the first that is not settled, which is more than
the stages hold, by as many results as may wait here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from antflow._core.result import PipelineResult
from antflow._core.waits import Wait, discard

Deliver = Callable[[PipelineResult[Any]], Wait]
"""Takes a result out of the run; an awaitable makes the worker wait (a slow consumer)."""


class Reorder:
    """Passes results on in the order of their sequence numbers.

    Args:
        deliver: Where they go.
        window: Items that may be taken in from the first unsettled one on.
    """

    def __init__(self, deliver: Deliver, window: int) -> None:
        self._deliver = deliver
        self._window = window
        self._first = 0
        self._settled: dict[int, list[PipelineResult[Any]]] = {}
        self._children: dict[int, int] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self.on_room: Callable[[], None] = lambda: None

    def room(self, taken: int) -> int:
        """How many more items may be taken in, ``taken`` being the number of those so far."""
        return self._first + self._window - taken

    async def wait(self) -> None:
        """Wait until there may be room again."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def expect(self, number: int) -> None:
        """One more item was made from the one with this number."""
        self._children[number] = self._children.get(number, 0) + 1

    def deliver(self, result: PipelineResult[Any]) -> Wait:
        """An item is settled: pass on what is ready now."""
        number = result.sequence_id
        self._settled.setdefault(number, []).append(result)
        if number != self._first:
            return None
        wait: Wait = None
        while (family := self._complete_family()) is not None:
            for member in sorted(family, key=lambda member: member.branch):
                discard(wait)  # the last one waits for all
                wait = self._deliver(member)
            self._first += 1
        self._open()
        return wait

    def _complete_family(self) -> list[PipelineResult[Any]] | None:
        """The first item and all made from it, if none of them is still on its way."""
        family = self._settled.get(self._first)
        if family is None or len(family) <= self._children.get(self._first, 0):
            return None
        self._children.pop(self._first, None)
        return self._settled.pop(self._first)

    def _open(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        self.on_room()
