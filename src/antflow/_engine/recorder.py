"""The one door: every change of an item's state goes through here.

A recorder enters the change into the ledger, always, and hands it on only if there are listeners:
to the store, which may hold the worker back, and to listeners, which have no power. Every method
returns ``None``, or something the worker must await before it goes on with the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT
from antflow._core.envelope import UNTRIED, Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.events import TaskEventType
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step, TaskStep, new_step
from antflow._core.transition import Kind
from antflow._core.waits import Wait
from antflow._engine.listeners import Listeners

COMPLETED = Kind.COMPLETED


class Recorder:
    """Records what happens in one stage.

    Args:
        stage: The stage's index.
        ledger: The run's books.
        failures: The run's failures.
        facts: The run.
        listeners: The store and the listeners.
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
        "_task",
        "may_hold",
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
        self.rewire()

    def rewire(self) -> None:
        """Find out again what listeners want. Without any, a step costs one comparison."""
        listeners = self._listeners
        self._started = listeners.started
        self._ended = listeners.ended
        self.may_hold = listeners.may_hold
        self._task = listeners.task
        self.tells_tasks = listeners.task is not None

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        """Items are taken in at this stage."""
        self._book.admitted(len(envelopes))
        for envelope in envelopes:
            envelope.not_before = now
        if self._ended is not None:
            return self._listeners.admitted(envelopes, now)
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
            return self._started(new_step(Kind.STARTED, envelope, worker, now))
        return None

    def completed(self, envelope: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item is through this stage, and entered in the next one's books if there is one."""
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
            step = Step()  # from here on `new_step`, written out
            step.kind = COMPLETED
            step.envelope = envelope
            step.worker = worker
            step.began = began
            step.now = now
            step.error = None
            step.value = value
            return self._ended(step)
        return None

    def started_in_batch(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """A worker begins with an item, perhaps the second or third of a batch."""
        if (waited := now - envelope.not_before) >= SHORTEST_WAIT:
            self._book.queue_waits.add(waited)
        self._book.started(worker, envelope, now, again=envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0) + 1
        if self._started is not None:
            return self._started(new_step(Kind.STARTED, envelope, worker, now))
        return None

    def completed_in_batch(
        self, envelope: Envelope, worker: WorkerBook, value: Any, now: float
    ) -> Wait:
        """`completed`, for a worker that may have more than one item."""
        began = worker.since
        self._book.completed_by(worker, envelope, now)
        envelope.not_before = now
        if self._ended is not None:
            return self._ended(
                new_step(Kind.COMPLETED, envelope, worker, now, began=began, value=value)
            )
        return None

    def skipped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item passes this stage by."""
        self._book.skipped_one()
        envelope.not_before = now
        if self._ended is not None:
            return self._ended(new_step(Kind.SKIPPED, envelope, worker, now))
        return None

    def retrying(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, now: float
    ) -> Wait:
        """A try failed, and another will follow."""
        began = worker.since
        self._book.retrying_from(worker, envelope, now)
        envelope.not_before = now  # unless it is put off: see `RetryHeap`
        if self._ended is not None:
            return self._ended(
                new_step(Kind.RETRYING, envelope, worker, now, began=began, error=error)
            )
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
            return self._ended(
                new_step(Kind.FAILED, envelope, worker, now, began=began, error=error)
            )
        return None

    def dropped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item ends here successfully without a result."""
        began = worker.since
        self._book.dropped_by(worker, envelope, now)
        if self._ended is not None:
            return self._ended(new_step(Kind.DROPPED, envelope, worker, now, began=began))
        return None

    def emitted(self, child: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item was made from the one a worker has, and entered in the next stage's books."""
        self._book.emitted_one()
        child.not_before = now
        if self._ended is not None:
            return self._ended(new_step(Kind.EMITTED, child, worker, now, value=value))
        return None

    def expanded(self, envelope: Envelope, worker: WorkerBook, children: int, now: float) -> Wait:
        """An item ends here, because it became others."""
        began = worker.since
        self._book.expanded_by(worker, envelope, now)
        if self._ended is not None:
            return self._ended(
                new_step(Kind.EXPANDED, envelope, worker, now, began=began, value=children)
            )
        return None

    def cancelled(
        self, envelope: Envelope, worker: WorkerBook | None, error: ItemCancelled, now: float
    ) -> Wait:
        """An item is given up; ``worker`` has it, if any does."""
        holder = worker if worker is not None and worker.holds(envelope) else None
        began = None if holder is None else holder.since
        self._book.cancelled_from(holder, envelope, now, envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0)
        if self._ended is not None:
            return self._ended(
                new_step(Kind.CANCELLED, envelope, holder, now, began=began, error=error)
            )
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
        if self._task is None:
            return None
        name = worker.task or ""
        return self._task(TaskStep(kind, envelope, worker, name, now, duration, error))
