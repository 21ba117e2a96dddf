"""Tries one worker more where it is in doubt whether more workers would help (``probe=True``).

Once a second it reads the advice of its run. If that has long said of one stage that more workers
would lift the rate by *up to* something, the stage gets one more for ten seconds, and then the
number that it had. Whatever is done to the run meanwhile ends the probe first, and it tells
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from antflow._core.ports import Timer, Timers
from antflow._core.snapshot import DashboardSnapshot
from antflow._core.stage import Stage
from antflow._core.stage_checks import MOST_WORKERS
from antflow._monitor.flow import ended_tries
from antflow._monitor.measured import Mark
from antflow._monitor.outlook import Outlook
from antflow._monitor.probes import Probed, Speed, gained

BETWEEN_LOOKS = 1.0
PROBE = 10.0
"""Seconds."""

BASE = 10
"""Looks with which a probe is compared."""

SETTLED = 5
"""Looks before those, in which the stage was in doubt, too: a run that has just begun speeds up."""


class Probeable(Protocol):
    """A run, as far as a probe needs it."""

    @property
    def timers(self) -> Timers:
        """Its clock."""
        ...

    def snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows."""
        ...


class _Probe(NamedTuple):
    """A probe under way."""

    stage: int
    workers: tuple[int, ...]
    began: float
    base: tuple[Mark, ...]


class Prober:
    """Looks after one run.

    Args:
        run: The run.
        stages: Its stages, as they were described.
        outlook: Has the figures of the run, and is told what was found.
        change_workers: Sets the number of workers of a stage, given by its index.
    """

    def __init__(
        self,
        run: Probeable,
        stages: Sequence[Stage],
        outlook: Outlook,
        change_workers: Callable[[int, int], None],
    ) -> None:
        self._run = run
        self._may_be_probed = [_has_cheap_workers(stage) for stage in stages]
        self._outlook = outlook
        self._probes = outlook.probes
        self._change_workers = change_workers
        self._marks: list[Mark] = []
        self._doubt: tuple[int, tuple[int, ...]] | None = None
        self._probe: _Probe | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Look at the run from now on."""
        self._timer = self._run.timers.call_later(BETWEEN_LOOKS, self._look)

    def interrupt(self) -> None:
        """Something is about to be done to the run: go back, and forget what was seen."""
        self._forget()
        if (probe := self._probe) is not None:
            self._go_back(probe)

    def close(self) -> None:
        """The run is over."""
        if self._timer is not None:
            self._timer.cancel()
        self.interrupt()

    def _look(self) -> None:
        self.begin()
        snapshot = self._run.snapshot()
        note = self._outlook.note
        if snapshot.state != "running" or note is None:
            self.interrupt()
        elif self._probe is not None:
            self._watch(self._probe, note.now, snapshot.elapsed)
        elif (index := self._in_doubt(snapshot)) is None:
            self._forget()
        else:
            self._see_doubt(index, note.now, snapshot.elapsed)

    def _in_doubt(self, snapshot: DashboardSnapshot) -> int | None:
        """The stage of which it is in doubt whether more workers would help."""
        advice = snapshot.advice
        if advice.lever != "workers" or advice.gain is None or advice.gain[0]:
            return None
        if advice.stage in self._probes.told:  # and it told nothing
            return None
        names = list(snapshot.pipeline_stats.stage_stats)
        index = names.index(advice.stage or "")
        stage = snapshot.pipeline_stats.stage_stats[names[index]]
        if not self._may_be_probed[index] or stage.workers >= MOST_WORKERS:
            return None
        return index

    def _see_doubt(self, index: int, mark: Mark, now: float) -> None:
        workers = tuple(stage.workers for stage in mark.stages)
        if self._doubt != (index, workers):
            self._forget()
            self._doubt = index, workers
        self._marks.append(mark)
        if len(self._marks) > SETTLED + BASE:
            base = tuple(self._marks[-BASE - 1 :])
            self._marks = [mark]
            self._probe = _Probe(index, workers, now, base)
            self._probes.trying = mark.stages[index].stage_name
            self._change_workers(index, workers[index] + 1)

    def _watch(self, probe: _Probe, mark: Mark, now: float) -> None:
        self._marks.append(mark)
        seconds = now - probe.began
        if seconds < PROBE - BETWEEN_LOOKS / 2:
            return
        marks, stage = self._marks, probe.stage
        self._forget()
        self._go_back(probe)
        before, meanwhile = _mean_try(probe.base, stage), _mean_try(marks, stage)
        # The tries that went on when it began are of both times.
        later = [each for each in marks if each.elapsed >= probe.began + meanwhile] or marks[-1:]
        got, error = gained(Speed.of(probe.base, stage), Speed.of(later, stage))
        count = probe.workers[stage]
        probed = Probed(probe.workers, count, seconds, got, error, (before, meanwhile))
        self._probes.note(mark.stages[stage].stage_name, probed)

    def _go_back(self, probe: _Probe) -> None:
        self._probe = None
        self._change_workers(probe.stage, probe.workers[probe.stage])
        self._probes.trying = ""

    def _forget(self) -> None:
        self._marks = []
        self._doubt = None


def _has_cheap_workers(stage: Stage) -> bool:
    """Whether its workers are tasks of the event loop, or threads, and no child processes."""
    executor = stage.executor
    if isinstance(executor, str):
        return executor != "process"
    from concurrent.futures import ThreadPoolExecutor  # few have an executor of their own

    return isinstance(executor, ThreadPoolExecutor)


def _mean_try(marks: Sequence[Mark], index: int) -> float:
    """Seconds that a try took on average between the first and the last of them."""
    first, last = marks[0], marks[-1]
    ended = ended_tries(last.stages[index]) - ended_tries(first.stages[index])
    return (last.occupied[index] - first.occupied[index]) / ended if ended else 0.0
