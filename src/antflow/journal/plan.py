"""A forecast of a run with a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from antflow._core.text import clean, counted


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run with a journal would do: `Pipeline.plan`.

    Items that were made from others are counted too, where the journal knows them.

    Attributes:
        items: How many items were looked at.
        settled: Outcome → how many have it, and are not run again.
        new: How many the journal does not know.
        goes_on: Stage → how many were on their way when a run ended, and go on there.
        again: Why → how many are run again: ``"another input"``, ``"another version of Ask"``,
            ``"failed: TimeoutError"``.
        seconds: How long the run would take, by the mean durations in the journal and the workers;
            ``None`` if a stage that is needed has none yet. Items yet to be made from others are
            not counted.
        changed_code: Names of stages whose source has changed since the last run, and whose results
            are used all the same.
    """

    items: int
    settled: Mapping[str, int]
    new: int
    goes_on: Mapping[str, int]
    again: Mapping[str, int]
    seconds: float | None
    changed_code: tuple[str, ...] = ()

    @property
    def to_run(self) -> int:
        """How many are run, in one stage or more."""
        return self.new + sum(self.goes_on.values()) + sum(self.again.values())

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in self.settled.items())
        settled = f"{sum(self.settled.values()):,} settled"
        if outcomes:
            settled += f" ({outcomes})"
        lines = [f"{counted(self.items, 'item')}: {settled}, {self.to_run:,} to run"]
        if self.new:
            lines.append(f"  {self.new:,} new")
        lines += [
            f"  {count:,} go on in stage {clean(stage)}" for stage, count in self.goes_on.items()
        ]
        lines += [f"  {count:,} again: {clean(why)}" for why, count in self.again.items()]
        lines += [
            f"  the code of {clean(stage)} has changed since, and its results are used; another "
            "version= would redo them"
            for stage in self.changed_code
        ]
        if self.to_run:
            lines.append(_time_text(self.seconds))
        return "\n".join(lines)


def _time_text(seconds: float | None) -> str:
    if seconds is None:
        return "how long that takes is not known yet"
    if seconds < 120:
        about = f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    elif seconds < 2 * 3600:
        about = f"{seconds / 60:.0f} min"
    else:
        about = f"{seconds / 3600:.1f} h"
    return f"about {about}, by the durations in the journal"
