"""Real signals: the first one drains, the second one or the time cancels, and all is as before."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import antflow
from antflow import Pipeline, PipelineError, Stage
from antflow._engine.supervisor import Supervisor
from antflow.testing import Calls, run_virtual

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")

SOURCE = Path(antflow.__file__).parents[1]
HANG_GUARD = 60.0
"""Real seconds that a program may take before it counts as hanging."""

DEAF = """
    import asyncio, sys, time
    from antflow import Pipeline, Stage
    from antflow._engine import signals

    signals.TIME_TO_CANCEL = 0.3

    async def blocks(value):
        print("ready", flush=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)

    async def goes_on(value):
        print("ready", flush=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    task = {"blocks": blocks, "goes_on": goes_on}[sys.argv[1]]
    asyncio.run(Pipeline([Stage("A", 1, [task])]).run([1], graceful_signals=50))
"""

PROGRAM = """
    import asyncio, json, os, signal, sys
    from antflow import Pipeline, Stage

    plan = json.loads(sys.argv[1])
    seen = []

    async def work(value):
        for name in plan["signals"].get(str(value), []):
            os.kill(os.getpid(), getattr(signal, name))
            await asyncio.sleep(0.05)
        if value == 0 and plan["ready"]:
            print("ready", flush=True)
        seen.append(value)
        await asyncio.sleep(0.01 if value < plan["stuck_from"] else 1000)
        return value

    async def endless():
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0)

    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    async def silent():
        yield 0
        yield 1
        await asyncio.Event().wait()

    pipeline = Pipeline([Stage("A", 2, [work], queue_capacity=2)])

    async def main():
        sources = {"async": endless, "sync": numbers, "silent": silent}
        await asyncio.sleep(0)
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        told = {}
        try:
            items = sources[plan["source"]]()
            results = await pipeline.run(items, graceful_signals=plan["seconds"])
            told["stopped_by"] = results.stopped_by and results.stopped_by.name
        except BaseException as error:
            told["error"] = [type(error).__name__, str(error)]
            if not isinstance(error, asyncio.CancelledError):
                raise
        finally:
            after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            stats = pipeline.get_stats()
            told["in_flight"] = stats.items_in_flight
            told["accepted"] = stats.items_accepted
            told["processed"] = stats.items_processed
            told["cancelled"] = stats.items_cancelled
            told["began"] = len(seen)
            told["restored"] = before == after
            told["tasks"] = len(asyncio.all_tasks()) - 1
            print(json.dumps(told), flush=True)

    asyncio.run(main())
"""


def start(**plan: Any) -> subprocess.Popen[str]:
    """Start the program; the plan says at which item it signals itself, and what it does."""
    plan = {
        "signals": {},
        "stuck_from": 10**9,
        "source": "sync",
        "seconds": 30.0,
        "ready": False,
    } | plan
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), json.dumps(plan)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Wait for the program; how it ended, and what it told."""
    try:
        out, err = process.communicate(timeout=HANG_GUARD)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the program hangs: {out}{err}")
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert lines, err
    told: dict[str, Any] = json.loads(lines[-1])
    assert told["in_flight"] == 0
    assert told["restored"]
    assert told["tasks"] == 0
    return process.returncode, told


@pytest.mark.parametrize("source", ["sync", "async", "silent"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_first_signal_finishes_what_is_in_flight(name: str, source: str) -> None:
    """The source is endless, or silent for ever: the run returns, nothing accepted is lost."""
    at = "1" if source == "silent" else "10"
    code, told = finish(start(signals={at: [name]}, source=source))
    assert code == 0
    assert told["stopped_by"] == name
    assert told["processed"] == told["accepted"] == told["began"]
    assert 2 <= told["accepted"] < 20


@pytest.mark.parametrize(
    ("first", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)]
)
def test_end_of_the_time_cancels(first: str, code: int) -> None:
    """What is in flight is stuck: after the time it is cancelled, and the process ends as usual."""
    ended, told = finish(start(signals={"3": [first]}, stuck_from=3, seconds=0.1))
    assert ended == code
    assert told["cancelled"] == told["accepted"] - told["processed"] > 0


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_second_signal_cancels_at_once(second: str) -> None:
    """The first drains, the second one does not wait."""
    code, told = finish(start(signals={"3": ["SIGINT", second]}, stuck_from=3, seconds=1000.0))
    assert code == -signal.SIGINT
    assert told["cancelled"] > 0


def test_signal_from_outside() -> None:
    """Sent by another process, as a terminal or a service manager does."""
    process = start(ready=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, told = finish(process)
    assert (code, told["stopped_by"]) == (0, "SIGTERM")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """A shell script's background job ignores Ctrl-C: the run goes on, and hears SIGTERM."""

    async def work(number: int) -> int:
        if number in (3, 6):
            signal.raise_signal(signal.SIGINT if number == 3 else signal.SIGTERM)
        await asyncio.sleep(0)
        return number

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipeline = Pipeline([Stage("Work", 1, [work])])
        results = run_virtual(lambda: pipeline.run(range(100), graceful_signals=5))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert results.stopped_by == signal.SIGTERM
    assert 6 in results.values()


def test_run_without_a_signal_says_so_and_leaves_the_handlers() -> None:
    """No signal came: ``stopped_by`` is None, and who handled signals before does so again."""

    async def main() -> Any:
        return await Pipeline([Stage("A", 1, [Calls()])]).run(range(3), graceful_signals=5)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    results = run_virtual(main)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert (results.stopped_by, len(results)) == (None, 3)


def test_signal_ends_a_crawl_that_feeds_itself() -> None:
    """After the first signal the run takes in nothing more, not even from its own tasks."""
    refused: list[int] = []

    async def crawl(value: int) -> int:
        if value == 2:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        if value < 50:
            try:
                await pipeline.feed([value + 1])
            except PipelineError:
                refused.append(value)
        return value

    pipeline = Pipeline([Stage("A", 1, [crawl])])
    results = run_virtual(lambda: pipeline.run([0], graceful_signals=3600))
    assert (results.stopped_by, results.values()) == (signal.SIGTERM, [0, 1, 2])
    assert refused == [2]


def test_run_that_drained_in_time_leaves_no_timer() -> None:
    """After a signal the time for draining is an hour; the run is over sooner, and so is that."""

    async def signals(value: int) -> int:
        if value == 2:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
        return value

    async def main() -> tuple[Any, list[Any]]:
        results = await Pipeline([Stage("A", 1, [signals])]).run(range(9), graceful_signals=3600)
        loop: Any = asyncio.get_running_loop()
        return results, [timer for *_, timer in loop._timers if not timer.cancelled()]

    results, timers = run_virtual(main)
    assert results.stopped_by is signal.SIGTERM
    assert timers == []


def test_signal_in_the_last_step_of_a_run_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop will not come to it before `run` returns: ``stopped_by`` says it came."""
    wait = Supervisor.wait

    async def wait_and_signal(supervisor: Supervisor) -> None:
        await wait(supervisor)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Supervisor, "wait", wait_and_signal)

    async def main() -> tuple[Any, list[Any]]:
        results = await Pipeline([Stage("A", 1, [Calls()])]).run(range(3), graceful_signals=3600)
        await asyncio.sleep(1)
        loop: Any = asyncio.get_running_loop()
        return results, [timer for *_, timer in loop._timers if not timer.cancelled()]

    results, timers = run_virtual(main)
    assert (results.stopped_by, len(results)) == (signal.SIGTERM, 3)
    assert timers == []


async def read_slowly(stream: Any, *signals: signal.Signals) -> list[Any]:
    """Read a stream; when the run is over, and results still wait, the signals come."""
    values = []
    async for result in stream:
        values.append(result.value)
        await asyncio.sleep(10)
        for number in signals:
            signal.raise_signal(number)
            await asyncio.sleep(1)
        signals = ()
    return values


@pytest.mark.parametrize("display", [None, "slow"])
def test_signal_after_the_run_lets_the_results_be_read(display: str | None) -> None:
    """One signal while the results of a run that is over are read: they are, and it is noted."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        shown = None if display is None else SlowToFinish()
        stream = pipeline.stream(range(5), graceful_signals=3, custom_dashboard=shown)
        assert len(await read_slowly(stream, signal.SIGINT)) == 5
        assert pipeline.results.stopped_by is signal.SIGINT

    run_virtual(main)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_after_the_run_comes_out_of_its_stream(number: signal.Signals) -> None:
    """It is not swallowed: it comes out after the last result, as that of a run under way does."""

    async def main() -> None:
        stream = Pipeline([Stage("A", 1, [Calls()])]).stream(range(5), graceful_signals=3600)
        with pytest.raises(KeyboardInterrupt if number is signal.SIGINT else SystemExit):
            await read_slowly(stream, number, number)

    run_virtual(main)


class SlowToFinish:
    def on_update(self, snapshot: Any) -> None:
        pass

    async def on_finish(self, results: Any, summary: Any) -> None:
        await asyncio.sleep(4)


def test_second_signal_while_the_display_ends_comes_out_of_the_run() -> None:
    """A run that is over and waits for its display hears the second signal, too."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        for seconds in (1, 2):
            asyncio.get_running_loop().call_later(seconds, signal.raise_signal, signal.SIGTERM)
        with pytest.raises(SystemExit):
            await pipeline.run(range(5), graceful_signals=3600, custom_dashboard=SlowToFinish())

    run_virtual(main)


def test_time_to_drain_ends_with_the_run() -> None:
    """A run that drained in time is not cancelled while its results are read, or shown."""

    async def signals(value: int) -> int:
        if value == 2:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [signals])])
        stream = pipeline.stream(count(), graceful_signals=3, custom_dashboard=SlowToFinish())
        values = await read_slowly(stream)
        assert values == list(range(len(values)))
        assert pipeline.results.stopped_by is signal.SIGTERM
        results = await pipeline.run(count(), graceful_signals=3, custom_dashboard=SlowToFinish())
        assert results.stopped_by is signal.SIGTERM

    run_virtual(main)


def test_other_threads_are_refused_before_anything_begins() -> None:
    """Signals reach the main thread only: elsewhere the option is an error."""
    caught: list[BaseException] = []
    calls = Calls()

    async def main() -> None:
        await Pipeline([Stage("A", 1, [calls])]).run(range(3), graceful_signals=5)

    def elsewhere() -> None:
        try:
            run_virtual(main)
        except BaseException as error:  # why: whatever it is, it is looked at below
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(caught[0], RuntimeError)
    assert "main thread" in str(caught[0])
    assert not calls.made


def test_two_graceful_runs_at_once_put_back_what_was_there() -> None:
    """Whichever of them ends first, the signals go back to whom they belonged to before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def wait_for(event: asyncio.Event) -> None:
            await event.wait()

        stage = Stage("A", 1, [wait_for])
        runs = [
            asyncio.ensure_future(Pipeline([stage]).run([event], graceful_signals=5.0))
            for event in (first, second)
        ]
        await asyncio.sleep(0.01)
        here = signal.getsignal(signal.SIGTERM)
        first.set()
        await runs[0]
        assert signal.getsignal(signal.SIGTERM) is here, "the second still hears it"
        second.set()
        await runs[1]

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("graceful_signals", [None, 5.0])
@pytest.mark.parametrize("way", ["task", "stream", "dropped stream"])
def test_run_that_outlives_the_main_task(way: str, graceful_signals: float | None) -> None:
    """The next `asyncio.run`, and the next run of the same `asyncio.Runner`, hear Ctrl-C."""
    pipeline = Pipeline([Stage("A", 1, [str])])
    kept: list[Any] = []

    async def first() -> None:
        if way == "task":
            kept.append(
                asyncio.ensure_future(pipeline.run(count(), graceful_signals=graceful_signals))
            )
            await asyncio.sleep(0.01)
            return
        results = pipeline.stream(count(), graceful_signals=graceful_signals)
        await anext(results)
        if way == "stream":
            kept.append(results)

    async def second() -> str:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    asyncio.run(first())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert asyncio.run(second()) == "cancelled"
    if graceful_signals is None:  # else it is the run that hears it
        with asyncio.Runner() as runner:
            runner.run(first())
            assert runner.run(second()) == "cancelled"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("graceful_signals", [None, 5.0])
def test_results_of_asyncio_run_are_not_kept(graceful_signals: float | None) -> None:
    """`asyncio.run(pipeline.run(…))`: no handler of signals keeps the results."""

    class Value:
        pass

    def run() -> weakref.ref[Value]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        results = asyncio.run(pipeline.run([Value()], graceful_signals=graceful_signals))
        return weakref.ref(results[0].input)

    value = run()
    gc.collect()
    assert value() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_the_loop_was_closed_under_a_run(number: signal.Signals) -> None:
    """The run is gone with its event loop: a signal does what it did before, at the first time."""
    pipeline = Pipeline([Stage("A", 1, [str])])
    heard: list[int] = []

    async def main() -> Any:
        results = pipeline.stream(count(), graceful_signals=5.0)
        await anext(results)
        return results

    before = signal.signal(number, lambda number, _: heard.append(number))
    try:
        loop = asyncio.new_event_loop()
        kept = loop.run_until_complete(main())
        loop.close()
        loop.set_exception_handler(lambda *_: None)
        for _ in range(3):
            signal.raise_signal(number)
        assert heard == [number] * 3
        run_virtual(lambda: pipeline.run([1], graceful_signals=5.0))
        signal.raise_signal(number)
        assert heard == [number] * 4
        del kept
    finally:
        signal.signal(number, before)
    gc.collect()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("task", ["blocks", "goes_on"])
def test_task_that_never_gives_way_ends_after_a_few_more_signals(
    task: str, number: signal.Signals
) -> None:
    """A task that never gives way, or cannot be cancelled, does not outlive a few signals more."""
    command = [sys.executable, "-c", textwrap.dedent(DEAF), task]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for seconds in (0.3, 0.5, 0.5, 0.5, 0.5):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                break
        _, error = process.communicate(timeout=HANG_GUARD / 2)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)


FORKS = """
    import asyncio, os, signal, time
    from antflow import Pipeline, Stage

    async def fork(value):
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    results = asyncio.run(Pipeline([Stage("A", 1, [fork])]).run([1], graceful_signals=50))
    print(results.values(), results.stopped_by)
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_process_does_not_hear_signals_for_the_run() -> None:
    """SIGTERM ends it, as `multiprocessing.Pool` expects of its processes."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        check=True,
    )
    assert ended.stdout == "[-15] None\n"
