"""An error of which no attribute can be set comes out as itself, wherever it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from antflow import AsyncExecutor, Pipeline, Stage, concurrency_limit, in_thread, rate_limit
from antflow.testing import run_virtual
from tests.odd import Frozen

pytestmark = pytest.mark.fault


async def same(value: Any) -> Any:
    """Return the value."""
    return value


async def fail(value: Any) -> None:
    """Fail."""
    raise Frozen(value)


def rows() -> Iterator[int]:
    """A source that fails on its first step."""
    raise Frozen
    yield


async def async_rows() -> AsyncIterator[int]:
    """The same, async."""
    raise Frozen
    yield


@pytest.mark.parametrize("limit", [concurrency_limit, rate_limit])
def test_retry_of_an_error_that_left_a_limit(limit: Callable[[], Any]) -> None:
    """What leaves the block of a limit is still what ``retry_on`` names."""
    tries: list[int] = []

    async def call(value: int) -> int:
        async with limit():
            tries.append(value)
            if len(tries) < 3:
                raise Frozen(503)
        return value

    stage = Stage(
        "Call", 1, [call], task_attempts=3, retry_on=Frozen, call_concurrency=1, call_rate=100
    )
    results = run_virtual(lambda: Pipeline([stage]).run([7]))
    assert results.values() == [7]
    assert tries == [7, 7, 7]


async def _open_and_fail() -> None:
    async with Pipeline([Stage("Same", 1, [same])]).open():
        raise Frozen


async def _run(items: Any) -> None:
    await Pipeline([Stage("Same", 1, [same])]).run(items, timeout=5)


async def _map() -> None:
    async with AsyncExecutor(max_workers=1) as executor:
        await executor.map(fail, [3])


async def _submit() -> None:
    async with AsyncExecutor(max_workers=1) as executor:
        await executor.submit(fail, 3)


@pytest.mark.parametrize(
    "program",
    [
        _open_and_fail,
        lambda: _run(rows()),
        lambda: _run(async_rows()),
        lambda: _run(in_thread(rows)),
        lambda: _run(in_thread(rows())),
        _map,
        _submit,
    ],
    ids=["open", "source", "async source", "in_thread", "in_thread, begun", "map", "submit"],
)
def test_error_that_ends_a_program(program: Callable[[], Awaitable[None]]) -> None:
    """It is raised as it is, and nothing hangs."""

    async def main() -> None:
        await program()

    with pytest.raises(Frozen):
        asyncio.run(main())
