"""Displays are shown how it is, and have no power over the run."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, Stage, StatusTracker
from antflow.testing import FailTimes
from tests.support import assert_works, lasting, never, now, raising, same, virtual

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


class FalsyDisplay(Display):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


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


def test_finish_when_the_run_is_cancelled() -> None:
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


def test_finish_when_the_source_raises() -> None:
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
def test_results_when_a_display_fails(name: str, what: Callable[..., Any]) -> None:
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


def test_results_when_no_item_and_a_careless_display() -> None:
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


def test_cancel_during_on_finish() -> None:
    """Nothing is left running when a run is cancelled while its display says goodbye."""

    async def main() -> None:
        display = Display(on_finish=lambda: asyncio.sleep(3))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(11):
                await twenty(display)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(main)


@pytest.mark.parametrize(("name", "at"), [("on_start", 1), ("on_update", 1), ("on_finish", 10.5)])
def test_cancel_when_a_display_hangs(name: str, at: float) -> None:
    """Cancelling a run ends it at once, also while its display hangs."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(at):
                await twenty(Display(**{name: never}))
        return now()

    assert virtual(main) == at


@pytest.mark.parametrize("name", ["on_start", "on_update", "on_finish"])
def test_run_when_a_display_hangs(name: str) -> None:
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


def test_updates_of_an_async_display() -> None:
    """An async ``on_update`` is awaited to its end, also the last one."""
    shown: list[int] = []

    async def on_update(snapshot: DashboardSnapshot) -> None:
        await asyncio.sleep(0.01)
        shown.append(snapshot.pipeline_stats.items_processed)

    virtual(lambda: twenty(Display(on_update=on_update), interval=2.4))
    assert shown[0] == 0
    assert shown[-1] == 20


def test_updates_of_a_slow_display() -> None:
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


@pytest.mark.parametrize("how", ["dashboard", "custom_dashboard"])
def test_display_that_is_falsy(how: str) -> None:
    """A display is used also when it counts as false."""
    display = FalsyDisplay()

    async def main() -> None:
        options: dict[str, Any] = {how: display}
        await Pipeline([Stage("Work", 1, [same])]).run([1], **options)

    virtual(main)
    assert display.names() == ["on_start", "on_update", "on_update", "on_finish"]


def test_display_with_few_methods() -> None:
    """A display needs not have all three methods."""

    class Finishing:
        results: Any = None

        def on_finish(self, results: Any, summary: Any) -> None:
            self.results = results

    display = Finishing()
    results = virtual(lambda: twenty(display))
    assert display.results == results


# Options, refused before anything begins


@pytest.mark.parametrize(
    "options",
    [
        {"progress": True, "dashboard": "compact"},
        {"progress": True, "custom_dashboard": Display()},
        {"dashboard": "compact", "custom_dashboard": Display()},
        {"progress": True, "dashboard": "compact", "custom_dashboard": Display()},
        {"dashboard": "compact", "custom_dashboard": FalsyDisplay()},
    ],
)
def test_displays_when_two_are_asked_for(options: dict[str, Any]) -> None:
    """Two displays for one run are refused."""
    assert_refused(ValueError, "Cannot use both", **options)


@pytest.mark.parametrize(
    "display", [Display, "compact", "x", 5, object(), [], lambda snapshot: None]
)
def test_custom_dashboard_that_is_none(display: Any) -> None:
    """A custom dashboard that has none of the methods, or is a class, is refused by name."""
    assert_refused(TypeError, "custom_dashboard", custom_dashboard=display)


@pytest.mark.parametrize("display", [Display, "compat", "", 5, True, object(), ["compact"]])
def test_dashboard_that_is_none(display: Any) -> None:
    """A dashboard that is neither a name nor a display is refused, with the names there are."""
    assert_refused(ValueError, "'compact', 'detailed', 'full'", dashboard=display)


@pytest.mark.parametrize(
    "interval",
    [
        0,
        -1,
        0.0,
        1e-9,
        0.009,
        float("nan"),
        float("inf"),
        -float("inf"),
        10**400,
        "0.5",
        None,
        True,
        [1],
    ],
    ids=lambda interval: repr(interval)[:8],
)
def test_interval_that_is_none(interval: Any) -> None:
    """An interval that is not a finite number of at least 0.01 seconds is refused."""
    assert_refused(
        (ValueError, TypeError),
        "dashboard_update_interval",
        custom_dashboard=Display(),
        dashboard_update_interval=interval,
    )


@pytest.mark.parametrize("interval", [0.01, 1, 2.5, 1e9])
def test_interval_that_is_allowed(interval: float) -> None:
    """An interval may be as short as 0.01 seconds and as long as one likes."""
    display = Display()
    virtual(lambda: twenty(display, interval))
    assert display.times("on_update")[-1] == 10
    if interval < 10:
        assert display.times("on_update")[1] == pytest.approx(interval)


def assert_refused(
    error: type[Exception] | tuple[type[Exception], ...], match: str, **options: Any
) -> None:
    """Running with these options raises before an item was taken or a display was called."""
    taken: list[int] = []
    items = (taken.append(n) for n in range(3))  # type: ignore[func-returns-value]

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(error, match=match):
            await pipeline.run(items, **options)
        custom = options.get("custom_dashboard")
        assert not isinstance(custom, Display) or custom.calls == []
        await assert_works(pipeline)

    virtual(main)
    assert taken == []


# Snapshots


def test_snapshot_that_was_taken_earlier() -> None:
    """A snapshot does not change afterwards."""
    taken: list[tuple[DashboardSnapshot, DashboardSnapshot]] = []

    async def main() -> None:
        tracker = StatusTracker()
        stages = [
            Stage("A", 2, [FailTimes(1)], "per_stage"),
            Stage("B", 2, [raising(ValueError("no"), 3, 5)], task_wait_seconds=0.3),
            Stage("C", 1, [lasting(0.1)]),
        ]
        pipeline = Pipeline(stages, status_tracker=tracker)
        run = asyncio.ensure_future(pipeline.run(range(30)))
        while not run.done():
            snapshot = pipeline.get_dashboard_snapshot()
            taken.append((snapshot, copy.deepcopy(snapshot)))
            await asyncio.sleep(0.07)
        await pipeline.run(range(3))

    virtual(main)
    assert len(taken) > 20
    for snapshot, copied in taken:
        assert snapshot == copied


def test_snapshot_that_somebody_writes_into() -> None:
    """Writing into a snapshot changes nothing but the snapshot."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [raising(ValueError("no"), 2)])])
        await pipeline.run(range(4))
        snapshot = pipeline.get_dashboard_snapshot()
        before = copy.deepcopy(snapshot)
        snapshot.worker_states.clear()
        snapshot.worker_metrics["Work-W0"].items_processed = 99
        snapshot.pipeline_stats.stage_stats.clear()
        snapshot.error_summary.failed_items.clear()
        snapshot.error_summary.errors_by_type["ValueError"] = 99
        after = pipeline.get_dashboard_snapshot()
        before.timestamp = after.timestamp
        before.elapsed = after.elapsed
        assert after == before

    virtual(main)


def test_snapshot_before_and_after_a_run() -> None:
    """A snapshot can be taken at any time: all zero before the first run, final after it."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 3, [same])])
        before = pipeline.get_dashboard_snapshot()
        assert before.state == "idle"
        assert list(before.worker_states) == ["Work-W0", "Work-W1", "Work-W2"]
        assert before.pipeline_stats.items_accepted == 0
        await pipeline.run(range(7))
        after = pipeline.get_dashboard_snapshot()
        assert after.state == "finished"
        assert after.pipeline_stats.items_processed == 7

    virtual(main)


def test_snapshot_from_another_thread() -> None:
    """Snapshots can be taken in another thread without end; none raises, no counter goes back."""
    errors: list[BaseException] = []
    counts: list[tuple[int, int]] = []
    over = threading.Event()
    stages = [
        Stage("A", 7, [raising(ValueError("no"), *range(0, 3000, 7))], task_attempts=1),
        Stage("B", 5, [same]),
    ]
    pipeline = Pipeline(stages, status_tracker=StatusTracker())

    def look() -> None:
        while not over.is_set():
            try:
                stats = pipeline.get_dashboard_snapshot().pipeline_stats
                pipeline.get_worker_names()
                pipeline.get_error_summary()
            except BaseException as error:
                errors.append(error)
                return
            counts.append((stats.items_accepted, stats.items_processed))

    async def main() -> None:
        async with pipeline.open() as run:
            for n in range(30):
                run.set_workers("A", 1 + n % 7)
                await run.feed(range(100 * n, 100 * n + 100))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert errors == []
    assert counts
    assert counts == sorted(counts)
    assert pipeline.results.stats.items_failed == len(range(0, 3000, 7))


@pytest.mark.parametrize("tracked", [False, True])
def test_snapshot_costs_the_same_however_many_items_there_were(tracked: bool) -> None:
    """Taking a snapshot is as much work after 2000 items as after 200, failed ones included."""

    def lines_run_after(count: int) -> int:
        tracker = StatusTracker() if tracked else None
        stages = [
            Stage("A", 4, [raising(ValueError("no"), *range(0, count, 2))], task_attempts=1),
            Stage("B", 4, [same]),
        ]
        pipeline = Pipeline(stages, status_tracker=tracker)
        lines = 0

        async def main() -> None:
            nonlocal lines
            await pipeline.run(range(count))

            def trace(frame: Any, event: str, arg: Any) -> Any:
                nonlocal lines
                lines += 1
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                pipeline.get_dashboard_snapshot()
            finally:
                sys.settrace(before)

        virtual(main, max_steps=1_000_000)
        return lines

    assert lines_run_after(2000) == lines_run_after(200) > 20
