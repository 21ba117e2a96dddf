"""One worker's task serves thousands of items: nothing of one of them reaches the next."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from antflow import (
    AsyncExecutor,
    Limit,
    Pipeline,
    PipelineError,
    RunResults,
    Stage,
    StatusTracker,
    TaskEvent,
    TaskFailedError,
    set_task_status,
)
from antflow.testing import run_virtual
from tests.support import set_task_factory

tenant: ContextVar[Any] = ContextVar("tenant", default=None)

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "timeout": {"timeout": 60},
    "limit": {"limits": [Limit(concurrency=1)]},
    "one at a time": {"task_concurrency_limits": {"one_at_a_time": 1}},
    "per_stage": {"retry": "per_stage"},
    "batch": {"batch": 1},
    "expand": {"expand": True},
    "skip_if": {"skip_if": lambda item: False},
    "callbacks": {"on_success": lambda *_: None, "on_failure": lambda *_: None},
}


def as_task(kind: str, work: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    """The same work, as a task of a stage of this kind."""
    if kind == "batch":

        async def on_batch(items: Sequence[Any]) -> list[Any]:
            return [await work(item) for item in items]

        return on_batch
    if kind == "expand":

        async def children(item: Any) -> AsyncIterator[Any]:
            yield await work(item)

        return children

    async def one_at_a_time(item: Any) -> Any:
        return await work(item)

    return work if kind != "one at a time" else one_at_a_time


def run_kind(
    kind: str,
    work: Callable[[Any], Awaitable[Any]],
    items: Any = range(6),
    *,
    has_factory: bool = False,
    **options: Any,
) -> RunResults[Any]:
    options = {"task_attempts": 1, "stage_attempts": 1, **KINDS[kind], **options}
    if "limits" in options:
        options["limits"] = [Limit(concurrency=1)]
    stage = Stage("Work", 1, [as_task(kind, work)], **options)

    async def main() -> RunResults[Any]:
        if has_factory:
            set_task_factory()
        return await Pipeline([stage]).run(items)

    return run_virtual(main)


# Context variables


@pytest.mark.parametrize("suspends", [True, False])
@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_item_sees_no_context_of_the_one_before(kind: str, fails: bool, suspends: bool) -> None:
    """What a task binds is gone for the next item, however the try ends."""
    seen: list[Any] = []

    async def work(item: int) -> int:
        seen.append(tenant.get())
        if item % 2 == 0:
            tenant.set(item)
        if suspends:
            await asyncio.sleep(1)
        if fails and item % 2 == 0:
            raise ValueError
        return item

    results = run_kind(kind, work)
    assert seen == [None] * 6
    assert len(results.failed) == (3 if fails else 0)


def test_try_sees_no_context_of_the_one_before() -> None:
    """A second try begins with the caller's context, as the first did."""
    seen: list[Any] = []

    async def work(item: int) -> int:
        seen.append(tenant.get())
        tenant.set(item)
        if len(seen) < 4:
            raise ValueError
        return item

    async def main() -> None:
        tenant.set("caller's")
        for retry in ("per_task", "per_stage"):
            seen.clear()
            options: dict[str, Any] = {"task_attempts": 4, "stage_attempts": 4}
            options["task_wait_seconds"] = 0
            stage = Stage("Work", 1, [work], retry=retry, **options)
            assert len(await Pipeline([stage]).run([1])) == 1
            assert seen == ["caller's"] * 4

    run_virtual(main)


def test_items_of_a_failed_batch_are_tried_alone_each_in_a_context_of_its_own() -> None:
    """A batch that fails is tried item by item, and none sees what another has bound."""
    seen: list[Any] = []

    async def work(items: list[int]) -> list[int]:
        seen.append(tenant.get())
        tenant.set(items)
        if len(items) > 1:
            raise ValueError
        return items

    stage = Stage("Work", 1, [work], batch=3, task_attempts=1)
    results = run_virtual(lambda: Pipeline([stage]).run(range(3)))
    assert (len(results), seen) == (3, [None] * 4)


@pytest.mark.parametrize("is_async", [True, False])
def test_skip_if_of_a_batch_binds_nothing_for_other_items(is_async: bool) -> None:
    """What ``skip_if`` binds is seen by ``on_skip`` of that item alone, and it is asked once."""
    seen: list[tuple[str, int, Any]] = []

    def skip_odd(item: int) -> bool:
        if len(seen) > 20:
            raise RecursionError("asked again and again")
        seen.append(("skip_if", item, tenant.get()))
        tenant.set(item)
        return item % 2 == 1

    async def skip_odd_async(item: int) -> bool:
        await asyncio.sleep(1)
        return skip_odd(item)

    def on_skip(item: int, *_: Any) -> None:
        seen.append(("on_skip", item, tenant.get()))

    async def work(items: list[int]) -> list[Any]:
        return [tenant.get() for _ in items]

    skip_if = skip_odd_async if is_async else skip_odd
    stage = Stage("Work", 1, [work], batch=4, batch_wait=1, skip_if=skip_if, on_skip=on_skip)
    results = run_virtual(lambda: Pipeline([stage]).run(range(4)))

    assert results.values() == [None, 1, None, 3]
    assert sorted(seen) == [
        ("on_skip", 1, 1),
        ("on_skip", 3, 3),
        *[("skip_if", item, None) for item in range(4)],
    ]


def test_skip_if_is_not_asked_again_about_an_item_that_was_put_back() -> None:
    """A worker that is cancelled while it gathers a batch has its items come to it all the same."""
    asked: list[int] = []

    def skip_none(item: int) -> bool:
        if len(asked) > 20:
            raise RecursionError("asked again and again")
        asked.append(item)
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().call_later(1, running.cancel)
        return False

    async def slowly() -> AsyncIterator[int]:
        for item in range(3):
            await asyncio.sleep(4)
            yield item

    async def work(items: list[int]) -> list[int]:
        return items

    stage = Stage("Work", 1, [work], batch=2, batch_wait=3, skip_if=skip_none)
    results = run_virtual(lambda: Pipeline([stage]).run(slowly()))

    assert results.values() == [0, 1, 2]
    assert asked == [0, 1, 2]


def bound(count: int) -> Iterator[int]:
    token = tenant.set("the generator")
    try:
        for number in range(count):
            assert tenant.get() == "the generator"
            yield number
    finally:
        tenant.reset(token)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("is_told", [True, False])
def test_items_do_not_see_what_their_source_bound(batch: int | None, is_told: bool) -> None:
    """A generator has its own context variables, whichever workers take from it."""

    async def work(item: Any) -> Any:
        await asyncio.sleep(1)
        return tenant.get() if batch is None else [tenant.get() for _ in item]

    tracker = StatusTracker(on_status_change=lambda event: None) if is_told else None
    stage = Stage("Work", 3, [work], batch=batch)
    pipeline = Pipeline([stage], status_tracker=tracker)
    results = run_virtual(lambda: pipeline.run(bound(300)))

    assert results.values() == [None] * 300


@pytest.mark.parametrize("executor", ["thread", "inline"])
def test_generator_of_an_expanding_stage_keeps_its_context_variables(executor: Any) -> None:
    """A plain generator binds variables and resets them, however many values it makes."""
    stages = [
        Stage("Expand", 1, [bound], expand=True, executor=executor, task_attempts=1),
        Stage("Look", 1, [lambda _: tenant.get()]),
    ]
    results = run_virtual(lambda: Pipeline(stages).run([250, 250]))

    assert (results.values(), results.failed) == ([None] * 500, [])


@pytest.mark.parametrize("batch", [None, 1])
def test_context_is_left_alone_where_that_is_asked_for(batch: int | None) -> None:
    """``isolate_context=False``: a worker keeps its variables, and its one `asyncio.Task`."""
    seen: list[Any] = []
    tasks: set[Any] = set()

    async def work(item: Any) -> Any:
        tasks.add(asyncio.current_task())
        seen.append(tenant.get())
        tenant.set(len(seen))
        return item

    stage = Stage("Work", 1, [work], batch=batch, isolate_context=False)
    run_virtual(lambda: Pipeline([stage]).run(range(3)))
    assert (seen, len(tasks)) == ([None, 1, 2], 1)


def test_later_tasks_and_callbacks_see_what_a_task_bound() -> None:
    """Within one try, and for the item's own callbacks, the context is one."""
    seen: list[Any] = []

    async def bind(item: int) -> int:
        tenant.set(item)
        return item

    async def look(item: int) -> int:
        seen.append(("task", tenant.get()))
        return item

    def told(*_: Any) -> None:
        seen.append(("callback", tenant.get()))

    stages = [Stage("Work", 1, [bind, look], on_success=told), Stage("Next", 1, [look])]
    run_virtual(lambda: Pipeline(stages).run([1, 2]))
    assert sorted(seen, key=str) == [
        ("callback", 1),
        ("callback", 2),
        ("task", 1),
        ("task", 2),
        ("task", None),
        ("task", None),
    ]


class Unreadable(dict[str, Any]):
    """An item that fails while it is read."""

    def __contains__(self, key: object) -> bool:
        raise LookupError(key)


@pytest.mark.parametrize("is_awaited", [True, False])
@pytest.mark.parametrize("end", ["join", "shutdown", "cancel"])
@pytest.mark.parametrize("unreadable", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
def test_callbacks_without_a_worker_bind_nothing_for_others(
    is_async: bool, unreadable: bool, end: str, is_awaited: bool
) -> None:
    """Neither for the callbacks of other items, nor for their source, nor for who feeds the run."""
    leaks: list[Any] = []

    def bind(item_id: Any) -> None:
        if tenant.get() not in ("caller", item_id):
            leaks.append((item_id, tenant.get()))
        tenant.set(item_id)

    def told(event: Any) -> Any:
        bind(event.item_id)
        return told_later(event) if is_awaited else None

    async def told_later(event: Any) -> None:
        await asyncio.sleep(1)
        bind(event.item_id)

    async def source() -> AsyncIterator[Any]:
        for number in range(6):
            leaks.extend([tenant.get()] if tenant.get() != "caller" else [])
            yield item(number)

    def item(number: int) -> Any:
        return Unreadable() if unreadable else number

    async def work(value: Any) -> Any:
        return value

    async def main() -> None:
        tenant.set("caller")
        tracker = StatusTracker(on_status_change=told)
        pipeline = Pipeline([Stage("Work", 2, [work])], status_tracker=tracker)
        async with pipeline.open() as run:
            if end != "join":
                run.pause()
            await run.feed(source() if is_async else map(item, range(6)))
            if end == "shutdown":
                await run.shutdown()
            elif end == "cancel":
                run.cancel()
        assert tenant.get() == "caller"

    run_virtual(main)
    assert leaks == []


def test_unreadable_items_see_no_context_of_each_other() -> None:
    """The callbacks for one that fails before any worker has it bind nothing for the next."""
    seen: list[Any] = []

    def told(item_id: Any, *_: Any) -> None:
        seen.append(tenant.get())
        tenant.set(item_id)

    stage = Stage("Work", 1, [str], on_failure=told)
    run_virtual(lambda: Pipeline([stage]).run([Unreadable()] * 3))
    assert seen == [None] * 3


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = object.__hash__


@pytest.mark.parametrize("batch", [None, 1])
def test_context_with_values_that_cannot_be_compared(batch: int | None) -> None:
    """A variable whose values raise when they are compared is kept apart like any other."""
    mine, seen = Incomparable(), []

    async def work(item: Any) -> Any:
        seen.append(tenant.get() is mine)
        tenant.set(Incomparable())
        return item

    async def main() -> RunResults[Any]:
        tenant.set(mine)
        return await Pipeline([Stage("Work", 1, [work], batch=batch)]).run(range(4))

    assert len(run_virtual(main)) == 4
    assert seen == [True] * 4


def test_worker_keeps_its_place_and_resources_when_an_item_bound_something() -> None:
    """A worker that goes on with a clean context is the same worker, with the same resources."""
    entered: list[str] = []

    class Connection:
        async def __aenter__(self) -> Connection:
            entered.append("in")
            return self

        async def __aexit__(self, *_: Any) -> None:
            entered.append("out")

    workers: set[str] = set()

    async def work(item: int, connection: Connection) -> int:
        tenant.set(item)
        workers.update(
            name for name, state in pipeline.get_worker_states().items() if state.status == "busy"
        )
        return item

    options: dict[str, Any] = {"resources": {"connection": Connection}, "resource_scope": "worker"}
    pipeline = Pipeline([Stage("Work", 1, [work], **options)])
    assert len(run_virtual(lambda: pipeline.run(range(20)))) == 20
    assert (workers, entered) == ({"Work-W0"}, ["in", "out"])


# Requests to cancel


async def cancel_and_return(item: Any, *_: Any) -> Any:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()
    return item


async def cancel_and_swallow(item: int) -> int:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass
    return item


async def cancel_twice(item: int) -> int:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()
    return await cancel_and_swallow(item)


async def cancel_and_fail(item: int) -> int:
    await cancel_and_swallow(item)
    raise TimeoutError("the client's own")


async def cancel_and_take_back(*args: Any) -> Any:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()
    running.uncancel()
    return args[0] if args else None


LEFT_BEHIND = [cancel_and_return, cancel_and_swallow, cancel_twice, cancel_and_fail]


@pytest.mark.parametrize("leave", LEFT_BEHIND)
@pytest.mark.parametrize("kind", KINDS)
def test_item_notices_no_request_to_cancel_the_one_before(
    kind: str, leave: Callable[[int], Awaitable[int]]
) -> None:
    """What a client library left of its own cancellation changes nothing for the next item."""
    counts: list[int] = []

    async def fails(_: int) -> None:
        raise ConnectionError

    async def work(item: int) -> int:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        if item % 3 == 0:
            return await leave(item)
        if item % 3 == 1:
            raise asyncio.CancelledError("the task's own")
        async with asyncio.TaskGroup() as group:
            group.create_task(fails(item))
            group.create_task(asyncio.sleep(60))
        return item

    results = run_kind(kind, work, range(9))
    assert counts == [0] * 9
    ok = 0 if leave is cancel_and_fail else 3
    assert (len(results), len(results.failed)) == (ok, 9 - ok)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_item_notices_no_request_that_the_one_before_took_back(kind: str, fails: bool) -> None:
    """Before Python 3.13 it still arrives. Only eager tasks leave one, and they need a factory."""

    async def work(item: int) -> int:
        if item % 2:
            await asyncio.sleep(1)
            return item
        await cancel_and_take_back()
        if fails:
            raise LookupError
        return item

    results = run_kind(kind, work, has_factory=True)
    assert [failure.sequence_id for failure in results.failed] == ([0, 2, 4] if fails else [])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_item_notices_no_failed_task_group_of_eager_tasks() -> None:
    """Of the one before, on the same worker."""

    async def fail() -> None:
        raise LookupError

    async def work(item: int) -> int:
        if item == 0:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        await asyncio.sleep(1)
        return item

    async def main() -> RunResults[int]:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        asyncio.get_running_loop().set_task_factory(factory)
        return await Pipeline([Stage("Work", 1, [work], task_attempts=1)]).run(range(3))

    assert run_virtual(main).values() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_run_survives_a_request_to_cancel_a_worker_between_two_tasks(kind: str) -> None:
    """An item that has set a context variable leaves a request that comes in the next turn."""
    running: list[asyncio.Task[Any]] = []

    async def work(item: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        tenant.set(item + 1)
        for each in running:
            asyncio.get_running_loop().call_soon(each.cancel)
        return item

    results = run_kind(kind, work, range(20))
    assert (len(results), len(results.failed), results.cancelled) == (20, 0, [])


@pytest.mark.parametrize("how", ["pause", "set_workers"])
def test_run_survives_a_request_to_cancel_a_worker_that_leaves(how: str) -> None:
    """An item leaves a timer that cancels its worker while that leaves its resources."""
    left: list[float] = []

    @asynccontextmanager
    async def slow_to_leave() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(3)
        left.append(asyncio.get_running_loop().time())

    async def work(item: int, **_: Any) -> int:
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().call_later(2, running.cancel)
        await asyncio.sleep(1)
        return item

    async def main() -> None:
        resources = {"slow": slow_to_leave}
        stage = Stage("Work", 2, [work], resources=resources, resource_scope="worker")
        async with Pipeline([stage]).open() as run:
            await run.feed(range(2))
            await asyncio.sleep(0.5)
            if how == "pause":
                run.pause()
            else:
                run.set_workers("Work", 1)
            await asyncio.sleep(6)
            assert left == [4] * (2 if how == "pause" else 1)
            run.resume()
            await run.feed(range(2))
        assert len(run.results) == 4

    run_virtual(main)


@pytest.mark.parametrize("leave", [cancel_and_return, cancel_and_swallow])
def test_item_tried_alone_keeps_its_answer_whatever_it_leaves(
    leave: Callable[[int], Awaitable[int]],
) -> None:
    """An item of a failed batch counts as done although it leaves a request to cancel its task."""

    async def work(items: list[int]) -> list[int]:
        if len(items) > 1:
            raise ConnectionError
        return [await leave(items[0])]

    stage = Stage("Work", 1, [work], batch=3, task_attempts=1)
    assert run_virtual(Pipeline([stage]).run(range(3))).values() == [0, 1, 2]


@pytest.mark.parametrize("takes_back", [False, True])
@pytest.mark.parametrize("batch", [None, 1])
def test_run_survives_a_request_that_the_last_item_of_a_worker_left(
    batch: int | None, takes_back: bool
) -> None:
    """The item pauses the run, so the worker leaves; before Python 3.13 a request remains then."""

    async def main() -> None:
        async def work(item: Any) -> Any:
            run.pause()
            running = asyncio.current_task()
            assert running is not None
            running.cancel()
            if takes_back:
                running.uncancel()
            return item

        async with Pipeline([Stage("Work", 2, [work], batch=batch)]).open() as run:
            await run.feed(range(4))
            for _ in range(4):
                await asyncio.sleep(1)
                run.resume()
        assert len(run.results) == 4

    run_virtual(main)


@pytest.mark.parametrize("is_late", [False, True])
def test_items_of_a_failed_batch_notice_no_request_to_cancel_it(is_late: bool) -> None:
    """They are tried alone; a request that comes only then makes the item in hand fail."""

    async def work(items: list[int]) -> list[int]:
        if len(items) > 1:
            running = asyncio.current_task()
            assert running is not None
            if not is_late:
                running.cancel()
            else:
                asyncio.get_running_loop().call_soon(running.cancel)
            raise ConnectionError
        await asyncio.sleep(1)
        return items

    stage = Stage("Work", 1, [work], batch=3, task_attempts=1)
    results = run_virtual(Pipeline([stage]).run(range(3)))
    assert not results.cancelled
    if is_late:
        assert results.values() == [1, 2]
        assert isinstance(results.failed[0].error, TaskFailedError)
    else:
        assert results.values() == [0, 1, 2]


def test_group_of_a_batch_notices_no_request_to_cancel_the_one_before() -> None:
    """An item with one try left is tried alone, right after the others that came with it."""
    calls: list[list[str]] = []

    async def work(items: list[str]) -> list[str]:
        calls.append(items)
        if len(items) > 1:
            running = asyncio.current_task()
            assert running is not None
            running.cancel()
            raise ConnectionError
        await asyncio.sleep(1)
        return items

    async def main() -> list[str]:
        options: dict[str, Any] = {"batch": 4, "batch_wait": 2, "task_wait_seconds": 1}
        async with Pipeline([Stage("Work", 1, [work], task_attempts=2, **options)]).open() as run:
            await run.feed(["a", "b"])
            await asyncio.sleep(2.5)
            await run.feed(["c", "d"])
        return run.results.values()

    assert run_virtual(main) == ["a", "b", "c", "d"]
    assert calls == [["a", "b"], ["c", "d"], ["a"], ["b"], ["c"], ["d"]]


def test_skip_if_notices_no_request_to_cancel_the_batch_before() -> None:
    """It is asked before the next batch is tried."""
    counts: list[int] = []

    async def work(items: list[int]) -> list[int]:
        if len(items) > 1:
            await cancel_and_swallow(0)
            raise ConnectionError
        return items

    async def skip_if(item: int) -> bool:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        return False

    stage = Stage("Work", 1, [work], batch=2, skip_if=skip_if, task_attempts=2)
    assert run_virtual(Pipeline([stage]).run(range(6))).values() == [*range(6)]
    assert counts == [0] * 6


@pytest.mark.parametrize("leave", [cancel_and_return, cancel_and_take_back])
@pytest.mark.parametrize("kind", KINDS)
def test_request_to_cancel_that_items_leave_lifts_no_bound_of_a_queue(
    kind: str, leave: Callable[[int], Awaitable[int]]
) -> None:
    """The worker waits for room in the next stage nevertheless."""
    lengths: list[int] = []

    async def slow(item: int) -> int:
        lengths.append(pipeline.get_stats().queue_sizes["Slow"])
        await asyncio.sleep(1)
        return item

    work = as_task(kind, leave)
    stages = [
        Stage("Work", 1, [work], **KINDS[kind]),
        Stage("Slow", 1, [slow], queue_capacity=2),
    ]
    pipeline = Pipeline(stages)
    assert run_virtual(lambda: pipeline.run(range(20))).values() == [*range(20)]
    assert max(lengths) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_request_to_cancel_that_items_leave_lifts_no_bound_of_the_retries(kind: str) -> None:
    """A worker whose failed item finds no place to wait takes nothing new."""
    begun: list[int] = []

    async def fail(item: int) -> int:
        begun.append(item)
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        raise ConnectionError

    async def main() -> None:
        options = {**KINDS[kind], "queue_capacity": 4, "wait": 60}
        async with Pipeline([Stage("Work", 1, [as_task(kind, fail)], **options)]).open() as run:
            feeding = asyncio.create_task(run.feed(range(20)))
            await asyncio.sleep(30)
            assert len(begun) <= 5
            feeding.cancel()
            run.cancel()

    run_virtual(main)


@pytest.mark.parametrize("kind", KINDS)
def test_try_notices_no_request_to_cancel_the_one_before(kind: str) -> None:
    """A try that fails and leaves one behind changes nothing for the next try."""
    counts: list[int] = []

    async def work(item: int) -> int:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        return await cancel_and_fail(item) if len(counts) < 3 else item

    options: dict[str, Any] = {"task_attempts": 3, "stage_attempts": 3, "task_wait_seconds": 0}
    assert len(run_kind(kind, work, [1], **options)) == 1
    assert counts == [0] * 3


@pytest.mark.parametrize("batch", [None, 1])
def test_worker_without_an_item_survives_a_request_to_cancel(batch: int | None) -> None:
    """A client library that cancels late, when its item is through, ends neither worker nor run."""
    tasks: list[asyncio.Task[Any]] = []

    async def work(item: Any) -> Any:
        running = asyncio.current_task()
        assert running is not None
        tasks.append(running)
        return item

    async def main() -> None:
        async with Pipeline([Stage("Work", 1, [work], batch=batch)]).open() as run:
            for number in range(4):
                await run.feed([number])
                await asyncio.sleep(1)
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(1)
        assert run.results.values() == [0, 1, 2, 3]

    run_virtual(main)


@pytest.mark.parametrize("leave", LEFT_BEHIND)
def test_callbacks_hear_of_an_item_that_left_a_request_to_cancel(
    leave: Callable[[int], Awaitable[int]],
) -> None:
    """An async callback is not cut off by what the task before it left behind."""
    told: list[str] = []

    async def tell(event: Any) -> None:
        await asyncio.sleep(1)
        told.append(f"{event.item_id} {event.status} {event.stage}")

    tracker = StatusTracker(on_status_change=tell)
    stages = [Stage("Work", 1, [leave], task_attempts=1), Stage("Next", 1, [cancel_and_return])]
    results = run_virtual(lambda: Pipeline(stages, status_tracker=tracker).run([0, 1]))
    assert len(results) + len(results.failed) == 2
    for item in (0, 1):
        history = [f"{e.item_id} {e.status} {e.stage}" for e in tracker.get_history(item)]
        assert [line for line in told if line.startswith(f"{item} ")] == history


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_notice_no_request_to_cancel_that_a_failed_item_left(kind: str) -> None:
    """One that asks whether it is being cancelled hears that it is not."""
    counts: list[int] = []

    def on_failure(*_: Any) -> None:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())

    options = {"task_attempts": 1, "stage_attempts": 1, **KINDS[kind], "on_failure": on_failure}
    stage = Stage("Work", 1, [as_task(kind, cancel_and_fail)], **options)
    run_virtual(lambda: Pipeline([stage]).run([0, 1], on_failures="ignore"))
    assert counts == [0, 0]


@pytest.mark.parametrize("mode", ["per_task", "per_stage"])
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("leave", LEFT_BEHIND[:3])
def test_task_notices_no_request_to_cancel_the_one_before(
    leave: Callable[[int], Awaitable[int]], batch: int | None, mode: Any
) -> None:
    """The tasks of a stage run in one `asyncio.Task`."""
    counts: list[int] = []

    async def work(item: Any) -> Any:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        await asyncio.sleep(1)
        return item

    tasks = [as_task("batch" if batch else "plain", leave), work, lambda item: item]
    options: dict[str, Any] = {"task_attempts": 1, "stage_attempts": 1, "retry": mode}
    results = run_virtual(Pipeline([Stage("Work", 1, tasks, batch=batch, **options)]).run(range(4)))
    assert results.values() == [0, 1, 2, 3]
    assert set(counts) == {0}


@pytest.mark.parametrize("leave", LEFT_BEHIND)
@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_of_tasks_hear_of_one_that_left_a_request_to_cancel(
    kind: str, leave: Callable[[int], Awaitable[int]]
) -> None:
    """None of them is cut off."""
    begun: list[str] = []
    told: list[str] = []

    async def tell(event: TaskEvent) -> None:
        begun.append(f"{event.item_id} {event.event_type}")
        await asyncio.sleep(1)
        told.append(f"{event.item_id} {event.event_type}")

    tracker = StatusTracker(
        on_task_start=tell, on_task_complete=tell, on_task_retry=tell, on_task_fail=tell
    )
    options = {"task_wait_seconds": 0, "stage_attempts": 3, **KINDS[kind]}
    stage = Stage("Work", 1, [as_task(kind, leave)], **options)
    run_virtual(lambda: Pipeline([stage], status_tracker=tracker).run([0, 1]))
    assert told == begun
    ends = ["start", "complete"]
    if leave is cancel_and_fail:
        ends = ["start", "retry", "start", "retry", "start", "fail"]
    assert [line for line in told if line[0] == "0"] == [f"0 {end}" for end in ends]


@pytest.mark.parametrize("batch", [None, 2])
def test_callbacks_hear_of_an_item_whose_skip_if_left_a_request_to_cancel(
    batch: int | None,
) -> None:
    """And failed."""
    told: list[str] = []

    def skip_if(item: int) -> bool:
        cancel_at_once()
        raise LookupError(item)

    async def tell(event: Any) -> None:
        await asyncio.sleep(1)
        told.append(event.status)

    stage = Stage("Work", 1, [cancel_and_return], skip_if=skip_if, batch=batch)
    tracker = StatusTracker(on_status_change=tell)
    run_virtual(lambda: Pipeline([stage], status_tracker=tracker).run([0]))
    assert told == ["queued", "in_progress", "failed"]


async def cancel_itself(*_: Any) -> None:
    await cancel_and_swallow(0)
    await cancel_and_return(0)
    await asyncio.sleep(0)


async def leave_a_request(*_: Any) -> None:
    await cancel_and_swallow(0)


async def raise_cancelled_after_a_request(*_: Any) -> None:
    await cancel_and_swallow(0)
    raise asyncio.CancelledError("its own")


def cancel_at_once(*_: Any) -> None:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()


async def be_cancelled_by_a_timer(*_: Any) -> None:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().call_later(1, running.cancel)
    await asyncio.sleep(2)


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize(
    "callback",
    [
        cancel_at_once,
        cancel_and_return,
        cancel_and_take_back,
        cancel_itself,
        leave_a_request,
        raise_cancelled_after_a_request,
        be_cancelled_by_a_timer,
    ],
)
def test_callback_that_cancels_its_task_changes_nothing(
    callback: Callable[..., Any], batch: int | None
) -> None:
    """Neither an item nor the run notices that, and every callback is called."""
    counts: list[int] = []

    async def work(item: Any) -> Any:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        await asyncio.sleep(1)
        return item

    tracker = StatusTracker(
        on_status_change=callback, on_task_start=callback, on_task_complete=callback
    )
    stage = Stage("Work", 2, [work], batch=batch, on_success=callback)

    async def main() -> RunResults[Any]:
        if callback is cancel_and_take_back:
            set_task_factory()  # only eager tasks leave such a request
        return await Pipeline([stage], status_tracker=tracker).run(range(8))

    results = run_virtual(main)
    assert (results.values(), results.cancelled) == (list(range(8)), [])
    assert set(counts) == {0}


@pytest.mark.parametrize("leave", [cancel_itself, raise_cancelled_after_a_request])
def test_source_that_cancels_its_task_ends_the_intake_alone(
    leave: Callable[[], Awaitable[None]],
) -> None:
    """Items that came before are finished, then it comes out what the source has done."""

    async def source() -> AsyncIterator[int]:
        for item in range(3):
            yield item
        await leave()

    async def work(item: int) -> int:
        await asyncio.sleep(1)
        return item

    pipeline = Pipeline([Stage("Work", 1, [work])])
    with pytest.raises(PipelineError, match="the source raised CancelledError"):
        run_virtual(lambda: pipeline.run(source()))
    assert pipeline.results is not None
    assert pipeline.results.values() == [0, 1, 2]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "leave", [cancel_and_return, cancel_and_swallow, cancel_twice, cancel_and_take_back]
)
def test_source_may_leave_a_request_to_cancel(
    leave: Callable[[int], Awaitable[int]], is_async: bool, is_told: bool, ordered: bool
) -> None:
    """It changes nothing for the run, whatever reads the source, and nothing for its next step."""
    counts: list[int] = []

    def cancelling() -> int:
        running = asyncio.current_task()
        assert running is not None
        return running.cancelling()

    async def coming() -> AsyncIterator[int]:
        for item in range(60):
            counts.append(cancelling())
            yield await leave(item)

    def at_once() -> Iterator[int]:
        for item in range(60):
            cancel_at_once()
            yield item

    async def work(item: int) -> int:
        await asyncio.sleep(1)
        return item

    tracker = StatusTracker(on_status_change=lambda _: None) if is_told else None
    pipeline = Pipeline([Stage("Work", 2, [work])], status_tracker=tracker)

    async def main() -> list[int]:
        source = coming() if is_async else at_once()
        return [result.value async for result in pipeline.stream(source, ordered=ordered)]

    assert sorted(run_virtual(main)) == list(range(60))
    assert set(counts) <= {0}


@pytest.mark.parametrize("scope", ["run", "stage", "worker"])
def test_resource_may_leave_a_request_to_cancel_while_it_is_entered(scope: Any) -> None:
    """A client that reaches the second host after a timeout of the first is there."""

    @asynccontextmanager
    async def client() -> AsyncIterator[str]:
        await cancel_and_swallow(0)
        yield "client"

    async def work(item: int, http: str) -> str:
        return http

    stage = Stage(
        "Work", 1, [work], task_attempts=1, resources={"http": client}, resource_scope=scope
    )
    results = run_virtual(lambda: Pipeline([stage]).run([0]))

    assert results.values() == ["client"]


@pytest.mark.parametrize("option", ["timeout", "item_timeout"])
def test_timeout_is_told_as_one_after_a_request_to_cancel(option: str) -> None:
    """A task that hangs after a client library's own timeout fails with ``TimeoutError``."""

    async def hang(item: int) -> None:
        await cancel_and_swallow(item)
        await asyncio.sleep(3600)

    of_stage: dict[str, Any] = {"timeout": 5} if option == "timeout" else {}
    of_run: dict[str, Any] = {"item_timeout": 5} if option == "item_timeout" else {}
    stage = Stage("Work", 1, [hang], task_attempts=1, **of_stage)
    results = run_virtual(lambda: Pipeline([stage]).run([0], **of_run))

    assert isinstance(results.failed[0].error, TimeoutError)
    assert option in str(results.failed[0].error)


def test_run_that_is_cancelled_ends_although_a_task_swallowed_that() -> None:
    """A worker whose task swallowed the run's own cancellation takes no further item."""
    begun: list[int] = []

    async def work(item: int) -> int:
        begun.append(item)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            pass
        return item

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await Pipeline([Stage("Work", 1, [work])]).run(range(5), timeout=1)

    run_virtual(main)
    assert begun == [0]


def test_run_that_is_cancelled_waits_for_no_callback_after_a_task_that_swallowed_that() -> None:
    """Its item is given up as the others are, and its callback not called."""
    told: list[Any] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            pass
        return item

    async def tell(*details: Any) -> None:
        told.append(details)
        await asyncio.sleep(20)

    async def main() -> float:
        with pytest.raises(TimeoutError):
            await Pipeline([Stage("Work", 1, [work], on_success=tell)]).run([1], timeout=1)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1
    assert told == []


# Memory


class Page:
    """A large thing that can be watched."""


alive: weakref.WeakSet[Page] = weakref.WeakSet()


def page() -> Page:
    made = Page()
    alive.add(made)
    return made


def pages(count: int) -> Iterator[Page]:
    for _ in range(count):
        yield page()


async def pages_later(count: int, gate: asyncio.Event) -> AsyncIterator[Page]:
    for _ in range(count):
        yield page()
    await gate.wait()


async def through(item: Page) -> Page:
    connection = page()  # a local variable
    set_task_status("at work")
    await asyncio.sleep(1)
    del connection
    return page()


async def fails(item: Page) -> Page:
    connection = page()
    await asyncio.sleep(1)
    raise ValueError(str(type(connection)))


@pytest.mark.parametrize("source", ["fed", "async"])
@pytest.mark.parametrize("work", [through, fails])
@pytest.mark.parametrize("kind", KINDS)
def test_settled_item_is_not_kept_by_idle_workers(
    kind: str, work: Callable[[Page], Awaitable[Page]], source: str
) -> None:
    """While workers wait for the next item, nothing of those before is alive."""
    options = {"task_attempts": 2, "task_wait_seconds": 0.5, "stage_attempts": 2, **KINDS[kind]}
    if "limits" in options:
        options["limits"] = [Limit(concurrency=1)]
    stage = Stage("Work", 2, [as_task(kind, work)], **options)

    async def last(item: Page) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        stages = [stage, Stage("Last", 1, [last])]
        pipeline = Pipeline(stages, collect_results=False, status_tracker=StatusTracker())
        gate = asyncio.Event()
        async with pipeline.open() as run:
            if source == "fed":
                await run.feed(pages(5))
                feeding = None
            else:
                feeding = asyncio.ensure_future(run.feed(pages_later(5, gate)))
            await asyncio.sleep(60)
            assert run.stats().items_in_flight == 0
            gc.collect()
            kept = len(alive)
            gate.set()
            if feeding is not None:
                await feeding
        assert kept == 0

    alive.clear()
    run_virtual(main)


def test_context_variable_of_a_settled_item_is_not_kept() -> None:
    """What an item bound goes with it, from the worker's first task as well."""

    async def bind(item: int) -> int:
        tenant.set(page())
        return item

    async def main() -> None:
        async with Pipeline([Stage("Work", 1, [bind])]).open() as run:
            for item in range(3):
                await run.feed([item])
                await asyncio.sleep(1)
                gc.collect()
                assert len(alive) == 0

    alive.clear()
    run_virtual(main)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_error_keeps_no_variables_of_the_task(kind: str) -> None:
    """A result keeps the error, and of the failed item what went in; no local of a frame."""

    async def deeper() -> None:
        local = page()
        await asyncio.sleep(1)
        raise KeyError(type(local).__name__)

    async def work(item: int) -> Any:
        local = page()
        try:
            await deeper()
        except KeyError as error:
            raise ValueError(type(local).__name__) from error

    alive.clear()
    results = run_kind(kind, work, range(3))
    gc.collect()
    assert len(alive) == 0
    assert len(results.failed) == 3


def test_child_that_is_settled_is_not_kept_while_the_next_is_made() -> None:
    """An expanding task that takes its time keeps none of the items it has made so far."""
    gate = asyncio.Event()

    async def children(item: int) -> AsyncIterator[Page]:
        yield page()
        yield page()
        await gate.wait()

    async def last(item: Page) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        stages = [Stage("Expand", 1, [children], expand=True), Stage("Last", 1, [last])]
        async with Pipeline(stages, collect_results=False).open() as run:
            await run.feed([1])
            await asyncio.sleep(60)
            gc.collect()
            assert len(alive) == 0
            gate.set()

    alive.clear()
    run_virtual(main)


# Elsewhere


def test_items_see_no_context_of_their_source() -> None:
    """What a plain generator binds while it is read, in a worker's time, is its own affair."""
    seen: list[Any] = []

    def source() -> Iterator[int]:
        for item in range(40):
            assert tenant.get() == (item - 1 if item else "caller's")
            tenant.set(item)
            yield item

    async def work(item: int) -> int:
        seen.append(tenant.get())
        return item

    async def main() -> RunResults[int]:
        tenant.set("caller's")
        return await Pipeline([Stage("Work", 2, [work], queue_capacity=3)]).run(source())

    assert len(run_virtual(main)) == 40
    assert seen == ["caller's"] * 40


@pytest.mark.parametrize("leave", LEFT_BEHIND)
def test_call_of_an_executor_is_tried_again_whatever_the_try_left(
    leave: Callable[[int], Awaitable[int]],
) -> None:
    """A client library's own cancellation does not use up the tries that are left."""
    counts: list[int] = []

    async def work() -> int:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        if len(counts) < 3:
            await leave(1)
            raise TimeoutError
        return 1

    async def main() -> int:
        async with AsyncExecutor(1) as executor:
            return await executor.submit(work, retries=2)

    assert run_virtual(main) == 1
    assert counts == [0, 0, 0]


def test_call_of_an_executor_that_swallows_its_cancellation_is_not_tried_again() -> None:
    """A call that was cancelled through its future ends with that try."""
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise TimeoutError from None

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            future = executor.submit(work, retries=5)
            await asyncio.sleep(1)
            future.cancel()

    run_virtual(main)
    assert begun == [1]


def test_error_of_an_executor_keeps_no_variables() -> None:
    """A future keeps the error of its call, and no local of a frame."""

    async def work() -> None:
        local = page()
        await asyncio.sleep(0)
        raise ValueError(type(local).__name__)

    def plain() -> None:
        local = page()
        raise ValueError(type(local).__name__)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            futures = [executor.submit(work), executor.submit(plain)]
            await executor.wait(futures)
            gc.collect()
            assert len(alive) == 0
            for future, name in zip(futures, ("work", "plain"), strict=True):
                error = future.exception()
                assert error is not None
                assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [name]

    alive.clear()
    run_virtual(main)


@pytest.mark.parametrize("executor", ["thread", "inline"])
@pytest.mark.parametrize("name", ["self", "task", "function", "call", "value", "args", "stage"])
def test_resource_may_have_any_name(name: str, executor: Any) -> None:
    """The name of a resource never meets that of a parameter of the engine's own."""

    class Resource:
        def __enter__(self) -> str:
            return "entered"

        def __exit__(self, *_: Any) -> None:
            pass

    def plain(item: Any, /, **resources: Any) -> Any:
        return resources

    async def later(item: Any, /, **resources: Any) -> Any:
        return resources

    for unpacks in (False, True):
        for task in (plain, later):
            stage = Stage(
                "Work",
                1,
                [task],
                executor=executor,
                resources={name: Resource},
                unpack_args=unpacks,
            )
            pipeline = Pipeline([stage])
            results = run_virtual(partial(pipeline.run, [(1,)]))
            assert results.values() == [{name: "entered"}]
