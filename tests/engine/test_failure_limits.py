"""Stopping at once when going on is hopeless: ``stop_on``, and limits of failures with a window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from antflow import (
    Drop,
    Failures,
    Limit,
    Pipeline,
    PipelineError,
    Retry,
    RetryAfter,
    RunEnd,
    Stage,
    StatusEvent,
    StatusTracker,
    TooManyFailures,
    backoff,
)
from antflow.testing import Calls, cancel_at_every_step, record_events, run_virtual
from tests.engine.programs import Program
from tests.support import SOURCE, now, same

from . import process_tasks as tasks


class AuthError(Exception):
    """The key is not valid any more."""


class RevokedError(AuthError):
    """It was revoked."""


Fail = Callable[[], BaseException]


class Service:
    """A task that takes a second, and whose key is revoked after some calls.

    Args:
        good: How many calls it answers.
        fail: Makes the error of the others.
        odd: Each item that this divides fails in another way.
    """

    def __init__(self, good: int, fail: Fail = lambda: AuthError("401"), odd: int = 0) -> None:
        self.good = good
        self.fail = fail
        self.odd = odd
        self.calls: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        is_good = len(self.calls) <= self.good
        await asyncio.sleep(1)
        if not is_good:
            raise self.fail()
        if self.odd and value % self.odd == 0:
            raise ValueError(f"{value} is odd")
        return value


def stopped(pipeline: Pipeline[Any, Any], items: Any = range(1000), **options: Any) -> Any:
    """Run until there are too many failures; returns that error and how the run ended."""
    ends: list[RunEnd] = []
    pipeline.on_run_end(ends.append)
    with pytest.raises(TooManyFailures) as caught:
        run_virtual(lambda: pipeline.run(items, **options), max_time=100_000.0)
    return caught.value, ends[0]


def keys_of(results: Any) -> list[Any]:
    return [(result.sequence_id, result.branch) for result in results]


# -- stop_on: what stops, and how -----------------------------------------------------------------


def test_first_error_of_stop_on_stops_the_run() -> None:
    """It takes in no more, begins no more, lets running tries end, and says why in one line."""
    service = Service(20)
    pipeline = Pipeline([Stage("Ask", 5, [service], retry=Retry(9, wait=backoff(5)))])
    error, end = stopped(pipeline, stop_on=AuthError)
    assert len(service.calls) == 25  # five at once, of which the first stops all
    results = error.results
    assert results.values() == list(range(20))
    assert [result.attempts for result in results.failed] == [1, 1, 1, 1, 1]
    assert {str(result.error) for result in results.cancelled} == {
        "the run was stopped by AuthError (stop_on) before the item was through"
    }
    assert results.stats.items_accepted == 25 + len(results.cancelled) < 100
    told, _, how = str(error).partition("; ")
    place = results.failed[0].location
    assert told == (
        "stopped by AuthError (stop_on): 1 of 21 items failed in stage 'Ask': "
        f"AuthError at {place}, input 20 in stage Ask after 1 attempt: 401"
    )
    assert how.startswith("to go on, run what was not taken in yet, with retry_failed=")
    assert (end.how, end.error) == ("failed", error)
    assert end.snapshot is not None


def test_good_tries_that_run_when_the_run_stops_keep_their_results() -> None:
    """A slow call that succeeds after another one was refused is a result."""

    async def ask(value: float) -> float:
        await asyncio.sleep(value)
        if value == 1:
            raise AuthError
        return value

    pipeline = Pipeline([Stage("Ask", 3, [ask])])
    error, end = stopped(pipeline, [5, 1, 7, 3, 4], stop_on=AuthError)
    assert error.results.values() == [5, 7]
    assert [each.input for each in error.results.cancelled] == [3, 4]
    assert end.duration == 7


def in_groups() -> BaseException:
    return ExceptionGroup("two", [ValueError(), ExceptionGroup("inside", [RevokedError()])])


def with_a_hold() -> BaseException:
    return ExceptionGroup("two", [RetryAfter(60), AuthError()])


@pytest.mark.parametrize(
    "stop_on",
    [AuthError, (KeyError, AuthError), "AuthError", (KeyError, f"{__name__}.AuthError")],
    ids=["class", "tuple", "name", "name with module"],
)
@pytest.mark.parametrize("fail", [AuthError, RevokedError, in_groups, with_a_hold])
def test_error_of_stop_on_is_found_wherever_it_is(fail: Fail, stop_on: Any) -> None:
    """By class or name, of a derived class, and in a group, whatever else the group asks for."""
    service = Service(3, fail)
    error, _ = stopped(Pipeline([Stage("Ask", 1, [service])]), stop_on=stop_on)
    assert len(service.calls) == 4
    name = "AuthError" if fail in (AuthError, with_a_hold) else "RevokedError"
    assert error.reason == (f"stopped by {name} (stop_on): 1 of 4 items failed in stage 'Ask'")


@pytest.mark.parametrize(
    "options",
    [
        {"retry_on": AuthError, "task_attempts": 50},
        {"retry": "per_stage", "stage_attempts": 50, "stage_wait_seconds": 1.0},
        {"hold_on": {AuthError: 30.0}},
        {"retry": Retry(50, on=AuthError)},
        {"limits": [Limit(rate=1, period=1)]},
        {"batch": 3, "task_attempts": 50},
    ],
    ids=lambda options: ", ".join(options),
)
def test_error_of_stop_on_is_not_tried_again(options: dict[str, Any]) -> None:
    """Whatever the stage says of it: no retry, no hold, and no try of a batch's items alone."""
    calls: list[Any] = []

    async def ask(value: Any) -> Any:
        calls.append(value)
        await asyncio.sleep(1)
        raise AuthError

    error, _ = stopped(Pipeline([Stage("Ask", 1, [ask], stop_on=AuthError, **options)]))
    assert calls == [[0, 1, 2]] if "batch" in options else [0]
    assert error.results.stats.stage_stats["Ask"].retried_items == 0
    assert [each.id for each in error.results.failed] == ([0, 1, 2] if "batch" in options else [0])


def test_answer_of_a_batch_that_is_an_error_of_stop_on_stops_the_run() -> None:
    """The other items of the batch have their results."""

    async def ask(values: list[int]) -> list[Any]:
        return [AuthError() if value == 7 else value for value in values]

    pipeline = Pipeline([Stage("Ask", 1, [ask], batch=4)])
    error, _ = stopped(pipeline, stop_on=AuthError)
    assert error.results.values() == [0, 1, 2, 3, 4, 5, 6]
    assert [each.id for each in error.results.failed] == [7]


def test_stop_on_of_a_stage_is_about_that_stage() -> None:
    """The same error is an ordinary one elsewhere: it is tried again, and costs its item."""
    first = Service(0)
    stages = [
        Stage("Look", 1, [first], task_attempts=2, task_wait_seconds=0.0),
        Stage("Ask", 1, [same], stop_on=AuthError),
    ]
    results = run_virtual(lambda: Pipeline(stages).run([1, 2], on_failures="ignore"))
    assert len(first.calls) == 4
    assert len(results.failed) == 2


def test_items_dropped_and_filtered_do_not_stop_a_run() -> None:
    """`Drop` is not a failure, even for ``stop_on=Exception``."""

    async def drop(value: int) -> int:
        raise Drop

    results = run_virtual(lambda: Pipeline([Stage("A", 1, [drop])]).run([1], stop_on=Exception))
    assert results.stats.items_dropped == 1


def test_other_failures_do_not_stop_a_run() -> None:
    """Errors that are not named cost their items, as ever."""
    service = Service(99, odd=3)
    pipeline = Pipeline([Stage("Ask", 1, [service], task_attempts=1)])
    options: Any = {"stop_on": (AuthError, "KeyError"), "on_failures": "ignore"}
    results = run_virtual(lambda: pipeline.run(range(9), **options))
    assert len(results.failed) == 3


def test_failure_outside_of_a_task_stops_a_run() -> None:
    """An item that cannot be read, or whose ``skip_if`` raises, has failed as well."""

    def refuse(_: Any) -> Any:
        raise AuthError

    by_key = Pipeline([Stage("Ask", 1, [same])])
    error, _ = stopped(by_key, range(50), stop_on=AuthError, key=refuse)
    assert error.reason.startswith("stopped by AuthError (stop_on): 1 of 1 item failed")
    by_skip = Pipeline([Stage("Ask", 1, [same], skip_if=refuse)])
    error, _ = stopped(by_skip, range(50), stop_on=AuthError)
    assert error.results.stats.items_failed == 1


def test_run_stops_before_anything_else_hears_of_the_failure() -> None:
    """While a slow callback and a tracker hear of it, no other worker begins a try."""
    service = Service(1)
    heard: list[float] = []

    async def hear(*_: Any) -> None:
        heard.append(now())
        await asyncio.sleep(20)

    async def hear_failures(event: StatusEvent) -> None:
        if event.metadata.get("error_type") == "AuthError":
            await hear()

    stage = Stage("Ask", 1, [service], on_failure=hear)
    other = Stage("Other", 3, [Calls(seconds=1)])
    tracker = StatusTracker(on_status_change=hear_failures)
    error, end = stopped(Pipeline([other, stage], status_tracker=tracker), stop_on=AuthError)
    assert heard == [3, 23]
    assert len(service.calls) == 2
    # Three items a second, and the three that had begun when the second call was refused.
    assert error.results.stats.stage_stats["Other"].completed_items == 12
    assert end.duration == 43


def test_expanding_item_that_fails_with_stop_on_stops_the_run() -> None:
    """What it has made so far is cancelled where it waits; the iterable is closed."""

    async def pages(value: int) -> AsyncIterator[int]:
        for page in range(10):
            await asyncio.sleep(1)
            if page == 5:
                raise AuthError("401")
            yield page

    service = Calls(seconds=3)
    pipeline = Pipeline([Stage("List", 1, [pages], expand=True), Stage("Ask", 1, [service])])
    error, end = stopped(pipeline, [1, 2, 3], stop_on=AuthError)
    results = error.results
    assert [each.id for each in results.failed] == [0]
    assert sorted(results.values()) == [0, 1]
    assert {each.id for each in results.cancelled} == {"0/2", "0/3", "0/4", 1, 2}
    assert end.to_retry == {(0, ()): 0}


@pytest.mark.process
def test_error_of_a_child_process_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By class where it can be copied, and by name even where a stand-in takes its place."""
    monkeypatch.syspath_prepend(str(SOURCE.parent))
    for stop_on, bad in (
        (tasks.AuthError, tasks.refuse),
        ("AuthError", tasks.refuse),
        ("LocalError", tasks.refuse_with_a_local_class),
    ):
        pipeline = Pipeline([Stage("Ask", 1, [bad], executor="process")])
        with pytest.raises(TooManyFailures, match=r"Error \(stop_on\): 1 of 1 item failed"):
            asyncio.run(pipeline.run(range(100), stop_on=stop_on))
        assert pipeline.get_stats().stage_stats["Ask"].retried_items == 0


# -- In all ways to run ---------------------------------------------------------------------------


async def by_run(pipeline: Pipeline[Any, Any], options: Any) -> None:
    await pipeline.run(range(100), **options)


async def by_stream(pipeline: Pipeline[Any, Any], options: Any, **more: Any) -> None:
    seen: list[Any] = []
    try:
        async for result in pipeline.stream(range(100), **options, **more):
            seen.append(result)
    finally:
        assert [each.value for each in seen if each.is_success] == list(range(6))
        assert [each.outcome for each in seen if not each.is_success] == ["failed", "failed"]


async def by_ordered_stream(pipeline: Pipeline[Any, Any], options: Any) -> None:
    await by_stream(pipeline, options, ordered=True, buffer_size=1)


async def by_open(pipeline: Pipeline[Any, Any], options: Any) -> None:
    async with pipeline.open(**options) as run:
        future = run.submit(50)
        with pytest.raises(PipelineError, match="takes no more items: it was stopped by"):
            await run.feed(range(99))
        assert (await future).value == 50


async def by_start(pipeline: Pipeline[Any, Any], options: Any) -> None:
    await pipeline.start(**options)
    with pytest.raises(PipelineError, match="takes no more items: it was stopped by"):
        await pipeline.feed(range(100))
    await pipeline.join()


async def with_display(pipeline: Pipeline[Any, Any], options: Any) -> None:
    await pipeline.run(range(100), dashboard="log", **options)


@pytest.mark.parametrize(
    "way", [by_run, by_stream, by_ordered_stream, by_open, by_start, with_display]
)
@pytest.mark.parametrize("options", [{"stop_on": AuthError}, {"max_failures": Failures(count=1)}])
def test_every_way_to_run_stops(way: Any, options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The error comes out, with the results, and the books are closed."""
    service = Service(6)
    pipeline = Pipeline([Stage("Ask", 2, [service], task_attempts=1)])
    with pytest.raises(TooManyFailures) as caught:
        run_virtual(lambda: way(pipeline, options))
    assert len(service.calls) == 8
    results = caught.value.results
    assert results is not None
    assert results.stats.items_in_flight == 0
    counts = results.stats
    assert (counts.items_processed, counts.items_failed) == (6, 2)
    assert counts.items_cancelled == counts.items_accepted - 8 > 0
    if way is with_display:
        assert "failed: 2 × AuthError" in capsys.readouterr().err


def test_builder_and_quick_take_both_options() -> None:
    """As options of a stage, of the builder's run, and of ``quick``."""

    async def ask(value: int) -> int:
        raise AuthError

    builder = Pipeline.create().add("Ask", ask, workers=1, stop_on=AuthError)
    for run in (
        lambda: builder.run(range(9)),
        lambda: Pipeline.create().add("Ask", ask).run(range(9), stop_on=AuthError),
        lambda: Pipeline.quick(range(9), ask, workers=1, stop_on=AuthError),
        lambda: Pipeline.quick(range(9), ask, 1, 1, max_failures=Failures(count=1)),
    ):
        with pytest.raises(TooManyFailures, match="1 of "):
            run_virtual(run)


def test_run_whose_source_has_failed_is_stopped_too() -> None:
    """What was taken in is not run any more; the source's error is raised, and says so."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(8):
            yield number
        raise OSError("the disk is gone")

    service = Service(1)
    pipeline = Pipeline([Stage("Ask", 1, [service])])
    with pytest.raises(OSError, match="the disk is gone") as caught:
        run_virtual(lambda: pipeline.run(numbers(), stop_on=AuthError))
    assert len(service.calls) == 2
    assert caught.value.__notes__[0].startswith("then stopped by AuthError (stop_on): 1 of 2 items")
    assert pipeline.get_stats().items_cancelled == 6


@pytest.mark.parametrize("limit", [{"stop_on": AuthError}, {"max_failures": 1}])
def test_callback_that_interrupts_while_the_run_stops_loses_no_item(limit: Any) -> None:
    """Ctrl-C in a callback of an item that waited: the item that failed has its outcome, too."""

    def interrupt(event: StatusEvent) -> None:
        if event.metadata.get("error_type") == "ItemCancelled":
            raise KeyboardInterrupt

    stage = Stage("Ask", 1, [Service(1)], task_attempts=1)
    pipeline = Pipeline([stage], status_tracker=StatusTracker(interrupt))
    with pytest.raises(KeyboardInterrupt):
        run_virtual(lambda: pipeline.run(range(5), **limit))
    counts = [len(pipeline.results), len(pipeline.results.failed), len(pipeline.results.cancelled)]
    assert counts == [1, 1, 3]
    assert len(pipeline.results.outcomes) == pipeline.get_stats().items_accepted == 5


def test_paused_run_is_stopped_by_a_try_that_ends_meanwhile() -> None:
    """The workers that were retired leave, and nothing waits for `resume`."""

    async def main() -> None:
        async with Pipeline([Stage("Ask", 2, [Service(0)])]).open(stop_on=AuthError) as run:
            await run.feed(range(10))
            await asyncio.sleep(0.5)
            run.pause()
            await asyncio.sleep(5)
            assert run.snapshot().state == "finished"

    with pytest.raises(TooManyFailures):
        run_virtual(main)


def test_run_that_is_stopped_cancelled_at_every_step_loses_nothing() -> None:
    """Cancelled before any step: balanced books, and an outcome for every item."""
    pipelines: list[Pipeline[Any, Any]] = []

    async def main() -> None:
        stages = [
            Stage("Ask", 2, [Service(3)], limits=[Limit(2)]),
            Stage("Group", 1, [same_list], batch=2, batch_wait=5),
        ]
        pipelines.append(Pipeline(stages, status_tracker=record_events()))
        try:
            await pipelines[0].run(range(9), stop_on=AuthError)
        except TooManyFailures:
            assert pipelines[0].get_stats().items_failed in (1, 2)

    def check(_: int) -> None:
        for pipeline in pipelines:
            stats = pipeline.get_stats()
            assert stats.items_in_flight == 0
            assert len(pipeline.results.outcomes) == stats.items_accepted
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 20


async def same_list(values: list[Any]) -> list[Any]:
    return values


@pytest.mark.parametrize("block", range(5))
def test_programs_that_stop_at_their_first_failure_lose_nothing(block: int) -> None:
    """Random programs, of which none tries anything again: each failure is to be retried later."""
    stops = 0
    for seed in range(block * 30, block * 30 + 30):
        program = Program(seed)
        ends: list[RunEnd] = []
        program.pipeline.on_run_end(ends.append)

        async def main(program: Program = program) -> bool:
            try:
                async with program.pipeline.open(stop_on=Exception, on_failures="ignore") as run:
                    try:
                        await program.feed(run)
                    except PipelineError:
                        assert run.snapshot().state in ("stopping", "finished")
            except TooManyFailures:
                return True
            return False

        is_stopped = run_virtual(main, seed=seed, max_time=5000.0)
        program.judge(undisturbed=False)
        results = program.pipeline.results
        everything = results.outcomes + results._children
        failed = [each for each in everything if each.outcome == "failed"]
        assert is_stopped == bool(failed) == (ends[0].error is not None)
        assert ends[0].to_retry == {
            key: result.id for key, result in zip(keys_of(failed), failed, strict=True)
        }
        assert not any(stage.retried_items for stage in results.stats.stage_stats.values())
        stops += is_stopped
    assert stops > 5


# -- Among the last items -------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["run", "stage"])
@pytest.mark.parametrize(
    ("limit", "most"),
    [
        (Failures(count=50), 50),
        (Failures(share=0.3, of_last=100), 30),
        (Failures(share=1.0, of_last=10), 10),
        (Failures(count=20, share=0.9), 20),
        (Failures(count=190, share=0.1), 20),
    ],
    ids=str,
)
def test_key_revoked_after_many_good_items_stops_the_run_within_a_window(
    limit: Failures, most: int, place: str
) -> None:
    """However many were good before: what counts is the last items, in a run or in a stage."""
    service = Service(3000)
    own: Any = {"max_failures": limit} if place == "stage" else {}
    pipeline = Pipeline([Stage("Ask", 10, [service], task_attempts=1, **own)])
    error, end = stopped(pipeline, range(100_000), max_failures=limit if place == "run" else 0.5)
    failed = error.results.failed
    assert most <= len(failed) < most + 10
    assert len(service.calls) == 3000 + len(failed)
    where = " in stage 'Ask'" if place == "stage" else ""
    assert error.reason == (
        f"{most} of the last {limit.of_last} items failed{where} (max_failures={limit})"
    )
    assert f": {most} × AuthError at {failed[0].location}, e.g. input 3000 in stage" in str(error)
    # Those in the window, and those that failed in tries that had begun.
    assert list(end.to_retry or ()) == keys_of(failed)


@pytest.mark.parametrize("place", ["run", "stage"])
def test_failures_that_have_left_the_window_do_not_count(place: str) -> None:
    """One of ten fails all the time, which is less than the limit, however long it goes on."""
    limit = Failures(count=3, share=0.2, of_last=20)
    own: Any = {"max_failures": limit} if place == "stage" else {}
    stage = Stage("Ask", 5, [Service(9999, odd=10)], task_attempts=1, **own)
    options: Any = {} if own else {"max_failures": limit}
    run = Pipeline([stage]).run(range(1000), on_failures="ignore", **options)
    assert run_virtual(lambda: run).stats.items_failed == 100


def test_earlier_failures_are_neither_told_nor_tried_again() -> None:
    """A window names the kinds of its own failures, and its items are those to retry."""
    pipeline = Pipeline([Stage("Ask", 1, [Service(500, odd=7)], task_attempts=1)])
    error, end = stopped(pipeline, range(9999), max_failures=Failures(count=8, of_last=10))
    assert error.failures.startswith("7 × AuthError at ")
    assert "; 1 × ValueError at " in error.failures
    assert error.results.stats.items_failed == 79
    assert list((end.to_retry or {}).values()) == [497, *range(500, 507)]


def test_share_of_a_small_window_is_judged_once_it_is_full() -> None:
    """With fewer than 20 items in the window, all of it must be there."""
    pipeline = Pipeline([Stage("Ask", 1, [Service(0)], task_attempts=1)])
    error, _ = stopped(pipeline, max_failures=Failures(share=0.1, of_last=4))
    assert len(error.results.failed) == 4
    error, _ = stopped(pipeline, max_failures=Failures(share=0.1, of_last=400))
    assert error.reason.startswith("20 of the last 20 items failed (max_failures=Failures(share")


def test_window_of_a_stage_looks_at_its_own_items() -> None:
    """What fails elsewhere is neither counted nor, after the stop, tried again."""
    stages = [
        Stage("Look", 1, [Service(9999, odd=2)], task_attempts=1),
        Stage("Ask", 1, [Service(2)], task_attempts=1, max_failures=Failures(count=3, of_last=3)),
    ]
    error, end = stopped(Pipeline(stages))
    assert error.reason.startswith("3 of the last 3 items failed in stage 'Ask' (")
    assert "ValueError" not in error.failures
    assert list((end.to_retry or {}).values()) == [5, 7, 9]


def test_children_and_dropped_items_move_the_window() -> None:
    """The window counts all items that are settled, in whatever way."""

    async def split(value: int) -> list[int]:
        return [value] * 4

    async def ask(value: int) -> int:
        if value >= 10:
            raise AuthError
        raise Drop

    stages = [
        Stage("Split", 1, [split], expand=True),
        Stage("Ask", 1, [ask], task_attempts=1),
    ]
    error, end = stopped(Pipeline(stages), range(50), max_failures=Failures(count=7, of_last=10))
    # Of the last ten, up to three are parents: they are settled with the last child.
    assert error.results.stats.items_failed == 7
    keys = list(end.to_retry or ())
    assert {key[0] for key in keys} == {10, 11}
    assert all(branch for _, branch in keys)


# -- What is to be tried again --------------------------------------------------------------------


def test_only_failures_of_stop_on_are_to_be_retried() -> None:
    """Those before it were their own fault; those that end after the stop are the key's."""
    service = Service(30, odd=10)
    pipeline = Pipeline([Stage("Ask", 4, [service], task_attempts=1)])
    error, end = stopped(pipeline, stop_on=AuthError)
    assert [each.id for each in error.results.failed] == [0, 10, 20, 30, 31, 32, 33]
    assert end.to_retry == {(each, ()): each for each in range(30, 34)}


@pytest.mark.parametrize("limit", [20, 0.5])
def test_all_failures_are_to_be_retried_after_a_plain_limit(limit: float) -> None:
    """All items of the run count for it; so they are not listed."""
    pipeline = Pipeline([Stage("Ask", 4, [Service(0)], task_attempts=1)])
    _, end = stopped(pipeline, max_failures=limit)
    assert end.to_retry is None


def test_nothing_is_to_be_retried_after_a_run_that_was_not_stopped() -> None:
    """Failures of a run that went on to its end stay what they are."""
    ends: list[RunEnd] = []
    pipeline = Pipeline([Stage("Ask", 4, [Service(5)], task_attempts=1)])
    pipeline.on_run_end(ends.append)
    options: Any = {"max_failures": Failures(count=6), "on_failures": "ignore"}
    run_virtual(lambda: pipeline.run(range(10), **options))
    assert ends[0].to_retry == {}
