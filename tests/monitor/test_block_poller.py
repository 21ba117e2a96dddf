"""While the event loop is blocked a thread tells the display, once a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from antflow import LoopStall, PipelineStats, RunResults
from antflow._core.snapshot import DashboardSnapshot, ErrorSummary
from antflow._monitor.block_poller import BlockPoller, ShowsBlocks
from antflow._monitor.poller import Poller
from tests.support import virtual

NOTHING = PipelineStats(0, 0, 0, {}, {})
NO_ERRORS = ErrorSummary(0, {}, {}, [])
RESULTS: RunResults[Any] = RunResults([], NO_ERRORS, NOTHING)


class Clock:
    """A clock that passes while something waits for it, and an event loop that is blocked by it.

    Args:
        blocks: When each block begins, and when it ends.
        seen_after: How long a block has lasted when it is told.
    """

    def __init__(self, *blocks: tuple[float, float], seen_after: float = 0.25) -> None:
        self.blocks = blocks
        self.seen_after = seen_after
        self.now = 0.0
        self.on_block: Callable[[], None] | None = None
        self.until = float("inf")
        self._told: set[float] = set()

    def block(self) -> LoopStall | None:
        for began, ended in self.blocks:
            if began + self.seen_after <= self.now < ended:
                return LoopStall(self.now - began, 0.0, stage="Parse")
        return None

    def wait(self, seconds: float) -> bool:
        self.pass_to(self.now + seconds)
        return self.now >= self.until

    def pass_to(self, then: float) -> None:
        for began, _ in self.blocks:
            told = began + self.seen_after
            if told <= then and told not in self._told:
                self._told.add(told)
                self.now = told
                assert self.on_block is not None
                self.on_block()
        self.now = then


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The functions of threads that were started; none of them runs by itself."""
    started: list[Callable[[], None]] = []

    class Thread:
        def __init__(self, target: Callable[[], None], **_: Any) -> None:
            self.target = target

        def start(self) -> None:
            started.append(self.target)

    monkeypatch.setattr(threading, "Thread", Thread)
    return started


def told_of(clock: Clock, threads: list[Callable[[], None]], until: float) -> list[Any]:
    """When a display is called, and how long the loop has been blocked then, ``None`` = not."""
    told: list[Any] = []

    def show(stall: LoopStall | None) -> None:
        told.append((clock.now, None if stall is None else stall.seconds))

    BlockPoller(clock, show, clock.wait).begin()
    while clock.now < until:
        while threads:
            threads.pop()()
        clock.pass_to(clock.now + 0.01)
    return told


def test_block_is_shown_at_each_whole_second(threads: list[Callable[[], None]]) -> None:
    """From one second on, once a second, and once more when it is over."""
    told = told_of(Clock((10.0, 14.5)), threads, 20.0)
    assert told == [(11, 1), (12, 2), (13, 3), (14, 4), (15, None)]


@pytest.mark.parametrize("blocks", [(), ((1.0, 1.99),), ((1.0, 1.5), (2.0, 2.5), (2.6, 3.0))])
def test_short_blocks_are_not_shown(
    blocks: Sequence[tuple[float, float]], threads: list[Callable[[], None]]
) -> None:
    """Less than a second is not worth a line, however often it happens."""
    assert told_of(Clock(*blocks), threads, 20.0) == []


def test_loop_that_is_not_blocked_needs_no_thread(threads: list[Callable[[], None]]) -> None:
    """The thread begins with a block, and ends with it."""
    clock = Clock((10.0, 12.5), (30.0, 32.5))
    BlockPoller(clock, lambda _: None, clock.wait).begin()
    for began in (10.0, 30.0):
        clock.pass_to(began + 0.2)
        assert threads == []
        clock.pass_to(began + 0.3)
        [thread] = threads
        thread()
        assert clock.now == began + 3
        threads.clear()


def test_block_right_after_another_is_shown(threads: list[Callable[[], None]]) -> None:
    """A block is shown even if it begins before the thread knows that the last one is over."""
    told = told_of(Clock((10.0, 12.2), (12.3, 14.4)), threads, 20.0)
    assert [(at, seconds and round(seconds, 6)) for at, seconds in told] == [
        *((11, 1), (12, 2), (13, None), (13.3, 1), (14.3, 2), (15.3, None)),
    ]


def test_block_that_is_told_before_it_can_be_seen(threads: list[Callable[[], None]]) -> None:
    """The thread does not end because the heartbeat has not been asked for yet."""
    clock = Clock((10.0, 12.5))
    told: list[Any] = []
    BlockPoller(clock, told.append, clock.wait).begin()
    assert clock.on_block is not None
    clock.on_block()  # now: the block is 10 s away
    clock.now = 9.5
    threads.pop()()
    assert len(told) == 3


def test_display_that_fails_during_a_block_is_left_alone(
    threads: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the thread ends."""
    clock = Clock((10.0, 20.0))

    def fail(_: LoopStall | None) -> None:
        raise ZeroDivisionError("display")

    poller = BlockPoller(clock, fail)
    poller.begin()
    clock.pass_to(11.5)
    threads.pop()()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the display failed" in caplog.text
    poller._on_block()
    assert threads == []


def test_nothing_is_shown_after_the_end(threads: list[Callable[[], None]]) -> None:
    """The run is over: no new thread begins, and one that waits ends."""
    clock = Clock((10.0, 20.0))
    told: list[Any] = []
    poller = BlockPoller(clock, told.append)
    poller.begin()
    clock.pass_to(11.5)
    poller.end()
    threads.pop()()
    assert len(told) == 1
    assert clock.on_block is None
    poller._on_block()
    assert threads == []


# -- which displays ---------------------------------------------------------------------------


class Shows(ShowsBlocks):
    """A display of the library."""

    def _show_block(self, stall: LoopStall | None) -> None:
        raise AssertionError("nothing is blocked")


class Own:
    """A display of the user's that has whatever it is asked for."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Source:
    """A run of which nothing is known."""

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        return DashboardSnapshot({}, {}, NOTHING, NO_ERRORS, 0.0)


@pytest.mark.parametrize(("display", "hears"), [(Shows(), True), (Own(), False)])
def test_own_displays_are_not_called_in_another_thread(display: Any, hears: bool) -> None:
    """A display that is not of the library is called in the event loop alone."""
    clock = Clock()

    async def main() -> None:
        poller = Poller(display, Source(), 0, 0.5, lambda: RESULTS, clock)
        poller.end(at_once=False)
        await poller.poll()

    heard: list[bool] = []
    display.on_start = lambda *_: heard.append(clock.on_block is not None)
    virtual(main)
    assert heard == [hears]
    assert clock.on_block is None
