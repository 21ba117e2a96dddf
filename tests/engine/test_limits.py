"""Limits: reached and not exceeded, held, corrected, changed, and used in several event loops."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antflow._core.errors import PipelineError
from antflow._core.limit import Limit, LimitStatistics, current_permit
from antflow._engine.limits.permits import Admission, Permit
from antflow.testing import VirtualLoop, run_virtual

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
        if not permit.enter():
            await permit.wait()
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


def test_hold_delays_items_that_wait_for_a_slot() -> None:
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
def test_rate_that_is_changed_reaches_items_that_wait(*, in_thread: bool) -> None:
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


def test_attempt_that_runs_when_its_limit_gets_a_rate_counts_as_charged() -> None:
    """What it corrects then is its usual cost."""

    async def main() -> None:
        desk, limit = Desk(), Limit(concurrency=1, cost=3)

        async def settle() -> None:
            limit.set_rate(10, 1e9)
            limit.correct(5)

        await desk.attempt(desk.admission(limit), then=settle)
        assert limit.statistics().available == 8

    run_virtual(main)


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
        outer.enter()
        inner.enter()
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
            assert Admission([limit], time.monotonic).permit(None).enter()

    async def go_on() -> None:
        assert Admission([limit], time.monotonic).permit(None).enter()

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
        assert permits[0].enter()

    loop = VirtualLoop()
    loop.run_until_complete(main())
    waiting = permits[1].wait()
    assert inspect.iscoroutine(waiting)
    waiting.send(None)
    loop.close()
    permits[0].correct(limit, 50)
    assert limit.statistics().available == 50
    waiting.close()
    assert limit.statistics().waiting == 0
