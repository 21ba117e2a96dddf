"""The watchdog: one thread that looks after all event loops with a run.

Every tenth of a second, or more often where shorter blocks count, it glances at what a loop's
thread is doing. A loop that sleeps is fine, and is not disturbed. One that is at work is asked for
a heartbeat; while that does not come, something holds the loop up. If it has not come when the loop
counts as blocked, the watchdog looks once more, and what it saw both times is the culprit. So a
block that is long enough is always seen, wherever in it the first look falls.

- It starts with the first heartbeat, and is never joined: a daemon, of which there is one in a
  process. A child made by ``fork`` has none, and starts over.
- With no loop to look after it is parked, without a timer; and so it is while a loop does not run.
- While a loop is known to be blocked it goes on looking: only if it is late itself, and nothing has
  computed, the whole process was stopped meanwhile, which is not the fault of what blocks the loop.
- Nothing waits for it. It holds its lock for a few lines, and never while it looks or tells: what
  it tells may have to wait for the very loop that is blocked, for example in a log handler.
- A run may end anywhere, in the garbage collector too, which may start on those few lines. So the
  end of a heartbeat takes no lock: it has no listener left, and the thread drops it.
- It keeps nothing alive: it knows heartbeats weakly, and their loops and runs only through them.
- Each value has one writer, the loop's thread or this one; `Heartbeat` says which.
"""

from __future__ import annotations

import asyncio
import os
from threading import Lock, Thread
from time import monotonic
from weakref import WeakSet

from antflow._engine.loop_health.heartbeat import Heartbeat, Listener
from antflow._engine.loop_health.whereabouts import Sight, agreed

LONG_TELLING = 0.01
"""Seconds from which on telling is an excuse for looking late at another loop."""


class Watchdog:
    """See the module's text. What stands above "In the thread" may be called anywhere."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all there was: this is another process, with its one thread."""
        self._guard = Lock()
        self._heartbeats: WeakSet[Heartbeat] = WeakSet()
        self._thread: Thread | None = None
        # Held until something wakes the thread, which sleeps by asking for it. A `Condition` would
        # do the same, at a quarter more processor time.
        self._sleep = Lock()
        self._sleep.acquire()
        self._told_at = 0.0

    def heartbeat_of(self, loop: asyncio.AbstractEventLoop, threshold: float) -> Heartbeat | None:
        """The heartbeat that a loop has already."""
        with self._guard:
            for heartbeat in self._heartbeats:
                if heartbeat.loop is loop and heartbeat.threshold == threshold:
                    return heartbeat
        return None

    def look_after(self, heartbeat: Heartbeat) -> None:
        """From now on look after a heartbeat's loop, as long as it has a listener."""
        with self._guard:
            self._heartbeats.add(heartbeat)
            if self._thread is None:
                thread = Thread(target=self._watch, name="antflow watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no room for another, or Python is ending: no watch
                    return
                self._thread = thread
        self.wake()

    def wake(self) -> None:
        """There is something new: a heartbeat, or an answer."""
        try:
            self._sleep.release()
        except RuntimeError:
            pass  # it is being woken

    # In the thread

    def _watch(self) -> None:
        try:
            while True:
                look = self._look_around()
                if look is None:
                    self._sleep.acquire()
                elif (seconds := look - monotonic()) > 0:
                    self._sleep.acquire(timeout=seconds)
        finally:
            self._thread = None  # should it ever end, the next heartbeat starts another

    def _look_around(self) -> float | None:
        """Look at every loop whose time has come; when to do so again."""
        with self._guard:
            over = [each for each in self._heartbeats if each.is_over]
            self._heartbeats.difference_update(over)
            heartbeats = list(self._heartbeats)
        now = monotonic()
        for heartbeat in heartbeats:
            due = _next_look(heartbeat)
            if due is not None and due <= now:
                try:
                    # While it was telling it could not look: that is not this loop's fault.
                    self._look(heartbeat, max(due, self._told_at))
                except Exception:  # a fault that must not spread
                    heartbeat.look_at(now + heartbeat.interval)
        looks = [each for each in map(_next_look, heartbeats) if each is not None]
        return min(looks, default=None)

    def _look(self, heartbeat: Heartbeat, due: float) -> None:
        now = monotonic()
        if stood := heartbeat.stood(due, now):
            heartbeat.look_at(now + heartbeat.interval, stood)
            return
        if heartbeat.is_awaited:
            self._look_again(heartbeat)
            return
        heartbeat.look_at(due + heartbeat.interval)
        if not heartbeat.loop.is_running():
            heartbeat.stopped_since = due
            heartbeat.look_at(None)
            heartbeat.ask(due)
        elif (sight := heartbeat.glance()) is None:
            heartbeat.lag = 0.0
        else:
            self._see(heartbeat, due, sight)

    def _see(self, heartbeat: Heartbeat, due: float, sight: Sight) -> None:
        """The loop is at work: ask it for its heartbeat."""
        heartbeat.first_sight = sight
        if (now := monotonic()) - due < heartbeat.patience:
            heartbeat.ask(due)
            return
        # This late, the look itself was held up, by one call that let no other thread in.
        heartbeat.look_at(None)
        heartbeat.see_workers(due)
        heartbeat.see_stall(due, sight, now)
        heartbeat.ask(due)
        self._tell(heartbeat, due, sight)

    def _look_again(self, heartbeat: Heartbeat) -> None:
        """The heartbeat that was asked for has not come yet."""
        asked, now = heartbeat.asked, monotonic()
        if not heartbeat.loop.is_running():
            heartbeat.stopped_since = asked
            heartbeat.look_at(None)
            return
        if heartbeat.blocked_since == asked:
            heartbeat.look_at(now + heartbeat.interval)
            return
        heartbeat.see_workers(asked)
        late = heartbeat.lateness(asked, now)
        if late < heartbeat.patience:
            heartbeat.look_at(now + min(heartbeat.interval, heartbeat.patience - late))
            return
        heartbeat.look_at(None)
        sight = agreed(heartbeat.first_sight, heartbeat.glance())
        if heartbeat.is_awaited:  # still: so it was what blocks the loop
            heartbeat.see_stall(asked, sight, now)
            self._tell(heartbeat, asked, sight)

    def _tell(self, heartbeat: Heartbeat, asked: float, sight: Sight | None) -> None:
        """Tell of a block that has been noted; from then on only the process is looked at."""
        heartbeat.blocked_since = asked
        began = monotonic()
        heartbeat.tell(asked, sight)
        if (now := monotonic()) - began >= LONG_TELLING:
            self._told_at = now
        heartbeat.look_at(now + heartbeat.interval)


def _next_look(heartbeat: Heartbeat) -> float | None:
    """When to look at a loop next; ``None``: not before it answers."""
    if heartbeat.next_look is None and not heartbeat.is_awaited:
        heartbeat.look_at(monotonic())
    return heartbeat.next_look


watchdog = Watchdog()
"""The watchdog of this process."""


def join_heartbeat(listener: Listener, threshold: float) -> Heartbeat:
    """Let a run hear the running loop's heartbeat; runs with the same threshold share one."""
    loop = asyncio.get_running_loop()
    heartbeat = watchdog.heartbeat_of(loop, threshold)
    if heartbeat is None:
        heartbeat = Heartbeat(loop, threshold, watchdog.wake)
    heartbeat.join(listener)
    watchdog.look_after(heartbeat)
    return heartbeat


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.begin_anew)
