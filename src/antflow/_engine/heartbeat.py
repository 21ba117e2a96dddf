"""The heartbeat of an event loop, and what it tells the runs on it.

A heartbeat is a call that the watchdog asks an event loop to make, when it sees the loop at work.
As long as it does not come, the loop does not get its turn: a task, or whatever else runs on the
loop, does not give way. How late it was is booked when it comes, in the loop's own thread. Who held
the loop up is seen by the watchdog, in its thread, while it lasts.

All runs of a loop share one heartbeat, which is there while there are any. It belongs to them:
nothing else keeps it, and a loop that is given up takes it along. A loop with a time of its own has
none, since its time does not pass while something blocks it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import Context
from dataclasses import replace
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from antflow._core.ledger import TimeKind
from antflow._core.snapshot import LoopHealth, LoopStall
from antflow._core.text import clean, safe_repr
from antflow._core.worker_time import book_stall, standing
from antflow._engine import whereabouts
from antflow._engine.watchdog import watchdog
from antflow._engine.whereabouts import Footing, Seat, Sight

if TYPE_CHECKING:
    from antflow._engine.run import Run

logger = logging.getLogger("antflow")

LONGEST_INTERVAL = 0.1
"""Seconds between two looks at a loop."""

SHORTER_INTERVAL = 0.4
"""As a share of the threshold, where that is less."""

USUAL_DELAY = 0.05
"""Seconds that a heartbeat may be late without anything being booked, unless it is a stall."""

WHAT_HELPS = "use an async call, or a plain function, which runs in a thread"


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
        first_sight: What was seen when the heartbeat was asked for.
        stopped_since: Which heartbeat did not come because nobody ran the loop.

    Written by whoever has its turn, the loop while a heartbeat is awaited and the watchdog
    otherwise:

    Attributes:
        lag: How late the last heartbeat was, in seconds.
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

    @property
    def is_awaited(self) -> bool:
        """Whether the heartbeat that was asked for has not come yet."""
        return self.answered != self.asked

    def join(self, watch: LoopWatch) -> None:
        """Tell one more."""
        self._come()  # what was late until now is not for its books
        self.watches += (watch,)

    def leave(self, watch: LoopWatch) -> None:
        """Tell it what there is to tell, and then no more."""
        self._come()
        self.first_sight = None  # perhaps it shows this very run
        self.watches = tuple(each for each in self.watches if each is not watch)
        if not self.watches:
            watchdog.forget(self)
            if self._handle is not None:
                self._handle.cancel()

    def _beat(self) -> None:
        self.footing = Footing.below(sys._getframe(), self.loop)
        self._come()

    def _come(self) -> None:
        asked, now = self.asked, monotonic()
        if asked == self.answered:
            return
        late = 0.0 if self.stopped_since == asked else max(now - asked, 0.0)
        if late >= self.usual_delay:
            for watch in self.watches:
                watch.book(asked, late, now, is_stall=late >= self.patience)
        self.lag = late
        self.answered = asked
        if self.next_look is None:
            watchdog.wake()

    # For the watchdog

    def ask(self, due: float) -> None:
        """Ask the loop for a heartbeat."""
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


class LoopWatch:
    """What one run knows of its event loop's health. Made in the loop; readable anywhere.

    Args:
        run: The run.
        threshold: See `Heartbeat`.
    """

    def __init__(self, run: Run, threshold: float) -> None:
        self._run = run
        loop = asyncio.get_running_loop()
        heartbeat = watchdog.heartbeat_of(loop, threshold)
        if heartbeat is None:
            heartbeat = Heartbeat(loop, threshold)
            watchdog.look_after(heartbeat)
        self._heartbeat: Heartbeat | None = heartbeat
        # Each with the heartbeat that it is about.
        self._booked: tuple[float, LoopHealth] = (0.0, LoopHealth())
        self._workers: tuple[float, list[dict[TimeKind, int]]] = (0.0, [])
        self._seen: tuple[float, LoopStall] = (0.0, LoopStall(0.0, 0.0))
        self._told: set[tuple[str, str]] = set()
        heartbeat.join(self)

    def end(self) -> None:
        """The run is over: what is known now stays so."""
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            heartbeat.leave(self)
            self._booked = (heartbeat.asked, replace(self._booked[1], lag=heartbeat.lag))

    def health(self) -> LoopHealth:
        """How the loop is; while something blocks it, with what is known of that."""
        heartbeat = self._heartbeat
        if heartbeat is None:
            return self._booked[1]
        asked, is_awaited, lag = heartbeat.asked, heartbeat.is_awaited, heartbeat.lag
        booked, health = self._booked
        now = monotonic()
        late = now - asked
        is_late = is_awaited and booked != asked and late >= heartbeat.usual_delay
        if is_late and heartbeat.loop.is_running():
            return self._with(health, asked, late, now, late >= heartbeat.patience)
        return replace(health, lag=lag)

    def book(self, asked: float, late: float, now: float, *, is_stall: bool) -> None:
        """The loop goes on; the heartbeat that was asked for was so many seconds late."""
        run = self._run
        workers = self._workers[1] if self._workers[0] == asked else self._standing()
        for stage, kinds in zip(run.stages, workers, strict=True):
            book_stall(run.ledger.stages[stage.index], stage.gauge(), now, late, kinds)
        self._booked = (asked, self._with(self._booked[1], asked, late, now, is_stall))

    # For the watchdog

    def seat_of(self, task: asyncio.Task[Any]) -> Seat | None:
        """The worker of this run that an `asyncio.Task` is."""
        for stage in self._run.stages:
            if (worker := stage.worker_of(task)) is not None:
                return stage, worker
        return None

    def owns(self, sight: Sight) -> bool:
        """Whether it is one of this run's stages that was seen."""
        return sight.stage is not None and sight.stage.run is self._run

    def see_workers(self, asked: float) -> None:
        """The loop may be blocked: note what the workers were at when it was."""
        if self._workers[0] != asked:
            self._workers = (asked, self._standing())

    def see_stall(self, asked: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        self._seen = (asked, self._stall(sight, now - asked, now))

    def tell(self, asked: float, sight: Sight | None) -> None:
        """Log what blocks the loop, once for each function that does."""
        seen, stall = self._seen
        if sight is None or seen != asked or not stall.location:
            return
        place = sight.place
        key = (stall.location, "") if place is None else (place.filename, place.function)
        if key in self._told:
            return
        self._told.add(key)
        who = ""
        if stall.worker_name:
            who = f" by {clean(stall.worker_name)} with item {clean(safe_repr(stall.item_id))}"
        elif stall.stage:
            who = f" by stage {clean(stall.stage)}"
        line = f": {clean(stall.line)}" if stall.line else ""
        logger.warning(
            "the event loop is blocked, for %.2f s so far,%s at %s%s; nothing else can go on "
            "meanwhile: %s",
            stall.seconds,
            who,
            clean(stall.location),
            line,
            WHAT_HELPS,
        )

    # Inside

    def _standing(self) -> list[dict[TimeKind, int]]:
        books = self._run.ledger.stages
        return [standing(books[stage.index], stage.worker_count) for stage in self._run.stages]

    def _with(
        self, health: LoopHealth, asked: float, late: float, now: float, is_stall: bool
    ) -> LoopHealth:
        stall = health.last_stall
        if is_stall:
            seen, known = self._seen
            stall = replace(known if seen == asked else self._stall(None, late, now), seconds=late)
        return LoopHealth(late, health.stalls + is_stall, health.stalled_seconds + late, stall)

    def _stall(self, sight: Sight | None, late: float, now: float) -> LoopStall:
        facts = self._run.facts
        stall = LoopStall(late, facts.timestamp(now))
        if sight is None:
            return stall
        stage, worker, place = sight.stage, sight.worker, sight.place
        if stage is not None and stage.run is self._run:
            stall = replace(stall, stage=stage.name)
            if worker is not None:
                name = facts.worker_name(stage.index, worker.index)
                stall = replace(stall, worker_name=name, item_id=sight.item.id)
        if worker is not None and worker.task and (place is None or place.is_ours):
            return replace(stall, location=worker.task)  # not made of Python, most probably
        if place is not None:
            stall = replace(stall, location=place.location, line=place.line)
        return stall


def _footing_in(loop: asyncio.AbstractEventLoop) -> Footing:
    """Where the loop runs, until the first heartbeat tells: below the running `asyncio.Task`."""
    task = asyncio.current_task()
    frame = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    return Footing(get_ident()) if frame is None else Footing.below(frame, loop)
