"""Waiting for limits: in order, all at once, without a circle, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antflow._core.errors import PipelineError
from antflow._core.limit import Limit, LimitStatistics, current_permit
from antflow._engine.limits.permits import Admission, Permit
from antflow.testing import Stalled, VirtualLoop, cancel_at_every_step, run_virtual

Start = tuple[str, float]


class Desk:
    """Runs attempts within limits and writes down who started when."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.starts: list[Start] = []
        self.running = self.most = 0

    def admission(self, *limits: Limit) -> Admission:
        return Admission(limits, self.now)

    async def attempt(
        self,
        admission: Admission,
        name: str = "",
        seconds: float = 0.0,
        value: Any = None,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        permit = admission.permit(value)
        if (wait := permit.acquire()) is not None:
            await wait
        try:
            self.starts.append((name, self.now()))
            self.running += 1
            self.most = max(self.most, self.running)
            if then is not None:
                await then()
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
            permit.release()

    async def stream(
        self, admission: Admission, name: str, seconds: float, until: float, pause: float = 0.0
    ) -> None:
        """One attempt after the other."""
        while self.now() < until:
            await self.attempt(admission, name, seconds)
            await asyncio.sleep(pause)

    def times(self, name: str) -> list[float]:
        return [time for started, time in self.starts if started == name]


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -- one limit --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_concurrency_is_reached_and_not_exceeded(seed: int) -> None:
    """Ten attempts of a second, three at a time: four seconds, in any schedule."""

    async def main() -> tuple[int, float]:
        desk = Desk()
        admission = desk.admission(Limit(concurrency=3))
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(desk.attempt(admission, seconds=1.0))
        return desk.most, desk.now()

    assert run_virtual(main, seed=seed) == (3, 4.0)


def test_rate_is_spent_to_the_last_unit() -> None:
    """1000 attempts at 100 per second: 100 at once, the last after exactly nine seconds."""

    async def main() -> list[float]:
        desk = Desk()
        admission = desk.admission(Limit(rate=100, period=1.0))
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(desk.attempt(admission))
        return desk.times("")

    times = run_virtual(main)
    assert times[:100] == [0.0] * 100
    assert times == pytest.approx([max(number - 99, 0) / 100 for number in range(1000)], abs=1e-9)
    assert times[-1] == 9.0


@pytest.mark.parametrize("limit", [Limit(concurrency=1), Limit(rate=1, period=1.0, cost=float)])
def test_who_waits_goes_in_order_of_arrival(limit: Limit) -> None:
    """First come, first served: small costs do not overtake a large one, nor do newcomers."""

    async def main() -> list[str]:
        desk = Desk()
        admission = desk.admission(limit)
        async with asyncio.TaskGroup() as group:
            for number, cost in enumerate([1.0, 3.0, 0.1, 1.0, 0.1]):
                group.create_task(desk.attempt(admission, str(number), 1.0, cost))
            await asyncio.sleep(1.0)  # the bucket would let a small one in now
            await desk.attempt(admission, "5", 1.0, 0.1)
        return [name for name, _ in desk.starts]

    assert run_virtual(main) == ["0", "1", "2", "3", "4", "5"]


def test_who_waits_is_let_in_by_no_timer_but_the_one_that_is_needed() -> None:
    """Waiting for a slot sets no timer; and who gives up waiting for a rate leaves none behind."""

    async def wait_for_a_slot() -> None:
        desk = Desk()
        admission = desk.admission(Limit(concurrency=1))
        admission.permit(None).acquire()
        await desk.attempt(admission)

    async def leave() -> None:
        desk = Desk()
        admission = desk.admission(Limit(rate=1))
        await desk.attempt(admission)
        waiting = asyncio.create_task(desk.attempt(admission))
        await asyncio.sleep(1.0)
        await stop(waiting)
        await asyncio.get_running_loop().create_future()

    for main, when in [(wait_for_a_slot, "0.0"), (leave, "1.0")]:
        with pytest.raises(Stalled, match=rf"no timer is set .*, {when} s, seed"):
            run_virtual(main)


def test_many_who_wait_for_a_rate_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who arrives behind others, or leaves from among them, sets no timer of its own."""
    timers: list[float] = []

    async def main() -> None:
        desk, loop = Desk(), asyncio.get_running_loop()
        call_later = loop.call_later
        admission = desk.admission(Limit(rate=1))
        await desk.attempt(admission)

        def counted(delay: float, *args: Any) -> asyncio.TimerHandle:
            timers.append(delay)
            return call_later(delay, *args)

        monkeypatch.setattr(loop, "call_later", counted)
        waiting = [asyncio.create_task(desk.attempt(admission)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in waiting[1:]:
            await stop(task)
        await waiting[0]

    run_virtual(main)
    assert timers == [60.0]


def test_cost_function_that_raises_takes_nothing() -> None:
    """The error comes when the permit is made, before anything was taken."""

    async def main() -> None:
        desk = Desk()
        limit = Limit(1, 10, cost=len)
        admission = desk.admission(limit)
        with pytest.raises(TypeError, match="len"):
            await desk.attempt(admission, value=5)
        await desk.attempt(admission, value="abc")
        assert limit.statistics() == LimitStatistics(0, 0, 7.0, 0.0)

    run_virtual(main)


def test_statistics_while_some_run_and_some_wait() -> None:
    """In use, waiting, what is left of the bucket and of a hold."""

    async def main() -> None:
        desk = Desk()
        limit = Limit(2, 10, period=10.0, cost=3)
        admission = desk.admission(limit)
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(desk.attempt(admission, seconds=4.0))
            await asyncio.sleep(1.0)
            limit.hold(2.5)
            assert limit.statistics() == LimitStatistics(2, 3, 5.0, 2.5)
        assert limit.statistics().waiting == 0

    run_virtual(main)


# -- several limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_limits_in_opposite_orders_cannot_deadlock(seed: int) -> None:
    """Two groups want the same two slots and name them the one way and the other."""

    async def main() -> tuple[int, float]:
        desk = Desk()
        left, right = Limit(concurrency=1), Limit(concurrency=1, rate=1000)
        async with asyncio.TaskGroup() as group:
            for limits in [(left, right), (right, left)] * 10:
                group.create_task(desk.attempt(desk.admission(*limits), seconds=1.0))
        return desk.most, desk.now()

    assert run_virtual(main, seed=seed) == (1, 20.0)


def test_limit_that_is_named_twice_counts_once() -> None:
    """A stage that has the same limit twice does not wait for itself."""

    async def main() -> None:
        limit = Limit(1, 60)
        permit = Desk().admission(limit, limit).permit(None)
        assert permit.acquire() is None
        assert limit.statistics() == LimitStatistics(1, 0, 59.0, 0.0)
        permit.release()

    run_virtual(main)


def test_slots_are_not_kept_for_who_waits_for_a_slow_rate() -> None:
    """A stage under one slot and one start a minute leaves the slot to others in between."""

    async def main() -> tuple[list[float], list[float]]:
        desk = Desk()
        slots, slow = Limit(concurrency=1), Limit(rate=1)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(desk.attempt(desk.admission(slots, slow), "slow", 1.0))
            group.create_task(desk.stream(desk.admission(slots), "fast", 1.0, until=130.0))
        return desk.times("slow"), desk.times("fast")

    slow, fast = run_virtual(main)
    assert slow == [0.0, 60.0, 120.0]
    assert len(fast) == 130 - 3


def test_rate_is_not_kept_for_who_waits_for_a_slot() -> None:
    """A stage under one slot for a minute leaves what flows in to others meanwhile."""

    async def main() -> tuple[list[float], list[float]]:
        desk = Desk()
        slot, rate = Limit(concurrency=1), Limit(rate=1, period=1.0)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(desk.attempt(desk.admission(slot, rate), "long", 59.5))
            group.create_task(desk.stream(desk.admission(rate), "short", 0.0, until=90.0))
        return desk.times("long"), desk.times("short")

    long, short = run_virtual(main)
    assert long == [0.0, 60.0]
    assert len(short) == 90 - 1


def test_who_needs_several_limits_is_not_starved_by_those_who_need_one() -> None:
    """Others take each slot, and others each unit, at other moments: after one round it starts.

    What was kept for it is not kept for the next one, which has missed nothing yet.
    """

    async def main() -> tuple[list[float], list[float]]:
        desk = Desk()
        slot, rate = Limit(concurrency=1), Limit(rate=1, period=1.0)
        only_slot, only_rate = desk.admission(slot), desk.admission(rate)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(desk.stream(only_slot, "slot", 1.0, until=50.0))
            await asyncio.sleep(0.5)
            for _ in range(2):
                group.create_task(desk.stream(only_rate, "rate", 0.0, until=50.0))
            await asyncio.sleep(0.1)
            for _ in range(2):
                group.create_task(desk.attempt(desk.admission(slot, rate), "both", 10.0))
        return desk.times("both"), [time for time in desk.times("rate") if 4.0 < time < 14.0]

    # The slot of 1 and the rates of 1.5 and 2.5 go to those who came before. At 2 and 3 the slot is
    # free and the rate is not; at 3.5 the rate is and the slot is not. That was its chance: now
    # this rate is kept for it, until the slot is free again.
    both, rates_meanwhile = run_virtual(main)
    assert both[0] == 4.0
    assert rates_meanwhile == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0]


@pytest.mark.parametrize(("more", "start"), [((), 3.5), ((Limit(rate=1000),), 4.5)])
def test_who_needs_two_slots_is_not_starved_by_those_who_need_one(
    more: tuple[Limit, ...], start: float
) -> None:
    """Two limits whose slots are free at different moments: in the end both are kept for it."""

    async def main() -> list[float]:
        desk = Desk()
        left, right = Limit(concurrency=1), Limit(concurrency=1)
        async with asyncio.TaskGroup() as group:
            for limit in (left, right):
                for _ in range(2):
                    group.create_task(desk.stream(desk.admission(limit), "one", 1.0, until=50.0))
                await asyncio.sleep(0.5)
            group.create_task(desk.attempt(desk.admission(left, right, *more), "both"))
        return desk.times("both")

    assert run_virtual(main) == [start]


def test_unrelated_limits_do_not_wait_for_each_other() -> None:
    """Who waits for one limit holds up nobody at another."""

    async def main() -> float:
        desk = Desk()
        held, free = Limit(rate=1), Limit(concurrency=5)
        waiting = asyncio.create_task(desk.stream(desk.admission(held), "", 0.0, until=300.0))
        await asyncio.sleep(1.0)
        await desk.attempt(desk.admission(free))
        await stop(waiting)
        return desk.now()

    assert run_virtual(main) == 1.0


def assert_bound(limit: Limit, starts: list[tuple[float, float]]) -> None:
    """In every window: what a full bucket holds and what flows in, and the debt of the last one."""
    assert limit.rate is not None
    for first, (begin, _) in enumerate(starts):
        before = 0.0
        for moment, cost in starts[first:]:
            most = limit.rate * (1 + (moment - begin) / limit.period)
            assert not cost or before + min(cost, limit.rate) <= most + 1e-6
            before += cost


@pytest.mark.parametrize("seed", range(60))
def test_limits_hold_for_any_attempts(seed: int) -> None:
    """Random attempts on random limits, some cancelled: no bound is broken, and all end."""
    dice = random.Random(seed)
    limits = [
        Limit(dice.choice([None, 1, 2, 3]), dice.randint(1, 9), dice.choice([0.5, 3.0]), float)
        for _ in range(3)
    ]
    starts: dict[Limit, list[tuple[float, float]]] = {limit: [] for limit in limits}

    async def attempt(desk: Desk, chosen: list[Limit], cost: float) -> None:
        async def note() -> None:
            for limit in chosen:
                starts[limit].append((desk.now(), cost))
                assert limit.statistics().in_use <= (limit.concurrency or 99)

        await asyncio.sleep(dice.uniform(0, 3))
        seconds = dice.choice([0.0, 0.1, 1.0])
        await desk.attempt(desk.admission(*chosen), "", seconds, cost, note)

    async def main() -> None:
        desk = Desk()
        tasks = []
        for _ in range(25):
            chosen, cost = dice.sample(limits, dice.randint(1, 3)), float(dice.randint(0, 12))
            tasks.append(asyncio.create_task(attempt(desk, chosen, cost)))
        for task in dice.sample(tasks, 5):
            asyncio.get_running_loop().call_later(dice.uniform(0, 6), task.cancel)
        await asyncio.wait(tasks)
        for limit in limits:
            assert_bound(limit, starts[limit])
            assert (limit.statistics().in_use, limit.statistics().waiting) == (0, 0)

    run_virtual(main, seed=seed)


# -- cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_cancelled_at_any_step_an_attempt_leaves_nothing_behind(seed: int | None) -> None:
    """Its slot, its place in line and what it was charged in vain are there for the others."""
    limits: list[Limit] = []
    desks: list[Desk] = []

    async def main() -> None:
        desk = Desk()
        # So long a period that nothing flows in.
        slot, rate = Limit(concurrency=1), Limit(rate=100, period=1e12)
        limits[:], desks[:] = [slot, rate], [desk]
        others = [
            asyncio.create_task(desk.attempt(desk.admission(*pair), name, 1.0))
            for name, pair in [("a", (slot, rate)), ("b", (rate, slot)), ("no rate", (slot,))]
        ]
        try:
            await desk.attempt(desk.admission(slot, rate), "cancelled", 1.0)
        finally:
            await asyncio.gather(*others)
            assert desk.now() <= 4.0

    def check(step: int) -> None:
        if not limits:
            return  # it was cancelled before it began
        slot, rate = (limit.statistics() for limit in limits)
        charged = len(desks[0].starts) - len(desks[0].times("no rate"))
        assert (slot.in_use, slot.waiting, rate.in_use, rate.waiting) == (0, 0, 0, 0)
        assert rate.available == pytest.approx(100 - charged, abs=1e-6)

    assert cancel_at_every_step(main, check, seed=seed) > 5


def test_cancelled_when_let_in_an_attempt_passes_its_place_on() -> None:
    """Its slot was given to it, and it is cancelled before it runs: the next one goes at once."""

    async def main() -> list[Start]:
        desk = Desk()
        limit = Limit(1, 100, period=1e12)
        admission = desk.admission(limit)
        permit = admission.permit(None)
        assert permit.acquire() is None
        first, second = (
            asyncio.create_task(desk.attempt(admission, name)) for name in ("first", "second")
        )
        await asyncio.sleep(1.0)
        permit.release()
        first.cancel()
        await asyncio.wait([first, second])
        assert limit.statistics().available == pytest.approx(98, abs=1e-6)
        return desk.starts

    assert run_virtual(main) == [("second", 1.0)]


def test_cancelled_head_lets_those_behind_it_go() -> None:
    """Who waits behind a large cost goes as soon as that one gives up, also in another line."""

    async def main() -> list[Start]:
        desk = Desk()
        rate, other = Limit(rate=10, period=10.0, cost=float), Limit(concurrency=1)
        await desk.attempt(desk.admission(rate), "first", value=6)
        large = asyncio.create_task(desk.attempt(desk.admission(rate, other), "large", value=9))
        await asyncio.sleep(0)
        small = asyncio.create_task(desk.attempt(desk.admission(rate), "small", value=1))
        await asyncio.sleep(1.0)
        large.cancel()
        await asyncio.wait([large, small])
        return desk.starts

    assert run_virtual(main) == [("first", 0.0), ("small", 1.0)]


# -- hold and correct -------------------------------------------------------------------------


def test_hold_stops_starts_and_not_what_runs() -> None:
    """For so long nobody starts; a shorter hold changes nothing, a longer one does."""

    async def main() -> tuple[list[Start], float]:
        desk = Desk()
        limit = Limit(concurrency=2)
        admission = desk.admission(limit)
        running = asyncio.create_task(desk.attempt(admission, "running", 3.0))
        await asyncio.sleep(1.0)
        limit.hold(10.0)
        limit.hold(2.0)
        waiting = asyncio.create_task(desk.attempt(admission, "waiting"))
        await running
        ended = desk.now()
        limit.hold(20.0)
        await waiting
        return desk.starts, ended

    assert run_virtual(main) == ([("running", 0.0), ("waiting", 23.0)], 3.0)


def test_hold_from_another_thread() -> None:
    """A plain function may hold its limit where it runs."""

    async def main() -> float:
        desk = Desk()
        limit = Limit(concurrency=2)
        admission = desk.admission(limit)
        await asyncio.to_thread(limit.hold, 5.0)
        await desk.attempt(admission)
        return desk.now()

    assert run_virtual(main) == 5.0


def test_hold_delays_who_waits_for_a_slot() -> None:
    """A slot that becomes free during a hold is taken when the hold is over."""

    async def main() -> list[Start]:
        desk = Desk()
        limit = Limit(concurrency=1)
        admission = desk.admission(limit)
        async with asyncio.TaskGroup() as group:
            for name in ("first", "second"):
                group.create_task(desk.attempt(admission, name, 1.0))
            await asyncio.sleep(0.5)
            limit.hold(4.0)
        return desk.starts

    assert run_virtual(main) == [("first", 0.0), ("second", 4.5)]


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize(("actual", "next_start"), [(2, 1.0), (10, 2.0), (25, 17.0)])
def test_correct_settles_a_guess(actual: int, next_start: float, *, in_thread: bool) -> None:
    """A refund lets who waits go at once, a charge has them wait longer; threads may do it too."""

    async def main() -> list[float]:
        asyncio.get_running_loop().set_debug(True)  # notices what does not belong in a thread
        desk = Desk()
        limit = Limit(rate=10, period=10.0, cost=float)
        admission = desk.admission(limit)

        async def settle() -> None:
            await asyncio.sleep(1.0)
            if in_thread:
                await asyncio.to_thread(limit.correct, actual)
            else:
                limit.correct(99)
                limit.correct(actual)

        async with asyncio.TaskGroup() as group:
            group.create_task(desk.attempt(admission, "guess", value=10, then=settle))
            await asyncio.sleep(0)
            group.create_task(desk.attempt(admission, "next", value=2))
        return desk.times("next")

    assert run_virtual(main) == [next_start]


@pytest.mark.parametrize("in_thread", [False, True])
def test_rate_that_is_changed_reaches_those_who_wait(*, in_thread: bool) -> None:
    """A new rate goes for attempts that already wait, without a burst, and from any thread."""

    async def main() -> list[Start]:
        desk, limit = Desk(), Limit(rate=1, period=100.0)
        admission = desk.admission(limit)
        tasks = [asyncio.ensure_future(desk.attempt(admission, str(n))) for n in range(4)]
        await asyncio.sleep(10)
        if in_thread:
            await asyncio.to_thread(limit.set_rate, 10, 10.0)
        else:
            limit.set_rate(10, 10.0)
        await asyncio.gather(*tasks)
        return desk.starts

    starts = run_virtual(main)
    assert [time for _, time in starts] == pytest.approx([0, 10.9, 11.9, 12.9], abs=0.01)


def test_rate_that_is_lowered() -> None:
    """What is in the bucket above the new rate is gone, and the rest comes at the new speed."""

    async def main() -> list[float]:
        desk, limit = Desk(), Limit(rate=10, period=10.0)
        admission = desk.admission(limit)
        limit.set_rate(2)
        await asyncio.gather(*[desk.attempt(admission) for _ in range(4)])
        return [time for _, time in desk.starts]

    assert run_virtual(main) == pytest.approx([0, 0, 5, 10])


def test_limit_that_gets_a_rate_while_it_runs() -> None:
    """It begins with a full bucket, and attempts cost something from then on."""

    async def main() -> list[float]:
        desk, limit = Desk(), Limit(concurrency=100)
        admission = desk.admission(limit)
        await desk.attempt(admission)
        limit.set_rate(2, 10.0)
        await asyncio.gather(*[desk.attempt(admission) for _ in range(4)])
        return [time for _, time in desk.starts]

    assert run_virtual(main) == pytest.approx([0, 0, 0, 5, 10])


def test_correct_is_for_the_limits_of_the_running_attempt() -> None:
    """Another limit, one without a rate, and code after the attempt are told so."""

    async def main() -> None:
        desk = Desk()
        mine, plain, other = Limit(rate=5), Limit(concurrency=1), Limit(rate=5)

        async def settle() -> None:
            for wrong in (plain, other):
                with pytest.raises(PipelineError, match="not a rate of the running task's stage"):
                    wrong.correct(1)
            mine.correct(0)

        await desk.attempt(desk.admission(mine, plain), then=settle)
        mine.hold(1.0)  # now it has to wait before it begins
        await desk.attempt(desk.admission(mine, plain), then=settle)
        assert mine.statistics().available == 5
        with pytest.raises(PipelineError, match="only inside a task"):
            mine.correct(1)

    run_virtual(main)


def test_permits_within_an_attempt_end_with_it() -> None:
    """Within a call the attempt's own permit can be settled; after it, it is the current one."""

    async def main() -> None:
        desk = Desk()
        limits = Limit(rate=5), Limit(rate=5)
        outer, inner = (desk.admission(limit).permit(None) for limit in limits)
        assert current_permit.get() is None
        outer.acquire()
        inner.acquire()
        assert current_permit.get() is inner
        limits[0].correct(3)
        assert [limit.statistics().available for limit in limits] == [2, 4]
        inner.release()
        assert current_permit.get() is outer
        outer.release()
        assert current_permit.get() is None

    run_virtual(main)


# -- one limit, several loops -----------------------------------------------------------------


def test_limit_in_the_next_loop_with_the_same_clock() -> None:
    """What was spent under one ``asyncio.run`` is spent under the next; what hung there is not."""
    limit = Limit(2, 100, period=1e9, cost=30)

    async def leave_running() -> None:
        for _ in range(2):
            assert Admission([limit], time.monotonic).permit(None).acquire() is None

    async def go_on() -> None:
        assert Admission([limit], time.monotonic).permit(None).acquire() is None

    asyncio.run(leave_running())
    asyncio.run(go_on())
    assert limit.statistics().in_use == 1
    assert limit.statistics().available == pytest.approx(10, abs=0.1)


def test_limit_under_another_clock() -> None:
    """A virtual loop begins at 0 again: the bucket begins anew, and no hold is left over."""
    limit = Limit(rate=1, period=1000.0)

    async def main() -> tuple[float, float]:
        desk = Desk()
        admission = desk.admission(limit)
        await desk.attempt(admission)
        await desk.attempt(admission)
        limit.hold(5000.0)
        return desk.starts[0][1], desk.starts[1][1]

    assert [run_virtual(main) for _ in range(2)] == [(0.0, 1000.0)] * 2


def test_limit_between_two_runs_can_be_held() -> None:
    """After a run has ended its clock is known: the next run waits, without any loop in between."""
    limit = Limit(concurrency=1)

    async def claim() -> LimitStatistics:
        Admission([limit], time.monotonic).close()
        return limit.statistics()

    asyncio.run(claim())
    limit.hold(1000.0)
    assert asyncio.run(claim()).held == pytest.approx(1000.0, abs=100.0)


def test_limit_in_two_loops_at_once() -> None:
    """The second loop is refused while the first has not closed, and welcome afterwards."""
    limit, free = Limit(concurrency=1), Limit(concurrency=1)

    async def claim() -> None:
        for _ in range(2):  # closing gives back everything that a refused claim may have taken
            Admission([free, limit], time.monotonic).close()

    def in_another_thread() -> list[BaseException]:
        raised: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(claim())
            except PipelineError as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return raised

    async def main() -> None:
        first, second = Admission([limit], time.monotonic), Admission([limit], time.monotonic)
        first.close()
        (error,) = in_another_thread()
        assert "concurrency=1" in str(error)
        assert "in use by another event loop" in str(error)
        second.close()
        assert in_another_thread() == []

    asyncio.run(main())


def test_correct_from_a_thread_that_outlives_its_loop() -> None:
    """It is charged all the same, and wakes nobody in a loop that is closed."""
    limit = Limit(rate=100, period=1e12, cost=float)
    permits: list[Permit] = []

    async def main() -> None:
        admission = Admission([limit], asyncio.get_running_loop().time)
        permits[:] = [admission.permit(cost) for cost in (90, 100)]
        assert permits[0].acquire() is None

    loop = VirtualLoop()
    loop.run_until_complete(main())
    waiting = permits[1].acquire()
    assert inspect.iscoroutine(waiting)
    waiting.send(None)
    loop.close()
    permits[0].correct(limit, 50)
    assert limit.statistics().available == 50
    waiting.close()
    assert limit.statistics().waiting == 0
