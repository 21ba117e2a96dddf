"""How many items a second were done, over the time of a run: a history of fixed size."""

from __future__ import annotations

MOST_BINS = 240
FIRST_SPAN = 0.25
"""Seconds that a bin covers at first: quarters of a second for a run of a minute."""


class Throughput:
    """Items per second, bin by bin.

    When there are too many bins, two neighbours become one. So what is kept covers all of the run,
    or all but the last moment, in constant memory.

    Attributes:
        span: Seconds that a bin covers now.
    """

    def __init__(self) -> None:
        self.span: float = FIRST_SPAN
        self._bins: list[float] = [0.0]
        self._until = 0.0

    def add(self, count: int, until: float) -> None:
        """``count`` items were done since the last call, which covered the time up to then.

        Args:
            count: How many; they are taken to have come evenly.
            until: Seconds since the run began.
        """
        begin, self._until = self._until, max(until, self._until)
        length = self._until - begin
        while self._until >= self.span * MOST_BINS:
            self._halve()
        if length <= 0:
            self._bins[-1] += count
            return
        while begin < self._until:
            index = int(begin / self.span)
            end = min((index + 1) * self.span, self._until)
            if end <= begin:  # the next bin begins so near that floats cannot tell
                index, end = index + 1, self._until
            self._bins += [0.0] * (index + 1 - len(self._bins))
            self._bins[index] += count * (end - begin) / length
            begin = end

    def rates(self) -> list[float]:
        """Items per second of each whole bin, oldest first."""
        whole = int(self._until / self.span + 1e-9)
        return [count / self.span for count in self._bins[:whole]]

    def _halve(self) -> None:
        self.span *= 2
        pairs = range(0, len(self._bins), 2)
        self._bins = [sum(self._bins[index : index + 2]) for index in pairs]
