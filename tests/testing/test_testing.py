"""The promises of `antflow.testing`."""

from __future__ import annotations

import asyncio
import doctest
import gc
import logging
import math
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

import antflow.testing.running
import antflow.testing.tasks
from antflow.testing import (
    Calls,
    FailTimes,
    Gate,
    LeftoverTasks,
    Scripted,
    Sleep,
    Stalled,
    VirtualLoop,
    cancel_at_every_step,
    run_virtual,
)
from tests.garbage import thawed


def now() -> float:
    return asyncio.get_running_loop().time()


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


# Time


def test_time_passes_without_waiting() -> None:
    """The clock begins at 0 and jumps to the moment of the next timer."""

    async def main() -> tuple[float, float]:
        begin = now()
        await asyncio.sleep(24 * 3600)
        return begin, now()

    assert run_virtual(main) == (0.0, 86400.0)


def test_timers_of_one_moment_run_in_the_order_they_were_made() -> None:
    """Of timers that are due together, the older comes first."""

    async def main() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_at(7.0, order.append, number)
        await asyncio.sleep(8)
        return order

    assert run_virtual(main) == list(range(100))


def test_timers_that_are_due_run_in_the_order_of_their_times() -> None:
    """Timers run in the order of their times, whatever the order they were made in."""

    async def main() -> list[float]:
        order: list[float] = []
        for seconds in (3, 1, 2, 0, 0.5):
            asyncio.get_running_loop().call_later(seconds, lambda: order.append(now()))
        await asyncio.sleep(4)
        return order

    assert run_virtual(main) == [0, 0.5, 1, 2, 3]


@pytest.mark.parametrize("start", [0.0, 1e12])
def test_time_too_short_to_move_the_clock_still_passes(start: float) -> None:
    """A pause too short for the precision of the clock ends all the same."""

    async def main() -> None:
        await asyncio.sleep(start)
        for _ in range(100):
            await asyncio.sleep(1e-9)

    run_virtual(main, max_time=2e12, max_steps=1000)


def test_timeouts_that_were_met_do_not_pile_up() -> None:
    """Cancelled timers are thrown away before their time comes, and only those."""
    fired: list[int] = []

    async def main() -> int:
        for number in range(3):
            asyncio.get_running_loop().call_later(1, fired.append, number)
        for _ in range(10_000):
            async with asyncio.timeout(3600):
                await asyncio.sleep(0)
        kept = len(virtual_loop()._timers)
        await asyncio.sleep(2)
        return kept

    assert run_virtual(main) <= 1000
    assert fired == [0, 1, 2]


def test_cancelled_timers_do_not_move_the_clock() -> None:
    """The clock never comes to the moment of a cancelled timer."""

    async def main() -> None:
        for seconds in (5, 5000):
            asyncio.get_running_loop().call_later(seconds, print).cancel()
        await wait_for_ever()

    with pytest.raises(Stalled, match=r"^nothing is ready.* 0\.0 s, "):
        run_virtual(main)


def test_call_at_refuses_a_time_that_is_not_a_number() -> None:
    """NaN, which has no place in an order of times, is refused."""

    async def main() -> None:
        asyncio.get_running_loop().call_at(math.nan, print)

    with pytest.raises(ValueError, match="when=nan"):
        run_virtual(main)


def test_loop_refuses_work_after_it_was_closed() -> None:
    """A closed loop says so, instead of keeping what it will never run."""
    loop = VirtualLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_in_executor(None, print)


def test_loop_has_no_signals() -> None:
    """Signal handlers are refused in the way asyncio documents."""

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(2, print)

    with pytest.raises(NotImplementedError):
        run_virtual(main)


async def _use_timeout() -> str:
    try:
        async with asyncio.timeout(3):
            await wait_for_ever()
    except TimeoutError:
        return f"timeout at {now()}"
    return "no timeout"


async def _use_queue() -> str:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    received = []

    async def receive() -> None:
        while (number := await queue.get()) < 3:
            await asyncio.sleep(1)
            received.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(receive())
        for number in range(4):
            await queue.put(number)
    return f"{received} at {now()}"


async def _use_task_group() -> str:
    async def fail() -> None:
        await asyncio.sleep(2)
        raise OSError

    async def run_both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(wait_for_ever())

    with pytest.raises(ExceptionGroup):
        await run_both()
    return f"failed at {now()}"


async def _use_gather_and_semaphore() -> str:
    semaphore = asyncio.Semaphore(2)

    async def work() -> float:
        async with semaphore:
            await asyncio.sleep(1)
            return now()

    return str(sorted(await asyncio.gather(work(), work(), work())))


async def _use_condition() -> str:
    condition = asyncio.Condition()

    async def notify() -> None:
        await asyncio.sleep(4)
        async with condition:
            condition.notify_all()

    async with condition, asyncio.TaskGroup() as group:
        group.create_task(notify())
        await condition.wait()
    return f"notified at {now()}"


async def _use_thread() -> str:
    return f"{await asyncio.to_thread(sum, [1, 2])} at {now()}"


async def _use_own_executor() -> str:
    with ThreadPoolExecutor(1) as executor:
        number = await asyncio.get_running_loop().run_in_executor(executor, sum, [3, 4])
    return f"{number} at {now()}"


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize(
    ("main", "result"),
    [
        (_use_timeout, "timeout at 3.0"),
        (_use_queue, "[0, 1, 2] at 3.0"),
        (_use_task_group, "failed at 2.0"),
        (_use_gather_and_semaphore, "[1.0, 1.0, 2.0]"),
        (_use_condition, "notified at 4.0"),
        (_use_thread, "3 at 0.0"),
        (_use_own_executor, "7 at 0.0"),
    ],
)
def test_loop_carries_what_asyncio_has(
    main: Callable[[], Coroutine[Any, Any, str]], result: str, seed: int | None
) -> None:
    """The parts of asyncio work in virtual time as they do in real time."""
    assert run_virtual(main, seed=seed) == result


# Threads


def test_threads_take_no_virtual_time() -> None:
    """While a function is at work in a thread, no timer fires."""
    fired = threading.Event()

    async def main() -> tuple[bool, float]:
        timer = asyncio.get_running_loop().call_later(0.001, fired.set)
        seen = await asyncio.to_thread(fired.wait, 0.02)
        timer.cancel()
        return seen, now()

    assert run_virtual(main) == (False, 0.0)


def test_threads_and_what_is_due_go_on_together() -> None:
    """What is ready or due now runs while a function is at work in a thread."""
    fired = threading.Event()

    async def main() -> bool:
        asyncio.get_running_loop().call_later(0, fired.set)
        return await asyncio.to_thread(fired.wait, 60)

    assert run_virtual(main)


def test_threads_may_call_into_the_loop() -> None:
    """A thread may hand in callbacks and wait for coroutines that take no time."""
    called = threading.Event()

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def main() -> tuple[bool, int]:
        loop = asyncio.get_running_loop()

        def ask() -> tuple[bool, int]:
            called.wait(0.01)  # By then the loop waits for this thread.
            loop.call_soon_threadsafe(called.set)
            return called.wait(2), asyncio.run_coroutine_threadsafe(answer(), loop).result(2)

        return await asyncio.to_thread(ask)

    assert run_virtual(main) == (True, 42)


def test_threads_hand_in_their_results_before_time_moves() -> None:
    """Between the end of a thread and its result in the loop, the clock does not jump."""

    async def main() -> float:
        timer = asyncio.get_running_loop().call_later(1, print)
        for _ in range(300):
            await asyncio.to_thread(int)
        timer.cancel()
        return now()

    assert run_virtual(main) == 0.0


class SlowFuture(Future[Any]):
    """Lets the loop's thread run between one done callback and the next."""

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        def call_and_pause(future: Future[Any]) -> None:
            fn(future)
            threading.Event().wait(0.01)

        super().add_done_callback(call_and_pause)


class SlowExecutor(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = SlowFuture()
        threading.Timer(0.01, lambda: future.set_result(fn(*args, **kwargs))).start()
        return future


def test_threads_have_ended_when_their_result_is_handed_in() -> None:
    """A thread counts as at work until the loop has its result, not just until it has one."""

    async def main() -> float:
        timer = asyncio.get_running_loop().call_later(1, print)
        await asyncio.get_running_loop().run_in_executor(SlowExecutor(), int)
        timer.cancel()
        return now()

    assert run_virtual(main) == 0.0


def test_threads_are_waited_for_after_their_task_was_cancelled() -> None:
    """Cancellation does not end a thread, so time still waits for it."""
    begun, release, times = threading.Event(), threading.Event(), []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            begun.set()
            release.wait(0.02)
            times.append(loop.time())

        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(10)
        times.append(now())

    run_virtual(main)
    assert times == [0.0, 10.0]


def test_threads_left_at_the_end_are_joined() -> None:
    """The clean-up waits for the default executor, and no virtual time limit runs out on it."""
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        threading.Event().wait(0.02)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.wait([task])

    before = set(threading.enumerate())
    run_virtual(main)
    assert ended.is_set()
    assert set(threading.enumerate()) <= before


def test_threads_that_do_not_end_are_reported() -> None:
    """After `thread_patience` real seconds the error names the function that is still at work."""
    release = threading.Event()

    def hang() -> None:
        release.wait(2)

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, hang)

    try:
        with pytest.raises(Stalled, match=r"not ended in 0\.01 real s: .*hang") as caught:
            run_virtual(main, thread_patience=0.01)
    finally:
        release.set()
    assert "also: a thread has not ended" in notes_of(caught.value)


# Schedule


async def _trace(names: str, steps: int = 1) -> str:
    trace = []

    async def step(name: str) -> None:
        for _ in range(steps):
            trace.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(step(name))
    return "".join(trace)


def test_schedule_without_a_seed_is_that_of_asyncio() -> None:
    """A program without timers takes the same way as in asyncio's own loop."""

    async def main() -> list[str]:
        trace: list[str] = []
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int] = asyncio.Queue(2)

        async def send(name: int) -> None:
            for number in range(5):
                trace.append(f"send {name}.{number}")
                await queue.put(number)
                loop.call_soon(trace.append, f"callback {name}.{number}")

        async def receive() -> None:
            for _ in range(15):
                trace.append(f"received {await queue.get()}")

        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            for name in range(3):
                group.create_task(send(name))
        return trace

    assert run_virtual(main) == asyncio.run(main())


def test_schedule_of_a_seed_is_the_same_everywhere() -> None:
    """A seed stands for one order, on every Python and in every run."""
    traces = [run_virtual(_trace("abcde", 3), seed=seed) for seed in (1, 2, 3)]
    assert traces == ["cdeabcedbadbace", "cbdeaecadbcdaeb", "acdebcedabecbda"]
    assert [run_virtual(_trace("abcde", 3), seed=seed) for seed in (1, 2, 3)] == traces


def test_schedule_finds_every_order() -> None:
    """Any order of ready tasks comes up with some seed."""
    assert len({run_virtual(_trace("abcd"), seed=seed) for seed in range(300)}) == 24


def test_schedule_deals_tasks_that_are_woken() -> None:
    """Tasks that one event wakes come in any order too."""

    async def main() -> str:
        woken = []
        event = asyncio.Event()

        async def wait(name: str) -> None:
            await event.wait()
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(wait(name))
                await asyncio.sleep(0)  # So they come to the event in the order abc.
                await asyncio.sleep(0)
            event.set()
        return "".join(woken)

    assert len({run_virtual(main, seed=seed) for seed in range(100)}) == 6


def test_schedule_deals_tasks_written_in_python_too() -> None:
    """Tasks of asyncio's Python implementation are dealt like those in C."""
    python_task: Any = vars(asyncio.tasks)["_PyTask"]

    async def main() -> str:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coroutine, **options: python_task(coroutine, loop=loop, **options)
        )
        return await _trace("abc")

    assert len({run_virtual(main, seed=seed) for seed in range(100)}) == 6


def test_schedule_keeps_callbacks_in_order() -> None:
    """Plain callbacks keep their order, methods of tasks among them, while task steps change it."""

    async def main() -> list[str]:
        order: list[str] = []
        loop = asyncio.get_running_loop()

        async def step(name: str) -> None:
            order.append(name)

        class Marked(asyncio.Task[None]):
            def mark(self, name: str) -> None:
                order.append(name)

        def one_of_them(name: str) -> None:
            order.append(name)

        marked = Marked(step("marked"), loop=loop)
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(step(f"task {number}")))
            loop.call_soon(marked.mark if number % 2 else one_of_them, f"callback {number}")
        await asyncio.wait([*tasks, marked])
        return order

    traces = {tuple(run_virtual(main, seed=seed)) for seed in range(50)}
    assert len(traces) > 10
    for trace in traces:
        assert [name[0] for name in trace] == list("mtctctctc") or "marked" in trace[1::2]
        callbacks = [(place, name) for place, name in enumerate(trace) if name[0] == "c"]
        assert callbacks == [(2 * n + 2, f"callback {n}") for n in range(4)]


# Steps


def test_on_step_is_called_before_each_handle() -> None:
    """The hook sees 1, 2, 3 …, each before what it stands for; cancelled handles do not count."""
    log: list[object] = []

    async def main() -> int:
        loop = virtual_loop()
        log.append("main")
        loop.call_soon(log.append, "callback")
        loop.call_soon(log.append, "cancelled").cancel()
        await asyncio.sleep(0)
        log.append("main again")
        return loop.steps

    assert run_virtual(main, on_step=log.append) == 3
    assert log[:6] == [1, "main", 2, "callback", 3, "main again"]
    assert "cancelled" not in log


def test_on_step_may_cancel_the_step_it_announces() -> None:
    """A handle that the hook cancels is not run."""
    called: list[int] = []
    handles: list[asyncio.Handle] = []

    async def main() -> None:
        handles.append(asyncio.get_running_loop().call_soon(called.append, 1))
        await asyncio.sleep(0)

    def cancel(_: int) -> None:
        for handle in handles:
            handle.cancel()

    run_virtual(main, on_step=cancel)
    assert len(handles) == 1
    assert called == []


def test_on_step_may_raise_at_any_step() -> None:
    """Whatever step the hook raises at, its error comes out and the rest is cleaned up."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asyncio.sleep(1))
            await asyncio.to_thread(int)

    for k in range(1, 15):

        def fail(step: int, k: int = k) -> None:
            if step == k:
                raise LookupError(k)

        with pytest.raises(LookupError) as caught:
            run_virtual(main, on_step=fail)
        assert "also" not in notes_of(caught.value)


def test_on_step_is_not_called_in_the_clean_up() -> None:
    """Steps of the clean-up are none of the run's."""
    last = 0

    def note(step: int) -> None:
        nonlocal last
        last = step

    async def main() -> int:
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0)
        del task
        return virtual_loop().steps

    ended = run_virtual(main, on_step=note, leftovers="cancel")
    assert ended <= last <= ended + 1


# Stalled


class Suspended:
    """Awaitable through a generator."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.get_running_loop().create_future()


async def _generate() -> AsyncIterator[int]:
    yield 1
    await Suspended()


async def _iterate() -> None:
    async for _ in _generate():
        pass


def test_stalled_says_who_waits_where() -> None:
    """A deadlock is an error that lists every pending task with the frames it waits in."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_iterate(), name="iterator")
            group.create_task(wait_for_ever(), name="waiter")

    with pytest.raises(Stalled) as caught:
        run_virtual(main, seed=5)
    reason, *lines = str(caught.value).splitlines()
    assert re.fullmatch(
        r"nothing is ready, no timer is set and no thread is at work "
        r"\(step \d+, 0\.0 s, seed 5\); pending tasks:",
        reason,
    )
    here = r"test_testing\.py:\d+ "
    frames = {
        "iterator": rf"{here}_iterate > {here}_generate > {here}Suspended\.__await__",
        "waiter": rf"{here}wait_for_ever > locks\.py:\d+ Event\.wait",
    }
    for name, trail in frames.items():
        assert any(re.fullmatch(f"  {name}: {trail}", line) for line in lines), (name, lines)
    assert len(lines) == 3


def test_stalled_names_the_line_that_waits() -> None:
    """The line given is that of the await, not that of the function."""

    async def main() -> None:
        await asyncio.sleep(0)
        await wait_for_ever()

    with pytest.raises(Stalled) as caught:
        run_virtual(main)
    line = main.__code__.co_firstlineno + 2
    assert f"test_testing.py:{line} {main.__qualname__} >" in str(caught.value)


def test_stalled_runs_clean_up() -> None:
    """After a deadlock the tasks are cancelled, so that their finally blocks run."""
    cleaned = []

    async def main() -> None:
        try:
            await wait_for_ever()
        finally:
            await asyncio.sleep(1)
            cleaned.append(now())

    with pytest.raises(Stalled):
        run_virtual(main)
    assert cleaned == [1.0]


@pytest.mark.parametrize(
    ("seconds", "why"),
    [(101, r"timer, at .* s, is beyond max_time=100"), (math.inf, "no timer is set")],
)
def test_stalled_when_time_runs_out(seconds: float, why: str) -> None:
    """A program that waits beyond `max_time`, or for ever, is stopped, and still cleaned up."""
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.sleep(99)
            cleaned.append(now())

    with pytest.raises(Stalled, match=why) as caught:
        run_virtual(main, max_time=100)
    assert "pending tasks:\n  Task-" in str(caught.value)
    assert cleaned == [159]


def test_stalled_when_time_runs_out_by_default() -> None:
    """Without a limit given, a program that only ticks is stopped after thirty days."""

    async def main() -> None:
        while True:
            await asyncio.sleep(3600)

    with pytest.raises(Stalled, match=r"beyond max_time=2592000\.0 \(step \d+, 2592000\.0 s"):
        run_virtual(main)


def test_stalled_when_steps_run_out() -> None:
    """A livelock is stopped by `max_steps`, and still cleaned up."""
    cleaned = []

    async def main() -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            cleaned.append(virtual_loop().steps)

    with pytest.raises(Stalled, match=r"max_steps=50 were run \(step 50,"):
        run_virtual(main, max_steps=50)
    assert len(cleaned) == 1


def test_stalled_in_the_clean_up() -> None:
    """A task that cannot be cancelled does not hang the clean-up."""

    async def stubborn() -> None:
        while True:
            try:
                await wait_for_ever()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        task = asyncio.create_task(stubborn(), name="stubborn")
        setattr(task, "_log_destroy_pending", False)  # noqa: B010 (no attribute the stubs know)
        await asyncio.sleep(0)
        del task

    with pytest.raises(Stalled, match=r"stubborn: .* > .*Event\.wait") as caught:
        run_virtual(main)
    assert "in the clean-up, after main had ended" in notes_of(caught.value)


# run_virtual


def test_run_virtual_takes_a_coroutine_or_a_function() -> None:
    """Main is a coroutine, or a function that makes one; its result is returned."""

    async def main() -> str:
        return "result"

    assert run_virtual(main()) == "result"
    assert run_virtual(main) == "result"


def test_run_virtual_names_leftover_tasks() -> None:
    """Tasks pending when main has ended are cancelled, then reported by name and place."""
    cleaned = []

    async def left() -> None:
        try:
            await wait_for_ever()
        finally:
            await asyncio.sleep(1)
            cleaned.append(now())

    async def main() -> None:
        tasks = [asyncio.create_task(left(), name=f"left-{n}") for n in range(2)]
        await asyncio.sleep(0)
        del tasks

    with pytest.raises(LeftoverTasks) as caught:
        run_virtual(main)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["left-0", "left-1"]
    assert lines[1].endswith("Event.wait")
    assert cleaned == [1.0, 1.0]

    cleaned.clear()
    run_virtual(main, leftovers="cancel")
    assert cleaned == [1.0, 1.0]


def test_run_virtual_prefers_the_exception_of_main() -> None:
    """If main raised, that comes out; what else was wrong is in its notes."""

    async def main() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "broken"})
        task = asyncio.create_task(wait_for_ever(), name="left")
        await asyncio.sleep(0)
        del task
        raise LookupError("of main")

    with pytest.raises(LookupError, match="of main") as caught:
        run_virtual(main)
    assert "also: still pending when main had ended:\n  left: " in notes_of(caught.value)


def test_run_virtual_of_a_cancelled_main_still_reports_leftovers() -> None:
    """A main that ended as cancelled does not hide the tasks it left."""

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever(), name="left")
        await asyncio.sleep(0)
        del task
        raise asyncio.CancelledError

    with pytest.raises(LeftoverTasks, match="left: "):
        run_virtual(main)
    with pytest.raises(asyncio.CancelledError):
        run_virtual(main, leftovers="cancel")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_run_virtual_lets_interrupts_out(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """KeyboardInterrupt and SystemExit of any task end the run, and everything is cleaned up."""
    cleaned = []

    async def left() -> None:
        try:
            await wait_for_ever()
        finally:
            cleaned.append("left")

    async def interrupt() -> None:
        raise kind

    async def main() -> None:
        task = asyncio.create_task(left())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(interrupt())
                await wait_for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append("main")
        await task

    with pytest.raises(kind) as caught:
        run_virtual(main)
    assert notes_of(caught.value) == ""
    with pytest.raises(kind) as caught:
        run_virtual(interrupt)
    assert notes_of(caught.value) == ""
    assert cleaned == ["main", "left"]
    del caught
    gc.collect()
    assert caplog.records == []  # Nothing was "never retrieved" either.


async def _fail() -> None:
    raise LookupError("lost")


async def _lose_a_task() -> None:
    task = asyncio.create_task(_fail())
    await asyncio.sleep(0)
    del task


async def _lose_a_task_in_a_cycle() -> None:
    cycle: list[object] = [asyncio.create_task(_fail())]
    cycle.append(cycle)
    await asyncio.sleep(0)


async def _break_a_callback() -> None:
    def fail() -> None:
        raise LookupError("lost")

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)


@pytest.mark.parametrize("main", [_lose_a_task, _lose_a_task_in_a_cycle, _break_a_callback])
def test_run_virtual_raises_what_was_reported(
    main: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """What only the loop's exception handler got to see is raised as a group."""
    with pytest.raises(ExceptionGroup, match=r"reported to the event loop: .*lost") as caught:
        run_virtual(main)
    (error,) = caught.value.exceptions
    assert isinstance(error, LookupError)
    assert "reported to the event loop: " in notes_of(error)


def test_run_virtual_raises_reports_without_an_exception() -> None:
    """A report that carries no exception becomes an AssertionError with its message."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_exception_handler({"message": "odd", "future": future})

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main)
    (error,) = caught.value.exceptions
    assert isinstance(error, AssertionError)
    assert str(error).startswith("odd: <Future pending")


def test_run_virtual_tells_leftovers_and_reports_together() -> None:
    """If tasks are left and errors were reported, the group is the cause."""

    async def main() -> None:
        await _lose_a_task()
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0)
        del task

    async def cancelled_main() -> None:
        await main()
        raise asyncio.CancelledError

    for either in (main, cancelled_main):
        with pytest.raises(LeftoverTasks) as caught:
            run_virtual(either)
        assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_run_virtual_raises_what_the_clean_up_reported() -> None:
    """A task that fails while it is cancelled is reported."""

    async def fail_late() -> None:
        try:
            await wait_for_ever()
        finally:
            await _fail()

    async def main() -> None:
        task = asyncio.create_task(fail_late())
        await asyncio.sleep(0)
        del task

    with pytest.raises(ExceptionGroup, match="lost"):
        run_virtual(main, leftovers="cancel")


def test_run_virtual_leaves_reports_to_a_handler_that_was_set() -> None:
    """Who sets an exception handler gets the reports, and the run does not fail of them."""
    contexts = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        await _lose_a_task()

    run_virtual(main)
    assert len(contexts) == 1


def test_reports_after_the_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is reported to a closed loop does not vanish."""
    loop = VirtualLoop()
    loop.call_exception_handler({"message": "early"})
    loop.close()
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_exception_handler({"message": "late"})
    assert [record.getMessage() for record in caplog.records] == ["late"]
    assert [str(error).split(":")[0] for error in loop.reported] == ["early", "late"]


def test_run_virtual_closes_async_generators() -> None:
    """A generator left half-way is closed, its finally block may await."""
    cleaned = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)
            cleaned.append(now())

    generators = []

    async def main() -> None:
        generators.append(generate())
        await anext(generators[0])

    run_virtual(main)
    assert cleaned == [1.0]


def test_run_virtual_leaves_older_garbage_alone() -> None:
    """The collection at the end is quick: it does not look at what was there before the run."""
    gc.disable()
    try:
        with thawed():
            garbage: list[object] = [Suspended()]
            garbage.append(garbage)
            reference = weakref.ref(garbage[0])
            del garbage
            run_virtual(asyncio.sleep(1))
            assert reference() is not None
            assert gc.get_freeze_count() == 0
            gc.collect()
            assert reference() is None
    finally:
        gc.enable()


def test_run_virtual_tells_the_seed_of_a_failure() -> None:
    """A failure under a seed says which, to run it again."""
    with pytest.raises(LookupError) as caught:
        run_virtual(_fail, seed=77)
    assert "seed=77" in notes_of(caught.value)
    with pytest.raises(ExceptionGroup) as caught_group:
        run_virtual(_lose_a_task, seed=78)
    assert "seed=78" in notes_of(caught_group.value)


def test_run_virtual_refuses_an_unknown_word_for_leftovers() -> None:
    """A misspelt option is an error, not the other choice."""
    with pytest.raises(ValueError, match="leftovers='errors'"):
        run_virtual(_fail, leftovers="errors")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_run_virtual_refuses_to_run_inside_a_loop() -> None:
    """Called in a running loop it says so and leaves that loop alone."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="while an event loop is running"):
            run_virtual(_fail)
        await asyncio.sleep(0)

    run_virtual(main)


# cancel_at_every_step


def test_sweep_cancels_before_every_step() -> None:
    """Each step of the program is struck once, and none is left out."""
    reached: list[int] = []
    checked: list[int] = []

    async def main() -> None:
        reached.append(0)
        for _ in range(4):
            await asyncio.sleep(1)
            reached[-1] += 1

    loop = VirtualLoop()
    loop.run_until_complete(main())
    steps = loop.steps - 1  # The last one only stops the loop.
    loop.close()
    reached.clear()
    assert cancel_at_every_step(main, checked.append) == steps == 9
    assert checked == [*range(1, steps + 2)]
    # Step 1 begins main; every sleep is two steps, its timer and the wake-up.
    assert reached == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_sweep_with_a_limit_and_a_stride() -> None:
    """`stride` leaves steps out, `limit` is the last step tried."""
    checked: list[int] = []
    assert cancel_at_every_step(lambda: asyncio.sleep(1), checked.append, stride=2) == 2
    assert checked == [1, 3, 5]
    checked.clear()
    assert cancel_at_every_step(lambda: asyncio.sleep(1), checked.append, limit=2) == 2
    assert checked == [1, 2]


def test_sweep_lets_a_run_end_well_in_spite_of_the_cancel() -> None:
    """A program that takes the cancel as a wish to end, and ends, is right."""

    async def main() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(1)

    assert cancel_at_every_step(main) == 3


def test_sweep_runs_under_its_seed() -> None:
    """Every run of the sweep has the schedule of the seed."""
    traces: list[str] = []

    async def main() -> None:
        traces.append(await _trace("abcde"))

    cancel_at_every_step(main, seed=2)
    assert traces[-1] == run_virtual(_trace("abcde"), seed=2) != "abcde"


async def _leak_when_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(5), name="leak")
    await asyncio.sleep(1)
    await task


async def _hang_when_cancelled() -> None:
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        await wait_for_ever()


async def _spin_when_cancelled() -> None:
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        while True:
            await asyncio.sleep(0)


async def _fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        raise LookupError from None


async def _lose_when_cancelled() -> None:
    try:
        await asyncio.sleep(1)
    finally:
        if (task := asyncio.current_task()) and task.cancelling():
            await _lose_a_task()


@pytest.mark.parametrize(
    ("main", "error"),
    [
        (_leak_when_cancelled, LeftoverTasks),
        (_hang_when_cancelled, Stalled),
        (_spin_when_cancelled, Stalled),
        (_fail_when_cancelled, LookupError),
        (_lose_when_cancelled, ExceptionGroup),
    ],
)
def test_sweep_finds_what_goes_wrong_and_says_at_which_step(
    main: Callable[[], Coroutine[Any, Any, None]],
    error: type[BaseException],
) -> None:
    """A run that leaks, hangs, spins, fails or loses an error when cancelled fails the sweep."""
    with pytest.raises(error) as caught:
        cancel_at_every_step(main, seed=4)
    assert "before step k=2, seed=4" in notes_of(caught.value)


def test_sweep_says_at_which_step_a_check_failed() -> None:
    """The note names k for a failed check as well."""

    def check(k: int) -> None:
        assert k != 3

    with pytest.raises(AssertionError) as caught:
        cancel_at_every_step(lambda: asyncio.sleep(1), check)
    assert "k=3" in notes_of(caught.value)


def test_sweep_does_not_mistake_a_cancelled_error_for_its_own() -> None:
    """A run that ends as cancelled without having been struck is a failure."""
    runs = 0

    async def main() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        cancel_at_every_step(main)
    assert runs == 2  # Cancelled before step 1, main has not begun.


# Tasks to test with


def test_fail_times_fails_the_first_tries_of_each_item() -> None:
    """Every item has its own count, and is returned after it."""
    task = FailTimes(2, OSError)

    async def main() -> list[object]:
        results: list[object] = []
        values: list[object] = [1, "1", 1, 1, "1", {"a": []}, 1]
        for value in values:
            try:
                results.append(await task(value))
            except OSError as error:
                results.append(str(error))
        return results

    one, text = "planned failure {} of 2 for 1", "planned failure {} of 2 for '1'"
    assert run_virtual(main) == [
        *(one.format(1), text.format(1), one.format(2), 1, text.format(2)),
        *("planned failure 1 of 2 for {'a': []}", 1),
    ]
    assert task.tries == {"1": 4, "'1'": 2, "{'a': []}": 1}


def test_scripted_does_what_its_script_says() -> None:
    """Values are returned, exceptions raised, pauses made; after the end, items come back."""
    task = Scripted("first", KeyError, Sleep(2), ValueError("third"), None, Sleep(1), Sleep(1))

    async def main() -> list[object]:
        log: list[object] = []
        for number in range(6):
            try:
                log.append(await task(number))
            except (KeyError, ValueError) as error:
                log.append(repr(error))
            log.append(now())
        return log

    assert run_virtual(main) == [
        *("first", 0, "KeyError()", 0, "ValueError('third')", 2, None, 2, 4, 4, 5, 4)
    ]


def test_scripted_gives_each_call_its_own_pause_and_outcome() -> None:
    """Calls that overlap take their parts of the script in the order they began."""
    task = Scripted(Sleep(5), "slow", "quick")

    async def main() -> list[object]:
        return [*await asyncio.gather(task(1), task(2))]

    assert run_virtual(main) == ["slow", "quick"]


def test_gate_holds_callers_until_it_is_open() -> None:
    """The gate counts who waits and who passed, also when a caller is cancelled."""

    async def main() -> None:
        gate = Gate()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(gate(number)) for number in range(3)]
            await asyncio.sleep(1)
            assert (gate.waiting, gate.passed) == (3, 0)
            tasks[1].cancel()
            await asyncio.sleep(1)
            assert (gate.waiting, gate.passed) == (2, 0)
            gate.open()
        assert [task.result() for task in (tasks[0], tasks[2])] == [0, 2]
        assert await gate(3) == 3
        assert (gate.waiting, gate.passed) == (0, 3)
        gate.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await gate(4)
        assert gate.passed == 3

    run_virtual(main)


def test_calls_notes_each_call() -> None:
    """Argument, begin and end of each call are kept, and how many ran at once."""
    calls = Calls(Scripted(Sleep(2), "a", ValueError, Sleep(1), "c"), seconds=1)

    async def main() -> list[object]:
        async with asyncio.timeout(10):
            results = await asyncio.gather(calls("x"), calls("y"), return_exceptions=True)
            assert calls.running == 0
            task = asyncio.create_task(calls("z"))
            await asyncio.sleep(0)
            assert calls.running == 1
            assert calls.made[2].end is None
            return [*map(repr, results), await task]

    assert run_virtual(main) == ["'a'", "ValueError()", "c"]
    assert [(call.value, call.start, call.end) for call in calls.made] == [
        *(("x", 0, 3), ("y", 0, 1), ("z", 3, 5))
    ]
    assert calls.most_at_once == 2


def test_calls_without_a_task_return_the_item() -> None:
    """On its own it is a task that takes its time and changes nothing."""
    calls = Calls(seconds=2)

    async def main() -> tuple[str, float]:
        return await calls("x"), now()

    assert run_virtual(main) == ("x", 2)


def test_examples_of_the_docstrings() -> None:
    """The examples in the docstrings are true."""
    for module in (antflow.testing.running, antflow.testing.tasks):
        results = doctest.testmod(module)
        assert results.attempted
        assert not results.failed
