"""The one door: every change of an item's state goes through here.

A recorder enters the change into the ledger, always, and hands it on only when somebody listens:
to the store, which may hold the worker back, and to the observer, which has no power. Every method
returns ``None``, or something the worker must await before it goes on with the item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT
from antflow._core.envelope import UNTRIED, Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.events import TaskEventType
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.ports import Observer, Store
from antflow._core.run_facts import RunFacts
from antflow._core.transition import Kind, Transition
from antflow._core.waits import Wait, both

Started = Callable[[Envelope, WorkerBook, float], Wait]
Ended = Callable[
    [Kind, Envelope, WorkerBook | None, float | None, float, Exception | None, Any], Wait
]


class Listeners:
    """Who hears of a run's transitions. Shared by the recorders of all its stages.

    Args:
        facts: The run.
        store: Keeps transitions, or ``None``.
        observer: Sees them, or ``None``.
        on_broken_store: Called with the exception when the store cannot keep something.
        numbers: Gives each transition its number on this node.
    """

    def __init__(
        self,
        facts: RunFacts,
        store: Store | None,
        observer: Observer | None,
        on_broken_store: Callable[[Exception], None],
        numbers: Iterator[int],
    ) -> None:
        self.store = store
        self.observer = observer
        self._facts = facts
        self._on_broken_store = on_broken_store
        self._numbers = numbers

    @property
    def hears_starts(self) -> bool:
        """Whether somebody wants to know of each beginning."""
        return self.store is not None or (self.observer is not None and self.observer.hears_starts)

    @property
    def hears_tasks(self) -> bool:
        """Whether somebody wants to know of each task."""
        return self.observer is not None and self.observer.hears_tasks

    def admitted(self, stage: int, envelopes: Sequence[Envelope], now: float) -> Wait:
        wait: Wait = None
        if self.store is not None:
            for envelope in envelopes:
                wait = both(wait, self._keep(Kind.ADMITTED, stage, envelope, None, None, now))
        if self.observer is not None:
            wait = both(wait, self.observer.admitted(envelopes, now))
        return wait

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        wait: Wait = None
        if self.store is not None:
            wait = self._keep(Kind.STARTED, envelope.position, envelope, worker, None, now)
        if self.observer is not None and self.observer.hears_starts:
            wait = both(wait, self.observer.started(envelope, worker, now))
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
        if self.store is not None:
            wait = self._keep(kind, envelope.position, envelope, worker, began, now, error, value)
        if self.observer is not None:
            wait = both(wait, self.observer.ended(kind, envelope, worker, began, now, error, value))
        return wait

    def _keep(
        self,
        kind: Kind,
        stage: int,
        envelope: Envelope,
        worker: WorkerBook | None,
        began: float | None,
        now: float,
        error: Exception | None = None,
        value: Any = None,
    ) -> Wait:
        assert self.store is not None
        transition = Transition(
            run=self._facts.run_id,
            node=0,
            n=next(self._numbers),
            seq=envelope.sequence_id,
            stage=stage,
            kind=kind,
            worker=-1 if worker is None else worker.index,
            task=(worker.task or "") if worker and kind in (Kind.FAILED, Kind.RETRYING) else "",
            attempt=max(envelope.attempts, 0),
            lease=envelope.lease,
            mono=now,
            duration=0.0 if began is None else now - began,
            error=error,
            branch=envelope.branch,
        )
        try:
            return self.store.record(transition, value)
        except Exception as failure:
            self._on_broken_store(failure)
            return None


class Recorder:
    """Records what happens in one stage.

    Args:
        stage: The stage's index.
        ledger: The run's books.
        failures: The run's failures.
        facts: The run.
        listeners: Who else is told.
    """

    __slots__ = (
        "_book",
        "_ended",
        "_facts",
        "_failures",
        "_ledger",
        "_listeners",
        "_next_book",
        "_stage",
        "_started",
        "tells_starts",
        "tells_tasks",
    )

    def __init__(
        self,
        stage: int,
        ledger: Ledger,
        failures: FailureBook,
        facts: RunFacts,
        listeners: Listeners,
    ) -> None:
        self._stage = stage
        self._ledger = ledger
        self._book = ledger.stages[stage]
        self._next_book = self._book.following
        self._failures = failures
        self._facts = facts
        self._listeners = listeners
        self._started: Started | None = None
        self._ended: Ended | None = None
        self.tells_starts = False
        self.tells_tasks = False
        self.rewire()

    def rewire(self) -> None:
        """Find out again who listens. The usual case, nobody, then costs one comparison."""
        listeners = self._listeners
        observer = listeners.observer
        if listeners.store is None and observer is not None:
            # The tracker alone: called without anything in between.
            self._started = observer.started if observer.hears_starts else None
            self._ended = observer.ended
        else:
            self._started = listeners.started if listeners.hears_starts else None
            self._ended = listeners.ended if listeners.store or observer else None
        self.tells_starts = observer is not None and observer.hears_starts
        self.tells_tasks = listeners.hears_tasks

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        """Items are taken in at this stage."""
        self._book.admitted(len(envelopes))
        for envelope in envelopes:
            envelope.not_before = now
        if self._ended is not None:
            return self._listeners.admitted(self._stage, envelopes, now)
        return None

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """A worker begins with an item."""
        # `StageBook.started`, written out: this and `completed` are most of what a visit costs.
        if (waited := now - envelope.not_before) >= SHORTEST_WAIT:
            self._book.queue_waits.add(waited)
        worker.item = envelope
        worker.since = now
        if envelope.attempts:
            self._book.retrying -= 1
            if envelope.attempts == UNTRIED:
                envelope.attempts = 0
        envelope.attempts += 1
        if self._started is not None:
            return self._started(envelope, worker, now)
        return None

    def completed(self, envelope: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item is through this stage, and announced to the next if there is one."""
        # `StageBook.completed_by`, written out; a property test holds the two to the same.
        if worker.limited_calls:
            worker.forget_calls(now)
        began = worker.since
        seconds = now - began
        worker.item = None
        worker.completed += 1
        worker.busy += seconds
        worker.since = now
        if seconds >= SHORTEST_RUN:
            self._book.ran(worker, seconds)
        worker.held_up = 0.0
        if self._next_book is None:
            self._ledger.in_flight -= 1
        else:
            self._next_book.entered += 1
            envelope.not_before = now
        if self._ended is not None:
            return self._ended(Kind.COMPLETED, envelope, worker, began, now, None, value)
        return None

    def started_in_batch(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """A worker begins with an item, perhaps the second or third of a batch."""
        if (waited := now - envelope.not_before) >= SHORTEST_WAIT:
            self._book.queue_waits.add(waited)
        self._book.started(worker, envelope, now, again=envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0) + 1
        if self._started is not None:
            return self._started(envelope, worker, now)
        return None

    def completed_in_batch(
        self, envelope: Envelope, worker: WorkerBook, value: Any, now: float
    ) -> Wait:
        """`completed`, for a worker that may have more than one item."""
        began = worker.since
        self._book.completed_by(worker, envelope, now)
        envelope.not_before = now
        if self._ended is not None:
            return self._ended(Kind.COMPLETED, envelope, worker, began, now, None, value)
        return None

    def skipped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item passes this stage by."""
        self._book.skipped_one()
        envelope.not_before = now
        if self._ended is not None:
            return self._ended(Kind.SKIPPED, envelope, worker, None, now, None, None)
        return None

    def retrying(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, now: float
    ) -> Wait:
        """A try failed, and will be followed by another."""
        began = worker.since
        self._book.retrying_from(worker, envelope, now)
        envelope.not_before = now  # unless it is put off: see `RetryHeap`
        if self._ended is not None:
            return self._ended(Kind.RETRYING, envelope, worker, began, now, error, None)
        return None

    def failed(
        self, envelope: Envelope, worker: WorkerBook | None, error: Exception, now: float
    ) -> Wait:
        """An item failed for good, in a worker's hands or as it was taken in."""
        began = None if worker is None else worker.since
        self._book.failed_by(worker, envelope, now)
        self._failures.add(
            envelope.id,
            error,
            self._facts.stage_names[self._stage],
            envelope.attempts,
            self._facts.timestamp(now),
        )
        if self._ended is not None:
            return self._ended(Kind.FAILED, envelope, worker, began, now, error, None)
        return None

    def dropped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item ends here, well, without a result."""
        began = worker.since
        self._book.dropped_by(worker, envelope, now)
        if self._ended is not None:
            return self._ended(Kind.DROPPED, envelope, worker, began, now, None, None)
        return None

    def emitted(self, child: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item was made from the one a worker has, and is announced to the next stage."""
        self._book.emitted_one()
        child.not_before = now
        if self._ended is not None:
            return self._ended(Kind.EMITTED, child, worker, None, now, None, value)
        return None

    def expanded(self, envelope: Envelope, worker: WorkerBook, children: int, now: float) -> Wait:
        """An item ends here, because it became others."""
        began = worker.since
        self._book.expanded_by(worker, envelope, now)
        if self._ended is not None:
            return self._ended(Kind.EXPANDED, envelope, worker, began, now, None, children)
        return None

    def cancelled(
        self, envelope: Envelope, worker: WorkerBook | None, error: ItemCancelled, now: float
    ) -> Wait:
        """An item is given up. ``worker`` has it, or nobody."""
        holder = worker if worker is not None and worker.holds(envelope) else None
        began = None if holder is None else holder.since
        self._book.cancelled_from(holder, envelope, now, envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0)
        if self._ended is not None:
            return self._ended(Kind.CANCELLED, envelope, holder, began, now, error, None)
        return None

    def task(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        now: float,
        duration: float | None = None,
        error: Exception | None = None,
    ) -> Wait:
        """A try of the worker's current task started or ended."""
        observer = self._listeners.observer
        if observer is None or not observer.hears_tasks:
            return None
        return observer.task(kind, envelope, worker, worker.task or "", now, duration, error)
