"""How long tries take, as a few points: for a simulation, which asks for what is left of one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import log
from typing import NamedTuple

from antflow._core.durations import Durations, durations_since, middle_of

Points = tuple[tuple[float, float], ...]
"""Seconds, and the share of the times that take this long."""

BODY = 16
"""Parts of equal weight into which times are divided; the longest tenth more finely."""

TAIL = 0.05
FEWEST_IN_TAIL = 5

PARTS_BEYOND = ((0.7, 0.6), (0.25, 0.3), (0.05, 0.1))
"""Points of that tail: the share of it that takes longer, and the weight of the point."""

OUTLIER_INDEX = 1.5
"""Of a try that takes far longer than any before it, nothing is known but its age.

It takes twice as long with probability ``2 ** -1.5``: a Pareto tail, whose index is a guess.
"""

LATE = 1.1
"""Times the longest try, from which a try is such an outlier: histograms are not exact."""

_OUTLIER = tuple(
    (share ** (-1 / OUTLIER_INDEX) - 1, weight)
    for share, weight in [(1 - (n + 0.5) / 8, 1 / 8) for n in range(7)]
    + [(0.09, 0.07), (0.035, 0.04), (0.01, 0.015)]
)


class ServiceTimes(NamedTuple):
    """How long tries take.

    Attributes:
        points: Seconds and shares, in order; they include what may be longer than any yet.
        mean: Seconds.
        variation: The square of the coefficient of variation.
        known: How many tries this is known from.
        longest: The longest one of them.
    """

    points: Points
    mean: float
    variation: float
    known: int
    longest: float

    def is_outlier(self, age: float) -> bool:
        """Whether a try that has taken this long tells more of itself than all others do."""
        return age > LATE * self.longest and age > self.points[-1][0]

    def left(self, age: float) -> Points:
        """What is left of a try that has taken this long already."""
        first = bisect_right(self.points, (age, 2.0))
        rest = self.points[first:]
        share = sum(weight for _, weight in rest)
        if not share:
            return ((0.05 * self.longest, 1.0),)
        return tuple((seconds - age, weight / share) for seconds, weight in rest)


def left_of_outlier(age: float, doubt: float) -> Points:
    """What is left of a try of which only this is known: how long it has taken.

    Args:
        age: Seconds.
        doubt: 0: all that there may be; -1 and 1: the least and the most of it, in nine of ten
            cases.
    """
    if doubt:
        share = 0.95 if doubt < 0 else 0.05
        return ((age * (share ** (-1 / OUTLIER_INDEX) - 1), 1.0),)
    return tuple((age * factor, weight) for factor, weight in _OUTLIER)


def service_times(
    durations: Durations, earlier: Durations | None = None, mean: float | None = None
) -> ServiceTimes | None:
    """The times that a histogram counted; ``None`` if there are none.

    Args:
        durations: The histogram.
        earlier: Only those counted since then.
        mean: Their mean, where it is known better than from the histogram.
    """
    counted = _counted(durations, earlier)
    count = sum(number for _, number in counted)
    if count <= 0:
        return None
    by_histogram = sum(seconds * number for seconds, number in counted) / count
    squares = sum(seconds * seconds * number for seconds, number in counted) / count
    variation = max(squares / by_histogram**2 - 1, 0.0)
    scale = 1.0 if mean is None or mean <= 0 else mean / by_histogram
    points = [(seconds * scale, share) for seconds, share in _condensed(counted, count)]
    longest = counted[-1][0] * scale
    points = [(seconds, share * count / (count + 1)) for seconds, share in points]
    points += [(longest * far, share / (count + 1)) for far, share in _beyond(counted, count)]
    return ServiceTimes(tuple(points), by_histogram * scale, variation, count, longest)


def condensed(values: Iterable[float], parts: int = 8) -> Points:
    """A few points of equal weight for some values."""
    ordered = sorted(values)
    points: list[tuple[float, float]] = []
    for part in range(parts):
        some = ordered[part * len(ordered) // parts : (part + 1) * len(ordered) // parts]
        if some:
            points.append((sum(some) / len(some), len(some) / len(ordered)))
    return tuple(points)


def _counted(durations: Durations, earlier: Durations | None) -> list[tuple[float, int]]:
    """Seconds and number for each bucket with something in it."""
    if earlier is not None:
        durations = durations_since(durations, earlier)
    short = durations.count - sum(durations.buckets)
    counted = [
        (middle_of(durations.shortest, index), number)
        for index, number in enumerate(durations.buckets)
        if number > 0
    ]
    return [(durations.shortest / 2, short), *counted] if short > 0 else counted


def _condensed(counted: Sequence[tuple[float, int]], count: int) -> Points:
    points: list[tuple[float, float]] = []
    seconds = weight = 0.0
    edges = [n / BODY for n in range(1, BODY)] + [1 - 2**-n / BODY for n in range(1, 8)]
    sums = accumulate(number for _, number in counted)
    edge = 0
    for (middle, number), so_far in zip(counted, sums, strict=True):
        seconds += middle * number
        weight += number
        if edge >= len(edges) or so_far >= edges[edge] * count:
            points.append((seconds / weight, weight / count))
            seconds = weight = 0.0
            while edge < len(edges) and so_far >= edges[edge] * count:
                edge += 1
    if weight:
        points.append((seconds / weight, weight / count))
    return tuple(points)


def _beyond(counted: Sequence[tuple[float, int]], count: int) -> Points:
    """How many times the longest try another may take that is longer still.

    The tail is taken to go on as the longest twentieth suggests (Hill's estimator of the index of a
    Pareto tail, 1975), which is hardly at all for times that do not vary much.
    """
    most = max(TAIL * count, FEWEST_IN_TAIL)
    number, logs, begin = 0, 0.0, counted[-1][0]
    for seconds, each in reversed(counted):
        begin = seconds
        if number >= most:
            break
        number += each
        logs += each * log(seconds)
    spread = max(logs / number - log(begin), 0.0) if number else 0.0
    spread = min(spread, 0.95) if count >= FEWEST_IN_TAIL else 0.2
    return tuple((share**-spread, weight) for share, weight in PARTS_BEYOND)
