"""Forecasts of a simulation: how long a run will take, and would take with other workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from antflow._core.portable import Portable


@dataclass(frozen=True, slots=True)
class Eta(Portable):
    """How much longer a run will take: in nine of ten cases, between these two.

    Attributes:
        shortest: Seconds.
        longest: Seconds.
        waits_for: A few words if the end depends on something that the work itself does not
            explain, with a time on the clock of the run (``elapsed``): ``"retries at 0:06"``, the
            last one that waits is due then; ``"1 item since 0:16"``, a worker has had it since
            then, far longer than usual; ``"hold until 1:30"``, nothing may start before. Else "".
    """

    shortest: float
    longest: float
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class WhatIf(Portable):
    """How long a run would take with other numbers of workers, in nine of ten cases.

    It is what a simulation says that knows the stages as they were measured. It does not know the
    processor, or services, which may get slower when more is asked of them.

    Attributes:
        workers: Stage name → how many workers it would have, for every stage.
        shortest: Seconds that the whole run would take.
        longest: The same.
        elapsed: How many of these are over, in a run under way; 0.0 after a run.
    """

    workers: Mapping[str, int]
    shortest: float
    longest: float
    elapsed: float = 0.0


class PastRun(Protocol):
    """The measurements of a run that is over. It can be pickled."""

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long it would have taken with these workers."""
        ...
