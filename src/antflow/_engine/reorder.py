"""Results in the order of their items, although they come as they are ready.

A result waits here until all before it have been passed on. Its worker does not: it goes on to the
next item, and so a slow item does not idle those behind it. What is bounded is the intake: no more
than a *window* of items is taken in beyond the first that is not settled, which is more than the
stages hold, by as many results as may wait here.

An item and all that was made from it (``expand=True``) are a tree, and the order is that of its
leaves: children in the order they were made in, then what became of the item itself. The *head* is
the place in that order which nothing was passed on for yet: all that comes after it waits. What is
made from the head becomes the head, so the children of the first item come out while they are made.

Who makes items further on is *held* while as many results wait as the window allows. That must not
wait in a circle: the head may need the very worker that is held, or room that it has to make. So

- who makes items from the head is never held;
- a stage has one worker that is not held, unless the head has left the stage behind: it was made in
  a later one. Of those that could be held, the one nearest to the head goes on.

So there is always a way for the head: from the last stage to the first, each has somebody who takes
what comes, and goes on until there is nothing before the head any more. Held are only workers that
would otherwise fill the memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.result import PipelineResult
from antflow._core.waits import Wait, discard

Deliver = Callable[[PipelineResult[Any]], Wait]
"""Takes a result out of the run; an awaitable makes the worker wait (a slow consumer)."""

Place = tuple[int, ...]
"""Where an item stands in the order: its sequence number, then which child of which child it is."""


class _Node(NamedTuple):
    """An item in the order, and the index of the first stage it was in."""

    place: Place
    first_stage: int


class _Held(NamedTuple):
    """A worker that waits before it makes more items."""

    place: Place
    stage: int
    workers: Callable[[], int]
    turn: asyncio.Future[None]


class Reorder:
    """Passes results on in the order of their items.

    Args:
        deliver: Where they go.
        window: Items that may be taken in from the first unsettled one on; also results that may
            wait before those who make items from others are held.
    """

    def __init__(self, deliver: Deliver, window: int) -> None:
        self._deliver = deliver
        self._window = window
        # From the first item that is not through down to the head.
        self._path: list[_Node] = [_Node((0,), 0)]
        self._settled: dict[Place, PipelineResult[Any]] = {}
        self._children: dict[Place, deque[_Node]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._held: list[_Held] = []
        self._has_ended = False
        self.on_room: Callable[[], None] = lambda: None

    def room(self, taken: int) -> int:
        """How many more items may be taken in, ``taken`` being the number of those so far."""
        return self._path[0].place[0] + self._window - taken

    async def wait(self) -> None:
        """Wait until there may be room again."""
        if self._has_ended:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def expect(self, child: Envelope) -> None:
        """An item was made from another, in the stage that the child is in now."""
        node = _Node(place_of(child), child.position + 1)
        parent = node.place[:-1]
        if parent == self._path[-1].place:
            self._path.append(node)
        else:
            self._children.setdefault(parent, deque()).append(node)

    def hold(self, parent: Envelope, workers: Callable[[], int]) -> Wait:
        """What to wait for before one more item is made from this one; ``None``: nothing.

        Args:
            parent: The item.
            workers: Says how many workers its stage has.
        """
        turn = asyncio.get_running_loop().create_future()
        held = _Held(place_of(parent), parent.position, workers, turn)
        self._held.append(held)
        self.look_again()
        return self._until_let_go(held) if held in self._held else None

    def deliver(self, result: PipelineResult[Any]) -> Wait:
        """An item is settled: pass on what is ready now."""
        place = place_of(result)
        self._settled[place] = result
        if place != self._path[-1].place:
            return None
        wait: Wait = None
        while (ready := self._settled.pop(self._path[-1].place, None)) is not None:
            discard(wait)  # the last one waits for all
            wait = self._deliver(ready)
            self._step()
        self.look_again()
        self._open()
        return wait

    def end(self) -> None:
        """Nothing is made to wait any more: the run is ending."""
        self._has_ended = True
        self._open()
        self.look_again()

    def flush(self) -> None:
        """Pass on what is left: the run is over, and what it waited for never came."""
        for place in sorted(self._settled):
            discard(self._deliver(self._settled.pop(place)))

    def look_again(self) -> None:
        """Let those go on who may or must: the head is another one, or what waits, or the workers.

        Of each stage's workers the ones nearest to the head come first.
        """
        if not self._held:
            return
        is_full = len(self._settled) >= self._window and not self._has_ended
        head = self._path[-1]
        still_held: dict[int, int] = {}
        for held in sorted(self._held, reverse=True):
            must_go_on = (
                head.first_stage <= held.stage
                and still_held.get(held.stage, 0) + 1 >= held.workers()
            )
            if held.place == head.place or not is_full or must_go_on:
                self._held.remove(held)
                if not held.turn.done():
                    held.turn.set_result(None)
            else:
                still_held[held.stage] = still_held.get(held.stage, 0) + 1

    def _step(self) -> None:
        """The head was passed on: go to what comes next."""
        place = self._path.pop().place
        if not self._path:
            self._path.append(_Node((place[0] + 1,), 0))
        while children := self._children.get(self._path[-1].place):
            parent = self._path[-1].place
            self._path.append(children.popleft())
            if not children:
                del self._children[parent]

    async def _until_let_go(self, held: _Held) -> None:
        try:
            await held.turn
        finally:
            if held in self._held:
                self._held.remove(held)

    def _open(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        self.on_room()


def place_of(item: PipelineResult[Any] | Envelope) -> Place:
    """Where an item stands in the order."""
    return (item.sequence_id, *item.branch)
