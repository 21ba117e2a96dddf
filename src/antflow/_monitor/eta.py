"""How much longer a run takes, by a simulation from where it is."""

from __future__ import annotations

from dataclasses import replace
from math import hypot

from antflow._core.estimates import Eta
from antflow._core.text import clock, counted
from antflow._monitor.measured import Note, model_of, state_of
from antflow._monitor.simulation import RunModel, RunState, simulate

ROUGHLY = 0.02
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


def eta_of(note: Note) -> Eta | None:
    """How much longer the run takes, from the moment of a note."""
    if note.phase not in ("running", "draining"):
        return None
    if note.phase == "running" and note.total is None:
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
