"""The one place where the state of an item changes.

A recorder always enters a change into the ledger. It also passes it on to the store, if there is
one, which may make the worker wait, and to listeners, if there are any, which cannot influence the
run. Every method returns ``None``, or something the worker must await before it goes on with the
item.

The worker loop has the two methods of an ordinary visit, `started` and `completed`, inlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antflow._core.durations import SHORTEST_WAIT
from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.events import TaskEventType
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger, StageBook, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step, TaskStep, new_step
from antflow._core.transition import Kind
from antflow._core.waits import Wait
from antflow._engine.contexts import apart
from antflow._engine.listeners import Listeners

COMPLETED = Kind.COMPLETED


class Recorder:
    """Records what happens in one stage.

    Args:
        stage: The stage's index.
        ledger: The run's books.
        failures: The run's failures.
        facts: What is known of the run.
        listeners: The store and the listeners.

    Attributes:
        book: The stage's book.
        on_started: Tells the listeners that a worker began with an item; ``None`` if none wants
            that.
        on_ended: Tells them that a visit ended; ``None`` if none wants that.
    """

    __slots__ = (
        "_facts",
        "_failures",
        "_listeners",
        "_stage",
        "_task",
        "book",
        "may_hold",
        "on_ended",
        "on_started",
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
        self.book: StageBook = ledger.stages[stage]
        self._failures = failures
        self._facts = facts
        self._listeners = listeners
        self.rewire()

    def rewire(self) -> None:
        """Find out again what listeners want. Without listeners, a step costs one comparison."""
        listeners = self._listeners
        self.on_started = listeners.started
        self.on_ended = listeners.ended
        self.may_hold = listeners.may_hold
        self._task = listeners.task
        self.tells_tasks = listeners.task is not None

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        """Items are taken in at this stage."""
        self.book.admitted(len(envelopes))
        for envelope in envelopes:
            envelope.not_before = now
        if self.on_ended is not None:
            return apart(self._listeners.admitted, envelopes, now)
        return None

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """A worker begins with an item, perhaps the second or third of a batch."""
        book = self.book
        if (waited := now - envelope.not_before) >= SHORTEST_WAIT:
            book.queue_waits.add(waited)
        book.started(worker, envelope, now, again=envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0) + 1
        if self.on_started is not None:
            return self.on_started(new_step(Kind.STARTED, envelope, worker, now))
        return None

    def completed(self, envelope: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item has completed this stage, and is entered in the next one's book, if any."""
        began = worker.since
        self.book.completed_by(worker, envelope, now)
        envelope.not_before = now
        return self.tell_completed(envelope, worker, value, began, now)

    def tell_completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        """Tell listeners that an item has completed this stage; the books have it already."""
        if self.on_ended is None:
            return None
        step = Step()  # `new_step`, inlined: with a tracker, each visit comes here
        step.kind = COMPLETED
        step.envelope = envelope
        step.worker = worker
        step.began = began
        step.now = now
        step.error = None
        step.value = value
        tell = self.on_ended
        return tell(step)

    def skipped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item skips this stage."""
        self.book.skipped_one()
        envelope.not_before = now
        if self.on_ended is not None:
            return self.on_ended(new_step(Kind.SKIPPED, envelope, worker, now))
        return None

    def retrying(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, now: float
    ) -> Wait:
        """A try failed, and another will follow."""
        began = worker.since
        self.book.retrying_from(worker, envelope, now)
        envelope.not_before = now  # unless it is put off: see `RetryHeap`
        if self.on_ended is not None:
            return self.on_ended(
                new_step(Kind.RETRYING, envelope, worker, now, began=began, error=error)
            )
        return None

    def failed(
        self, envelope: Envelope, worker: WorkerBook | None, error: Exception, now: float
    ) -> Wait:
        """An item failed for good, in a worker's hands or as it was taken in."""
        began = None if worker is None else worker.since
        self.book.failed_by(worker, envelope, now)
        self._failures.add(
            envelope.id,
            error,
            self._facts.stage_names[self._stage],
            envelope.attempts,
            self._facts.timestamp(now),
            envelope.input,
        )
        if self.on_ended is not None:
            return self.on_ended(
                new_step(Kind.FAILED, envelope, worker, now, began=began, error=error)
            )
        return None

    def dropped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item ends here successfully without a result."""
        began = worker.since
        self.book.dropped_by(worker, envelope, now)
        if self.on_ended is not None:
            return self.on_ended(new_step(Kind.DROPPED, envelope, worker, now, began=began))
        return None

    def emitted(self, child: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item was made from the worker's item, and is entered in the next stage's book."""
        self.book.emitted_one()
        child.not_before = now
        if self.on_ended is not None:
            return self.on_ended(new_step(Kind.EMITTED, child, worker, now, value=value))
        return None

    def expanded(self, envelope: Envelope, worker: WorkerBook, children: int, now: float) -> Wait:
        """An item ends here, because it became others."""
        began = worker.since
        self.book.expanded_by(worker, envelope, now)
        if self.on_ended is not None:
            return self.on_ended(
                new_step(Kind.EXPANDED, envelope, worker, now, began=began, value=children)
            )
        return None

    def cancelled(
        self, envelope: Envelope, worker: WorkerBook | None, error: ItemCancelled, now: float
    ) -> Wait:
        """An item is cancelled; ``worker`` is the worker that has it, if any."""
        holder = worker if worker is not None and worker.holds(envelope) else None
        began = None if holder is None else holder.since
        self.book.cancelled_from(holder, envelope, now, envelope.attempts != 0)
        envelope.attempts = max(envelope.attempts, 0)
        if self.on_ended is not None:
            return self.on_ended(
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
