"""A stage as the user describes it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Unpack, overload

from antflow._core.checks import examine
from antflow._core.errors import RetryAfter, StageValidationError
from antflow._core.foreign import attribute, is_a, type_name
from antflow._core.hold_times import HoldTime
from antflow._core.limit import Limit
from antflow._core.options import named_fields
from antflow._core.retry import Errors, Retry, RetryPolicy, RetryWait
from antflow._core.text import clean, safe_repr
from antflow._core.type_variables import In, Out

if TYPE_CHECKING:
    from antflow._core import task_types as of
    from antflow._core.task_types import StageOptions
    from antflow._core.type_variables import A, B

TaskFunc = Callable[..., Any]
"""A task: ``async def f(value)``, or a plain function (which runs in a thread)."""

StageCallback = Callable[[Any, Any, dict[str, Any]], Any]
"""``(item_id, value or exception, payload)``; see `Stage`."""

ExecutorName = Literal["auto", "thread", "process", "inline"]
ResourceScope = Literal["worker", "stage", "run"]
HoldOn = Mapping[type[Exception], HoldTime | Callable[[Any], HoldTime | RetryAfter | None]]
"""Exception class → time to wait, or a function ``error -> time`` (``None``: no hold)."""

DEFAULT_CAPACITY_PER_WORKER = 10


@named_fields
@dataclass(slots=True)
class Stage(Generic[In, Out]):
    """A named step of a pipeline: tasks run one after the other on each item, by a pool of workers.

    Making a stage checks no values, `Pipeline` does (`validate`); it raises `TypeError` for an
    option that there is not.

    Attributes:
        name: Unique in its pipeline; 1 to 100 characters, no control characters.
        workers: How many items (or batches) the stage works on at the same time, 1 to 100 000.
        tasks: One or more callables taking the value and returning the next one. What is not
            ``async`` runs in the `executor`; what returns an awaitable is awaited.
        retry: What is tried again after a failure: ``"per_task"`` the failed task alone,
            ``"per_stage"`` the stage from its first task with the value that entered it. A `Retry`
            says all about tries of the failed task in one value.
        task_attempts: Tries per task under "per_task", at least 1.
        task_wait_seconds: Pause between them, in seconds.
        stage_attempts: Tries per item under "per_stage", at least 1.
        unpack_args: Call every task with ``**value`` if the value is a dict, ``*value`` if it is a
            list or tuple.
        task_concurrency_limits: Task name → how many calls of it may run at the same time.
        on_success: Called ``(item_id, new value, payload)`` when an item is through.
        on_failure: Called ``(item_id, exception, payload)`` when an item has failed for good.
        on_skip: Called ``(item_id, value, payload)`` when an item passes by.
        skip_if: ``value -> bool``, sync or async: when true, the item passes this stage unchanged.
            If it raises, the item fails.
        queue_capacity: Items that may wait before this stage; ``None`` = 10 per worker, 0 =
            unbounded. When it is full, the stage before waits (backpressure).
        pull: Nothing waits before this stage: an item is handed over only to a worker that has
            nothing to do. Not for the first stage, not with "per_stage".
        call_concurrency: How many calls may be inside ``async with concurrency_limit():`` at once.
        call_rate: How many times per `call_rate_period` ``async with rate_limit():`` is entered.
        call_rate_period: In seconds.
        stage_wait_seconds: Pause between tries under "per_stage", in seconds.
        limits: `Limit` objects acquired around every attempt; they may be shared with other stages
            and pipelines.
        hold_on: Exception class → time to hold, in any form that `RetryAfter` takes, or a function
            of the error that returns one, a `RetryAfter`, or ``None`` for no hold. Such an error
            counts as `RetryAfter`: no try of this stage, or of stages that share its `limits`,
            begins before then, and no attempt is used up.
        max_holds: How often one item may be held (`RetryAfter`) before that counts as a failure.
        timeout: Seconds for one try of one task; then it fails with `TimeoutError`. Time in which a
            source blocks the event loop does not count.
        retry_on: Exception classes after which another try is worth it. In an exception group, one
            such error is enough.
        give_up_on: Exception classes after which it is not; stronger than `retry_on`. In a group,
            also stronger than the hold that another error asks for.
        wait: Pause before the next try: seconds, or ``attempt -> seconds`` like `backoff`. Instead
            of `task_wait_seconds` and `stage_wait_seconds`.
        executor: Where plain functions run: in a thread ("thread", "auto"), in a process
            ("process"), on the event loop ("inline", which must not block), or in a
            `concurrent.futures.Executor` of your own. For a process all must be picklable: the
            plain functions (defined at the top of a module), what they take and what they return,
            which is never a generator. `resources` are entered in the process: they need
            ``resource_scope="worker"``, and no ``async`` task beside them.
        batch: Call the tasks with a list of up to so many values; they return a list of as many
            answers, in that order: a value, `Drop`, or an exception for an item that failed. If a
            task raises, all have failed; on the last try each item is tried alone, so that one
            takes no other down (with ``task_attempts=1`` right away, which makes two calls).
        batch_wait: Seconds a batch waits to be filled, counted from its first item; ``None`` = it
            takes what is there.
        expand: The last task returns an iterable or async iterable, or is a generator: each of its
            values goes on as an item of its own.
        resources: Name → function that makes an async or sync context manager. It is entered before
            first use, its value is passed to every task by that keyword, and it is left at the end.
        resource_scope: Who shares what was entered: each "worker" has its own, or all of the
            "stage", or of the "run" (all stages that name the same function).
        max_failures: Failed items of this stage at which the run stops taking items in: a count
            (int), or a share of those settled here (float, above 0 and up to 1, from 20 on).
        version: A label of the stage's code. Part of `current_item().idempotency_key`.
        isolate_context: Each try begins with the context variables that the caller of `run` had.
            Only later tasks of the same try and the item's callbacks see what a task sets.
            ``False``: later items of the same worker see it too.

    The callbacks may be sync or async (an async one for up to 30 s) and can change no outcome.
    ``payload`` is a dict with the keys ``"id"``, ``"value"``, ``"_sequence_id"`` and the item's
    metadata.
    """

    name: str
    workers: int
    tasks: Sequence[TaskFunc]
    retry: Literal["per_task", "per_stage"] | str | Retry = "per_task"
    task_attempts: int = 3
    task_wait_seconds: float = 1.0
    stage_attempts: int = 3
    unpack_args: bool = False
    task_concurrency_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    on_success: StageCallback | None = None
    on_failure: StageCallback | None = None
    on_skip: StageCallback | None = None
    skip_if: Callable[[Any], bool | Awaitable[bool]] | None = None
    queue_capacity: int | None = None
    pull: bool = False
    call_concurrency: int | None = None
    call_rate: float | None = None
    call_rate_period: float = 60.0
    _: KW_ONLY
    stage_wait_seconds: float = 0.0
    limits: Sequence[Limit] = ()
    hold_on: HoldOn = field(default_factory=dict[type[Exception], HoldTime])
    max_holds: int = 20
    timeout: float | None = None
    retry_on: Errors = Exception
    give_up_on: Errors = ()
    wait: RetryWait | None = None
    executor: ExecutorName | Executor = "auto"
    batch: int | None = None
    batch_wait: float | None = None
    expand: bool = False
    resources: Mapping[str, Callable[..., Any]] = field(
        default_factory=dict[str, Callable[..., Any]]
    )
    resource_scope: ResourceScope = "run"
    max_failures: float | None = None
    version: str = ""
    isolate_context: bool = True

    if TYPE_CHECKING:  # In and Out are worked out from the tasks: see task_types

        @overload
        def __init__(
            self: Stage[Any, Any],
            name: str,
            workers: int,
            tasks: of.UnknownTasks,
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[Any, Any],
            name: str,
            workers: int,
            tasks: list[of.UnknownTask],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.CoroutineTasks[A, B] | tuple[of.AsyncTaskWith[A, B]],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.AsyncTasks[A, B],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.DroppingTasks[A, B],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[Any, Any],
            name: str,
            workers: int,
            tasks: Sequence[of.AsyncTaskWith[Any, Any]],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.PlainTasks[A, B] | tuple[of.PlainTaskWith[A, B]],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.DroppingPlainTasks[A, B],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.TasksEndingAsync[A, B],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: of.TasksEndingPlain[A, B],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: list[of.ExpandingTask[A, B]],
            *,
            expand: Literal[True],
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: list[of.AsyncBatchTask[A, B]],
            *,
            batch: int,
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[A, B],
            name: str,
            workers: int,
            tasks: list[of.PlainBatchTask[A, B]],
            *,
            batch: int,
            **options: Unpack[StageOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Stage[Any, Any],
            name: str,
            workers: int,
            tasks: Sequence[TaskFunc],
            retry: str | Retry = "per_task",
            task_attempts: int = 3,
            task_wait_seconds: float = 1.0,
            stage_attempts: int = 3,
            unpack_args: bool = False,
            task_concurrency_limits: Mapping[str, int] = ...,
            on_success: StageCallback | None = None,
            on_failure: StageCallback | None = None,
            on_skip: StageCallback | None = None,
            skip_if: of.SkipIf | None = None,
            queue_capacity: int | None = None,
            pull: bool = False,
            call_concurrency: int | None = None,
            call_rate: float | None = None,
            call_rate_period: float = 60.0,
            *,
            stage_wait_seconds: float = 0.0,
            limits: Sequence[Limit] = (),
            hold_on: HoldOn = ...,
            max_holds: int = 20,
            timeout: float | None = None,
            retry_on: Errors = Exception,
            give_up_on: Errors = (),
            wait: RetryWait | None = None,
            executor: ExecutorName | Executor = "auto",
            batch: int | None = None,
            batch_wait: float | None = None,
            expand: bool = False,
            resources: Mapping[str, Callable[..., Any]] = ...,
            resource_scope: ResourceScope = "run",
            max_failures: float | None = None,
            version: str = "",
            isolate_context: bool = True,
        ) -> None: ...

        def __init__(self, *args: Any, **options: Any) -> None: ...

    def validate(self) -> None:
        """Check every option.

        Raises:
            StageValidationError: Naming the stage, the option, its value and what is allowed.
        """
        # Here and not above: the checks know the stage.
        from antflow._core.stage_checks import check_stage

        check = partial(check_stage, self, self._refuse)
        examine(self._refuse, "an option", check, passes=(StageValidationError,))

    def _refuse(self, message: str) -> StageValidationError:
        return StageValidationError(f"Stage {clean(safe_repr(self.name))}: {message}")


def task_name(task: TaskFunc) -> str:
    """The name a task is shown under: its function's name, or its class's."""
    while isinstance(task, partial):
        task = task.func
    name = attribute(task, "__name__")
    return str.__str__(name) if is_a(name, str) else type_name(task)


def capacity(stage: Stage) -> int | None:
    """Items that may wait before a stage; ``None`` = unbounded."""
    if stage.pull:
        return 0
    if stage.queue_capacity is None:
        return stage.workers * DEFAULT_CAPACITY_PER_WORKER
    return stage.queue_capacity or None


def lowest_concurrency(stage: Stage) -> int | None:
    """How many tries, or calls in them, the tightest limit of a stage lets in; ``None`` = all."""
    limits = [limit.concurrency for limit in stage.limits]
    limits += [stage.call_concurrency, *stage.task_concurrency_limits.values()]
    return min((most for most in limits if most is not None), default=None)


def most_retries_waiting(stage: Stage) -> int:
    """Items that may wait for their next try before workers take nothing new."""
    return capacity(stage) or stage.workers * DEFAULT_CAPACITY_PER_WORKER


def attempt_timeout(stage: Stage) -> float | None:
    """Seconds for one try of one task."""
    return stage.retry.timeout if isinstance(stage.retry, Retry) else stage.timeout


def retry_policy(stage: Stage) -> RetryPolicy:
    """A stage's options about retries, as one value."""
    if isinstance(stage.retry, Retry):
        retry = stage.retry
        return RetryPolicy(retry.attempts, retry.wait, False, retry.on, retry.give_up)
    whole_stage = stage.retry == "per_stage"
    attempts = stage.stage_attempts if whole_stage else stage.task_attempts
    wait: RetryWait = stage.stage_wait_seconds if whole_stage else stage.task_wait_seconds
    if stage.wait is not None:
        wait = stage.wait
    return RetryPolicy(attempts, wait, whole_stage, stage.retry_on, stage.give_up_on)


def frozen_copy(stage: Stage) -> Stage:
    """A copy that later changes to the stage, or to its lists and dicts, do not reach."""
    stage = copy.copy(stage)
    stage.tasks = tuple(stage.tasks)
    stage.limits = tuple(stage.limits)
    stage.resources = dict(stage.resources)
    stage.hold_on = dict(stage.hold_on)
    stage.task_concurrency_limits = dict(stage.task_concurrency_limits)
    return stage
