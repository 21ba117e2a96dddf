"""Compares the rate of a stage before and during a trial of one worker more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, sqrt
from operator import sub
from statistics import fmean
from typing import NamedTuple

from antflow._core.snapshot import StageStats
from antflow._monitor.flow import ended_tries
from antflow._monitor.gain import SAME, mean_try
from antflow._monitor.measured import Mark
from antflow._monitor.moment import Figures, Moment
from antflow._monitor.service_times import service_times

SURE = 2.0
"""Standard errors to either side of what was measured, within which the truth is taken to be."""

BY_CHANCE = 3.0
"""Standard errors more by which tries may take longer than before by chance."""

TELLING = 0.5
"""By how much of what a worker should bring its gain may be in doubt, and still tell something; and
the part of it below which something else is the limit."""


FEWEST_SPANS = 4
"""Fewer do not say how much rates differ by chance."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The gain from one worker more.

    Attributes:
        workers: How many workers each stage had; the one that was probed had one more meanwhile.
        before: How many that one had.
        seconds: For how long it had one more.
        got: By what part the rate of the stage rose.
        error: The standard error of that; infinite if too little was done to tell.
        tries: Seconds that a try took on average, before and meanwhile.
    """

    workers: tuple[int, ...]
    before: int
    seconds: float
    got: float
    error: float
    tries: tuple[float, float]

    @property
    def part(self) -> tuple[float, float]:
        """The part that it brought of what a worker should bring, at least and at most."""
        if not self.tells:
            return 0.0, 1.0
        least = (self.got - SURE * self.error) * self.before
        most = (self.got + SURE * self.error) * self.before
        return min(max(least, 0.0), 1.0), min(max(most, 0.0), 1.0)

    @property
    def least(self) -> float:
        """By what part the rate rose, at least."""
        return max(self.got - SURE * self.error, 0.0) if self.tells else 0.0

    @property
    def tells(self) -> bool:
        """Whether the difference could be told from chance."""
        return SURE * self.error * self.before < TELLING

    @property
    def is_in_vain(self) -> bool:
        """Whether something else is the limit."""
        return self.tells and self.part[1] < TELLING

    @property
    def sentence(self) -> str:
        """``1 more worker for 10 s: +8%``."""
        got = f"{self.got:+.0%}" if self.tells else "too little to tell"
        return f"1 more worker for {self.seconds:.0f} s: {got}"

    def still_counts(self, stages: Sequence[StageStats], index: int, lately: Moment) -> bool:
        """Whether nothing has changed since: the workers, and how long tries take."""
        if self.workers != tuple(stage.workers for stage in stages):
            return False
        now, times = mean_try(index, lately), service_times(stages[index].run_times)
        if now is None or times is None:
            return True
        # Two means of this many differ by chance, too.
        same = SAME + BY_CHANCE * sqrt(2 * times.variation / lately.marks[index].tries)
        return min(self.tries) / same <= now <= max(self.tries) * same


class Probes:
    """Remembers the latest probe of each stage of a run.

    Attributes:
        trying: Name of the stage that has one worker more at present; "" = none.
        told: Name of a stage → its probe, where nothing had changed when `counting` was called.
    """

    def __init__(self) -> None:
        self.trying: str = ""
        self.told: Mapping[str, Probed] = {}
        self._probed: dict[str, Probed] = {}

    def note(self, stage: str, probed: Probed) -> None:
        """Take in what came of one."""
        self._probed[stage] = probed

    def counting(self, figures: Figures, lately: Moment) -> Mapping[str, Probed]:
        """Name of a stage → its probe, where nothing has changed since."""
        if self._probed:
            self.told = {
                stage.stage_name: probed
                for index, stage in enumerate(figures.stages)
                if (probed := self._probed.get(stage.stage_name)) is not None
                and probed.still_counts(figures.stages, index, lately)
            }
        return self.told


class Speed(NamedTuple):
    """The rate of a stage between marks: tries that end per second, and its standard error.

    The tries are not counted, since it is chance which of them end just before a mark. The rate
    comes from how long tries took, and how many went on at once.
    """

    rate: float
    error: float

    @classmethod
    def of(cls, marks: Sequence[Mark], index: int) -> Speed | None:
        """The speed of a stage; ``None`` if too little was done to tell it.

        The error is that of the jackknife (Tukey, 1958): how the rate differs without one span.
        """
        spans: list[tuple[float, ...]] = []
        before = marks[0]
        for mark in marks[1:]:
            ended = ended_tries(mark.stages[index]) - ended_tries(before.stages[index])
            took = mark.occupied[index] - before.occupied[index]
            if ended and took > 0:
                at_work = mark.at_work[index] - before.at_work[index]
                spans.append((ended, took, at_work, mark.elapsed - before.elapsed))
                before = mark
        if (count := len(spans)) < FEWEST_SPANS:
            return None
        sums = [sum(each) for each in zip(*spans, strict=True)]
        others = [_rate(*map(sub, sums, span)) for span in spans]
        mean = fmean(others)
        error = sqrt((count - 1) / count * sum((each - mean) ** 2 for each in others))
        return cls(_rate(*sums), error)


def _rate(ended: float, took: float, at_work: float, elapsed: float) -> float:
    return ended / took * at_work / elapsed


def gained(before: Speed | None, during: Speed | None) -> tuple[float, float]:
    """By what part a rate is higher, and the standard error of that."""
    if before is None or during is None:
        return 0.0, inf
    times = during.rate / before.rate
    return times - 1, times * hypot(before.error / before.rate, during.error / during.rate)
