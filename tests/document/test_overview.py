"""Overview: what each of the two mechanisms is driven by, costs, offers and knows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import Gate, run_virtual

from .watchers import Frames, PolledPipeline, lasting, now

pytestmark = pytest.mark.document

NAMED_DASHBOARDS = ["compact", "detailed", "full"]


def test_dashboard_is_polled_while_nothing_happens() -> None:
    """A dashboard is updated by the clock, also in ten seconds without any news."""
    frames = Frames()

    async def main() -> None:
        pipeline = Pipeline([Stage("Long", 1, [lasting(10)])])
        await pipeline.run([1], custom_dashboard=frames, dashboard_update_interval=3)

    run_virtual(main)
    assert frames.times == [0, 3, 6, 9, 10]


def test_tracker_is_called_when_something_happens() -> None:
    """A tracker's callback is called at each event and at no other time."""
    heard: list[tuple[float, str]] = []
    tracker = StatusTracker(on_status_change=lambda event: heard.append((now(), event.status)))

    async def main() -> None:
        await Pipeline([Stage("Long", 1, [lasting(10)])], status_tracker=tracker).run([1])

    run_virtual(main)
    assert heard == [(0, "queued"), (0, "in_progress"), (10, "completed")]


@pytest.mark.parametrize("count", [1, 10, 5000])
def test_dashboard_updates_do_not_grow_with_the_work(count: int) -> None:
    """However much happens between two updates, a dashboard costs one snapshot per update."""
    pipeline = PolledPipeline([Stage("Instant", 4, [lasting(0)])])

    async def main() -> None:
        await pipeline.run(range(count), custom_dashboard=Frames())

    run_virtual(main)
    assert pipeline.poll_times == [0, 0]
    assert [snapshot.pipeline_stats.items_processed for snapshot in pipeline.polled] == [0, count]


@pytest.mark.parametrize("count", [1, 10, 500])
def test_tracker_updates_on_every_event(count: int) -> None:
    """A tracker's callback is called for every event of every item, however many there are."""
    heard: list[StatusEvent] = []
    tracker = StatusTracker(on_status_change=heard.append)
    stages = [Stage(name, 4, [lasting(0)]) for name in ("First", "Second")]
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(count)))
    assert len(heard) == count * 2 * 3


@pytest.mark.parametrize("name", NAMED_DASHBOARDS)
def test_dashboard_needs_one_word(name: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A built-in dashboard is one argument of `run`, and nothing more to write."""
    pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
    results = run_virtual(pipeline.run(range(3), dashboard=name))
    assert results.values() == [0, 1, 2]
    assert "3 ok, 0 failed" in capsys.readouterr().err


class _Heard:
    """Callbacks of every kind, all noting events in one list."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def method(self, event: Any) -> None:
        self.events.append(event)

    async def async_method(self, event: Any) -> None:
        self.events.append(event)

    def __call__(self, event: Any) -> None:
        self.events.append(event)


class _HeardLater(_Heard):
    async def __call__(self, event: Any) -> None:  # type: ignore[override]
        self.events.append(event)


KINDS: dict[str, Callable[[_Heard], Callable[[Any], Any]]] = {
    "method": lambda heard: heard.method,
    "async method": lambda heard: heard.async_method,
    "lambda": lambda heard: lambda event: heard.events.append(event),
    "lambda of a coroutine": lambda heard: lambda event: heard.async_method(event),
    "partial": lambda heard: partial(heard.async_method),
    "object": lambda heard: heard,
}


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_may_be_of_any_kind(kind: str) -> None:
    """A callback may be anything that can be called with an event, and is awaited if need be."""
    heard = _Heard()
    _expect_all_events(heard, KINDS[kind](heard))


def test_callback_may_be_an_object_called_asynchronously() -> None:
    """An object whose ``__call__`` is asynchronous is awaited as well."""
    heard = _HeardLater()
    _expect_all_events(heard, heard)


def test_snapshot_is_the_current_state_and_no_more() -> None:
    """A snapshot shows the items of its moment, not those of before, and never changes."""
    gate = Gate()
    pipeline = Pipeline([Stage("Hold", 1, [gate])])

    class Opener(Frames):
        def on_update(self, snapshot: Any) -> None:
            super().on_update(snapshot)
            copies.append(copy.deepcopy(snapshot))
            if len(self.snapshots) == 3:
                gate.open()

    copies: list[Any] = []
    frames = Opener()
    run_virtual(
        pipeline.run([{"id": "first", "value": 1}, {"id": "second"}], custom_dashboard=frames)
    )
    held, last = frames.snapshots[1], frames.snapshots[-1]
    assert held.worker_states["Hold-W0"].current_item_id == "first"
    assert held.pipeline_stats.queue_sizes == {"Hold": 1}
    assert last.worker_states["Hold-W0"].current_item_id is None
    assert last.pipeline_stats.queue_sizes == {"Hold": 0}
    assert "'first'" not in repr(last)
    assert frames.snapshots == copies


def test_tracker_has_the_complete_history() -> None:
    """What a tracker tells of an item afterwards is everything that its callback heard of it."""
    heard: list[StatusEvent] = []
    tracker = StatusTracker(on_status_change=heard.append)
    stages = [Stage("First", 3, [lasting(0.3)]), Stage("Second", 2, [lasting(0.5)])]
    run_virtual(Pipeline(stages, status_tracker=tracker).run(range(20)))
    for item_id in range(20):
        history = tracker.get_history(item_id)
        assert history == [event for event in heard if event.item_id == item_id]
        assert [(event.stage, event.status) for event in history] == [
            (stage, status)
            for stage in ("First", "Second")
            for status in ("queued", "in_progress", "completed")
        ]


def _expect_all_events(heard: _Heard, callback: Callable[[Any], Any]) -> None:
    tracker = StatusTracker(
        on_status_change=callback, on_task_start=callback, on_task_complete=callback
    )
    run_virtual(Pipeline([Stage("Work", 1, [lasting(1)])], status_tracker=tracker).run([1]))
    kinds = [getattr(event, "status", None) or event.event_type for event in heard.events]
    assert kinds == ["queued", "in_progress", "start", "complete", "completed"]
    assert tracker.callback_errors == 0
