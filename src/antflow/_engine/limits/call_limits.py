"""The two limits that a task applies itself: ``concurrency_limit()`` and ``rate_limit()``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar

from antflow._core.checks import check_number
from antflow._core.inside import LimitLevel
from antflow._core.limit import Limit
from antflow._core.log import warn
from antflow._core.stage import Stage
from antflow._core.text import clean
from antflow._engine.current import current_seat
from antflow._engine.limits.permits import Admission, Permit, held_by_limit

ROUNDING = 1e-9
"""How far below a whole number a full bucket may be."""


class CallLimits:
    """The limits of one stage behind ``call_concurrency`` and ``call_rate``.

    Args:
        stage: The stage.
        now: The run's clock.

    Attributes:
        stage: The stage.
        rate: The limit behind ``call_rate``.
        gates: Name of an option → what admits the calls under it.
        used: The options that tasks have used.
    """

    def __init__(self, stage: Stage, now: Callable[[], float]) -> None:
        self.stage: Stage = stage
        self.rate: Limit | None = None
        self.gates: dict[str, Admission] = {}
        self.used: set[str] = set()
        if stage.call_concurrency is not None:
            self.gates["call_concurrency"] = Admission([Limit(stage.call_concurrency)], now)
        if stage.call_rate is not None:
            self.rate = Limit(None, stage.call_rate, stage.call_rate_period)
            self.gates["call_rate"] = Admission([self.rate], now)

    def levels(self) -> list[LimitLevel]:
        """The rate of calls at this moment, if a task has used it."""
        return self.gates["call_rate"].levels() if "call_rate" in self.used else []

    def close(self) -> None:
        """End the run. Warn about a rate that was never used: most likely a mistake."""
        for gate in self.gates.values():
            gate.close()
        if self.rate is not None and "call_rate" not in self.used:
            warn(
                "stage %s has call_rate=%s, but its tasks never entered rate_limit()",
                clean(self.stage.name),
                self.stage.call_rate,
            )


current_calls: ContextVar[CallLimits | None] = ContextVar("antflow_call_limits", default=None)
"""The limits of the stage that the code runs in. Set once per worker."""


class CallLimit(AbstractAsyncContextManager[None]):
    """Inside, a task's call has a place under one of the stage's options.

    Args:
        name: The public function that returns it.
        option: The option.
    """

    def __init__(self, name: str, option: str) -> None:
        self._name = name
        self._option = option
        self._permit: Permit | None = None

    async def __aenter__(self) -> None:
        limits = current_calls.get()
        if not _works_on_item() or limits is None:
            where = f"inside a task of a running pipeline, in a stage with {self._option}"
            raise RuntimeError(f"{self._name}() works only {where}")
        gate = limits.gates.get(self._option)
        if gate is None:
            stage = clean(limits.stage.name)
            raise RuntimeError(f"{self._name}(): stage {stage!r} has no {self._option}")
        if self._permit is not None:
            raise RuntimeError(f"{self._name}(): entered twice; call it once for each block")
        limits.used.add(self._option)
        permit = gate.permit(None)
        if not permit.enter():
            await held_by_limit(permit)
        self._permit = permit

    async def __aexit__(self, *_: object) -> None:
        permit, self._permit = self._permit, None
        assert permit is not None
        permit.release()


def concurrency_limit() -> CallLimit:
    """One of the stage's ``call_concurrency`` simultaneous calls: ``async with`` around the call.

    While it waits for its place, the worker counts as waiting for a limit.

    Cancellation: while waiting, nothing is taken; inside, the place is given back.

    Raises:
        RuntimeError: Outside a task, or the stage has no ``call_concurrency``.
    """
    return CallLimit("concurrency_limit", "call_concurrency")


def rate_limit() -> CallLimit:
    """One of the stage's ``call_rate`` calls per period: ``async with`` around the call.

    While it waits for its turn, the worker counts as waiting for a limit.

    Cancellation: while waiting, nothing is counted; inside, the call stays counted.

    Raises:
        RuntimeError: Outside a task, or the stage has no ``call_rate``.
    """
    return CallLimit("rate_limit", "call_rate")


def call_rate_has_capacity(amount: float = 1) -> bool:
    """Whether this many calls could enter ``rate_limit()`` now without waiting.

    Always true without a rate: outside a task, or in a stage without ``call_rate``.

    Raises:
        ValueError: ``amount`` is not a finite number >= 0.
    """
    amount = check_number(ValueError, "amount", amount)
    limits = current_calls.get()
    if not _works_on_item() or limits is None or limits.rate is None:
        return True
    limits.used.add("call_rate")
    available = limits.rate.statistics().available
    return available is not None and available + ROUNDING >= amount


def _works_on_item() -> bool:
    seat = current_seat.get()
    return seat is not None and seat.worker.item is not None
