"""What code that runs inside a run can ask for: the run, and the item in hand."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from antflow._core.checks import check_seconds
from antflow._core.envelope import Envelope
from antflow._core.ledger import WorkerBook
from antflow._core.text import safe_str

if TYPE_CHECKING:
    from antflow._engine.run import Run
    from antflow._engine.stage_run import StageRun

current_run: ContextVar[Run | None] = ContextVar("antflow_run", default=None)
"""The run this code belongs to: its tasks, its callbacks, its displays."""

current_seat: ContextVar[tuple[StageRun, WorkerBook] | None] = ContextVar(
    "antflow_seat", default=None
)
"""The stage and the worker this code runs in. Set once per worker, not once per item."""


def seat_here() -> tuple[StageRun, WorkerBook]:
    """The stage and the worker this code runs in, where it is known to run in one."""
    seat = current_seat.get()
    assert seat is not None
    return seat


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
        RuntimeError: If no task of a pipeline is running here, or it works on a batch.
    """
    items = _items_here("current_item()")
    if len(items) > 1:
        raise RuntimeError("current_item(): this task works on a batch; use current_batch()")
    return items[0]


def current_batch() -> list[CurrentItem]:
    """The items that the calling task works on, in the order of the values it was called with.

    Raises:
        RuntimeError: If no task of a pipeline is running here.
    """
    return _items_here("current_batch()")


def set_task_status(text: str, min_interval: float = 0.0) -> bool:
    """Say what the calling task does right now; dashboards show it beside the worker.

    Args:
        text: What it does. It is drawn as plain text, cut to the room there is.
        min_interval: Seconds since the last change in which it is not changed again: cheap enough
            for a tight loop.

    Returns:
        Whether it was taken: not when it came too soon, nor outside a task.

    Raises:
        ValueError: ``min_interval`` is not a finite number of seconds >= 0.
    """
    check_seconds(ValueError, "min_interval", min_interval)
    seat = current_seat.get()
    if seat is None or seat[1].item is None:
        return False
    stage, worker = seat
    now = stage.run.timers.now()
    key = worker.item.key
    if worker.status is not None:
        item, _, when = worker.status
        if item == key and now - when < min_interval:
            return False
    worker.status = (key, safe_str(text), now)
    return True


def _items_here(name: str) -> list[CurrentItem]:
    seat = current_seat.get()
    if seat is None or seat[1].item is None:
        raise RuntimeError(f"{name} works only inside a task of a running pipeline")
    stage, worker = seat
    return [_describe(stage, envelope) for envelope in worker.given or [worker.item]]


def _describe(stage: StageRun, envelope: Envelope) -> CurrentItem:
    run_id = stage.run.facts.run_id
    place = ".".join(map(str, (envelope.sequence_id, *envelope.branch)))
    text = "\0".join((run_id, place, stage.name, stage.description.version))
    key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return CurrentItem(envelope.id, envelope.attempts, stage.name, run_id, key)
