"""A stage as the user describes it."""

from __future__ import annotations

import copy
import inspect
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

from antflow._core.checks import (
    check_callback,
    check_count,
    check_flag,
    check_seconds,
    refusal,
)
from antflow._core.errors import StageValidationError
from antflow._core.retry import RetryPolicy
from antflow._core.text import clean, safe_repr

TaskFunc = Callable[..., Any]
"""A task: ``async def f(value)``, or a plain function (which runs in a thread)."""

StageCallback = Callable[[Any, Any, dict[str, Any]], Any]
"""``(item_id, value or exception, payload)``; see `Stage`."""

MOST_WORKERS = 100_000
LONGEST_NAME = 100
DEFAULT_CAPACITY_PER_WORKER = 10


@dataclass(slots=True)
class Stage:
    """A named step of a pipeline: tasks run one after the other on each item, by a pool of workers.

    Making a stage never raises; `Pipeline` calls `validate`.

    Attributes:
        name: Unique in its pipeline; 1 to 100 characters, no control characters.
        workers: How many items the stage works on at the same time, 1 to 100 000.
        tasks: One or more callables taking the value and returning the next one. What is not
            ``async`` runs in a thread; what returns an awaitable is awaited.
        retry: What is tried again after a failure: ``"per_task"`` the failed task alone,
            ``"per_stage"`` the stage from its first task with the value that entered it.
        task_attempts: Tries per task under "per_task", at least 1.
        task_wait_seconds: Pause between them, in seconds.
        stage_attempts: Tries per item under "per_stage", at least 1.
        unpack_args: Call every task with ``**value`` if the value is a dict, ``*value`` if it is a
            list or tuple.
        on_success: Called ``(item_id, new value, payload)`` when an item is through.
        on_failure: Called ``(item_id, exception, payload)`` when an item has failed for good.
        on_skip: Called ``(item_id, value, payload)`` when an item passes by.
        skip_if: ``value -> bool``, sync or async: when true, the item passes this stage unchanged.
            If it raises, the item fails.
        queue_capacity: Items that may wait before this stage; ``None`` = 10 per worker, 0 =
            unbounded. When it is full, the stage before waits (backpressure).
        stage_wait_seconds: Pause between tries under "per_stage", in seconds.
        version: A label of the stage's code. Part of `current_item().idempotency_key`.

    The callbacks may be sync or async (an async one for up to 30 s) and can change no outcome.
    ``payload`` is a dict with the keys ``"id"``, ``"value"``, ``"_sequence_id"`` and the item's
    metadata.
    """

    name: str
    workers: int
    tasks: Sequence[TaskFunc]
    retry: Literal["per_task", "per_stage"] | str = "per_task"
    task_attempts: int = 3
    task_wait_seconds: float = 1.0
    stage_attempts: int = 3
    unpack_args: bool = False
    _: KW_ONLY
    on_success: StageCallback | None = None
    on_failure: StageCallback | None = None
    on_skip: StageCallback | None = None
    skip_if: Callable[[Any], bool | Awaitable[bool]] | None = None
    queue_capacity: int | None = None
    stage_wait_seconds: float = 0.0
    version: str = ""

    def validate(self) -> None:
        """Check every option.

        Raises:
            StageValidationError: Naming the stage, the option, its value and what is allowed.
        """
        self._check_name()
        refuse = self._refuse
        check_count(
            refuse,
            "workers",
            self.workers,
            1,
            f"a stage must have at least 1 worker and at most {MOST_WORKERS:,} (a whole number)",
            MOST_WORKERS,
        )
        self._check_tasks()
        if not isinstance(self.retry, str) or self.retry not in ("per_task", "per_stage"):
            raise refuse(
                f"Invalid retry policy: retry={safe_repr(self.retry)}: "
                "must be 'per_task' or 'per_stage'"
            )
        for name in ("task_attempts", "stage_attempts"):
            check_count(
                refuse, name, getattr(self, name), 1, "must be a whole number of tries >= 1"
            )
        check_seconds(refuse, "task_wait_seconds", self.task_wait_seconds)
        check_seconds(refuse, "stage_wait_seconds", self.stage_wait_seconds)
        check_flag(refuse, "unpack_args", self.unpack_args)
        for name in ("on_success", "on_failure", "on_skip", "skip_if"):
            check_callback(refuse, name, getattr(self, name))
        if self.queue_capacity is not None:
            allowed = "must be a whole number >= 0 (0 = unbounded), or None for 10 per worker"
            check_count(refuse, "queue_capacity", self.queue_capacity, 0, allowed)
        if not isinstance(self.version, str):
            raise refusal(refuse, "version", self.version, "must be a string")

    def _refuse(self, message: str) -> StageValidationError:
        return StageValidationError(f"Stage {clean(safe_repr(self.name))}: {message}")

    def _check_name(self) -> None:
        name: object = self.name
        fits = (
            isinstance(name, str)
            and 1 <= len(name) <= LONGEST_NAME
            and not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
        )
        if not fits:
            allowed = f"must be a string of 1 to {LONGEST_NAME} characters, no control characters"
            raise refusal(self._refuse, "name", name, allowed)

    def _check_tasks(self) -> None:
        tasks: object = self.tasks
        if callable(tasks):
            raise refusal(self._refuse, "tasks", tasks, "must be a list: write tasks=[function]")
        if not isinstance(tasks, Sequence) or isinstance(tasks, (str, bytes)):
            raise refusal(self._refuse, "tasks", tasks, "must be a list of functions")
        if not tasks:
            raise self._refuse("tasks: a stage must have at least one task")
        for index, task in enumerate(tasks):
            name = f"tasks[{index}]"
            if inspect.iscoroutine(task):
                task.close()
                raise refusal(
                    self._refuse, name, task, "is a coroutine: write function, not function()"
                )
            if not callable(task):
                raise refusal(self._refuse, name, task, "must be a function")
            function = task.func if isinstance(task, partial) else task
            if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
                raise refusal(
                    self._refuse, name, task, "is a generator function: it must return one value"
                )


def task_name(task: TaskFunc) -> str:
    """The name a task is shown under: its function's name, or its class's."""
    while isinstance(task, partial):
        task = task.func
    name = getattr(task, "__name__", None)
    return name if isinstance(name, str) else type(task).__name__


def capacity(stage: Stage) -> int | None:
    """Items that may wait before a stage; ``None`` = unbounded."""
    if stage.queue_capacity is None:
        return stage.workers * DEFAULT_CAPACITY_PER_WORKER
    return stage.queue_capacity or None


def retry_policy(stage: Stage) -> RetryPolicy:
    """A stage's options about retries, as one value."""
    if stage.retry == "per_stage":
        return RetryPolicy(stage.stage_attempts, stage.stage_wait_seconds, whole_stage=True)
    return RetryPolicy(stage.task_attempts, stage.task_wait_seconds, whole_stage=False)


def frozen_copy(stage: Stage) -> Stage:
    """A copy that later changes to the stage, or to its list of tasks, do not reach."""
    stage = copy.copy(stage)
    stage.tasks = tuple(stage.tasks)
    return stage
