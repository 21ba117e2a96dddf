"""Batches: what closes one, what becomes of its items, and that no item takes another down."""

from __future__ import annotations

import asyncio
import threading
from collections import UserString, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from antflow import (
    Drop,
    Limit,
    Pipeline,
    RetryAfter,
    RunResults,
    Stage,
    StatusEvent,
    StatusTracker,
    TooManyFailures,
    current_batch,
)
from antflow.exceptions import TaskFailedError
from antflow.testing import cancel_at_every_step, record_events, run_virtual
from tests.support import now

Values = list[Any]

VARIABLE: ContextVar[Any] = ContextVar("VARIABLE", default=None)


class Batches:
    """A task for batches that notes when it was called, and with what.

    Args:
        answer: Makes one answer from one value, or raises for the whole batch.
        seconds: How long a call takes.
    """

    def __init__(self, answer: Callable[[Any], Any] = lambda value: value, seconds: float = 0.0):
        self.answer = answer
        self.seconds = seconds
        self.made: list[tuple[float, Values]] = []

    async def __call__(self, values: Values) -> Values:
        """Note the call, take the time, answer."""
        self.made.append((now(), list(values)))
        await asyncio.sleep(self.seconds)
        return [self.answer(value) for value in values]

    @property
    def sizes(self) -> list[int]:
        """How large the batches were, in the order of the calls."""
        return [len(values) for _, values in self.made]


def run(stages: list[Stage], items: Any, **options: Any) -> RunResults[Any]:
    """Run items through stages in virtual time."""

    async def main() -> RunResults[Any]:
        return await Pipeline(stages).run(items, **options)

    return run_virtual(main, max_time=10_000.0)


def errors(results: RunResults[Any]) -> dict[Any, str]:
    """Item id → name of the class of its error."""
    return {result.id: type(result.error).__name__ for result in results.failed}


def refuse_bad(value: Any) -> Any:
    """Raise for "bad", return everything else."""
    if value == "bad":
        raise ValueError(value)
    return value


def alone_only(values: Values) -> Values:
    """Refuse every batch, and no single item."""
    if len(values) > 1:
        raise ValueError
    return values


# -- what closes a batch --------------------------------------------------------------------------


def test_size_closes_a_batch() -> None:
    """Ten items, batches of four: no call has more than four values, and all are answered."""
    task = Batches()
    results = run([Stage("A", 1, [task], batch=4)], range(10))
    assert results.values() == list(range(10))
    assert max(task.sizes) == 4
    assert sum(task.sizes) == 10


def test_age_closes_a_batch_counted_from_its_first_item() -> None:
    """An item a second, a batch waits 2.5 s: it has what came in that time, not a moment more."""
    task = Batches()

    async def source() -> AsyncIterator[int]:
        for item in range(6):
            yield item
            await asyncio.sleep(1)

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task], batch=100, batch_wait=2.5)]).run(source())

    run_virtual(main)
    assert task.made[0] == (2.5, [0, 1, 2])
    assert task.made[1][0] == pytest.approx(5.5)


def test_without_age_a_batch_takes_what_is_there() -> None:
    """``batch_wait=None``: the first item of a slow source is not kept waiting."""
    task = Batches()

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            yield item
            await asyncio.sleep(1)

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task], batch=100)]).run(source())

    run_virtual(main)
    assert task.made == [(0, [0]), (1, [1]), (2, [2])]


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_last_batch_does_not_wait_for_its_age(seed: int | None) -> None:
    """The input has ended and nothing more can come: the rest is tried at once, in any schedule."""

    async def main() -> float:
        task = Batches()
        stages = [Stage("A", 2, [task], batch=4, batch_wait=500)]
        await Pipeline(stages).run(range(6))
        assert sorted(task.sizes) == [2, 4]
        return now()

    assert run_virtual(main, seed=seed) == 0


@pytest.mark.parametrize("ending", ["dropped", "failed", "passes on", "expanded"])
def test_last_batch_does_not_wait_when_the_stage_before_is_empty(ending: str) -> None:
    """However the last item of the stage before ends: nothing can come, nothing is waited for."""

    async def before(value: int) -> Any:
        await asyncio.sleep(value)
        if value == 3 and ending == "dropped":
            return Drop
        if value == 3 and ending == "failed":
            raise ValueError
        return [value] if ending == "expanded" else value

    task = Batches()

    async def main() -> float:
        first = Stage("A", 4, [before], task_attempts=1, expand=ending == "expanded")
        await Pipeline([first, Stage("B", 1, [task], batch=10, batch_wait=500)]).run([1, 2, 3])
        return now()

    assert run_virtual(main) == 3


def test_last_batch_does_not_wait_for_items_that_have_gone_on() -> None:
    """The others have left for a slow stage: the last one of this stage is tried at once."""
    task = Batches(seconds=1)

    async def main() -> None:
        async def slow(value: Any) -> Any:
            await asyncio.sleep(50)
            return value

        stages = [Stage("A", 2, [task], batch=2, batch_wait=500), Stage("B", 1, [slow])]
        await Pipeline(stages).run(range(3))

    run_virtual(main)
    assert task.made == [(0, [0, 1]), (1, [2])]


def test_batch_waits_while_an_item_of_its_stage_may_come_back() -> None:
    """A failed item waits for its next try: it may still join those that are gathered."""
    task = Batches()
    failed: list[int] = []

    async def once(values: Values) -> Values:
        answers: Values = await task(values)
        if not failed:
            failed.append(1)
            return [ValueError(), *answers[1:]]
        return answers

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            yield 0
            await asyncio.sleep(1)
            yield 1

        stage = Stage("A", 1, [once], batch=2, batch_wait=5, task_wait_seconds=8, task_attempts=3)
        await Pipeline([stage]).run(source())

    run_virtual(main)
    assert task.made == [(1, [0, 1]), (9, [0])]


def test_one_worker_gathers_at_a_time() -> None:
    """Few items and several idle workers make one batch, not one for each worker."""
    task = Batches(seconds=1)

    async def main() -> None:
        async with Pipeline([Stage("A", 2, [task], batch=3, batch_wait=50)]).open() as run:
            await run.feed(range(6))
            for item in range(6, 12):
                await asyncio.sleep(5)
                await run.feed([item])

    run_virtual(main)
    assert task.made[2:] == [(15, [6, 7, 8]), (30, [9, 10, 11])]


def test_batches_of_several_workers_run_side_by_side() -> None:
    """Four batches of 1 s on two workers: 2 s."""

    async def main() -> float:
        await Pipeline([Stage("A", 2, [Batches(seconds=1)], batch=5)]).run(range(20))
        return now()

    assert run_virtual(main) == 2


# -- one answer for each item ---------------------------------------------------------------------


def test_each_item_has_an_answer_of_its_own() -> None:
    """Values, exceptions and `Drop` in one list: each item ends as its own answer says."""

    async def task(values: Values) -> Values:
        return [{0: ValueError("no"), 1: Drop, 2: Drop()}.get(value, value * 2) for value in values]

    results = run([Stage("A", 1, [task], batch=10, task_attempts=1)], range(5))
    assert results.values() == [6, 8]
    assert errors(results) == {0: "ValueError"}
    assert [outcome.outcome for outcome in results.outcomes] == [
        "failed",
        "dropped",
        "dropped",
        "completed",
        "completed",
    ]
    assert results.stats.stage_stats["A"].dropped_items == 2


def test_only_the_items_that_failed_are_tried_again() -> None:
    """One of three fails once: the second call has that one alone."""
    task = Batches()
    tries: list[int] = []

    async def one_fails(values: Values) -> Values:
        answers = await task(values)
        tries.append(1)
        return [ValueError() if value == 1 and len(tries) < 2 else value for value in answers]

    results = run([Stage("A", 1, [one_fails], batch=3, task_wait_seconds=2)], range(3))
    assert results.values() == [0, 1, 2]
    assert [values for _, values in task.made] == [[0, 1, 2], [1]]
    assert [result.attempts for result in results] == [1, 2, 1]


@pytest.mark.parametrize("answers", [[1], [1, 2, 3], 7, "ab", None, {1: 1, 2: 2}])
def test_wrong_number_of_answers_is_a_failure_that_says_so(answers: Any) -> None:
    """What is no list of as many answers fails the items with a message that has the numbers."""

    async def task(values: Values) -> Any:
        return answers if len(values) == 2 else [*values, None]

    results = run([Stage("A", 1, [task], batch=2, task_attempts=1)], range(2))
    assert len(results.failed) == 2
    assert "for 1 value" in str(results.failed[0].error)


@pytest.mark.parametrize("kind", [str, bytes, bytearray, memoryview, UserString])
def test_string_is_not_a_list_of_answers(kind: Any) -> None:
    """Even with as many characters as the batch has values."""

    async def task(values: Values) -> Any:
        data = "ab" if issubclass(kind, (str, UserString)) else b"ab"
        return kind(data)[: len(values)]

    results = run([Stage("A", 1, [task], batch=2, task_attempts=1)], range(2))
    assert errors(results) == {0: "TypeError", 1: "TypeError"}
    assert "must be a list with one answer" in str(results.failed[0].error)


class Series:
    """Like an array of NumPy or a series of pandas: it has a length, and is no `Sequence`."""

    shape = (2,)

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts)

    def __eq__(self, other: object) -> Any:  # one answer for each part, as arrays have it
        return [part == other for part in self._parts]

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


class Frame(Series):
    """Like a data frame: it iterates over its columns."""

    columns = ("a", "b")


def test_batch_may_return_an_array() -> None:
    """Answers in an array, a series or a deque are taken as a list."""
    for answers in (Series("a", "b"), deque("ab"), ("a", "b"), {1: "a", 2: "b"}.values()):
        results = run([Stage("A", 1, [lambda _, a=answers: a], batch=2)], range(2))
        assert results.values() == ["a", "b"]
    few = run([Stage("A", 1, [lambda _: Series(Series(1), Series(2))], batch=2)], range(2))
    assert [list(value) for value in few.values()] == [[1], [2]]  # rows of an array of two axes


@pytest.mark.parametrize("answers", [Frame("a", "b"), {"a", "b"}, {"a": 1, "b": 2}, iter("ab"), 2])
def test_batch_may_not_return_what_has_no_order_or_no_length(answers: Any) -> None:
    """A set, a dict, a data frame, a generator: which value belongs to which item?"""
    stage = Stage("A", 1, [lambda _: answers], batch=2, task_attempts=1)
    failed = run([stage], range(2)).failed
    assert len(failed) == 2
    assert "must be a list with one answer" in str(failed[0].error)


def test_cancelled_error_among_the_answers_is_a_failure() -> None:
    """`asyncio.gather(..., return_exceptions=True)` may give one: no value goes on."""

    async def task(values: Values) -> Values:
        return [asyncio.CancelledError() for _ in values]

    results = run([Stage("A", 1, [task], batch=2, task_attempts=1)], range(2))
    assert [type(result.error) for result in results.failed] == [TaskFailedError, TaskFailedError]


def test_batch_that_is_dropped_as_a_whole_is_called_once() -> None:
    """``raise Drop`` in a batch drops all of it, on the last attempt too."""
    task = Batches(seconds=1)

    async def drop(values: Values) -> Values:
        await task(values)
        raise Drop

    results = run([Stage("A", 1, [drop], batch=3, task_attempts=1)], range(3))
    assert results.stats.items_dropped == 3
    assert task.sizes == [3]


# -- poison ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_poison_item_takes_no_other_down(attempts: int, retry: str) -> None:
    """One item makes every batch raise: it alone fails, after all its tries, the last one alone."""
    task = Batches(refuse_bad)
    stage = Stage(
        "A", 1, [task], retry, attempts, 0.0, stage_attempts=attempts, batch=4, batch_wait=1
    )
    items = ["a", "bad", "c", "d"]
    results = run([stage], items)
    assert results.values() == ["a", "c", "d"]
    assert errors(results) == {1: "ValueError"}
    assert results.failed[0].attempts == max(attempts, 2)


def test_poison_item_takes_no_other_down_in_a_later_task() -> None:
    """The second task raises: the others go on from there, and the first is not called again."""
    first, second = Batches(lambda value: value), Batches(refuse_bad)
    stage = Stage("A", 1, [first, second], "per_task", 2, 0.0, batch=3, batch_wait=1)
    results = run([stage], ["a", "bad", "c"])
    assert results.values() == ["a", "c"]
    assert errors(results) == {1: "ValueError"}
    assert [values for _, values in first.made] == [["a", "bad", "c"]]


@pytest.mark.parametrize("attempts", [1, 2])
def test_answer_of_an_earlier_task_stands_when_a_later_one_raises(attempts: int) -> None:
    """The first task dropped one item and failed another: the later task's error is not theirs."""

    async def first(values: Values) -> Values:
        return [{"drop": Drop, "fail": KeyError("own")}.get(value, value) for value in values]

    async def second(values: Values) -> Values:
        raise ValueError("not theirs")

    stage = Stage("A", 1, [first, second], "per_task", attempts, 0.0, batch=4, batch_wait=1)
    recorded = record_events()

    async def main() -> RunResults[Any]:
        return await Pipeline([stage], status_tracker=recorded).run(["drop", "x", "fail", "y"])

    results = run_virtual(main)
    assert [outcome.outcome for outcome in results.outcomes] == [
        "dropped",
        "failed",
        "failed",
        "failed",
    ]
    assert errors(results) == {1: "ValueError", 2: "KeyError", 3: "ValueError"}
    assert sum("complete" in line for line in recorded.of(0)) == 2, "its task, and the stage: once"


def test_hold_on_that_declines_leaves_the_poison_alone() -> None:
    """``hold_on`` says "no hold" for this error: then it is an ordinary failure of one item."""
    task = Batches(refuse_bad)
    stage = Stage("A", 1, [task], task_attempts=1, batch=3, hold_on={ValueError: lambda _: None})
    results = run([stage], ["a", "bad", "c"])
    assert results.values() == ["a", "c"]


def test_hold_on_that_raises_leaves_the_poison_alone() -> None:
    """A broken ``hold_on`` fails the item whose error it was asked about, and no other."""

    def broken(_: Exception) -> float:
        raise ZeroDivisionError

    task = Batches(refuse_bad)
    stage = Stage("A", 1, [task], task_attempts=1, batch=3, hold_on={ValueError: broken})
    results = run([stage], ["a", "bad", "c"])
    assert results.values() == ["a", "c"]
    assert errors(results) == {1: "ZeroDivisionError"}


def test_current_batch_is_what_the_task_was_called_with() -> None:
    """Also where items are tried alone, or where an earlier task has answered some of them."""
    seen: list[tuple[Values, Values]] = []

    async def first(values: Values) -> Values:
        return [Drop if value == "drop" else value for value in values]

    async def second(values: Values) -> Values:
        seen.append((values, [item.id for item in current_batch()]))
        return [refuse_bad(value) for value in values]

    items = [{"id": value} for value in ("a", "drop", "bad", "d")]
    stage = Stage("A", 1, [first, second], task_attempts=1, batch=4, batch_wait=1)
    run([stage], [{**item, "value": item["id"]} for item in items])
    assert [values for values, _ in seen] == [["a", "bad", "d"], ["a"], ["bad"], ["d"]]
    assert all(values == ids for values, ids in seen)


def test_books_of_a_batch_while_its_items_leave_one_by_one() -> None:
    """The worker has the items that have not left yet; its time counts once for all of them."""
    seen: list[int] = []

    async def main() -> Any:
        def on_success(*_: Any) -> None:
            seen.append(pipeline.get_stats().stage_stats["A"].in_progress_items)

        async def task(values: list[int]) -> list[int]:
            await asyncio.sleep(2)
            return values

        pipeline = Pipeline([Stage("A", 1, [task], batch=3, on_success=on_success)])
        return (await pipeline.run(range(3))).stats.stage_stats["A"]

    stage = run_virtual(main)
    assert seen == [2, 1, 0]
    assert stage.busy_seconds == pytest.approx(2)


def test_items_of_a_batch_begin_together() -> None:
    """With a slow callback for each: history and events say the same time for all of them."""
    told: list[StatusEvent] = []

    async def note(event: StatusEvent) -> None:
        told.append(event)
        await asyncio.sleep(1)

    async def main() -> StatusTracker:
        tracker = StatusTracker(note)
        stage = Stage("A", 1, [Batches()], batch=3, batch_wait=9)
        await Pipeline([stage], status_tracker=tracker).run(range(3))
        return tracker

    tracker = run_virtual(main)
    for number in range(3):
        assert tracker.get_history(number) == [e for e in told if e.item_id == number]


# -- held, late, limited --------------------------------------------------------------------------


def test_held_batch_is_tried_again_as_it_was() -> None:
    """`RetryAfter` of a batch: all of it waits and is tried again, and no try is counted."""
    task = Batches()

    async def limited(values: Values) -> Values:
        await task(values)
        if len(task.made) < 3:
            raise RetryAfter(10)
        return [(value, [item.attempt for item in current_batch()]) for value in values]

    results = run([Stage("A", 1, [limited], task_attempts=1, batch=2, batch_wait=1)], range(2))
    assert results.values() == [(0, [1, 1]), (1, [1, 1])]
    assert task.made == [(0, [0, 1]), (10, [0, 1]), (20, [0, 1])]


def test_item_that_is_held_alone_is_tried_with_a_list() -> None:
    """`RetryAfter` as one item's answer: it is called again with a list, as batches are."""
    task = Batches()

    async def limited(values: Values) -> Values:
        await task(values)
        return [RetryAfter(10) if len(task.made) == 1 and value == 1 else value for value in values]

    results = run([Stage("A", 1, [limited], task_attempts=1, batch=3, batch_wait=1)], range(3))
    assert results.values() == [0, 1, 2]
    assert task.made == [(0, [0, 1, 2]), (10, [1])]


def test_late_item_takes_no_other_down() -> None:
    """One item of the batch is past its time: it fails, the others are tried and come through."""
    task = Batches(seconds=1)

    async def main() -> RunResults[Any]:
        async def source() -> AsyncIterator[int]:
            yield 0
            await asyncio.sleep(4)
            yield 1

        stage = Stage("A", 1, [task], task_attempts=1, batch=2, batch_wait=30)
        return await Pipeline([stage]).run(source(), item_timeout=3)

    results = run_virtual(main)
    assert results.values() == [1]
    assert errors(results) == {0: "TimeoutError"}


def test_limit_costs_once_for_a_batch() -> None:
    """A rate of one batch per 10 s: three batches begin at 0, 10 and 20 s."""
    task = Batches()
    run([Stage("A", 3, [task], batch=2, limits=[Limit(rate=1, period=10)])], range(6))
    assert [when for when, _ in task.made] == pytest.approx([0, 10, 20])


def test_timeout_of_a_batch_in_threads_keeps_its_slot() -> None:
    """A plain function outlives its timeout: nothing is tried one by one before it has ended."""
    running: list[int] = []
    most: list[int] = []
    over = threading.Event()

    def task(values: Values) -> Values:
        running.append(1)
        most.append(len(running))
        if len(values) > 1:
            over.wait(0.15)
        running.pop()
        return values

    async def main() -> RunResults[Any]:
        stage = Stage("A", 1, [task], task_attempts=1, timeout=0.03, batch=3, batch_wait=1)
        return await Pipeline([stage]).run(range(3))

    results = asyncio.run(main())
    assert results.values() == [0, 1, 2]
    assert max(most) == 1


@pytest.mark.parametrize("late", [[0], [0, 1]])
def test_item_tried_alone_in_a_thread_takes_no_time_of_the_next(late: Values) -> None:
    """A function that outlives its timeout: what is tried next waits for it first."""
    over = threading.Event()

    def task(values: Values) -> Values:
        if values == late:
            over.wait(0.15)
        return alone_only(values)

    async def main() -> RunResults[Any]:
        stage = Stage("A", 1, [task], task_attempts=1, timeout=0.05, batch=2, batch_wait=1)
        return await Pipeline([stage]).run(range(2))

    results = asyncio.run(main())
    assert results.values() == ([1] if late == [0] else [0, 1])
    assert set(errors(results).values()) == ({"TimeoutError"} if late == [0] else set())


# -- passing by, pausing, leaving -----------------------------------------------------------------


def test_items_that_pass_by_are_in_no_batch() -> None:
    """``skip_if``: what passes by is not among the values, and does not count."""
    task = Batches()
    stage = Stage("A", 1, [task], batch=3, batch_wait=1, skip_if=lambda value: value % 2 == 0)
    results = run([stage], range(6))
    assert results.values() == list(range(6))
    assert [values for _, values in task.made] == [[1, 3, 5]]


def test_gathered_items_do_not_begin_while_paused() -> None:
    """Paused while a batch is being gathered: it is not begun before the run goes on."""
    task = Batches()

    async def main() -> None:
        async with Pipeline([Stage("A", 2, [task], batch=10, batch_wait=5)]).open() as run:
            await run.feed(range(3))
            await asyncio.sleep(1)
            run.pause()
            await asyncio.sleep(100)
            await run.feed(range(2))
            await asyncio.sleep(100)
            assert task.made == []
            assert run.stats().queue_sizes == {"A": 5}
            run.resume()

    run_virtual(main)
    assert [values for _, values in task.made] == [[0, 1, 2, 0, 1]]


def test_items_that_are_to_be_tried_alone_do_not_begin_while_paused() -> None:
    """One worker has several items for their last try, one by one: paused, the next waits."""
    made: list[tuple[float, Values]] = []

    async def task(values: Values) -> Values:
        made.append((now(), values))
        await asyncio.sleep(1)
        if len(made) == 1:
            raise ValueError
        return values

    async def main() -> None:
        stage = Stage("A", 1, [task], "per_task", 2, 0.0, batch=3, batch_wait=1)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(3))
            await asyncio.sleep(1.5)
            run.pause()
            await asyncio.sleep(10)
            run.resume()

    run_virtual(main)
    assert [when for when, _ in made] == [0, 1, 11.5, 12.5]


def test_rest_of_a_failed_batch_does_not_begin_while_paused() -> None:
    """A batch that has failed for good is tried one by one: paused, the next waits."""
    made: list[float] = []

    async def task(values: Values) -> Values:
        made.append(now())
        await asyncio.sleep(1)
        if len(values) > 1:
            raise ValueError
        return values

    async def main() -> None:
        stage = Stage("A", 1, [task], task_attempts=1, batch=3)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(3))
            await asyncio.sleep(1.5)
            run.pause()
            await asyncio.sleep(10)
            run.resume()
        assert run.results.values() == [0, 1, 2]

    run_virtual(main)
    assert made == [0, 1, 11.5, 12.5]


@pytest.mark.parametrize("ending", ["max_failures", "shutdown"])
def test_items_that_are_to_be_tried_alone_do_not_begin_in_a_stopped_run(ending: str) -> None:
    """One worker has several items for their last try, one by one: the others are cancelled."""
    made: list[Values] = []

    async def task(values: Values) -> Values:
        made.append(values)
        await asyncio.sleep(1)
        raise ValueError

    async def main() -> RunResults[Any]:
        stage = Stage("A", 1, [task], "per_task", 2, 0.0, batch=3, batch_wait=1)
        pipeline = Pipeline([stage])
        if ending == "max_failures":
            with pytest.raises(TooManyFailures):
                await pipeline.run(range(3), max_failures=1)
        else:
            async with pipeline.open() as run:
                await run.feed(range(3))
                await asyncio.sleep(1.5)
                await run.shutdown()
        return pipeline.results

    results = run_virtual(main)
    assert made == [[0, 1, 2], [0]]
    assert (len(results.failed), len(results.cancelled)) == (1, 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_max_failures_counts_items_that_are_tried_alone_one_by_one(workers: int) -> None:
    """After a batch has failed, ``max_failures`` ends the run at the second item that fails."""
    made: list[int] = []

    async def task(values: Values) -> Values:
        made.append(len(values))
        await asyncio.sleep(1)
        raise ValueError

    async def main() -> RunResults[Any]:
        stage = Stage("A", workers, [task], task_attempts=1, batch=100, queue_capacity=300)
        pipeline = Pipeline([stage])
        with pytest.raises(TooManyFailures):
            await pipeline.run(range(1000), max_failures=2)
        return pipeline.results

    results = run_virtual(main)
    if workers == 1:
        assert made == [100, 1, 1]
        assert len(results.failed) == 2
    else:  # tries that have begun end
        assert made == [100] * 3 + [1] * 3
        assert len(results.failed) == 3
    assert len(results.cancelled) == results.stats.items_accepted - len(results.failed)


@pytest.mark.parametrize("ending", ["shutdown", "cancel"])
@pytest.mark.parametrize("paused", [True, False])
def test_item_that_was_tried_alone_keeps_its_result_when_the_run_is_stopped(
    ending: str, paused: bool
) -> None:
    """Items whose try is over are completed; only the others of the batch are cancelled."""

    async def task(values: Values) -> Values:
        await asyncio.sleep(1)
        return alone_only(values)

    async def main() -> RunResults[Any]:
        async with Pipeline([Stage("A", 1, [task], task_attempts=1, batch=4)]).open() as run:
            await run.feed(range(4))
            await asyncio.sleep(2.5)  # one is done, one is tried
            if paused:
                run.pause()
                await asyncio.sleep(10)
            if ending == "shutdown":
                await run.shutdown()
            else:
                run.cancel()
        return run.results

    results = run_virtual(main)
    done = [0] if ending == "cancel" and not paused else [0, 1]
    assert results.values() == done
    assert len(results.cancelled) == 4 - len(done)
    assert not results.failed


def test_items_of_a_batch_that_is_through_are_completed_when_the_run_is_cancelled() -> None:
    """The run is cancelled while the first of them is handed over: the others are done as well."""
    passed: list[Any] = []

    async def slow(item_id: Any, *_: Any) -> None:
        passed.append(item_id)
        await asyncio.sleep(5)

    def odd_ones(value: int) -> Any:
        return Drop if value == 2 else ValueError(value) if value == 3 else value

    async def main() -> RunResults[Any]:
        task = Batches(odd_ones)
        stage = Stage("A", 1, [task], task_attempts=1, on_success=slow, batch=4)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(4))
            await asyncio.sleep(1)
            run.cancel()
        return run.results

    results = run_virtual(main)
    assert passed == [0]
    outcomes = [result.outcome for result in results.outcomes]
    assert outcomes == ["completed", "completed", "dropped", "failed"]


def test_answer_of_an_earlier_task_stands_when_the_run_is_cancelled() -> None:
    """Cancelled in the second task: what the first one has dropped is dropped."""

    async def second(values: Values) -> Values:
        await asyncio.sleep(5)
        return values

    async def main() -> RunResults[Any]:
        first = Batches(lambda value: Drop if value == 0 else value)
        async with Pipeline([Stage("A", 1, [first, second], batch=2)]).open() as run:
            await run.feed(range(2))
            await asyncio.sleep(1)
            run.cancel()
        return run.results

    results = run_virtual(main)
    assert [result.outcome for result in results.outcomes] == ["dropped", "cancelled"]


def test_callbacks_of_an_item_tried_alone_see_its_context() -> None:
    """``on_success`` sees the context variables that the item's own try has set, and no others."""
    seen: list[Any] = []

    async def task(values: Values) -> Values:
        alone_only(values)
        VARIABLE.set(values[0])
        return values

    stage = Stage(
        "A",
        1,
        [task],
        task_attempts=1,
        batch=2,
        on_success=lambda item_id, *_: seen.append((item_id, VARIABLE.get())),
    )
    run([stage], range(2))
    assert seen == [(0, 0), (1, 1)]


def test_worker_that_leaves_puts_back_what_it_gathered() -> None:
    """Fewer workers while one gathers: it leaves at once, another one has its items."""
    made: list[Values] = []

    async def task(values: Values) -> Values:
        made.append(values)
        await asyncio.sleep(3 if 0 in values else 1)
        return values

    async def main() -> float:
        async with Pipeline([Stage("A", 2, [task], batch=2, batch_wait=100)]).open() as run:
            await run.feed(range(5))  # the second worker, which is done first, gathers the last one
            await asyncio.sleep(2)
            run.set_workers("A", 1)
            await asyncio.sleep(0.1)
            assert not [t for t in asyncio.all_tasks() if t.get_name().endswith("A-W1")]
            await run.feed([5])
        return now()

    assert run_virtual(main) == 4
    assert made == [[0, 1], [2, 3], [4, 5]]


def test_batches_cancelled_at_every_step_lose_nothing() -> None:
    """Cancelled before any step: each item has an outcome, and nothing is left behind."""
    pipelines: list[Pipeline] = []

    async def before(value: int) -> int:
        await asyncio.sleep(value / 10)
        return value

    async def slow(_: StatusEvent) -> None:
        await asyncio.sleep(0.01)

    def poison(value: Any) -> Any:
        return refuse_bad("bad" if value == 2 else value)

    async def main() -> None:
        stages = [
            Stage("A", 2, [before], queue_capacity=1),
            Stage("B", 2, [Batches(poison, 0.1)], "per_task", 2, 0.1, batch=3, batch_wait=0.15),
            Stage("C", 1, [before], queue_capacity=1),
        ]
        pipelines.append(Pipeline(stages, status_tracker=StatusTracker(slow)))
        await pipelines[-1].run(range(5))

    def check(step: int) -> None:
        for pipeline in pipelines:  # none: it was cancelled before it began
            stats = pipeline.get_stats()
            assert stats.items_in_flight == 0
            assert len(pipeline.results.outcomes) == stats.items_accepted
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 50


def test_cancelled_while_gathering_gives_the_items_an_outcome() -> None:
    """Items that wait for their batch to fill are settled as cancelled, and the books balance."""

    async def main() -> Any:
        async with Pipeline([Stage("A", 1, [Batches()], batch=9, batch_wait=99)]).open() as run:
            await run.feed(range(4))
            await asyncio.sleep(1)
            run.cancel()
        return run.stats()

    stats = run_virtual(main)
    assert (stats.items_cancelled, stats.items_in_flight) == (4, 0)


def test_coroutine_as_an_answer_fails_its_item() -> None:
    """A forgotten ``await`` is named, as in a stage without batches; it is no result."""

    async def double(value: int) -> int:
        return 2 * value

    async def task(values: Values) -> Values:
        return [double(value) if value == 1 else await double(value) for value in values]

    stage = Stage("A", 1, [task], batch=3, task_attempts=2)
    results = run_virtual(lambda: Pipeline([stage]).run(range(3)))
    assert results.values() == [0, 4]
    assert str(results.failed[0].error) == "task task returned a coroutine: is an await missing?"
