"""Items that wait for their next try, without holding a worker."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush

from antflow._core.envelope import Envelope
from antflow._core.ports import Timer, Timers
from antflow._engine.channel import Channel

DELAYS_KEPT = 16
MOST_TOLD_APART = 8
MOST_DUES = 256
"""Of more items than twice this, only a sample of the times at which they are due is read."""


class RetryHeap:
    """The timer heap of one stage: one timer, for the item that is due first.

    A due item goes to the head of the stage's channel, above its capacity: it has been inside
    already.

    The heap is bounded: after `push`, a worker waits for `room` and takes nothing new meanwhile, so
    that at most ``capacity`` items and one per worker wait here.

    Attributes:
        capacity: As given.
        delays: How often items had been tried → how long the latest of them have to wait.
    """

    def __init__(self, channel: Channel[Envelope], timers: Timers, capacity: int) -> None:
        self._channel = channel
        self._timers = timers
        self.capacity: int = capacity
        # Items that were made from one item share their number; their branches differ.
        self.delays: dict[int, deque[float]] = {}
        self._heap: list[tuple[float, int, tuple[int, ...], Envelope]] = []
        self._timer: Timer | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def push(self, envelope: Envelope, delay: float) -> None:
        """Add an item to wait ``delay`` seconds; on a closed heap, until `drain`."""
        if delay <= 0 and not self._is_closed:
            self._channel.put_first(envelope, envelope.priority)
            return
        self._note(min(envelope.attempts, MOST_TOLD_APART), delay)
        envelope.not_before = self._timers.now() + delay
        entry = (envelope.not_before, envelope.sequence_id, envelope.branch, envelope)
        heappush(self._heap, entry)
        if not self._is_closed and self._heap[0] is entry:
            self._set_timer()

    async def room(self) -> None:
        """Wait until fewer than ``capacity`` items wait here."""
        while len(self._heap) >= self.capacity and not self._is_closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    @property
    def is_full(self) -> bool:
        """Whether a worker has to wait for room."""
        return len(self._heap) >= self.capacity

    def dues(self) -> list[tuple[float, int]]:
        """When items are due, in order, and how often they were tried; of many, of some of them."""
        heap = self._heap.copy()  # another thread may read it
        step = max(len(heap) // MOST_DUES, 1)
        # A heap is sorted only roughly: of a sample, the very last one must not be missing.
        some = sorted(heap[::step])
        if step > 1:
            some[-1] = max(heap)
        return [(due, envelope.attempts) for due, _, _, envelope in some]

    def close(self) -> None:
        """Nothing becomes due any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def drain(self) -> list[Envelope]:
        """Take out everything, earliest first."""
        envelopes = [entry[-1] for entry in sorted(self._heap)]
        self._heap.clear()
        return envelopes

    def __len__(self) -> int:
        """Items that wait here."""
        return len(self._heap)

    def __bool__(self) -> bool:
        return True

    def _note(self, tries: int, delay: float) -> None:
        delays = self.delays.get(tries)
        if delays is None:
            delays = self.delays[tries] = deque(maxlen=DELAYS_KEPT)
        delays.append(delay)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(self._heap[0][0] - self._timers.now(), 0.0)
        self._timer = self._timers.call_later(delay, self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        now = self._timers.now()
        due: list[Envelope] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[-1])
        for envelope in reversed(due):  # each goes before the one put first before it
            self._channel.put_first(envelope, envelope.priority)
        if self._heap:
            self._set_timer()
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
