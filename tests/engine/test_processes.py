"""Child processes: calls in them, what becomes of calls that kill them, and what they leave behind.

All of it with real processes, so all of it in real time.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import zipapp
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow._core.error_copies import OriginalTraceback
from antflow._core.errors import PipelineError, WorkerLostError
from antflow._engine.children import child as child_module
from antflow._engine.children.child import ProcessorTime
from antflow._engine.children.processes import MOST_LOST, ProcessSeat, check_picklable
from antflow.testing import Calls
from tests.real import counted

from . import process_tasks as tasks

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
    pytest.mark.process,
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find the tasks."""
    monkeypatch.syspath_prepend(str(ROOT))


class Kept:
    """One seat for many tests."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.seat = ProcessSeat("Kept-W0", ProcessorTime())

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(call)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.run(self.seat.call(function, args, kwargs))

    def error(self, function: Callable[..., Any], *args: Any) -> BaseException:
        """What a call raises; however badly it ends, the child must be the same afterwards."""
        before = self.call(tasks.pid)

        async def main() -> BaseException:
            try:
                value = await self.seat.call(function, args)
            except BaseException as error:
                return error
            raise AssertionError(value)

        error: BaseException = self.run(main())
        assert self.call(tasks.pid) == before
        return error


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    with asyncio.Runner() as runner:
        kept = Kept(runner)
        yield kept
        runner.run(kept.seat.close())


def with_seat(test: Callable[[ProcessSeat], Awaitable[None]]) -> None:
    """Run a test with a seat; afterwards no process is left."""

    async def main() -> None:
        seat = ProcessSeat("Fetch-W0", ProcessorTime())
        before = set(multiprocessing.active_children())
        try:
            await test(seat)
        finally:
            async with asyncio.timeout(PATIENCE):
                await seat.close()
        assert set(multiprocessing.active_children()) <= before

    asyncio.run(main())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and more of it than a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1  # its threads end later
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- calls ---------------------------------------------------------------------------------------


def test_call_runs_in_another_process(kept: Kept) -> None:
    """Arguments go there, the value comes back, and the process stays the same."""
    assert kept.call(tasks.add, 1, second=5) == 6
    assert kept.call(tasks.pid) != os.getpid()
    assert kept.call(tasks.pid) == kept.call(tasks.pid)


def test_call_with_large_values(kept: Kept) -> None:
    """10 MB there and 100 MB back."""
    assert kept.call(tasks.take, bytes(10_000_000)) == "bytes"
    assert len(kept.call(tasks.give, partial(bytes, 100_000_000))) == 100_000_000


def test_seats_work_at_the_same_time(tmp_path: Path) -> None:
    """While one child works, the event loop and another child do."""

    async def test(seat: ProcessSeat) -> None:
        other = ProcessSeat("Fetch-W1", ProcessorTime())
        slow = asyncio.create_task(other.call(tasks.noted_sleep, (tmp_path / "calls",)))
        await until(lambda: tasks.noted(tmp_path / "calls"))
        assert await seat.call(tasks.add, (1,)) == 2
        slow.cancel()
        await asyncio.wait([slow])
        await other.close()

    with_seat(test)


@pytest.mark.parametrize("name", tasks.MAKERS)
def test_exceptions_come_over(kept: Kept, name: str) -> None:
    """Same class, text, arguments and attributes; the traceback of the child is the cause."""
    error = kept.error(tasks.fail, name)
    original = tasks.MAKERS[name]()
    assert type(error) is type(original)
    assert isinstance(error.__cause__, OriginalTraceback)
    assert "raise (MAKERS | BEYOND_COPYING)[name]()" in str(error.__cause__)
    assert "child_main" not in str(error.__cause__)
    if name not in ("Addressed", "PoisonedStr"):
        assert str(error) == str(original)
    if name not in ("Addressed", "Holding", "HoldingArgument"):
        assert repr(error.args) == repr(original.args)
        assert repr(error.__dict__) == repr(original.__dict__)


@pytest.mark.parametrize(
    ("name", "text"),
    list(zip(tasks.BEYOND_COPYING, ["text", "far away"], strict=True)),
)
def test_exceptions_that_cannot_come_over(kept: Kept, name: str, text: str) -> None:
    """A stand-in has the name and the text, and says what it is."""
    error = kept.error(tasks.fail, name)
    assert (type(error).__qualname__, str(error)) == (name, text)
    assert "cannot be pickled" in str(error.__notes__)


def test_exceptions_come_over_from_an_executor_of_the_users() -> None:
    """With their line and traceback; none that cannot be copied costs another item its process."""
    kinds = {**tasks.MAKERS, **tasks.BEYOND_COPYING}
    names = [name for name, make in kinds.items() if isinstance(make(), Exception)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        stage = Stage("Fail", 1, [tasks.fail], executor=pool, task_attempts=1)
        results = asyncio.run(Pipeline([stage]).run(names, on_failures="ignore"))
    assert [type(each.error).__qualname__ for each in results.failed] == [
        type(kinds[name]()).__qualname__ for name in names
    ]
    for failure in results.failed:
        assert failure.location.endswith(" in fail")
        cause = str(getattr(failure.error, "__cause__", None))
        assert "raise (MAKERS | BEYOND_COPYING)[name]()" in cause
        assert "antflow" not in cause.replace(str(ROOT), "")


@pytest.mark.parametrize("name", tasks.ODD)
def test_exceptions_that_refuse_to_be_asked(kept: Kept, name: str) -> None:
    """They come over as what they are."""
    assert type(kept.error(tasks.fail_oddly, name)) is type(tasks.ODD[name]())


def test_answer_that_refuses_to_be_asked(kept: Kept) -> None:
    """It is not taken for an awaitable; that it cannot be sent is said."""
    assert "unbound returned a Unbound, which cannot be sent" in str(kept.error(tasks.unbound))


def test_exception_stop_iteration(kept: Kept) -> None:
    """It is an error of the task, as from any other executor, and not the end of a coroutine."""
    error = kept.error(tasks.stop)
    assert isinstance(error, RuntimeError)
    assert str(error) == "task stop raised StopIteration"
    assert isinstance(error.__cause__, StopIteration)


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        (tasks.give, (tasks.lock,), r"give returned a lock, which cannot be sent"),
        (tasks.give, (tasks.Unloadable,), r"give returned a Unloadable, .*loaded.*ValueError: not"),
        (
            tasks.give,
            (partial(tasks.Unloadable, EOFError),),
            r"give returned a Unloadable, .*loaded.*EOFError: not here",
        ),
        (tasks.give, (partial(tasks.Unloadable, SystemExit),), r"loaded.*SystemExit: not here"),
        (tasks.give, (tasks.coroutine,), r"give returned an awaitable \(coroutine\)"),
        (tasks.take, (tasks.lock(),), r"arguments of task take cannot be sent"),
        (tasks.take, (tasks.Unloadable(),), r"call of task take could not be loaded.*not here"),
        (tasks.take, (tasks.Unloadable(OSError),), r"call of task take could not be loaded"),
        (tasks.take, (tasks.Unloadable(SystemExit),), r"task take could not be loaded"),
    ],
)
def test_values_that_cannot_come_over(
    kept: Kept, function: Callable[..., Any], args: tuple[Any, ...], said: str
) -> None:
    """The call fails and says which task and what; the child lives on and stays in step."""
    error = kept.error(function, *args)
    assert isinstance(error, TypeError)
    with pytest.raises(TypeError, match=said):
        raise error


# -- children that are lost ----------------------------------------------------------------------


def test_processor_time_of_all_children_is_known() -> None:
    """What each has taken by its answer is in the sum, and no more than the system says."""
    computed = ProcessorTime()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    async def main() -> None:
        seats = [ProcessSeat(f"Fetch-W{number}", computed) for number in range(2)]
        try:
            taken = [await seat.call(tasks.compute, (0.1,)) for seat in seats]
            assert computed.seconds >= sum(taken)
            taken[0] = await seats[0].call(tasks.compute, (0.3,))
            assert computed.seconds >= sum(taken) > 0.5
        finally:
            await asyncio.gather(*[seat.close() for seat in seats])

    asyncio.run(main())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    in_all = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert computed.seconds <= in_all + 0.02  # whose clock is a bit coarser


def test_processor_time_of_a_child_that_ends_at_once_is_known(tmp_path: Path) -> None:
    """What it took to start was told before it was asked anything."""

    async def main() -> None:
        computed = ProcessorTime()
        seat = ProcessSeat("Fetch-W0", computed)
        try:
            await seat.call(tasks.die, (tmp_path / "file", 1))
            taken = await seat.call(tasks.compute, (0.0,))
            # Two starts, and not one: on a busy machine one may take half as long as the other.
            assert computed.seconds > 1.2 * taken
        finally:
            await seat.close()

    asyncio.run(main())


def test_processor_time_is_known_while_the_call_goes_on(tmp_path: Path) -> None:
    """It comes while it is taken, so that it is not taken for that of the moment of the answer."""

    async def main() -> None:
        computed = ProcessorTime()
        seat = ProcessSeat("Fetch-W0", computed)
        file = tmp_path / "stop"
        try:
            start = await seat.call(tasks.compute, (0.0,))
            calling = asyncio.create_task(seat.call(tasks.compute_until_noted, (file,)))
            async with asyncio.timeout(PATIENCE):
                while computed.seconds < start + 0.3:
                    await asyncio.sleep(0.01)
            assert not calling.done()
            tasks.note(file, "stop")
            assert await calling <= computed.seconds
        finally:
            seat.kill()
            await seat.close()

    asyncio.run(main())


def test_processor_time_of_a_killed_child_stays(tmp_path: Path) -> None:
    """The next child's comes on top of what the one before had told."""

    async def main() -> None:
        computed = ProcessorTime()
        seat = ProcessSeat("Fetch-W0", computed)
        try:
            calling = asyncio.create_task(seat.call(tasks.compute_until_noted, (tmp_path / "no",)))
            async with asyncio.timeout(PATIENCE):
                while computed.seconds < 0.5:
                    await asyncio.sleep(0.01)
            calling.cancel()
            await asyncio.wait([calling])
            before = computed.seconds
            taken = await seat.call(tasks.compute, (0.1,))
            assert computed.seconds >= before + taken
        finally:
            seat.kill()
            await seat.close()

    asyncio.run(main())


def test_processor_time_of_a_run(tmp_path: Path) -> None:
    """A snapshot has it stage by stage and in the sum, that of lost children too; then it stays."""

    async def main() -> None:
        task = partial(tasks.compute_and_die_once, tmp_path / "file")
        stages = [
            Stage("Pass", 1, [Calls()]),
            Stage("Compute", 2, [tasks.compute], executor="process"),
            Stage("Die", 1, [task], executor="process"),
        ]
        pipeline = Pipeline(stages)
        results = await pipeline.run([0.1] * 4)
        assert len(results) == 4
        snapshot = pipeline.get_dashboard_snapshot()
        by_stage = [each.child_cpu_seconds for each in snapshot.pipeline_stats.stage_stats.values()]
        assert by_stage[0] == 0
        assert by_stage[1] > 4 * 0.1
        assert by_stage[2] > 0
        assert snapshot.cpu_seconds > sum(by_stage)
        tasks.compute(0.05)
        assert pipeline.get_dashboard_snapshot().cpu_seconds == snapshot.cpu_seconds

    asyncio.run(main())


def test_killed_child_is_replaced(tmp_path: Path) -> None:
    """A child is killed in the middle of a call: the call is made again in a new one."""
    file = tmp_path / "calls"

    async def test(seat: ProcessSeat) -> None:
        call = asyncio.create_task(seat.call(tasks.noted_sleep, (file, 3600, 1)))
        await until(lambda: tasks.noted(file))
        os.kill(int(tasks.noted(file)[0]), signal.SIGKILL)
        assert await call == 2
        assert len(set(tasks.noted(file))) == 2

    with_seat(test)


def test_call_that_ends_its_process_each_time(tmp_path: Path) -> None:
    """Three children are lost to it, then it is given up; the seat has a new child at once."""
    file = tmp_path / "calls"

    async def test(seat: ProcessSeat) -> None:
        with pytest.raises(WorkerLostError) as caught:
            await seat.call(tasks.die, (file,))
        assert caught.value.task_name == "die"
        assert "ended with exit code 3" in str(caught.value.original_exception)
        assert len(set(tasks.noted(file))) == len(tasks.noted(file)) == MOST_LOST == 3
        assert await seat.call(tasks.die, (file, 0)) == MOST_LOST + 1

    with_seat(test)


def test_lost_children_are_counted_call_by_call(tmp_path: Path) -> None:
    """What one call cost is no debt of the next, nor is a child that died with nothing to do."""

    async def test(seat: ProcessSeat) -> None:
        for name in ("first", "second"):
            idle = await seat.call(tasks.pid)
            os.kill(idle, signal.SIGKILL)
            await until(lambda idle=idle: not is_running(idle))  # type: ignore[misc]
            calls = await seat.call(tasks.die, (tmp_path / name, MOST_LOST - 1))
            assert calls == MOST_LOST

    with_seat(test)


def test_lost_child_is_described() -> None:
    """The error says which signal ended the process."""

    async def test(seat: ProcessSeat) -> None:
        with pytest.raises(WorkerLostError) as caught:
            await seat.call(tasks.die_by_signal)
        assert "was killed by SIGKILL while at work" in str(caught.value.original_exception)

    with_seat(test)


def test_lost_child_with_a_fork_left_behind(tmp_path: Path) -> None:
    """A process that the task forked hides the end of the child not, and is ended too."""
    file = tmp_path / "forks"

    async def test(seat: ProcessSeat) -> None:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(WorkerLostError):
                await seat.call(tasks.die_with_fork_left_behind, (file,))
        forks = [int(pid) for pid in tasks.noted(file)]
        await until(lambda: not any(map(is_running, forks)))

    with_seat(test)


def test_poison_item_among_others(tmp_path: Path) -> None:
    """In a pipeline, an item that kills its worker each time fails alone; the rest is through."""
    file = tmp_path / "calls"
    stage = Stage("Work", 2, [deadly_for_three], executor="process", task_attempts=1)

    async def main() -> Any:
        return await Pipeline([stage]).run([(file, number) for number in range(6)])

    results = asyncio.run(main())
    assert sorted(results.values()) == [0, 1, 2, 4, 5]
    (failed,) = results.failed
    assert isinstance(failed.error, WorkerLostError)
    assert len(tasks.noted(file)) == MOST_LOST
    assert not [child for child in multiprocessing.active_children() if "Work" in child.name]


def deadly_for_three(value: tuple[Path, int]) -> int:
    file, number = value
    if number == 3:
        tasks.die(file)
    return number


# -- calls nobody waits for ----------------------------------------------------------------------


def test_timeout_ends_the_process_and_what_it_started(tmp_path: Path) -> None:
    """After a timeout neither the child nor a program that the task started goes on."""
    file = tmp_path / "pids"

    async def test(seat: ProcessSeat) -> None:
        before = await seat.call(tasks.pid)
        call = asyncio.create_task(seat.call(tasks.sleep_in_program, (file,)))
        await until(lambda: len(tasks.noted(file)) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        pids = [int(pid) for pid in tasks.noted(file)]
        assert pids[0] == before
        await until(lambda: not any(map(is_running, pids)))
        assert await seat.call(tasks.pid) != before

    with_seat(test)


def test_timeout_while_the_process_starts(tmp_path: Path) -> None:
    """A call that is cancelled before its child has begun leaves no child behind, and no harm."""

    async def test(seat: ProcessSeat) -> None:
        for seconds in (0, 0.005):
            call = asyncio.create_task(seat.call(tasks.noted_sleep, (tmp_path / "calls",)))
            await asyncio.sleep(seconds)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await seat.call(tasks.add, (1,)) == 2

    with_seat(test)


# -- the end -------------------------------------------------------------------------------------


def test_close_waits_until_all_are_gone(tmp_path: Path) -> None:
    """After close there is neither the child nor one that was killed, not even a zombie."""
    file = tmp_path / "calls"

    async def main() -> None:
        seat = ProcessSeat("Fetch-W0", ProcessorTime())
        pids = [await seat.call(tasks.pid)]
        await seat.close()
        call = asyncio.create_task(seat.call(tasks.noted_sleep, (file,)))
        await until(lambda: tasks.noted(file))
        pids.append(int(tasks.noted(file)[0]))
        call.cancel()
        await asyncio.wait([call])
        await seat.close()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        await seat.close()  # once more does no harm

    asyncio.run(main())


def test_close_when_nothing_was_called() -> None:
    """There is nothing to close, and no process was ever started."""

    async def main() -> None:
        await ProcessSeat("Fetch-W0", ProcessorTime()).close()

    with counted() as waited:
        asyncio.run(main())
    assert waited.processes == 0


def test_close_when_cancelled(tmp_path: Path) -> None:
    """A close that is cancelled kills a child that does not leave by itself."""

    async def test(seat: ProcessSeat) -> None:
        await seat.call(tasks.leave_thread)
        pid = await seat.call(tasks.pid)
        closing = asyncio.create_task(seat.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await until(lambda: not is_running(pid))

    with_seat(test)


def test_close_when_the_child_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that a thread of a task keeps alive is killed after a while."""
    monkeypatch.setattr(child_module, "LEAVE_SECONDS", 0.05)

    async def test(seat: ProcessSeat) -> None:
        await seat.call(tasks.leave_thread)

    with_seat(test)


def test_nothing_is_left_open() -> None:
    """Children that come and go, or are killed, leave no file descriptor behind."""

    async def test(seat: ProcessSeat) -> None:
        counts = []
        for _ in range(2):
            await seat.call(tasks.pid)
            await seat.close()
            await seat.call(tasks.pid)
            seat.kill()
            await seat.close()
            counts.append(len(os.listdir("/dev/fd")))
        assert counts[0] == counts[1]

    with_seat(test)


def test_process_that_is_gone_can_still_be_joined() -> None:
    """At exit `multiprocessing` joins all that were there, while the threads here see them out."""

    async def test(seat: ProcessSeat) -> None:
        pid = await seat.call(tasks.pid)
        [process] = [each for each in multiprocessing.active_children() if each.pid == pid]
        seat.kill()
        await seat.close()
        process.join()
        assert not process.is_alive()

    with_seat(test)


# -- resources -----------------------------------------------------------------------------------


def test_resources_live_as_long_as_the_child(tmp_path: Path) -> None:
    """They are entered in the child at the first call, passed by keyword, and left at the end."""
    file = tmp_path / "model"
    resources = {"model": partial(tasks.model, file)}
    pids = []

    async def test(seat: ProcessSeat) -> None:
        pids.append(await seat.call(tasks.pid))
        for value in range(2):
            answer = await seat.call(tasks.use, (value,), resources=resources)
            assert answer == (value, f"model-{pids[0]}")
        assert tasks.noted(file) == [f"entered-{pids[0]}"]

    with_seat(test)
    assert tasks.noted(file) == [f"entered-{pids[0]}", f"left-{pids[0]}"]


def test_resources_when_entering_fails(tmp_path: Path) -> None:
    """The call fails with that error, and the next one enters anew."""
    resources = {"model": partial(tasks.second_time, tmp_path / "asked")}

    async def test(seat: ProcessSeat) -> None:
        with pytest.raises(ValueError, match="not yet"):
            await seat.call(tasks.use, (1,), resources=resources)
        assert await seat.call(tasks.use, (1,), resources=resources) == (1, "there")

    with_seat(test)


def test_resources_that_are_async(kept: Kept) -> None:
    """There is no event loop in the child: it is refused by name."""
    call = kept.seat.call(tasks.use, (1,), resources={"model": tasks.asynchronous})
    with pytest.raises(TypeError, match=r"resource model: .* is an async context manager"):
        kept.run(call)


def test_resources_when_leaving_fails(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, with whose it was; the child ends all the same."""

    async def test(seat: ProcessSeat) -> None:
        with pytest.raises(TypeError):
            await seat.call(tasks.pid, resources={"broken": tasks.broken_exit})

    with caplog.at_level(logging.WARNING, "antflow"):
        with_seat(test)
    assert caplog.messages == ["Fetch-W0: closing its resources: ValueError: cannot leave"]


# -- what can be sent ----------------------------------------------------------------------------


class Method:
    def __call__(self, value: int) -> int:
        return value

    def method(self, value: int) -> int:
        return value


@pytest.mark.parametrize(
    "function", [tasks.add, partial(tasks.add, 1), Method(), Method().method, len, str.upper]
)
def test_functions_that_can_be_sent(function: Callable[..., Any]) -> None:
    """What is defined at the top of a module can."""
    assert check_picklable(function) is None


@pytest.mark.parametrize(
    "function", [lambda value: value, partial(lambda value: value, 1), partial(len, tasks.lock())]
)
def test_functions_that_cannot_be_sent(function: Callable[..., Any]) -> None:
    """Lambdas, inner functions and what holds them cannot, and it is said what can."""
    reason = check_picklable(function)
    assert reason is not None
    assert "must be defined at the top of a module" in reason


# -- programs of their own -----------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program from a file, in a process group of its own."""
    started = []

    def start(text: str, *, as_file: bool = True) -> subprocess.Popen[str]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text))
        paths = os.pathsep.join([str(Path(antflow.__file__).parents[1]), str(ROOT)])
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                *([str(path)] if as_file else ["-c", path.read_text()]),
            ],
            env=os.environ | {"PYTHONPATH": paths, "FILE": str(tmp_path / "file")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


START = """
import asyncio, os, sys
from functools import partial
from pathlib import Path
from antflow import PipelineError
from antflow._engine.children import processes
from antflow._engine.children.child import ProcessorTime
from antflow._engine.children.processes import ProcessSeat, check_picklable
from tests.engine import process_tasks as tasks

file = Path(os.environ["FILE"])
seat = None

async def call(function, *args):
    global seat
    seat = ProcessSeat("Fetch-W0", ProcessorTime())
    try:
        return await seat.call(function, args)
    finally:
        await seat.close()
"""


def wait_for(condition: Callable[[], Any]) -> None:
    asyncio.run(until(condition))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


Starter = Callable[..., "subprocess.Popen[str]"]


def test_program_ends_without_a_word(start: Starter) -> None:
    """With all warnings as errors, nothing leaks and nothing is said at the end."""
    program = start(
        START
        + """
def double(value):
    return 2 * value

if __name__ == "__main__":
    print(asyncio.run(call(double, 21)))
    """
    )
    assert ended(program) == (0, "42\n", "")


def test_program_that_leaves_its_event_loop_behind(start: Starter, tmp_path: Path) -> None:
    """A call that nobody awaits or cancels any more holds up no exit, and its child ends."""
    program = start(
        START
        + """
async def main():
    asyncio.ensure_future(call(tasks.noted_sleep, file))
    while not tasks.noted(file):
        await asyncio.sleep(0.01)

if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    print("left")
    sys.stdout.flush()
    sys.stderr = open(os.devnull, "w")  # the loop has its complaints
    """
    )
    code, out, _ = ended(program)
    assert (code, out) == (0, "left\n")
    wait_for(lambda: not is_running(int(tasks.noted(tmp_path / "file")[0])))


@pytest.mark.parametrize("moment", ["starting", "at work"])
def test_ctrl_c_reaches_the_parent_alone(start: Starter, tmp_path: Path, moment: str) -> None:
    """It reaches the parent alone: the children neither die of it nor print, and end with it."""
    program = start(
        START
        + f"""
if __name__ == "__mp_main__" and {moment!r} == "starting":
    tasks.note(file, os.getpid())
    import time
    time.sleep(0.3)

if __name__ == "__main__":
    try:
        asyncio.run(call(tasks.noted_sleep, file))
    except KeyboardInterrupt:
        print("interrupted")
    """
    )
    wait_for(lambda: tasks.noted(tmp_path / "file"))
    os.killpg(program.pid, signal.SIGINT)
    assert ended(program) == (0, "interrupted\n", "")
    assert len(tasks.noted(tmp_path / "file")) == 1
    assert not is_running(int(tasks.noted(tmp_path / "file")[0]))


def test_interrupt_of_a_child_is_none_of_its_business(tmp_path: Path) -> None:
    """SIGINT sent to the child itself changes nothing; a program that a task starts can have it."""
    file = tmp_path / "calls"

    async def called(seat: ProcessSeat) -> Any:
        try:
            return await seat.call(tasks.noted_sleep, (file, 0.1))
        except KeyboardInterrupt as error:  # it would end the whole test run
            return error

    async def test(seat: ProcessSeat) -> None:
        call = asyncio.create_task(called(seat))
        await until(lambda: tasks.noted(file))
        os.kill(int(tasks.noted(file)[0]), signal.SIGINT)
        assert await call == 1
        assert await seat.call(tasks.interrupt_program) == -signal.SIGINT

    with_seat(test)


def test_interrupt_of_a_child_that_starts(start: Starter, tmp_path: Path) -> None:
    """From its first moment on SIGINT neither ends it nor makes it print."""
    program = start(
        START
        + """
if __name__ == "__mp_main__":
    import time
    tasks.note(file, os.getpid())
    while len(tasks.noted(file)) < 2:
        time.sleep(0.01)

if __name__ == "__main__":
    print(asyncio.run(call(tasks.add, 41)))
    """
    )
    wait_for(lambda: tasks.noted(tmp_path / "file"))
    os.kill(int(tasks.noted(tmp_path / "file")[0]), signal.SIGINT)
    tasks.note(tmp_path / "file", "sent")
    assert ended(program) == (0, "42\n", "")


def test_parent_is_killed(start: Starter, tmp_path: Path) -> None:
    """SIGKILL of the program: its busy child notices, and ends with what its task started."""
    program = start(
        START
        + """
if __name__ == "__main__":
    asyncio.run(call(tasks.sleep_in_program, file))
    """
    )
    wait_for(lambda: len(tasks.noted(tmp_path / "file")) == 2)
    program.kill()
    pids = [int(pid) for pid in tasks.noted(tmp_path / "file")]
    wait_for(lambda: not any(map(is_running, pids)))
    assert ended(program)[2] == ""


def test_parent_is_killed_while_the_child_is_idle(start: Starter, tmp_path: Path) -> None:
    """A child with nothing to do leaves its resources before it ends."""
    program = start(
        START
        + """
async def main():
    seat = ProcessSeat("Fetch-W0", ProcessorTime())
    await seat.call(tasks.use, (1,), resources={"model": partial(tasks.model, file)})
    print("ready", flush=True)
    await asyncio.sleep(3600)

if __name__ == "__main__":
    asyncio.run(main())
    """
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.kill()
    wait_for(lambda: len(tasks.noted(tmp_path / "file")) == 2)
    assert tasks.noted(tmp_path / "file")[1].startswith("left-")
    assert ended(program)[2] == ""


def test_program_without_guard(start: Starter) -> None:
    """A program that starts its calls while it is imported is told so; there is no second child."""
    program = start(
        START
        + """
tasks.note(file, "imported")
try:
    asyncio.run(call(tasks.add, 1))
except PipelineError as error:
    print(error)
print(tasks.noted(file))
    """
    )
    assert ended(program) == (
        0,
        "no child process of Fetch-W0 could be started: it would start the pipeline again while it "
        "imports the program; start it under `if __name__ == '__main__':`\n"
        "['imported', 'imported']\n",
        "",
    )


def test_program_that_cannot_be_imported(start: Starter) -> None:
    """A child that fails to start is an error at once, and no lost worker."""
    program = start(
        START
        + """
if __name__ == "__mp_main__":
    sys.exit(5)
try:
    asyncio.run(call(tasks.add, 1))
except PipelineError as error:
    print(error)
    """
    )
    code, out, error = ended(program)
    assert (code, error) == (0, "")
    assert "it ended with exit code 5 while it imported the program" in out


def test_program_whose_children_are_killed_while_they_start(start: Starter) -> None:
    """It is tried again, not for ever, and is no fault of the call."""
    program = start(
        START
        + """
if __name__ == "__mp_main__":
    tasks.note(file, "start")
    tasks.die_by_signal()
processes.MOST_STARTS = 4
try:
    asyncio.run(call(tasks.add, 1))
except PipelineError as error:
    print(error)
print(len(tasks.noted(file)))
    """
    )
    code, out, error = ended(program)
    assert (code, error) == (0, "")
    assert "was killed by SIGKILL while starting" in out
    assert out.endswith("\n4\n")


def test_function_of_a_prompt(start: Starter) -> None:
    """What is defined in a prompt or a ``-c`` command is refused before anything starts."""
    program = start(
        START
        + """
def double(value):
    return 2 * value

print(check_picklable(double))
print(check_picklable(partial(double)))
print(check_picklable(tasks.add))
    """,
        as_file=False,
    )
    code, out, error = ended(program)
    assert (code, error) == (0, "")
    first, second, third = out.splitlines()
    assert first.startswith("is defined where no child process can import it from (double in a ")
    assert second == first
    assert third == "None"


@pytest.mark.parametrize("how", ["a folder", "a zipapp", "-m"])
def test_function_of_a_main_module(tmp_path: Path, how: str) -> None:
    """The refusal of a function in a ``__main__.py``, which no child imports, names that file."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "__main__.py").write_text(
        "from antflow._engine.children.processes import check_picklable\n"
        "def double(value):\n"
        "    return 2 * value\n"
        "print(check_picklable(double))\n"
    )
    if how == "a zipapp":
        zipapp.create_archive(app, tmp_path / "app.pyz")
    program = {"a folder": ["app"], "a zipapp": ["app.pyz"], "-m": ["-m", "app"]}[how]
    code, out, error = ended(
        subprocess.Popen(
            [sys.executable, *program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    )
    assert (code, error) == (0, "")
    assert "double in a prompt" in out
    assert "a `__main__.py`); it must be in another module" in out


def test_daemonic_parent(start: Starter) -> None:
    """Where `multiprocessing` allows no children, the error says so."""
    program = start(
        START
        + """
import multiprocessing

def inside():
    try:
        asyncio.run(call(tasks.add, 1))
    except PipelineError as error:
        print(error, flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=inside, daemon=True)
    process.start()
    process.join()
    """
    )
    code, out, error = ended(program)
    assert (code, error) == (0, "")
    assert "could be started: daemonic processes are not allowed to have children" in out


def test_no_descriptor_is_free_for_a_child() -> None:
    """That is the fault of the program and not of an item: the run ends, and says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pipeline = Pipeline([Stage("A", 1, [abs], executor="process")])

    async def main() -> None:
        assert (await pipeline.run([-1])).values() == [1]  # now all modules are imported
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await pipeline.run([-1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(PipelineError, match=r"no child process of A-W0 could be started: .*files"):
        asyncio.run(main())


def test_iterator_from_a_child_process_is_taken_from_once() -> None:
    """Where a task in a process returns an iterator, its values become items, each once."""
    stage = Stage("A", 1, [tasks.three_of], executor="process", expand=True)
    results = asyncio.run(Pipeline([stage]).run([1, 2], timeout=30))
    assert results.values() == [1, 1, 1, 2, 2, 2]


def test_error_among_the_answers_of_a_batch_from_a_child_process() -> None:
    """It fails its own item, as the error that it is, and says where it was raised."""
    local = "local_class.<locals>.Local"
    names = ["fine", "MoreArguments", "Holding", local, "ExceptionGroup"]
    stage = Stage("A", 1, [tasks.answers], executor="process", batch=5, task_attempts=1)
    results = asyncio.run(Pipeline([stage]).run(names, timeout=30, on_failures="ignore"))
    assert results.values() == ["fine"]
    kinds = [type(failed.error).__name__ for failed in results.failed]
    assert kinds == ["MoreArguments", "Holding", "Local", "ExceptionGroup"]
    assert {failed.attempts for failed in results.failed} == {1}
    assert all("process_tasks.py" in failed.location for failed in results.failed)
