"""A hold: nothing of a stage begins until it is over, limits or not, and no try counts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest

from antflow import Limit, Pipeline, RetryAfter, RunResults, Stage, StatusTracker, current_batch
from antflow.testing import Calls, cancel_at_every_step, record_events, run_virtual
from tests.support import now

LIMITED = pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
"""With a limit that never stands in the way, and without."""


def run(stages: list[Stage], items: Any, **options: Any) -> RunResults[Any]:
    """Run items through stages in virtual time."""
    tracker = options.pop("status_tracker", None)
    pipeline = Pipeline(stages, status_tracker=tracker)
    return run_virtual(lambda: pipeline.run(items, **options), max_time=100_000.0)


def limits(limited: bool) -> list[Limit]:
    """A wide one, or none."""
    return [Limit(concurrency=1000)] if limited else []


class Service:
    """Says "too fast" for its first seconds, and for how much longer.

    Args:
        seconds: How long it does.
        takes: How long an answer takes.
    """

    def __init__(self, seconds: float, takes: float = 0.1) -> None:
        self.seconds = seconds
        self.takes = takes
        self.refused = 0
        self.answered = 0

    async def __call__(self, value: Any) -> Any:
        """Answer, or refuse."""
        await asyncio.sleep(self.takes)
        if now() < self.seconds:
            self.refused += 1
            raise RetryAfter(self.seconds - now())
        self.answered += 1
        return value


async def slowly(*_: Any) -> None:
    """A callback that takes its time."""
    await asyncio.sleep(0.5)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one try": {"task_attempts": 1},
    "per_stage": {"retry": "per_stage", "stage_attempts": 1},
    "batch": {"batch": 5},
    "batch, one try": {"batch": 5, "task_attempts": 1},
    "isolated": {"isolate_context": True},
    "one at a time": {"task_concurrency_limits": {"Service": 7}},
    "limit": {"limits": [Limit(concurrency=15)]},
    "rate": {"limits": [Limit(rate=10_000)]},
    "short queue": {"queue_capacity": 1},
}


@pytest.mark.parametrize("callback", [None, "on_status_change", "on_task_start", "on_task_retry"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_worker_is_refused_once(kind: str, callback: str | None) -> None:
    """The service refuses for 30 s: at most what was under way is refused, and all come through."""
    service = Service(30)
    tracker = StatusTracker()
    if callback:
        setattr(tracker, callback, slowly)
    stage = Stage("A", 20, [service], **KINDS[kind])
    results = run([stage], range(900), status_tracker=tracker)
    assert len(results) == 900
    assert {result.attempts for result in results} == {1}
    assert service.refused <= 20


@pytest.mark.parametrize(
    "options",
    [{"limits": [Limit(concurrency=2)]}, {"task_concurrency_limits": {"Service": 2}}],
    ids=["limit", "task"],
)
@pytest.mark.parametrize("batch", [None, 3])
def test_refused_items_let_in_none_that_wait_in_line(
    options: dict[str, Any], batch: int | None
) -> None:
    """Two call at a time and are refused; their places are free, and nothing begins there."""
    service = Service(30)
    results = run([Stage("A", 20, [service], batch=batch, **options)], range(100))
    assert len(results) == 100
    assert service.refused == 2


def test_held_line_keeps_its_order() -> None:
    """Who was let in just when the hold came goes on as the first of those who wait."""
    starts: list[int] = []

    async def task(value: int) -> int:
        starts.append(value)
        await asyncio.sleep(1)
        if value < 3 and now() < 60:
            raise RetryAfter(60)
        return value

    run([Stage("A", 9, [task], limits=[Limit(concurrency=3)])], range(9))
    assert starts[:9] == list(range(9))


@LIMITED
def test_nothing_begins_while_held(limited: bool) -> None:
    """Not the other worker, not one that was just told of its item, and not the next items."""
    starts: list[float] = []

    async def task(value: int) -> int:
        starts.append(now())
        if len(starts) == 1:
            raise RetryAfter(60)
        return value

    async def told(event: Any) -> None:
        if event.status == "in_progress" and event.item_id == 1:
            await asyncio.sleep(5)  # its worker has the item, and has not begun with it

    tracker = StatusTracker(told)
    run([Stage("A", 3, [task], limits=limits(limited))], range(6), status_tracker=tracker)
    assert starts == [0, *[60] * 6]


@LIMITED
def test_hold_begins_with_the_failure(limited: bool) -> None:
    """A callback that is told of the failure first, and slow, puts the hold off for nobody."""
    starts: list[float] = []

    async def task(value: int) -> int:
        starts.append(now())
        await asyncio.sleep(1 if value == 0 else 2)
        if value == 0 and len(starts) <= 2:
            raise RetryAfter(60)
        return value

    tracker = StatusTracker(on_task_retry=slowly)
    run([Stage("A", 2, [task], limits=limits(limited))], range(4), status_tracker=tracker)
    assert starts == [0, 0, 61, 61, 63]


def test_hold_of_a_whole_batch_begins_with_the_failure() -> None:
    """The same where the task raised for all of a batch."""
    starts: list[float] = []

    async def task(values: list[int]) -> list[int]:
        starts.append(now())
        await asyncio.sleep(len(starts))
        if len(starts) <= 2 and now() == 1:
            raise RetryAfter(60)
        return values

    tracker = StatusTracker(on_task_retry=slowly)
    run([Stage("A", 2, [task], batch=2)], range(8), status_tracker=tracker)
    assert starts[:2] == [0, 0]
    assert starts[2] == 61


@LIMITED
def test_hold_in_a_batch_begins_before_the_others_go_on(limited: bool) -> None:
    """The items that are through wait for room in the next stage: the hold does not."""
    starts: list[float] = []

    async def task(values: list[int]) -> list[Any]:
        starts.append(now())
        await asyncio.sleep(len(starts))
        return [RetryAfter(60) if value == 0 and now() < 60 else value for value in values]

    first = Stage("A", 2, [task], batch=3, limits=limits(limited))
    run([first, Stage("B", 1, [Calls(seconds=10)], pull=True)], range(9))
    assert starts[:2] == [0, 0]
    assert min(starts[2:]) == 61


def test_hold_is_for_its_stage_and_for_what_shares_its_limits() -> None:
    """A stage beside goes on, one with the same limit does not; so for another pipeline."""
    shared = Limit(concurrency=100)

    async def main() -> list[list[float]]:
        beside, both = Calls(seconds=1), Calls(seconds=1)

        async def held(value: int) -> int:
            if now() < 60:
                raise RetryAfter(60)
            return value

        free = Pipeline([Stage("A", 1, [held]), Stage("B", 1, [Calls()])])
        other = Pipeline([Stage("A", 1, [beside])])
        limited = Pipeline([Stage("A", 1, [held], limits=[shared])])
        sharing = Pipeline([Stage("A", 1, [both], limits=[shared])])
        await asyncio.gather(
            free.run(range(2)), other.run(range(2)), limited.run(range(2)), sharing.run(range(2))
        )
        return [[call.start for call in calls.made] for calls in (beside, both)]

    assert run_virtual(main) == [[0, 1], [60, 61]]


@LIMITED
def test_worker_of_a_held_item_goes_on(limited: bool) -> None:
    """It takes the next item, and waits with that: limited, while the held one waits by itself."""

    async def main() -> Any:
        service = Service(60, takes=0)
        pipeline = Pipeline([Stage("A", 2, [service], limits=limits(limited))])
        running = asyncio.create_task(pipeline.run(range(6)))
        await asyncio.sleep(30)
        snapshot = pipeline.get_dashboard_snapshot()
        stage = snapshot.pipeline_stats.stage_stats["A"]
        assert (stage.retrying_items, stage.limited_items, stage.pending_items) == (1, 2, 3)
        assert {state.waits_for for state in snapshot.worker_states.values()} == {"limited"}
        assert len(await running) == 6
        return pipeline.get_stats().stage_stats["A"]

    stage = run_virtual(main)
    assert (stage.limited_seconds, stage.busy_seconds, stage.retried_items) == (120, 0, 1)


@LIMITED
def test_longest_hold_counts(limited: bool) -> None:
    """A shorter one that comes later shortens nothing, a longer one goes on."""
    starts: list[float] = []
    holds = {0: 60.0, 1: 10.0, 2: 90.0}

    async def task(value: int) -> int:
        starts.append(now())
        await asyncio.sleep(value + 1)
        if seconds := holds.pop(value, None):
            raise RetryAfter(seconds)
        return value

    run([Stage("A", 3, [task], limits=limits(limited))], range(5))
    assert starts[:3] == [0, 0, 0]
    assert min(starts[3:]) == 93


@LIMITED
def test_item_that_is_held_past_its_time_fails_in_time(limited: bool) -> None:
    """The held one, and the one that waits in a worker's hands, fail when their time is over."""

    async def task(value: int) -> int:
        raise RetryAfter(600)

    async def main() -> tuple[RunResults[Any], float]:
        stage = Stage("A", 1, [task], limits=limits(limited))
        return await Pipeline([stage]).run(range(2), item_timeout=50), now()

    results, ended = run_virtual(main)
    assert ended == 50
    assert {str(failed.error) for failed in results.failed} == {
        "not through after 50 s (item_timeout)"
    }


@LIMITED
def test_batch_of_which_some_were_held_too_often(limited: bool) -> None:
    """Those are tried alone, after the hold; the others come again and lose no try."""
    made: list[tuple[float, list[int], list[int]]] = []

    async def task(values: list[int]) -> list[int]:
        made.append((now(), values, [item.attempt for item in current_batch()]))
        if len(made) <= 2:
            raise RetryAfter(10)
        return values

    async def source() -> Any:
        yield 0
        await asyncio.sleep(5)
        yield 1

    options: dict[str, Any] = {"task_attempts": 1, "max_holds": 1, "limits": limits(limited)}
    results = run([Stage("A", 1, [task], batch=2, **options)], source())
    assert sorted(results.values()) == [0, 1]
    assert made[0] == (0, [0], [1])
    assert min(when for when, *_ in made[2:]) >= 20
    assert all(tries == [1] for _, values, tries in made if values == [1])


@LIMITED
@pytest.mark.parametrize("how", ["cancel", "shutdown", "timeout"])
def test_run_that_ends_while_it_is_held(how: str, limited: bool) -> None:
    """Nothing waits for the end of the hold, and every item is settled."""

    async def main() -> tuple[int, float]:
        service = Service(1e6)
        pipeline = Pipeline([Stage("A", 3, [service], limits=limits(limited))])
        async with pipeline.open() as running:
            await running.feed(range(10))
            await asyncio.sleep(5)
            if how == "shutdown":
                await running.shutdown()
            else:
                running.cancel()
        return len(running.results.outcomes), now()

    assert run_virtual(main) == (10, 5)


def test_held_stages_cancelled_at_every_step() -> None:
    """Cancelled before any step, first hold or later: the books balance."""

    async def main() -> None:
        service = Service(1)
        stages = [Stage("A", 2, [service]), Stage("B", 1, [Service(2)], batch=2)]
        await Pipeline(stages, status_tracker=record_events()).run(range(4))

    assert cancel_at_every_step(main) > 30


def test_hold_of_no_time_lets_the_next_try_begin_at_once() -> None:
    """``RetryAfter(0)``: again, as often as ``max_holds`` says, and time does not pass."""

    async def main() -> tuple[int, float]:
        calls = Calls()

        async def task(value: int) -> int:
            await calls(value)
            raise RetryAfter(0)

        await Pipeline([Stage("A", 2, [task], task_attempts=1)]).run([0])
        return len(calls.made), now()

    assert run_virtual(main) == (21, 0)


def test_tracker_is_told_of_a_hold_as_of_a_retry() -> None:
    """The try is over and comes again under its number, in a stage with limits too."""
    for each in limits(False), limits(True):
        events = record_events()
        stage = Stage("A", 1, [Service(1)], task_attempts=1, limits=each)
        run([stage], [0], status_tracker=events)
        told: Iterator[str] = (line.split(" @")[0] for line in events.of(0) if "Service" in line)
        assert list(told) == [
            "start Service 1",
            "retry Service 1",
            "start Service 1",
            "complete Service 1",
        ]


@pytest.mark.parametrize("answered", [False, True], ids=["raised", "of hold_on"])
@pytest.mark.parametrize(
    ("seconds", "lasts"), [(math.inf, None), (math.nan, None), (10**400, None), ("2", 2), (-1, 0)]
)
def test_hold_whose_time_was_set_afterwards(
    seconds: Any, lasts: float | None, answered: bool
) -> None:
    """It counts if it can be waited; otherwise the item fails, and the others go on."""
    later = RetryAfter(1)
    later.seconds = seconds
    failing = [LookupError() if answered else later]

    async def task(value: int) -> int:
        if value == 1 and failing:
            raise failing.pop()
        return value

    async def main() -> tuple[RunResults[Any], float]:
        stage = Stage("A", 1, [task], task_attempts=1, hold_on={LookupError: lambda _: later})
        return await Pipeline([stage]).run(range(3)), now()

    results, ended = run_virtual(main)
    assert len(results) == (2 if lasts is None else 3)
    assert ended == (lasts or 0)
    assert all("must be a finite number of seconds" in str(each.error) for each in results.failed)
