"""An interrupt raised in the engine itself, wherever it is: nothing hangs, nothing spins."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow._engine.channel import Channel
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
    calls = left = 0

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
        while True:
            yield 1

    class Display:
        def on_update(self, snapshot):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)

        def first():
            signal.raise_signal(signal.SIGINT)
            sys.setprofile(interrupt)

        pipeline = Pipeline([Stage("A", 5, [work]), Stage("B", 3, [work], executor="inline")])
        loop.call_later(0.006, first)
        if way == "run":
            await pipeline.run(source())
        elif way == "display":
            await pipeline.run(source(), custom_dashboard=Display())
        elif way == "stream":
            async with pipeline.stream(source(), ordered=True) as results:
                async for _ in results:
                    pass
        else:
            async with pipeline.open() as run:
                await run.feed(source())

    async def until_over():
        try:
            await main()
        finally:
            sys.setprofile(None)  # after that, it is asyncio that is interrupted

    for number in range(60):
        left = 1 + number * (1 + number // 6)
        faulthandler.dump_traceback_later(8, exit=True)
        try:
            asyncio.run(until_over())
        except (KeyboardInterrupt, asyncio.CancelledError):
            pass
        finally:
            sys.setprofile(None)
    print("through")
"""


@pytest.mark.parametrize("where", ["antflow", "asyncio"])
@pytest.mark.parametrize("way", ["run", "display", "stream", "open"])
def test_second_interrupt_anywhere(way: str, where: str) -> None:
    """A second SIGINT at any call of the library, or of asyncio, while a run ends: it ends."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SWEEP), way, where],
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout == "through\n", done.stderr[-3000:]


@pytest.mark.parametrize("end", ["cancelled", "caught", "returns"])
def test_interrupt_as_the_main_task_ends(end: str) -> None:
    """SIGINT in the event loop's own code then: it comes out, and the run left behind has ended."""
    ended: list[int] = []

    def in_the_loop() -> None:
        frame = sys._getframe()
        while frame.f_globals["__name__"] != "asyncio.events":
            assert frame.f_back is not None
            frame = frame.f_back
        handler: Any = signal.getsignal(signal.SIGINT)
        handler(signal.SIGINT, frame)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        in_the_loop()

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
                    in_the_loop()
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
            await run.feed([1])

    with pytest.raises(KeyboardInterrupt):
        run_virtual(main)


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
