"""The one place where the state of an item changes.

A recorder always enters a change into the ledger. It also passes it on to the store, if there is
one, which may make the worker wait, and to listeners, if there are any, which cannot influence the
run. Every method returns ``None``, or something the worker must await before it goes on with the
item.

The worker loop has the two methods of an ordinary visit, `started` and `completed`, inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from antflow._core.durations import SHORTEST_WAIT
from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger, StageBook, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step
from antflow._core.text import error_type_name
from antflow._core.transition import Kind
from antflow._core.waits import Wait, both
from antflow._engine.contexts import apart
from antflow._engine.listeners import Listeners


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
        on_entering: Tells the listeners that an item that was taken in is about to be put; ``None``
            if none may make it wait.
        on_started: Tells the listeners that a worker began with an item; ``None`` if none wants
            that.
        on_completed: Tells them that an item has completed the stage; likewise.
        on_ended: Tells them that a visit ended in another way; likewise.
        on_tasks: Tell them of tries of tasks; only the kinds that one wants.
    """

    __slots__ = (
        "_facts",
        "_failures",
        "_listeners",
        "_stage",
        "book",
        "on_completed",
        "on_ended",
        "on_entering",
        "on_started",
        "on_tasks",
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
        self.on_completed = listeners.completed
        self.on_ended = listeners.ended
        self.on_tasks = listeners.tasks
        self.on_entering = listeners.entering

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        """Items are taken in at this stage."""
        self.book.admitted(len(envelopes))
        for envelope in envelopes:
            envelope.not_before = envelope.entered = now
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
            return self.on_started(envelope, worker, now)
        return None

    def completed(self, envelope: Envelope, worker: WorkerBook, value: Any, now: float) -> Wait:
        """An item has completed this stage, and is entered in the next one's book, if any."""
        began = worker.since
        self.book.completed_by(worker, envelope, now)
        envelope.not_before = now
        if self.on_completed is not None:
            return self.on_completed(envelope, worker, value, began, now)
        return None

    def skipped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item skips this stage."""
        self.book.skipped_one()
        envelope.not_before = now
        if self.on_ended is not None:
            return self.on_ended(Step(Kind.SKIPPED, envelope, worker, now, value=envelope.value))
        return None

    def retrying(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, now: float
    ) -> Wait:
        """A try failed, and another will follow."""
        began = worker.since
        self.book.retrying_from(worker, envelope, now)
        self.book.failed_with(error_type_name(error), again=True)
        envelope.not_before = now  # unless it is put off: see `RetryHeap`
        if self.on_ended is not None:
            return self.on_ended(
                Step(Kind.RETRYING, envelope, worker, now, began=began, error=error)
            )
        return None

    def failed(
        self,
        envelope: Envelope,
        worker: WorkerBook | None,
        error: Exception,
        now: float,
        on_booked: Callable[[Envelope, Exception], None] | None = None,
    ) -> Wait:
        """An item failed for good, in a worker's hands or as it was taken in.

        ``on_booked(envelope, error)`` is called when the books have it, before it is passed on.
        """
        began = None if worker is None else worker.since
        self.book.failed_by(worker, envelope, now)
        failure = self._failures.add(
            envelope.id,
            error,
            self._facts.stage_names[self._stage],
            envelope.attempts,
            self._facts.timestamp(now),
            envelope.input,
        )
        self.book.failed_with(failure.error_type, again=False)
        if on_booked is not None:
            on_booked(envelope, error)
        if self.on_ended is not None:
            return self.on_ended(Step(Kind.FAILED, envelope, worker, now, began=began, error=error))
        return None

    def dropped(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """An item ends here successfully without a result."""
        began = worker.since
        self.book.dropped_by(worker, envelope, now)
        if self.on_ended is not None:
            return self.on_ended(Step(Kind.DROPPED, envelope, worker, now, began=began))
        return None

    def emitted(self, children: Sequence[Envelope], worker: WorkerBook, now: float) -> Wait:
        """Items were made from the worker's item, and are entered in the next stage's book."""
        self.book.emitted_some(len(children))
        for child in children:
            child.not_before = child.entered = now
        wait: Wait = None
        if (tell := self.on_ended) is not None:
            for child in children:
                step = Step(Kind.EMITTED, child, worker, now, value=child.value)
                wait = both(wait, tell(step))
        return wait

    def expanded(self, envelope: Envelope, worker: WorkerBook, children: int, now: float) -> Wait:
        """An item ends here, because it became others."""
        began = worker.since
        self.book.expanded_by(worker, envelope, now)
        if self.on_ended is not None:
            return self.on_ended(
                Step(Kind.EXPANDED, envelope, worker, now, began=began, value=children)
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
                Step(Kind.CANCELLED, envelope, holder, now, began=began, error=error)
            )
        return None
