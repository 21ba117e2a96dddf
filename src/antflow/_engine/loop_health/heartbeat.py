"""The heartbeat of an event loop.

A heartbeat is a call that the watchdog asks an event loop to make when it sees the loop at work.
Until the heartbeat comes, the loop is stuck in one step: a task, or something else that runs on the
loop, does not give way. When it comes, the loop's own thread notes how late it was. Before that,
the watchdog sees from its own thread what holds the loop up.

All runs of a loop (with the same threshold) share one heartbeat, which exists while there are any.
Only these runs keep it alive, so it vanishes with a loop that is abandoned. A loop with virtual
time has none, because its time does not pass while something blocks it.
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
"""The most seconds between two looks at a loop."""

SHORTER_INTERVAL = 0.4
"""The same as a share of the threshold; the smaller of the two counts."""

LEAST_COMPUTED = 0.1
"""The least share of the time that a running process computes, even beside many others."""

USUAL_DELAY = 0.05
"""Seconds that a heartbeat may be late before anything is booked, unless it is a stall."""


class Listener(Protocol):
    """A run that wants to be told of its event loop's heartbeat."""

    def book(self, asked: float, late: float, now: float, *, is_stall: bool) -> None:
        """The loop goes on; the heartbeat was ``late`` seconds late."""
        ...

    def worker_of(self, task: asyncio.Task[Any]) -> SeenWorker | None:
        """The worker of this run that runs in an `asyncio.Task`."""
        ...

    def owns(self, sight: Sight) -> bool:
        """Whether what was seen is one of this run's stages or sources."""
        ...

    def see_workers(self, asked: float) -> None:
        """The loop may be blocked: note what the workers were doing at ``asked``."""
        ...

    def note(self, sight: Sight) -> None:
        """The loop was seen at work."""
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
        due: When the next one is due; ``None``: once the loop has answered.
        computed: `time.process_time` at the last one.
        stood: How many seconds the process has stood still since the heartbeat was asked for.
    """

    due: float | None
    computed: float
    stood: float


class Heartbeat:
    """The heartbeat of one event loop.

    Args:
        loop: The event loop. It must be running, in this thread.
        threshold: A block of this many seconds or more is always seen.
        wake: Tells the watchdog that the loop has answered.

    Attributes:
        interval: Seconds between two looks.
        patience: Seconds without the heartbeat after which the loop counts as blocked. A block as
            long as the threshold is seen after one interval, at the latest.
        usual_delay: Seconds that it may be late before anything is booked.

    Written in the loop's thread:

    Attributes:
        footing: Where the loop is in its thread's stack.
        answered: The last heartbeat that came.
        watches: The runs it tells. Replaced, never changed in place.

    Written in the watchdog's thread:

    Attributes:
        asked: The last heartbeat that was asked for. Heartbeats are identified by the time at which
            the look at the loop was due.
        blocked_since: The heartbeat that was so late that what blocks the loop was noted.
        stopped_since: The heartbeat that did not come because the loop was not running.

    Written by the loop's thread while a heartbeat is awaited, otherwise by the watchdog's:

    Attributes:
        lag: How late the last heartbeat was, in seconds.
        first_sight: What was seen when the heartbeat was asked for, while it may still be reported.
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
        # Written by the watchdog, read by all threads: replaced in one step.
        self._look = Look(self.asked + self.interval, process_time(), 0.0)

    @property
    def is_awaited(self) -> bool:
        """Whether the heartbeat that was asked for has not come yet."""
        return self.answered != self.asked

    @property
    def next_look(self) -> float | None:
        """When the watchdog looks at the loop again; ``None``: once it has answered."""
        return self._look.due

    @property
    def is_over(self) -> bool:
        """Whether there are no more listeners, or no heartbeat can come."""
        return not self.watches or self.loop.is_closed()

    def join(self, watch: Listener) -> None:
        """Begin to tell a run."""
        self._come()  # delays before now do not belong in its books
        self.watches += (watch,)

    def leave(self, watch: Listener) -> None:
        """Tell a run what is known now, and nothing more."""
        self._come()
        self.first_sight = None  # it may show this very run
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
        """How late a heartbeat is, in seconds, without the time in which the process stood still.

        The watchdog may not have noticed that time yet.
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
        """Set when to look at the loop again.

        Args:
            due: When; ``None``: once the loop has answered.
            stood: How many seconds the process has stood still before this look.
        """
        self._look = Look(due, process_time(), self._look.stood + stood)

    def stood(self, due: float, now: float) -> float:
        """How many seconds the whole process stood still when a look was due.

        It does if it is stopped (Ctrl-Z), or if the machine sleeps. Then everything is late, the
        watchdog too, and the process has used no processor time. If instead one call lets no other
        thread run, processor time was used.
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
        """The loop may be blocked: note what the workers are doing."""
        for watch in self.watches:
            watch.see_workers(due)

    def note(self, sight: Sight) -> None:
        """The loop was seen at work."""
        for watch in self.watches:
            watch.note(sight)

    def see_stall(self, due: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        for watch in self.watches:
            watch.see_stall(due, sight, now)

    def tell(self, due: float, sight: Sight | None) -> None:
        """Make one run log what blocks the loop: the run whose worker it is, if any."""
        owners = [watch for watch in self.watches if sight and watch.owns(sight)]
        for watch in (owners or self.watches)[:1]:
            watch.tell(due, sight)

    def _worker_of(self, task: asyncio.Task[Any]) -> SeenWorker | None:
        seen = [watch.worker_of(task) for watch in self.watches]
        return next((worker for worker in seen if worker is not None), None)


def _footing_in(loop: asyncio.AbstractEventLoop) -> Footing:
    """Where the loop is in the stack until the first heartbeat: below the running task."""
    task = asyncio.current_task()
    frame = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    return Footing(get_ident()) if frame is None else Footing.below(frame, loop)
