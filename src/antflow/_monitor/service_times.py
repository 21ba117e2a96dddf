"""How long tries take, as a few points: for a simulation, which asks for what is left of one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import log, pow
from typing import NamedTuple

from antflow._core.durations import Durations, durations_since, middle_of

Points = tuple[tuple[float, float], ...]
"""Seconds, and the share of the times that take this long."""

BODY = 16
"""Parts of equal weight into which times are divided; the longest tenth more finely."""

TAIL = 0.05
PART_OF_MANY = 0.25
FEWEST_IN_TAIL = 5
NONE_IN_TAIL = 2
"""As if this many more had shown no tail at all: few that are far apart may be so by chance."""

MANY = 0.05
"""If at least this part of all tries goes on for longer than any took yet, that is common: the tail
is then taken to end at an even pace."""

MORE_BEYOND = {-1.0: 0.05, 0.0: 1.0, 1.0: 3.0}
"""How many times as many as expected may take longer than any yet, in doubt. If one in ``n + 1``
is expected, the share is about exponential: in nine of ten cases it is within these."""

OUTLIER_INDEX = 1.5
"""Of a try that takes far longer than any before it, nothing is known but its age.

It takes twice as long with probability ``2 ** -1.5``: a Pareto tail, whose index is a guess.
"""

LATE = 1.1
"""Times the longest try, from which a try is such an outlier: histograms are not exact."""

PARTS_BEYOND = (
    *((1 - (n + 0.5) / 8, 1 / 8) for n in range(7)),
    *((0.09, 0.07), (0.035, 0.04), (0.01, 0.015)),
)
"""Points of a tail: the share of it that takes longer, and the weight of the point."""

RARE = 0.05


class Tail(NamedTuple):
    """How much longer than any other yet a try may take.

    Attributes:
        longest: Seconds of the longest one yet.
        spread: The inverse of the index of a Pareto tail; 0: it is exponential.
        excess: The mean of that, in seconds.
    """

    longest: float
    spread: float
    excess: float

    def beyond(self, share: float) -> float:
        """Seconds that this share of the tail exceeds."""
        return self.longest + self.left(self.longest, share)

    def left(self, age: float, share: float) -> float:
        """Seconds by which this share of the tries that have taken this long exceed it."""
        if self.spread:
            return age * (pow(share, -self.spread) - 1)
        return -self.excess * log(share)

    def scaled(self, scale: float) -> Tail:
        """The same of times that are longer by a factor."""
        return Tail(self.longest * scale, self.spread, self.excess * scale)


class ServiceTimes(NamedTuple):
    """How long tries take.

    Attributes:
        points: Seconds and shares, in order; they include what may be longer than any yet.
        tail: How those go on that are longer than any yet.
        mean: Seconds.
        variation: The square of the coefficient of variation.
        known: How many tries this is known from.
    """

    points: Points
    tail: Tail
    mean: float
    variation: float
    known: int

    def in_doubt(self, doubt: float) -> Points:
        """The points, if there are more (1) or fewer (-1) long ones than can be expected."""
        more = (MORE_BEYOND[doubt] - 1) / (self.known + 1)
        beyond = [(self.tail.beyond(share), each * more) for share, each in PARTS_BEYOND if more]
        return tuple((seconds, each / (1 + more)) for seconds, each in (*self.points, *beyond))

    @property
    def latest(self) -> float:
        """A try that has taken longer than this tells more of itself than all others do."""
        return max(LATE * self.tail.longest, self.tail.beyond(RARE))

    def left(self, age: float) -> Points:
        """What is left of a try that has taken this long already."""
        if age >= self.tail.longest:
            return tuple((self.tail.left(age, share), each) for share, each in PARTS_BEYOND)
        rest = self.points[bisect_right(self.points, (age, 2.0)) :]
        share = sum([weight for _, weight in rest])
        return tuple([(seconds - age, weight / share) for seconds, weight in rest])


NO_TIME = ServiceTimes(((1e-9, 1.0),), Tail(1e-9, 0.01, 0.0), 1e-9, 0.0, 0)
"""Of a stage in which nothing was tried."""


def left_of_outlier(age: float, doubt: float) -> Points:
    """What is left of a try of which only this is known: how long it has taken.

    Args:
        age: Seconds.
        doubt: 0: all that there may be; -1 and 1: the least and the most of it, in nine of ten
            cases.
    """
    tail = Tail(age, 1 / OUTLIER_INDEX, 0.0)
    if doubt:
        return ((tail.left(age, 0.95 if doubt < 0 else 0.05), 1.0),)
    return tuple((tail.left(age, share), each) for share, each in PARTS_BEYOND)


def service_times(
    durations: Durations,
    earlier: Durations | None = None,
    mean: float | None = None,
    ages: Sequence[float] = (),
) -> ServiceTimes | None:
    """The times that a histogram counted; ``None`` if there are none.

    Args:
        durations: The histogram.
        earlier: Only those counted since then.
        mean: Their mean, where it is known better than from the histogram.
        ages: How long tries have taken that are not over, if all that began since then count: those
            that are over are the shorter ones.
    """
    counted = _counted(durations, earlier)
    count = sum(number for _, number in counted)
    if count <= 0:
        return None
    by_histogram = sum(seconds * number for seconds, number in counted) / count
    scale = 1.0 if mean is None or mean <= 0 else mean / by_histogram
    shares, left = _survived(counted, sorted(ages))
    tail = _tail(counted, count, ages, left)
    beyond = [(tail.beyond(share), each) for share, each in PARTS_BEYOND]
    whole = [*shares, *((far, each * left) for far, each in beyond)]
    mean = sum(seconds * share for seconds, share in whole)
    squares = sum(seconds * seconds * share for seconds, share in whole)
    # The next one takes longer than any yet with a probability of 1 / (n + 1): the mean stays.
    body = count / (count + 1)
    last = left * body + 1 / (count + 1)
    points = [(seconds, share * body) for seconds, share in _condensed(shares)]
    points += [(seconds, share * last) for seconds, share in beyond]
    scale *= mean / sum(seconds * share for seconds, share in points)
    return ServiceTimes(
        points=tuple((seconds * scale, share) for seconds, share in points),
        tail=tail.scaled(scale),
        mean=sum(seconds * share for seconds, share in points) * scale,
        variation=max(squares / mean**2 - 1, 0.0),
        known=count,
    )


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


def _survived(
    counted: Sequence[tuple[float, int]], ages: Sequence[float]
) -> tuple[list[tuple[float, float]], float]:
    """The share of all tries that take each time, and of those that take longer than any yet.

    Args:
        counted: Times, and how many tries took them.
        ages: For how long others have gone on, in order.

    Of those that go on it is only known that they take longer (Kaplan and Meier, 1958).
    """
    at_risk = sum(number for _, number in counted) + len(ages)
    left, gone = 1.0, 0
    shares: list[tuple[float, float]] = []
    for seconds, number in counted:
        # Those within the same bucket take longer.
        while gone < len(ages) and ages[gone] * LATE < seconds:
            gone += 1
            at_risk -= 1
        share = left * number / at_risk
        shares.append((seconds, share))
        left -= share
        at_risk -= number
    return shares, left if at_risk else 0.0


def _condensed(shares: Sequence[tuple[float, float]]) -> Points:
    """Fewer points for some."""
    points: list[tuple[float, float]] = []
    whole = sum(share for _, share in shares)
    seconds = weight = 0.0
    edges = [n / BODY for n in range(1, BODY)] + [1 - 2**-n / BODY for n in range(1, 8)]
    edge = 0
    sums = accumulate(share for _, share in shares)
    for (middle, share), so_far in zip(shares, sums, strict=True):
        seconds += middle * share
        weight += share
        if edge >= len(edges) or so_far >= (edges[edge] - 1e-9) * whole:
            points.append((seconds / weight, weight))
            seconds = weight = 0.0
            while edge < len(edges) and so_far >= (edges[edge] - 1e-9) * whole:
                edge += 1
    if weight:
        points.append((seconds / weight, weight))
    return tuple(points)


def _tail(
    counted: Sequence[tuple[float, int]], count: int, ages: Sequence[float], left: float
) -> Tail:
    """How long another try may take that takes longer than any yet.

    The tail is taken to go on as it began. If it is rare, it is that of a Pareto distribution
    (Hill's estimator of its index, 1975), which is hardly any for times that do not vary much; if
    it is not, an exponential one. In both, those that go on count with the time that they have
    taken (Epstein and Sobel, 1953).
    """
    longest = begin = counted[-1][0]
    most = max((TAIL if left <= MANY else PART_OF_MANY) * count, FEWEST_IN_TAIL)
    number, seconds, logs = 0, 0.0, 0.0
    for each, times in reversed(counted):
        begin = each
        if number >= most:
            break
        number += times
        seconds += each * times
        logs += log(each) * times
    later = [age for age in ages if age > begin]
    over = number + len(later)
    if left > MANY:
        return Tail(longest, 0.0, max(seconds + sum(later) - over * begin, 0.0) / number)
    spread = max(logs + sum(map(log, later)) - over * log(begin), 0.0) / (number + NONE_IN_TAIL)
    spread = min(spread, 0.95) if count >= FEWEST_IN_TAIL else 0.2
    return Tail(longest, max(spread, 0.01), 0.0)
