"""One step of an item, and of a task, as listeners are told of them."""

from __future__ import annotations

from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.ledger import WorkerBook
from antflow._core.transition import Kind


class Step:
    """One step of one item, as the recorder hands it to its listeners.

    It refers to the live envelope and the live books, so it is read during the call and not kept.

    Attributes:
        kind: What happened.
        envelope: The item, still as it was in the stage that it leaves.
        worker: The book of the worker that had it; ``None`` if none had.
        began: When the worker began with it; ``None`` if it was not being worked on, and for
            STARTED.
        now: When it happened.
        error: Why, for RETRYING, FAILED and CANCELLED.
        value: The stage's result, for COMPLETED; the item's value, for ADMITTED and EMITTED; the
            number of items it became, for EXPANDED.
    """

    # Made with `new_step`: without an `__init__`, one costs half as much.
    __slots__ = ("began", "envelope", "error", "kind", "now", "value", "worker")

    kind: Kind
    envelope: Envelope
    worker: WorkerBook | None
    began: float | None
    now: float
    error: Exception | None
    value: Any


def new_step(
    kind: Kind,
    envelope: Envelope,
    worker: WorkerBook | None,
    now: float,
    *,
    began: float | None = None,
    error: Exception | None = None,
    value: Any = None,
) -> Step:
    """A step."""
    step = Step()
    step.kind = kind
    step.envelope = envelope
    step.worker = worker
    step.began = began
    step.now = now
    step.error = error
    step.value = value
    return step


class TaskStep:
    """One try of one task started or ended.

    Attributes:
        kind: "start", "complete", "retry" or "fail".
        envelope: The item; in a batch, there is one step for each.
        worker: The book of the worker that tries it.
        name: The task's name.
        now: When.
        duration: Seconds the try took; ``None`` for "start".
        error: Why, for "retry" and "fail".
    """

    __slots__ = ("duration", "envelope", "error", "kind", "name", "now", "worker")

    kind: TaskEventType
    envelope: Envelope
    worker: WorkerBook
    name: str
    now: float
    duration: float | None
    error: Exception | None

    def __init__(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        name: str,
        now: float,
        duration: float | None = None,
        error: Exception | None = None,
    ) -> None:
        self.kind = kind
        self.envelope = envelope
        self.worker = worker
        self.name = name
        self.now = now
        self.duration = duration
        self.error = error
