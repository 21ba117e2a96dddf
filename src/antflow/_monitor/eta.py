"""How much longer a run takes, by a simulation from where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import hypot, inf
from threading import RLock
from time import thread_time
from typing import NamedTuple

from antflow._core.estimates import Eta, WhatIf
from antflow._core.inside import StageInside
from antflow._core.snapshot import StageStats
from antflow._core.stage import DEFAULT_CAPACITY_PER_WORKER
from antflow._core.text import clock, counted
from antflow._monitor.measured import Note, mark_of, model_of, source_of, state_of
from antflow._monitor.simulation import (
    RunModel,
    RunState,
    StageModel,
    StageState,
    rough_end,
    simulate,
)

ROUGHLY = 0.015
"""The part by which a simulation may be wrong even if all it knows is right."""

EXPLAINED = 0.6
"""The part of what is left that there is work for: if less, the end waits for something."""


SHARE = 0.005
"""The part of a run's time that its simulations may take of a processor: 5 ms a second."""


class Budget:
    """The processor time that the simulations of one run may take: a share of the run's time.

    One that took long is followed by the next one later. How long that is depends on what it took,
    so it holds for any books, on any machine.
    """

    __slots__ = ("_cost", "_used_up_until")

    def __init__(self) -> None:
        self._used_up_until = -inf
        self._cost = inf

    def allows(self, elapsed: float) -> bool:
        """Whether there may be one when the run has taken this long."""
        return elapsed >= self._used_up_until

    def charge(self, elapsed: float, cost: float) -> None:
        """One began when the run had taken this long, and took these seconds of the processor."""
        # A collection of garbage may fall into one, and takes what it takes in a large program.
        seconds = min(cost, 2 * self._cost) / SHARE
        self._used_up_until = max(self._used_up_until, elapsed) + seconds
        self._cost = cost


class Forecast:
    """The ETA from one moment on: made when it is first asked for, and counted down from there.

    Args:
        note: The figures of the moment; ``None``: it cannot be known.
        budget: Is charged with what it takes to make it.
    """

    __slots__ = ("_budget", "_eta", "_is_made", "_lock", "_note")

    def __init__(self, note: Note | None, budget: Budget) -> None:
        self._note = note
        self._budget = budget
        self._eta: Eta | None = None
        self._is_made = note is None
        self._lock = RLock()  # a signal handler may ask while it is made

    def at(self, elapsed: float) -> Eta | None:
        """How much longer it takes, when the run has taken this long."""
        eta, note = self._made(), self._note
        if eta is None or note is None or elapsed <= note.now.elapsed:
            return eta
        passed = elapsed - note.now.elapsed
        return replace(
            eta,
            shortest=max(eta.shortest - passed, 0.0),
            longest=max(eta.longest - passed, 0.0),
        )

    def _made(self) -> Eta | None:
        if not self._is_made:
            with self._lock:  # two displays may ask at the same time, in two threads
                if not self._is_made and (note := self._note) is not None:
                    began = thread_time()
                    self._eta = eta_of(note)
                    if self._eta is not None:  # else nothing was simulated
                        self._budget.charge(note.now.elapsed, thread_time() - began)
                    self._is_made = True
        return self._eta


class RunMeasured(NamedTuple):
    """The measurements of a run that is over; see `antflow._core.estimates.PastRun`."""

    elapsed: float
    intake: float
    accepted: int
    stages: tuple[StageStats, ...]
    inside: tuple[StageInside, ...]

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long it would have taken with these workers."""
        if not self.accepted:
            return None
        now = mark_of(self.elapsed, 0, self.stages, self.inside)
        note = Note("running", self.accepted, now, self.inside, (), None)
        source = source_of(self.elapsed, self.intake, self.accepted, self.stages[0])
        model = model_of(note, workers, (source, 0.0))
        if model is None:
            return None
        pairs = zip(model.stages, self.stages, strict=True)
        model = model._replace(stages=tuple(_with_room(each, was.workers) for each, was in pairs))
        state = RunState(
            coming=self.accepted,
            stages=tuple(StageState() for _ in model.stages),
            levels=tuple(limit.size for limit in model.limits),
            held=tuple(0.0 for _ in model.limits),
        )
        return _what_if(model, state, 0.0)


def _with_room(stage: StageModel, workers: int) -> StageModel:
    """A stage with the room that it would have had, where that was by its number of workers."""
    before, now = DEFAULT_CAPACITY_PER_WORKER * workers, DEFAULT_CAPACITY_PER_WORKER * stage.workers
    capacity, most_retrying = stage.capacity, stage.most_retrying
    return stage._replace(
        capacity=now if capacity == before else capacity,
        most_retrying=now if most_retrying == before else most_retrying,
    )


def what_if(note: Note, workers: Mapping[str, int]) -> WhatIf | None:
    """How long the whole run takes if it goes on from a moment with these workers."""
    model = model_of(note, workers) if is_known(note) else None
    return None if model is None else _what_if(model, state_of(note, model), note.now.elapsed)


def _what_if(model: RunModel, state: RunState, elapsed: float) -> WhatIf:
    shortest, longest, _ = band(model, state)
    workers = {stage.name: stage.workers for stage in model.stages}
    return WhatIf(workers, elapsed + shortest, elapsed + longest, elapsed)


def is_known(note: Note) -> bool:
    """Whether it is known how much there is to do, and the run is at it."""
    return note.phase == "draining" or (note.phase == "running" and note.total is not None)


def eta_of(note: Note) -> Eta | None:
    """How much longer the run takes, from the moment of a note."""
    if not is_known(note):
        return None
    model = model_of(note)
    if model is None:
        return None
    state = state_of(note, model)
    shortest, longest, begun = band(model, state)
    work = begun + sum(2 * stage.times.mean for stage in model.stages)
    explained = work >= EXPLAINED * (shortest + longest) / 2
    return Eta(shortest, longest, "" if explained else waits_for(note, model, state, work))


def band(model: RunModel, state: RunState) -> tuple[float, float, float]:
    """The least and the most that it takes, in nine of ten cases; and `Course.begun`."""
    rough = rough_end(model, state)
    course = simulate(model, state, 0.0, rough)
    earliest, middle, latest = course.ends
    fast = simulate(model, state, -1.0, rough).ends[1]
    slow = simulate(model, state, 1.0, rough).ends[1]
    roughly = ROUGHLY * middle
    shortest = middle - hypot(middle - earliest, max(middle - fast, 0.0), roughly)
    longest = middle + hypot(latest - middle, max(slow - middle, 0.0), roughly)
    return max(shortest, 0.0), longest, course.begun


def waits_for(note: Note, model: RunModel, state: RunState, work: float) -> str:
    """A few words on what a run waits for when the work of this many seconds is done."""
    elapsed = note.now.elapsed
    held = max(state.held, default=0.0)
    retry = max((seconds for stage in state.stages for seconds, _, _ in stage.due), default=0.0)
    slow = [
        inside.now - begun
        for inside, stage in zip(note.inside, model.stages, strict=True)
        for begun in inside.begun
        if inside.now - begun > stage.times.latest
    ]
    if slow:
        items = counted(len(slow), "item")
        return f"{items} since {clock(elapsed - max(slow))}"
    if max(held, retry) <= work:
        return ""
    if retry >= held:
        return f"retries at {clock(elapsed + retry)}"
    return f"hold until {clock(elapsed + held)}"
