"""Resources: entered once, by one task, for all who ask; left exactly once, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import (
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from contextvars import ContextVar
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import Any

import pytest

from antflow import Pipeline, Stage, StageValidationError
from antflow._core.errors import PipelineError
from antflow._engine.resources import Resources
from antflow._engine.worker_thread import Answers, WorkerThread
from antflow.testing import cancel_at_every_step, run_virtual


class Journal:
    """Makes context managers that note what is done to them: "+a" entered, "-a" left."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: set[asyncio.Task[Any] | None] = set()

    def note(self, line: str) -> None:
        self.lines.append(line)
        self.tasks.add(asyncio.current_task())

    def balance(self) -> Counter[str]:
        """How often each was entered, less how often it was left."""
        balance: Counter[str] = Counter()
        for line in self.lines:
            balance[line[1:]] += {"+": 1, "-": -1}[line[0]]
        return balance


class Thing:
    """An async context manager.

    Args:
        journal: Where it notes what is done to it.
        name: It gives its upper case as its value.
        enter: Seconds that entering takes, or what it raises after one.
        leave: Seconds that leaving takes, or what it raises after one.
        answer: What leaving returns.
    """

    def __init__(
        self,
        journal: Journal,
        name: str,
        enter: float | BaseException = 1.0,
        leave: float | BaseException = 1.0,
        answer: object = None,
    ) -> None:
        self.journal = journal
        self.name = name
        self.enter = enter
        self.leave = leave
        self.answer = answer
        self.told: BaseException | None = None

    async def __aenter__(self) -> str:
        await pass_time(self.enter)
        self.journal.note(f"+{self.name}")
        return self.name.upper()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> object:
        self.told = error
        self.journal.note(f"-{self.name}")
        await pass_time(self.leave)
        return self.answer


async def pass_time(seconds: float | BaseException) -> None:
    if isinstance(seconds, BaseException):
        await asyncio.sleep(1.0)
        raise seconds
    if seconds:
        await asyncio.sleep(seconds)


def create_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


def resources_of(**factories: Callable[..., Any]) -> Resources:
    return Resources(factories, "stage Fetch", create_task)


def things_of(journal: Journal, *names: str, **options: Any) -> Resources:
    return resources_of(**{name: partial(Thing, journal, name, **options) for name in names})


def cancel_keeper() -> bool:
    """Cancel the task that keeps resources, if there is one."""
    return any(task.cancel() for task in asyncio.all_tasks() if "resources" in task.get_name())


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "antflow"]


# -- entering -------------------------------------------------------------------------------------


def test_resources_are_entered_once_for_all_and_left_last_first() -> None:
    """Whoever asks, and when, gets the values of one entering; closing leaves in reverse order."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a", "b")
        assert journal.lines == []
        answers = await asyncio.gather(*(resources.get() for _ in range(3)), resources.get())
        assert [*answers, await resources.get()] == [{"a": "A", "b": "B"}] * 5
        await asyncio.gather(resources.close(), resources.close())
        await resources.close()
        assert asyncio.get_running_loop().time() == 4.0

    run_virtual(main)
    assert journal.lines == ["+a", "+b", "-b", "-a"]


def test_resources_that_are_not_used_are_not_entered() -> None:
    """Closing what nobody asked for enters nothing, and ends asking."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a")
        await resources.close()
        with pytest.raises(PipelineError, match="resources of stage Fetch were already closed"):
            await resources.get()

    run_virtual(main)
    assert journal.lines == []


def test_resources_are_entered_and_left_by_one_task() -> None:
    """What only the task that entered it may leave, like a task group, can be a resource."""
    journal = Journal()
    ended: list[int] = []

    async def child() -> None:
        await asyncio.sleep(5.0)
        ended.append(1)

    async def main() -> None:
        resources = resources_of(
            group=asyncio.TaskGroup,
            limit=lambda: asyncio.timeout(60),
            a=lambda: Thing(journal, "a"),
        )
        values = await asyncio.create_task(resources.get())
        values["group"].create_task(child())
        await asyncio.create_task(resources.close())
        assert ended == [1]

    run_virtual(main)
    assert len(journal.tasks) == 1


def test_resources_may_be_sync_and_what_is_both_is_entered_as_async() -> None:
    """Sync context managers work as well, but ``async with`` comes first."""
    journal = Journal()

    class Both(Thing):
        def __enter__(self) -> str:
            raise TypeError("use async with")

        def __exit__(self, *error: object) -> None: ...

    async def main() -> None:
        resources = resources_of(
            a=partial(nullcontext, 1), both=lambda: Both(journal, "both"), stack=ExitStack
        )
        values = await resources.get()
        assert (values["a"], values["both"], type(values["stack"])) == (1, "BOTH", ExitStack)
        values["stack"].callback(journal.note, "-stack")
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+both", "-stack", "-both"]


def test_a_caller_that_is_cancelled_does_not_disturb_the_entering() -> None:
    """Entering goes on for those who wait for it, and for those who come later."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a", enter=3.0)
        first, second = (asyncio.create_task(resources.get()) for _ in range(2))
        await asyncio.sleep(1.0)
        first.cancel()
        assert await second == {"a": "A"}
        assert first.cancelled()
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]


@pytest.mark.parametrize("made", [BytesIO(), contextmanager(iter)(())], ids=["file", "decorated"])
def test_a_context_manager_in_place_of_its_function_is_refused_in_words(made: Any) -> None:
    """``resources={"http": client()}`` says that the function is wanted."""
    with pytest.raises(StageValidationError, match=r"pass the function that makes it$"):
        Pipeline([Stage("A", 1, [str], resources={"http": made})])


@pytest.mark.parametrize("made", [None, object(), pass_time], ids=["nothing", "object", "async"])
def test_a_factory_that_makes_no_context_manager_is_named(made: Any) -> None:
    """The error says which resource of which stage it was, and what the factory returned."""

    def factory() -> Any:
        return made(1.0) if made is pass_time else made

    async def main() -> None:
        resources = resources_of(db=factory)
        with pytest.raises(TypeError, match=r"resource db of stage Fetch returned .*: must be a"):
            await resources.get()
        await resources.close()

    run_virtual(main)


# -- entering fails -------------------------------------------------------------------------------


def test_when_entering_fails_all_that_wait_hear_of_it_and_the_next_tries_again() -> None:
    """They all get the error, after what was entered before was left; then it begins anew."""
    journal = Journal()
    error = OSError("no database")
    enter_b: list[float | BaseException] = [1.0, error]
    things: list[Thing] = []

    def a() -> Thing:
        things.append(Thing(journal, "a", answer=True))
        return things[-1]

    async def main() -> None:
        resources = resources_of(a=a, b=lambda: Thing(journal, "b", enter_b.pop()))
        early = [asyncio.create_task(resources.get()) for _ in range(3)]
        await asyncio.sleep(2.5)  # it has failed, and a is just being left
        assert journal.lines == ["+a", "-a"]
        late = asyncio.create_task(resources.get())
        answers = await asyncio.gather(*early, late, return_exceptions=True)
        assert answers == [error] * 4
        assert things[0].told is error
        assert await resources.get() == {"a": "A", "b": "B"}
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "-a", "+a", "+b", "-b", "-a"]


def test_the_traceback_of_an_error_does_not_grow_with_its_receivers() -> None:
    """The tenth who is told sees where it was raised, and not the nine others."""

    async def main() -> None:
        resources = things_of(Journal(), "a", enter=OSError("no database"))
        tasks = [asyncio.create_task(resources.get()) for _ in range(10)]
        (*_, last) = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(last, OSError)
        functions = [frame.name for frame in traceback.extract_tb(last.__traceback__)]
        assert functions.count("get") == 1
        assert functions[-1] == "pass_time"

    run_virtual(main)


def test_what_raises_again_the_error_it_is_told_of_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some context managers do so in place of answering false: that is no error of leaving."""
    error = OSError("no database")

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(Journal(), "a", leave=error), b=lambda: Thing(Journal(), "b", error)
        )
        with pytest.raises(OSError, match="no database"):
            await resources.get()

    run_virtual(main)
    assert messages(caplog) == []


def test_a_failure_that_is_no_longer_waited_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """When the only caller gave up waiting, the log says why entering took so long."""

    async def main() -> None:
        resources = things_of(Journal(), "a", enter=OSError("no database"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await resources.get()
        await asyncio.sleep(1.0)
        await resources.close()

    run_virtual(main)
    assert messages(caplog) == ["the resources of stage Fetch cannot be entered"]


def test_a_keyboard_interrupt_while_entering_comes_out_where_it_is_waited_for() -> None:
    """It does not tear the event loop down: the caller gets it, once, and the rest is left."""
    journal = Journal()

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(journal, "a"), b=lambda: Thing(journal, "b", KeyboardInterrupt())
        )
        with pytest.raises(KeyboardInterrupt):
            await resources.get()
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]


def test_a_keyboard_interrupt_that_is_not_waited_for_comes_out_of_close() -> None:
    """An interrupt is never swallowed: when no caller is left, closing raises it."""

    async def main() -> None:
        resources = things_of(Journal(), "a", enter=KeyboardInterrupt())
        caller = asyncio.create_task(resources.get())
        await asyncio.sleep(0.5)
        caller.cancel()
        await asyncio.sleep(1.0)
        with pytest.raises(KeyboardInterrupt):
            await resources.close()
        await resources.close()

    run_virtual(main)


# -- leaving --------------------------------------------------------------------------------------


def test_errors_of_leaving_are_logged_and_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Each is logged once, and the others are left all the same, told of no error."""
    journal = Journal()
    first = Thing(journal, "a", answer=True)

    async def main() -> None:
        resources = resources_of(
            a=lambda: first,
            b=lambda: Thing(journal, "b", leave=OSError("broken pipe")),
            c=lambda: Thing(journal, "c", leave=asyncio.CancelledError()),
        )
        await resources.get()
        await resources.close()
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert first.told is None
    failed = "closing resource {} of stage Fetch failed"
    assert messages(caplog) == [failed.format("c"), failed.format("b")]
    assert caplog.records[1].exc_info is not None
    assert isinstance(caplog.records[1].exc_info[1], OSError)


def test_leaving_that_hangs_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """After 30 seconds it is cancelled and logged, and the others are left."""
    journal = Journal()

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(journal, "a"), b=lambda: Thing(journal, "b", leave=1e6)
        )
        await resources.get()
        await resources.close()
        assert asyncio.get_running_loop().time() == 2.0 + 30.0 + 1.0

    run_virtual(main)
    assert journal.lines == ["+a", "+b", "-b", "-a"]
    message = "closing resource b of stage Fetch took more than 30 s and was cancelled"
    assert messages(caplog) == [message]


def test_a_keyboard_interrupt_while_leaving_comes_out_of_close() -> None:
    """It is raised when all the others were left, and once."""
    journal = Journal()

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(journal, "a"), b=lambda: Thing(journal, "b", leave=KeyboardInterrupt())
        )
        await resources.get()
        with pytest.raises(KeyboardInterrupt):
            await resources.close()
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "+b", "-b", "-a"]


def test_what_leaves_a_request_to_cancel_is_kept_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A context manager that cancels its task ends no stay, and cuts off no other's leaving."""
    journal = Journal()

    @contextmanager
    def careless() -> Iterator[str]:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        yield "B"
        running.cancel()

    async def main() -> None:
        things = resources_of(
            a=partial(Thing, journal, "a"), b=careless, c=partial(Thing, journal, "c")
        )
        began = asyncio.get_running_loop().time()
        assert await things.get() == {"a": "A", "b": "B", "c": "C"}
        await asyncio.sleep(1.0)
        assert journal.lines == ["+a", "+c"]
        await things.close()
        assert journal.lines == ["+a", "+c", "-c", "-a"]
        assert asyncio.get_running_loop().time() - began == 5.0
        assert messages(caplog) == []

    run_virtual(main)


def test_closing_that_is_cancelled_ends_leaving_first() -> None:
    """A cancelled `close` raises when everything is left, not before and not in the middle."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a", "b", leave=5.0)
        await resources.get()
        closing_ = asyncio.create_task(resources.close())
        for _ in range(3):
            await asyncio.sleep(1.0)
            closing_.cancel()
        await asyncio.wait([closing_])
        assert closing_.cancelled()
        assert asyncio.get_running_loop().time() == 2.0 + 10.0

    run_virtual(main)
    assert journal.lines == ["+a", "+b", "-b", "-a"]


# -- closed, or cancelled, in the middle ----------------------------------------------------------


def test_closing_cancels_what_is_just_being_entered() -> None:
    """A connection that never comes about holds nobody up; those who wait for it are told."""
    journal = Journal()
    tidied: list[str] = []

    class Tidy(Thing):
        async def __aenter__(self) -> str:
            try:
                return await super().__aenter__()
            finally:
                await asyncio.sleep(2.0)
                tidied.append(self.name)

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(journal, "a"), b=lambda: Tidy(journal, "b", enter=1e6)
        )
        caller = asyncio.create_task(resources.get())
        await asyncio.sleep(5.0)
        closing_ = asyncio.create_task(resources.close())
        await asyncio.sleep(1.0)
        await resources.close()  # does not cut b off in the middle of its clean-up
        await closing_
        with pytest.raises(PipelineError, match="resources of stage Fetch were cancelled"):
            await caller
        assert asyncio.get_running_loop().time() == 5.0 + 2.0 + 1.0

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]
    assert tidied == ["b"]


def test_closing_leaves_what_is_entered_in_spite_of_being_cancelled() -> None:
    """What swallows the cancellation of its entering is left, and nothing more is entered."""
    journal = Journal()

    class Stubborn(Thing):
        async def __aenter__(self) -> str:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                pass
            return await super().__aenter__()

    async def main() -> None:
        resources = resources_of(
            a=lambda: Stubborn(journal, "a"), b=lambda: Thing(journal, "b", enter=1e6)
        )
        caller = asyncio.create_task(resources.get())
        await asyncio.sleep(5.0)
        await resources.close()
        assert isinstance(caller.exception(), PipelineError)

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]


def test_closing_does_not_cut_off_the_leaving_after_a_failure() -> None:
    """When entering failed and the rest is just being left, closing waits for the end of that."""
    journal = Journal()

    async def main() -> None:
        resources = resources_of(
            a=lambda: Thing(journal, "a", leave=5.0), b=lambda: Thing(journal, "b", OSError())
        )
        caller = asyncio.create_task(resources.get())
        await asyncio.sleep(3.0)
        await resources.close()
        assert isinstance(caller.exception(), OSError)
        assert asyncio.get_running_loop().time() == 2.0 + 5.0

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_keeper_that_is_cancelled_at_once_leaves_no_user_waiting(steps: int) -> None:
    """Also when it is cancelled before its first step, its callers are told, and may ask again."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a")
        caller = asyncio.create_task(resources.get())
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        assert cancel_keeper()
        with pytest.raises(PipelineError, match="were cancelled"):
            await caller
        assert await resources.get() == {"a": "A"}
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "-a"]


def test_a_task_group_that_fails_is_left_and_entered_again() -> None:
    """What cancels its keeper, like a task group with a failed child, is over; the next is new."""
    journal = Journal()

    async def fails() -> None:
        raise OSError("connection lost")

    things: list[Thing] = []

    def a() -> Thing:
        things.append(Thing(journal, "a"))
        return things[-1]

    async def main() -> None:
        resources = resources_of(a=a, group=asyncio.TaskGroup)
        group = (await resources.get())["group"]
        group.create_task(fails())
        await asyncio.sleep(0.5)
        with pytest.raises(PipelineError, match="were cancelled"):
            await resources.get()  # a is just being left
        await asyncio.sleep(5.0)
        assert (await resources.get())["group"] is not group
        await resources.close()

    run_virtual(main)
    assert journal.lines == ["+a", "-a"] * 2
    assert [type(thing.told) for thing in things] == [asyncio.CancelledError, type(None)]


# -- threads --------------------------------------------------------------------------------------


@contextmanager
def one_thread() -> Iterator[WorkerThread]:
    """A thread, as a worker with its own resources has one."""
    thread = WorkerThread("one thread", Answers())
    yield thread
    thread.end()


def test_sync_resources_live_in_the_thread_they_are_given() -> None:
    """A connection that works in one thread only is made, used and closed in that one."""

    def factory() -> Any:
        return closing(sqlite3.connect(":memory:"))

    async def main() -> None:
        with one_thread() as thread:
            resources = Resources({"db": factory}, "stage Fetch", create_task, thread.run)
            connection = (await resources.get())["db"]
            rows = await thread.call(lambda: connection.execute("select 6 * 7").fetchall())
            assert rows == [(42,)]
            await resources.close()
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                await thread.call(lambda: connection.execute("select 1"))

    run_virtual(main)


class Session:
    """An async context manager that can only be made where the event loop runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None: ...


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    yield Session()


@pytest.mark.parametrize("factory", [Session, session, partial(Session), partial(session)])
def test_async_resources_are_made_where_the_event_loop_runs(factory: Callable[[], Any]) -> None:
    """What can be seen to be async is not made in the thread that is for the sync ones."""

    async def main() -> None:
        with one_thread() as thread:
            resources = Resources({"web": factory}, "stage Fetch", create_task, thread.run)
            assert isinstance((await resources.get())["web"], Session)
            await resources.close()

    run_virtual(main)


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def test_sync_resources_are_entered_and_left_in_one_context() -> None:
    """A context variable set while entering can be reset while leaving; it has the run's value."""
    seen: list[str] = []

    @contextmanager
    def as_admin() -> Iterator[None]:
        seen.append(tenant.get())
        token = tenant.set("admin")
        yield
        tenant.reset(token)
        seen.append(tenant.get())

    async def main() -> None:
        tenant.set("acme")
        with one_thread() as thread:
            resources = Resources({"tenant": as_admin}, "stage Fetch", create_task, thread.run)
            await resources.get()
            await resources.close()

    run_virtual(main)
    assert seen == ["acme", "acme"]


def test_closing_waits_for_a_thread_that_is_just_entering_and_has_it_left() -> None:
    """A thread cannot be cancelled: what it enters while everything is closed is left as well."""
    lines: list[str] = []
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow:
        def __enter__(self) -> None:
            begun.set()
            may_go_on.wait(10.0)
            lines.append("entered")

        def __exit__(self, *error: object) -> None:
            lines.append("left")

    async def main() -> None:
        with one_thread() as thread:
            resources = Resources({"slow": Slow}, "stage Fetch", create_task, thread.run)
            caller = asyncio.create_task(resources.get())
            await asyncio.to_thread(begun.wait, 10.0)
            closing_ = asyncio.create_task(resources.close())
            for _ in range(5):
                await asyncio.sleep(0)
            may_go_on.set()
            await closing_
            assert isinstance(caller.exception(), PipelineError)

    run_virtual(main)
    assert lines == ["entered", "left"]


@pytest.mark.parametrize("error", [OSError("no database"), StopIteration(), KeyboardInterrupt()])
def test_errors_of_a_thread_come_out_like_others(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What a thread raises while it enters reaches the caller; while it leaves, log and `close`."""
    raises = [False]

    class Sync:
        def __enter__(self) -> None:
            self.raise_now_and_then()

        def __exit__(self, *error: object) -> None:
            self.raise_now_and_then()

        def raise_now_and_then(self) -> None:
            raises[0] = not raises[0]
            if raises[0]:
                raise error

    # A coroutine cannot raise StopIteration; Python makes another error of it.
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)

    async def main() -> None:
        with one_thread() as thread:
            resources = Resources({"sync": Sync}, "stage Fetch", create_task, thread.run)
            with pytest.raises(expected):
                await resources.get()
            await resources.get()
            if isinstance(error, Exception):
                await resources.close()
            else:
                with pytest.raises(expected):
                    await resources.close()

    run_virtual(main)
    assert messages(caplog) == ["closing resource sync of stage Fetch failed"]


# -- cancelled anywhere ---------------------------------------------------------------------------


async def use(resources: Resources, seconds: float) -> None:
    await resources.get()
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_all_that_is_entered_is_left_once_when_the_users_are_cancelled(seed: int | None) -> None:
    """In whichever step the program is cancelled, nothing stays entered or is left twice."""
    journal = Journal()

    async def main() -> None:
        resources = things_of(journal, "a", "b")
        try:
            async with asyncio.TaskGroup() as group:
                for seconds in (0.0, 1.0, 3.0):
                    group.create_task(use(resources, seconds))
                group.create_task(use(resources, 2.0)).cancel()
        finally:
            await resources.close()

    def check(k: int) -> None:
        assert not any(journal.balance().values()), (k, journal.lines)
        journal.lines.clear()

    assert cancel_at_every_step(main, check, seed=seed) > 10


@pytest.mark.parametrize("enter", [1.0, OSError("no database")], ids=["works", "fails"])
def test_all_that_is_entered_is_left_once_when_the_keeper_is_cancelled(
    enter: float | BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """In whichever step the keeper is cancelled, its callers end and each thing is left once."""
    caplog.set_level(logging.CRITICAL, "antflow")

    def run_and_cancel_at(k: int) -> bool:
        journal = Journal()
        reached: list[bool] = []

        async def main() -> None:
            resources = resources_of(
                a=lambda: Thing(journal, "a"), b=lambda: Thing(journal, "b", enter)
            )
            await asyncio.gather(
                *(use(resources, seconds) for seconds in (0.0, 1.0)), return_exceptions=True
            )
            await resources.close()

        def on_step(step: int) -> None:
            if step == k and cancel_keeper():
                reached.append(True)

        run_virtual(main, on_step=on_step)
        assert not any(journal.balance().values()), (k, journal.lines)
        return any(reached)

    reached = [run_and_cancel_at(k) for k in range(1, 60)]
    assert sum(reached) > 5
    assert not reached[-1]
