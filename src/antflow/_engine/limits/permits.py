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
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import count
from math import inf
from typing import Any

from antflow._core.errors import PipelineError
from antflow._core.inside import LimitLevel
from antflow._core.limit import HeldPermit, Limit, current_permit
from antflow._engine.contexts import around
from antflow._engine.current import seat_here
from antflow._engine.limits.turnstile import Charges, Clock, Line, Turnstile, call_in_loop, serve
from antflow._engine.run import current_run

_claiming = threading.Lock()
_serials = count()


class Admission:
    """The limits of one stage, for one run.

    Make it in the run's event loop. From then on, until `close`, the limits belong to that loop.

    Args:
        limits: At least one; duplicates count once.
        now: The run's clock.

    Raises:
        PipelineError: One of them is in use by another event loop.
    """

    def __init__(self, limits: Iterable[Limit], now: Clock) -> None:
        limits = tuple(dict.fromkeys(limits))
        self._turnstiles = _claim(limits, asyncio.get_running_loop(), now)
        self._same_for_all = _same_for_all(self._turnstiles)
        self._charged_before = [each.level().charged for each in self._turnstiles]

    def permit(self, value: Any) -> Permit:
        """A permit for one attempt on ``value``: to be entered, then released.

        Raises:
            Exception: What a cost function raised, or an error if it did not return a cost.
        """
        charges = self._same_for_all
        if charges is None:
            charges = [(each, each.limit.cost_of(value)) for each in self._turnstiles]
        return Permit(self._turnstiles, charges)

    def hold(self, seconds: float) -> None:
        """Keep attempts that share one of the limits from starting for this many seconds."""
        for turnstile in self._turnstiles:
            turnstile.hold(seconds)

    def levels(self) -> list[LimitLevel]:
        """The limits at this moment; what they were charged since this was made."""
        levels = map(Turnstile.level, self._turnstiles)
        return [
            level._replace(charged=level.charged - before)
            for level, before in zip(levels, self._charged_before, strict=True)
        ]

    def close(self) -> None:
        """End the use of the limits. Once all users have done so, another loop may use them."""
        with _claiming:
            for turnstile in self._turnstiles:
                turnstile.users -= 1


class Permit:
    """One attempt's places in its limits.

    Args:
        turnstiles: The limits.
        charges: What the attempt costs in each. It may be shared with other permits.

    Attributes:
        serial: Its number in the order of arrival, if it had to wait.
        charges: What it was charged, as far as known.
    """

    # A permit is made for each try. Class attributes hold what most of them never change.
    serial: int = 0
    _future: asyncio.Future[None] | None = None
    _in_use: Sequence[Turnstile] = ()  # those it has a place in
    _outer: HeldPermit | None = None
    _suspended = 0
    _is_over = False

    def __init__(self, turnstiles: tuple[Turnstile, ...], charges: Charges) -> None:
        self._turnstiles = turnstiles
        self.charges = charges

    @property
    def _with_slots(self) -> tuple[Turnstile, ...]:
        """The limits that have slots. A rate alone has nothing to give back."""
        return tuple([each for each in self._turnstiles if each.most < inf])

    def enter(self) -> bool:
        """Start at once, if there is room and no attempt is waiting.

        From then until `release`, it is the ``current_permit`` of the caller's context.

        Returns:
            Whether it started. If not, call `wait`.
        """
        for turnstile, cost in self.charges:
            if (
                turnstile.lines
                or turnstile.in_use >= turnstile.most
                or (turnstile.is_timed and turnstile.due(cost) > turnstile.now())
            ):
                return False
        for turnstile, cost in self.charges:  # `start`, inlined: most tries pass here
            turnstile.in_use += 1
            if turnstile.meter is not None:
                turnstile.charge(cost)
        self._in_use = self._turnstiles
        self._outer = current_permit.get()
        current_permit.set(self)
        return True

    async def wait(self) -> None:
        """Wait for room, behind those already waiting, and start.

        Cancellation: nothing has been taken, and nothing needs to be released.
        """
        self.serial = next(_serials)
        await self._stand_in_line()
        while self._is_held:  # a hold came after it was let in, and before it noticed
            self._undo()
            await self._stand_in_line()
        self._outer = current_permit.get()
        current_permit.set(self)

    def release(self, thread: asyncio.Future[Any] | None = None) -> None:
        """The attempt is over: give back its slots, once. What it cost stays charged.

        Args:
            thread: A thread that goes on after its timeout: it keeps the slots until it ends.
        """
        self._is_over = True
        current_permit.set(self._outer)
        if thread is None:
            self._leave(self._in_use)
        else:
            thread.add_done_callback(lambda _: self._leave(self._in_use))

    def withdraw(self) -> None:
        """The attempt does not begin after all: give back its slots and what it cost."""
        current_permit.set(self._outer)
        self._undo()

    def suspend(self) -> None:
        """Give the slots back for a while. What it cost stays charged."""
        self._suspended += 1
        slots = self._with_slots
        self._leave(
            [each for each in self._in_use if each in slots],
            kept=[each for each in self._in_use if each not in slots],
        )

    async def resume(self) -> None:
        """Wait for the slots again, at no further cost.

        Several parts of an attempt may be suspended at the same time: the last one to resume takes
        the slots. A part that outlives the attempt takes none.

        Cancellation: the attempt has no slots, and only needs to be released.
        """
        self._suspended -= 1
        slots = self._with_slots
        if self._suspended or self._is_over or not slots:
            return
        again = Permit(slots, [(each, 0.0) for each in slots])
        if not again.enter():
            await held_by_limit(again)
        current_permit.set(self)
        if self._suspended or self._is_over or slots[0] in self._in_use:  # meanwhile
            again._leave(slots)
        else:
            self._in_use = self._turnstiles

    def correct(self, limit: Limit, actual: float) -> None:
        """Charge or refund the difference between what it cost and what was charged.

        If this is called from another thread, the loop does it: soon, and before it learns that the
        thread has ended.

        Raises:
            PipelineError: Neither this permit nor one around it was charged for this limit.
        """
        for turnstile in self._turnstiles:
            if turnstile.limit is limit and turnstile.meter is not None:
                call_in_loop(turnstile.loop, self._correct, turnstile, actual)
                return
        if self._outer is not None:  # this permit is within an attempt, for a call by its task
            self._outer.correct(limit, actual)
            return
        raise PipelineError(f"Limit.correct(): {limit!r} is not a rate of the running task's stage")

    def start(self) -> None:
        """Take a slot and the cost of every limit."""
        for turnstile, cost in self.charges:
            turnstile.in_use += 1
            turnstile.charge(cost)
        self._in_use = self._turnstiles
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

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
            else:  # it was let in, but has not noticed yet
                self._undo()
            raise

    @property
    def _is_held(self) -> bool:
        now = self._turnstiles[0].now()
        return any(turnstile.held_until > now for turnstile in self._turnstiles)

    def _undo(self) -> None:
        self._in_use = ()
        for turnstile, cost in self.charges:
            turnstile.charge(-cost)
            turnstile.in_use -= 1
        serve(self._turnstiles)

    def _leave(self, left: Sequence[Turnstile], kept: Sequence[Turnstile] = ()) -> None:
        """Give places back, once, and serve those that wait for a slot."""
        self._in_use = kept
        is_awaited = False
        for turnstile in left:
            turnstile.in_use -= 1
            if turnstile.lines:
                is_awaited = True
        # The end of an attempt does not help those that wait only for a rate.
        if is_awaited and (freed := [each for each in left if each.lines and each.most < inf]):
            serve(freed)

    def _correct(self, turnstile: Turnstile, actual: float) -> None:
        costs = dict(self.charges)
        turnstile.charge(actual - costs[turnstile])
        self.charges = list((costs | {turnstile: actual}).items())
        serve((turnstile,))


async def held_by_limit(permit: Permit) -> None:
    """Wait for a permit in the middle of a try; the worker's book shows it as waiting.

    The context says which worker it is. In an `asyncio.Task` that has outlived its try, the wait
    counts for the try that the worker is at when the wait begins.

    Cancellation: ends the wait; the book shows that it is over.
    """
    seat = seat_here()
    now = seat.run.timers.now
    seat.worker.call_waits(permit, now())
    try:
        await permit.wait()
    finally:
        seat.worker.call_goes_on(permit, now())


@around
async def slots_given_back() -> AsyncGenerator[None, None]:
    """Inside, the running attempt has no slots: what it waits for may need one.

    Afterwards it has them again, even if the body raised, because the task may go on. It does not
    wait for them if the run is being cancelled.
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


def _same_for_all(turnstiles: Iterable[Turnstile]) -> Charges | None:
    """The cost of every attempt; ``None`` if it depends on the value."""
    charges = []
    for turnstile in turnstiles:
        cost = turnstile.limit.cost
        if callable(cost):
            return None
        charges.append((turnstile, float(cost)))  # even without a rate: it may get one later
    return charges


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
        # Do not take over slots and lines that a loop left behind: they would never be freed.
        there = limit.turnstile = Turnstile(limit, loop, now, there)
    there.users += 1
    return there


def _turnstile(limit: Limit) -> Turnstile | None:
    return limit.turnstile if isinstance(limit.turnstile, Turnstile) else None
