"""Tests of several places share this: tasks, items, checks, and ways to run a program."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import antflow
from antflow import Pipeline, PipelineResult, PipelineStats
from antflow._core.ledger import Ledger
from antflow._core.transition import Transition
from antflow.testing import run_virtual

T = TypeVar("T")

REQUIRED: Any = inspect.Parameter.empty
SOURCE = Path(antflow.__file__).parents[1]
ONE_HOUR = 3600.0
HANG_GUARD = 60.0
"""Real seconds that a process may take before it counts as hanging."""


def without_address(value: object) -> str:
    """The `repr()` of a value, the same in each process: for the id of a test."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def now() -> float:
    """Seconds of the running loop's clock; in a virtual loop, since the program began."""
    return asyncio.get_running_loop().time()


def virtual(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int | None = None,
    on_step: Callable[[int], object] | None = None,
    max_steps: int = 100_000,
    max_time: float = ONE_HOUR,
) -> T:
    """Run a program in virtual time; what hangs, spins, or leaves something behind is an error."""
    return run_virtual(main, seed=seed, on_step=on_step, max_steps=max_steps, max_time=max_time)


async def same(value: Any) -> Any:
    """A task that returns its item at once."""
    return value


async def double(value: Any) -> Any:
    """A task that returns twice its item."""
    return value * 2


async def slow(value: Any) -> Any:
    """A task that takes a second and returns its item."""
    await asyncio.sleep(1)
    return value


async def odd_only(value: int) -> int:
    """A task that returns odd numbers and fails for even ones."""
    if value % 2 == 0:
        raise ValueError(f"{value} is even")
    return value


def lasting(seconds: float) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """A task that takes this long and returns its item."""

    async def work(value: Any) -> Any:
        await asyncio.sleep(seconds)
        return value

    return work


def raising(error: BaseException, *bad: Any) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """A task that raises for these items, or for all if none are named, and returns the others."""

    async def work(value: Any) -> Any:
        if not bad or value in bad:
            raise error
        return value

    return work


async def never(*_: Any) -> None:
    """Never return."""
    await asyncio.Event().wait()


def endless() -> Iterator[int]:
    """The numbers from 0, without end."""
    number = 0
    while True:
        yield number
        number += 1


async def in_background(awaitable: Awaitable[T], seconds: float = 0.0) -> asyncio.Future[T]:
    """Begin something, and go on after this many seconds."""
    begun = asyncio.ensure_future(awaitable)
    await asyncio.sleep(seconds)
    return begun


def set_task_factory() -> None:
    """Give the running event loop a task factory, one that makes ordinary tasks."""

    def make(loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(make)


def assert_balanced(stats: PipelineStats) -> None:
    """Every item that was accepted has its outcome, and only one."""
    outcomes = (
        stats.items_processed
        + stats.items_failed
        + stats.items_dropped
        + stats.items_expanded
        + stats.items_cancelled
    )
    assert stats.items_in_flight == 0
    assert stats.items_accepted + stats.items_children == outcomes


def assert_works(pipeline: Pipeline) -> Coroutine[Any, Any, None]:
    """The pipeline can be run, and the run is about nothing but its own items."""

    async def check() -> None:
        results = await pipeline.run(["again"])
        assert results.values() == ["again"]
        assert results.stats.items_accepted == 1

    return check()


def values(results: Iterable[PipelineResult[Any]]) -> list[Any]:
    """The values of the results."""
    return [result.value for result in results]


class Frame:
    """A data frame, as far as it differs from other iterables: it iterates over its columns."""

    columns = ("id", "value")
    shape = (2, 2)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Model:
    """A model of pydantic, as far as it differs from other iterables: it iterates over fields."""

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield "id", 1

    __iter__.__module__ = "pydantic.main"


class Pets(Model):
    """A model that is a collection: it says what it iterates over."""

    def __iter__(self) -> Iterator[Any]:
        return iter(["cat", "dog"])


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function in their order, with their defaults or `REQUIRED`."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


def positional(function: Callable[..., Any]) -> list[str]:
    """The parameters that may be given by their place, in that order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in kinds and name != "self"
    ]


def run_program(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own and return how it ended."""
    with start_program(text, **environment) as process:
        out, err = process.communicate(timeout=HANG_GUARD)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_program(text: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program in a Python of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fold(transitions: Iterable[Transition], stage_count: int) -> Ledger:
    """The ledger that a store's transitions add up to."""
    ledger = Ledger(stage_count)
    for transition in transitions:
        ledger.apply(transition)
    return ledger
