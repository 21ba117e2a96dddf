"""What the tests by the document watch a pipeline with, and what they put into it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from antflow import (
    DashboardProtocol,
    DashboardSnapshot,
    ErrorSummary,
    Pipeline,
    PipelineResult,
    StatusEvent,
    TaskFunc,
)


def now() -> float:
    """Seconds of the event loop's clock; in a virtual loop, since the program began."""
    return asyncio.get_running_loop().time()


def lasting(seconds: float, name: str = "work") -> TaskFunc:
    """A task that takes so long and returns its item."""

    async def work(value: Any) -> Any:
        await asyncio.sleep(seconds)
        return value

    work.__name__ = name
    return work


class PolledPipeline(Pipeline):
    """A pipeline that notes each snapshot taken of it: when, by which `asyncio.Task`, and what."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.poll_times: list[float] = []
        self.pollers: list[asyncio.Task[Any] | None] = []
        self.polled: list[DashboardSnapshot] = []

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        snapshot = super().get_dashboard_snapshot()
        self.poll_times.append(now())
        self.pollers.append(asyncio.current_task())
        self.polled.append(snapshot)
        return snapshot


class Frames(DashboardProtocol):
    """A dashboard that keeps what it is shown, and when."""

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.total_items = -1
        self.snapshots: list[DashboardSnapshot] = []
        self.times: list[float] = []
        self.finishes: list[tuple[list[PipelineResult[Any]], ErrorSummary]] = []

    def on_start(self, pipeline: Any, total_items: int) -> None:
        self.pipeline = pipeline
        self.total_items = total_items

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.snapshots.append(snapshot)
        self.times.append(now())

    def on_finish(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> None:
        self.finishes.append((results, summary))


class Database:
    """An external system with an asynchronous client: a table of events in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA synchronous = OFF")  # the tests unplug no machine
        self._connection.execute("CREATE TABLE events (item, stage, status, worker, at, metadata)")

    async def insert(self, event: StatusEvent) -> None:
        """Store an event for good."""
        await asyncio.sleep(0.001)
        details = json.dumps(event.metadata, default=repr)
        row = (event.item_id, event.stage, event.status, event.worker, event.timestamp, details)
        with self._connection:
            self._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)

    def close(self) -> None:
        """Nothing more can be stored."""
        self._connection.close()


def rows_in(path: Path, query: str = "SELECT item, stage, status FROM events") -> list[Any]:
    """What somebody else, with a connection of their own, finds in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextlib.contextmanager
def database(path: Path) -> Iterator[Database]:
    """A database that is closed in the end."""
    with contextlib.closing(Database(path)) as opened:
        yield opened
