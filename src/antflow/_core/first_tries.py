"""How long the first try of each worker of a stage took.

The workers of a stage begin one after the other, and soon all of them are at work. If the tries of
the later ones take longer, the tries share something that lets in only a few: a pool of connections
or threads, a lock, a server. Then more workers would only wait longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

MOST = 300
"""Workers of which the first try is known."""


@dataclass(frozen=True, slots=True)
class FirstTries:
    """The first tries of the workers, in the order in which they began.

    Attributes:
        workers: Of how many workers the first try is known.
        early: The mean of the first third of them, in seconds.
        late: The mean of the last third.
        spread: The standard error of the difference of the two.
        pace: How many of the first third were over per second, from the first begin on.
    """

    workers: int = 0
    early: float = 0.0
    late: float = 0.0
    spread: float = 0.0
    pace: float = 0.0


class FirstTriesCounter:
    """Takes them in.

    Attributes:
        left_out: Index of a worker that does not count: a probe's, which begins long after the
            others.
    """

    __slots__ = ("_known", "_tries", "left_out")

    def __init__(self) -> None:
        self.left_out: int = -1
        self._tries: list[tuple[float, float]] = []
        self._known = FirstTries()

    def add(self, worker: int, began: float, seconds: float) -> None:
        """The first try of a worker is over."""
        if len(self._tries) < MOST and worker != self.left_out:
            self._tries.append((began, seconds))

    def read(self) -> FirstTries:
        """What is known by now. Any thread may ask."""
        if self._known.workers == len(self._tries):
            return self._known
        tries = sorted(self._tries.copy(), key=itemgetter(0))
        seconds = [each for _, each in tries]
        third = max(len(seconds) // 3, 1)
        until = max([began + each for began, each in tries[:third]])
        (early, of_early), (late, of_late) = _mean(seconds[:third]), _mean(seconds[-third:])
        spread = (of_early + of_late) ** 0.5
        pace = third / max(until - tries[0][0], 1e-9)
        self._known = FirstTries(len(seconds), early, late, spread, pace)
        return self._known


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean, and the square of its standard error."""
    count = len(values)
    mean = sum(values) / count
    variance = sum([(each - mean) ** 2 for each in values]) / max(count - 1, 1)
    return mean, variance / count
