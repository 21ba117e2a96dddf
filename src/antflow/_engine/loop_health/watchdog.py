"""The watchdog: one thread that watches all event loops with a run.

Every tenth of a second, or more often where shorter blocks count, it glances at what a loop's
thread is doing. It does not disturb a loop that sleeps. It asks one that is at work for a
heartbeat; until that comes, something holds the loop up. If it has not come by the time the loop
counts as blocked, the watchdog looks once more, and blames what it saw both times. So a block that
is long enough is always seen, no matter at which point of it the first look comes.

- It starts with the first heartbeat, and is never joined: it is a daemon thread, one per process. A
  child made by ``fork`` does not inherit it, and starts its own.
- With no loop to watch it is parked, without a timer. Loops that are not running do not count.
- It is not woken for a new heartbeat if it wakes in time by itself. So of many short runs, one in
  a tenth of a second pays for that, not each.
- While a loop is known to be blocked it keeps looking, to find out whether the whole process was
  stopped meanwhile, for which what blocks the loop is not to blame. That was so if the watchdog is
  late itself and no processor time was used.
- Nothing waits for it. It holds its lock for a few lines only, and never while it looks or reports:
  a report may have to wait for the very loop that is blocked, for example in a log handler.
- A run may end anywhere, even in the garbage collector, which may start within those few lines. So
  ending a heartbeat takes no lock: the thread drops a heartbeat that has no listeners left.
- It keeps nothing alive: it refers to heartbeats weakly, and to loops and runs only through them.
- Each value has one writer, the loop's thread or this one; `Heartbeat` says which.
"""

from __future__ import annotations

import asyncio
import os
from math import inf
from threading import Lock, Thread
from time import monotonic
from weakref import WeakSet

from antflow._engine.loop_health.heartbeat import Heartbeat, Listener
from antflow._engine.loop_health.whereabouts import Sight, agreed

LOOKS_REMEMBERED = 20
"""Looks, ten a second, over which a mean is formed that forgets (exponential smoothing)."""

PROMPT = 0.0003
"""Seconds in which it has Python's lock when no thread holds it, also on a busy machine."""

LONG_TELLING = 0.01
"""A report that takes this many seconds or more excuses a late look at another loop."""


class Watchdog:
    """See the module's docstring. Methods above "In the thread" may be called in any thread."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything: this is a new process, with only one thread."""
        self._guard = Lock()
        self._heartbeats: WeakSet[Heartbeat] = WeakSet()
        self._thread: Thread | None = None
        # Held until something wakes the thread, which sleeps by acquiring it. A `Condition` would
        # do the same for a quarter more processor time.
        self._sleep = Lock()
        self._sleep.acquire()
        self._sleeps_until = inf  # also while it is awake
        self._told_at = 0.0
        # How often another thread has Python's lock when it wakes, 0 to 1.
        self.lock_held = 0.0

    def heartbeat_of(self, loop: asyncio.AbstractEventLoop, threshold: float) -> Heartbeat | None:
        """The heartbeat that a loop already has, if any."""
        with self._guard:
            for heartbeat in self._heartbeats:
                if heartbeat.loop is loop and heartbeat.threshold == threshold:
                    return heartbeat
        return None

    def look_after(self, heartbeat: Heartbeat) -> None:
        """Watch a heartbeat's loop from now on, as long as it has a listener."""
        with self._guard:
            self._heartbeats.add(heartbeat)
            if self._thread is None:
                thread = Thread(target=self._watch, name="antflow watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # too many threads, or Python is ending: go without a watchdog
                    return
                self._thread = thread
            is_in_time = self._sleeps_until <= (heartbeat.next_look or 0.0)
        if not is_in_time:
            self.wake()

    def wake(self) -> None:
        """Wake the thread: there is a new heartbeat, or an answer."""
        try:
            self._sleep.release()
        except RuntimeError:
            pass  # it is already being woken

    # In the thread

    def _watch(self) -> None:
        try:
            while True:
                look = self._look_around()
                if look is None:
                    self._sleep.acquire()
                elif (seconds := look - monotonic()) > 0:
                    self._sleeps_until = look
                    if not self._sleep.acquire(timeout=seconds):
                        # It woke by itself, and went on once it had Python's lock.
                        is_held = monotonic() - look > PROMPT
                        self.lock_held += (is_held - self.lock_held) / LOOKS_REMEMBERED
        finally:
            self._thread = None  # should it ever end, the next heartbeat starts another

    def _look_around(self) -> float | None:
        """Look at every loop that is due; return when to do so again."""
        with self._guard:
            self._sleeps_until = inf  # from here on, a new heartbeat must wake it
            over = [each for each in self._heartbeats if each.is_over]
            self._heartbeats.difference_update(over)
            heartbeats = list(self._heartbeats)
        now = monotonic()
        for heartbeat in heartbeats:
            due = _next_look(heartbeat)
            if due is not None and due <= now:
                try:
                    # It could not look while it was reporting: that is not this loop's fault.
                    self._look(heartbeat, max(due, self._told_at))
                except Exception:  # a bug here must not affect the others
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
        heartbeat.note(sight)
        if (now := monotonic()) - due < heartbeat.patience:
            heartbeat.ask(due)
            return
        # If it is this late, the look itself was held up by a call that let no other thread run.
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
        if heartbeat.is_awaited:  # still awaited: so what was seen is what blocks the loop
            heartbeat.see_stall(asked, sight, now)
            self._tell(heartbeat, asked, sight)

    def _tell(self, heartbeat: Heartbeat, asked: float, sight: Sight | None) -> None:
        """Report a block that has been noted; then only watch whether the process stops."""
        heartbeat.blocked_since = asked
        began = monotonic()
        heartbeat.tell(asked, sight)
        if (now := monotonic()) - began >= LONG_TELLING:
            self._told_at = now
        heartbeat.look_at(now + heartbeat.interval)


def _next_look(heartbeat: Heartbeat) -> float | None:
    """When to look at a loop next; ``None``: not until it answers."""
    if heartbeat.next_look is None and not heartbeat.is_awaited:
        heartbeat.look_at(monotonic())
    return heartbeat.next_look


watchdog = Watchdog()
"""The watchdog of this process."""


def join_heartbeat(listener: Listener, threshold: float) -> Heartbeat:
    """Subscribe a run to the running loop's heartbeat; runs with the same threshold share one."""
    loop = asyncio.get_running_loop()
    heartbeat = watchdog.heartbeat_of(loop, threshold)
    if heartbeat is None:
        heartbeat = Heartbeat(loop, threshold, watchdog.wake)
    heartbeat.join(listener)
    watchdog.look_after(heartbeat)
    return heartbeat


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.begin_anew)
