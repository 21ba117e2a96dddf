"""One of the rarer steps of an item, as listeners are told of it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.ledger import WorkerBook
from antflow._core.transition import Kind


@dataclass(slots=True, eq=False)
class Step:
    """One step of one item, as the recorder hands it to its listeners.

    The steps of an ordinary visit, that it starts and that it completes, are told without one.

    It refers to the live envelope and the live books, so it is read during the call and not kept.

    Attributes:
        kind: What happened.
        envelope: The item, still as it was in the stage that it leaves.
        worker: The book of the worker that had it; ``None`` if none had.
        now: When it happened.
        began: When the worker began with it; ``None`` if it was not being worked on, and for
            STARTED.
        error: Why, for RETRYING, FAILED and CANCELLED.
        value: The stage's result, for COMPLETED; the item's value, for ADMITTED and EMITTED; the
            number of items it became, for EXPANDED.
    """

    kind: Kind
    envelope: Envelope
    worker: WorkerBook | None
    now: float
    _: KW_ONLY
    began: float | None = None
    error: Exception | None = None
    value: Any = None
