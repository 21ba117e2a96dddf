"""The inside of a run at one moment, as far as its future depends on it and its books do not say.

It is read about once a second, and its cost grows with the number of stages and workers; of the
items that wait for their next try there is a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class LimitLevel(NamedTuple):
    """A limit at one moment.

    Attributes:
        key: Tells limits apart; stages that share one have the same.
        per_second: The cost that flows in per second; infinite without a rate.
        size: The most that the bucket holds.
        level: How much it holds; below 0: a debt.
        slots: The most tries at the same time; infinite if unlimited.
        held: Seconds for which nothing may start.
        cost: What a try costs, where that is a fixed number.
        charged: What all tries of the run have cost so far.
    """

    key: int
    per_second: float
    size: float
    level: float
    slots: float
    held: float
    cost: float | None
    charged: float


class StageInside(NamedTuple):
    """A stage at one moment.

    Attributes:
        now: The moment, on the clock of the event loop, as `begun` and `dues` are.
        begun: When each item under way came to its worker, later by the time for which it waited;
            those that wait now, for a limit or for room, are not among them.
        blocked: Workers whose item is done and waits: mostly one that becomes others, for their
            room.
        dues: When items that wait for their next try are due, and how often they were tried,
            earliest first; a sample, if there are many.
        delays: How often an item had been tried → seconds that the latest of those had to wait for
            their next try.
        most_retrying: How many items may wait for that before workers take nothing new.
        limits: The limits on its tries.
        batch: The most items that a worker takes together.
        attempts: The most tries of an item.
    """

    now: float = 0.0
    begun: Sequence[float] = ()
    blocked: int = 0
    dues: Sequence[tuple[float, int]] = ()
    delays: Mapping[int, Sequence[float]] = {}
    most_retrying: int = 0
    limits: Sequence[LimitLevel] = ()
    batch: int = 1
    attempts: int = 1

    @property
    def ages(self) -> list[float]:
        """For how many seconds the items under way have been with their workers."""
        now = self.now  # there may be thousands
        return [now - begun if begun < now else 0.0 for begun in self.begun]
