"""The two limits that a task applies itself: ``concurrency_limit()`` and ``rate_limit()``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar

from antflow._core.checks import check_number
from antflow._core.limit import Limit
from antflow._core.log import warn
from antflow._core.stage import Stage
from antflow._core.text import clean
from antflow._engine.contexts import around
from antflow._engine.current import current_seat
from antflow._engine.limits.permits import Admission, inside_permit

ROUNDING = 1e-9
"""How much a full bucket may lack of a whole number."""


class CallLimits:
    """The limits of one stage behind ``call_concurrency`` and ``call_rate``.

    Args:
        stage: The stage.
        now: The run's clock.
    """

    def __init__(self, stage: Stage, now: Callable[[], float]) -> None:
        self.stage = stage
        self.rate: Limit | None = None
        self.concurrency_gate: Admission | None = None
        self.rate_gate: Admission | None = None
        self.rate_was_entered = False
        if stage.call_concurrency is not None:
            self.concurrency_gate = Admission([Limit(stage.call_concurrency)], now)
        if stage.call_rate is not None:
            self.rate = Limit(None, stage.call_rate, stage.call_rate_period)
            self.rate_gate = Admission([self.rate], now)

    def close(self) -> None:
        """The run is over; a rate that was never used is most likely a mistake."""
        for gate in (self.concurrency_gate, self.rate_gate):
            if gate is not None:
                gate.close()
        if self.rate is not None and not self.rate_was_entered:
            warn(
                "stage %s has call_rate=%s, but its tasks never entered rate_limit()",
                clean(self.stage.name),
                self.stage.call_rate,
            )


current_calls: ContextVar[CallLimits | None] = ContextVar("antflow_call_limits", default=None)
"""The limits of the stage this code runs in. Set once per worker."""


@around
async def concurrency_limit() -> AsyncGenerator[None, None]:
    """One of the stage's ``call_concurrency`` simultaneous calls: ``async with`` around the call.

    While it waits for its place, the worker counts as waiting for a limit.

    Cancellation: while waiting, nothing is taken; inside, the place is given back.

    Raises:
        RuntimeError: Outside a task, or the stage has no ``call_concurrency``.
    """
    limits = _limits_here("concurrency_limit", "call_concurrency")
    async with inside_permit(limits.concurrency_gate):
        yield


@around
async def rate_limit() -> AsyncGenerator[None, None]:
    """One of the stage's ``call_rate`` calls per period: ``async with`` around the call.

    While it waits for its turn, the worker counts as waiting for a limit.

    Cancellation: while waiting, nothing is counted; inside, the call stays counted.

    Raises:
        RuntimeError: Outside a task, or the stage has no ``call_rate``.
    """
    limits = _limits_here("rate_limit", "call_rate")
    limits.rate_was_entered = True
    async with inside_permit(limits.rate_gate):
        yield


def call_rate_has_capacity(amount: float = 1) -> bool:
    """Whether this many calls could enter ``rate_limit()`` now without waiting.

    Always true without a rate: outside a task, or in a stage without ``call_rate``.

    Raises:
        ValueError: ``amount`` is not a finite number >= 0.
    """
    check_number(ValueError, "amount", amount)
    limits = current_calls.get()
    if not _works_on_item() or limits is None or limits.rate is None:
        return True
    limits.rate_was_entered = True
    available = limits.rate.statistics().available
    return available is not None and available + ROUNDING >= amount


def _limits_here(name: str, option: str) -> CallLimits:
    limits = current_calls.get()
    if not _works_on_item() or limits is None:
        raise RuntimeError(f"{name}() works only inside a task of a running pipeline")
    if getattr(limits.stage, option) is None:
        raise RuntimeError(f"{name}(): stage {clean(limits.stage.name)!r} has no {option}")
    return limits


def _works_on_item() -> bool:
    seat = current_seat.get()
    return seat is not None and seat.worker.item is not None
