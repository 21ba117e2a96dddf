"""When failures are too many: the limit, and the window in which failures are counted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from antflow._core.checks import Refuse, check_count, refusal, whole
from antflow._core.foreign import is_a, number
from antflow._core.misspellings import explained
from antflow._core.type_variables import T

FEWEST_FOR_A_SHARE = 20
"""A share of failures is judged once this many items are settled."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Failures:
    """How many of the last items may fail: ``run(items, max_failures=Failures(share=0.2))``.

    A plain ``max_failures`` counts all items of a run, so after a million good ones it takes long
    to notice that nothing works any more. This one looks at the last items only.

    Attributes:
        count: This many of the last ``of_last`` items, from 1 to ``of_last``; ``None`` = no such
            limit.
        share: This share of the last ``of_last`` items, above 0 and up to 1; judged once 20 items
            are settled, or ``of_last`` if that is less. ``None`` = no such limit.
        of_last: How many items count: the last ones that were settled, in whatever way.

    With both, the run stops at the one that is reached first.

    Raises:
        ValueError: A number is not allowed, or neither ``count`` nor ``share`` is given.

    Example:
        >>> from antflow import Failures
        >>> half = Failures(share=0.5, of_last=100)
    """

    count: int | None = None
    share: float | None = None
    of_last: int = 200

    def __post_init__(self) -> None:
        if self.count is None and self.share is None:
            raise ValueError("count=None, share=None: at least one of them must be given")
        allowed = "must be a whole number of items >= 1"
        most = check_count(ValueError, "of_last", self.of_last, 1, allowed)
        plain: dict[str, int | float] = {"of_last": most}
        if self.count is not None:
            allowed = f"must be a whole number from 1 to {most:,}, which is of_last"
            plain["count"] = check_count(ValueError, "count", self.count, 1, allowed, most)
        if self.share is not None:
            share = number(self.share)
            if share is None or not 0 < share <= 1:
                raise refusal(
                    ValueError, "share", self.share, "must be a ratio above 0.0 and up to 1.0"
                )
            plain["share"] = share
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        parts = {"count": self.count, "share": self.share, "of_last": self.of_last}
        given = [f"{name}={value}" for name, value in parts.items() if value is not None]
        return f"Failures({', '.join(given)})"


if not TYPE_CHECKING:
    Failures.__init__ = explained(Failures.__init__)

FailureLimit = float | Failures
"""A count (int), a share (float), or either of them among the last items."""


class FailureWindow(Generic[T]):
    """The failures that a limit counts: among the last items, or among all.

    The items in between are not entered: each failure brings the number of items that were settled
    by then, which says how far the window has moved. Only failures can make it trip.

    Args:
        limit: The limit.

    Attributes:
        limit: The same.
        of_last: How many items count; ``None`` = all.
        failures: The failed items among the last ones, the oldest first; of all items, none.
        failed: How many failures count at present.
        settled: Of how many items.
    """

    def __init__(self, limit: FailureLimit) -> None:
        self.limit = limit
        self._count: int | None = None
        self._share: float | None = None
        self.of_last: int | None = None
        if is_a(limit, Failures):
            self._count, self._share, self.of_last = limit.count, limit.share, limit.of_last
        elif isinstance(limit, int):
            self._count = limit
        else:
            self._share = limit
        self._fewest = min(FEWEST_FOR_A_SHARE, self.of_last or FEWEST_FOR_A_SHARE)
        self._places: deque[int] = deque()
        self.failures: deque[T] = deque()
        self.failed: int = 0
        self.settled: int = 0

    def is_tripped_by(self, failure: T, failed: int, settled: int) -> bool:
        """Enter a failure; whether that makes too many.

        Args:
            failure: The item that failed.
            failed: How many have failed, with this one.
            settled: How many are settled, with this one.
        """
        if self.of_last is not None:
            while self._places and self._places[0] <= settled - self.of_last:
                self._places.popleft()
                self.failures.popleft()
            self._places.append(settled)
            self.failures.append(failure)
            failed, settled = len(self.failures), min(settled, self.of_last)
        self.failed, self.settled = failed, settled
        if self._count is not None and failed >= self._count:
            return True
        is_judged = self._share is not None and settled >= self._fewest
        return is_judged and failed >= (self._share or 0.0) * settled


def check_max_failures(refuse: Refuse, name: str, limit: Any) -> FailureLimit | None:
    """Refuse what is neither ``None``, nor a count, nor a share, nor a `Failures`."""
    if limit is None or is_a(limit, Failures):
        return limit
    most: int | float | None = whole(limit)
    if most is None:
        most = number(limit)
        fits = most is not None and 0 < most <= 1
    else:
        fits = most >= 1
    if not fits:
        allowed = "must be a whole number >= 1, a ratio above 0.0 and up to 1.0, or a Failures"
        raise refusal(refuse, name, limit, allowed)
    return most
