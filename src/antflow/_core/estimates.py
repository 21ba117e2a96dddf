"""What a simulation says about the time a run takes: how much is left, and what would be if."""

from __future__ import annotations

from dataclasses import dataclass

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
