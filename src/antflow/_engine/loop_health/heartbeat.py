"""The heartbeat of an event loop.

A heartbeat is a call that the watchdog asks an event loop to make, when it sees the loop at work.
As long as it does not come, the loop does not get its turn: a task, or whatever else runs on the
loop, does not give way. How late it was is booked when it comes, in the loop's own thread. The
watchdog sees in its thread what holds the loop up, while it lasts.

All runs of a loop (with the same threshold) share one heartbeat, which is there while there are
any. It belongs to them: nothing else keeps it, and a loop that is given up takes it along. A loop
with its own time has none, since its time does not pass while something blocks it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context
from threading import get_ident
from time import monotonic, process_time
from typing import Any, NamedTuple, Protocol

from antflow._engine.loop_health import whereabouts
from antflow._engine.loop_health.whereabouts import Footing, SeenWorker, Sight

LONGEST_INTERVAL = 0.1
"""Seconds between two looks at a loop."""

SHORTER_INTERVAL = 0.4
"""As a share of the threshold, where that is less."""

LEAST_COMPUTED = 0.1
"""Share of the time a running process computes at least, even beside many others."""

USUAL_DELAY = 0.05
"""Seconds that a heartbeat may be late without anything being booked, unless it is a stall."""


class Listener(Protocol):
    """A run that wants to know of its event loop's heartbeat."""

    def book(self, asked: float, late: float, now: float, *, is_stall: bool) -> None:
        """The loop goes on; the heartbeat asked for was this many seconds late."""
        ...

    def worker_of(self, task: asyncio.Task[Any]) -> SeenWorker | None:
        """The worker of this run that an `asyncio.Task` is."""
        ...

    def owns(self, sight: Sight) -> bool:
        """Whether one of this run's stages or sources was seen."""
        ...

    def see_workers(self, asked: float) -> None:
        """The loop may be blocked: note what the workers were at when it was."""
        ...

    def see_stall(self, asked: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        ...

    def tell(self, asked: float, sight: Sight | None) -> None:
        """Log what blocks the loop."""
        ...


class Look(NamedTuple):
    """The watchdog's looks at a loop.

    Attributes:
        due: When the next one is due; ``None``: when the loop has answered.
        computed: What `time.process_time` was at the last one.
        stood: For how many seconds the process has stood still since the heartbeat was asked for.
    """

    due: float | None
    computed: float
    stood: float


class Heartbeat:
    """The heartbeat of one event loop.

    Args:
        loop: The event loop; this is made while it runs, in its thread.
        threshold: Seconds from which on a block is always seen.
        wake: Tells the watchdog that the loop has answered.

    Attributes:
        interval: Seconds between two looks.
        patience: Seconds without the heartbeat after which the loop counts as blocked. A block of
            the length of the threshold is seen at work after an interval, at the latest.
        usual_delay: Seconds that it may be late without anything being booked.

    Written in the loop's thread:

    Attributes:
        footing: Where in its thread's stack the loop runs.
        answered: Which heartbeat came last.
        watches: The runs it tells; replaced and never changed.

    Written in the watchdog's thread:

    Attributes:
        asked: Which heartbeat was asked for last: the time when the loop was to be asked. Until it
            has come, the heartbeat is awaited.
        blocked_since: Which heartbeat was so late that what blocks the loop has been noted.
        stopped_since: Which heartbeat did not come because the loop was not running.

    Written by the one whose turn it is, the loop while a heartbeat is awaited and the watchdog
    otherwise:

    Attributes:
        lag: How late the last heartbeat was, in seconds.
        first_sight: What was seen when the heartbeat was asked for, while that may be told.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threshold: float, wake: Callable[[], None]
    ) -> None:
        self.loop = loop
        self._wake = wake
        self.threshold = threshold
        self.interval: float = min(SHORTER_INTERVAL * threshold, LONGEST_INTERVAL)
        self.patience: float = threshold - self.interval
        self.usual_delay: float = min(self.patience, USUAL_DELAY)
        self.footing: Footing = _footing_in(loop)
        self.asked: float = monotonic()
        self.answered: float = self.asked
        self.watches: tuple[Listener, ...] = ()
        self.first_sight: Sight | None = None
        self.blocked_since: float | None = None
        self.stopped_since: float | None = None
        self.lag: float = 0.0
        self._context = Context()  # none of the user's
        self._handle: asyncio.Handle | None = None
        # The watchdog's, for all threads: replaced in one step.
        self._look = Look(self.asked + self.interval, process_time(), 0.0)

    @property
    def is_awaited(self) -> bool:
        """Whether the heartbeat that was asked for has not come yet."""
        return self.answered != self.asked

    @property
    def next_look(self) -> float | None:
        """When the watchdog looks at the loop again; ``None``: when it has answered."""
        return self._look.due

    @property
    def is_over(self) -> bool:
        """Whether there are no listeners any more, or nothing can come."""
        return not self.watches or self.loop.is_closed()

    def join(self, watch: Listener) -> None:
        """Tell this run from now on."""
        self._come()  # delays until now are not for its books
        self.watches += (watch,)

    def leave(self, watch: Listener) -> None:
        """Tell this run what is known now, and then no more."""
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
        late = 0.0 if self.stopped_since == asked else self.lateness(asked, now)
        if late >= self.usual_delay:
            for watch in self.watches:
                watch.book(asked, late, now, is_stall=late >= self.patience)
        self.lag = late
        self.answered = asked
        if self.next_look is None:
            self._wake()

    def lateness(self, asked: float, now: float) -> float:
        """How late a heartbeat is, in seconds; those in which the process stood still do not count.

        The watchdog may not have noticed them yet.
        """
        look = self._look
        stood = 0.0 if look.due is None else self._stood(look, look.due, now)
        return max(now - asked - look.stood - stood, 0.0)

    def _stood(self, look: Look, due: float, now: float) -> float:
        late = now - due
        if late < self.patience:
            return 0.0  # not worth asking
        computed = process_time() - look.computed
        return late if computed < self.interval + late * LEAST_COMPUTED else 0.0

    # For the watchdog

    def look_at(self, due: float | None, stood: float = 0.0) -> None:
        """Look at the loop again then; ``None``: when it has answered.

        Args:
            due: When.
            stood: For how many seconds the process has stood still before this look.
        """
        self._look = Look(due, process_time(), self._look.stood + stood)

    def stood(self, due: float, now: float) -> float:
        """For how many seconds the whole process stood still when a look was due.

        It was stopped (Ctrl-Z), or the machine slept. Then all are late, the watchdog too, and
        nothing has computed. If one call lets no other thread in, it has computed.
        """
        return self._stood(self._look, due, now)

    def ask(self, due: float) -> None:
        """Ask the loop for a heartbeat."""
        self._look = self._look._replace(stood=0.0)
        self.asked = due
        self._handle = self.loop.call_soon_threadsafe(self._beat, context=self._context)

    def glance(self) -> Sight | None:
        """Look at what runs on the loop; ``None`` if it sleeps."""
        return whereabouts.glance(self.loop, self.footing, self._worker_of)

    def see_workers(self, due: float) -> None:
        """The loop may be blocked: note what the workers are at."""
        for watch in self.watches:
            watch.see_workers(due)

    def see_stall(self, due: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        for watch in self.watches:
            watch.see_stall(due, sight, now)

    def tell(self, due: float, sight: Sight | None) -> None:
        """Make one run log what blocks the loop: the one whose worker it is, if any."""
        owners = [watch for watch in self.watches if sight and watch.owns(sight)]
        for watch in (owners or self.watches)[:1]:
            watch.tell(due, sight)

    def _worker_of(self, task: asyncio.Task[Any]) -> SeenWorker | None:
        seen = [watch.worker_of(task) for watch in self.watches]
        return next((worker for worker in seen if worker is not None), None)


def _footing_in(loop: asyncio.AbstractEventLoop) -> Footing:
    """Where the loop runs, until the first heartbeat tells: below the running `asyncio.Task`."""
    task = asyncio.current_task()
    frame = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    return Footing(get_ident()) if frame is None else Footing.below(frame, loop)
