"""Blocked event loops: what the tests of the watch over them share."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import pytest
import uvloop

from antflow import DashboardSnapshot, LoopHealth, LoopStall, Pipeline

BLOCK = 0.8
"""Seconds that a block lasts here: far more than those from which on it counts."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

in_one_loop_daily = pytest.mark.parametrize(
    "run", ["asyncio", pytest.param("uvloop", marks=pytest.mark.slow)], indirect=True
)
"""For a test that takes long, and in which the kind of the loop is not the subject."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Log = pytest.LogCaptureFixture

LONGEST = 20.0
"""Seconds that what waits until it is told of blocks at most."""


class HasRecords(Protocol):
    """Something that keeps what is logged."""

    @property
    def records(self) -> Sequence[logging.LogRecord]: ...


class Told(logging.Handler):
    """Keeps the warnings, and sets an event at each: a block need last no longer."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if _is_warning(record):
            self._event.set()


def warnings_in(log: HasRecords) -> list[str]:
    return [record.getMessage() for record in log.records if _is_warning(record)]


def _is_warning(record: logging.LogRecord) -> bool:
    return record.name == "antflow" and "is blocked" in record.getMessage()


async def snapshot_of(pipeline: Pipeline, items: Any) -> DashboardSnapshot:
    """Run a pipeline, and see how it was."""
    await pipeline.run(items)
    return pipeline.get_dashboard_snapshot()


def longest(health: LoopHealth) -> float:
    """Seconds of the only stall; a machine that is busy with other things makes short ones."""
    return 0.0 if health.last_stall is None else health.last_stall.seconds


def last_stall(health: LoopHealth) -> LoopStall:
    assert health.last_stall is not None
    return health.last_stall


async def same(item: Any) -> Any:
    return item


async def rests(item: Any) -> Any:
    await asyncio.sleep(0.1)
    return item
