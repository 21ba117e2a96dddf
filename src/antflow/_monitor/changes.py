"""What came of a change of the number of workers during a run: advice is held against it."""

from __future__ import annotations

from dataclasses import dataclass

from antflow._core.text import counted
from antflow._monitor.moment import Figures, Moment

LONG_ENOUGH = 5.0
DONE_ENOUGH = 20
"""Seconds, and items done, after which it can be told what came of a change."""

AT_WORK = 0.8
"""Share of their time since then that its workers had none to spare, from which it can be told."""

A_PART = 0.25
"""The least part of what was to be expected that counts as a gain."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a change of workers.

    Attributes:
        before: How many workers it had.
        workers: How many it has had since.
        predicted: By what part the rate was to rise, at most; ``None``: nothing was said.
        got: By what part it has risen.
    """

    before: int
    workers: int
    predicted: float | None
    got: float

    @property
    def is_in_vain(self) -> bool:
        """Whether more workers brought next to nothing of what could be expected."""
        added = self.workers / max(self.before, 1) - 1
        expected = added if self.predicted is None else min(added, self.predicted)
        return self.workers > self.before and self.got < A_PART * expected

    @property
    def sentence(self) -> str:
        """``5 more workers: predicted +100%, got +2%``."""
        added = self.workers - self.before
        which = counted(abs(added), "worker").replace(" ", f" {'more' if added > 0 else 'fewer'} ")
        predicted = "" if self.predicted is None else f"predicted {self.predicted:+.0%}, "
        return f"{which}: {predicted}got {self.got:+.0%}"


@dataclass(slots=True)
class _Change:
    at: Moment
    before: int
    workers: int
    rate: float
    predicted: float | None


class Changes:
    """Follows the numbers of workers of one run.

    Each change is told by the first figures after it; two changes between two figures count as one.
    """

    def __init__(self) -> None:
        self._workers: dict[str, int] = {}
        self._changes: dict[str, _Change] = {}

    def is_changed(self, figures: Figures, probed: str) -> bool:
        """Whether a stage has another number of workers than it had before.

        Args:
            figures: The figures now.
            probed: The stage that has one more for a while; that is not a change.
        """
        if not self._workers:
            self._workers = {each.stage_name: each.workers for each in figures.stages}
        return any(
            self._workers[each.stage_name] != each.workers
            for each in figures.stages
            if each.stage_name != probed
        )

    def note(
        self, figures: Figures, now: Moment, lately: Moment, predicted: dict[str, float]
    ) -> None:
        """Take in a change.

        Args:
            figures: The first figures after it.
            now: The sums of the run now.
            lately: What the last seconds added to them.
            predicted: Name of a stage → by what part more workers would lift the rate.
        """
        for index, stage in enumerate(figures.stages):
            name, before = stage.stage_name, self._workers[stage.stage_name]
            if stage.workers == before or lately.elapsed <= 0:
                continue
            rate = lately.done[index] / lately.elapsed
            expected = predicted.get(name) if stage.workers > before else None
            self._changes[name] = _Change(now, before, stage.workers, rate, expected)
        self._workers = {each.stage_name: each.workers for each in figures.stages}

    def outcomes(self, figures: Figures, now: Moment) -> dict[str, Outcome]:
        """Name of a stage → what came of its last change, where that can be told."""
        found: dict[str, Outcome] = {}
        for index, stage in enumerate(figures.stages):
            change = self._changes.get(stage.stage_name)
            if change is None or not change.rate:
                continue
            since = now.since(change.at)
            if since.elapsed < LONG_ENOUGH or since.done[index] < DONE_ENOUGH:
                continue
            if since.spent[index].shares().occupied < AT_WORK:
                continue  # something else held it back, however many workers it had
            got = since.done[index] / since.elapsed / change.rate - 1
            found[stage.stage_name] = Outcome(change.before, change.workers, change.predicted, got)
        return found
