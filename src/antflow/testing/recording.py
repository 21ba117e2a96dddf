"""Records for tests: the events that were reported, the transitions that were kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from antflow._core.brief import Brief
from antflow._core.checks import check_flag
from antflow._core.envelope import Envelope
from antflow._core.events import StatusEvent, TaskEvent
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.text import counted
from antflow._core.transition import Transition
from antflow._core.waits import Wait
from antflow._monitor.tracker import StatusTracker


class RecordedEvents(StatusTracker):
    """A tracker that writes down its events. Made by `record_events`.

    Attributes:
        events: Every `StatusEvent` and `TaskEvent`, in the order they were reported.
    """

    def __init__(self) -> None:
        self.events: list[StatusEvent | TaskEvent] = []
        note = self.events.append
        super().__init__(note, note, note, note, note)

    def of(self, item_id: Any) -> list[str]:
        """One item's events in short: ``["queued @ Fetch", "start fetch 1", …]``.

        A status event is ``"status @ stage"``; a task event ``"type task_name attempt"``.
        """
        return [
            f"{event.status} @ {event.stage}"
            if isinstance(event, StatusEvent)
            else f"{event.event_type} {event.task_name} {event.attempt}"
            for event in self.events
            if event.item_id == item_id
        ]


def record_events() -> RecordedEvents:
    """A tracker for a pipeline under test: ``Pipeline(stages, status_tracker=record_events())``."""
    return RecordedEvents()


class MemoryStore(Brief):
    """A store that keeps everything in lists; the smallest complete implementation of the port.

    Args:
        slow: Give the event loop a turn at every call, as a store does whose backlog is full.

    Attributes:
        admitted: ``(sequence id, item id, input)`` of every item, in order.
        transitions: Every transition, in order.
        values: ``(sequence id, stage index)`` → the stage's result for the item.
        runs: The `RunFacts` of every run, in order.
        ends: The `RunEnd` of every run that is over, in order.
    """

    def __init__(self, *, slow: bool = False) -> None:
        check_flag(TypeError, "slow", slow)
        self.slow = slow
        self.admitted: list[tuple[int, Any, Any]] = []
        self.transitions: list[Transition] = []
        self.values: dict[tuple[int, int], Any] = {}
        self.runs: list[RunFacts] = []
        self.ends: list[RunEnd] = []

    def _said(self) -> str:
        items, runs = counted(len(self.admitted), "item"), counted(len(self.runs), "run")
        return f": {items}, {counted(len(self.transitions), 'transition')}, {runs}"

    def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
        """Keep that a run begins."""
        self.runs.append(facts)

    def admit(self, envelopes: Sequence[Envelope]) -> Wait:
        """Keep items before they enter."""
        self.admitted += [(item.sequence_id, item.id, item.input) for item in envelopes]
        return asyncio.sleep(0) if self.slow else None

    def record(self, transition: Transition, value: Any) -> Wait:
        """Keep a transition, and a stage's result."""
        self.transitions.append(transition)
        if transition.kind.name == "COMPLETED":
            self.values[transition.seq, transition.stage] = value
        return asyncio.sleep(0) if self.slow else None

    def closed(self, how: RunEnd) -> Wait:
        """Keep how a run ended."""
        self.ends.append(how)
        return asyncio.sleep(0) if self.slow else None
