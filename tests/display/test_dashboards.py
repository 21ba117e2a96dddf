"""Dashboards: built-in ones by name, and objects of the user's own."""

from __future__ import annotations

import asyncio
import inspect
import io
import re
import time
from typing import Any

import pytest

from antflow import DashboardProtocol, ErrorSummary, Pipeline, Stage
from antflow.display import (
    BaseDashboard,
    CompactDashboard,
    DetailedDashboard,
    FullDashboard,
    ProgressDisplay,
)
from antflow.sinks import EventRecord, Sink
from antflow.testing import run_virtual
from tests.display.conftest import LEVELS, MakeTerminal, settle
from tests.monitor.test_poller import Display, twenty
from tests.support import (
    assert_works,
    defaults,
    odd_only,
    positional,
    same,
    slow,
    values,
    virtual,
)

METHODS = ["on_start", "on_update", "on_finish"]


class Watcher(DashboardProtocol):
    """A dashboard that writes down what it is told."""

    def __init__(self) -> None:
        self.starts: list[tuple[Any, int]] = []
        self.updates: list[Any] = []
        self.ends: list[tuple[int, int]] = []

    def on_start(self, pipeline: Any, total_items: int) -> None:
        self.starts.append((pipeline, total_items))

    def on_update(self, snapshot: Any) -> None:
        self.updates.append(snapshot.pipeline_stats.items_processed)

    def on_finish(self, results: Any, summary: Any) -> None:
        self.ends.append((len(results), summary.total_failed))


def one_stage(task: Any = odd_only) -> Pipeline:
    """One worker, one try."""
    return Pipeline([Stage("A", 1, [task], task_attempts=1)])


@pytest.mark.contract
@pytest.mark.parametrize("name", METHODS)
def test_protocol_has_the_three_methods(name: str) -> None:
    """`DashboardProtocol` has ``on_start``, ``on_update`` and ``on_finish``."""
    expected = {
        "on_start": ["pipeline", "total_items"],
        "on_update": ["snapshot"],
        "on_finish": ["results", "summary"],
    }
    assert positional(getattr(DashboardProtocol, name)) == expected[name]


@pytest.mark.contract
@pytest.mark.parametrize("kind", [CompactDashboard, DetailedDashboard])
def test_dashboards_keep_their_parameters(kind: Any) -> None:
    """``CompactDashboard(refresh_rate=4.0)`` and ``DetailedDashboard`` likewise."""
    assert defaults(kind) == {"refresh_rate": 4.0}
    assert positional(kind) == ["refresh_rate"]


@pytest.mark.contract
def test_full_dashboard_keeps_its_parameters() -> None:
    """``FullDashboard(refresh_rate=4.0, max_items_shown=20)``, by place too."""
    assert defaults(FullDashboard) == {"refresh_rate": 4.0, "max_items_shown": 20}
    assert positional(FullDashboard) == ["refresh_rate", "max_items_shown"]


@pytest.mark.contract
def test_progress_display_keeps_its_parameters() -> None:
    """``ProgressDisplay(total, width=30)``, by place too."""
    assert positional(ProgressDisplay)[:2] == ["total", "width"]
    assert ProgressDisplay(100).width == 30
    assert ProgressDisplay(100, 12).width == 12


@pytest.mark.contract
@pytest.mark.parametrize(
    "make", [CompactDashboard, DetailedDashboard, FullDashboard, lambda: ProgressDisplay(7)]
)
def test_displays_have_total_and_start_time(make: Any) -> None:
    """Every built-in display has ``.total`` and ``.start_time``."""
    display: BaseDashboard = make()
    assert display.total in (0, 7)
    assert display.start_time is None
    display.on_start(None, 7)
    assert display.total == 7
    started = getattr(display, "start_time", None)
    assert started is not None
    assert abs(started - time.time()) < 60
    display.on_finish([], ErrorSummary(0, {}, {}, []))


@pytest.mark.contract
def test_isinstance_of_a_dashboard() -> None:
    """`DashboardProtocol` in ``isinstance``: an object with all three methods is one."""

    class Complete:
        def on_start(self, pipeline: Any, total_items: int) -> None: ...
        def on_update(self, snapshot: Any) -> None: ...
        def on_finish(self, results: Any, summary: Any) -> None: ...

    class Partial:
        def on_start(self, pipeline: Any, total_items: int) -> None: ...

    for display in (Complete(), Watcher(), ProgressDisplay(), FullDashboard()):
        assert isinstance(display, DashboardProtocol)
    for other in (Partial(), object(), None, "full"):
        assert not isinstance(other, DashboardProtocol)


@pytest.mark.contract
def test_base_dashboard_is_abstract_in_render() -> None:
    """A subclass of `BaseDashboard` says in ``render(snapshot)`` what it looks like."""
    assert inspect.isabstract(BaseDashboard)
    assert BaseDashboard.__abstractmethods__ == {"render"}
    assert positional(BaseDashboard.render) == ["snapshot"]


@pytest.mark.contract
def test_custom_dashboard_hears_start_updates_and_finish() -> None:
    """``custom_dashboard`` hears the pipeline and total, snapshots, and results with summary."""
    watcher = Watcher()
    pipeline = one_stage()
    run_virtual(lambda: pipeline.run(range(10), custom_dashboard=watcher))
    assert watcher.starts == [(pipeline, 10)]
    assert watcher.updates
    assert watcher.ends[0][0] == 5


@pytest.mark.contract
def test_custom_dashboard_need_not_be_a_subclass() -> None:
    """Any object with the three methods is a dashboard."""

    class Plain:
        heard: list[str] = []  # noqa: RUF012 - one instance, and its class is thrown away

        def on_start(self, *_: Any) -> None:
            self.heard.append("start")

        def on_update(self, *_: Any) -> None:
            self.heard.append("update")

        def on_finish(self, *_: Any) -> None:
            self.heard.append("finish")

    plain: Any = Plain()
    run_virtual(lambda: one_stage().run([1], custom_dashboard=plain))
    assert (plain.heard[0], plain.heard[-1]) == ("start", "finish")
    assert "update" in plain.heard


@pytest.mark.contract
def test_first_update_is_immediate() -> None:
    """The first update comes at once, before anything is processed."""
    watcher = Watcher()
    run_virtual(lambda: one_stage(slow).run(range(3), custom_dashboard=watcher))
    assert watcher.updates[0] == 0


@pytest.mark.contract
@pytest.mark.parametrize("name", ["compact", "detailed", "full"])
def test_dashboards_by_name(name: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """``dashboard="compact" | "detailed" | "full"`` show something and change no result."""
    results = run_virtual(lambda: one_stage().run(range(10), dashboard=name))
    assert values(results) == [1, 3, 5, 7, 9]
    assert capsys.readouterr().err


@pytest.mark.contract
def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """``progress=True`` shows how far it is and changes no result."""
    results = run_virtual(lambda: one_stage().run(range(10), progress=True))
    assert values(results) == [1, 3, 5, 7, 9]
    assert "10" in capsys.readouterr().err


@pytest.mark.contract
def test_progress_of_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """``stream(..., progress=True)`` shows the same."""

    async def main() -> int:
        return len([r async for r in one_stage().stream(range(10), progress=True)])

    assert run_virtual(main) == 10
    assert capsys.readouterr().err


@pytest.mark.contract
def test_progress_and_dashboard_together_are_refused() -> None:
    """Asking for two displays is a `ValueError`: "Cannot use both"."""
    with pytest.raises(ValueError, match="Cannot use both"):
        run_virtual(lambda: one_stage().run([1], progress=True, dashboard="compact"))


@pytest.mark.contract
def test_unknown_dashboard_is_refused() -> None:
    """A dashboard that is not one of the names is a `ValueError`."""
    wrong: Any = "fancy"
    with pytest.raises(ValueError, match="fancy"):
        run_virtual(lambda: one_stage().run([1], dashboard=wrong))


@pytest.mark.contract
def test_script_with_a_dashboard_of_its_own() -> None:
    """A script as users have it: a subclass that prints percents and a last line."""
    out = io.StringIO()

    class MyDashboard(DashboardProtocol):
        def on_start(self, pipeline: Any, total_items: int) -> None:
            self.total = total_items
            print(f"Starting to process {total_items} items...", file=out)

        def on_update(self, snapshot: Any) -> None:
            stats = snapshot.pipeline_stats
            percent = stats.items_processed / self.total * 100
            busy = [w for w in snapshot.worker_states.values() if w.status == "busy"]
            print(f"{percent:.0f}% with {len(busy)} workers", file=out)

        def on_finish(self, results: Any, summary: Any) -> None:
            print(f"Done! {len(results)} items", file=out)

    pipeline = Pipeline(stages=[Stage(name="A", workers=2, tasks=[same])])
    run_virtual(
        lambda: pipeline.run(
            range(10), custom_dashboard=MyDashboard(), dashboard_update_interval=0.1
        )
    )
    lines = out.getvalue().splitlines()
    assert lines[0] == "Starting to process 10 items..."
    assert lines[1] == "0% with 0 workers"
    assert lines[-1] == "Done! 10 items"


# New since 0.10.0


@pytest.mark.contract
def test_updates_come_at_the_interval() -> None:
    """There is one update at the start, one each interval, and a last one at the end."""
    watcher = Watcher()
    run_virtual(
        lambda: one_stage(slow).run(
            range(10), custom_dashboard=watcher, dashboard_update_interval=2.0
        )
    )
    assert len(watcher.updates) in (6, 7)
    assert (watcher.updates[0], watcher.updates[-1]) == (0, 10)
    assert watcher.updates == sorted(watcher.updates)


@pytest.mark.contract
def test_updates_come_while_feeding() -> None:
    """Updates show progress from the start, also while items wait to be taken in."""
    watcher = Watcher()
    run_virtual(
        lambda: one_stage(slow).run(
            range(100), custom_dashboard=watcher, dashboard_update_interval=10.0
        )
    )
    assert len(watcher.updates) in (11, 12)
    steps = [b - a for a, b in zip(watcher.updates, watcher.updates[1:], strict=False)]
    assert max(steps) <= 11


@pytest.mark.contract
def test_on_finish_hears_the_failures() -> None:
    """``on_finish`` hears the successful results and a summary of the failed ones."""
    watcher = Watcher()
    run_virtual(lambda: one_stage().run(range(10), custom_dashboard=watcher))
    assert watcher.ends == [(5, 5)]


@pytest.mark.contract
@pytest.mark.parametrize("name", METHODS)
def test_dashboard_that_raises_is_let_go(name: str) -> None:
    """What a display raises changes no result; after a failed update there is no other."""
    watcher = Watcher()
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("the display is broken")

    setattr(watcher, name, fail)
    results = run_virtual(lambda: one_stage(slow).run(range(5), custom_dashboard=watcher))
    assert (values(results), calls) == ([0, 1, 2, 3, 4], 1)


@pytest.mark.contract
def test_missing_methods_do_nothing() -> None:
    """A dashboard with one of the methods only is one."""

    class Last:
        ends = 0

        def on_finish(self, *_: Any) -> None:
            self.ends += 1

    last: Any = Last()
    run_virtual(lambda: one_stage().run([1], custom_dashboard=last))
    assert last.ends == 1


@pytest.mark.contract
def test_async_methods_are_awaited() -> None:
    """The methods of a dashboard may be async."""
    heard: list[str] = []

    class Async:
        async def on_start(self, *_: Any) -> None:
            heard.append("start")

        async def on_update(self, *_: Any) -> None:
            heard.append("update")

        async def on_finish(self, *_: Any) -> None:
            heard.append("finish")

    display: Any = Async()
    run_virtual(lambda: one_stage().run([1], custom_dashboard=display))
    assert (heard[0], heard[-1]) == ("start", "finish")


@pytest.mark.contract
def test_on_finish_comes_once_when_cancelled() -> None:
    """``on_finish`` comes exactly once, also when the run is cancelled; no update follows."""
    watcher = Watcher()

    async def main() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await one_stage(slow).run(range(9), custom_dashboard=watcher)
        count = len(watcher.updates)
        await asyncio.sleep(10)
        return len(watcher.updates) - count

    assert run_virtual(main) == 0
    assert watcher.ends == [(1, 0)]


@pytest.mark.contract
def test_poller_calls_get_dashboard_snapshot() -> None:
    """A subclass that overrides ``get_dashboard_snapshot`` is asked by the poller."""

    class Counting(Pipeline):
        asked = 0

        def get_dashboard_snapshot(self) -> Any:
            self.asked += 1
            return super().get_dashboard_snapshot()

    pipeline = Counting([Stage("A", 1, [same])])
    run_virtual(lambda: pipeline.run([1], custom_dashboard=Watcher()))
    assert pipeline.asked >= 2


@pytest.mark.contract
@pytest.mark.parametrize(
    "options",
    [
        {"progress": True, "custom_dashboard": Watcher()},
        {"dashboard": "full", "custom_dashboard": Watcher()},
    ],
    ids=["progress", "dashboard"],
)
def test_two_displays_are_refused(options: dict[str, Any]) -> None:
    """Any two of the three options are refused, before anything is drawn."""
    with pytest.raises(ValueError, match="Cannot use both"):
        run_virtual(lambda: one_stage().run([1], **options))


@pytest.mark.contract
@pytest.mark.parametrize("interval", [0, -1, 1e-9, float("nan"), float("inf"), "0.5", None])
def test_intervals_that_are_refused(interval: Any) -> None:
    """An interval is a finite number of at least 0.01; else nothing is begun."""
    watcher = Watcher()
    with pytest.raises((ValueError, TypeError), match="dashboard_update_interval"):
        run_virtual(
            lambda: one_stage().run(
                [1], custom_dashboard=watcher, dashboard_update_interval=interval
            )
        )
    assert watcher.starts == []


@pytest.mark.contract
@pytest.mark.parametrize("wrong", [5, "fancy", Watcher, True], ids=str)
def test_dashboards_of_any_wrong_type_are_refused(wrong: Any) -> None:
    """A dashboard that is no name and no object with the methods is a `ValueError`."""
    with pytest.raises(ValueError, match="dashboard"):
        run_virtual(lambda: one_stage().run([1], dashboard=wrong))


@pytest.mark.contract
def test_dashboard_takes_an_object() -> None:
    """``dashboard`` takes an object of one's own too."""
    watcher = Watcher()
    run_virtual(lambda: one_stage().run([1], dashboard=watcher))
    assert watcher.ends == [(1, 0)]


@pytest.mark.contract
@pytest.mark.parametrize("name", ["progress", "compact", "detailed", "full", "log", "auto"])
def test_last_line_says_ok_and_failed(name: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of every display says how many are ok and how many failed."""
    options: Any = {"progress": True} if name == "progress" else {"dashboard": name}
    run_virtual(lambda: one_stage().run([*range(1, 181, 2), *range(0, 20, 2)], **options))
    assert "90 ok, 10 failed" in capsys.readouterr().err.rstrip().splitlines()[-1]


@pytest.mark.contract
def test_total_items_of_a_generator() -> None:
    """``total`` says how many there will be where ``len`` cannot."""
    watcher = Watcher()
    pipeline = one_stage()
    run_virtual(lambda: pipeline.run(iter(range(4)), total=4, custom_dashboard=watcher))
    assert watcher.starts == [(pipeline, 4)]


# -- what is refused -------------------------------------------------------------------------------


class FalsyDisplay(Display):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


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


@pytest.mark.fault
@pytest.mark.parametrize("how", ["dashboard", "custom_dashboard"])
def test_display_that_is_falsy_is_shown_the_run(how: str) -> None:
    """A display is used also when it counts as false."""
    display = FalsyDisplay()

    async def main() -> None:
        options: dict[str, Any] = {how: display}
        await Pipeline([Stage("Work", 1, [same])]).run([1], **options)

    virtual(main)
    assert display.names() == ["on_start", "on_update", "on_update", "on_finish"]


@pytest.mark.fault
def test_display_with_few_methods() -> None:
    """A display needs not have all three methods."""

    class Finishing:
        results: Any = None

        def on_finish(self, results: Any, summary: Any) -> None:
            self.results = results

    display = Finishing()
    results = virtual(lambda: twenty(display))
    assert display.results == results


@pytest.mark.fault
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
def test_rejects_two_displays_and_calls_neither(options: dict[str, Any]) -> None:
    """Two displays for one run are refused."""
    assert_refused(ValueError, "Cannot use both", **options)


@pytest.mark.fault
@pytest.mark.parametrize(
    "display", [Display, "compact", "x", 5, object(), [], lambda snapshot: None]
)
def test_rejects_objects_that_are_not_dashboards(display: Any) -> None:
    """A custom dashboard that has none of the methods, or is a class, is refused by name."""
    assert_refused(TypeError, "custom_dashboard", custom_dashboard=display)


@pytest.mark.fault
@pytest.mark.parametrize("display", [Display, "compat", "", 5, True, object(), ["compact"]])
def test_rejects_what_is_neither_a_name_nor_a_display(display: Any) -> None:
    """A dashboard that is neither a name nor a display is refused, with the names there are."""
    assert_refused(ValueError, "'compact', 'detailed', 'full'", dashboard=display)


@pytest.mark.fault
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
def test_rejects_intervals_that_are_not_seconds(interval: Any) -> None:
    """An interval that is not a finite number of at least 0.01 seconds is refused."""
    assert_refused(
        (ValueError, TypeError),
        "dashboard_update_interval",
        custom_dashboard=Display(),
        dashboard_update_interval=interval,
    )


@pytest.mark.fault
@pytest.mark.parametrize("interval", [0.01, 1, 2.5, 1e9])
def test_takes_the_shortest_and_longest_intervals(interval: float) -> None:
    """An interval may be as short as 0.01 seconds and as long as one likes."""
    display = Display()
    virtual(lambda: twenty(display, interval))
    assert display.times("on_update")[-1] == 10
    if interval < 10:
        assert display.times("on_update")[1] == pytest.approx(interval)


@pytest.mark.parametrize("level", LEVELS)
def test_lost_events_are_shown(terminal: MakeTerminal, level: str) -> None:
    """Every face says, while the run goes on, how many events a sink has lost."""
    screen = terminal()
    shown: list[str] = []

    class Full(Sink):
        """Has room for one event, and is slow to write it."""

        def write(self, records: list[EventRecord]) -> None:
            time.sleep(0.05)

    async def look(number: int) -> int:
        await asyncio.sleep(0.02)
        if number == 30:
            await asyncio.sleep(0.1)
            settle()
            shown.append(screen.text)
        return number

    options: Any = {"progress": True} if level == "progress" else {"dashboard": level}
    pipeline = Pipeline([Stage("Look", 1, [look])], observers=[Full(buffer=1, batch=1)])
    asyncio.run(pipeline.run(range(31), dashboard_update_interval=0.02, **options))
    assert re.search(r"▲ Full lost \d+ events", shown[0])
