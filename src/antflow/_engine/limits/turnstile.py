"""The order in which attempts wait for limits and start.

Attempts that wait for the same limits stand in one *line*, first in, first out. Where lines share a
limit, the heads of the lines are examined in the order of their arrival whenever something changes:
a slot was given back, a bucket has refilled, a hold is over, a waiter has left. A head that can
start does so, in all its limits at once. One that cannot *closes* the limits that have no room for
it to younger ones, so that a stream of small costs cannot overtake a large one for ever. Its other
limits stay open: the slots of a shared limit are not kept for a stage that waits a minute for its
own slow rate.

That alone could starve a head whose limits are never free at the same moment. So it notes which of
them it has seen free. Once it has seen each of them free, it has missed a chance: had it kept them,
it would have started. From then on it *keeps* its rates closed to others even when they are free:
what is not spent now is in the bucket later. After a second missed chance it keeps its slots, too,
which stand idle meanwhile. A head that keeps everything starts when the last thing it lacks becomes
free.

Nothing polls. A limit has one timer while its oldest head waits for time and not only for a slot; a
limit without waiters has none. All of this happens in the event loop's thread; calls from other
threads are handed over to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Protocol, TypeAlias, TypeVarTuple

from antflow._core.inside import LimitLevel
from antflow._core.limit import Limit, LimitStatistics, Meter

Clock = Callable[[], float]
Ts = TypeVarTuple("Ts")

Charges: TypeAlias = "Sequence[tuple[Turnstile, float]]"
"""The limits of an attempt, each with the attempt's cost."""


class Waiter(Protocol):
    """Something that stands in a line: a `Permit`."""

    @property
    def serial(self) -> int:
        """Its number in the order of arrival, over all lines."""
        ...

    @property
    def charges(self) -> Charges:
        """Its cost in each limit of its line."""
        ...

    def start(self) -> None:
        """Take its places and go."""
        ...


class Turnstile:
    """A limit at work in one event loop.

    Args:
        limit: The limit.
        loop: The loop of all its users.
        now: Their clock.
        before: The limit's turnstile in another loop. If it used the same clock, its bucket and its
            hold carry over.

    Attributes:
        users: How many stages of runs use it.
        in_use: How many attempts run under it.
        held_until: Nothing starts before this time.
        is_timed: Whether it has a rate, or was ever held: otherwise time does not matter.
        meter: Its bucket; ``None`` without a rate.
        lines: Several limits → the line of those that wait for all of them.
        most: The most simultaneous attempts; infinite if unlimited.
    """

    __slots__ = (
        "_due",
        "_timer",
        "held_until",
        "in_use",
        "is_timed",
        "limit",
        "lines",
        "loop",
        "meter",
        "most",
        "now",
        "users",
    )

    def __init__(
        self,
        limit: Limit,
        loop: asyncio.AbstractEventLoop,
        now: Clock,
        before: Turnstile | None = None,
    ) -> None:
        self.limit = limit
        self.loop = loop
        self.now = now
        self.users = 0
        self.in_use = 0
        self.most: float = inf if limit.concurrency is None else limit.concurrency
        self.held_until = -inf
        self.meter = None if limit.rate is None else Meter(limit.rate, limit.period)
        if before is not None and before.now == now:
            self.held_until = before.held_until
            self.meter = before.meter
        self.is_timed: bool = self.meter is not None or self.held_until > -inf
        self.lines: dict[tuple[Turnstile, ...], Line] = {}
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def due(self, cost: float) -> float:
        """The earliest time at which ``cost`` may start, given a slot."""
        if self.meter is None:
            return self.held_until
        due = self.meter.due(cost)
        return due if due > self.held_until else self.held_until

    def charge(self, cost: float) -> None:
        """Charge the rate, or refund it if ``cost`` is negative."""
        if self.meter is not None:
            self.meter.charge(cost, self.now())

    def wake_at(self, due: float | None) -> None:
        """Set the one timer to look again at this time; ``None``: no timer."""
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due is not None:
            self._timer = self.loop.call_later(max(due - self.now(), 0.0), self._look_again)

    def hold(self, seconds: float) -> None:
        """Keep attempts from starting for this long from now."""
        call_in_loop(self.loop, self._hold_until, self.now() + seconds)

    def set_rate(self, rate: float, period: float) -> None:
        """Change the rate; what is in the bucket stays."""
        call_in_loop(self.loop, self._set_rate, rate, period)

    def statistics(self) -> LimitStatistics:
        """The current state."""
        now = self.now()
        return LimitStatistics(
            in_use=self.in_use,
            waiting=sum([len(line.waiting) for line in tuple(self.lines.values())]),
            available=None if self.meter is None else self.meter.available(now),
            held=max(self.held_until - now, 0.0),
        )

    def level(self) -> LimitLevel:
        """The same, for an estimate of what may start when."""
        now, limit = self.now(), self.limit
        has_rate = self.meter is not None and limit.rate is not None
        return LimitLevel(
            key=id(self),
            per_second=limit.rate / limit.period if limit.rate and has_rate else inf,
            size=limit.rate or inf,
            level=inf if self.meter is None else self.meter.available(now),
            slots=self.most,
            held=max(self.held_until - now, 0.0),
            cost=None if callable(limit.cost) else limit.cost,
            charged=0.0 if self.meter is None else self.meter.charged,
        )

    def _set_rate(self, rate: float, period: float) -> None:
        if self.meter is None:
            self.meter = Meter(rate, period)
            self.is_timed = True
        else:
            self.meter = self.meter.retuned(rate, period, self.now())
        serve((self,))

    def _hold_until(self, time: float) -> None:
        # A timer that is set is too early now: it looks again and sets the next one.
        self.held_until = max(self.held_until, time)
        self.is_timed = True

    def _look_again(self) -> None:
        self._timer = self._due = None
        serve((self,))


class Line:
    """Waiters for the same limits, in order. It exists while there are any.

    Attributes:
        turnstiles: The limits.
        waiting: The waiters, oldest first.
    """

    __slots__ = ("_kept", "_unseen", "turnstiles", "waiting")

    def __init__(self, turnstiles: tuple[Turnstile, ...]) -> None:
        self.turnstiles = turnstiles
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        for turnstile in turnstiles:
            turnstile.lines[turnstiles] = self
        self._unseen = set(turnstiles)
        self._kept: set[Turnstile] = set()

    @property
    def head(self) -> Waiter:
        """The waiter that has waited longest."""
        return next(iter(self.waiting))

    def add(self, waiter: Waiter) -> None:
        """Add a waiter at the end, or where it was if it was let in and then held."""
        is_last = not self.waiting or next(reversed(self.waiting)).serial < waiter.serial
        self.waiting[waiter] = None
        if not is_last:
            for each in [each for each in self.waiting if each.serial > waiter.serial]:
                self.waiting.move_to_end(each)
            if waiter is self.head:
                self._forget_chances()

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter that starts or gives up."""
        if waiter is self.head:
            self._forget_chances()
        del self.waiting[waiter]
        if not self.waiting:
            for turnstile in self.turnstiles:
                del turnstile.lines[self.turnstiles]

    def _forget_chances(self) -> None:
        self._unseen = set(self.turnstiles)
        self._kept = set()

    def try_head(self, now: float, closed: dict[Turnstile, float | None]) -> bool:
        """Start the head, or close limits to younger heads.

        Args:
            now: The time.
            closed: Limit → the time that opens it; ``None`` if something else does. Extended here.

        Returns:
            Whether it started.
        """
        head = self.head
        lacking = self._lacking(head, now, closed)
        if not lacking:
            self.remove(head)
            head.start()
            return True
        self._unseen.intersection_update(lacking)
        if not self._unseen:  # a missed chance
            rates = {each for each in self.turnstiles if each.meter is not None}
            self._kept = rates if rates - self._kept else set(self.turnstiles)
            self._unseen.update(self.turnstiles)
        for turnstile in self._kept:
            closed.setdefault(turnstile, None)
        closed.update(lacking)
        return False

    def _lacking(
        self, head: Waiter, now: float, closed: dict[Turnstile, float | None]
    ) -> dict[Turnstile, float | None]:
        lacking: dict[Turnstile, float | None] = {}
        for turnstile, cost in head.charges:
            if turnstile in closed:
                lacking[turnstile] = closed[turnstile]
            elif (due := turnstile.due(cost)) > now:
                lacking[turnstile] = due
            elif turnstile.in_use >= turnstile.most:
                lacking[turnstile] = None
        return lacking


def serve(turnstiles: Sequence[Turnstile]) -> None:
    """Start all waiters that can, in all lines that lead to these limits, even indirectly."""
    if turnstiles[0].loop.is_closed():
        return  # the waiters are gone
    now = turnstiles[0].now()
    lines = _connected(turnstiles)
    reached = dict.fromkeys(turnstiles)
    for line in lines:
        reached.update(dict.fromkeys(line.turnstiles))
    closed: dict[Turnstile, float | None] = {}
    heads = [(line.head.serial, line) for line in lines]
    heapify(heads)
    while heads:
        line = heappop(heads)[1]
        if line.try_head(now, closed) and line.waiting:
            heappush(heads, (line.head.serial, line))
    for turnstile in reached:
        turnstile.wake_at(closed.get(turnstile))


def _connected(turnstiles: Sequence[Turnstile]) -> list[Line]:
    found: dict[Line, None] = {}
    seen = set(turnstiles)
    todo = list(turnstiles)
    while todo:
        for line in todo.pop().lines.values():
            if line not in found:
                found[line] = None
                todo += [each for each in line.turnstiles if each not in seen]
                seen.update(line.turnstiles)
    return list(found)


def call_in_loop(
    loop: asyncio.AbstractEventLoop, callback: Callable[[*Ts], None], *args: *Ts
) -> None:
    """Call something in the loop's thread: at once if this is that thread, otherwise soon."""
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here or loop.is_closed():  # a closed loop has no thread
        callback(*args)
    else:
        loop.call_soon_threadsafe(callback, *args)
