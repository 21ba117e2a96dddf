"""Event-loop health of one run: what blocked the loop, and what that cost the workers.

The loop's thread books how late a heartbeat was; the watchdog's thread notes what it saw meanwhile.
Each value that both use is a pair with the heartbeat that it is about, replaced in one step.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from antflow._core.ledger import Activity
from antflow._core.log import warn
from antflow._core.places import Place, origin_of
from antflow._core.snapshot import HotSpot, LoopHealth, LoopStall
from antflow._core.text import clean, safe_repr
from antflow._core.worker_time import book_stall, standing
from antflow._engine.loop_health.heartbeat import Heartbeat
from antflow._engine.loop_health.loop_use import use_of
from antflow._engine.loop_health.watchdog import join_heartbeat, watchdog
from antflow._engine.loop_health.whereabouts import SeenWorker, Sight
from antflow._engine.run import Run
from antflow._engine.source import SourceWatch, name_of, what_helps
from antflow._engine.stage_run import StageRun

HEALTHY = LoopHealth()
NO_STALL = LoopStall(0.0, 0.0)

SIGHTS_REMEMBERED = 100
FEWEST_SIGHTS = 10
MOSTLY = 0.5
"""The share of the sights from which one place stands out."""

WHAT_HELPS = "use an async call, or a plain function, which runs in a thread"


class LoopWatch:
    """Event-loop health of one run. Made in the loop; readable anywhere.

    Args:
        run: The run.
        stages: Its stages.
        sources: Its sources.
        threshold: See `Heartbeat`.

    Attributes:
        on_block: See `Blockable`.
    """

    def __init__(
        self, run: Run, stages: Sequence[StageRun], sources: SourceWatch, threshold: float
    ) -> None:
        self.on_block: Callable[[], None] | None = None
        self._run = run
        self._stages = stages
        self._sources = sources
        self._heartbeat: Heartbeat | None = None
        # Each with the heartbeat that it is about.
        self._booked: tuple[float, LoopHealth] = (0.0, HEALTHY)
        self._workers: tuple[float, list[dict[Activity, int]]] = (0.0, [])
        self._seen: tuple[float, LoopStall] = (0.0, NO_STALL)
        self._told: set[tuple[str, str]] = set()
        self._sights: deque[tuple[Place | None, str]] = deque(maxlen=SIGHTS_REMEMBERED)
        self._hot_spot: HotSpot | None = None
        self._ended: LoopHealth | None = None
        self._use = use_of(asyncio.get_running_loop())
        self._use.begin()
        self._worked_before = self._use.seconds()
        self._heartbeat = join_heartbeat(self, threshold)

    def end(self) -> None:
        """The run is over: freeze what is known now."""
        self.on_block = None
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            heartbeat.leave(self)
            self._ended = self._with_use(self._booked[1], heartbeat.lag)
            self._use.end()

    def health(self) -> LoopHealth:
        """The health of the loop, including a block that goes on."""
        if self._ended is not None:
            return self._ended
        health, lag, _ = self._now()
        return self._with_use(health, lag)

    def _with_use(self, health: LoopHealth, lag: float) -> LoopHealth:
        """The health, with the lag of now and what the loop's time goes to."""
        return LoopHealth(
            lag,
            health.stalls,
            health.stalled_seconds,
            health.last_stall,
            self._use.seconds() - self._worked_before,
            watchdog.lock_held,
            self._hot_spot,
        )

    def block(self) -> LoopStall | None:
        """The block that goes on."""
        health, _, is_blocked = self._now()
        return health.last_stall if is_blocked else None

    def book(self, asked: float, late: float, now: float, *, is_stall: bool) -> None:
        """The loop goes on; the heartbeat asked for was this many seconds late."""
        run = self._run
        workers = self._workers[1] if self._workers[0] == asked else self._standing()
        for stage, kinds in zip(self._stages, workers, strict=True):
            book_stall(run.ledger.stages[stage.index], stage.gauge(), now, late, kinds)
        self._booked = (asked, self._with(self._booked[1], asked, late, now, is_stall))

    # For the watchdog

    def worker_of(self, task: asyncio.Task[Any]) -> SeenWorker | None:
        """The worker of this run that an `asyncio.Task` is."""
        for stage in self._stages:
            if (worker := stage.crew.worker_of(task)) is not None:
                return stage, worker
        return None

    def owns(self, sight: Sight) -> bool:
        """Whether one of this run's stages or sources was seen."""
        if sight.stage is None:
            return self._sources.asked is not None
        return sight.stage.run is self._run

    def see_workers(self, asked: float) -> None:
        """The loop may be blocked: note what the workers were at when it was."""
        if self._workers[0] != asked:
            self._workers = (asked, self._standing())

    def note(self, sight: Sight) -> None:
        """The loop was seen at work."""
        stage = sight.stage
        name = stage.name if stage is not None and stage.run is self._run else ""
        place = sight.place
        if place is not None and origin_of(place.filename) == "library":
            place = None
        self._sights.append((place, name))
        (place, stage_name), count = Counter(self._sights).most_common(1)[0]
        self._hot_spot = None
        if place is not None and count >= max(MOSTLY * len(self._sights), FEWEST_SIGHTS):
            share = count / len(self._sights)
            self._hot_spot = HotSpot(share, stage_name, place.location, place.line)

    def see_stall(self, asked: float, sight: Sight | None, now: float) -> None:
        """The loop is blocked: note by what."""
        self._seen = (asked, self._stall(sight, now - asked, now))
        if (on_block := self.on_block) is not None:
            on_block()

    def tell(self, asked: float, sight: Sight | None) -> None:
        """Log what blocks the loop, once for each function that does."""
        seen, stall = self._seen
        if sight is None or seen != asked or not stall.location:
            return
        place = sight.place
        source = self._sources.asked
        if source is not None and not self._sources.is_first_to_tell():
            return
        key = (stall.location, "") if place is None else (place.filename, place.function)
        if key in self._told:
            return
        self._told.add(key)
        who, helps = "", WHAT_HELPS
        if source is not None:
            who, helps = f" by the source {name_of(source)}", what_helps(source)
        elif stall.worker_name:
            who = f" by {clean(stall.worker_name)} with item {clean(safe_repr(stall.item_id))}"
        elif stall.stage:
            who = f" by stage {clean(stall.stage)}"
        line = f": {clean(stall.line)}" if stall.line else ""
        warn(
            "the event loop is blocked, for %.2f s so far,%s at %s%s; nothing else can go on "
            "meanwhile: %s",
            stall.seconds,
            who,
            clean(stall.location),
            line,
            helps,
        )

    # Inside

    def _now(self) -> tuple[LoopHealth, float, bool]:
        """The blocks of the loop, its lag, and whether it is blocked."""
        heartbeat = self._heartbeat
        if heartbeat is None:
            health = self._booked[1]
            return health, health.lag, False
        asked, is_awaited, lag = heartbeat.asked, heartbeat.is_awaited, heartbeat.lag
        booked, health = self._booked
        now = monotonic()
        late = heartbeat.lateness(asked, now)
        is_late = is_awaited and booked != asked and late >= heartbeat.usual_delay
        if is_late and heartbeat.loop.is_running():
            is_blocked = late >= heartbeat.patience
            return self._with(health, asked, late, now, is_blocked), late, is_blocked
        return health, lag, False

    def _standing(self) -> list[dict[Activity, int]]:
        books = self._run.ledger.stages
        return [standing(books[stage.index], stage.workers.count) for stage in self._stages]

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
            return replace(stall, location=worker.task)  # most probably not written in Python
        if place is not None:
            stall = replace(stall, location=place.location, line=place.line)
        return stall
