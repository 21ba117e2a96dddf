"""Durations, counted in buckets: any number of them in constant memory.

Each bucket is wider than the one before by a constant factor, so that a quantile is read with a
bounded relative error, whatever the durations are (Masson, Rim and Lee, "DDSketch", VLDB 2019).
Durations below a shortest one are only counted, and not even that here: the reader supplies the
total. So a task that does nothing costs one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from operator import sub

from antflow._core.checks import check_share

RELATIVE_ERROR = 0.04
"""The largest relative error of a quantile."""

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / log(_GROWTH)
_LONGEST = 30 * 86_400.0

SHORTEST_RUN = 100e-6
"""Seconds of a try below which it is not told apart from others as short."""

SHORTEST_WAIT = 1e-3
"""The same for the time in a queue: what is shorter is the engine's own pace."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, many times: quantiles within 4 %.

    Attributes:
        count: How many durations there are.
        shortest: Seconds below which durations are not told apart; a quantile among those is 0.0.
        buckets: How many durations each bucket holds, from ``shortest`` on upwards.
    """

    count: int = 0
    shortest: float = SHORTEST_RUN
    buckets: Sequence[int] = ()

    def __repr__(self) -> str:
        if self.count <= 0:
            return "Durations(count=0)"
        return f"Durations(count={self.count}, p50={self.p50 or 0:.3g}, p95={self.p95 or 0:.3g})"

    def quantile(self, share: float) -> float | None:
        """Seconds that ``share`` of the durations did not exceed; ``None`` when there are none.

        Args:
            share: From 0 to 1; 0.5 asks for the median.

        Raises:
            ValueError: It is not.
        """
        share = check_share(ValueError, "share", share)
        if self.count <= 0:
            return None
        rank = max(ceil(share * self.count), 1)
        seen = self.count - sum(self.buckets)
        if rank <= seen:
            return 0.0
        for index, number in enumerate(self.buckets):
            seen += number
            if seen >= rank:
                return middle_of(self.shortest, index)
        return None  # read by another thread during counting

    @property
    def p50(self) -> float | None:
        """The median, in seconds; ``None`` when there are no durations."""
        return self.quantile(0.50)

    @property
    def p95(self) -> float | None:
        """The duration that 95 % did not exceed, in seconds."""
        return self.quantile(0.95)

    @property
    def p99(self) -> float | None:
        """The duration that 99 % did not exceed, in seconds."""
        return self.quantile(0.99)


def durations_since(now: Durations, earlier: Durations) -> Durations:
    """Those that were counted after an earlier reading of the same counter."""
    then = (*earlier.buckets, *[0] * (len(now.buckets) - len(earlier.buckets)))
    buckets = tuple(map(sub, now.buckets, then))
    return Durations(now.count - earlier.count, now.shortest, buckets)


def middle_of(shortest: float, index: int) -> float:
    """The point of a bucket that is equally far, relatively, from both of its ends, in seconds."""
    return shortest * _GROWTH**index * 2 * _GROWTH / (_GROWTH + 1)


class DurationCounter:
    """Counts durations of at least ``shortest`` seconds, up to 30 days.

    It has the buckets up to the longest one yet: mostly a third of those that there may be.

    Args:
        shortest: Below this, `add` must not be called: those durations are not counted.
    """

    __slots__ = ("_buckets", "_most", "_shortest")

    def __init__(self, shortest: float) -> None:
        self._shortest = shortest
        self._buckets: list[int] = []
        self._most = int(log(_LONGEST / shortest) * _PER_LOG) + 1

    def add(self, seconds: float) -> None:
        """Count one."""
        ratio = seconds / self._shortest
        index = int(log(ratio) * _PER_LOG) if ratio > 1 else 0
        try:
            self._buckets[index] += 1
        except IndexError:
            index = min(index, self._most - 1)
            self._buckets += [0] * (index + 1 - len(self._buckets))
            self._buckets[index] += 1

    def buckets(self) -> tuple[int, ...]:
        """A copy of the buckets."""
        return tuple(self._buckets)

    def read(self, count: int) -> Durations:
        """A copy of what was counted, out of ``count`` durations in all."""
        return Durations(count, self._shortest, self.buckets())


class ItemTimes:
    """How long items took, from their intake to their outcome."""

    __slots__ = ("_counter", "_items")

    def __init__(self) -> None:
        self._counter = DurationCounter(SHORTEST_WAIT)
        self._items = 0

    def add(self, seconds: float) -> None:
        """An item has left the run."""
        self._items += 1
        if seconds >= SHORTEST_WAIT:
            self._counter.add(seconds)

    def read(self) -> Durations:
        """A copy of what was counted."""
        return self._counter.read(self._items)
