"""Waiting for limits: in order, all at once, without a circle, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from antflow._core.limit import Limit, LimitStatistics
from antflow.testing import Stalled, cancel_at_every_step, run_virtual
from tests.engine.test_limits import Desk

Start = tuple[str, float]


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def assert_bound(limit: Limit, starts: list[tuple[float, float]]) -> None:
    """In every window: what a full bucket holds and what flows in, and the debt of the last one."""
    assert limit.rate is not None
    for first, (begin, _) in enumerate(starts):
        before = 0.0
        for moment, cost in starts[first:]:
            most = limit.rate * (1 + (moment - begin) / limit.period)
            assert not cost or before + min(cost, limit.rate) <= most + 1e-6
            before += cost


@pytest.mark.parametrize("limit", [Limit(concurrency=1), Limit(rate=1, period=1.0, cost=float)])
def test_waiting_items_go_in_order_of_arrival(limit: Limit) -> None:
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


def test_waiting_items_need_a_single_timer() -> None:
    """Waiting for a slot sets no timer; and who gives up waiting for a rate leaves none behind."""

    async def wait_for_a_slot() -> None:
        desk = Desk()
        admission = desk.admission(Limit(concurrency=1))
        admission.permit(None).enter()
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


def test_many_that_wait_for_a_rate_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert permit.enter()
        assert limit.statistics() == LimitStatistics(1, 0, 59.0, 0.0)
        permit.release()

    run_virtual(main)


def test_slots_are_not_kept_for_items_that_wait_for_a_slow_rate() -> None:
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


def test_rate_is_not_kept_for_items_that_wait_for_a_slot() -> None:
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


def test_items_with_several_limits_are_not_starved_by_those_with_one() -> None:
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
def test_items_that_cost_two_slots_are_not_starved_by_those_that_cost_one(
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
        assert permit.enter()
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
