"""How much longer a run takes, by a simulation from where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import hypot
from typing import NamedTuple

from antflow._core.estimates import Eta, WhatIf
from antflow._core.inside import StageInside
from antflow._core.snapshot import StageStats
from antflow._core.stage import DEFAULT_CAPACITY_PER_WORKER
from antflow._core.text import clock, counted
from antflow._monitor.measured import Note, mark_of, model_of, source_of, state_of
from antflow._monitor.simulation import RunModel, RunState, StageModel, StageState, simulate

ROUGHLY = 0.015
"""The part by which a simulation may be wrong even if all it knows is right."""

EXPLAINED = 0.6
"""The part of what is left that there is work for: if less, the end waits for something."""


class Forecast:
    """The ETA from one moment on: made when it is first asked for, and counted down from there.

    Args:
        note: The figures of the moment; ``None``: it cannot be known.
    """

    __slots__ = ("_eta", "_is_made", "_note")

    def __init__(self, note: Note | None) -> None:
        self._note = note
        self._eta: Eta | None = None
        self._is_made = False

    def at(self, elapsed: float) -> Eta | None:
        """How much longer it takes, when the run has taken this long."""
        if not self._is_made:  # two threads may both make it, and make the same
            self._eta = None if self._note is None else eta_of(self._note)
            self._is_made = True
        eta, note = self._eta, self._note
        if eta is None or note is None or elapsed <= note.now.elapsed:
            return eta
        passed = elapsed - note.now.elapsed
        return replace(
            eta,
            shortest=max(eta.shortest - passed, 0.0),
            longest=max(eta.longest - passed, 0.0),
        )

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run takes in all if it goes on with these workers."""
        if (note := self._note) is None or not is_known(note):
            return None
        model = model_of(note, workers)
        if model is None:
            return None
        return _what_if(model, state_of(note, model), note.now.elapsed)


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
    course = simulate(model, state)
    earliest, middle, latest = course.ends
    fast = simulate(model, state, -1.0).ends[1]
    slow = simulate(model, state, 1.0).ends[1]
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
        if stage.times.is_outlier(inside.now - begun)
    ]
    if slow:
        items = counted(len(slow), "item")
        return f"{items} since {clock(elapsed - max(slow))}"
    if max(held, retry) <= work:
        return ""
    if retry >= held:
        return f"retries at {clock(elapsed + retry)}"
    return f"hold until {clock(elapsed + held)}"
