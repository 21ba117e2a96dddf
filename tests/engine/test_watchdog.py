"""The watchdog's own life: what it takes for a block, what it keeps, what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow._engine.loop_health import watchdog as watchdogs
from antflow._engine.loop_health.watchdog import Watchdog, watchdog
from antflow._engine.loop_health.whereabouts import stack_of
from tests.engine.blocking import (
    BLOCK,
    LOOPS,
    Log,
    Run,
    in_one_loop_daily,
    last_stall,
    rests,
    same,
    snapshot_of,
    warnings_in,
)
from tests.support import run_program


async def sleeps(item: int) -> int:
    if item == 2:
        time.sleep(BLOCK)  # noqa: ASYNC251
    return item


@in_one_loop_daily
@pytest.mark.real_time
def test_loop_that_stood_still_was_not_blocked(run: Run, caplog: Log) -> None:
    """A loop that is run in pieces is not blocked in between."""
    pipeline = Pipeline([Stage("Work", 1, [same])])
    run(pipeline.start())
    time.sleep(BLOCK)
    run(asyncio.sleep(0.3))
    health = pipeline.get_dashboard_snapshot().loop
    run(pipeline.shutdown())
    assert health.stalled_seconds < BLOCK / 2
    assert warnings_in(caplog) == []


@pytest.mark.real_time
def test_loop_that_moved_to_another_thread_is_seen_there(run: Run) -> None:
    """A loop may go on in another thread, and at another depth of its stack."""
    pipeline = Pipeline([Stage("Work", 1, [sleeps])])
    run(pipeline.start())

    async def feed() -> None:
        await asyncio.sleep(0.3)
        await pipeline.feed([2])
        await pipeline.join()

    failures: list[BaseException] = []

    def go_on() -> None:
        try:
            run(feed())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert failures == []
    stall = last_stall(pipeline.get_dashboard_snapshot().loop)
    assert stall.location.endswith(" in sleeps")
    assert stall.worker_name == "Work-W0"


def test_loop_closed_before_the_run_has_ended() -> None:
    """A loop that is closed under a run is not looked after any more, and is not kept."""
    kept = _closed_under_a_run()
    until = time.monotonic() + 20
    while watchdog._heartbeats and time.monotonic() < until:
        time.sleep(0.01)
    assert list(watchdog._heartbeats) == []
    assert kept is not None


def test_loop_given_up_takes_its_heartbeat_along() -> None:
    """The watchdog keeps neither a loop nor a run."""
    gone = weakref.ref(_closed_under_a_run())
    gc.collect()
    assert gone() is None


def _closed_under_a_run() -> object:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(Pipeline([Stage("Work", 1, [same])]).start())
    [heartbeat] = watchdog._heartbeats
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    return heartbeat


def test_run_that_the_garbage_collector_ends_while_the_lock_is_held() -> None:
    """A collection may start on any line, and end a run that was given up: nobody waits then."""
    loop = asyncio.new_event_loop()
    pipeline: Pipeline[Any, Any] = Pipeline([Stage("Work", 1, [same])])

    class Collecting(float):
        """A threshold that has a collection start where two are compared."""

        def __eq__(self, other: object) -> bool:
            loop.run_until_complete(pipeline.shutdown())
            return False

        __hash__ = None  # type: ignore[assignment]

    def main() -> None:
        loop.run_until_complete(pipeline.start())
        assert watchdog.heartbeat_of(loop, Collecting()) is None
        loop.close()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_is_left_behind(run: Run) -> None:
    """After the runs the loop has no timer more, and the one thread sleeps without an end."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        pipeline = Pipeline([Stage("Work", 1, [rests])])
        await asyncio.gather(*[pipeline.run([1]) for _ in range(3)])
        return len(getattr(loop, "_scheduled", []))

    assert run(main()) == 0
    assert list(watchdog._heartbeats) == []
    [thread] = [each for each in threading.enumerate() if each.name == "antflow watchdog"]
    assert thread.daemon
    until = time.monotonic() + 20
    while not _is_parked(thread) and time.monotonic() < until:
        time.sleep(0.01)
    assert _is_parked(thread)


def _is_parked(thread: threading.Thread) -> bool:
    frame = stack_of(thread.ident or 0)[0]
    return frame.f_code.co_name == "_watch" and frame.f_locals.get("look", 0) is None


@in_one_loop_daily
@pytest.mark.real_time
def test_small_runs_do_not_each_wake_the_watchdog(
    run: Run, caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes ten times a second, not once for each run; a block is seen in any of them."""
    own = Watchdog()
    monkeypatch.setattr(watchdogs, "watchdog", own)
    wakes: list[float] = []
    wake = own.wake

    def noted() -> None:
        wakes.append(time.monotonic())
        wake()

    monkeypatch.setattr(own, "wake", noted)
    pipeline = Pipeline([Stage("Work", 1, [sleeps])])

    async def small_runs() -> int:
        began, runs = time.monotonic(), 0
        while time.monotonic() < began + 0.5:
            await pipeline.run([1])
            runs += 1
        return runs

    assert run(small_runs()) > 3 * len(wakes)
    assert wakes
    stall = last_stall(run(snapshot_of(pipeline, [2])).loop)
    assert stall.location.endswith(" in sleeps")
    until = time.monotonic() + 20
    while own._sleeps_until < float("inf") and time.monotonic() < until:
        time.sleep(0.01)
    assert last_stall(run(snapshot_of(pipeline, [2])).loop).location == stall.location


def test_run_goes_on_unwatched_when_no_thread_can_be_started(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the thread a run does what it does; nobody looks."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watchdogs, "watchdog", Watchdog())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    snapshot = run(snapshot_of(Pipeline([Stage("Work", 1, [same])]), range(3)))
    assert snapshot.pipeline_stats.items_processed == 3
    assert (snapshot.loop.stalls, snapshot.loop.hot_spot) == (0, None)


def test_child_by_fork_has_a_watchdog_of_its_own() -> None:
    """A forked child runs a pipeline, and who blocks its loop is told there, too."""
    done = run_program(
        """
        import asyncio, os, sys, time
        from antflow import Pipeline, Stage

        async def blocks(item):
            time.sleep(0.8)

        async def main(name):
            pipeline = Pipeline([Stage(name, 1, [blocks])])
            await pipeline.run([1])
            stall = pipeline.get_dashboard_snapshot().loop.last_stall
            print(stall.worker_name, stall.location, flush=True)

        asyncio.run(main("Parent"))
        child = os.fork()
        if not child:
            asyncio.run(main("Child"))
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert done.stdout.splitlines() == [
        "Parent-W0 <string>:6 in blocks",
        "Child-W0 <string>:6 in blocks",
    ], done.stderr


STOP = 1.0
STOPPED = """
import asyncio, sys, time
import uvloop
from antflow import Pipeline, Stage

longest = 0.0

async def task(number):
    global longest
    if number == 100:
        print("begun", flush=True)
    until = time.monotonic() + 0.004
    while time.monotonic() < until:
        pass
    stall = pipeline.get_dashboard_snapshot().loop.last_stall
    longest = max(longest, stall.seconds if stall else 0.0)

pipeline = Pipeline([Stage("A", 2, [task])])

async def main():
    await pipeline.run(range(250))
    print(longest)

make = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=make) as runner:
    runner.run(main())
"""


def test_process_that_is_stopped_has_no_stall() -> None:
    """Ctrl-Z and fg, or a lid that was shut: nothing ran, so nothing blocked the loop."""
    with ExitStack() as stack:
        processes = {}  # all of them stand still at the same time
        for loop in LOOPS:
            command = [sys.executable, "-c", STOPPED, loop]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            processes[loop] = stack.enter_context(process)
        for process in processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        for _ in range(2):
            for process in processes.values():
                process.send_signal(signal.SIGSTOP)
            time.sleep(STOP)
            for process in processes.values():
                process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        for loop, process in processes.items():
            assert process.stdout is not None
            # On a busy machine there may be short blocks, but none of the stops is among them.
            assert float(process.stdout.readline()) < STOP / 2, loop


STOPPED_IN_A_BLOCK = """
import asyncio, sys
from antflow import Pipeline, Stage

def seconds():
    stall = pipeline.get_dashboard_snapshot().loop.last_stall
    return stall.seconds if stall else 0.0

async def blocks(number):
    print("begun", flush=True)
    sys.stdin.readline()
    print(seconds(), flush=True)

pipeline = Pipeline([Stage("A", 1, [blocks])])

async def main():
    await pipeline.run([1])
    print(seconds(), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("before", [0.0, 0.5], ids=["before it is noted", "after it is noted"])
def test_stop_in_a_block_is_not_part_of_it(before: float) -> None:
    """A block in which the process is stopped lasts as long as the process ran, not longer."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED_IN_A_BLOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        time.sleep(before)
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOP)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        during, after = (float(process.stdout.readline()) for _ in range(2))
        elapsed = time.monotonic() - began
    for stall in (during, after):
        assert 0.25 < stall < elapsed - STOP / 2
