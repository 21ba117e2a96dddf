"""The two kinds of event a tracker delivers and keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from antflow._core.portable import Portable

StatusType = Literal["queued", "in_progress", "completed", "failed", "retrying", "skipped"]
"""The statuses an item can have, and only these."""

TaskEventType = Literal["start", "complete", "retry", "fail"]
"""The things that can happen to one try of one task."""

STATUSES: tuple[StatusType, ...] = get_args(StatusType)


@dataclass(slots=True, repr=False)
class StatusEvent(Portable):
    """An item's status changed.

    Attributes:
        item_id: The item's id.
        stage: Name of the stage it happened in.
        status: The new status. "completed" is per stage: the item may go on to the next one.
        worker: Name of the worker that had the item, ``"Fetch-W0"``; ``None`` when no worker has
            it.
        timestamp: When, in Unix seconds.
        metadata: ``{}``; for "failed" and "retrying" the keys ``"error"`` (its text),
            ``"error_type"`` (its class name) and ``"exception"`` (the object itself); "retrying"
            also has ``"attempt"`` (number of the next try) and ``"retry"`` (``True``). For
            "completed" ``"dropped"`` (``True``) or ``"expanded"`` (number of items it became) where
            the item ended so.
        run_id: The run it belongs to.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("item_id",)
    ERRORS: ClassVar[tuple[str, ...]] = ("metadata",)

    item_id: Any
    stage: str | None
    status: StatusType
    worker: str | None
    timestamp: float
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    run_id: str = ""

    @property
    def worker_id(self) -> int | None:
        """The worker's number within its stage, ``None`` when no worker has the item."""
        return None if self.worker is None else int(self.worker.rpartition("-W")[2])


@dataclass(slots=True, repr=False)
class TaskEvent(Portable):
    """One try of one task started or ended.

    Attributes:
        item_id: The item's id.
        stage: Name of the stage the task belongs to.
        task_name: The task's name.
        worker: Name of the worker that runs it, ``"Fetch-W0"``.
        event_type: "start"; "complete"; "retry" (failed, will be tried again); "fail" (failed for
            good).
        attempt: Number of this try, from 1.
        timestamp: When, in Unix seconds.
        error: What the task raised, for "retry" and "fail".
        duration: How long the try took, in seconds; ``None`` for "start".
        run_id: The run it belongs to.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("item_id",)
    ERRORS: ClassVar[tuple[str, ...]] = ("error",)

    item_id: Any
    stage: str
    task_name: str
    worker: str
    event_type: TaskEventType
    attempt: int
    timestamp: float
    error: Exception | None = None
    duration: float | None = None
    run_id: str = ""
