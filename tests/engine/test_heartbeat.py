"""The event loop is watched: who blocks it is named, in the snapshot and in the log."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from antflow import DashboardSnapshot, LoopHealth, LoopStall, Pipeline, RunHandle, Stage
from antflow._engine.run import current_run
from antflow.testing import VirtualLoop
from tests.engine.blocking import (
    BLOCK,
    LONGEST,
    LOOPS,
    Log,
    Run,
    Told,
    in_one_loop_daily,
    last_stall,
    longest,
    rests,
    same,
    snapshot_of,
    warnings_in,
)

pytestmark = pytest.mark.real_time

HERE = Path(__file__).name

told = threading.Event()
"""The watchdog has told of a block; see `Told`."""


@pytest.fixture
def log() -> Iterator[Told]:
    """What is logged; whatever waits until it is told of goes on then."""
    told.clear()
    handler = Told(told)
    logging.getLogger("antflow").addHandler(handler)
    yield handler
    logging.getLogger("antflow").removeHandler(handler)


# -- who blocks the loop ----------------------------------------------------------------------


async def sleeps(item: int) -> int:
    if item == 2:
        time.sleep(BLOCK)  # noqa: ASYNC251
    return item


async def waits(item: int) -> int:
    if item == 2:
        told.wait(LONGEST)
    return item


def waits_inline(item: int) -> int:
    if item == 2:
        told.wait(LONGEST)
    return item


async def computes(item: int) -> int:
    until = time.monotonic() + LONGEST
    while item == 2 and not told.is_set() and time.monotonic() < until:
        pass
    return item


async def waits_deep_inside(item: int) -> int:
    await asyncio.sleep(0)
    return await waits(item)


async def keeps_all_threads_out(item: int) -> int:
    """One call into C, long enough, that gives no other thread a turn."""
    if item == 2:
        until, numbers = time.monotonic() + BLOCK, range(60_000_000)
        while time.monotonic() < until:
            sum(numbers)
    return item


async def waits_in_batch(items: list[int]) -> list[int]:
    if 2 in items:
        told.wait(LONGEST)
    return items


STAGES: dict[str, tuple[Callable[[], Stage], int, str]] = {
    "async": (lambda: Stage("Parse", 1, [sleeps]), 2, "sleep(BLOCK)"),
    "inline": (lambda: Stage("Parse", 1, [waits_inline], executor="inline"), 2, "wait(LONGEST)"),
    "pure Python": (lambda: Stage("Parse", 1, [computes]), 2, ""),
    "deep inside": (lambda: Stage("Parse", 1, [waits_deep_inside]), 2, "wait(LONGEST)"),
    "C": (lambda: Stage("Parse", 1, [keeps_all_threads_out]), 2, ""),
    "isolated": (lambda: Stage("Parse", 1, [waits], isolate_context=True), 2, "wait(LONGEST)"),
    "batch": (lambda: Stage("Parse", 1, [waits_in_batch], batch=3), 0, "wait(LONGEST)"),
    "timeout": (lambda: Stage("Parse", 1, [waits], timeout=60), 2, "wait(LONGEST)"),
}


@in_one_loop_daily
@pytest.mark.parametrize("kind", STAGES)
def test_block_by_a_task_is_told_with_all_names(run: Run, kind: str, log: Told) -> None:
    """Stage, worker, item, function and line of a task that blocks are in snapshot and log."""
    make, item, line = STAGES[kind]
    pipeline = Pipeline([Stage("Read", 2, [same]), make(), Stage("Write", 2, [goes_on])])
    health = run(snapshot_of(pipeline, range(3))).loop
    stall = last_stall(health)
    assert health.stalls == 1
    assert (stall.stage, stall.worker_name, stall.item_id) == ("Parse", "Parse-W0", item)
    file, _, place = stall.location.partition(":")
    assert Path(file).name == HERE
    assert place.split(" in ")[1] in {"sleeps", "waits", "waits_inline", "computes"} | {
        "keeps_all_threads_out",
        "waits_in_batch",
    }
    number = int(place.split(" in ")[0])
    assert stall.line == Path(__file__).read_text("utf-8").splitlines()[number - 1].strip()
    assert line in stall.line
    [message] = warnings_in(log)
    assert f"by Parse-W0 with item {item} at {stall.location}" in message
    assert "plain function" in message


async def goes_on(item: Any) -> Any:
    """Not over at once, so that what has just blocked the loop can still be seen."""
    await asyncio.sleep(0.1)
    return item


def test_block_is_told_at_once_and_can_be_read_while_it_goes_on_now(run: Run) -> None:
    """It is there from the call of ``on_block`` until the loop goes on, and it gets longer."""
    seen: list[LoopStall | None] = []

    async def look(item: int) -> None:
        this = current_run.get()
        assert this is not None
        watch = this.loop_watch
        assert watch is not None
        seen.append(watch.block())
        watch.on_block = told.set
        told.wait(LONGEST)
        seen.append(watch.block())
        time.sleep(BLOCK / 4)  # noqa: ASYNC251
        seen.append(watch.block())
        await asyncio.sleep(BLOCK)
        seen.append(watch.block())

    told.clear()
    run(Pipeline([Stage("Look", 1, [look])]).run([1]))
    before, first, second, after = seen
    assert (before, after) == (None, None)
    assert first is not None
    assert second is not None
    assert first.stage == "Look"
    assert second.seconds >= first.seconds + BLOCK / 4


def test_block_by_a_function_in_c_is_told_by_its_name(run: Run, caplog: Log) -> None:
    """A task that is no Python at all is named as such."""
    stage = Stage("Wait", 1, [time.sleep], executor="inline")
    stall = last_stall(run(snapshot_of(Pipeline([stage]), [BLOCK])).loop)
    assert (stall.worker_name, stall.location, stall.line) == ("Wait-W0", "sleep", "")
    assert len(warnings_in(caplog)) == 1


def blocking_source() -> Iterator[int]:
    yield 1
    told.wait(LONGEST)
    yield 2


async def blocking_async_source() -> AsyncIterator[int]:
    yield 1
    told.wait(LONGEST)
    yield 2


def blocking_callback(item_id: Any, value: Any, payload: Any) -> None:
    if item_id == 1:
        told.wait(LONGEST)


def blocking_choice(value: int) -> bool:
    if value == 1:
        told.wait(LONGEST)
    return False


class BlockingDisplay:
    def on_start(self, pipeline: Any, total_items: int) -> None:
        told.wait(LONGEST)


OTHERS: dict[str, tuple[Callable[[], Coroutine[Any, Any, Pipeline]], str]] = {}


def other(function: str) -> Callable[[Callable[[], Coroutine[Any, Any, Pipeline]]], None]:
    def note(program: Callable[[], Coroutine[Any, Any, Pipeline]]) -> None:
        OTHERS[program.__name__] = program, function

    return note


@other("blocking_source")
async def source() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [same])])
    await pipeline.run(blocking_source())
    return pipeline


@other("blocking_async_source")
async def async_source() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [same])])
    await pipeline.run(blocking_async_source())
    return pipeline


@other("blocking_callback")
async def callback() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [same], on_success=blocking_callback)])
    await pipeline.run(range(2))
    return pipeline


@other("blocking_choice")
async def skip_if() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [same], skip_if=blocking_choice)])
    await pipeline.run(range(2))
    return pipeline


@other("BlockingDisplay.on_start")
async def display() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [same])])
    await pipeline.run(range(2), custom_dashboard=BlockingDisplay())
    return pipeline


@other("waits")
async def task_of_somebody_else() -> Pipeline:
    pipeline = Pipeline([Stage("Work", 1, [rests])])
    async with pipeline.open() as run:
        await run.feed([1])
        foreign = asyncio.create_task(waits(2))
        await foreign
    return pipeline


@other("blocks")
async def timer_of_somebody_else() -> Pipeline:
    def blocks() -> None:
        told.wait(LONGEST)

    pipeline = Pipeline([Stage("Work", 1, [rests])])
    async with pipeline.open() as run:
        await run.feed([1])
        await asyncio.sleep(0.3)
        asyncio.get_running_loop().call_later(0.01, blocks)
        await asyncio.sleep(0.3)
    return pipeline


@other("body_of_the_with_statement")
async def body_of_the_with_statement() -> Pipeline:
    async with Pipeline([Stage("Work", 1, [rests])]) as pipeline:
        await pipeline.feed([1])
        told.wait(LONGEST)
        await pipeline.join()
    return pipeline


@in_one_loop_daily
@pytest.mark.parametrize("program", OTHERS)
def test_block_by_no_worker_is_told_by_its_place_alone(run: Run, program: str, log: Told) -> None:
    """What is no task of a worker is named by function and line, and no worker is accused."""
    main, function = OTHERS[program]
    health = run(main()).get_dashboard_snapshot().loop
    stall = last_stall(health)
    assert health.stalls == 1
    assert (stall.stage, stall.worker_name, stall.item_id) == ("", "", None)
    assert stall.location.endswith(f" in {function}")
    assert "told.wait(LONGEST)" in stall.line
    [message] = warnings_in(log)
    by = f" by the source {function}" if "source" in function else ""
    assert f"so far,{by} at {stall.location}" in message


@in_one_loop_daily
def test_block_by_many_short_steps_names_no_worker(run: Run, caplog: Log) -> None:
    """Fifty workers who hold the loop up for a moment each: stage and function, but nobody."""
    here: list[int] = []
    all_here = asyncio.Event()

    async def a_moment(item: int) -> int:
        here.append(item)
        if len(here) == 50:
            all_here.set()
        await all_here.wait()
        time.sleep(0.02)  # noqa: ASYNC251
        return item

    stall = last_stall(run(snapshot_of(Pipeline([Stage("Work", 50, [a_moment])]), range(50))).loop)
    assert (stall.stage, stall.worker_name, stall.item_id) == ("Work", "", None)
    assert stall.location.endswith(" in a_moment")
    [message] = warnings_in(caplog)
    assert f"by stage Work at {stall.location}" in message


@in_one_loop_daily
def test_repeated_block_is_counted_and_told_once(run: Run, caplog: Log) -> None:
    """The same function blocks again and again: one warning, all of it in the counts."""

    async def naps(item: int) -> int:
        await asyncio.sleep(0.05)
        time.sleep(0.5)  # noqa: ASYNC251
        return item

    health = run(snapshot_of(Pipeline([Stage("Work", 1, [naps])]), range(3))).loop
    assert health.stalls == 3
    assert health.stalled_seconds > 0.6
    assert len(warnings_in(caplog)) == 1


def test_item_and_stage_from_outside_forge_no_line(log: Told) -> None:
    """Ids and names that drive terminals or begin new lines are text in the log."""

    async def main() -> None:
        async def blocks(value: Any) -> None:
            told.wait(LONGEST)

        await Pipeline([Stage("[red]", 1, [blocks])]).run([{"id": "\x1b[2Ja\nb", "value": 1}])

    asyncio.run(main())
    [message] = warnings_in(log)
    assert message.isprintable()


# -- the books --------------------------------------------------------------------------------


@in_one_loop_daily
def test_blocked_seconds_are_those_of_every_worker(run: Run) -> None:
    """Every worker of every stage loses the time, and all its seconds still add up."""
    pipeline = Pipeline([Stage("Read", 3, [same]), Stage("Parse", 2, [sleeps])])
    snapshot = run(snapshot_of(pipeline, range(20)))
    for stats in snapshot.pipeline_stats.stage_stats.values():
        lost = stats.stalled_seconds
        assert lost == pytest.approx(stats.workers * snapshot.loop.stalled_seconds)
        parts = [
            stats.busy_seconds,
            stats.limited_seconds,
            stats.blocked_seconds,
            stats.retry_waiting_seconds,
            stats.starved_seconds,
        ]
        assert min(parts) >= 0
        assert sum(parts) + lost == pytest.approx(stats.workers * snapshot.elapsed, rel=0.05)
    assert snapshot.pipeline_stats.stage_stats["Parse"].stalled_seconds > BLOCK
    assert last_stall(snapshot.loop).seconds <= snapshot.loop.stalled_seconds <= snapshot.elapsed


def test_run_that_ends_with_the_block_has_it_in_its_books(run: Run, log: Told) -> None:
    """The last item blocks and the run is over at once: it is told all the same."""

    async def main() -> DashboardSnapshot:
        pipeline = Pipeline([Stage("Work", 1, [waits])])
        return await snapshot_of(pipeline, [2])

    snapshot = run(main())
    assert snapshot.state == "finished"
    assert snapshot.loop.stalls == 1
    stats = snapshot.pipeline_stats.stage_stats["Work"]
    assert stats.stalled_seconds == pytest.approx(snapshot.loop.stalled_seconds)
    assert stats.stalled_seconds > stats.starved_seconds


@in_one_loop_daily
def test_run_that_is_over_hears_of_no_later_block(run: Run) -> None:
    """What another run of the same loop does then changes nothing of it."""

    async def main() -> tuple[DashboardSnapshot, DashboardSnapshot]:
        pipeline = Pipeline([Stage("Work", 3, [rests])])
        async with Pipeline([Stage("Work", 1, [sleeps])]).open() as other:
            before = await snapshot_of(pipeline, [1])
            await other.feed([2])
        assert other.snapshot().loop.stalls
        return before, pipeline.get_dashboard_snapshot()

    before, after = run(main())
    assert (after.loop, after.pipeline_stats) == (before.loop, before.pipeline_stats)


@in_one_loop_daily
def test_run_that_is_cancelled_after_a_block(run: Run, log: Told) -> None:
    """A cancelled run has what it knew, and keeps it."""

    async def main() -> tuple[LoopHealth, LoopHealth]:
        async def blocks(item: int) -> None:
            told.wait(LONGEST)
            running.cancel()
            await asyncio.sleep(3600)

        pipeline = Pipeline([Stage("Work", 1, [blocks])])
        running = asyncio.create_task(pipeline.run([2, 3]))
        with pytest.raises(asyncio.CancelledError):
            await running
        first = pipeline.get_dashboard_snapshot().loop
        await asyncio.sleep(0.3)
        return first, pipeline.get_dashboard_snapshot().loop

    first, later = run(main())
    assert first.stalls == 1
    assert first == later


@in_one_loop_daily
def test_block_before_a_run_is_not_in_its_books(run: Run) -> None:
    """A run that begins after a block, while another one is under way, knows nothing of it."""

    async def main() -> tuple[LoopHealth, LoopHealth]:
        pipeline, late = (
            Pipeline([Stage("Work", 1, [rests])]),
            Pipeline([Stage("Late", 1, [rests])]),
        )
        async with pipeline.open() as first:
            time.sleep(BLOCK)  # noqa: ASYNC251
            async with late.open() as second:
                await asyncio.sleep(0.2)
                return first.snapshot().loop, second.snapshot().loop

    first, second = run(main())
    assert first.stalls == 1
    assert (second.stalls, second.stalled_seconds) == (0, 0.0)


@in_one_loop_daily
def test_healthy_run_has_no_stall(run: Run) -> None:
    """Work that gives way, in the loop or in threads, is no stall however long it takes."""

    async def computes_and_gives_way(item: int) -> int:
        until = time.monotonic() + BLOCK
        while time.monotonic() < until:
            _compute(0.005)
            await asyncio.sleep(0)
        return item

    def waits_in_thread(item: int) -> int:
        time.sleep(BLOCK)
        return item

    stages = [Stage("A", 2, [computes_and_gives_way]), Stage("B", 2, [waits_in_thread])]
    assert longest(run(snapshot_of(Pipeline(stages), range(2))).loop) < BLOCK / 2


# -- several at once --------------------------------------------------------------------------


def test_two_runs_in_one_loop(run: Run, log: Told) -> None:
    """Both runs know of the block; its worker is named in its own run alone; one warning."""

    async def main() -> list[LoopStall]:
        one, two = Pipeline([Stage("One", 1, [waits])]), Pipeline([Stage("Two", 1, [rests])])
        async with two.open() as quiet:
            await quiet.feed([1])
            await one.run([2])
            return [last_stall(each.get_dashboard_snapshot().loop) for each in (one, two)]

    named, other = run(main())
    assert (named.stage, named.worker_name, named.item_id) == ("One", "One-W0", 0)
    assert (other.stage, other.worker_name, other.item_id) == ("", "", None)
    assert named.location == other.location
    [message] = warnings_in(log)
    assert "One-W0" in message


def test_two_loops_in_two_threads(caplog: Log) -> None:
    """Each loop has its own heartbeat: only the one that is blocked is told of."""
    snapshots: dict[str, DashboardSnapshot] = {}

    def work(name: str, task: Any) -> None:
        main = snapshot_of(Pipeline([Stage(name, 1, [task])]), [1, 2, 3])
        with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
            snapshots[name] = runner.run(main)

    async def yields(item: int) -> int:
        await asyncio.sleep(0.3)
        return item

    threads = [
        threading.Thread(target=work, args=args)
        for args in (("asyncio", sleeps), ("uvloop", yields))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert last_stall(snapshots["asyncio"].loop).worker_name == "asyncio-W0"
    assert longest(snapshots["uvloop"].loop) < BLOCK / 2
    assert len(warnings_in(caplog)) == 1


def test_snapshot_from_another_thread_during_the_block(run: Run) -> None:
    """Who looks from another thread while it lasts sees who blocks the loop, and for how long."""
    seen: list[LoopHealth] = []

    async def blocks(item: RunHandle[Any]) -> None:
        looker = threading.Thread(target=look, args=(item,))
        looker.start()
        looker.join()

    def look(run: RunHandle[Any]) -> None:
        until = time.monotonic() + 20
        who = ""
        while not who and time.monotonic() < until:
            time.sleep(0.01)
            seen.append(run.snapshot().loop)
            stall = seen[-1].last_stall
            who = "" if stall is None else stall.worker_name  # it counts a moment before it is seen
        run.stats()

    async def main() -> LoopHealth:
        async with Pipeline([Stage("Work", 1, [blocks])]).open() as run:
            await run.feed([run])
            await run.join()
            return run.snapshot().loop

    after = run(main())
    counts = [health.stalls for health in seen]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 1)
    assert last_stall(seen[-1]).worker_name == "Work-W0"
    assert seen[-1].lag > 0
    assert after.stalls == 1
    assert last_stall(after).seconds >= last_stall(seen[-1]).seconds


def test_log_handler_that_waits_for_the_blocked_loop() -> None:
    """A handler that needs the very loop that is blocked holds up nothing but the telling."""
    told = threading.Event()

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is blocked" in record.getMessage():
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
                told.set()

    handler = Waits()
    logging.getLogger("antflow").addHandler(handler)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        try:
            snapshot = runner.run(snapshot_of(Pipeline([Stage("Work", 1, [sleeps])]), [2]))
            runner.run(asyncio.to_thread(told.wait, 20))
        finally:
            logging.getLogger("antflow").removeHandler(handler)
    assert told.is_set()
    assert snapshot.loop.stalls == 1


def test_telling_that_takes_long_is_not_a_block_of_another_loop(caplog: Log) -> None:
    """While a log handler holds the watchdog up, a loop that works and gives way is not accused."""
    telling, told = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is blocked" in record.getMessage():
                telling.set()
                time.sleep(BLOCK)
                told.set()

    async def gives_way(item: int) -> int:
        while not told.is_set():
            _compute(0.01)
            await asyncio.sleep(0)
        for _ in range(30):
            _compute(0.01)
            await asyncio.sleep(0)
        return item

    found: list[LoopHealth] = []
    healthy = Pipeline([Stage("Healthy", 1, [gives_way])])
    handler = Slow()
    logging.getLogger("antflow").addHandler(handler)
    other = threading.Thread(
        target=lambda: found.append(asyncio.run(snapshot_of(healthy, [1])).loop)
    )
    try:
        other.start()
        asyncio.run(snapshot_of(Pipeline([Stage("Work", 1, [sleeps])]), [2]))
        other.join()
    finally:
        logging.getLogger("antflow").removeHandler(handler)
    assert telling.is_set()
    assert [longest(health) < BLOCK / 2 for health in found] == [True]


def _compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


# -- when it is off, and what is left behind --------------------------------------------------


def test_virtual_time_takes_no_step_more() -> None:
    """In a loop with its own time an hour of waiting has no heartbeat, and no stall."""

    async def main(after: float | None) -> None:
        async def wait(item: int) -> None:
            await asyncio.sleep(3600)
            time.sleep(0.15)  # noqa: ASYNC251

        pipeline = Pipeline([Stage("Wait", 1, [wait])], blocked_loop_after=after)
        await pipeline.run([1])
        assert pipeline.get_dashboard_snapshot().loop == LoopHealth()

    steps = []
    for after in (None, 0.05):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main(after))
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            steps.append(loop.steps)
    assert steps[0] == steps[1]


async def naps(item: int) -> None:
    time.sleep(0.4)  # noqa: ASYNC251 - long enough to be told of by default


@in_one_loop_daily
def test_blocks_are_not_looked_for_when_switched_off(run: Run, caplog: Log) -> None:
    """With ``blocked_loop_after=None`` nothing is seen and nothing told."""
    pipeline = Pipeline([Stage("Work", 1, [naps])], blocked_loop_after=None)
    assert run(snapshot_of(pipeline, [2])).loop == LoopHealth()
    assert warnings_in(caplog) == []


def test_block_shorter_than_the_threshold(run: Run, caplog: Log) -> None:
    """A block below the threshold is no stall; the seconds count all the same."""
    pipeline = Pipeline([Stage("Work", 1, [naps])], blocked_loop_after=60.0)
    health = run(snapshot_of(pipeline, [2])).loop
    assert health.stalls == 0
    assert health.stalled_seconds > 0.1
    assert warnings_in(caplog) == []


def test_short_threshold(run: Run) -> None:
    """A threshold below the usual delay is kept, too."""

    async def short(item: int) -> None:
        if not pipeline.get_dashboard_snapshot().loop.stalls:  # else it has been seen
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0)

    # On a busy machine a block may look as if the whole process had stood still: one in twenty not.
    pipeline = Pipeline([Stage("Work", 1, [short])], blocked_loop_after=0.05)
    assert run(snapshot_of(pipeline, range(20))).loop.stalls > 0
