"""What the tests of this folder put into pipelines, and how they look at signatures.

Each file says first what holds for code written for 0.10.0 too, then, under "New since 0.10.0",
what that version did not have or got wrong.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from antflow import PipelineResult, PipelineStats

REQUIRED: Any = inspect.Parameter.empty


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


def values(results: Iterable[PipelineResult[Any]]) -> list[Any]:
    """What the results hold."""
    return [result.value for result in results]


def now() -> float:
    """Seconds of the running loop's clock; in virtual time, since the program began."""
    return asyncio.get_running_loop().time()


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


def assert_balanced(stats: PipelineStats) -> None:
    """The books: what went in is what came out, one way or another."""
    assert stats.items_accepted + stats.items_children == (
        stats.items_processed
        + stats.items_failed
        + stats.items_dropped
        + stats.items_expanded
        + stats.items_cancelled
        + stats.items_in_flight
    )
