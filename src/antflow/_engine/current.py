"""What code that runs inside a run can ask for: the run, and the item in hand."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from antflow._core.ledger import WorkerBook

if TYPE_CHECKING:
    from antflow._engine.run import Run
    from antflow._engine.stage_run import StageRun

current_run: ContextVar[Run | None] = ContextVar("antflow_run", default=None)
"""The run this code belongs to: its tasks, its callbacks, its displays."""

current_seat: ContextVar[tuple[StageRun, WorkerBook] | None] = ContextVar(
    "antflow_seat", default=None
)
"""The stage and the worker this code runs in. Set once per worker, not once per item."""


@dataclass(frozen=True, slots=True)
class CurrentItem:
    """The item a task works on.

    Attributes:
        id: The item's id.
        attempt: Number of this try, from 1.
        stage: Name of the stage.
        run_id: The run.
        idempotency_key: 32 hexadecimal digits, the same on every try of this item in this stage of
            this run, and different for any other: for APIs that take an idempotency key.
    """

    id: Any
    attempt: int
    stage: str
    run_id: str
    idempotency_key: str


def current_item() -> CurrentItem:
    """The item that the calling task works on; also inside a plain function in its thread.

    Raises:
        RuntimeError: If no task of a pipeline is running here.
    """
    seat = current_seat.get()
    envelope = None if seat is None else seat[1].item
    if seat is None or envelope is None:
        raise RuntimeError("current_item() works only inside a task of a running pipeline")
    stage = seat[0]
    run_id = stage.run.facts.run_id
    parts = (run_id, str(envelope.sequence_id), stage.name, stage.description.version)
    text = "\0".join(parts)
    key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return CurrentItem(envelope.id, envelope.attempts, stage.name, run_id, key)
