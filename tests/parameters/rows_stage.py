"""The options of a stage, and of what is put into one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

from antflow import (
    Failures,
    Limit,
    Pipeline,
    Retry,
    RetryAfter,
    Stage,
    StageValidationError,
    backoff,
    call_rate_has_capacity,
    count,
    set_task_status,
)

from .values import (
    HUGE,
    INF,
    NAN,
    NO_CALLABLES,
    NO_COUNTS,
    NO_FLAGS,
    NO_SECONDS,
    NO_STRINGS,
    NO_TIMEOUTS,
    NO_WORDS,
    Hostile,
    Row,
    but,
)


def generated() -> Iterator[int]:
    yield 1


async def async_generated() -> AsyncIterator[int]:
    yield 1


async def work(value: Any, **resources: Any) -> Any:
    """A task for any stage."""
    return value


async def numbers(value: int) -> Any:
    yield value


def more_numbers(value: int) -> Any:
    yield value


async def pause(attempt: int) -> float:
    return 1.0


def a_stage(**options: Any) -> Stage:
    """A stage with some options."""
    defaults: dict[str, Any] = {"name": "Work", "workers": 1, "tasks": [work]}
    return Stage(**defaults | options)


def use_stage(**options: Any) -> Pipeline:
    if "batch_wait" in options:
        options["batch"] = 2
    if "stage_wait_seconds" in options:
        options["retry"] = "per_stage"
    return Pipeline([a_stage(name="First"), a_stage(**options)])


def use_retry(**options: Any) -> None:
    Pipeline([a_stage(retry=Retry(**options))])


def use_failures(**options: Any) -> None:
    Failures(**({"share": 0.5} | options))


def use_limit(**options: Any) -> None:
    Limit(**dict[str, Any](concurrency=1, rate=5) | options)


def use_retry_after(**options: Any) -> None:
    str(RetryAfter(**dict[str, Any](seconds=1) | options))


def use_headers(**options: Any) -> None:
    RetryAfter.from_headers(**dict[str, Any](headers={}, default=1) | options)


def in_task(call: Callable[[Limit], Any]) -> Callable[[], Any]:
    """Calls something in a task, with the stage's limit; what it raises comes out."""

    async def main() -> None:
        limit = Limit(rate=100)

        async def task(value: Any) -> Any:
            return call(limit)

        stage = a_stage(tasks=[task], limits=[limit], call_rate=10, task_attempts=1)
        results = await Pipeline([stage]).run([1])
        if results.failed:
            assert results.failed[0].error is not None
            raise results.failed[0].error

    return main


async def use_correct(**options: Any) -> None:
    await in_task(lambda limit: limit.correct(**options))()


async def use_hold(**options: Any) -> None:
    await in_task(lambda limit: limit.hold(**options))()


async def use_set_rate(**options: Any) -> None:
    await in_task(lambda limit: limit.set_rate(**dict[str, Any](rate=5) | options))()


async def use_capacity(**options: Any) -> None:
    await in_task(lambda _: call_rate_has_capacity(**options))()


async def use_count(**options: Any) -> None:
    await in_task(lambda _: count(**dict[str, Any](name="x") | options))()


async def use_status(**options: Any) -> None:
    await in_task(lambda _: set_task_status(**dict[str, Any](status="x") | options))()


COUNT = "must be a whole number"
SECONDS = "must be a finite number of seconds >= 0"
NUMBER = "must be a finite number"
HOLD_TIME = "must be a finite number of seconds, text"
FLAG = "must be True or False"
ERRORS = "exception class|must be a subclass of Exception"

NO_ERRORS: list[Any] = [
    *[None, 5, "ValueError", ValueError(), [ValueError], (ValueError, "x"), [], {}, Hostile()],
    *[BaseException, KeyboardInterrupt, asyncio.CancelledError],
    (ValueError, asyncio.CancelledError),
]
SOME_ERRORS: list[Any] = [Exception, ValueError, (ValueError, OSError)]
NO_PAUSES: list[Any] = [
    *but(NO_SECONDS, None, [1]),
    *[backoff, pause, lambda: 1.0, float, object(), [1]],
]
NO_KINDS: list[Any] = [
    *[None, 5, True, "", "no name", "a..b", b"x", ValueError(), [ValueError], {}, Hostile()],
    *[(ValueError, 5), (ValueError, ""), BaseException, KeyboardInterrupt],
    (ValueError, asyncio.CancelledError),
]
SOME_KINDS: list[Any] = [
    *[(), Exception, (ValueError, OSError), "AuthError", (ValueError, "shop.errors.AuthError")],
]
KINDS = "must be an exception class, its name|is not a subclass of Exception"
NO_RATIOS = [0, -1, 0.0, -0.5, 1.5, NAN, INF, "5", True, [1], {}, Hostile()]

LISTENER: tuple[str, list[Any], list[Any]] = (
    r"must be a function or None|called as f\(item_id, (value|error), payload\)",
    [*NO_CALLABLES, lambda: None, lambda result: None, lambda item_id, value: None],
    [None, print, lambda *arguments: None],
)

STAGE_ROWS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "name": (
        "must be a string of 1 to 100 characters, no control characters",
        [
            *[None, 5, "", b"A", "x" * 101, "x" * 1_000_000, ["A"], Hostile()],
            *["a\nb", "a\x1b[2Jb", "a\0", "a\x9b", "a\x7f", "\ud800"],
        ],
        ["x" * 100, "[red]", "a/b", "名前", " ", "[/tch]", "first", "e\u0301"],
    ),
    "workers": (
        r"at least 1 worker and at most 100,000 \(a whole number\)",
        [*NO_COUNTS, HUGE, 100_001, 10**9],
        [1, 100_000],
    ),
    "tasks": (
        "must be a function|must be a list|at least one task|is a generator|cannot be called",
        [
            *[work, None, [], (), "x", b"x", 5, [None], ["x"], [work, 5], iter([work]), {work}],
            *[[numbers], [more_numbers], [numbers, work], [lambda: 1], [lambda a, b: 1]],
            *[{"x": work}, Hostile(), [Hostile()]],
        ],
        [[work], (work,), [print, len], [lambda value, more=1: value]],
    ),
    "retry": (
        "must be one of 'per_task', 'per_stage' or a Retry",
        [*NO_WORDS, "per_item", ["per_task"], Retry],
        ["per_task", "per_stage", Retry()],
    ),
    "task_attempts": (COUNT, NO_COUNTS, [1, HUGE]),
    "task_wait_seconds": (SECONDS, NO_SECONDS, [0, 0.0, 1e9]),
    "stage_attempts": (COUNT, NO_COUNTS, [1, HUGE]),
    "unpack_args": (FLAG, NO_FLAGS, [True, False]),
    "task_concurrency_limits": (
        "must be a dict|the tasks are work|must be a whole number",
        [
            *[None, 5, "work", [("work", 1)], {"work": 0}, {"work": True}, {"work": 1.5}],
            *[{"wrk": 1}, {"": 1}, {5: 1}, {None: 1}, {work: 1}, Hostile()],
        ],
        [{}, {"work": 2}],
    ),
    "on_success": LISTENER,
    "on_failure": LISTENER,
    "on_skip": LISTENER,
    "skip_if": (
        "must be a function",
        [*NO_CALLABLES, lambda: True, lambda value, more: True],
        [None, bool, lambda *values: False],
    ),
    "queue_capacity": (f"{COUNT} >= 0", but(NO_COUNTS, 0, None), [None, 0, 1, HUGE]),
    "pull": (FLAG, NO_FLAGS, [True, False]),
    "call_concurrency": (COUNT, but(NO_COUNTS, None), [None, 1]),
    "call_rate": (f"{NUMBER}|must be above 0", [0, *but(NO_SECONDS, None)], [None, 0.5, 1]),
    "call_rate_period": (f"{NUMBER}|must be above 0", [0, *NO_SECONDS], [0.5, 60]),
    "stage_wait_seconds": (SECONDS, NO_SECONDS, [0, 0.5]),
    "limits": (
        r"must be a list: write limits=\[limit\]|must be a list of Limit|names one Limit twice",
        [*NO_WORDS[:3], "x", Limit(1), [5], [Limit], {Limit(1)}, [Limit(1)] * 2, Hostile()],
        [[], (), [Limit(1)], [Limit(1), Limit(1)]],
    ),
    "hold_on": (
        "must be a dict|must be an exception class|would retry|must be a plain function|"
        f"cannot be called with one argument|{HOLD_TIME}",
        [
            *[None, 5, "x", [ValueError], {"ValueError": 1}, {BaseException: 1}, Hostile()],
            *[{ValueError: INF}, {ValueError: NAN}, {ValueError: None}, {ValueError: "soon"}],
            *[{asyncio.CancelledError: 1}, {5: 1}],
            *[{ValueError: work}, {ValueError: lambda: 1}, {ValueError: lambda error, more: 1}],
        ],
        [{}, {ValueError: 1, OSError: lambda error: 2.0}, {ValueError: "1"}, {ValueError: -1}],
    ),
    "max_holds": (f"{COUNT} >= 0", but(NO_COUNTS, 0), [0, 20]),
    "timeout": (
        "seconds above 0 and at most 292 years",
        NO_TIMEOUTS,
        [None, 0.001, 9e9],
    ),
    "retry_on": (ERRORS, [*NO_ERRORS, ()], SOME_ERRORS),
    "give_up_on": (ERRORS, NO_ERRORS, [*SOME_ERRORS, ()]),
    "wait": (
        "seconds|attempt",
        NO_PAUSES,
        [None, 0, 1.5, backoff(), lambda attempt: 1.0],
    ),
    "executor": (
        "must be one of 'auto', 'thread', 'process', 'inline', a concurrent.futures.Executor, ",
        [*NO_WORDS, "threads", ThreadPoolExecutor],
        ["auto", "thread", "process", "inline", ThreadPoolExecutor(1)],
    ),
    "batch": (COUNT, but(NO_COUNTS, None), [None, 1, 1000]),
    "batch_wait": (SECONDS, but(NO_SECONDS, None), [None, 0, 1.5]),
    "expand": (FLAG, NO_FLAGS, [True, False]),
    "resources": (
        "must be a dict|usable as a keyword|makes a context manager|without arguments|decorate",
        [
            *[None, 5, "x", ["x"], {5: open}, {"a b": open}, {"x": 5}, {"x": None}, Hostile()],
            *[{"x": open}, {"x": lambda path: path}, {"x": generated}, {"x": async_generated}],
        ],
        [{}, {"file": BytesIO}, {"file": partial(open, "x")}, {"file": contextmanager(generated)}],
    ),
    "resource_scope": (
        "must be one of 'worker', 'stage', 'run'",
        [*NO_WORDS, "workers"],
        ["worker", "stage", "run"],
    ),
    "max_failures": (
        "must be a whole number >= 1, a ratio above 0.0 and up to 1.0, or a Failures",
        [*NO_RATIOS, Failures],
        [None, 1, 0.5, 1.0, Failures(count=5), Failures(share=0.2, of_last=50)],
    ),
    "stop_on": (KINDS, NO_KINDS, SOME_KINDS),
    "version": (
        "must be a JSON value",
        [{1: 2}, {"a": {1}}, [b"x"], float("nan"), print, Hostile()],
        ["", "2", None, 3, {"model": "m", "temperature": 0.5, "stop": ["a", None]}],
    ),
    "isolate_context": (FLAG, NO_FLAGS, [True, False]),
}

BOTH = (TypeError, ValueError)

ROWS: dict[str, Row] = {
    f"Stage.{name}": Row(StageValidationError, *row) for name, row in STAGE_ROWS.items()
} | {
    "Retry.attempts": Row(StageValidationError, COUNT, NO_COUNTS, [1, HUGE]),
    "Retry.wait": Row(
        StageValidationError, "seconds|attempt", [None, *NO_PAUSES], [0, 1.5, backoff()]
    ),
    "Retry.on": Row(StageValidationError, ERRORS, [*NO_ERRORS, ()], SOME_ERRORS),
    "Retry.give_up": Row(StageValidationError, ERRORS, NO_ERRORS, [*SOME_ERRORS, ()]),
    "Retry.timeout": Row(
        StageValidationError, "seconds above 0 and at most 292 years", NO_TIMEOUTS, [None, 0.5]
    ),
    "backoff.initial": Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5]),
    "backoff.factor": Row(ValueError, f"{NUMBER} >= 1", [0, 0.9, *NO_SECONDS], [1, 2.5]),
    "backoff.maximum": Row(ValueError, SECONDS, NO_SECONDS, [0, 1e9]),
    "backoff.jitter": Row(ValueError, FLAG, NO_FLAGS, [True, False]),
    "backoff.rng": Row(
        BOTH, "must be a random.Random", [5, "x", random, Hostile()], [None, random.Random(5)]
    ),
    "Failures.count": Row(
        ValueError, "a whole number from 1 to 200", [*but(NO_COUNTS, None), 201], [1, 200, None]
    ),
    "Failures.share": Row(
        ValueError, "a ratio above 0.0 and up to 1.0", NO_RATIOS, [0.001, 0.5, 1.0]
    ),
    "Failures.of_last": Row(ValueError, COUNT, NO_COUNTS, [1, 200, 10**9]),
    "Limit.concurrency": Row(BOTH, COUNT, but(NO_COUNTS, None), [None, 1, HUGE]),
    "Limit.rate": Row(BOTH, f"{NUMBER} > 0", [0, *but(NO_SECONDS, None)], [None, 0.5, 10**6]),
    "Limit.period": Row(BOTH, f"{NUMBER} > 0", [0, *NO_SECONDS], [0.001, 60]),
    "Limit.cost": Row(
        BOTH, f"{NUMBER} > 0|a plain function", [0, work, *NO_SECONDS], [1, 0.5, len]
    ),
    "Limit.correct.actual": Row(BOTH, f"{NUMBER} >= 0", NO_SECONDS, [0, 0.5, 10**6]),
    "Limit.set_rate.rate": Row(BOTH, f"{NUMBER} > 0", [0, *NO_SECONDS], [0.5, 10**6]),
    "Limit.set_rate.period": Row(
        BOTH, f"{NUMBER} > 0", [0, *but(NO_SECONDS, None)], [None, 0.001, 60]
    ),
    "Limit.hold.seconds": Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5]),
    "RetryAfter.seconds": Row(
        ValueError,
        HOLD_TIME,
        [NAN, INF, None, True, "soon", b"1", [1], HUGE],
        [-1, 0, 0.5, "1", "1s"],
    ),
    "RetryAfter.now": Row(ValueError, SECONDS, but(NO_SECONDS, None), [None, 0, 1e9]),
    "RetryAfter.from_headers.headers": Row(
        TypeError,
        "must be the headers",
        [None, 5, "x", b"x", ["x"], Hostile()],
        [{}, [], [("a", 1)]],
    ),
    "RetryAfter.from_headers.default": Row(
        ValueError, HOLD_TIME, [NAN, INF, True, "soon", b"1", [1], HUGE], [-1, 0, 0.5, "1", "1s"]
    ),
    "RetryAfter.from_headers.message": Row(
        TypeError, "must be a string", NO_STRINGS, ["", "slower"]
    ),
    "RetryAfter.from_headers.now": Row(ValueError, SECONDS, but(NO_SECONDS, None), [None, 0, 1e9]),
    "RetryAfter.message": Row(TypeError, "must be a string", NO_STRINGS, ["", "slower"]),
    "call_rate_has_capacity.amount": Row(ValueError, NUMBER, NO_SECONDS, [0, 0.5, 10**6]),
    "count.name": Row(ValueError, "must be a text", [*NO_STRINGS, "", "x" * 101], ["x", "x" * 100]),
    "count.amount": Row(
        ValueError, NUMBER, [NAN, INF, True, "soon", b"1", [1], HUGE], [-1, 0, 0.5, 10**20]
    ),
    "set_task_status.min_interval": Row(ValueError, SECONDS, NO_SECONDS, [0, 0.5]),
}

USES: dict[str, Callable[..., Any]] = {
    "Failures": use_failures,
    "Limit": use_limit,
    "Limit.correct": use_correct,
    "Limit.hold": use_hold,
    "Limit.set_rate": use_set_rate,
    "Retry": use_retry,
    "RetryAfter": use_retry_after,
    "RetryAfter.from_headers": use_headers,
    "Stage": use_stage,
    "backoff": backoff,
    "call_rate_has_capacity": use_capacity,
    "count": use_count,
    "set_task_status": use_status,
}
