"""Counts of the user's own: the tokens, bytes or rows that the tasks of a stage count.

Tasks count in several threads at once, and snapshots may be taken in any other. So there is a lock,
and nothing else: no clock is read when something is counted. The recent rate comes from what
earlier readings have noted, a fixed number of them.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock
from typing import Any

from antflow._core.checks import refusal
from antflow._core.foreign import number
from antflow._core.text import safe_repr

MOST_NAMES = 32
LONGEST_NAME = 100

MOST = 10**15
LEAST = -MOST
"""Sums of whole numbers between these never grow too large for a ``float``."""

RECENT = 5.0
"""Seconds over which the rate is taken: as for the rates of items."""

BETWEEN_NOTES = 0.1

Totals = dict[str, int | float]


@dataclass(frozen=True, slots=True)
class CounterStats:
    """How much was counted under one name.

    Attributes:
        total: All of it. A whole number, if only such were counted.
        per_second: How much per second: in the last five seconds or, if no snapshot was taken for
            longer, since that one; when the run is over, in the whole run.
        projected: How much it will be when the run is over, if items go on as they did so far;
            ``None`` if the number of items is not known, or the stage is not done with any.
    """

    total: int | float
    per_second: float = 0.0
    projected: float | None = None


class Counters:
    """The counts of one stage."""

    __slots__ = ("_acquire", "_lock", "_notes", "_release", "_totals")

    def __init__(self) -> None:
        self._lock = RLock()  # a finalizer may count, in the middle of counting
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._totals: Totals = {}
        self._notes: deque[tuple[float, Totals]] = deque([(0.0, {})])

    def add(self, name: str, amount: float) -> None:
        """Count; from any thread.

        Raises:
            ValueError: See `count`.
        """
        # Of a float, `number - number` is not 0 if it is infinite or NaN. That costs less than to
        # compare it with an int, and `acquire` half of what `with` does.
        if type(amount) is int:
            is_ordinary = LEAST < amount < MOST
        else:
            is_ordinary = type(amount) is float and not amount - amount
        if not is_ordinary:
            amount = checked_amount(amount)
        self._acquire()
        try:
            try:
                total = self._totals[name] + amount
            except Exception:  # why: what is not a text may raise anything when it is looked up
                name = self._checked_name(name)
                total = self._totals.get(name, 0) + amount
            if total - total or not (is_ordinary or is_finite(total)):
                raise ValueError(f"count(): the total of {safe_repr(name)} gets too large")
            self._totals[name] = total
        finally:
            self._release()

    def add_all(self, counts: Mapping[str, int | float]) -> None:
        """Count what was counted elsewhere.

        Raises:
            ValueError: Not all of it could be counted.
        """
        failure: ValueError | None = None
        for name, amount in counts.items():
            try:
                self.add(name, amount)
            except ValueError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def taken(self) -> Totals:
        """The counts since the last call."""
        with self._lock:
            totals = self._totals
            self._totals = dict.fromkeys(totals, 0)  # the names stay: there may be no more
            return totals

    def read(self, elapsed: float, is_over: bool) -> dict[str, CounterStats]:
        """The counts so far.

        Args:
            elapsed: Seconds since the run began.
            is_over: Whether the run is over.
        """
        with self._lock:
            totals, notes = self._totals.copy(), self._notes
            if not totals:
                notes[0] = (elapsed, {})
                return {}
            while len(notes) > 1 and notes[1][0] <= elapsed - RECENT:
                notes.popleft()
            since, before = (0.0, {}) if is_over else notes[0]
            if elapsed - notes[-1][0] >= BETWEEN_NOTES:
                notes.append((elapsed, totals))
        per_second = 1 / (elapsed - since) if elapsed > since else 0.0
        return {
            name: CounterStats(total, (total - before.get(name, 0)) * per_second)
            for name, total in totals.items()
        }

    def _checked_name(self, name: Any) -> str:
        check_name(name)
        plain: str = str.__str__(name)
        if plain not in self._totals and len(self._totals) >= MOST_NAMES:
            first = safe_repr(next(iter(self._totals)))
            raise ValueError(
                f"count({safe_repr(name)}): this stage counts under {MOST_NAMES} other names "
                f"already ({first} and so on), and there may be no more"
            )
        return plain


counters_here: ContextVar[Counters | None] = ContextVar("antflow_counters", default=None)
"""The counts of the stage whose code runs here. Set once per worker, not once per item."""


def count(name: str, amount: float = 1) -> bool:
    """Count something in the calling task: tokens, bytes, rows, cache hits.

    Each stage adds up what its tasks count under each name. `StageStats.counters` has the total,
    the rate, and how much it will be in the whole run; `PipelineStats.counters` and
    `RunResults.counters` have the sums over all stages. The displays show them.

    It works in ``async`` tasks, in plain functions in their threads, and in the child processes of
    ``executor="process"``, which send their counts with each answer, and during a long call about
    twice a second. What a try has counted stays counted if it then fails.

    Args:
        name: What is counted, in up to 100 characters. A stage may use 32 names.
        amount: How much: any finite number, also of numpy. It may be negative.

    Returns:
        Whether it was counted: not outside a task, nor in a process of an executor of your own.

    Raises:
        ValueError: ``name`` is not such a text, ``amount`` is not a finite number, or the stage
            counts under 32 other names already.

    Example:
        ```python
        async def ask(prompt: str) -> str:
            reply = await client.complete(prompt)
            count("tokens", reply.usage.total_tokens)
            return reply.text
        ```
    """
    counters = counters_here.get()
    if counters is None:
        check_name(name)
        checked_amount(amount)
        return False
    counters.add(name, amount)
    return True


def check_name(name: object) -> None:
    """Refuse what is not a name for a count."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        allowed = f"must be a text of 1 to {LONGEST_NAME} characters"
        raise refusal(ValueError, "name", name, allowed)


def checked_amount(amount: object) -> int | float:
    """Return a finite number as a plain one; refuse anything else."""
    plain = number(amount)
    if plain is None or not is_finite(plain):
        raise refusal(ValueError, "amount", amount, "must be a finite number")
    return plain


def is_finite(amount: float) -> bool:
    """Whether a number is finite, and not an ``int`` too large for a ``float``."""
    return -sys.float_info.max <= amount <= sys.float_info.max


def summed(parts: Iterable[Mapping[str, CounterStats]]) -> dict[str, CounterStats]:
    """The sums over several stages, name by name."""
    found: dict[str, list[CounterStats]] = {}
    for part in parts:
        for name, each in part.items():
            found.setdefault(name, []).append(each)
    return {name: _sum(each) for name, each in found.items()}


def _sum(parts: Sequence[CounterStats]) -> CounterStats:
    projected = [each.projected for each in parts if each.projected is not None]
    return CounterStats(
        sum(each.total for each in parts),
        sum(each.per_second for each in parts),
        sum(projected) if len(projected) == len(parts) else None,
    )
