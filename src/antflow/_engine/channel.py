"""The bounded link between two stages.

It is one ordered queue. A sender always *puts* its item at once, and then waits for *room* if the
queue is longer than its capacity. So an item is in the channel or with its sender and never between
the two, no matter what is cancelled, or when. At most ``capacity + senders`` items are inside: as
many as there would be if the waiting senders still held theirs. Only items that were inside before
(`put_first`), and those that the run's own tasks feed, go beyond that.

A receiver takes an item at once, or parks until the *bell* wakes it. A wake-up carries no item: it
only says "look again". A burst costs one wake-up: the bell wakes one sleeper, lets one sender go
on, and rings again in the next turn of the loop while there is more to do. So nothing is lost if a
waiter is cancelled just after it was woken. There are no timers and no polling.

While all receivers are at work, a new item does not ring: each of them looks again before it parks.
The worker loop has the ordinary cases of `put` and `take` inlined.

Order: FIFO within a priority, lower priority number first. There is a heap only once an item with a
non-default priority was put.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from antflow._core.envelope import DEFAULT_PRIORITY

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded, closable queue for one event loop.

    Args:
        capacity: Items it holds before senders wait. 0 = hand to hand: a sender waits until its
            item is taken. ``None`` = unbounded.
        recruit: Called when there is work and no receiver sleeps: start another one and return
            ``True``, or return ``False`` if there is none to start.
        has_more: Says whether a receiver that is woken would find work although the queue is empty
            (the first stage pulls from the source).

    Attributes:
        capacity: The same.
        most: The same as a number: above it, senders wait.
        queue: The items, unless they are ordered by priority.
        senders: Those that wait for room.
        bell: The wake-up that is under way, if any.
        may_wake: Whether a receiver may be free; if not, a new item need not ring.
        is_special: Whether it is closed, or ordered by priority.
        is_closed: Whether it takes no more items.
    """

    __slots__ = (
        "_has_more",
        "_heap",
        "_left_over",
        "_loop",
        "_recruit",
        "_serial",
        "_sleepers",
        "bell",
        "capacity",
        "is_closed",
        "is_special",
        "may_wake",
        "most",
        "queue",
        "senders",
    )

    def __init__(
        self,
        capacity: int | None,
        *,
        recruit: Callable[[], bool] | None = None,
        has_more: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.capacity = capacity
        self.most: float = float("inf") if capacity is None else capacity
        self._recruit = recruit
        self._has_more = has_more
        self.queue: deque[T] = deque()
        self._heap: list[tuple[int, int, T]] | None = None
        self._serial = 0
        self._left_over: list[T] = []
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self.senders: deque[asyncio.Future[None]] = deque()
        self.bell: asyncio.Handle | None = None
        self.is_closed = False
        self.may_wake = True
        self.is_special = False

    # Sending

    def put(self, item: T, priority: int = DEFAULT_PRIORITY) -> bool:
        """Append an item, at once.

        On a closed channel the item is set aside for `drain`: no receiver will take it.

        Returns:
            Whether the sender must now await `room`.
        """
        if self.is_special or priority != DEFAULT_PRIORITY:
            return self._put_slowly(item, priority)
        queue = self.queue
        queue.append(item)
        if self.may_wake and self.bell is None:
            self.ring()
        return len(queue) > self.most

    def put_all(self, items: Iterable[T], priority: int = DEFAULT_PRIORITY) -> None:
        """Append items, at once. For a sender that checks `has_room` itself."""
        if self.is_special or priority != DEFAULT_PRIORITY:
            for item in items:
                self._put_slowly(item, priority)
        else:
            self.queue.extend(items)
            if self.may_wake:
                self.ring()

    def put_first(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Put an item that has been in here before ahead of all others of its priority."""
        if self.is_closed:
            self._left_over.append(item)
            return
        if self._heap is None and priority != DEFAULT_PRIORITY:
            self._order_by_priority()
        if self._heap is None:
            self.queue.appendleft(item)
        else:
            self._serial += 1
            heappush(self._heap, (priority, -self._serial, item))
        self.ring()

    @property
    def has_room(self) -> bool:
        """Whether the queue is within its capacity."""
        return len(self) <= self.most

    async def room(self) -> None:
        """Wait until the queue is back within its capacity, in the order of the callers.

        Cancellation: the item that was put stays in the channel.
        """
        if self.has_room or self.is_closed:
            return
        await self._park(self.senders)

    # Receiving

    def take(self) -> T | None:
        """The next item; ``None`` if there is none."""
        queue = self.queue
        if queue:
            item = queue.popleft()
        elif self._heap:
            item = heappop(self._heap)[2]
        else:
            return None
        if self.senders and self.bell is None:
            self.ring()
        return item

    async def wait(self) -> None:
        """Park until there may be something to take, or the channel is closed."""
        self.may_wake = True
        await self._park(self._sleepers)

    def ring(self) -> None:
        """Soon wake or recruit a receiver if there is work, and a sender if there is room."""
        self.may_wake = True
        if self.bell is None and not self._loop.is_closed():
            self.bell = self._loop.call_soon(self._ring)

    def wake_all(self) -> None:
        """Wake every sleeper, so that it looks again."""
        while self._wake_one(self._sleepers):
            pass

    # Ending

    def close(self) -> None:
        """Accept no more. Items inside can still be taken; sleepers and waiting senders go on."""
        self.is_closed = self.is_special = True
        self.wake_all()
        while self._wake_one(self.senders):
            pass

    def drain(self) -> list[T]:
        """Take out everything at once, in order; items put after `close` come last."""
        items = [entry[2] for entry in sorted(self._heap or ())] + list(self.queue)
        items += self._left_over
        self.queue.clear()
        self._left_over.clear()
        if self._heap is not None:
            self._heap.clear()
        return items

    def __len__(self) -> int:
        """How many items are inside, including those of waiting senders."""
        return len(self.queue) if self._heap is None else len(self._heap)

    def __bool__(self) -> bool:
        # A channel is never false: `channel or default` must not replace an empty one.
        return True

    @property
    def blocked(self) -> int:
        """How many items are beyond the capacity; their senders wait for room."""
        if self.capacity is None or not self.senders:
            return 0
        return min(max(len(self) - self.capacity, 0), len(self.senders))

    # Inside

    def _put_slowly(self, item: T, priority: int) -> bool:
        if self.is_closed:
            self._left_over.append(item)
            return False
        heap = self._order_by_priority() if self._heap is None else self._heap
        self._serial += 1
        heappush(heap, (priority, self._serial, item))
        self.ring()
        return len(heap) > self.most

    def _order_by_priority(self) -> list[tuple[int, int, T]]:
        # Serial numbers are unique, so the heap never compares two items.
        heap = [(DEFAULT_PRIORITY, n, item) for n, item in enumerate(self.queue)]
        self._heap = heap
        self.is_special = True
        self._serial = len(heap)
        self.queue.clear()
        return heap

    def _ring(self) -> None:
        self.bell = None
        if self.is_closed:
            return
        sender_went_on = False
        if self.senders and len(self) <= self.most:
            sender_went_on = self._wake_one(self.senders)
        there_is_work = len(self) or (self._has_more is not None and self._has_more())
        if there_is_work and not self._wake_one(self._sleepers):
            there_is_work = self._recruit is not None and self._recruit()
            self.may_wake = there_is_work
        if there_is_work or sender_went_on:
            self.bell = self._loop.call_soon(self._ring)

    async def _park(self, waiting: deque[asyncio.Future[None]]) -> None:
        # A waiter cancelled after it was woken need not pass on the wake-up: the bell rings again.
        waiter = self._loop.create_future()
        waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiting:
                waiting.remove(waiter)

    def _wake_one(self, waiting: deque[asyncio.Future[None]]) -> bool:
        while waiting and not self._loop.is_closed():
            waiter = waiting.popleft()
            if not waiter.done():  # done: it was cancelled and has not run yet
                waiter.set_result(None)
                return True
        return False
