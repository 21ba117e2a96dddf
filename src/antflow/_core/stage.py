"""A stage as the user describes it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import KW_ONLY, MISSING, FrozenInstanceError, dataclass, field, fields
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, Unpack, overload

from antflow._core.checks import (
    Check,
    check_flag,
    check_json,
    check_seconds,
    check_timeout,
    examine,
    or_none,
    refusal,
)
from antflow._core.error_kinds import ErrorKinds, check_stop_on
from antflow._core.errors import RetryAfter, StageValidationError
from antflow._core.executor_kind import RunnerKind
from antflow._core.failure_limit import FailureLimit, Failures, check_max_failures
from antflow._core.foreign import asked, attribute, is_a, is_plain, type_name
from antflow._core.hold_times import HoldTime
from antflow._core.limit import Limit
from antflow._core.misspellings import did_you_mean, explained
from antflow._core.places import USERS, function_name, origin_of
from antflow._core.retry import Errors, Retry, RetryPolicy, RetryWait, check_errors, check_wait
from antflow._core.stage_checks import (
    check_batch,
    check_call,
    check_calls,
    check_capacity,
    check_executor,
    check_failure_listener,
    check_give_up,
    check_hold_on,
    check_holds,
    check_limits,
    check_listener,
    check_name,
    check_policy,
    check_rate,
    check_resources,
    check_scope,
    check_skip_if,
    check_task_limits,
    check_tasks,
    check_tries,
    check_workers,
    is_async,
    is_generator,
    is_ordinary,
)
from antflow._core.text import clean, cut, safe_repr, safe_str
from antflow._core.type_variables import In, Out

if TYPE_CHECKING:
    from antflow._core import task_types as of
    from antflow._core.type_variables import A, B

TaskFunc = Callable[..., Any]
"""A task: ``async def f(value)``, or a plain function (which runs in a thread)."""

StageCallback = Callable[[Any, Any, dict[str, Any]], Any]
"""``(item_id, value or exception, payload)``; see `Stage`."""

LONGEST_OPTION = 200
"""Characters of an option's value in a description."""

ExecutorName = Literal["auto", "thread", "process", "inline"]
ResourceScope = Literal["worker", "stage", "run"]
HoldOn = Mapping[type[Exception], HoldTime | Callable[[Any], HoldTime | RetryAfter | None]]
"""Exception class → time to wait, or a function ``error -> time`` (``None``: no hold)."""

DEFAULT_CAPACITY_PER_WORKER = 10
SAID_BY_RETRY = (
    "task_attempts",
    "task_wait_seconds",
    "stage_attempts",
    "stage_wait_seconds",
    "retry_on",
    "give_up_on",
    "wait",
    "timeout",
)
"""Options for which a `Retry` has its own name."""


if TYPE_CHECKING:
    # Checkers work out In and Out from the tasks, in one overload of `Stage` for each shape of
    # them. Each takes the options by keyword, so they are listed here once more.

    class KeywordOptions(TypedDict, total=False):
        """Options of `Stage` by keyword only, which do not change its results."""

        stage_wait_seconds: float
        limits: Sequence[Limit]
        hold_on: HoldOn
        max_holds: int
        timeout: float | None
        retry_on: Errors
        give_up_on: Errors
        wait: RetryWait | None
        executor: ExecutorName | str | Executor | RunnerKind
        batch_wait: float | None
        resource_scope: ResourceScope
        max_failures: FailureLimit | None
        stop_on: ErrorKinds
        version: Any
        isolate_context: bool

    class Options(KeywordOptions, total=False):
        """And those that may be given by position too."""

        retry: Literal["per_task", "per_stage"] | str | Retry
        task_attempts: int
        task_wait_seconds: float
        stage_attempts: int
        task_concurrency_limits: Mapping[str, int]
        on_success: StageCallback | None
        on_failure: StageCallback | None
        on_skip: StageCallback | None
        queue_capacity: int | None
        pull: bool
        call_concurrency: int | None
        call_rate: float | None
        call_rate_period: float

    class StageOptions(Options, total=False):
        """And the one that changes what tasks are called with."""

        resources: of.ResourceFactories

    class OtherOptions(KeywordOptions, total=False):
        """All options by keyword only."""

        resources: of.ResourceFactories
        batch: int | None
        expand: bool


def option(check: Check, default: Any = MISSING, *, factory: Any = MISSING) -> Any:
    """A field of `Stage`: its default, and the check of its value."""
    return field(default=default, default_factory=factory, metadata={"check": check})


@dataclass(frozen=True)
class Stage(Generic[In, Out]):
    """A named step of a pipeline: tasks run one after the other on each item, by a pool of workers.

    Making a stage checks no values, `Pipeline` does (`validate`); it raises `TypeError` for an
    unknown option.

    Attributes:
        name: Unique in its pipeline; 1 to 100 characters, no control characters.
        workers: How many items (or batches) the stage works on at the same time, 1 to 100,000.
        tasks: One or more callables taking the value and returning the next one. Those that are not
            ``async`` run in the `executor`; awaitables they return are awaited.
        retry: What is tried again after a failure: ``"per_task"`` the failed task alone,
            ``"per_stage"`` the stage from its first task with the value that entered it. A `Retry`
            has all options about tries of the failed task in one value.
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
        stage_wait_seconds: Pause between tries under "per_stage", in seconds. Only there.
        limits: `Limit` objects acquired around every attempt; they may be shared with other stages
            and pipelines.
        hold_on: Exception class → time to hold, in any form that `RetryAfter` takes, or a function
            of the error that returns one, a `RetryAfter`, or ``None`` for no hold. Such an error
            counts as `RetryAfter`: no try of this stage, or of stages that share its `limits`,
            begins before then, and no attempt is used up.
        max_holds: How often one item may be held (`RetryAfter`) before a hold counts as a failure.
        timeout: Seconds for one try of one task; then it fails with `TimeoutError`. Time in which a
            source blocks the event loop does not count.
        retry_on: Exception classes after which another try is worth it. In an exception group, one
            such error is enough.
        give_up_on: Exception classes after which it is not; overrides `retry_on`, and in a group
            the hold that another error asks for.
        wait: Pause before the next try: seconds, or ``attempt -> seconds`` like `backoff`. Instead
            of `task_wait_seconds` and `stage_wait_seconds`.
        executor: Where plain functions run: in a thread ("thread", "auto"), in a process
            ("process"), on the event loop ("inline", which must not block), or in your own
            `concurrent.futures.Executor`; or where all tasks run, ``async`` ones too: on a cluster
            (``"dask://host:8786"``, `antflow.runners.DaskRunner`). For a process, everything must
            be picklable: the plain functions (defined at the top of a module), their arguments and
            their return values, which are never generators. `resources` are entered in the
            process: they need ``resource_scope="worker"``, and no ``async`` task next to them.
        batch: Call the tasks with a list of up to this many values; they return a list of as many
            answers, in the same order: a value, `Drop`, or an exception for an item that failed. If
            a task raises, all have failed; on the last try each item is tried alone, so that none
            takes another down (with ``task_attempts=1`` right away, which makes two calls).
        batch_wait: Seconds a batch waits to be filled, counted from its first item; ``None`` = it
            takes what is ready.
        expand: The last task returns an iterable or async iterable, or is a generator: each of its
            values goes on as a separate item.
        resources: Name → function that makes an async or sync context manager. It is entered before
            first use, its value is passed to every task by that keyword, and it is left at the end.
        resource_scope: What shares an entered resource: each "worker" has its own, or all workers
            of the "stage" or of the "run" share one (all stages that name the same function).
        max_failures: Failed items of this stage at which the run stops, as with that of `run`: a
            count (int), a share of those settled here (float, above 0 and up to 1, from 20 on), or
            a `Failures` for either of them among the last items.
        stop_on: Errors of this stage at which the run stops, as with that of `run`: exception
            classes, or their names.
        version: Any JSON value that names the stage's code, like a model and its prompt. Part of
            `current_item().idempotency_key`.
        isolate_context: Each try begins with the context variables that the caller of `run` had.
            Only later tasks of the same try and the item's callbacks see what a task sets.
            ``False``: later items of the same worker see it too.

    The callbacks may be sync or async (an async one for up to 30 s) and can change no outcome.
    ``payload`` is a dict with the keys ``"id"``, ``"value"``, ``"_sequence_id"`` and the item's
    metadata.
    """

    name: str = option(check_name)
    workers: int = option(check_workers)
    tasks: Sequence[TaskFunc] = option(check_tasks)
    retry: Literal["per_task", "per_stage"] | str | Retry = option(check_policy, "per_task")
    task_attempts: int = option(check_tries, 3)
    task_wait_seconds: float = option(check_seconds, 1.0)
    stage_attempts: int = option(check_tries, 3)
    unpack_args: bool = option(check_flag, False)
    task_concurrency_limits: Mapping[str, int] = option(check_task_limits, factory=dict[str, int])
    on_success: StageCallback | None = option(check_listener, None)
    on_failure: StageCallback | None = option(check_failure_listener, None)
    on_skip: StageCallback | None = option(check_listener, None)
    skip_if: Callable[[Any], bool | Awaitable[bool]] | None = option(check_skip_if, None)
    queue_capacity: int | None = option(check_capacity, None)
    pull: bool = option(check_flag, False)
    call_concurrency: int | None = option(check_calls, None)
    call_rate: float | None = option(or_none(check_rate), None)
    call_rate_period: float = option(check_rate, 60.0)
    _: KW_ONLY
    stage_wait_seconds: float = option(check_seconds, 0.0)
    limits: Sequence[Limit] = option(check_limits, ())
    hold_on: HoldOn = option(check_hold_on, factory=dict[type[Exception], HoldTime])
    max_holds: int = option(check_holds, 20)
    timeout: float | None = option(check_timeout, None)
    retry_on: Errors = option(check_errors, Exception)
    give_up_on: Errors = option(check_give_up, ())
    wait: RetryWait | None = option(or_none(check_wait), None)
    executor: ExecutorName | str | Executor | RunnerKind = option(check_executor, "auto")
    batch: int | None = option(check_batch, None)
    batch_wait: float | None = option(or_none(check_seconds), None)
    expand: bool = option(check_flag, False)
    resources: Mapping[str, Callable[..., Any]] = option(
        check_resources, factory=dict[str, Callable[..., Any]]
    )
    resource_scope: ResourceScope = option(check_scope, "run")
    max_failures: FailureLimit | None = option(check_max_failures, None)
    stop_on: ErrorKinds = option(check_stop_on, ())
    version: Any = option(check_json, "")
    isolate_context: bool = option(check_flag, True)

    if TYPE_CHECKING:  # In and Out are worked out from the tasks: see task_types

        @overload
        def __init__(
            self: Stage[Any, Any],
            name: str,
            workers: int,
            tasks: of.UnknownTasks | list[of.UnknownTask],
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
            tasks: of.DroppingTasks[A, B] | of.TasksEndingAsync[A, B],
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
            tasks: of.DroppingPlainTasks[A, B] | of.TasksEndingPlain[A, B],
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
            tasks: list[of.BatchTask[A, B]],
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
            **options: Unpack[OtherOptions],
        ) -> None: ...

        def __init__(self, *args: Any, **options: Any) -> None: ...

    def validate(self) -> None:
        """Check every option.

        Raises:
            StageValidationError: Naming the stage, the option, its value and what is allowed.
        """
        for name, value, check in _given(self):
            self._examine(name, check, self._refuse, name, value)
        for index, task in enumerate(self.tasks):
            if self.resources or not is_ordinary(task):
                name, is_last = f"tasks[{index}]", index == len(self.tasks) - 1
                label = f"{name}={safe_repr(task)}"
                self._examine(label, self._check_task, name, task, is_last)
        self._examine("an option", self._check_together)

    def _examine(self, name: str, check: Callable[..., None], *args: Any) -> None:
        examine(self._refuse, name, check, *args, passes=(StageValidationError,))

    def _check_task(self, name: str, task: TaskFunc, is_last: bool) -> None:
        if is_generator(task) and not (self.expand and is_last):
            allowed = "is a generator function: it must return one value, or be the last task"
            raise refusal(self._refuse, name, task, f"{allowed} of a stage with expand=True")
        if not self.unpack_args:
            check_call(self._refuse, name, task, self.resources)

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        names = [task_name(task) for task in self.tasks]
        for name in self.task_concurrency_limits:
            if name not in names:
                label = f"task_concurrency_limits[{safe_repr(name)}]"
                known = f"the tasks are {', '.join(names)}{did_you_mean(name, names)}"
                raise self._refuse(f"{label}: unknown task; {known}")
        if isinstance(self.retry, Retry):
            for each in fields(self):
                if each.name in SAID_BY_RETRY and getattr(self, each.name) != each.default:
                    raise self._refuse(f"{each.name}: say it in retry=Retry(...), not in both")
        if self.pull and self.retry == "per_stage":
            raise self._refuse("pull=True: not together with retry='per_stage'")
        if self.batch is None and self.batch_wait is not None:
            allowed = "has no meaning without batch"
            raise refusal(self._refuse, "batch_wait", self.batch_wait, allowed)
        if self.stage_wait_seconds and self.retry != "per_stage":
            allowed = "has no meaning without retry='per_stage'; see task_wait_seconds, or wait"
            raise refusal(self._refuse, "stage_wait_seconds", self.stage_wait_seconds, allowed)
        for name in ("expand", "unpack_args"):
            if self.batch is not None and getattr(self, name):
                raise self._refuse(f"batch={self.batch}: not together with {name}=True")

    def _refuse(self, message: str) -> StageValidationError:
        return StageValidationError(f"Stage {clean(safe_repr(self.name))}: {message}")


_CHECKS: Sequence[tuple[str, Check, Any]] = [
    (each.name, each.metadata["check"], each.default) for each in fields(Stage)
]
"""Each option's name, check and default."""


def _given(stage: Stage) -> Iterator[tuple[str, Any, Check]]:
    """The name, value and check of each option that does not have its default.

    Most have, and a default need be neither checked nor copied.
    """
    for name, check, default in _CHECKS:
        if (value := getattr(stage, name)) is not default:
            yield name, value, check


def _assign(stage: Stage, name: str, value: object) -> None:
    if name in Stage.__dataclass_fields__:
        raise _cannot_change(name)
    if type(stage) is Stage and not name.startswith("__"):  # typing sets __orig_class__
        meant = did_you_mean(name, Stage.__dataclass_fields__)
        raise FrozenInstanceError(f"Stage has no attribute {name!r}{meant}")
    object.__setattr__(stage, name, value)  # a subclass may have its own attributes


def _delete(stage: Stage, name: str) -> None:
    if name in Stage.__dataclass_fields__:
        raise _cannot_change(name)
    object.__delattr__(stage, name)


def _cannot_change(name: str) -> FrozenInstanceError:
    ways = f"dataclasses.replace(stage, {name}=...) makes another stage"
    if name == "workers":
        ways = "pipeline.with_workers(...) makes a pipeline with other numbers of workers, "
        ways += "run.set_workers(...) changes them during a run"
    return FrozenInstanceError(f"Stage.{name} cannot be assigned: {ways}")


if not TYPE_CHECKING:
    Stage.__init__ = explained(Stage.__init__)
    Stage.__setattr__ = _assign
    Stage.__delattr__ = _delete


def task_name(task: TaskFunc) -> str:
    """The name a task is shown under: its function's name, or its class's."""
    while isinstance(task, partial):
        task = task.func
    name = attribute(task, "__name__")
    return str.__str__(name) if is_a(name, str) else type_name(task)


def task_title(task: TaskFunc) -> str:
    """A task for people: ``fetch``, ``partial of fetch``; ``json.loads`` if it is not their own."""
    if isinstance(task, partial):
        return f"partial of {task_title(task.func)}"
    code = attribute(task, "__code__")
    if is_a(code, CodeType) and origin_of(code.co_filename) in USERS:
        return function_name(code.co_qualname)
    named: Any = task if is_a(attribute(task, "__qualname__"), str) else type(task)
    name, module = attribute(named, "__qualname__"), attribute(named, "__module__")
    title = function_name(str.__str__(name)) if is_a(name, str) else type_name(task)
    is_told = is_a(module, str) and module not in ("builtins", "__main__")
    return f"{module}.{title}" if is_told else title


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


def idle_options(stage: Stage) -> Iterator[str]:
    """Options of a stage that have no effect, because of another option.

    These are no errors, as programs choose ``retry`` and set the options of both kinds. So if both
    are set, that is meant.
    """
    options = {each.name: each for each in fields(stage)}

    def is_given(name: str) -> bool:
        return asked(lambda: bool(getattr(stage, name) != options[name].default), instead=True)

    def told(name: str, why: str) -> str:
        return f"{name}={safe_repr(getattr(stage, name))} has no effect {why}"

    if not isinstance(stage.retry, Retry):
        own, other = ("stage", "task") if stage.retry == "per_stage" else ("task", "stage")
        if is_given(f"{other}_attempts") and not is_given(f"{own}_attempts"):
            why = f"with retry={stage.retry!r}: its number of tries is {own}_attempts"
            yield told(f"{other}_attempts", why)
        waits = is_given("stage_wait_seconds") or stage.wait is not None
        if own == "stage" and is_given("task_wait_seconds") and not waits:
            why = "with retry='per_stage': its pause is stage_wait_seconds, or wait"
            yield told("task_wait_seconds", why)
    if is_given("call_rate_period") and stage.call_rate is None:
        yield told("call_rate_period", "without call_rate")
    if is_given("queue_capacity") and stage.pull:
        yield told("queue_capacity", "with pull=True: nothing waits before the stage")
    if is_given("resource_scope") and not stage.resources:
        yield told("resource_scope", "without resources")
    is_here = isinstance(stage.executor, Executor) or stage.executor in ("thread", "process")
    if is_here and all(map(is_async, stage.tasks)):
        yield told("executor", "where every task is async: those run on the event loop")


def described(stage: Stage) -> dict[str, str]:
    """Name of an option → its value as text, for those that do not have their default."""
    texts = {name: _option_text(value) for name, value, _ in _given(stage) if name != "name"}
    return {name: text for name, text in texts.items() if text}


def _option_text(value: Any) -> str:
    kind = type(value)
    if kind is tuple or kind is list:
        text = ", ".join([_option_text(each) for each in value])
    elif kind is dict:
        text = ", ".join([f"{_option_text(key)}: {_option_text(value[key])}" for key in value])
    elif kind is str:
        text = value
    elif isinstance(value, RunnerKind):
        text = safe_str(value)
    elif is_plain(value) or kind is Limit or kind is Retry or kind is Failures:
        text = repr(value)
    else:
        name = attribute(value, "__name__")
        text = name if type(name) is str else f"<{type_name(value)}>"
    return cut(text, LONGEST_OPTION)


def changed(stage: Stage, **options: Any) -> Stage:
    """A copy with other options, of the same class: a subclass may be made in another way."""
    copied = copy.copy(stage)
    for name, value in options.items():
        object.__setattr__(copied, name, value)
    return copied


def frozen_copy(stage: Stage) -> Stage:
    """A copy that later changes to the lists and dicts of the stage do not reach.

    Its numbers are plain ones. The stage was checked before.
    """
    options: dict[str, Any] = {}
    for name, given, check in _given(stage):
        value = given
        if not is_plain(given) and (plain := check(stage._refuse, name, given)) is not None:
            options[name] = value = plain
        if is_a(value, Mapping):
            options[name] = dict(value)
        elif is_a(value, Sequence) and not is_a(value, str):
            options[name] = tuple(value)
    return changed(stage, **options)
