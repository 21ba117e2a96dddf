"""The options of an executor and its futures, and of what helps tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from antflow import AsyncExecutor, AsyncFuture, WaitStrategy
from antflow.testing import (
    Calls,
    FailTimes,
    MemoryStore,
    Sleep,
    VirtualLoop,
    cancel_at_every_step,
    run_virtual,
)

from .rows_stage import COUNT, FLAG, SECONDS, work
from .values import (
    HUGE,
    INF,
    NAN,
    NO_CALLABLES,
    NO_COUNTS,
    NO_FLAGS,
    NO_SECONDS,
    NO_WORDS,
    Hostile,
    Row,
    but,
)


async def nothing() -> None:
    """A program."""


async def use_submit(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        await executor.submit(options.pop("fn", work), 1, **options)


async def use_map(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        await executor.map(options.pop("fn", work), [], **options)


async def use_map_iter(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        async for _ in executor.map_iter(options.pop("fn", work), [], **options):
            pass


async def use_wait(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        await executor.wait(**dict[str, Any](futures=[executor.submit(work, 1)]) | options)


async def use_as_completed(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        ended = executor.as_completed(
            **dict[str, Any](futures=[executor.submit(work, 1)]) | options
        )
        async for _ in ended:  # refused before: as it is asked for
            pass


async def use_shutdown(**options: Any) -> None:
    executor = AsyncExecutor()
    before = executor.submit(work, "before")
    try:
        await executor.shutdown(**options)
    except Exception:
        assert await before == "before"
        assert await executor.submit(work, "after") == "after"
        raise
    finally:
        await executor.shutdown()


async def use_result(**options: Any) -> None:
    async with AsyncExecutor() as executor:
        await executor.submit(work, 1).result(**options)


def use_set_exception(**options: Any) -> None:
    future: AsyncFuture[Any] = AsyncFuture(0)
    try:
        future.set_exception(**options)
    except Exception:
        assert not future.done()
        raise


def use_add_done_callback(**options: Any) -> None:
    AsyncFuture[Any](0).add_done_callback(**options)


def use_fail_times(**options: Any) -> None:
    FailTimes(**dict[str, Any](times=1) | options)


def use_loop(**options: Any) -> None:
    VirtualLoop(**options).close()


def use_run_virtual(**options: Any) -> None:
    run_virtual(**dict[str, Any](main=nothing) | options)


def use_cancel(**options: Any) -> None:
    cancel_at_every_step(**dict[str, Any](make_main=nothing) | options)


RETRIES = Row(ValueError, f"{COUNT} >= 0", but(NO_COUNTS, 0), [0, 5])
DELAY = Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5])
TIMEOUT = Row(
    ValueError,
    "must be a number of seconds, or None",
    [NAN, "1", b"1", True, [1], {}, Hostile()],
    [None, 5, 1e9],
)
FUNCTION = Row(TypeError, "must be a function", [None, *NO_CALLABLES], [work, print])
FUTURES = Row(
    TypeError,
    "must be futures of an AsyncExecutor",
    [None, 5, "x", [5], [None], [[]], [Hostile()], Hostile()],
    [[], [AsyncFuture[Any](0)][:0]],
)
SEED = Row(TypeError, COUNT, ["5", 1.0, True, b"x", [], NAN, Hostile()], [None, 0, 10**9])
ON_STEP = Row(
    TypeError, "must be a function", [*NO_CALLABLES, lambda: 1], [None, lambda step: None]
)
LIMIT = Row(
    ValueError,
    "must be a number of seconds above 0",
    [0, *but(NO_SECONDS, INF, HUGE)],
    [0.5, INF, 10**9],
)
STEPS = Row(ValueError, f"{COUNT} >= 1", but(NO_COUNTS, None), [None, 10**6])
PROGRAM = Row(
    TypeError,
    "must be a function without parameters",
    [None, work, lambda value: value, *NO_CALLABLES],
    [nothing],
)
LOOP_ROWS = {
    "seed": SEED,
    "on_step": ON_STEP,
    "max_time": LIMIT,
    "max_steps": STEPS,
    "thread_patience": LIMIT,
}

ROWS: dict[str, Row] = {
    "AsyncExecutor.max_workers": Row(ValueError, COUNT, NO_COUNTS, [1, HUGE]),
    "AsyncExecutor.submit.fn": FUNCTION,
    "AsyncExecutor.submit.retries": RETRIES,
    "AsyncExecutor.submit.retry_delay": DELAY,
    "AsyncExecutor.submit.semaphore": Row(
        TypeError, "must be a semaphore", [5, "x", asyncio.Semaphore, True, Hostile()], [None]
    ),
    "AsyncExecutor.shutdown.wait": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "AsyncExecutor.shutdown.cancel_futures": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "AsyncExecutor.wait.return_when": Row(
        ValueError,
        "must be one of 'FIRST_COMPLETED', 'FIRST_EXCEPTION', 'ALL_COMPLETED', or a Wait",
        [*NO_WORDS, "all_completed", WaitStrategy],
        ["ALL_COMPLETED", WaitStrategy.FIRST_COMPLETED],
    ),
    "AsyncFuture.result.timeout": TIMEOUT,
    "AsyncFuture.set_exception.exception": Row(
        TypeError, "must be an exception", [None, 5, "x", ValueError, Hostile()], [ValueError()]
    ),
    "AsyncFuture.add_done_callback.fn": Row(
        TypeError, "must be a plain function|f.future.", [None, work, nothing, lambda: 1], [print]
    ),
    "FailTimes.times": Row(ValueError, f"{COUNT} >= 0", but(NO_COUNTS, 0), [0, 5]),
    "FailTimes.error": Row(
        TypeError,
        "must be a class of exceptions|must be a function",
        [None, lambda: ValueError(), *NO_CALLABLES],
        [OSError, KeyError],
    ),
    "Calls.task": Row(
        TypeError, "must be a function", [*NO_CALLABLES, nothing], [None, work, FailTimes(1)]
    ),
    "Calls.seconds": Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5]),
    "Sleep.seconds": Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5]),
    "MemoryStore.slow": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "run_virtual.main": PROGRAM,
    "run_virtual.leftovers": Row(
        ValueError, "must be one of 'error', 'cancel'", [*NO_WORDS, "errors"], ["error", "cancel"]
    ),
    "cancel_at_every_step.make_main": PROGRAM,
    "cancel_at_every_step.check": ON_STEP,
    "cancel_at_every_step.limit": Row(ValueError, f"{COUNT} >= 1", NO_COUNTS, [1, 5]),
    "cancel_at_every_step.stride": Row(ValueError, f"{COUNT} >= 1", NO_COUNTS, [1, 5]),
    "cancel_at_every_step.seed": SEED,
}
for method in ("map", "map_iter"):
    ROWS[f"AsyncExecutor.{method}.fn"] = FUNCTION
    ROWS[f"AsyncExecutor.{method}.retries"] = RETRIES
    ROWS[f"AsyncExecutor.{method}.retry_delay"] = DELAY
    ROWS[f"AsyncExecutor.{method}.timeout"] = TIMEOUT
for method in ("wait", "as_completed"):
    ROWS[f"AsyncExecutor.{method}.futures"] = FUTURES
    ROWS[f"AsyncExecutor.{method}.timeout"] = TIMEOUT
for call in ("VirtualLoop", "run_virtual"):
    for name, row in LOOP_ROWS.items():
        ROWS[f"{call}.{name}"] = row

USES: dict[str, Callable[..., Any]] = {
    "AsyncExecutor": AsyncExecutor,
    "AsyncExecutor.as_completed": use_as_completed,
    "AsyncExecutor.map": use_map,
    "AsyncExecutor.map_iter": use_map_iter,
    "AsyncExecutor.shutdown": use_shutdown,
    "AsyncExecutor.submit": use_submit,
    "AsyncExecutor.wait": use_wait,
    "AsyncFuture.add_done_callback": use_add_done_callback,
    "AsyncFuture.result": use_result,
    "AsyncFuture.set_exception": use_set_exception,
    "Calls": Calls,
    "FailTimes": use_fail_times,
    "MemoryStore": MemoryStore,
    "Sleep": Sleep,
    "VirtualLoop": use_loop,
    "cancel_at_every_step": use_cancel,
    "run_virtual": use_run_virtual,
}
