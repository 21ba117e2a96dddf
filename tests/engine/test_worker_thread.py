"""The thread of a worker: one function at a time, and gone when it is no longer needed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from antflow._engine.worker_thread import Answers, WorkerThread
from antflow.testing import run_virtual

Threads = Callable[[], set[threading.Thread]]


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Which threads were started since; the test must leave none behind."""
    before = {*threading.enumerate()}

    def started() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread not in before}

    yield started
    deadline = time.monotonic() + 10
    while started() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not started()


def test_functions_run_one_after_the_other_in_one_thread(threads: Threads) -> None:
    """The thread starts with the first function, and all others are called in it."""
    order: list[int] = []

    def work(number: int) -> int:
        order.append(number)
        return threading.get_ident()

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        assert not threads()
        asked = [thread.run(lambda number=number: work(number)) for number in range(3)]
        answers = [await each for each in asked]
        assert order == [0, 1, 2]
        assert [each.name for each in threads()] == ["mine"]
        assert {each.ident for each in threads()} == {ident for ident, error in answers}
        thread.end()

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [OSError("no"), TimeoutError("late"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()],
)
def test_what_a_function_raises_is_raised_as_it_is(error: BaseException, threads: Threads) -> None:
    """The very object comes out of `call`, and the thread takes the next function."""

    def fail() -> None:
        raise error

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        with pytest.raises(type(error)) as caught:
            await thread.call(fail)
        assert caught.value is error
        assert await thread.call(lambda: 1) == 1
        thread.end()

    run_virtual(main)


def test_cancelled_call_goes_on_and_its_end_is_known(threads: Threads) -> None:
    """The caller is free at once; `at_work` is done when the function has ended, not before."""
    begun, end = threading.Event(), threading.Event()

    def block() -> str:
        begun.set()
        end.wait(10)
        return "dropped"

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        call = asyncio.create_task(thread.call(block))
        while not begun.is_set():
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert thread.at_work is not None
        assert not thread.at_work.done()
        end.set()
        await thread.at_work
        thread.end()

    run_virtual(main)


def test_virtual_time_stands_still_while_a_cancelled_function_is_at_work(threads: Threads) -> None:
    """A loop with a time of its own knows of the thread, whether or not its answer is wanted."""

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        call = asyncio.create_task(thread.call(lambda: time.sleep(0.1)))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        assert thread.at_work is not None
        before = time.monotonic()
        await asyncio.sleep(3600)
        assert thread.at_work.done()
        assert 0.05 < time.monotonic() - before < 5
        thread.end()

    run_virtual(main)


def test_ends_when_its_owner_is_collected(threads: Threads) -> None:
    """A thread holds nothing that would keep its owner."""

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        await thread.call(lambda: None)
        assert threads()

    asyncio.run(main())
    gc.collect()


def test_starts_again_when_asked_after_its_end(threads: Threads) -> None:
    """`end` is for the thread that is there; a function that is asked for later has another one."""

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        assert await thread.call(lambda: 1) == 1
        thread.end()
        thread.end()
        assert await thread.call(lambda: 2) == 2
        thread.end()

    asyncio.run(main())


def test_function_that_is_asked_for_as_python_ends(threads: Threads) -> None:
    """A thread that was told to leave by Python's end is followed by one that calls it."""

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        before = await thread.call(threading.current_thread)
        before.leave()
        after = await asyncio.wait_for(thread.call(threading.current_thread), 10)
        assert after is not before
        thread.end()

    asyncio.run(main())


def test_loop_that_is_closed_meanwhile(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The thread ends with its function, and says nothing."""
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    begun, end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        end.wait(10)

    async def main() -> WorkerThread:
        thread = WorkerThread("mine", Answers())
        thread.run(block)
        return thread

    kept = asyncio.run(main())
    assert begun.wait(10)
    end.set()
    for thread in threads():
        thread.join(10)
    assert kept is not None
    assert not raised
    assert not threads()
    assert capfd.readouterr() == ("", "")


def test_loop_that_is_closed_before_it_took_an_answer(threads: Threads) -> None:
    """The loop was called for the answer before; the thread finds out all the same."""
    begun, end = threading.Event(), threading.Event()
    kept: list[WorkerThread] = []
    loop = asyncio.new_event_loop()

    def block() -> None:
        begun.set()
        end.wait(10)

    def begin() -> None:
        kept.append(WorkerThread("mine", Answers()))
        kept[0].run(lambda: None)
        kept[0].run(block)
        begun.wait(10)
        loop.stop()

    loop.call_soon(begin)
    loop.run_forever()
    loop.close()
    end.set()
    for thread in threads():
        thread.join(5)
    assert not threads()


def test_answers_that_come_together_wake_the_loop_once(threads: Threads) -> None:
    """Several threads share one call of the loop, and each caller gets its own answer."""

    async def main() -> None:
        loop, answers = asyncio.get_running_loop(), Answers()
        calls: list[Any] = []
        call_soon_threadsafe = loop.call_soon_threadsafe

        def count(callback: Callable[..., Any], *args: Any) -> Any:
            calls.append(callback)
            return call_soon_threadsafe(callback, *args)

        setattr(loop, "call_soon_threadsafe", count)  # noqa: B010 - types know it as a method
        workers = [WorkerThread(f"T{number}", answers) for number in range(3)]
        asked = [each.run(lambda number=number: number) for number, each in enumerate(workers)]
        through = [threading.Event() for _ in workers]
        following = [
            each.run(event.set) for each, event in zip(workers, through, strict=True)
        ]  # each begins when the answer before it is on its way
        for event in through:
            assert event.wait(10)
        assert len(calls) == 1
        assert await asyncio.gather(*asked) == [(0, None), (1, None), (2, None)]
        await asyncio.gather(*following)
        for each in workers:
            each.end()

    asyncio.run(main())


class Thing:
    """Something that can be referred to weakly."""


@pytest.mark.parametrize("fails", [False, True])
def test_idle_thread_holds_nothing(fails: bool, threads: Threads) -> None:
    """Neither a function nor its argument, its result or its error outlives the call in it."""
    seen: list[weakref.ref[Any]] = []

    class Failure(Exception): ...

    def make_function() -> Callable[[], Any]:
        given = Thing()

        def function() -> Any:
            made = Failure(given) if fails else Thing()
            seen.extend([weakref.ref(given), weakref.ref(made), weakref.ref(function)])
            if isinstance(made, Failure):
                raise made
            return made

        return function

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        if fails:
            with pytest.raises(Failure):
                await thread.call(make_function())
        else:
            await thread.call(make_function())
        deadline = time.monotonic() + 10
        while any(each() for each in seen) and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
            gc.collect()
        assert [each() for each in seen] == [None] * 3
        thread.end()

    asyncio.run(main())


colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.mark.parametrize("fails", [False, True])
def test_context_variables_go_there_and_come_back(fails: bool, threads: Threads) -> None:
    """A function sees its caller's variables; what it sets, its caller sees, also if it fails."""

    class Unequal:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        def __hash__(self) -> int:
            return 0

    other: ContextVar[object] = ContextVar("other")

    def paint() -> None:
        assert colour.get() == "red"
        colour.set("blue")
        other.set(Unequal())
        if fails:
            raise OSError

    async def main() -> None:
        thread = WorkerThread("mine", Answers())
        colour.set("red")
        other.set(Unequal())
        try:
            await thread.call(paint)
        except OSError:
            assert fails
        assert colour.get() == "blue"
        thread.end()

    asyncio.run(main())


# -- the end of the program -----------------------------------------------------------------------

PROGRAM = """
import asyncio, sys, threading, time
from antflow import AsyncExecutor, Pipeline, Stage

def slow(value):
    time.sleep(0.05)
    return value

def run(count):
    results = asyncio.run(Pipeline([Stage("A", 2, [slow], task_attempts=1)]).run(range(count)))
    print(results, flush=True)
"""

ENDS = {
    "idle threads are told to end": (
        """
        async def main():
            global executor
            executor = AsyncExecutor(2)
            print(await executor.submit(slow, 1))
        asyncio.run(main())
        """,
        "1\n",
    ),
    "an event loop that was left": (
        """
        async def main():
            global executor
            executor = AsyncExecutor(2)
            print(await executor.submit(slow, 1))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        """,
        "1\n",
    ),
    "a run that was left in a closed event loop": (
        """
        import gc
        def count():
            names = [each.name for each in threading.enumerate()]
            return sum(name.startswith("antflow-") for name in names)
        async def main():
            running = asyncio.ensure_future(Pipeline([Stage("A", 2, [slow])]).run(range(1000)))
            await asyncio.sleep(0.2)
            print(count())
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        del loop
        deadline = time.monotonic() + 10
        while count() and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        print(count())
        """,
        "2\n0\n",
    ),
    "a function at work is waited for": (
        """
        def work(value):
            time.sleep(0.5)
            print("done", flush=True)
        async def main():
            try:
                async with asyncio.timeout(0.2):
                    await Pipeline([Stage("A", 1, [work])]).run([1])
            except TimeoutError:
                print("late", flush=True)
        asyncio.run(main())
        """,
        "late\ndone\n",
    ),
    "an event loop in another thread goes on": (
        """
        threading.Thread(target=run, args=[20]).start()
        time.sleep(0.2)
        print("end", flush=True)
        """,
        "end\n<RunResults: 20 ok, 0 failed>\n",
    ),
    "an event loop in a daemon does not": (
        """
        threading.Thread(target=run, args=[100_000], daemon=True).start()
        time.sleep(0.2)
        print("end", flush=True)
        """,
        "end\n",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_end_of_the_program(case: str) -> None:
    """No idle thread keeps a program from ending, and no function at work is cut off."""
    program, expected = ENDS[case]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == expected
    assert done.returncode == 0
