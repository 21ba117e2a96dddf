"""Tells a tracker's callbacks of steps: one teller for each kind, made when a callback is set.

Everything that is known before the first event is looked up then. Tellers make the events of common
steps in the cheapest way; for the others they use `status_events`, as the history does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

from antflow._core.cancellation import request_counter
from antflow._core.envelope import NEVER_HELD, Envelope
from antflow._core.events import StatusEvent, TaskEvent, TaskEventType
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Caller, TellTask
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step
from antflow._core.transition import Kind
from antflow._core.waits import Wait, discard
from antflow._monitor.history import NO_WORKER, RunHistory, status_events

blank = object.__new__  # the events of an ordinary visit are filled in: a call costs 70 ns more


class StatusTeller:
    """Keeps the history, and tells ``on_status_change`` of each change of an item's status.

    Args:
        facts: The run.
        history: Its history. It always comes first, so that a callback finds its own event there.
        quiet: Indices of the stages where a retry changes no status.
        call: Calls the callback; what it returns is awaited at once. See `Guard.caller`.
        call_unawaited: Calls it where perhaps nothing will await what it returns.
    """

    def __init__(
        self,
        facts: RunFacts,
        history: RunHistory,
        quiet: frozenset[int],
        call: Caller,
        call_unawaited: Callable[[StatusEvent], Wait],
    ) -> None:
        self._facts = facts
        self._run_id = facts.run_id
        self._stages = facts.stage_names
        self._last = len(facts.stage_names) - 1
        self._wall, self._mono = facts.started_wall, facts.started_mono
        self._history = history
        self._keep_completed = history.completed
        self._quiet = quiet
        self._call = call
        self._call_unawaited = call_unawaited

    def entering(self, envelope: Envelope) -> Wait:
        """An item that was taken in is about to be put into its stage's channel."""
        at = self._wall + (envelope.not_before - self._mono)  # since then it waits
        stage = self._stages[envelope.position]
        return self._call(
            StatusEvent(envelope.id, stage, "queued", None, at, {}, self._run_id), request_counter()
        )

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        """A worker began with an item."""
        stage = worker.stage
        # An item that was never tried cannot be in progress, so most need no look-up.
        is_again = envelope.attempts > 1 or envelope.holds is not NEVER_HELD
        if is_again and stage in self._quiet and self._history.is_in_progress(envelope):
            return None  # it has been in progress since its first try
        event: StatusEvent = blank(StatusEvent)
        event.item_id = envelope.id
        event.stage = self._stages[stage]
        event.status = "in_progress"
        event.worker = worker.name
        event.timestamp = self._wall + (now - self._mono)  # `RunFacts.timestamp`, inlined
        event.metadata = {}
        event.run_id = self._run_id
        return self._call(event, worker.cancel_requests)

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        """An item has completed a stage."""
        self._keep_completed(envelope, worker, value, began, now)
        # From here on `status_events`, inlined; a test checks that both give the same events.
        stage = worker.stage
        item_id, at = envelope.id, self._wall + (now - self._mono)
        name, requests = worker.name, worker.cancel_requests
        event: StatusEvent = blank(StatusEvent)
        event.item_id = item_id
        event.stage = self._stages[stage]
        event.status = "completed"
        event.worker = name
        event.timestamp = at
        event.metadata = {}
        event.run_id = self._run_id
        wait = self._call(event, requests)
        if stage == self._last:
            return wait
        queued: StatusEvent = blank(StatusEvent)
        queued.item_id = item_id
        queued.stage = self._stages[stage + 1]
        queued.status = "queued"
        queued.worker = None
        queued.timestamp = at
        queued.metadata = {}
        queued.run_id = self._run_id
        if wait is None:
            return self._call(queued, requests)
        return _Rest(self, wait, [queued], requests)

    def ended(self, step: Step) -> Wait:
        """A visit ended in another way, or an item was made from another."""
        self._history.ended(step)
        kind, envelope, worker = step.kind, step.envelope, step.worker
        events = status_events(
            self._facts,
            kind,
            envelope.id,
            envelope.position,
            NO_WORKER if worker is None else worker.index,
            step.now,
            step.error,
            step.value if kind is Kind.EXPANDED else envelope.attempts,
            quiet=envelope.position in self._quiet,
        )
        if kind is Kind.CANCELLED:
            [event] = events
            return self._call_unawaited(event)
        return self.tell(events, request_counter() if worker is None else worker.cancel_requests)

    def tell(self, events: Sequence[StatusEvent], requests: Callable[[], int]) -> Wait:
        """Call the callback for each event, in order; wait only if a call needs it."""
        for position, event in enumerate(events):
            if (wait := self._call(event, requests)) is not None:
                rest = events[position + 1 :]
                return _Rest(self, wait, rest, requests) if rest else wait
        return None

    def tell_unawaited(self, events: Sequence[StatusEvent]) -> None:
        """Call the callback for each event, without waiting."""
        for event in events:
            discard(self._call_unawaited(event))


def task_teller(facts: RunFacts, kind: TaskEventType, call: Caller) -> TellTask:
    """Tells a task callback.

    Args:
        facts: The run.
        kind: What the callback is told of.
        call: Calls it.
    """
    stages, run_id = facts.stage_names, facts.run_id
    wall, mono = facts.started_wall, facts.started_mono

    def tell(
        envelope: Envelope,
        worker: WorkerBook,
        now: float,
        duration: float | None,
        error: Exception | None,
    ) -> Wait:
        event: TaskEvent = blank(TaskEvent)
        event.item_id = envelope.id
        event.stage = stages[worker.stage]
        event.task_name = worker.task or ""
        event.worker = worker.name
        event.event_type = kind
        event.attempt = envelope.attempts
        event.timestamp = wall + (now - mono)  # `RunFacts.timestamp`, inlined
        event.error = error
        event.duration = duration
        event.run_id = run_id
        return call(event, worker.cancel_requests)

    return tell


class _Rest:
    """Waits for one event's callback, then tells the events that come after it."""

    def __init__(
        self,
        teller: StatusTeller,
        wait: Awaitable[None],
        rest: Sequence[StatusEvent],
        requests: Callable[[], int],
    ) -> None:
        self._teller = teller
        self._wait = wait
        self._rest = rest
        self._requests = requests

    def __await__(self) -> Generator[None, None, None]:
        try:
            yield from self._wait.__await__()
        except BaseException:
            self._teller.tell_unawaited(self._rest)
            raise
        following = self._teller.tell(self._rest, self._requests)
        if following is not None:
            yield from following.__await__()

    def close(self) -> None:
        discard(self._wait)
        self._teller.tell_unawaited(self._rest)
