"""Several observers of one run, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.ports import Observer
from antflow._core.run_facts import RunFacts
from antflow._core.transition import Kind
from antflow._core.waits import Wait, both


def fan_out(observers: Sequence[Observer]) -> Observer | None:
    """One observer that stands for these: ``None`` for none, itself for one."""
    if len(observers) <= 1:
        return observers[0] if observers else None
    return FanOut(observers)


class FanOut:
    """Hands on what it is told, in the order of the observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    @property
    def hears_starts(self) -> bool:
        return any(observer.hears_starts for observer in self._observers)

    @property
    def hears_tasks(self) -> bool:
        return any(observer.hears_tasks for observer in self._observers)

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        for observer in self._observers:
            observer.opened(facts, ledger, rewire)

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        wait: Wait = None
        for observer in self._observers:
            wait = both(wait, observer.admitted(envelopes, now))
        return wait

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        wait: Wait = None
        for observer in self._observers:
            if observer.hears_starts:
                wait = both(wait, observer.started(envelope, worker, now))
        return wait

    def ended(
        self,
        kind: Kind,
        envelope: Envelope,
        worker: WorkerBook | None,
        began: float | None,
        now: float,
        error: Exception | None,
        value: Any,
    ) -> Wait:
        wait: Wait = None
        for observer in self._observers:
            told = observer.ended(kind, envelope, worker, began, now, error, value)
            wait = both(wait, told)
        return wait

    def task(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        name: str,
        now: float,
        duration: float | None,
        error: Exception | None,
    ) -> Wait:
        wait: Wait = None
        for observer in self._observers:
            if observer.hears_tasks:
                told = observer.task(kind, envelope, worker, name, now, duration, error)
                wait = both(wait, told)
        return wait

    def closed(self) -> None:
        for observer in self._observers:
            observer.closed()
