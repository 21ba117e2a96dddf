"""An interrupt raised in the engine itself, wherever it is: nothing hangs, nothing spins."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow._engine.channel import Channel
from antflow._engine.crew import Crew
from antflow.exceptions import InternalError
from antflow.testing import Calls, run_virtual

SOURCE = Path(antflow.__file__).parents[1]
HANG_GUARD = 90.0
"""Real seconds that the sweep may take before it counts as hanging."""

SWEEP = """
    import asyncio, faulthandler, logging, signal, sys, warnings
    from antflow import Pipeline, Stage

    warnings.simplefilter("ignore")
    logging.disable()
    way, where = sys.argv[1:]
    given = received = left = 0

    def interrupt(frame, event, argument):
        # A second SIGINT, at some call of a function of the library or of asyncio.
        global left
        if event == "call" and frame.f_globals["__name__"].partition(".")[0] == where:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)

    async def work(value):
        try:
            await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
        return value

    def source():
        global given
        while True:
            given += 1
            yield 1

    class Display:
        def on_update(self, snapshot):
            pass

    async def main(pipeline):
        global received
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)

        def first():
            signal.raise_signal(signal.SIGINT)
            sys.setprofile(interrupt)

        loop.call_later(0.006, first)
        if way == "run":
            await pipeline.run(source())
        elif way == "display":
            await pipeline.run(source(), custom_dashboard=Display())
        elif way == "stream":
            async with pipeline.stream(source(), ordered=True) as results:
                async for _ in results:
                    received += 1
        else:
            async with pipeline.open() as run:
                await run.feed(source())

    async def until_over(pipeline):
        try:
            await main(pipeline)
        finally:
            sys.setprofile(None)  # after that, it is asyncio that is interrupted

    for number in range(60):
        left = 1 + number * (1 + number // 6)
        given = received = 0
        stages = [Stage("A", 5, [work]), Stage("B", 3, [work], executor="inline")]
        pipeline = Pipeline(stages)
        faulthandler.dump_traceback_later(8, exit=True)
        try:
            asyncio.run(until_over(pipeline))
        except (KeyboardInterrupt, asyncio.CancelledError):
            pass
        finally:
            sys.setprofile(None)
        results = pipeline.results
        assert results.stats.items_in_flight == 0, (number, results)
        assert results.stats.items_accepted == given, (number, given, results)
        assert len(results.outcomes) + received == given, (number, given, results)
    print("through")
"""


@pytest.mark.parametrize("where", ["antflow", "asyncio"])
@pytest.mark.parametrize("way", ["run", "display", "stream", "open"])
def test_second_interrupt_anywhere(way: str, where: str) -> None:
    """A second SIGINT at any call of the library, or of asyncio, while a run ends: it ends.

    Each item that its source gave has an outcome.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SWEEP), way, where],
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout == "through\n", done.stderr[-3000:]


def interrupt_in(module: str) -> None:
    """SIGINT, as if it came while the innermost frame of this module was at work."""
    frame = sys._getframe()
    while frame.f_globals["__name__"] != module:
        assert frame.f_back is not None
        frame = frame.f_back
    handler: Any = signal.getsignal(signal.SIGINT)
    handler(signal.SIGINT, frame)


def test_interrupt_in_the_engine_waits_for_the_next_step() -> None:
    """It could lose an item there. One more is raised at once: perhaps the loop is blocked."""
    raised: list[int] = []

    async def work(value: int) -> int:
        signal.raise_signal(signal.SIGINT)
        interrupt_in("antflow._engine.worker")
        for number in range(2):
            try:
                interrupt_in("antflow._engine.worker")
            except KeyboardInterrupt:
                raised.append(number)
        await asyncio.sleep(60)
        return value

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(Pipeline([Stage("A", 1, [work])]).run([1]))
    assert raised == [0, 1]


@pytest.mark.parametrize("place", ["source", "task"])
def test_second_interrupt_in_code_that_blocks_is_raised_at_once(place: str) -> None:
    """Even if that code has no Python frame, like a read from a terminal."""
    signals = iter([signal.SIGINT] * 9)
    pipeline = Pipeline([Stage("A", 1, [signal.raise_signal], executor="inline", task_attempts=1)])

    async def main() -> None:
        if place == "source":
            await Pipeline([Stage("A", 1, [Calls()])]).run(map(signal.raise_signal, signals))
        else:
            await pipeline.run(signals)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    if place == "source":
        assert len([*signals]) >= 7  # after the first one the loop may get a turn
    else:
        assert pipeline.results.stats.items_processed <= 1


@pytest.mark.parametrize("end", ["cancelled", "caught", "returns"])
def test_interrupt_as_the_main_task_ends(end: str) -> None:
    """SIGINT in the event loop's own code then: it comes out, and the run left behind has ended."""
    ended: list[int] = []

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        interrupt_in("asyncio.events")

    async def work(value: int) -> int:
        if value and end != "returns":
            asyncio.get_running_loop().call_soon(twice)
        try:
            await asyncio.sleep(value)
        finally:
            ended.append(value)
        return value

    async def main() -> None:
        results = Pipeline([Stage("A", 1, [work])]).stream([0, 60])
        try:
            async for _ in results:
                if end == "returns":
                    await asyncio.sleep(0)
                    interrupt_in("asyncio.events")
                    return
        except asyncio.CancelledError:
            if end == "cancelled":
                raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert ended == [0, 60]


def test_interrupt_in_a_worker_that_is_then_cancelled_comes_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run ends with the interrupt, not with an item that it made the worker lose."""
    put = Channel.put

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [Calls()]), Stage("B", 1, [Calls()])]).open() as run:

            def interrupted(channel: Channel[Any], item: Any, *priority: int) -> bool:
                monkeypatch.setattr(Channel, "put", put)
                asyncio.get_running_loop().call_soon(run._engine.supervisor.cancel)
                raise KeyboardInterrupt

            monkeypatch.setattr(Channel, "put", interrupted)
            await run.feed([1], priority=1)  # of its own: that goes through `put`

    with pytest.raises(KeyboardInterrupt):
        run_virtual(main)


def test_interrupt_while_an_error_is_looked_at_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with the interrupt, not with the error of the item."""

    def interrupted(crew: Crew, error: BaseException, *_: Any) -> Exception:
        raise KeyboardInterrupt

    async def fails(value: int) -> int:
        raise ValueError

    monkeypatch.setattr(Crew, "failure_of", interrupted)
    pipeline = Pipeline([Stage("A", 1, [fails], task_attempts=1)])
    with pytest.raises(KeyboardInterrupt):
        run_virtual(pipeline.run([1]))
    assert [outcome.outcome for outcome in pipeline.results.outcomes] == ["cancelled"]


def test_handler_of_asyncio_is_back_after_the_last_run() -> None:
    """One after the other and side by side: it is replaced as long as there is a run."""

    def handler() -> Any:
        return signal.getsignal(signal.SIGINT)

    async def main() -> None:
        before = handler()
        pipeline = Pipeline([Stage("A", 1, [Calls(seconds=0.01)])])
        for _ in range(2):
            async with pipeline.open() as run:
                await run.feed([1, 2, 3])
                inside = handler()
                assert inside != before
                await Pipeline([Stage("B", 1, [Calls()])]).run([1])
                assert handler() == inside
            assert handler() is before

    asyncio.run(main())


@pytest.mark.parametrize("end", ["left", "finished", "failed", "cancelled"])
def test_handler_of_asyncio_is_back_only_when_the_reader_goes_on(end: str) -> None:
    """A run ends before its reader is woken: an interrupt in between must not lose that step."""
    seen: list[bool] = []

    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        reader = asyncio.current_task()
        assert reader is not None

        def look(frame: Any, event: str, argument: object) -> None:
            is_asyncio = frame.f_globals["__name__"].partition(".")[0] == "asyncio"
            if event == "call" and is_asyncio and asyncio.current_task() is not reader:
                seen.append(signal.getsignal(signal.SIGINT) == before)

        def source() -> Iterator[int]:
            yield from [1, 2]
            if end == "failed":
                raise ZeroDivisionError

        pipeline = Pipeline([Stage("A", 1, [Calls(seconds=0.001)])])
        try:
            async with pipeline.stream(source()) as results:
                sys.setprofile(look)
                async for _ in results:
                    if end == "left":
                        break
                    if end == "cancelled":
                        reader.cancel()
        finally:
            sys.setprofile(None)
            assert signal.getsignal(signal.SIGINT) is before

    with suppress(ZeroDivisionError, asyncio.CancelledError):
        asyncio.run(main())
    assert seen
    assert not any(seen)


def test_handler_of_the_users_own_stays() -> None:
    """Who handles SIGINT in another way than `asyncio.run` does so during a run as well."""
    handled: list[bool] = []

    def handle(number: int, frame: object) -> None:
        handled.append(frame is not None)

    async def interrupt(value: int) -> int:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        return value

    async def main() -> list[int]:
        before = signal.signal(signal.SIGINT, handle)
        try:
            return (await Pipeline([Stage("A", 1, [interrupt])]).run([1, 2])).values()
        finally:
            signal.signal(signal.SIGINT, before)

    assert asyncio.run(main()) == [1, 2]
    assert handled == [True, True]


def test_task_whose_end_was_never_noted_is_not_waited_for() -> None:
    """Where an interrupt came instead of the note that a worker has ended, the run ends as well."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)])])
        async with pipeline.open() as run:
            await run.feed([1, 2, 3])

            async def ends() -> None:
                pass

            lost = asyncio.ensure_future(ends())
            await lost
            run._engine.supervisor.tasks._tasks.add(lost)
        assert run.results.values() == [1, 2, 3]

    run_virtual(main, max_steps=10_000)


def test_error_of_a_task_whose_end_was_never_noted_is_not_lost() -> None:
    """A task that broke ends the run loudly, even where an interrupt came instead of the note."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)])])
        async with pipeline.open() as run:
            await run.feed([1, 2, 3])

            async def breaks() -> None:
                raise ZeroDivisionError

            lost = asyncio.ensure_future(breaks())
            await asyncio.wait([lost])
            run._engine.supervisor.tasks._tasks.add(lost)

    with pytest.raises(InternalError, match="ZeroDivisionError"):
        run_virtual(main, max_steps=10_000)
