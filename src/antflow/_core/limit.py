"""Limits: how many attempts at the same time, and how much per period.

Here are the numbers: what may start when. The waiting is done by the engine. The two meet in
`Limit.turnstile` and `current_permit`, which the engine fills.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from antflow._core.checks import check_count, check_seconds, examine, refusal, takes, whole
from antflow._core.errors import PipelineError
from antflow._core.foreign import asked, number
from antflow._core.misspellings import explained
from antflow._core.text import safe_repr


class Meter:
    """Cost per time: a bucket of ``rate``, full at first, that refills continuously.

    In any ``seconds``, costs of up to ``rate * (1 + seconds / period)`` start: what the bucket held
    and what flowed in. So it is never more than twice ``rate`` in one period, and ``rate`` in the
    long run. A cost above ``rate`` starts when the bucket is full and leaves a debt, which has to
    flow in before anything else that costs something starts.

    Args:
        rate: Cost per period, above 0.
        period: Seconds in which an empty bucket gets full, above 0.

    Attributes:
        charged: What was taken out in all, less what was put back.
    """

    # GCRA, the "virtual scheduling algorithm" of ITU-T I.371, a leaky bucket used as a meter. Its
    # theoretical arrival time, here the moment at which the bucket is full again, is
    # `anchor + used * period / rate`: kept as two numbers, since sums of fractions would drift.
    __slots__ = ("_anchor", "_period", "_rate", "_used", "charged")

    def __init__(self, rate: float, period: float) -> None:
        self._rate = rate
        self._period = period
        self._anchor = -inf
        self._used = 0.0
        self.charged: float = 0.0

    def due(self, cost: float) -> float:
        """The time from which on ``cost`` may start; for a cost of 0 always."""
        if cost <= 0:
            return -inf
        rate = self._rate
        lacking = self._used + (cost if cost < rate else rate) - rate
        return self._anchor + lacking * self._period / rate

    def charge(self, cost: float, now: float) -> None:
        """Take ``cost`` out, or put it back if it is negative: never above the brim."""
        if self._anchor + self._used * self._period / self._rate <= now:  # `_full_at`, written out
            self._anchor = now
            self._used = 0.0
        self._used += cost
        self.charged += cost

    def available(self, now: float) -> float:
        """The content of the bucket, at most ``rate``; below 0: a debt."""
        return self._rate - max(self._full_at() - now, 0.0) * self._rate / self._period

    def retuned(self, rate: float, period: float, now: float) -> Meter:
        """A meter of another rate, with this one's content: at most ``rate``, debts included."""
        meter = Meter(rate, period)
        meter.charge(rate - min(self.available(now), rate), now)
        meter.charged = self.charged
        return meter

    def _full_at(self) -> float:
        return self._anchor + self._used * self._period / self._rate


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """How a limit stands.

    Attributes:
        in_use: Attempts that run under it.
        waiting: Attempts that wait for it.
        available: Cost that could start at once; below 0: a debt; ``None`` without a rate.
        held: Seconds for which no attempt may start; 0.0 = not held.
    """

    in_use: int
    waiting: int
    available: float | None
    held: float


class LimitAtWork(Protocol):
    """A limit at work; made by the engine."""

    def hold(self, seconds: float) -> None: ...
    def set_rate(self, rate: float, period: float) -> None: ...
    def statistics(self) -> LimitStatistics: ...


class HeldPermit(Protocol):
    """A running attempt's hold on its limits; made by the engine."""

    def correct(self, limit: Limit, actual: float) -> None: ...


current_permit: ContextVar[HeldPermit | None] = ContextVar("antflow_permit", default=None)
"""The permit of the attempt this code belongs to; set in threads of plain functions too."""


SET_RATE = "limit.set_rate(rate, period=None), which works during a run too"


class Limit:
    """How many attempts may run at the same time, and how much may start per period.

    Give it to one stage or to several, of one pipeline or of several: they share it. Every attempt,
    retries too, waits until all limits of its stage let it start, and takes part of all at once.

    The rate is a bucket: ``rate`` may start at once, then as much as flows in. Services that say
    "60 requests per minute" meter in this way: capacity comes back continuously, up to the maximum.
    The first period can see nearly twice ``rate``. Where even a short burst is refused, say the
    same rate with a shorter period: ``Limit(rate=1, period=1.0)`` starts one each second.

    It bounds one process, and is used by one event loop at a time. Its attributes cannot be
    assigned; `set_rate` changes the rate, during a run too.

    Args:
        concurrency: The most attempts at the same time, at least 1; ``None`` = any number.
        rate: The most cost per ``period``, above 0; ``None`` = any.
        period: Seconds, above 0.
        cost: What an attempt costs: a number above 0, or ``value -> number`` (0 or more), called
            before each attempt with the value that goes into it (the list of them, in a stage with
            ``batch``); if it raises, the attempt fails. Above ``rate`` it waits for a full bucket,
            and what comes next waits for the debt. Without a rate, nothing costs anything.

    Attributes:
        turnstile: The engine's; ``None`` until a run has used the limit.

    Raises:
        TypeError: An argument is not what it must be.
        ValueError: A number is not allowed, or neither ``concurrency`` nor ``rate`` is given.

    Example:
        >>> requests = Limit(concurrency=8, rate=60)
        >>> tokens = Limit(rate=100_000, cost=lambda prompt: len(prompt) / 4 + 500)
        >>> stage = Stage("Ask", 20, [ask], limits=[requests, tokens])
    """

    __slots__ = ("_period", "_rate", "concurrency", "cost", "turnstile")

    @explained
    def __init__(
        self,
        concurrency: int | None = None,
        rate: float | None = None,
        period: float = 60.0,
        cost: float | Callable[[Any], float] = 1,
    ) -> None:
        if concurrency is None and rate is None:
            raise _value_error("concurrency=None, rate=None: at least one of them must be given")
        if concurrency is not None:
            refuse = _type_error if whole(concurrency) is None else _value_error
            allowed = "must be a whole number >= 1"
            concurrency = check_count(refuse, "concurrency", concurrency, 1, allowed)
        if rate is not None:
            rate = _check_number("rate", rate, above_zero=True)
        period = _check_number("period", period, above_zero=True)
        if examine(_type_error, "cost", inspect.iscoroutinefunction, cost):
            raise refusal(_type_error, "cost", cost, "must be a number or a plain function")
        if callable(cost) and not examine(_type_error, "cost", takes, cost, 1):
            allowed = "cannot be called with one argument, the value"
            raise refusal(_type_error, "cost", cost, allowed)
        if not callable(cost):
            cost = _check_number("cost", cost, above_zero=True)
        self.concurrency: Final = concurrency
        self.cost: Final = cost
        self._rate = rate
        self._period = period
        self.turnstile: LimitAtWork | None = None

    @property
    def rate(self) -> float | None:
        """The most cost per `period`; ``None`` = any."""
        return self._rate

    @property
    def period(self) -> float:
        """Seconds in which an empty bucket gets full."""
        return self._period

    def set_rate(self, rate: float, period: float | None = None) -> None:
        """Change the rate, now and wherever the limit is shared. May be called from any thread.

        The bucket keeps what is in it, up to the new rate, and refills at the new speed. So a
        higher rate starts no burst. A limit that had no rate starts with a full bucket, and
        attempts that run by then count as charged.

        Args:
            rate: The most cost per period, above 0.
            period: Seconds, above 0; ``None`` = as before.

        Raises:
            TypeError: An argument is not a number.
            ValueError: It is a number that is not allowed.
        """
        rate = _check_number("rate", rate, above_zero=True)
        if period is not None:
            self._period = _check_number("period", period, above_zero=True)
        self._rate = rate
        if self.turnstile is not None:
            self.turnstile.set_rate(rate, self._period)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            if name in ("rate", "period"):
                raise AttributeError(f"Limit.{name} cannot be assigned: write {SET_RATE}")
            if name in ("concurrency", "cost") and hasattr(self, name):
                raise AttributeError(f"Limit.{name} cannot be assigned: make another Limit")
            object.__setattr__(self, name, value)

    def correct(self, actual: float) -> None:
        """Say what the running attempt really cost: the rate is charged or refunded the rest.

        Call it in a task, ``async`` or plain. A second call replaces the first. A refund lets as
        much start at once, but never fills the bucket above ``rate``.

        Args:
            actual: 0 or more, finite.

        Raises:
            TypeError: ``actual`` is not a number.
            ValueError: It is a number that is not allowed.
            PipelineError: No task of a stage that has this limit runs here.
        """
        actual = _check_number("actual", actual, above_zero=False)
        permit = current_permit.get()
        if permit is None:
            raise PipelineError("Limit.correct() works only inside a task of a stage with limits")
        permit.correct(self, float(actual))

    def hold(self, seconds: float) -> None:
        """Keep attempts from starting for this long from now. Running attempts go on.

        It never shortens a hold. May be called from any thread.

        Args:
            seconds: 0 or more, finite.

        Raises:
            ValueError: ``seconds`` is not such a number.
            PipelineError: No run has used this limit yet, so it has no clock.
        """
        seconds = check_seconds(_value_error, "seconds", seconds)
        if self.turnstile is None:
            raise PipelineError("Limit.hold() works only once a pipeline that has the limit ran")
        self.turnstile.hold(seconds)

    def statistics(self) -> LimitStatistics:
        """How it stands now. May be called from any thread: then sums may be one start apart."""
        if self.turnstile is None:
            return LimitStatistics(0, 0, self.rate, 0.0)
        return self.turnstile.statistics()

    def cost_of(self, value: Any) -> float:
        """The cost of an attempt on ``value``; 0.0 without a rate.

        Raises:
            Exception: What the cost function raised.
            TypeError: It did not return a number.
            ValueError: It returned a number that is negative or not finite.
        """
        if self._rate is None:
            return 0.0
        if not callable(self.cost):
            return float(self.cost)
        answer: object = self.cost(value)
        return float(_check_number("cost(value)", answer, above_zero=False))

    def __repr__(self) -> str:
        return asked(self._told, instead="<Limit>")

    def _told(self) -> str:
        return (
            f"Limit(concurrency={self.concurrency}, rate={self.rate}, period={self.period}, "
            f"cost={safe_repr(self.cost)})"
        )

    # A copy would be another limit, and so no limit: copying a stage copies the reference.

    def __copy__(self) -> Limit:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Limit:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Limit cannot be pickled: it bounds one process")


def _check_number(name: str, value: object, *, above_zero: bool) -> int | float:
    allowed = f"must be a finite number {'> 0' if above_zero else '>= 0'}"
    plain = number(value)
    if plain is None:
        raise refusal(_type_error, name, value, allowed)
    # Compared, not converted: an int may be too large for a float.
    if not 0 <= plain <= sys.float_info.max or (above_zero and plain == 0):
        raise refusal(_value_error, name, value, allowed)
    return plain


def _value_error(message: str) -> Exception:
    return ValueError(f"Limit: {message}")


def _type_error(message: str) -> Exception:
    return TypeError(f"Limit: {message}")
