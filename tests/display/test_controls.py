"""What keys do to a run, without a terminal."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow.display.controls import Controls, KeyPress
from antflow.testing import run_virtual
from tests.support import without_address


async def work(number: int) -> int:
    await asyncio.sleep(1)
    return number


def two_stages() -> Pipeline[Any, Any]:
    return Pipeline([Stage("Fetch", 2, [work]), Stage("Parse", 2, [work])])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def effects(controls: Controls) -> list[tuple[str, str]]:
    return [(press.key, press.effect) for press in controls.presses]


def test_keys_reach_the_run() -> None:
    """Workers change, the run pauses and goes on, and drains to its end."""

    async def main() -> None:
        async with two_stages().open() as run:
            controls = Controls(run, Clock())
            await run.feed(range(10))
            for key in ("+", "2", "=", "_", "-", "-", "up", "+"):
                controls.press(key)
            stats = run.stats().stage_stats
            assert [stats[name].workers for name in ("Fetch", "Parse")] == [3, 1]
            controls.press("p")
            assert run.snapshot().state == "paused"
            controls.press("p")
            assert run.snapshot().state == "running"
            controls.press("p")
            controls.press("d")
            await asyncio.sleep(60)
            assert run.snapshot().state == "finished"
            assert len(run.results) == 10
            assert not controls.press("+")
            assert effects(controls) == [
                ("+", "Parse: 3 workers"),
                ("-", "Parse: 2 workers"),
                ("-", "Parse: 1 worker"),
                ("+", "Fetch: 3 workers"),
                ("p", "paused"),
                ("p", "resumed"),
                ("p", "paused"),
                ("d", "draining: no more is taken in, 10 items in flight"),
            ]

    run_virtual(main())


@pytest.mark.parametrize(
    ("keys", "pause", "is_cancelled"),
    [("qq", 0, True), ("Qq", 4.9, True), ("qq", 5.1, False), ("qxq", 0, False), ("qpq", 0, False)],
)
def test_cancel_asks_once(keys: str, pause: float, is_cancelled: bool) -> None:
    """Only a second q in a row, within five seconds, cancels."""

    async def main() -> None:
        clock = Clock()
        async with two_stages().open() as run:
            controls = Controls(run, clock)
            await run.feed(range(3))
            for key in keys:
                controls.press(key)
                clock.now += pause
            assert (run.snapshot().state == "cancelling") == is_cancelled
            assert (("q", "cancelled") in effects(controls)) == is_cancelled

    run_virtual(main())


def test_presses_are_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """One record says what was pressed, when, and what it did."""

    async def main() -> None:
        async with two_stages().open() as run:
            controls = Controls(run, Clock())
            controls.log()
            await asyncio.sleep(61)
            controls.press("1")
            controls.press("+")
            controls.log()
            assert list(controls.presses) == [KeyPress(61.0, "+", "Fetch: 3 workers")]

    with caplog.at_level(logging.INFO, "antflow"):
        run_virtual(main())
    told = [record.getMessage() for record in caplog.records if "keys" in record.getMessage()]
    assert told == ["keys: 1:01 + Fetch: 3 workers"]


class Watching:
    """A display that keeps the run it shows."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.run: Any = None

    def on_start(self, pipeline: Any, total: int) -> None:
        self.calls.append("start")
        self.run = pipeline.current_run

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.calls.append(snapshot.state)

    def on_finish(self, results: Any, summary: Any) -> None:
        self.calls.append(f"finish {len(results)}")


class SlowlyEnding(Watching):
    """Its last frame takes a second."""

    async def on_finish(self, results: Any, summary: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(1)
        super().on_finish(results, summary)


def test_current_run_is_the_run_that_a_display_shows() -> None:
    """Each of two runs at once has its own; before the first there is none."""

    async def main() -> None:
        pipeline = two_stages()
        assert pipeline.current_run is None
        one, two = Watching(), Watching()
        first, second = await asyncio.gather(
            pipeline.run(range(3), custom_dashboard=one),
            pipeline.run(range(4), custom_dashboard=two),
        )
        assert one.run.run_id == first.run_id
        assert two.run.run_id == second.run_id

    run_virtual(main())


def test_display_of_an_open_run() -> None:
    """It begins before the block, and has shown the end when the block is left."""

    async def main() -> None:
        pipeline, display = two_stages(), SlowlyEnding()
        async with pipeline.open(custom_dashboard=display) as run:
            assert display.calls[0] == "start"
            assert display.run is run
            await run.feed(range(5))
        assert display.calls[-2:] == ["finished", "finish 5"]
        assert display.calls.count("start") == 1

    run_virtual(main())


def test_display_of_an_open_run_that_fails() -> None:
    """If the block raises, the display has ended, too."""

    async def main() -> None:
        display = Watching()

        async def fail() -> None:
            async with two_stages().open(custom_dashboard=display) as run:
                await run.feed(range(5))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert display.calls[-2:] == ["finished", "finish 0"]

    run_virtual(main())


@pytest.mark.parametrize("end", ["join", "shutdown"])
def test_display_of_a_started_run(end: str) -> None:
    """`start` takes a display; `join` and `shutdown` wait for its end."""

    async def main() -> None:
        pipeline, display = two_stages(), Watching()
        await pipeline.start(custom_dashboard=display, dashboard_update_interval=0.1)
        await pipeline.feed(range(2))
        await asyncio.sleep(5)
        await getattr(pipeline, end)()
        assert display.calls[-2:] == ["finished", "finish 2"]
        assert display.calls.count("running") > 10

    run_virtual(main())


def test_drain_takes_in_no_more_and_cancels_nothing() -> None:
    """A source that never ends is left where it is, and what was taken in is finished."""

    async def main() -> None:
        taken: list[int] = []

        def endless() -> Any:
            while True:
                taken.append(len(taken))
                yield taken[-1]

        class Drains(Watching):
            def on_update(self, snapshot: DashboardSnapshot) -> None:
                if snapshot.pipeline_stats.items_processed >= 10:
                    self.run.drain()

        results = await two_stages().run(endless(), custom_dashboard=Drains())
        assert results.values() == taken[: len(results)]
        assert len(results) >= 10
        assert len(taken) - len(results) <= 1
        assert not results.cancelled

    run_virtual(main())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dashboard": "log"}, "the display is not on a terminal"),
        ({"dashboard": "full"}, "the display is not on a terminal"),
        ({"progress": True}, "the display is not on a terminal"),
        ({"custom_dashboard": Watching()}, "the display is not a BaseDashboard"),
        ({"dashboard": Watching()}, "the display is not a BaseDashboard"),
    ],
    ids=without_address,
)
def test_keys_that_cannot_be_read(
    options: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One record says so, and why; without ``keys=True`` there is none."""
    with caplog.at_level(logging.INFO, "antflow"):
        run_virtual(two_stages().run(range(3), **options))
        assert caplog.messages == []
        run_virtual(two_stages().run(range(3), **options, keys=True))
    assert caplog.messages == [f"keys=True: no keys are read: {why}"]


def test_keys_without_a_display() -> None:
    """They are refused before anything runs: there is nothing that could show them."""
    with pytest.raises(ValueError, match="keys=True needs a display"):
        run_virtual(two_stages().run(range(3), keys=True))
