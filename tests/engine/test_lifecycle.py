"""A pipeline runs again, twice at once, in another loop; however it ends, it leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from types import CoroutineType
from typing import Any

import pytest

from antflow import Limit, Pipeline, PipelineError, PipelineResult, Stage, StatusTracker
from antflow.testing import Calls, VirtualLoop, run_virtual
from tests.support import (
    ONE_HOUR,
    assert_balanced,
    assert_works,
    in_background,
    lasting,
    never,
    now,
    raising,
    run_program,
    same,
    virtual,
)

pytestmark = pytest.mark.fault


class Watch:
    """A display that keeps the counts it was shown and what it was finished with."""

    def __init__(self) -> None:
        self.processed: list[int] = []
        self.failures: list[int] = []

    def on_update(self, snapshot: Any) -> None:
        self.processed.append(snapshot.pipeline_stats.items_processed)

    def on_finish(self, results: Any, summary: Any) -> None:
        self.failures.append(summary.total_failed)


def test_each_run_has_its_own_results() -> None:
    """Each run has its own results, counts, failures and display."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [raising(ValueError("no"), 2)], task_attempts=1)])
        first, second = Watch(), Watch()
        one = await pipeline.run([1, 2, 3], custom_dashboard=first)
        two = await pipeline.run([4], custom_dashboard=second)
        assert (one.values(), two.values()) == ([1, 3], [4])
        assert [result.sequence_id for result in two] == [0]
        assert second.processed[0] == 0
        assert second.processed[-1] == 1
        assert (first.failures, second.failures) == ([1], [0])
        assert two.summary.total_failed == two.stats.items_failed == 0
        assert one.run_id != two.run_id

    virtual(main)


def test_ids_begin_anew_with_each_run() -> None:
    """Automatic ids begin with 0 in each run of a pipeline."""

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        return [result.id for _ in range(3) for result in await pipeline.run(["a", "b"])]

    assert virtual(main) == [0, 1, 0, 1, 0, 1]


def test_run_after_a_cancelled_one_has_its_own_results() -> None:
    """A run after a cancelled one has its own results only."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 3, [lasting(1)])])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4.5):
                await pipeline.run(range(100))
        assert len(pipeline.results) == 12
        assert_balanced(pipeline.get_stats())
        await assert_works(pipeline)

    virtual(main)


def test_run_after_a_cancelled_stream_has_its_own_results() -> None:
    """A run after a stream that was left early has its own results only."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 3, [lasting(1)])])
        async with aclosing(pipeline.stream(range(100))) as stream:
            await anext(stream)
        await assert_works(pipeline)

    virtual(main)


def test_pipeline_runs_in_one_loop_after_the_other() -> None:
    """One pipeline runs in one event loop after the other."""
    tracker = StatusTracker()
    stage = Stage("Work", 2, [same, lambda value: value + 1])
    pipeline = Pipeline([stage], status_tracker=tracker)
    for number in range(3):
        assert asyncio.run(pipeline.run([number])).values() == [number + 1]
    assert tracker.get_stats()["completed"] == 3


def test_pipeline_that_was_started_in_a_loop_that_is_gone() -> None:
    """A pipeline whose loop was closed in the middle of a run can be started in another."""
    pipeline = Pipeline([Stage("Work", 2, [lasting(10)])])

    async def begin() -> None:
        await pipeline.feed(range(5))
        await asyncio.sleep(5)

    run_virtual(begin, leftovers="cancel")
    assert_balanced(pipeline.get_stats())
    virtual(lambda: assert_works(pipeline))


def test_cancel_when_tasks_are_long() -> None:
    """Cancelling a run cancels the tasks that run, at once."""

    async def main() -> None:
        calls = Calls(seconds=ONE_HOUR)
        pipeline = Pipeline([Stage("Work", 5, [calls])])
        run = await in_background(pipeline.run(range(10)), 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert now() == 1
        assert calls.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main)


def test_cancel_when_a_task_cleans_up() -> None:
    """A cancelled run ends when its tasks have cleaned up, and not before."""

    async def main() -> None:
        async def work(value: int) -> int:
            try:
                await asyncio.sleep(ONE_HOUR)
            finally:
                await asyncio.sleep(2)
            return value

        run = await in_background(Pipeline([Stage("Work", 1, [work])]).run([1]), 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert now() == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main)


def test_cancelled_run_leaves_no_item_without_an_outcome() -> None:
    """After a cancellation every accepted item has an outcome, the unfinished ones as cancelled."""

    async def main() -> None:
        tracker = StatusTracker()
        stages = [Stage("A", 2, [lasting(1)]), Stage("B", 1, [lasting(1)])]
        pipeline = Pipeline(stages, status_tracker=tracker)
        run = await in_background(pipeline.run(range(50)), 3.5)
        run.cancel()
        await asyncio.wait([run])
        outcomes = pipeline.results.outcomes
        assert [outcome.sequence_id for outcome in outcomes] == list(range(len(outcomes)))
        kinds = {type(outcome.error).__name__ for outcome in outcomes}
        assert kinds == {"NoneType", "ItemCancelled"}
        counts = tracker.get_stats()
        assert counts["completed"] == len(pipeline.results) == 2
        assert counts["completed"] + counts["failed"] == len(outcomes)

    virtual(main)


def test_instant_item_takes_no_time() -> None:
    """One item through an instant task takes no time and few steps of the event loop."""
    steps = 0

    def count(step: int) -> None:
        nonlocal steps
        steps = step

    async def main() -> float:
        await Pipeline([Stage("Work", 10, [same])]).run([1])
        return now()

    assert virtual(main, on_step=count) == 0
    assert steps < 30


def test_idle_pipeline_does_nothing() -> None:
    """A pipeline that has nothing to do does nothing: an hour is a handful of steps."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        pipeline = Pipeline([Stage("A", 200, [same]), Stage("B", 200, [same])])
        await pipeline.feed(range(500))
        await asyncio.sleep(1)
        before = loop.steps
        await asyncio.sleep(ONE_HOUR)
        idle = loop.steps - before
        await pipeline.shutdown()
        return idle

    assert virtual(main, max_time=2 * ONE_HOUR) <= 3


def test_run_that_waits_for_its_source_does_nothing() -> None:
    """A run whose source is silent does nothing meanwhile."""

    async def source() -> Any:
        yield 1
        await asyncio.sleep(ONE_HOUR)
        yield 2

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        run = await in_background(Pipeline([Stage("A", 50, [same])]).run(source()), 1)
        before = loop.steps
        await asyncio.sleep(ONE_HOUR - 2)
        idle = loop.steps - before
        await run
        return idle

    assert virtual(main, max_time=2 * ONE_HOUR) <= 3


def test_memory_of_earlier_runs() -> None:
    """A pipeline keeps the latest run only: neither results nor items of those before."""

    class Item:
        pass

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 3, [same]), Stage("B", 3, [same])])
        seen: list[weakref.ref[Item]] = []
        for _ in range(3):
            items = [Item() for _ in range(20)]
            seen += [weakref.ref(item) for item in items]
            await pipeline.run(items)
        items.clear()
        gc.collect()
        assert len([item for item in seen if item() is not None]) == 20

    virtual(main)


@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_memory_when_results_are_not_collected(how: str) -> None:
    """Without collecting, nothing of an item is kept once it is through."""

    class Item:
        pass

    seen: list[weakref.ref[Item]] = []

    def source() -> Any:
        for _ in range(200):
            item = Item()
            seen.append(weakref.ref(item))
            yield item
            del item

    async def fail_some(value: Item) -> Item:
        if len(seen) % 2:
            raise ValueError("no")
        return value

    async def main() -> None:
        stage = Stage("Work", 2, [fail_some], task_attempts=1)
        pipeline = Pipeline([stage], collect_results=False)
        if how == "stream":
            async for _ in pipeline.stream(source()):
                pass
            del _
        elif how == "run":
            await pipeline.run(source())
        else:
            await pipeline.feed(source())
            await pipeline.join()
        gc.collect()
        assert [item for item in seen if item() is not None] == []

    virtual(main)


def test_memory_of_a_tracker_after_many_runs() -> None:
    """A tracker keeps the history of each run, and nothing else that belongs to it."""
    tracker = StatusTracker()

    def living() -> dict[str, int]:
        gc.collect()
        kinds = Counter(type(each).__name__ for each in gc.get_objects())
        return {name: kinds[name] for name in ("Run", "Ledger", "Follower")}

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 3, [same])], status_tracker=tracker)
        await pipeline.run(range(3))
        after_the_first = living()
        for _ in range(4):
            await pipeline.run(range(3))
        assert living() == after_the_first

    virtual(main)
    assert tracker.get_stats()["completed"] == 15


@pytest.mark.parametrize("end", ["join", "cancel"])
@pytest.mark.parametrize("scope", ["run", "worker"])
def test_threads_of_a_run_end_with_it(scope: Any, end: str) -> None:
    """The threads of a run end with it, also while the pipeline, and so its latest run, is kept."""
    threads: set[threading.Thread] = set()

    def work(value: int, lock: object) -> int:
        threads.add(threading.current_thread())
        return value

    async def main() -> None:
        stage = Stage("A", 3, [work], resources={"lock": threading.Lock}, resource_scope=scope)
        pipeline = Pipeline([stage])
        async with pipeline.open() as run:
            await run.feed(range(30))
            while not threads:
                await asyncio.sleep(0.001)
            if end == "cancel":
                run.cancel()
        for _ in range(500):  # one that was cancelled at work may only now be known here
            if not any(thread.is_alive() for thread in tuple(threads)):
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("threads are left")
        assert pipeline.get_stats().items_in_flight == 0

    asyncio.run(main())


def test_cancellation_reaches_nested_pipelines() -> None:
    """A task may run another pipeline, and its cancellation reaches it."""

    async def main() -> None:
        inner = Pipeline([Stage("Inner", 2, [lasting(1)])])

        async def work(value: int) -> list[int]:
            return (await inner.run(range(value))).values()

        outer = Pipeline([Stage("Outer", 2, [work])])
        assert (await outer.run([1, 2, 3])).values() == [[0], [0, 1], [0, 1, 2]]
        run = await in_background(outer.run([100]), 1.5)
        run.cancel()
        await asyncio.wait([run])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert_balanced(inner.get_stats())

    virtual(main)


def test_nested_pipelines_that_lead_back_are_refused() -> None:
    """Running a pipeline from inside itself is refused also across another one."""

    async def main() -> None:
        async def back(value: int) -> Any:
            return await outer.run([value])

        inner = Pipeline([Stage("Inner", 1, [back], task_attempts=1)])

        async def work(value: int) -> Any:
            results = await inner.run([value])
            return results.summary.errors_by_type

        outer = Pipeline([Stage("Outer", 1, [work], task_attempts=1)])
        assert (await outer.run([1])).values() == [{"PipelineError": 1}]

    virtual(main)


def test_stage_may_be_in_two_pipelines() -> None:
    """One stage object may be part of several pipelines, at the same time."""

    async def main() -> None:
        stage = Stage("Work", 1, [lasting(1)])
        runs = await asyncio.gather(*(Pipeline([stage]).run([n]) for n in range(3)))
        assert [run.values() for run in runs] == [[0], [1], [2]]
        assert now() == 1

    virtual(main)


def test_async_with_shuts_down_on_an_error() -> None:
    """Leaving ``async with`` by an error shuts down, and the error comes out."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])

        async def body() -> None:
            async with pipeline:
                await pipeline.feed(range(5))
                await asyncio.sleep(0.5)
                raise KeyError("body")

        with pytest.raises(KeyError, match="body"):
            await body()
        assert now() == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert_balanced(pipeline.get_stats())

    virtual(main)


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError, SystemExit])
def test_open_cancels_on_an_error(error: type[BaseException]) -> None:
    """Leaving ``open`` by an error cancels, and the error comes out."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])

        async def body() -> None:
            async with pipeline.open() as run:
                await run.feed(range(5))
                await asyncio.sleep(0.5)
                raise error("body")

        with pytest.raises(error, match="body"):
            await body()
        assert now() == 0.5
        assert pipeline.results == []
        assert pipeline.get_stats().items_cancelled == 5

    virtual(main)


def test_open_joins_the_run_in_the_end() -> None:
    """``open`` hands out the run, and joins it in the end."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        async with pipeline.open() as run:
            await run.feed(range(5))
            await asyncio.sleep(2.5)
            assert run.stats().items_processed == 2
            assert run.snapshot().state == "running"
        assert run.results.values() == [0, 1, 2, 3, 4]
        with pytest.raises(PipelineError):
            await run.feed([1])

    virtual(main)


@pytest.mark.parametrize("method", ["start", "join", "shutdown"])
def test_lifecycle_methods_may_be_called_twice(method: str) -> None:
    """start, join and shutdown may be called twice, also at the same time."""

    async def main() -> list[PipelineResult[Any]]:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        await pipeline.start()
        await pipeline.feed([1])
        await asyncio.sleep(0.5)
        await asyncio.gather(getattr(pipeline, method)(), getattr(pipeline, method)())
        await getattr(pipeline, method)()
        await pipeline.join()
        return pipeline.results

    assert [result.value for result in virtual(main)] == [1]


@pytest.mark.parametrize("method", ["join", "shutdown"])
def test_end_without_a_start_does_nothing(method: str) -> None:
    """Ending a pipeline that was never started does nothing."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        await getattr(pipeline, method)()
        await assert_works(pipeline)

    virtual(main)


def test_join_that_is_cancelled() -> None:
    """Cancelling a join cancels the run it waits for; nothing is left behind."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(10)])])
        await pipeline.feed(range(5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(15):
                await pipeline.join()
        assert now() == 15
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert pipeline.results.values() == [0]
        assert_balanced(pipeline.get_stats())

    virtual(main)


def test_pipeline_can_be_started_after_the_end() -> None:
    """A pipeline that was joined can be started again, for a run of its own."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        for number in range(3):
            await pipeline.start()
            await pipeline.feed([number])
            await pipeline.join()
            assert pipeline.results.values() == [number]

    virtual(main)


def test_results_have_what_has_come_out_so_far() -> None:
    """`results` has what has come out so far."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        run = await in_background(pipeline.run(range(5)), 2.5)
        assert pipeline.results.values() == [0, 1]
        assert (await run).values() == [0, 1, 2, 3, 4]

    virtual(main)


def test_queries_inside_a_run_are_about_that_run() -> None:
    """Inside a run, the pipeline's queries are about that run, not about the latest one."""

    async def main() -> None:
        seen: dict[str, int] = {}

        async def work(value: str) -> str:
            await asyncio.sleep(1)
            seen[value] = pipeline.get_stats().items_accepted
            return value

        pipeline = Pipeline([Stage("Work", 5, [work])])
        await asyncio.gather(pipeline.run(["a"]), pipeline.run(["b", "c"]))
        assert seen == {"a": 1, "b": 2, "c": 2}

    virtual(main)


# Event loops that are gone


def left_behind(work: Callable[[], Any]) -> None:
    """Do something in an event loop that is then closed, as it is, in the middle of all."""
    loop = asyncio.new_event_loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.run_until_complete(work())
        loop.close()
        loop.set_exception_handler(lambda *_: None)


@pytest.mark.parametrize("way", ["start", "open", "stream"])
def test_run_left_behind_in_a_closed_loop(way: str) -> None:
    """It can be asked about, says why it cannot go on, and keeps nothing from another run."""
    limit = Limit(2)
    pipeline = Pipeline([Stage("Work", 2, [lasting(0.05)], limits=[limit])])
    kept: list[Any] = []

    async def begin() -> None:
        if way == "start":
            await pipeline.feed(range(5))
        elif way == "open":
            kept.append(pipeline.open())
            kept.append(await kept[0].__aenter__())
            await kept[1].feed(range(5))
        else:
            kept.append(pipeline.stream(range(5)))
            await anext(kept[0])
        await asyncio.sleep(0.02)

    left_behind(begin)
    assert pipeline.get_stats().items_accepted == 5
    assert pipeline.get_dashboard_snapshot().pipeline_stats.items_accepted == 5
    assert len(pipeline.results.outcomes) < 5

    async def another() -> None:
        if way == "open":
            for ask in (kept[1].feed([1]), kept[1].join(), kept[1].shutdown()):
                with pytest.raises(PipelineError, match="event loop of this run was closed"):
                    await ask
            for change in (kept[1].cancel, kept[1].pause, kept[1].resume):
                with pytest.raises(PipelineError, match="event loop of this run was closed"):
                    change()
        if way == "stream":
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                await anext(kept[0])
            await kept[0].aclose()
        if way == "start":
            with pytest.raises(PipelineError, match="event loop of this run was closed"):
                await pipeline.feed([1])
        async with pipeline:
            await pipeline.feed([7])
            await pipeline.join()
        assert pipeline.results.values() == [7]
        assert (await pipeline.run([8])).values() == [8]
        assert limit.statistics().in_use == 0

    asyncio.run(another())
    kept.clear()
    gc.collect()


LEFT_BEHIND = """
    import asyncio, contextlib, contextvars, gc, os
    from antflow import Limit, Pipeline, RetryAfter, Stage, StatusTracker, in_thread

    bound = contextvars.ContextVar("bound")

    async def hang(*_, **options):
        await asyncio.sleep(1000)

    async def same(value):
        return value

    async def binds(value):
        bound.set(value)
        await asyncio.sleep(0 if value < 2 else 1000)

    async def items():
        for number in range(100):
            await asyncio.sleep(0)
            yield number

    async def held(value):
        raise RetryAfter(600)

    async def three(value):
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    async def one_then_hangs(value):
        yield value
        await hang()

    @contextlib.asynccontextmanager
    async def opened():
        yield 1

    class Display:
        on_update = on_finish = staticmethod(hang)

    stage = Stage("Work", 2, [hang], resources={"opened": opened}, resource_scope="worker")
    last = Stage("Last", 2, [hang])

    async def opens(pipeline):
        async with pipeline.open() as run:
            await run.feed(range(3))
            await hang()

    async def streams(pipeline):
        async for _ in pipeline.stream(range(30), buffer_size=1):
            await hang()

    way = {
        "run": lambda: Pipeline([stage, last]).run(range(30)),
        "async source": lambda: Pipeline([last]).run(items()),
        "source in a thread": lambda: Pipeline([last]).run(in_thread(range(100))),
        "plain functions": lambda: Pipeline([Stage("Work", 2, [str]), last]).run(range(30)),
        "callback": lambda: Pipeline([last], status_tracker=StatusTracker(hang)).run(range(30)),
        "callback of a stage": lambda: Pipeline(
            [Stage("Work", 2, [same], on_success=hang, batch=2), last]
        ).run(range(9)),
        "display": lambda: Pipeline([last]).run([1, 2], custom_dashboard=Display()),
        "display that ends": lambda: Pipeline([stage]).run([], custom_dashboard=Display()),
        "batch": lambda: Pipeline([Stage("Work", 2, [hang], batch=3, batch_wait=9)]).run([1, 2]),
        "limit": lambda: Pipeline([Stage("Work", 2, [hang], limits=[Limit(1)])]).run([1, 2]),
        "time limit": lambda: Pipeline([Stage("Work", 2, [hang], timeout=9)]).run([1, 2]),
        "hold": lambda: Pipeline([Stage("Work", 2, [held])]).run(range(30)),
        "expand": lambda: Pipeline([Stage("Work", 1, [three], expand=True), last]).run([1, 2]),
        "expand that waits": lambda: Pipeline(
            [Stage("Work", 1, [one_then_hangs], expand=True), last]
        ).run([1, 2]),
        "bound": lambda: Pipeline([Stage("Work", 2, [binds])]).run(range(9)),
        "open": lambda: opens(Pipeline([last])),
        "stream": lambda: streams(Pipeline([Stage("Work", 2, [same])])),
        "callback while it is fed": lambda: opens(
            Pipeline([last], status_tracker=StatusTracker(hang))
        ),
    }[os.environ["WAY"]]

    loop = asyncio.new_event_loop()
    task = loop.create_task(way())
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()
    del task, loop
    gc.collect()
    print("over")
"""


@pytest.mark.parametrize(
    "way",
    [
        *("run", "async source", "source in a thread", "plain functions", "callback", "display"),
        *(
            "callback of a stage",
            "display that ends",
            "batch",
            "limit",
            "time limit",
            "hold",
            "expand",
            "expand that waits",
            "bound",
            "open",
        ),
        "stream",
        "callback while it is fed",
    ],
)
def test_run_left_behind_goes_quietly(way: str) -> None:
    """Collected after its loop was closed, a run raises nothing where nothing can catch it."""
    done = run_program(LEFT_BEHIND, WAY=way)
    assert (done.stdout, done.returncode) == ("over\n", 0), done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Error" not in done.stderr


def test_worker_of_a_run_left_behind_is_closed_quietly() -> None:
    """The collector may close a worker, with the last item in a callback, before all the rest."""
    pipeline = Pipeline([Stage("Work", 1, [same], on_success=never)])
    workers: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        await pipeline.feed([1])
        joining = asyncio.create_task(pipeline.join())
        await asyncio.sleep(0.02)
        assert not joining.done()
        workers.extend(task for task in asyncio.all_tasks() if "Work-W0" in task.get_name())

    left_behind(begin)
    [worker] = workers
    coroutine = worker.get_coro()
    assert isinstance(coroutine, CoroutineType)
    coroutine.close()


# What outlives its run


@pytest.mark.parametrize("begun_with", ["run", "start"])
def test_what_outlived_its_run_begins_no_other(begun_with: str) -> None:
    """An `asyncio.Task` of a task that feeds after the run: refused, and nothing is begun."""
    refused: list[str] = []
    orphans: list[asyncio.Task[None]] = []

    async def main() -> None:
        async def feed_later() -> None:
            await asyncio.sleep(10)
            for ask in (pipeline.feed([1]), pipeline.feed_async(one_item())):
                with pytest.raises(PipelineError) as caught:
                    await ask
                refused.append(str(caught.value))
            await pipeline.join()
            await pipeline.shutdown()

        async def task(value: int) -> int:
            orphans.append(asyncio.create_task(feed_later()))
            return value

        pipeline = Pipeline([Stage("Work", 1, [task])])
        if begun_with == "run":
            await pipeline.run([0])
        else:
            await pipeline.feed([0])
            await pipeline.join()
        first = pipeline.results
        await asyncio.wait(orphans)
        await orphans[0]
        assert pipeline.results == first
        assert len(asyncio.all_tasks()) == 1

    virtual(main)
    assert refused == ["this run takes no more items: it was joined, or its input has ended"] * 2


async def one_item() -> AsyncIterator[int]:
    """An async source."""
    yield 1


@pytest.mark.parametrize("way", ["run", "start", "stream"])
def test_what_outlived_its_run_leaves_other_runs_alone(way: str) -> None:
    """It feeds, joins and shuts down no run that others have begun meanwhile."""

    async def main() -> None:
        async def meddle() -> None:
            await asyncio.sleep(10)
            with pytest.raises(PipelineError, match="takes no more items"):
                await pipeline.feed([99])
            await pipeline.join()
            await pipeline.shutdown()

        async def task(value: int) -> int:
            if value == 0:
                orphans.append(asyncio.create_task(meddle()))
            await asyncio.sleep(4)
            return value

        orphans: list[asyncio.Task[None]] = []
        pipeline = Pipeline([Stage("Work", 1, [task])])
        await pipeline.run([0])
        if way == "run":
            values = (await pipeline.run([1, 2, 3])).values()
        elif way == "stream":
            values = [result.value async for result in pipeline.stream([1, 2, 3])]
        else:
            async with pipeline:
                await pipeline.feed([1, 2])
                await asyncio.sleep(7)
                await pipeline.feed([3])
                await pipeline.join()
            values = pipeline.results.values()
        assert values == [1, 2, 3]
        await orphans[0]

    virtual(main)


def test_what_outlived_its_run_may_begin_one_and_feed_it() -> None:
    """A service that was first begun inside a task uses the pipeline like any other code."""

    async def main() -> None:
        async def serve() -> None:
            await asyncio.sleep(10)
            async with pipeline:
                await pipeline.feed([1])
                await pipeline.feed([2])
                served.append(len(pipeline.results))
                await pipeline.join()
            served.append(pipeline.get_stats().items_processed)
            assert (await pipeline.run([3])).values() == [3]

        async def task(value: int) -> int:
            if not services:
                services.append(asyncio.create_task(serve()))
            return value

        services: list[asyncio.Task[None]] = []
        served: list[int] = []
        pipeline = Pipeline([Stage("Work", 1, [task])])
        await pipeline.run([0])
        await services[0]
        assert served == [0, 2]

    virtual(main)


def test_run_left_behind_cannot_be_cancelled() -> None:
    """Cancelling a run whose event loop was closed does nothing: nothing of it can end any more."""
    pipeline = Pipeline([Stage("Work", 1, [never])])
    blocks: list[Any] = []

    async def begin() -> None:
        blocks.append(pipeline.open())
        blocks.append(await blocks[0].__aenter__())
        await blocks[1].feed([1])
        await asyncio.sleep(0.02)

    left_behind(begin)
    blocks[1]._engine.supervisor.cancel()
    assert pipeline.get_dashboard_snapshot().state == "running"
