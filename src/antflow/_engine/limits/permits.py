"""Takes an attempt through the limits of its stage.

An attempt takes a place in all its limits at once, or in none. So no attempt holds a slot of one
limit while waiting for another: there is no circular waiting, whatever the order in which stages
name their limits, and no slot stands idle for an attempt that cannot use it yet. And a rate is
charged when the attempt starts, not when it begins to wait for something else.

The order of waiting is explained in `turnstile`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any

from antflow._core.errors import PipelineError
from antflow._core.limit import HeldPermit, Limit, current_permit
from antflow._core.waits import Wait
from antflow._engine.contexts import around
from antflow._engine.current import seat_here
from antflow._engine.limits.turnstile import Clock, Line, Turnstile, call_in_loop, serve
from antflow._engine.run import current_run

_claiming = threading.Lock()
_serials = count()


class Admission:
    """The limits of one stage, for one run.

    Make it in the run's event loop: from then on until `close` the limits belong to that loop.

    Args:
        limits: At least one; duplicates count once.
        now: The run's clock.

    Raises:
        PipelineError: One of them is in use by another event loop.
    """

    def __init__(self, limits: Iterable[Limit], now: Clock) -> None:
        self._limits = tuple(dict.fromkeys(limits))
        self._turnstiles = _claim(self._limits, asyncio.get_running_loop(), now)

    def permit(self, value: Any) -> Permit:
        """A permit for one attempt on ``value``: to be acquired, then released.

        Raises:
            Exception: What a cost function raised, or the error that says that it gave no cost.
        """
        return Permit(self._turnstiles, [limit.cost_of(value) for limit in self._limits])

    def hold(self, seconds: float) -> None:
        """Keep attempts that share one of the limits from starting for this many seconds."""
        for turnstile in self._turnstiles:
            turnstile.hold(seconds)

    def close(self) -> None:
        """There will be no more attempts. When all have closed, another loop may use the limits."""
        with _claiming:
            for turnstile in self._turnstiles:
                turnstile.users -= 1


class Permit:
    """One attempt's hold on its limits.

    Args:
        turnstiles: The limits.
        costs: What the attempt costs in each.

    Attributes:
        serial: Its number in the order of arrival, if it had to wait.
        costs: What it was charged, as far as known.
    """

    __slots__ = (
        "_future",
        "_has_slots",
        "_is_lent",
        "_is_released",
        "_outer",
        "_suspended",
        "_turnstiles",
        "costs",
        "serial",
    )

    def __init__(self, turnstiles: tuple[Turnstile, ...], costs: list[float]) -> None:
        self._turnstiles = turnstiles
        self.costs = costs
        self.serial = 0
        self._future: asyncio.Future[None] | None = None
        self._has_slots = False
        self._is_lent = False
        self._is_released = False
        self._suspended = 0
        self._outer: HeldPermit | None = None

    @property
    def _limited(self) -> tuple[Turnstile, ...]:
        """Those with slots. A rate alone has nothing to lend."""
        return tuple([each for each in self._turnstiles if each.limit.concurrency is not None])

    def acquire(self) -> Wait:
        """Start at once if there is room and no attempt waits, or return what to await.

        From then on until `release` it is the ``current_permit`` of the caller's context.

        Cancellation: while waiting, nothing has been taken, and nothing needs to be released.
        """
        now = self._turnstiles[0].now()
        for turnstile, cost in zip(self._turnstiles, self.costs, strict=True):
            if turnstile.lines or not turnstile.has_slot or turnstile.due(cost) > now:
                return self._wait()
        self.start(now)
        self._enter()
        return None

    def release(self, thread: asyncio.Future[Any] | None = None) -> None:
        """The attempt is over: give back its slots, once. What it cost stays charged.

        Args:
            thread: A thread that goes on although its time is over: it keeps the slots.
        """
        self._is_released = True
        current_permit.set(self._outer)
        if thread is None:
            self._give_back()
        else:
            thread.add_done_callback(lambda _: self._give_back())

    def withdraw(self) -> None:
        """The attempt does not begin after all: give back its slots and what it cost."""
        current_permit.set(self._outer)
        self._undo()

    def suspend(self) -> None:
        """Give the slots back for a while. What it cost stays charged."""
        self._suspended += 1
        if self._has_slots and not self._is_lent:
            self._is_lent = True
            for turnstile in self._limited:
                turnstile.in_use -= 1
            if freed := [turnstile for turnstile in self._limited if turnstile.lines]:
                serve(freed)

    async def resume(self) -> None:
        """Wait for the slots again, at no further cost.

        Parts of an attempt may be suspended at the same time: the last one to go on takes them. One
        that outlives the attempt takes none.

        Cancellation: it has no slots, and only needs to be released.
        """
        self._suspended -= 1
        if self._suspended or self._is_released or not self._limited:
            return
        again = Permit(self._limited, [0.0] * len(self._limited))
        if (wait := again.acquire()) is not None:
            await held_by_limit(wait)
        current_permit.set(self)
        if self._suspended or self._is_released or not self._is_lent:  # meanwhile
            again._give_back()
        else:
            self._is_lent = False

    def correct(self, limit: Limit, actual: float) -> None:
        """Charge or refund the difference between what it cost and what was charged.

        From another thread the loop does it, soon and before it hears that the thread has ended.

        Raises:
            PipelineError: Neither this permit nor one around it was charged by this limit.
        """
        for index, turnstile in enumerate(self._turnstiles):
            if turnstile.limit is limit and turnstile.meter is not None:
                call_in_loop(turnstile.loop, self._correct, index, actual)
                return
        if self._outer is not None:  # it is a permit within an attempt, for a call of its task
            self._outer.correct(limit, actual)
            return
        raise PipelineError(f"Limit.correct(): {limit!r} is not a rate of the running task's stage")

    def start(self, now: float) -> None:
        """Take a slot and the cost of every limit."""
        for turnstile, cost in zip(self._turnstiles, self.costs, strict=True):
            turnstile.in_use += 1
            turnstile.charge(cost, now)
        self._has_slots = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def _wait(self) -> None:
        self.serial = next(_serials)
        await self._stand_in_line()
        while self._is_held:  # held after it was let in, before it noticed
            self._undo()
            await self._stand_in_line()
        self._enter()

    async def _stand_in_line(self) -> None:
        self._future = self._turnstiles[0].loop.create_future()
        line = self._turnstiles[0].lines.get(self._turnstiles) or Line(self._turnstiles)
        line.add(self)
        serve(self._turnstiles)
        try:
            await self._future
        except BaseException:
            if self in line.waiting:
                line.remove(self)
                serve(self._turnstiles)
            else:  # it was let in, and has not noticed yet
                self._undo()
            raise

    @property
    def _is_held(self) -> bool:
        now = self._turnstiles[0].now()
        return any(turnstile.held_until > now for turnstile in self._turnstiles)

    def _enter(self) -> None:
        self._outer = current_permit.get()
        current_permit.set(self)

    def _undo(self) -> None:
        self._has_slots = False
        now = self._turnstiles[0].now()
        for turnstile, cost in zip(self._turnstiles, self.costs, strict=True):
            turnstile.charge(-cost, now)
            turnstile.in_use -= 1
        serve(self._turnstiles)

    def _give_back(self) -> None:
        if not self._has_slots:
            return
        self._has_slots = False
        for turnstile in self._turnstiles:
            if not (self._is_lent and turnstile in self._limited):
                turnstile.in_use -= 1
        # Attempts waiting for a rate alone are not helped by the end of another.
        if freed := [t for t in self._turnstiles if t.lines and t.limit.concurrency is not None]:
            serve(freed)

    def _correct(self, index: int, actual: float) -> None:
        turnstile = self._turnstiles[index]
        turnstile.charge(actual - self.costs[index], turnstile.now())
        self.costs[index] = actual
        serve((turnstile,))


async def held_by_limit(wait: Awaitable[None]) -> None:
    """Wait for a limit in the middle of a try, while the worker's book says so.

    The context says whose try it is. In an `asyncio.Task` that has outlived its try, it is the one
    the worker is at when the wait begins.

    Cancellation: of the wait; the book says that it is over.
    """
    seat = seat_here()
    now = seat.run.timers.now
    seat.worker.call_waits(wait, now())
    try:
        await wait
    finally:
        seat.worker.call_goes_on(wait, now())


@around
async def inside_permit(
    admission: Admission | None,
    value: Any = None,
    thread: Callable[[], asyncio.Future[Any] | None] = lambda: None,
) -> AsyncGenerator[None, None]:
    """Inside, the running try has one more permit; waiting for it is waiting for a limit.

    Args:
        admission: What admits it; ``None``: nothing has to.
        value: What the cost depends on.
        thread: Asked at the end for a thread that goes on; see `Permit.release`.

    Cancellation: while waiting, nothing was taken; inside, the permit is released.
    """
    if admission is None:
        yield
        return
    permit = admission.permit(value)
    if (wait := permit.acquire()) is not None:
        await held_by_limit(wait)
    try:
        yield
    finally:
        permit.release(thread())


@around
async def slots_given_back() -> AsyncGenerator[None, None]:
    """Inside, the running attempt has no slot of any limit: what it waits for may need one.

    Afterwards it has them again, even if the body raised: the task may go on. Only if the run is
    being cancelled are they not waited for.
    """
    permits: list[Permit] = []
    held = current_permit.get()
    while isinstance(held, Permit):
        permits.append(held)
        held = held._outer
    for permit in permits:
        permit.suspend()
    try:
        yield
    except BaseException:
        run = current_run.get()
        if run is not None and not run.is_cancelling:
            await _resume(permits)
        raise
    await _resume(permits)


async def _resume(permits: Sequence[Permit]) -> None:
    for permit in reversed(permits):
        await permit.resume()


def _claim(
    limits: Sequence[Limit], loop: asyncio.AbstractEventLoop, now: Clock
) -> tuple[Turnstile, ...]:
    with _claiming:
        for limit in limits:
            there = _turnstile(limit)
            if there is None or there.loop is loop or there.loop.is_closed():
                continue
            if there.users:
                raise PipelineError(
                    f"{limit!r} is in use by another event loop: it serves one at a time"
                )
        return tuple([_attach(limit, loop, now) for limit in limits])


def _attach(limit: Limit, loop: asyncio.AbstractEventLoop, now: Clock) -> Turnstile:
    there = _turnstile(limit)
    if there is None or there.loop is not loop:
        # Slots and lines that a loop left behind are not taken over: they would never be given
        # back.
        there = limit.turnstile = Turnstile(limit, loop, now, there)
    there.users += 1
    return there


def _turnstile(limit: Limit) -> Turnstile | None:
    return limit.turnstile if isinstance(limit.turnstile, Turnstile) else None
