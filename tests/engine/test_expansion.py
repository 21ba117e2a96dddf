"""One item becomes many: what goes on, in what order, how fast, and what a failure leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter, UserString
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Self

import pytest

from antflow import (
    Drop,
    Limit,
    Pipeline,
    RunHandle,
    RunResults,
    Stage,
    StatusEvent,
    StatusTracker,
    TaskFailedError,
    TooManyFailures,
    current_item,
)
from antflow._core.transition import Kind, State, next_state
from antflow.testing import Calls, MemoryStore, cancel_at_every_step, record_events, run_virtual
from tests.support import Frame, Model, Pets, fold, now, same


def run(stages: list[Stage], items: Any, **options: Any) -> RunResults[Any]:
    """Run items through stages in virtual time."""

    async def main() -> RunResults[Any]:
        return await Pipeline(stages).run(items, **options)

    return run_virtual(main, max_time=10_000.0)


async def a_list(value: int) -> list[int]:
    """Three values, all at once."""
    return [value * 10 + n for n in range(3)]


def plain_list(value: int) -> list[int]:
    """Three values, made in a thread."""
    return [value * 10 + n for n in range(3)]


def generator(value: int) -> Iterator[int]:
    """Three values, one at a time, made in a thread."""
    for n in range(3):
        yield value * 10 + n


async def async_generator(value: int) -> AsyncIterator[int]:
    """Three values, one each second."""
    for n in range(3):
        await asyncio.sleep(1)
        yield value * 10 + n


async def returns_a_generator(value: int) -> Iterator[int]:
    """Three values in a generator that was only made here."""
    return generator(value)


def returns_an_async_generator(value: int) -> AsyncIterator[int]:
    """Three values in an async generator, made in a thread."""
    return async_generator(value)


KINDS = [
    a_list,
    plain_list,
    generator,
    async_generator,
    returns_a_generator,
    returns_an_async_generator,
]


# -- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("task", KINDS)
def test_every_value_goes_on_as_an_item_of_its_own(task: Any, is_last: bool) -> None:
    """Whatever the task is and returns: each value comes out, named after its parent, in order."""
    stages = [Stage("Split", 2, [task], expand=True)]
    if not is_last:
        stages.append(Stage("Next", 2, [Calls()]))
    results = run(stages, [{"id": "a", "value": 1, "colour": "red"}, {"id": "b", "value": 2}])
    assert [(result.id, result.value) for result in results] == [
        ("a/0", 10),
        ("a/1", 11),
        ("a/2", 12),
        ("b/0", 20),
        ("b/1", 21),
        ("b/2", 22),
    ]
    assert results[0].metadata == {"colour": "red"}
    assert results[0].input == {"id": "a", "value": 1, "colour": "red"}
    assert [outcome.outcome for outcome in results.outcomes] == ["expanded", "expanded"]
    stats = results.stats
    assert (stats.items_accepted, stats.items_children, stats.items_expanded) == (2, 6, 2)
    assert (stats.items_processed, stats.items_in_flight) == (6, 0)


def test_nothing_is_made_of_an_item_that_has_nothing_in_it() -> None:
    """An empty list: the item is expanded, into none."""

    async def nothing(_: int) -> list[int]:
        return []

    results = run([Stage("Split", 1, [nothing], expand=True)], range(2))
    assert (list(results), results.stats.items_expanded) == ([], 2)


@pytest.mark.parametrize("answer", [Drop, Drop()])
def test_drop_instead_of_values_drops_the_item(answer: Any) -> None:
    """``return Drop`` means the same in a stage that expands."""

    async def drop(_: int) -> Any:
        return answer

    results = run([Stage("Split", 1, [drop], expand=True, task_attempts=1)], range(2))
    assert (results.stats.items_dropped, results.failed) == (2, [])


def test_drop_among_the_values_leaves_that_one_out() -> None:
    """Where a value is `Drop` no item is made; the others keep their numbers."""

    async def some(value: int) -> list[Any]:
        return [value, Drop, value + 2, Drop()]

    results = run([Stage("Split", 1, [some], expand=True)], [5])
    assert [(result.id, result.value) for result in results] == [("0/0", 5), ("0/2", 7)]
    assert results.stats.items_children == 2


@pytest.mark.parametrize(
    "answer",
    [
        *[7, None, "text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes")],
        *[UserString("text"), {"a": 1}, Model(), Frame()],
    ],
)
def test_what_cannot_be_taken_apart_is_a_failure_that_says_so(answer: Any) -> None:
    """No iterable, a string, mapping, model or table: the item fails; the message has the value."""

    async def task(_: int) -> Any:
        return answer

    results = run([Stage("Split", 1, [task], expand=True, task_attempts=1)], [0])
    assert isinstance(results.failed[0].error, TypeError)
    assert repr(answer) in str(results.failed[0].error)


def test_model_that_is_a_collection_is_taken_apart() -> None:
    """A model of pydantic that has its own ``__iter__`` gives items, to a run and to a stage."""

    async def task(_: int) -> Any:
        return Pets()

    assert run([Stage("Split", 1, [task], expand=True)], [0]).values() == ["cat", "dog"]
    assert run([Stage("Keep", 1, [same])], Pets()).values() == ["cat", "dog"]


def test_items_made_from_items_are_made_apart_again() -> None:
    """Two stages that expand: names grow, and the order is that of the input."""
    stages = [
        Stage("Pages", 2, [a_list], expand=True),
        Stage("Lines", 3, [async_generator], expand=True),
    ]
    results = run(stages, range(2))
    assert [result.id for result in results] == [
        f"{item}/{page}/{line}" for item in range(2) for page in range(3) for line in range(3)
    ]
    assert results.stats.items_expanded == 2 + 6


def test_name_that_is_taken_is_given_with_a_number() -> None:
    """An item of the input has the name that a made one would get: both keep apart."""
    results = run(
        [Stage("Split", 1, [a_list], expand=True)], [{"id": "a/0", "value": 1}, {"id": "a"}]
    )
    assert len({outcome.id for outcome in (*results, *results.outcomes)}) == len(results) + 2


@pytest.mark.parametrize("own_id", ["0/1", UserString("0/1")])
def test_id_that_was_made_from_a_running_number_is_taken(own_id: Any) -> None:
    """An item that comes later with such an id of its own, or an equal one, is renamed."""

    async def main() -> list[Any]:
        stages = [Stage("Split", 1, [a_list], expand=True), Stage("Next", 1, [Calls()])]
        async with Pipeline(stages).open() as handle:
            await handle.feed([7])
            await asyncio.sleep(1)
            await handle.feed([{"id": own_id, "value": 8}])
            await handle.feed([9])
        results = handle.results
        assert [outcome.id for outcome in results.outcomes] == [0, "0/1#2", 2]
        return [result.id for result in results]

    made = [f"{parent}/{number}" for parent in ("0", "0/1#2", "2") for number in range(3)]
    assert run_virtual(main) == made


def test_idempotency_keys_of_siblings_differ() -> None:
    """Items made from one item share its place in the input, not their keys."""
    keys: list[str] = []

    async def note(value: int) -> int:
        keys.append(current_item().idempotency_key)
        return value

    run([Stage("Split", 1, [a_list], expand=True), Stage("Next", 1, [note])], range(3))
    assert len(set(keys)) == 9


def test_earlier_tasks_of_an_expanding_stage_return_values() -> None:
    """Only the last task's answer is taken apart."""

    async def double(value: int) -> int:
        return value * 2

    results = run([Stage("Split", 1, [double, a_list], expand=True)], [1])
    assert results.values() == [20, 21, 22]


# -- streaming and backpressure -------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
def test_endless_generator_is_held_back(is_async: bool) -> None:
    """The next stage takes one a second: what is made beyond that is a few, not thousands."""
    made: Counter[str] = Counter()

    async def endless_async(_: int) -> AsyncIterator[int]:
        while True:
            made["values"] += 1
            yield 0

    def endless(_: int) -> Iterator[int]:
        while True:
            made["values"] += 1
            yield 0

    async def main() -> None:
        task = endless_async if is_async else endless
        stages = [
            Stage("Split", 1, [task], expand=True),
            Stage("Slow", 1, [Calls(seconds=1)], queue_capacity=2),
        ]
        async with Pipeline(stages).open() as run:
            await run.feed([0])
            await asyncio.sleep(10)
            assert run.stats().items_children <= 10 + 1 + 2 + 1
            run.cancel()

    run_virtual(main)
    # A generator in a thread is asked for up to a hundred at a time.
    assert made["values"] <= (14 if is_async else 200)


# -- called off -----------------------------------------------------------------------------------


class Numbers:
    """The numbers from 0 on, without end, as an iterable of every kind.

    Attributes:
        is_closed: Whether the iterable was closed.
        made: How many numbers were made.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self.made = 0

    def plain(self, _: Any) -> Iterator[int]:
        """In a thread, or in the loop."""
        try:
            while self.made < 100_000:
                self.made += 1
                yield self.made - 1
        finally:
            self.is_closed = True

    async def awaited(self, _: Any) -> AsyncIterator[int]:
        """One each second."""
        try:
            while self.made < 100_000:
                self.made += 1
                yield self.made - 1
                await asyncio.sleep(1)
        finally:
            self.is_closed = True

    async def stubborn(self, _: Any) -> AsyncIterator[int]:
        """Goes on when it is cancelled."""
        try:
            while self.made < 100_000:
                self.made += 1
                yield self.made - 1
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)
        finally:
            self.is_closed = True

    async def as_a_range(self, _: Any) -> range:
        """Numbers that do not exist before they are asked for."""
        self.is_closed, self.made = True, 99_999
        return range(100_000)


async def shut_down(run: RunHandle[Any]) -> None:
    await run.shutdown()


async def cancel(run: RunHandle[Any]) -> None:
    run.cancel()


async def fail_too_often(run: RunHandle[Any]) -> None:
    await run.feed(["bad"], target_stage="Slow")
    with pytest.raises(TooManyFailures):
        await run.join()


@pytest.mark.fault
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("stop", [shut_down, cancel, fail_too_often])
@pytest.mark.parametrize("kind", ["plain", "inline", "awaited", "stubborn", "as_a_range"])
def test_endless_iterable_is_called_off(kind: str, stop: Any, listens: bool) -> None:
    """Once the run is being stopped, an iterable is closed before its next step, and not lost."""
    numbers = Numbers()

    async def slow(value: Any) -> Any:
        await asyncio.sleep(1)
        if value == "bad":
            raise ValueError
        return value

    async def main() -> None:
        task = getattr(numbers, "plain" if kind == "inline" else kind)
        executor: Any = "inline" if kind == "inline" else "auto"
        stages = [
            Stage("Split", 1, [task], expand=True, executor=executor),
            Stage("Slow", 1, [slow], queue_capacity=3, task_attempts=1),
        ]
        pipeline = Pipeline(stages, status_tracker=record_events() if listens else None)
        try:
            async with pipeline.open(on_failures="ignore", max_failures=1) as run:
                await run.feed(["all"])
                await asyncio.sleep(5.5)
                await stop(run)
        except TooManyFailures:
            assert stop is fail_too_often
        assert numbers.is_closed
        [parent, *_] = run.results.outcomes
        assert parent.outcome == "cancelled"
        stats = run.stats()
        children = [*run.results, *run.results.cancelled]
        children = [each for each in children if each.value not in ("all", "bad")]
        assert sorted(each.value for each in children) == list(range(stats.items_children))
        assert stats.items_children in range(5, 210)

        # The rest is made when the item goes on.
        end = stats.items_children + 3
        stages = [
            Stage("Split", 1, [lambda _: range(end)], expand=True),
            Stage("Slow", 9, [same]),
        ]
        results = await Pipeline(stages).run([], retry_failed=[parent])
        assert results.values() == list(range(stats.items_children, end))

    run_virtual(main, max_time=1_000)


@pytest.mark.fault
def test_step_that_has_begun_when_the_run_is_stopped_makes_its_item() -> None:
    """No value that exists already is lost, be it one of an iterable or a whole list."""

    async def values(_: Any) -> AsyncIterator[str]:
        await asyncio.sleep(2)
        yield "a"
        yield "b"

    async def existing(_: Any) -> list[str]:
        await asyncio.sleep(2)
        return ["a", "b"]

    async def stopped(task: Any) -> tuple[str, list[str]]:
        stages = [Stage("Split", 1, [task], expand=True), Stage("Work", 1, [same])]
        async with Pipeline(stages).open() as run:
            await run.feed(["item"])
            await asyncio.sleep(1)
            await run.shutdown()
        [parent] = run.results.outcomes
        return parent.outcome, [each.value for each in run.results.cancelled if each.id != 0]

    async def main() -> None:
        assert await stopped(values) == ("cancelled", ["a"])
        assert await stopped(existing) == ("expanded", ["a", "b"])

    run_virtual(main)


def test_first_value_is_through_before_the_last_one_is_made() -> None:
    """Values go on while others are still being made."""

    async def main() -> list[float]:
        stages = [Stage("Split", 1, [async_generator], expand=True), Stage("B", 1, [Calls()])]
        return [now() async for _ in Pipeline(stages).stream([0])]

    assert run_virtual(main) == [1, 2, 3]


def test_time_spent_waiting_for_room_is_not_time_of_the_task() -> None:
    """A timeout is for the values; a slow next stage does not make them late."""
    stages = [
        Stage("Split", 1, [a_list], expand=True, timeout=2, task_attempts=1),
        Stage("Slow", 1, [Calls(seconds=5)], queue_capacity=1),
    ]
    results = run(stages, range(3))
    assert len(results) == 9


def test_values_of_a_list_wait_for_room() -> None:
    """Values that exist already go on together, but never more than there is room for."""
    waiting: list[int] = []

    async def thirty(value: int) -> list[int]:
        return list(range(30))

    async def slow(value: int) -> int:
        waiting.append(pipeline.get_stats().stage_stats["Slow"].pending_items)
        await asyncio.sleep(1)
        return value

    split = Stage("Split", 1, [thirty], expand=True)
    pipeline = Pipeline([split, Stage("Slow", 1, [slow], queue_capacity=4)])
    results = run_virtual(lambda: pipeline.run(range(2)))
    assert results.values() == [*range(30)] * 2
    assert max(waiting) == 4


def test_each_value_of_a_list_is_told_of_before_it_goes_on() -> None:
    """A callback that takes its time holds back the one value that it is told of."""
    told: list[tuple[Any, float]] = []
    begun: list[tuple[Any, float]] = []

    async def hear(event: StatusEvent) -> None:
        if event.status == "queued" and event.stage == "Next":
            await asyncio.sleep(1)
            told.append((event.item_id, now()))

    async def following(value: int) -> int:
        begun.append((current_item().id, now()))
        return value

    tracker = StatusTracker(on_status_change=hear)
    stages = [Stage("Split", 1, [a_list], expand=True), Stage("Next", 1, [following])]
    run_virtual(lambda: Pipeline(stages, status_tracker=tracker).run([7]))
    assert told == begun == [("0/0", 1), ("0/1", 2), ("0/2", 3)]


def test_slow_value_is_late() -> None:
    """A value that does not come within the timeout fails the item; what was made stays made."""

    async def stuck(value: int) -> AsyncIterator[int]:
        yield value
        await asyncio.sleep(100)
        yield value

    results = run([Stage("Split", 1, [stuck], expand=True, timeout=3, task_attempts=1)], [0])
    assert (len(results), results.failed[0].id) == (1, 0)
    assert isinstance(results.failed[0].error, TimeoutError)


def test_stages_that_share_a_limit_do_not_wait_for_each_other() -> None:
    """Waiting for room before a stage that needs the slot of a limit that one has: no hang."""
    limit = Limit(concurrency=1)
    stages = [
        Stage("Split", 1, [a_list], expand=True, limits=[limit]),
        Stage("Next", 1, [Calls(seconds=1)], limits=[limit], queue_capacity=1),
    ]
    assert len(run(stages, range(3))) == 9


def test_waiting_for_room_is_not_being_busy() -> None:
    """Seconds of the workers add up: waiting for room within an attempt counts once."""

    async def main() -> Any:
        stages = [
            Stage("Split", 1, [a_list], expand=True),
            Stage("Slow", 1, [Calls(seconds=1)], queue_capacity=1),
        ]
        return (await Pipeline(stages).run([0])).stats.stage_stats["Split"]

    stage = run_virtual(main)
    assert stage.blocked_seconds == pytest.approx(1)
    assert stage.busy_seconds == pytest.approx(0)
    assert stage.starved_seconds == pytest.approx(2)


# -- failures on the way --------------------------------------------------------------------------


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("in_thread", [True, False])
def test_retry_passes_over_what_was_made(retry: str, in_thread: bool) -> None:
    """Fails after two values, then after three, then not: each value goes on exactly once."""
    tries: Counter[int] = Counter()

    def make(value: int) -> Iterator[int]:
        tries[value] += 1
        for n in range(5):
            if n == tries[value] + 1 and tries[value] < 3:
                raise ValueError(n)
            yield value * 10 + n

    async def make_async(value: int) -> AsyncIterator[int]:
        for child in make(value):
            yield child

    task = make if in_thread else make_async
    stages = [
        Stage("Split", 2, [task], retry, 3, 1.0, stage_attempts=3, expand=True),
        Stage("B", 1, [Calls()]),
    ]
    results = run(stages, range(3))
    assert results.values() == [value * 10 + n for value in range(3) for n in range(5)]
    assert tries == {0: 3, 1: 3, 2: 3}
    assert results.stats.items_children == 15


def test_try_that_is_cut_off_while_it_waits_for_room_has_made_its_child() -> None:
    """The time of the item is over while its child waits for room: no later try makes it again."""

    async def four(value: int) -> list[int]:
        return [value + n for n in range(4)]

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        split = Stage("Split", 1, [four], expand=True)
        slow = Stage("Slow", 1, [Calls(seconds=4)], queue_capacity=1, task_attempts=1)
        pipeline = Pipeline([split, slow])
        before = await pipeline.run([{"id": "a", "value": 10}], item_timeout=2)
        [parent] = [outcome for outcome in before.outcomes if outcome.id == "a"]
        return before, await pipeline.run([], retry_failed=[parent])

    before, after = run_virtual(main)
    # One with the worker, one in the queue, one that waits for room; they are late like the parent.
    assert [each.id for each in before.failed] == ["a", "a/0", "a/1", "a/2"]
    assert [(each.id, each.value) for each in after] == [("a/3", 13)]


def test_item_that_fails_for_good_leaves_what_it_made() -> None:
    """No try gets through: the parent has failed, what was made before comes out."""

    async def half(value: int) -> AsyncIterator[int]:
        yield value
        yield value + 1
        raise ValueError

    stages = [Stage("Split", 1, [half], "per_task", 2, 0.0, expand=True), Stage("B", 1, [Calls()])]
    results = run(stages, [5])
    assert results.values() == [5, 6]
    assert [outcome.outcome for outcome in results.outcomes] == ["failed"]
    assert results.stats.items_children == 2


def test_siblings_that_are_due_at_the_same_time_are_both_tried_again() -> None:
    """Items made from one item fail at the same moment, and wait equally long."""

    async def once(value: int) -> int:
        if current_item().attempt == 1:
            raise ValueError
        return value

    stages = [
        Stage("Split", 1, [a_list], expand=True),
        Stage("Next", 3, [once], "per_task", 2, 5.0),
    ]
    assert run(stages, range(3)).values() == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_drop_raised_on_the_way_ends_the_item_well() -> None:
    """A generator that raises `Drop`: what was made stays, the item is dropped and not tried."""
    tries: list[int] = []

    async def task(value: int) -> AsyncIterator[int]:
        tries.append(1)
        yield value
        raise Drop

    results = run([Stage("Split", 1, [task], expand=True)], [5])
    assert results.values() == [5]
    assert [outcome.outcome for outcome in results.outcomes] == ["dropped"]
    assert len(tries) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_generator_is_closed_however_it_ends(kind: str) -> None:
    """Timed out, failed in the middle, cancelled or finished: its ``finally`` has run."""
    opened: list[int] = []
    closed: list[int] = []

    def values(value: int) -> Iterator[int]:
        opened.append(value)
        try:
            yield value
            if value == 1:
                raise ValueError
            while value == 2:
                yield value
            yield value
        finally:
            closed.append(value)

    async def async_values(value: int) -> AsyncIterator[int]:
        opened.append(value)
        try:
            yield value
            if value == 1:
                raise ValueError
            if value == 2:
                await asyncio.sleep(100)
            yield value
        finally:
            closed.append(value)

    def kept_values(value: int) -> Iterator[int]:
        kept.append(values(value))
        return kept[-1]

    kept: list[Iterator[int]] = []  # what nobody refers to any more would close itself

    async def main() -> None:
        task = async_values if kind == "async" else kept_values
        stages = [
            Stage("Split", 4, [task], expand=True, timeout=5, task_attempts=1),
            Stage("Slow", 1, [Calls(seconds=1)], queue_capacity=1),
        ]
        async with Pipeline(stages).open() as run:
            await run.feed(range(6))
            await asyncio.sleep(3.5)
            run.cancel()

    run_virtual(main)
    assert opened
    assert sorted(opened) == sorted(closed)


def test_plain_generator_runs_in_a_thread() -> None:
    """What blocks in a generator does not hold up the event loop."""
    where: list[bool] = []

    def task(value: int) -> Iterator[int]:
        where.append(threading.current_thread() is threading.main_thread())
        yield value

    run([Stage("Split", 1, [task], expand=True)], [0])
    run([Stage("Split", 1, [task], expand=True, executor="inline")], [0])
    assert where == [False, True]


# -- the books ------------------------------------------------------------------------------------


class Split:
    """A task that makes ``value`` items of each, fails in the middle of the first try, and waits.

    Attributes:
        tries: Item → tries so far.
    """

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()

    async def __call__(self, value: int) -> AsyncIterator[int]:
        """Make items."""
        self.tries[value] += 1
        for n in range(value):
            await asyncio.sleep(0.1)
            if n == 1 and self.tries[value] == 1:
                raise ValueError
            yield n


@pytest.mark.parametrize("order", ["run", "ordered stream"])
def test_expansion_cancelled_at_every_step_loses_nothing(order: str) -> None:
    """Cancelled before any step: balanced books, legal transitions, an outcome for each item."""
    made: list[tuple[Pipeline, MemoryStore]] = []

    async def main() -> None:
        store = MemoryStore()
        stages = [
            Stage("A", 2, [Split()], "per_task", 2, 0.05, expand=True),
            Stage("B", 1, [Calls(seconds=0.1)], queue_capacity=1),
        ]
        pipeline = Pipeline(stages, store=store, status_tracker=record_events())
        made.append((pipeline, store))
        if order == "run":
            await pipeline.run(range(4))
        else:
            async with pipeline.stream(range(4), ordered=True, buffer_size=1) as results:
                async for _ in results:
                    pass

    def check(step: int) -> None:
        for pipeline, store in made:
            if pipeline._runs.latest is not None:
                check_books(pipeline, store, 2)
        made.clear()

    assert cancel_at_every_step(main, check) > 50


def check_books(pipeline: Pipeline, store: MemoryStore, stage_count: int) -> None:
    """Check that the transitions are legal and fold to the books of the run, which balance."""
    assert pipeline._runs.latest is not None
    ledger = pipeline._runs.latest._run.ledger
    assert ledger.discrepancy() is None
    assert ledger.in_flight == 0
    states: dict[Any, State] = {}
    for transition in store.transitions:
        key = (transition.seq, transition.branch)
        following = next_state(
            states.get(key, State.NEW),
            transition.kind,
            last_stage=transition.stage == stage_count - 1,
        )
        assert following is not None, transition
        states[key] = following
    assert set(states.values()) <= {State.SETTLED}
    folded = fold(store.transitions, stage_count)
    for name in ("accepted", "children", "completed", "failed", "dropped", "expanded", "cancelled"):
        assert getattr(folded, name) == getattr(ledger, name), name
    emitted = [transition for transition in store.transitions if transition.kind is Kind.EMITTED]
    assert len({(each.seq, each.branch) for each in emitted}) == len(emitted)


@pytest.mark.parametrize("as_a_whole", [False, True])
def test_coroutine_instead_of_a_value_fails_the_item(as_a_whole: bool) -> None:
    """A forgotten ``await`` is named, whether of one value or of all; it is no value."""

    async def double(value: int) -> int:
        return 2 * value

    async def task(value: int) -> Any:
        return double(value) if as_a_whole else [await double(value), double(value)]

    stage = Stage("A", 1, [task], expand=True, task_attempts=2)
    results = run_virtual(lambda: Pipeline([stage]).run([1]))
    assert results.values() == ([] if as_a_whole else [2])
    assert str(results.failed[0].error) == "task task returned a coroutine: is an await missing?"


def test_all_forgotten_coroutines_of_a_list_are_closed(recwarn: pytest.WarningsRecorder) -> None:
    """Python warns about none of them that it was never awaited."""

    async def double(value: int) -> int:
        return 2 * value

    async def task(value: int) -> Any:
        return [value, double(1), double(2), value, double(3)]

    stage = Stage("A", 1, [task], expand=True, task_attempts=1)
    results = run_virtual(lambda: Pipeline([stage]).run([1]))
    assert (results.values(), len(results.failed)) == ([1], 1)
    gc.collect()
    assert not recwarn.list


class Closing:
    """Two values, and a clean-up that fails.

    Args:
        way: "async", "sync": what `aclose` is; "plain": an ordinary iterator, with ``close``.
    """

    def __init__(self, way: str) -> None:
        self.left = [1, 2]
        if way == "async":
            self.aclose = self.fail_async
        elif way == "sync":
            self.aclose = self.fail
        else:
            self.close = self.fail

    def fail(self) -> Any:
        """Fail at once."""
        raise OSError("cannot close")

    async def fail_async(self) -> None:
        """Fail when awaited."""
        raise OSError("cannot close")


class PlainClosing(Closing):
    """The same as an ordinary iterator."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


class AsyncClosing(Closing):
    """The same as an async iterator."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


@pytest.mark.parametrize("way", ["async", "sync", "plain"])
def test_clean_up_that_fails_is_logged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """All values have gone on by then, so it does not cost the item, and nothing is tried again."""

    async def task(value: int) -> Any:
        return (PlainClosing if way == "plain" else AsyncClosing)(way)

    results = run([Stage("A", 1, [task], expand=True, task_attempts=2)], [0])
    assert (results.values(), results.failed, results.stats.items_expanded) == ([1, 2], [], 1)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["the clean-up of an expanded iterable failed"]
    assert "cannot close" in caplog.text


@pytest.mark.parametrize("way", ["async", "plain", "group"])
def test_cancelled_error_of_an_expanded_iterable_is_the_task_s_failure(way: str) -> None:
    """As if the task had raised it: a `TaskFailedError` with the task's name."""

    def values() -> Iterator[int]:
        yield 1
        error = asyncio.CancelledError()
        raise BaseExceptionGroup("both", [error]) if way == "group" else error

    async def async_values() -> AsyncIterator[int]:
        for value in values():
            yield value

    async def task(value: int) -> Any:
        return async_values() if way == "async" else values()

    results = run([Stage("A", 1, [task], expand=True, task_attempts=1)], [0])
    error = results.failed[0].error
    if isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TaskFailedError)
    assert (results.values(), error.task_name) == ([1], "task")
    assert isinstance(error.original_exception, asyncio.CancelledError)


def test_iterator_of_an_object_is_closed_with_the_run() -> None:
    """The iterator that a task's async iterable makes has cleaned up when the run is over."""
    ended: list[str] = []

    class Numbers:
        async def __aiter__(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(1)
                ended.append("closed")

    async def numbers(value: int) -> Numbers:
        return Numbers()

    async def main() -> None:
        slow = Stage("Slow", 1, [asyncio.sleep], queue_capacity=1)
        pipeline = Pipeline([Stage("Many", 1, [numbers], expand=True), slow])
        with pytest.raises(TimeoutError):
            await pipeline.run([1], timeout=10)
        assert ended == ["closed"]

    run_virtual(main)


def test_iterable_is_read_where_plain_functions_run() -> None:
    """An iterable that is no iterator, such as a query, does not block the event loop either."""

    class Query:
        def __iter__(self) -> Iterator[str]:
            threads.add(threading.current_thread().name)
            for number in range(3):
                threads.add(threading.current_thread().name)
                yield f"row {number}"

    def query(value: int) -> Any:
        return Query()

    threads: set[str] = set()
    results = run_virtual(lambda: Pipeline([Stage("Ask", 1, [query], expand=True)]).run([1]))
    assert results.values() == ["row 0", "row 1", "row 2"]
    assert threads == {"antflow-Ask-W0"}
