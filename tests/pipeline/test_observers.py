"""Observers: objects that hear of every step of every run, and change nothing."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import pytest

from antflow import (
    Drop,
    ItemStep,
    Limit,
    Observer,
    Pipeline,
    Retry,
    RunEnd,
    RunFacts,
    RunResults,
    Stage,
    StatusTracker,
)
from antflow.testing import Calls, Gate, cancel_at_every_step, run_virtual


class Notes(Observer):
    """Notes all that it is told."""

    def __init__(self) -> None:
        self.runs: list[RunFacts] = []
        self.steps: list[ItemStep] = []
        self.ends: list[RunEnd] = []

    def opened(self, run: RunFacts) -> None:
        self.runs.append(run)

    def happened(self, step: ItemStep) -> None:
        self.steps.append(step)

    def closed(self, end: RunEnd) -> Awaitable[None] | None:
        self.ends.append(end)
        return None

    def of(self, item_id: object) -> list[str]:
        """What happened to an item."""
        return [f"{s.kind} {s.stage} {s.attempt}" for s in self.steps if s.item_id == item_id]


class Valued(Notes):
    wants_values = True


class Raises:
    """Raises in every method."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = OSError("disk full") if error is None else error
        self.calls = 0

    def fail(self, _: object) -> None:
        self.calls += 1
        raise self.error

    opened = happened = closed = fail


async def fetch(number: int) -> int:
    await asyncio.sleep(1)
    if number == 13:
        raise LookupError("no such page")
    return number


async def save(number: int) -> Any:
    return Drop if number == 7 else f"saved {number}"


def stages() -> list[Stage]:
    return [Stage("Fetch", 3, [fetch], retry=Retry(attempts=2, wait=1)), Stage("Save", 1, [save])]


def run(*observers: Any, items: Any = range(15), **options: Any) -> RunResults[Any]:
    pipeline = Pipeline(stages(), observers=observers, name="pages", **options)
    return run_virtual(pipeline.run(items))


# -- what is told -----------------------------------------------------------------------------


def test_the_end_has_the_last_snapshot() -> None:
    """An observer learns at the end what a dashboard shows then, advice and failures included."""
    notes = Notes()
    run(notes)
    (end,) = notes.ends
    assert end.snapshot is not None
    assert end.snapshot.state == "finished"
    assert end.snapshot.pipeline_stats is end.stats
    assert end.snapshot.elapsed == end.duration
    assert end.snapshot.advice.stage == "Fetch"
    assert [group.count for group in end.snapshot.error_summary.groups] == [1]
    assert pickle.loads(pickle.dumps(end)) == end


def test_the_facts_have_the_options_of_the_stages() -> None:
    """An observer learns how each stage was set, as text and without what is usual."""
    notes = Notes()
    limit = Limit(rate=5)
    odd = [
        Stage("Odd", 1, [str, len], limits=[limit], hold_on={KeyError: 5.0}, version={"a": [1]}),
        Stage("Usual", 2, [fetch], retry_on=(OSError, KeyError), timeout=1.5),
    ]
    run_virtual(Pipeline(odd, observers=[notes]).run([]))
    assert notes.runs[0].stage_options == (
        {
            "workers": "1",
            "tasks": "str, len",
            "limits": repr(limit),
            "hold_on": "KeyError: 5.0",
            "version": "a: 1",
        },
        {"workers": "2", "tasks": "fetch", "retry_on": "OSError, KeyError", "timeout": "1.5"},
    )


def test_steps_of_an_item_come_in_order() -> None:
    """From the intake to the end, each with its stage and the number of the try."""
    notes = Notes()
    run(notes)
    through = ["admitted Fetch 0", "started Fetch 1", "completed Fetch 1", "started Save 1"]
    assert notes.of(3) == [*through, "completed Save 1"]
    assert notes.of(7) == [*through, "dropped Save 1"]
    assert notes.of(13) == [
        "admitted Fetch 0",
        *("started Fetch 1", "retrying Fetch 1", "started Fetch 2", "failed Fetch 2"),
    ]


def test_step_names_worker_time_and_reason() -> None:
    """A step carries names, both clocks, the duration of a visit, and the error."""
    notes = Notes()
    tracker = StatusTracker()
    run(notes, status_tracker=tracker)
    [run_facts] = notes.runs
    failed = next(step for step in notes.steps if step.kind == "failed")
    assert (failed.item_id, failed.sequence_id, failed.branch) == (13, 13, ())
    assert failed.worker in ("Fetch-W0", "Fetch-W1", "Fetch-W2")
    assert failed.duration == pytest.approx(1)
    assert failed.timestamp == pytest.approx(run_facts.timestamp(failed.mono))
    assert isinstance(failed.error, LookupError)
    told = tracker.get_status(13)
    assert told is not None
    assert (told.timestamp, told.worker) == (failed.timestamp, failed.worker)


def test_items_that_are_made_name_what_they_are_made_from() -> None:
    """A child is "emitted", with its parent's number and its own branch."""
    notes = Valued()
    split = Stage("Split", 1, [list], expand=True, executor="inline")
    pipeline = Pipeline([split, Stage("Next", 1, [str])], observers=[notes])
    run_virtual(pipeline.run(["ab"]))
    made = [step for step in notes.steps if step.kind == "emitted"]
    assert [(s.item_id, s.sequence_id, s.branch, s.value) for s in made] == [
        ("0/0", 0, (0,), "a"),
        ("0/1", 0, (1,), "b"),
    ]
    assert [step.value for step in notes.steps if step.kind == "expanded"] == [2]


def test_values_are_for_observers_that_ask_for_them() -> None:
    """``wants_values`` fills in the value; beside it, other observers do not get it."""
    plain, valued = Notes(), Valued()
    run(valued, plain, items=[1])
    assert [step.value for step in valued.steps] == [1, None, 1, None, "saved 1"]
    assert {step.value for step in plain.steps} == {None}


def test_observers_share_one_value_for_each_step() -> None:
    """Where two want the same, they are given the same object."""
    one, two = Notes(), Notes()
    run(one, two, items=[1])
    assert all(first is second for first, second in zip(one.steps, two.steps, strict=True))


def test_step_cannot_be_changed() -> None:
    """One observer cannot spoil what the next is told."""
    notes = Notes()
    run(notes, items=[1])
    with pytest.raises(AttributeError):
        notes.steps[0].kind = "failed"  # type: ignore[misc]


def test_steps_can_be_pickled_and_copied() -> None:
    """A step can be sent to another process, its error too."""
    notes = Valued()
    run(notes)
    failed = next(step for step in notes.steps if step.kind == "failed")
    copy = pickle.loads(pickle.dumps(failed))
    assert (copy.item_id, str(copy.error)) == (13, "no such page")
    assert deepcopy(notes.steps[0]) == notes.steps[0]


# -- runs -------------------------------------------------------------------------------------


def test_run_is_opened_and_closed() -> None:
    """An observer is told of the run, and at the end how it went, with all counts."""
    notes = Notes()
    results = run(notes)
    [facts], [end] = notes.runs, notes.ends
    assert (facts.pipeline, facts.stage_names) == ("pages", ("Fetch", "Save"))
    assert {step.run_id for step in notes.steps} == {facts.run_id, end.run_id}
    assert (end.how, end.error) == ("finished", None)
    assert end.stats == results.stats
    assert end.duration > 0


async def cancelled_run(pipeline: Pipeline) -> None:
    async with asyncio.timeout(1.5):
        await pipeline.run(range(15))


async def shut_down_run(pipeline: Pipeline) -> None:
    await pipeline.feed(range(15))
    await asyncio.sleep(0.5)
    await pipeline.shutdown()


async def opened_run(pipeline: Pipeline) -> None:
    async with pipeline.open() as handle:
        await handle.feed(range(15))


async def streamed_run(pipeline: Pipeline) -> None:
    async with pipeline.stream(range(15)) as results:
        async for _ in results:
            pass


async def left_stream(pipeline: Pipeline) -> None:
    async with pipeline.stream(range(15)) as results:
        async for _ in results:
            break


async def failed_run(pipeline: Pipeline) -> None:
    await pipeline.run(range(15), timeout=1.5)


@pytest.mark.parametrize(
    ("use", "how"),
    [
        (opened_run, "finished"),
        (streamed_run, "finished"),
        (left_stream, "cancelled"),
        (cancelled_run, "cancelled"),
        (shut_down_run, "stopped"),
        (failed_run, "failed"),
    ],
)
def test_every_way_to_run_is_told(use: Callable[[Pipeline], Any], how: str) -> None:
    """However a run is begun and ended, each item it took in is told of, and its end once."""
    notes = Notes()

    async def main() -> None:
        try:
            await use(Pipeline(stages(), observers=[notes]))
        except TimeoutError:
            assert how in ("cancelled", "failed")

    run_virtual(main())
    [end] = notes.ends
    assert end.how == how
    assert (end.error is not None) == (how == "failed")
    last = {step.item_id: step.kind for step in notes.steps}
    assert end.stats.items_accepted == len(last)
    assert set(last.values()) <= {"completed", "failed", "dropped", "cancelled"}


def test_one_observer_of_two_runs_at_once() -> None:
    """``run_id`` tells the steps of two runs apart."""
    notes = Notes()
    pipeline = Pipeline(stages(), observers=[notes])

    async def main() -> None:
        await asyncio.gather(pipeline.run(range(2)), pipeline.run(range(3)))

    run_virtual(main())
    begun = [step.run_id for step in notes.steps if step.kind == "admitted"]
    assert sorted(begun.count(run_id) for run_id in set(begun)) == [2, 3]
    assert len(notes.ends) == 2


def test_run_waits_until_an_observer_has_written_all() -> None:
    """An async ``closed`` is awaited before `run` returns, several of them at once."""
    written: list[str] = []

    class Sink:
        async def closed(self, end: RunEnd) -> None:
            await asyncio.sleep(8)
            written.append(end.how)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await Pipeline([Stage("A", 1, [Calls()])], observers=[Sink(), Sink()]).run([1])
        assert written == ["finished", "finished"]
        assert loop.time() == pytest.approx(8)

    run_virtual(main())


def test_observer_that_never_closes_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """After ten seconds the run goes on without it, and says so."""

    class Hangs:
        async def closed(self, end: RunEnd) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        results = await Pipeline([Stage("A", 1, [Calls()])], observers=[Hangs()]).run([1])
        assert results.values() == [1]
        assert loop.time() == pytest.approx(10)

    run_virtual(main())
    assert "observers[0] (Hangs) failed" in caplog.text
    assert "took more than 10 s" in caplog.text


def test_join_inside_closed_does_not_hang() -> None:
    """An observer that joins the run from ``closed`` does not wait for itself."""

    class Joins:
        async def closed(self, end: RunEnd) -> None:
            await pipeline.join()

    pipeline = Pipeline([Stage("A", 1, [Calls()])], observers=[Joins()])
    assert run_virtual(pipeline.run([1])).values() == [1]


def test_cancelled_wherever_it_is_a_run_is_closed_once() -> None:
    """At whatever step a run is cancelled, an observer is told its end once, and may write."""
    made: list[Notes] = []

    class Writes(Notes):
        async def closed(self, end: RunEnd) -> None:
            await asyncio.sleep(1)
            self.ends.append(end)

    async def main() -> None:
        made.append(Writes())
        gate = Gate()
        asyncio.get_running_loop().call_later(2, gate.open)
        await Pipeline([Stage("A", 2, [gate])], observers=[made[-1]]).run(range(3))

    def check(_: int) -> None:
        for notes in made[-1:]:
            assert len(notes.ends) == len(notes.runs)
            last = {step.item_id: step.kind for step in notes.steps}
            assert set(last.values()) <= {"completed", "cancelled"}

    assert cancel_at_every_step(main, check) > 10


# -- it has no power --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError("disk full"), asyncio.CancelledError(), ExceptionGroup("", [OSError()])]
)
def test_observer_that_raises_changes_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Every outcome is as without it, other observers hear all, and the log has one warning."""
    alone = run()
    broken, notes = Raises(error), Notes()
    caplog.clear()
    results = run(broken, notes)
    assert results.values() == alone.values()
    assert results.stats.items_failed == alone.stats.items_failed
    assert broken.calls == len(notes.steps) + 2
    warnings = [text for text in caplog.messages if text.startswith("observers")]
    assert warnings == [
        "observers[0] (Raises) failed; it is still called, and further failures are only counted"
    ]


def test_awaitable_of_a_method_in_line_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """What ``happened`` returns is not awaited: an awaitable is closed, and the log says so."""

    class Lazy:
        def happened(self, step: ItemStep) -> Any:
            return fetch(1)

    assert run(Lazy(), items=[1]).values() == ["saved 1"]
    assert "only closed() may be async" in caplog.text
    assert caplog.text.count("observers[0] (Lazy) failed") == 1


def test_observer_that_cancels_its_caller_changes_nothing() -> None:
    """A request to cancel that an observer leaves on the worker does not reach the item."""

    class Cancels:
        def happened(self, step: ItemStep) -> None:
            task = asyncio.current_task()
            if step.kind == "started" and task is not None:
                task.cancel()

    assert run(Cancels(), items=[1, 2]).values() == ["saved 1", "saved 2"]


def test_slow_observer_only_delays() -> None:
    """An observer that blocks the loop for a while changes no outcome."""
    seen: list[str] = []

    class Slow:
        def happened(self, step: ItemStep) -> None:
            sum(range(10_000))
            seen.append(step.kind)

    assert len(run(Slow())) == 13
    assert seen.count("admitted") == 15


def test_items_enter_as_without_observers() -> None:
    """Observers do not change how far ahead of its workers a run reads its source."""

    def taken(**options: Any) -> int:
        read: list[int] = []

        def source() -> Any:
            for number in range(100):
                read.append(number)
                yield number

        async def main() -> None:
            gate = Gate()
            pipeline = Pipeline([Stage("A", 1, [gate], queue_capacity=5)], **options)
            running = asyncio.create_task(pipeline.run(source()))
            await asyncio.sleep(1)
            gate.open()
            ahead.append(len(read))
            await running

        ahead: list[int] = []
        run_virtual(main())
        return ahead[0]

    assert taken(observers=[Notes()]) == taken()


def test_interrupt_in_an_observer_ends_the_run() -> None:
    """`KeyboardInterrupt` is not the observer's failure: it comes out of `run`."""
    with pytest.raises(KeyboardInterrupt):
        run(Raises(KeyboardInterrupt()))


# -- how it is given --------------------------------------------------------------------------


def test_any_object_with_one_of_the_methods_will_do() -> None:
    """Nothing need be subclassed, and missing methods do nothing."""
    seen: list[Any] = []

    class Bare:
        def happened(self, step: ItemStep) -> None:
            seen.append(step.kind)

    run(Bare(), items=[1])
    assert seen == ["admitted", "started", "completed", "started", "completed"]


def test_base_class_alone_does_nothing() -> None:
    """A subclass has to write only the methods that it wants."""

    class Idle(Observer):
        pass

    assert run(Idle(), items=[1]).values() == ["saved 1"]


@pytest.mark.parametrize("method", ["opened", "happened"])
def test_async_method_in_line_is_refused(method: str) -> None:
    """``opened`` and ``happened`` cannot be async, and the error says which may."""

    class Wrong:
        pass

    async def wrong(self: Wrong, what: object) -> None: ...

    setattr(Wrong, method, wrong)
    with pytest.raises(TypeError, match=rf"observers\[0\].*{method}\(\) must be a plain function"):
        Pipeline(stages(), observers=[Wrong()])  # type: ignore[list-item]


def test_builder_takes_observers() -> None:
    """The fluent form has the same option."""
    notes = Notes()
    builder = Pipeline.create().add("Fetch", fetch).with_options(observers=[notes])
    run_virtual(builder.run([1]))
    assert [step.kind for step in notes.steps] == ["admitted", "started", "completed"]


def test_pickled_pipeline_brings_its_observers() -> None:
    """A copy of a pipeline has copies of its observers, which hear its runs only."""
    notes = Notes()
    pipeline = Pipeline([Stage("Fetch", 1, [fetch])], observers=[notes])
    copy = pickle.loads(pickle.dumps(pipeline))
    run_virtual(copy.run([1]))
    assert notes.steps == []
    [theirs] = copy._observers
    assert [step.kind for step in theirs.steps] == ["admitted", "started", "completed"]


# -- the ends of runs -------------------------------------------------------------------------


def test_on_run_end_when_runs_end() -> None:
    """A function is told how each run ended, with its final counts, and of no single item."""
    pipeline = Pipeline([Stage("Fetch", 1, [fetch])])
    ends: list[RunEnd] = []
    pipeline.on_run_end(ends.append)
    run_virtual(pipeline.run([1, 2]))
    run_virtual(pipeline.run([3]))
    assert [(end.how, end.stats.items_processed) for end in ends] == [
        ("finished", 2),
        ("finished", 1),
    ]
    assert ends[0].run_id != ends[1].run_id == pipeline.results.run_id
    assert ends[1].stats == pipeline.get_stats()


def test_on_run_end_during_a_run() -> None:
    """It is told of a run that is under way when it is given, and of one that is cancelled."""

    async def main() -> list[RunEnd]:
        pipeline = Pipeline([Stage("Fetch", 1, [fetch])])
        ends: list[RunEnd] = []
        async with pipeline.open() as run:
            await run.feed([1])
            pipeline.on_run_end(ends.append)
            run.cancel()
        return ends

    assert [end.how for end in run_virtual(main)] == ["cancelled"]


def test_on_run_end_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """What the function raises is logged, once, and the run has its results."""
    pipeline = Pipeline([Stage("Fetch", 1, [fetch])])

    def broken(end: RunEnd) -> None:
        raise OSError("no space")

    ends: list[RunEnd] = []
    pipeline.on_run_end(broken)
    pipeline.on_run_end(ends.append)
    for _ in range(2):
        assert len(run_virtual(pipeline.run([1]))) == 1
    assert len(ends) == 2
    assert [record.message for record in caplog.records] == [
        "on_run_end failed; it is still called, and further failures are only counted"
    ]


def test_on_run_end_that_is_async() -> None:
    """An async function, which would not be awaited, is refused."""

    async def told(end: RunEnd) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        Pipeline([Stage("Fetch", 1, [fetch])]).on_run_end(told)


def test_a_step_says_how_long_it_waited() -> None:
    """Of the time of a visit, a step says how much the item waited for a limit, batches too."""
    notes = Notes()

    async def both(numbers: list[int]) -> list[int]:
        return numbers

    limits = [Limit(rate=1, period=2)]
    stages = [Stage("Ask", 2, [fetch], limits=limits), Stage("Pair", 1, [both], batch=2)]
    run_virtual(Pipeline(stages, observers=[notes]).run([1, 3, 5, 7]))
    waited = {(s.stage, s.item_id): s.waited for s in notes.steps if s.kind == "completed"}
    assert [waited["Ask", n] for n in range(4)] == pytest.approx([0, 2, 3, 3])
    assert [waited["Pair", n] for n in range(4)] == [0.0] * 4
    assert {step.waited for step in notes.steps if step.kind != "completed"} == {0.0}


def test_on_run_end_of_copies() -> None:
    """A copy, with other workers or not, does not call the functions of the original."""
    pipeline = Pipeline([Stage("Fetch", 1, [fetch])])
    ends: list[RunEnd] = []
    pipeline.on_run_end(ends.append)
    run_virtual(pipeline.with_workers(Fetch=2).run([1]))
    run_virtual(deepcopy(pipeline).run([1]))
    assert ends == []
