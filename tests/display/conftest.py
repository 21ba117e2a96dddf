"""What the tests of displays share: a terminal, snapshots, pipelines."""

from __future__ import annotations

import errno
import os
import random
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from antflow import (
    DashboardSnapshot,
    Durations,
    ErrorSummary,
    FailedItem,
    PipelineStats,
    StageStats,
    WorkerState,
)
from antflow._core.durations import SHORTEST_RUN, DurationCounter
from antflow._core.snapshot import RunState
from antflow.display import stream
from antflow.display.terminal.screen import _screens
from tests.pty_screen import PATIENCE, WISHES, PtyScreen

MakeTerminal = Callable[..., PtyScreen]
MakeSnapshot = Callable[..., DashboardSnapshot]

LEVELS = ["progress", "compact", "detailed", "full"]
NO_ERRORS = ErrorSummary(0, {}, {}, [])


@pytest.fixture
def moment() -> float:
    """Seconds a write waits: long, so that each is on the screen, however busy the machine is."""
    return PATIENCE


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, moment: float) -> Iterator[MakeTerminal]:
    """Makes a terminal and has this process write to it."""
    opened: list[PtyScreen] = []

    def make(columns: int = 80, rows: int = 24, encoding: str = "utf-8") -> PtyScreen:
        screen = PtyScreen(columns, rows, encoding)
        screen.settle = settle
        opened.append(screen)
        monkeypatch.setattr(sys, "stdout", screen.stream)
        monkeypatch.setattr(sys, "stderr", screen.stream)
        return screen

    monkeypatch.setattr(stream, "MOMENT", moment)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in WISHES:
        monkeypatch.delenv(name, raising=False)
    yield make
    for screen in opened:
        screen.go_on()
    for left in tuple(_screens.values()):
        left.close()  # of a test that failed; the next one is to fail for itself
    monkeypatch.undo()
    for screen in opened:
        screen.close()


def use_up_pseudo_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has none left: displays replace the streams instead of the descriptors."""

    def openpty() -> tuple[int, int]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "openpty", openpty)


def settle() -> None:
    """Wait until what this process has printed is above its displays."""
    for screen in tuple(_screens.values()):
        screen._capture.catch_up()


@pytest.fixture
def screen() -> Iterator[PtyScreen]:
    """A terminal for a program of its own."""
    screen = PtyScreen(80, 24)
    yield screen
    screen.close()


@pytest.fixture
def snapshot() -> MakeSnapshot:
    """Makes snapshots of a run that has been going on for two minutes."""
    return make_snapshot


def untimed(text: str) -> str:
    """Plain lines without the time of day that they begin with."""
    return re.sub(r"^\d\d:\d\d:\d\d (?=\w+: )", "", text, flags=re.MULTILINE)


def durations(median: float, high: float, highest: float) -> Durations:
    """Durations with such a median, 95th and 99th percentile."""
    counter = DurationCounter(SHORTEST_RUN)
    for seconds, number in ((median, 50), (high, 46), (highest, 4)):
        for _ in range(number):
            counter.add(seconds)
    return counter.read(100)


def make_snapshot(
    workers: int = 40,
    stages: tuple[str, ...] = ("Fetch", "Parse", "Enrich", "Save"),
    total: int | None = 50_000,
    settled: int = 21_702,
    failed: int = 256,
    seed: int = 1,
    elapsed: float = 125.0,
    state: RunState = "running",
    item_id: object = "item-",
    message: str = "read timed out after 10.0 s: https://api.example.com/v2/items/88121",
) -> DashboardSnapshot:
    dice = random.Random(seed)
    states: dict[str, WorkerState] = {}
    stats: dict[str, StageStats] = {}
    each = max(workers // max(len(stages), 1), 1)
    for stage in stages:
        busy = 0
        for number in range(each):
            name = f"{stage}-W{number}"
            states[name] = WorkerState(name, stage, "idle")
            if dice.random() < 0.6:
                busy += 1
                item, began = f"{item_id}{dice.randrange(10**5)}", 1000.0 - dice.random() * 30
                states[name] = WorkerState(name, stage, "busy", item, "fetch_page", began)
        pending = dice.randrange(each * 10)
        stats[stage] = StageStats(
            stage,
            pending,
            busy,
            settled,
            failed,
            1893,
            12,
            workers=each,
            running_workers=busy,
            capacity=each * 10,
            busy_seconds=62.0 * each,
            blocked_seconds=28.0 * each,
            starved_seconds=10.0 * each,
            run_times=durations(8.2, 25.0, 41.0),
            queue_waits=durations(0.5, 2.1, 3.0),
        )
    types = {"TimeoutError": 171, "ValidationError": 41, "HTTPStatusError": 44} if failed else {}
    failures = [
        FailedItem(f"{item_id}{n}", message, list(types)[n % 2], stages[n % len(stages)], 3, 1000.0)
        for n in range(20 if failed and stages else 0)
    ]
    counts = PipelineStats(settled - failed, failed, 300, {}, stats, items_accepted=settled + 300)
    summary = ErrorSummary(failed, types, {}, failures)
    return DashboardSnapshot(
        states,
        {},
        counts,
        summary,
        1000.0,
        "run",
        total,
        state,
        elapsed,
    )
