"""The heartbeat of an event loop.

A heartbeat is a call that the watchdog asks an event loop to make, when it sees the loop at work.
As long as it does not come, the loop does not get its turn: a task, or whatever else runs on the
loop, does not give way. How late it was is booked when it comes, in the loop's own thread. Who held
the loop up is seen by the watchdog, in its thread, while it lasts.

All runs of a loop (with the same threshold) share one heartbeat, which is there while there are
any. It belongs to them: nothing else keeps it, and a loop that is given up takes it along. A loop
with a time of its own has none, since its time does not pass while something blocks it.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context
from threading import get_ident
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any

from antflow._engine.loop_health import whereabouts
from antflow._engine.loop_health.watchdog import stood_still, watchdog
from antflow._engine.loop_health.whereabouts import Footing, Seat, Sight

if TYPE_CHECKING:
    from antflow._engine.loop_health.loop_watch import LoopWatch

LONGEST_INTERVAL = 0.1
"""Seconds between two looks at a loop."""

SHORTER_INTERVAL = 0.4
"""As a share of the threshold, where that is less."""

USUAL_DELAY = 0.05
"""Seconds that a heartbeat may be late without anything being booked, unless it is a stall."""


class Heartbeat:
    """The heartbeat of one event loop.

    Args:
        loop: The event loop; this is made while it runs, in its thread.
        threshold: Seconds from which on a block is always seen.

    Attributes:
        interval: Seconds between two looks.
        patience: Seconds without the heartbeat after which the loop counts as blocked. A block of
            the length of the threshold is seen at work after an interval, at the latest.
        usual_delay: Seconds that it may be late without anything being booked.

    Written in the loop's thread:

    Attributes:
        footing: Where in its thread's stack the loop runs.
        answered: Which heartbeat came last.
        watches: Whom it tells; replaced and never changed.

    Written in the watchdog's thread:

    Attributes:
        asked: Which heartbeat was asked for last: when the loop was to be asked, that is. Until
            it has come, the heartbeat is awaited.
        next_look: When to look at the loop again; ``None``: when it has answered.
        stopped_since: Which heartbeat did not come because nobody ran the loop.

    Written by whoever has its turn, the loop while a heartbeat is awaited and the watchdog
    otherwise:

    Attributes:
        lag: How late the last heartbeat was, in seconds.
        first_sight: What was seen when the heartbeat was asked for, while that may be told.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threshold: float) -> None:
        self.loop = loop
        self.threshold = threshold
        self.interval: float = min(SHORTER_INTERVAL * threshold, LONGEST_INTERVAL)
        self.patience: float = threshold - self.interval
        self.usual_delay: float = min(self.patience, USUAL_DELAY)
        self.footing: Footing = _footing_in(loop)
        self.asked: float = monotonic()
        self.answered: float = self.asked
        self.watches: tuple[LoopWatch, ...] = ()
        self.next_look: float | None = self.asked + self.interval
        self.first_sight: Sight | None = None
        self.stopped_since: float | None = None
        self.lag: float = 0.0
        self._context = Context()  # none of the user's
        self._handle: asyncio.Handle | None = None
        self._computed = 0.0

    @property
    def is_awaited(self) -> bool:
        """Whether the heartbeat that was asked for has not come yet."""
        return self.answered != self.asked

    @property
    def is_over(self) -> bool:
        """Whether nobody wants to know any more, or nothing can come."""
        return not self.watches or self.loop.is_closed()

    def join(self, watch: LoopWatch) -> None:
        """Tell one more."""
        self._come()  # what was late until now is not for its books
        self.watches += (watch,)
        watchdog.look_after(self)

    def leave(self, watch: LoopWatch) -> None:
        """Tell it what there is to tell, and then no more."""
        self._come()
        self.first_sight = None  # perhaps it shows this very run
        self.watches = tuple(each for each in self.watches if each is not watch)
        if not self.watches and self._handle is not None:
            self._handle.cancel()

    def _beat(self) -> None:
        self.footing = Footing.below(sys._getframe(), self.loop)
        self._come()

    def _come(self) -> None:
        asked, now = self.asked, monotonic()
        if asked == self.answered:
            return
        late = 0.0 if self._was_stopped(asked, now) else max(now - asked, 0.0)
        if late >= self.usual_delay:
            for watch in self.watches:
                watch.book(asked, late, now, is_stall=late >= self.patience)
        self.lag = late
        self.answered = asked
        if self.next_look is None:
            watchdog.wake()

    def _was_stopped(self, asked: float, now: float) -> bool:
        """Whether nobody ran the loop, or nothing ran at all; here it may be known first."""
        look = self.next_look
        overdue = 0.0 if look is None else now - look
        return self.stopped_since == asked or stood_still(overdue, self._computed, self)

    # For the watchdog

    def ask(self, due: float) -> None:
        """Ask the loop for a heartbeat."""
        self._computed = process_time()
        self.asked = due
        self._handle = self.loop.call_soon_threadsafe(self._beat, context=self._context)

    def glance(self) -> Sight | None:
        """What runs on the loop; ``None`` if it sleeps."""
        return whereabouts.glance(self.loop, self.footing, self._seat_of)

    def see_workers(self, due: float) -> None:
        """The loop may be blocked: note what the workers are at."""
        for watch in self.watches:
            watch.see_workers(due)

    def see_stall(self, due: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        for watch in self.watches:
            watch.see_stall(due, sight, now)

    def tell(self, due: float, sight: Sight | None) -> None:
        """Log what blocks the loop: whose worker it is does; if it is nobody's, one of them."""
        owners = [watch for watch in self.watches if sight and watch.owns(sight)]
        for watch in (owners or self.watches)[:1]:
            watch.tell(due, sight)

    def _seat_of(self, task: asyncio.Task[Any]) -> Seat | None:
        seats = [watch.seat_of(task) for watch in self.watches]
        return next((seat for seat in seats if seat is not None), None)


def heartbeat_of(loop: asyncio.AbstractEventLoop, threshold: float) -> Heartbeat:
    """The heartbeat of the running event loop; one for all that have the same threshold."""
    return watchdog.heartbeat_of(loop, threshold) or Heartbeat(loop, threshold)


def _footing_in(loop: asyncio.AbstractEventLoop) -> Footing:
    """Where the loop runs, until the first heartbeat tells: below the running `asyncio.Task`."""
    task = asyncio.current_task()
    frame = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    return Footing(get_ident()) if frame is None else Footing.below(frame, loop)
