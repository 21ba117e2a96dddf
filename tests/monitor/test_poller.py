"""The poller shows a display how the run is; a display has no power over the run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from traceback import walk_tb
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, Stage, StatusTracker
from antflow.display import create
from tests.support import lasting, never, now, run_program, same, virtual

pytestmark = pytest.mark.fault


class Display:
    """Notes what it was called for, and when; a method may be told what to do besides."""

    def __init__(self, **what_else: Callable[..., Any]) -> None:
        self.calls: list[tuple[str, float]] = []
        self.snapshots: list[DashboardSnapshot] = []
        self.finished: list[tuple[Any, Any]] = []
        self.total_items: int | None = None
        self._what_else = what_else

    def on_start(self, pipeline: Any, total_items: int) -> Any:
        self.total_items = total_items
        return self._note("on_start")

    def on_update(self, snapshot: DashboardSnapshot) -> Any:
        self.snapshots.append(snapshot)
        return self._note("on_update", snapshot)

    def on_finish(self, results: Any, summary: Any) -> Any:
        self.finished.append((results, summary))
        return self._note("on_finish")

    def _note(self, name: str, *args: Any) -> Any:
        self.calls.append((name, now()))
        what_else = self._what_else.get(name)
        return None if what_else is None else what_else(*args)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def times(self, name: str) -> list[float]:
        return [at for called, at in self.calls if called == name]


def fail(*_: Any) -> None:
    raise ZeroDivisionError("display")


async def fail_later(*_: Any) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("display")


async def cancel_itself(*_: Any) -> None:
    raise asyncio.CancelledError


def twenty(display: Any, interval: float = 0.5, **options: Any) -> Any:
    """Run 20 items of a second each, two at a time."""
    pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
    return pipeline.run(
        range(20), custom_dashboard=display, dashboard_update_interval=interval, **options
    )


# Endings


def test_finish_is_called_once_when_the_run_is_cancelled() -> None:
    """A cancelled run finishes its display once and is done with it."""

    async def main() -> None:
        display = Display()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.25):
                await twenty(display)
        assert now() == 3.25
        assert display.names().count("on_finish") == 1
        assert display.names()[-1] == "on_finish"
        noted = len(display.calls)
        await asyncio.sleep(10)
        assert len(display.calls) == noted

    virtual(main)


def test_finish_is_called_once_when_the_source_raises() -> None:
    """A run that ends with an error finishes its display once, with the results so far."""

    def source() -> Any:
        yield 1
        raise KeyError("source")

    async def main() -> None:
        display = Display()
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(KeyError):
            await pipeline.run(source(), custom_dashboard=display)
        [(results, _)] = display.finished
        assert results.values() == [1]

    virtual(main)


@pytest.mark.parametrize("what", [fail, fail_later, cancel_itself])
@pytest.mark.parametrize("name", ["on_start", "on_update", "on_finish"])
def test_display_that_raises_costs_no_result(name: str, what: Callable[..., Any]) -> None:
    """A display that raises costs no result."""
    display = Display(**{name: what})
    assert virtual(lambda: twenty(display)).values() == list(range(20))
    assert display.names().count("on_finish") == 1


@pytest.mark.parametrize("name", ["on_start", "on_update"])
def test_updates_when_a_display_has_failed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A display that raised gets no more updates, and one log record."""
    display = Display(**{name: fail})
    virtual(lambda: twenty(display))
    assert display.names().count("on_update") == (1 if name == "on_update" else 0)
    assert len([record for record in caplog.records if name in record.getMessage()]) == 1


def request_cancel(*_: Any) -> None:
    running = asyncio.current_task()
    assert running is not None
    running.cancel()


async def request_cancel_later(*_: Any) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        request_cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("what", [request_cancel, request_cancel_later])
@pytest.mark.parametrize("name", ["on_start", "on_update", "on_finish"])
def test_display_that_leaves_requests_to_cancel(name: str, what: Callable[..., Any]) -> None:
    """A display whose client cancelled its task and did not take that back goes on."""
    plain, display = Display(), Display(**{name: what})
    virtual(lambda: twenty(plain))
    assert virtual(lambda: twenty(display)).values() == list(range(20))
    assert display.names() == plain.names()


def test_display_that_fails_after_it_left_a_request_to_cancel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A CancelledError of a display's own is its failure, whatever its task was asked before."""

    async def update(snapshot: DashboardSnapshot) -> None:
        await request_cancel_later()
        raise asyncio.CancelledError

    display = Display(on_update=update)
    assert virtual(lambda: twenty(display)).values() == list(range(20))
    assert display.names() == ["on_start", "on_update", "on_finish"]
    assert "the display failed in on_update" in caplog.text


def test_feeding_display_that_leaves_a_request_to_cancel() -> None:
    """A callback that is told of what a display feeds is not cut off by the display's request."""
    told: list[Any] = []

    async def hear(event: Any) -> None:
        if event.status == "queued":
            raise asyncio.CancelledError
        told.append(event.item_id)

    async def main() -> None:
        async def update(snapshot: DashboardSnapshot) -> None:
            if not display.snapshots[1:]:
                await request_cancel_later()
                await pipeline.feed(["fed"])

        display = Display(on_update=update)
        tracker = StatusTracker(on_status_change=hear)
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        results = await pipeline.run(range(3), custom_dashboard=display)
        assert sorted(map(str, results.values())) == ["0", "1", "2", "fed"]
        assert display.names().count("on_update") > 1

    virtual(main)


def test_display_that_divides_by_zero_items_costs_nothing() -> None:
    """A display that divides by the number of items costs nothing where there are none."""
    display = Display(on_update=lambda snapshot: 1 / (snapshot.total_items or 0))
    pipeline = Pipeline([Stage("Work", 1, [same])])
    assert virtual(lambda: pipeline.run([], custom_dashboard=display)) == []
    assert display.names().count("on_finish") == 1


def test_display_when_there_are_no_items() -> None:
    """A run without items shows itself: a start, two updates, a finish."""
    display = Display()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        assert await pipeline.run([], custom_dashboard=display) == []

    virtual(main)
    assert display.names() == ["on_start", "on_update", "on_update", "on_finish"]
    assert display.total_items == 0


def test_cancel_during_on_finish_leaves_nothing_running() -> None:
    """Nothing is left running when a run is cancelled while its display says goodbye."""

    async def main() -> None:
        display = Display(on_finish=lambda: asyncio.sleep(3))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(11):
                await twenty(display)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main)


@pytest.mark.parametrize(("name", "at"), [("on_start", 1), ("on_update", 1), ("on_finish", 10.5)])
def test_cancel_ends_the_run_although_a_display_hangs(name: str, at: float) -> None:
    """Cancelling a run ends it at once, also while its display hangs."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(at):
                await twenty(Display(**{name: never}))
        return now()

    assert virtual(main) == at


@pytest.mark.parametrize("name", ["on_start", "on_update", "on_finish"])
def test_display_that_hangs_holds_the_run_up_once(name: str) -> None:
    """A display that hangs holds up the run by some seconds, once, and costs no result."""

    async def main() -> float:
        results = await twenty(Display(**{name: never}))
        assert results.values() == list(range(20))
        return now()

    assert 10 <= virtual(main) <= 15


# Polling


def test_updates_while_items_are_fed() -> None:
    """Updates come evenly from the beginning, also while the input still waits for room."""
    display = Display()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(0.01)])])
        await pipeline.run(range(100), custom_dashboard=display, dashboard_update_interval=0.1)

    virtual(main)
    times = display.times("on_update")
    assert times[:-1] == pytest.approx([0.1 * n for n in range(len(times) - 1)])
    assert 11 <= len(times) <= 12
    processed = [snapshot.pipeline_stats.items_processed for snapshot in display.snapshots]
    assert processed[:10] == pytest.approx(list(range(0, 100, 10)), abs=1)
    assert processed[-1] == 100


@pytest.mark.parametrize("seconds", [None, 3])
def test_updates_before_anything_is_fed(seconds: float | None) -> None:
    """The display begins, however long that takes, before the first item is taken in."""
    display = Display() if seconds is None else Display(on_start=lambda: asyncio.sleep(seconds))
    seen: list[int] = []

    def source() -> Any:
        seen.append(len(display.calls))
        yield 1

    async def main() -> None:
        await Pipeline([Stage("Work", 1, [same])]).run(source(), custom_dashboard=display)

    virtual(main)
    assert seen == [2]
    assert display.snapshots[0].pipeline_stats.items_accepted == 0


def test_updates_of_an_async_display_are_awaited() -> None:
    """An async ``on_update`` is awaited to its end, also the last one."""
    shown: list[int] = []

    async def on_update(snapshot: DashboardSnapshot) -> None:
        await asyncio.sleep(0.01)
        shown.append(snapshot.pipeline_stats.items_processed)

    virtual(lambda: twenty(Display(on_update=on_update), interval=2.4))
    assert shown[0] == 0
    assert shown[-1] == 20


def test_updates_of_a_slow_display_are_fewer() -> None:
    """A display that takes longer than the interval gets fewer updates, never two at once."""
    running: list[int] = []
    most = [0]

    async def on_update(snapshot: DashboardSnapshot) -> None:
        running.append(1)
        most[0] = max(most[0], len(running))
        try:
            await asyncio.sleep(2)
        finally:
            running.pop()

    async def main() -> float:
        await twenty(Display(on_update=on_update), interval=0.1)
        return now()

    assert virtual(main) <= 15
    assert most == [1]
    assert running == []


@pytest.mark.parametrize("name", ["on_start", "on_update", "on_finish"])
def test_error_that_a_display_raises_in_each_run_does_not_grow(name: str) -> None:
    """One object, raised in many runs: its traceback is as long as after the first."""
    error = ValueError("always the same")

    def fail_alike(*_: Any) -> None:
        raise error

    lengths = []
    for _ in range(5):
        virtual(lambda: twenty(Display(**{name: fail_alike}), interval=1))
        lengths.append(len(list(walk_tb(error.__traceback__))))
    assert lengths == lengths[:1] * 5


BROKEN = """
import asyncio
import logging

from antflow import Pipeline, Stage

if False:
    logging.basicConfig()


class Broken:
    def on_update(self, snapshot):
        raise KeyError("no such\\nstage")


results = asyncio.run(Pipeline([Stage("A", 1, [str])]).run(range(3), custom_dashboard=Broken()))
print(results.values())
"""


def test_display_that_fails_says_so_in_one_line_if_logging_is_not_set_up() -> None:
    """The screen does not stay empty without a reason: the error, its line, and the run goes on."""
    ended = run_program(BROKEN)
    assert ended.stdout == "['0', '1', '2']\n"
    [line] = ended.stderr.splitlines()
    assert line.startswith("the display failed in on_update; the run goes on without it: KeyError ")
    assert " in Broken.on_update: " in line


def test_display_that_fails_is_logged_with_its_traceback() -> None:
    """With logging set up, the traceback is in the record."""
    ended = run_program(BROKEN.replace("if False", "if True"))
    assert "WARNING:antflow:the display failed in on_update" in ended.stderr
    assert "Traceback" in ended.stderr


def test_one_display_for_two_runs_at_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A display of the library shows the first of them, and a warning says so."""
    display = create("log")

    async def main() -> Any:
        return await asyncio.gather(twenty(display), twenty(display))

    first, second = virtual(main)
    assert len(first.values()) == len(second.values()) == 20
    assert caplog.text.count("this display shows another run") == 1
    assert capsys.readouterr().err.count(" 0/20,") == 1
