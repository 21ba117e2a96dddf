"""Results in the order of their items, although items finish in any order.

A result waits here until all results before it have been passed on. Its worker does not wait: it
takes the next item, so a slow item does not idle the others. Instead, the intake is bounded: at
most a *window* of items is taken in beyond the first one that is not settled. The window is what
the stages hold plus the results that may wait here.

An item and all items made from it (``expand=True``) form a tree, and the order is that of its
leaves: the children in the order they were made, then the result of the item itself. The *head* is
the first place in that order whose result has not been passed on; everything after it waits. An
item made from the head becomes the head, so the children of the first item come out as they are
made.

A worker that makes items after the head is *held* while as many results wait as the window allows.
That must not become a deadlock: the head may need the very worker that is held, or room that this
worker has to make. So - a worker that makes items from the head is never held;
- each stage has one worker that is not held, unless the head was made in a later stage. Of the
  workers that could be held, the one nearest to the head goes on.

So the head can always move: each stage, from the last to the first, has a worker that takes what
comes and goes on until nothing stands before the head. Only workers that would otherwise fill the
memory are held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.result import PipelineResult, branch_of
from antflow._core.waits import Wait, discard

Deliver = Callable[[PipelineResult[Any]], Wait]
"""Takes a result out of the run; an awaitable makes the worker wait (a slow consumer)."""

Place = tuple[int, ...]
"""An item's place in the order: its sequence number, then the child's number at each level."""


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
        deliver: Takes the results.
        window: Items that may be taken in, counted from the first unsettled one; also how many
            results may wait before workers that make items are held.
    """

    def __init__(self, deliver: Deliver, window: int) -> None:
        self._deliver = deliver
        self._window = window
        # From the first unsettled item of the input down to the head.
        self._path: list[_Node] = [_Node((0,), 0)]
        self._settled: dict[Place, PipelineResult[Any]] = {}
        self._children: dict[Place, deque[_Node]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._held: list[_Held] = []
        self._has_ended = False
        self.on_room: Callable[[], None] = lambda: None

    def room(self, taken: int) -> int:
        """How many more items may be taken in after the ``taken`` ones so far."""
        return self._path[0].place[0] + self._window - taken

    async def wait(self) -> None:
        """Wait until there may be room again."""
        if self._has_ended:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def expect(self, child: Envelope, first_stage: int) -> None:
        """Note that an item was made from another, and that it enters this stage first."""
        node = _Node(place_of(child), first_stage)
        parent = node.place[:-1]
        if parent == self._path[-1].place:
            self._path.append(node)
        else:
            self._children.setdefault(parent, deque()).append(node)

    def hold(self, parent: Envelope, workers: Callable[[], int]) -> Wait:
        """Hold a worker, if necessary, before it makes one more item from this one.

        Args:
            parent: The item.
            workers: Returns how many workers its stage has.

        Returns:
            An awaitable to wait for, or ``None`` to go on.
        """
        turn = asyncio.get_running_loop().create_future()
        held = _Held(place_of(parent), parent.position, workers, turn)
        self._held.append(held)
        self.look_again()
        return self._until_let_go(held) if held in self._held else None

    def deliver(self, result: PipelineResult[Any]) -> Wait:
        """Note that an item is settled, and pass on the results that are ready now."""
        place = place_of_result(result)
        self._settled[place] = result
        if place != self._path[-1].place:
            return None
        wait: Wait = None
        while (ready := self._settled.pop(self._path[-1].place, None)) is not None:
            discard(wait)  # waiting for the last one is enough
            wait = self._deliver(ready)
            self._step()
        self.look_again()
        self._open()
        return wait

    def end(self) -> None:
        """The run is ending: release everything that waits."""
        self._has_ended = True
        self._open()
        self.look_again()

    def flush(self) -> None:
        """Pass on the results left when the run is over; those missing before them never came."""
        for place in sorted(self._settled):
            discard(self._deliver(self._settled.pop(place)))

    def look_again(self) -> None:
        """Release held workers that may or must go on, now that something has changed.

        That can be the head, the number of waiting results, or the number of workers. In each
        stage, the workers nearest to the head go first.
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
        """The head was passed on: move to the next place."""
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


def place_of(envelope: Envelope) -> Place:
    """The place of an item in the order."""
    return (envelope.sequence_id, *envelope.branch)


def place_of_result(result: PipelineResult[Any]) -> Place:
    """The place of a result: that of its item."""
    return (result.sequence_id, *branch_of(result))
