"""The fluent form: a pipeline put together stage by stage, each checked as it is added."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, Unpack, cast, overload

from antflow._core.brief import Brief
from antflow._core.checks import Refuse, check_count
from antflow._core.errors import StageValidationError
from antflow._core.misspellings import likely_meant
from antflow._core.ports import AnyDashboard
from antflow._core.result import PipelineResult, RunResults
from antflow._core.retry import Retry
from antflow._core.shared_options import shares
from antflow._core.stage import Stage, TaskFunc, task_name
from antflow._core.stage_checks import LONGEST_NAME
from antflow._core.text import clean, safe_repr
from antflow._core.type_variables import Out, Taken
from antflow._monitor.tracker import StatusTracker
from antflow._pipeline_options import (
    DashboardName,
    OnFailures,
    PipelineOptions,
    Retried,
    RunOptions,
)
from antflow._pipeline_runs import stages_text
from antflow.pipeline import Pipeline

if TYPE_CHECKING:
    from antflow._core import task_types as of
    from antflow._core.stage import Options
    from antflow._core.type_variables import A, B

    class AddOptions(Options, total=False):
        """Options of `PipelineBuilder.add` in addition to those of `Stage`."""

        workers: int
        retries: int
        retry_policy: Literal["per_task", "per_stage"] | str
        attempts: int | None

    class AddOptionsWith(AddOptions, total=False):
        """The same for tasks that may take resources."""

        resources: of.ResourceFactories


__all__ = ["PipelineBuilder"]

DEFAULT_TRIES = 3
TWICE = "two names for one option: give only one"


class PipelineBuilder(Brief, Generic[Taken, Out]):
    """Puts a pipeline together; made by `Pipeline.create`.

    Each method changes this builder and returns it. `build` may be called at any time and as often
    as you like: stages added later do not reach pipelines built before.

    Example:
        ```python
        async def fetch(url: str) -> bytes: ...


        async def count_words(page: bytes) -> int: ...


        pipeline = (
            Pipeline.create()
            .add("Fetch", fetch, workers=10, retries=5, timeout=20)
            .add("Count", count_words)
            .build()
        )
        ```
    """

    def __init__(self) -> None:
        self._options: PipelineOptions = {}
        self._stages: list[Stage] = []

    def _said(self) -> str:
        return f": {stages_text(self._stages) or 'no stages'}"

    @overload
    def add(
        self, name: str, task: of.AsyncTask[Out, B], /, **options: Unpack[AddOptions]
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self, name: str, task: of.PlainTask[Out, B], /, **options: Unpack[AddOptions]
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.AsyncTaskWith[Out, B],
        /,
        *,
        resources: of.ResourceFactories,
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.PlainTaskWith[Out, B],
        /,
        *,
        resources: of.ResourceFactories,
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        first: of.PlainTaskWith[Out, Any],
        last: of.AsyncTaskWith[Any, B],
        /,
        **options: Unpack[AddOptionsWith],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        first: of.PlainTaskWith[Out, Any],
        last: of.PlainTaskWith[Any, B],
        /,
        **options: Unpack[AddOptionsWith],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        first: of.PlainTaskWith[Out, Any],
        second: TaskFunc,
        third: TaskFunc,
        /,
        *more: TaskFunc,
        **options: Unpack[AddOptionsWith],
    ) -> PipelineBuilder[Taken, Any]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.AsyncTask[Out, B],
        /,
        *,
        skip_if: of.SkipIf,
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, Out | B]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.PlainTask[Out, B],
        /,
        *,
        skip_if: of.SkipIf,
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, Out | B]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.ExpandingTask[Out, B],
        /,
        *,
        expand: Literal[True],
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self,
        name: str,
        task: of.BatchTask[Out, B],
        /,
        *,
        batch: int,
        **options: Unpack[AddOptions],
    ) -> PipelineBuilder[Taken, B]: ...

    @overload
    def add(
        self, name: str, *tasks: TaskFunc, unpack_args: bool, **options: Unpack[AddOptionsWith]
    ) -> PipelineBuilder[Taken, Any]: ...

    def add(
        self,
        name: str,
        *tasks: TaskFunc,
        workers: int = 5,
        retries: int = DEFAULT_TRIES,
        retry_policy: Literal["per_task", "per_stage"] | str = "per_task",
        attempts: int | None = None,
        **options: Any,
    ) -> Any:
        """Add a stage after the existing ones.

        Args:
            name: The stage's name.
            *tasks: Its tasks, one or more.
            workers: How many items it works on at the same time.
            retries: Tries, the first one included, 1 or more.
            retry_policy: What is tried again: "per_task" the failed task alone, "per_stage" the
                stage from its first task.
            attempts: Another name for ``retries``, which says what it counts.
            **options: All other options of `Stage`, by keyword.

        Returns:
            This builder.

        Raises:
            TypeError: There is no such option.
            StageValidationError: An option is not allowed, or one was given twice.
            PipelineError: A stage of that name exists already, or it cannot stand here.
        """

        def refuse(message: str) -> StageValidationError:
            return StageValidationError(f"Stage {clean(safe_repr(name))}: {message}")

        _check_names(options)
        _add_retries(options, refuse, retries, retry_policy, attempts)
        stages = [*self._stages, Stage(name, workers, tasks, **options)]
        self._stages = Pipeline(stages).stages
        return self

    def with_tracker(self, tracker: StatusTracker | None) -> Self:
        """Let a tracker follow every run; ``None``: no tracker.

        Raises:
            TypeError: It is not a `StatusTracker`.
        """
        return self.with_options(status_tracker=tracker)

    def collect_results(self, enabled: bool = True) -> Self:
        """Keep results for `run` and `Pipeline.results`, or only count them.

        Raises:
            TypeError: It is neither ``True`` nor ``False``.
        """
        return self.with_options(collect_results=enabled)

    def with_options(self, **options: Unpack[PipelineOptions]) -> Self:
        """Set options of `Pipeline`, like ``name`` and ``duplicates``; what was set before stays.

        Raises:
            TypeError: There is no such option, or the value has the wrong type.
            ValueError: It is not allowed.
        """
        Pipeline([Stage("any", 1, [str])], **options)  # refuse here what build() would refuse
        self._options = {**self._options, **options}
        return self

    def build(self) -> Pipeline[Taken, Out]:
        """The pipeline of the stages added so far.

        Raises:
            PipelineError: No stage was added.
        """
        return Pipeline(self._stages, **self._options)

    @shares(RunOptions)
    async def run(
        self,
        items: of.ItemsOf[Taken],
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        custom_dashboard: AnyDashboard | None = None,
        dashboard_update_interval: float = 0.5,
        *,
        retry_failed: Iterable[PipelineResult[Any]] | Retried = (),
        keys: bool = False,
        graceful_signals: float | None = None,
        on_failures: OnFailures = "warn",
        **options: Unpack[RunOptions],
    ) -> RunResults[Out]:
        """Build the pipeline and run it: `Pipeline.run`, with all its options."""
        return await self.build().run(
            items,
            progress,
            dashboard,
            custom_dashboard,
            dashboard_update_interval,
            retry_failed=retry_failed,
            keys=keys,
            graceful_signals=graceful_signals,
            on_failures=on_failures,
            **options,
        )


if TYPE_CHECKING:

    class EmptyBuilder(PipelineBuilder[Any, Any]):
        """A builder without a stage: the pipeline will take what its first stage takes."""

        @overload  # type: ignore[override]
        def add(
            self, name: str, task: of.AnyTask, /, **options: Unpack[AddOptions]
        ) -> PipelineBuilder[Any, Any]: ...

        @overload
        def add(
            self, name: str, task: of.AsyncTask[A, B], /, **options: Unpack[AddOptions]
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self, name: str, task: of.PlainTask[A, B], /, **options: Unpack[AddOptions]
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.AsyncTaskWith[A, B],
            /,
            *,
            resources: of.ResourceFactories,
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.PlainTaskWith[A, B],
            /,
            *,
            resources: of.ResourceFactories,
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            first: of.PlainTaskWith[A, Any],
            last: of.AsyncTaskWith[Any, B],
            /,
            **options: Unpack[AddOptionsWith],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            first: of.PlainTaskWith[A, Any],
            last: of.PlainTaskWith[Any, B],
            /,
            **options: Unpack[AddOptionsWith],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            first: of.PlainTaskWith[A, Any],
            second: TaskFunc,
            third: TaskFunc,
            /,
            *more: TaskFunc,
            **options: Unpack[AddOptionsWith],
        ) -> PipelineBuilder[A, Any]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.AsyncTask[A, B],
            /,
            *,
            skip_if: of.SkipIf,
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, A | B]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.PlainTask[A, B],
            /,
            *,
            skip_if: of.SkipIf,
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, A | B]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.ExpandingTask[A, B],
            /,
            *,
            expand: Literal[True],
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self,
            name: str,
            task: of.BatchTask[A, B],
            /,
            *,
            batch: int,
            **options: Unpack[AddOptions],
        ) -> PipelineBuilder[A, B]: ...

        @overload
        def add(
            self, name: str, *tasks: TaskFunc, unpack_args: bool, **options: Unpack[AddOptionsWith]
        ) -> PipelineBuilder[Any, Any]: ...

        def add(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, *args: Any, **options: Any
        ) -> Any: ...


def begin() -> EmptyBuilder:
    """A builder without a stage; see `Pipeline.create`."""
    builder: PipelineBuilder = PipelineBuilder()
    return cast("EmptyBuilder", builder)


def one_stage_each(
    tasks: TaskFunc | Sequence[TaskFunc], **options: Unpack[AddOptions]
) -> PipelineBuilder:
    """A builder with one stage per task; see `Pipeline.quick`."""
    is_list = isinstance(tasks, Sequence) and not isinstance(tasks, (str, bytes, bytearray))
    is_list = is_list and not callable(tasks)
    builder: PipelineBuilder = PipelineBuilder()
    names: set[str] = set()
    for task in cast("Sequence[TaskFunc]", tasks if is_list else [tasks]):
        names.add(name := _stage_name(task, names))
        builder.add(name, task, **options)
    return builder


def _stage_name(task: TaskFunc, taken: set[str]) -> str:
    words = [word for word in re.split(r"[\W_]+", task_name(task)) if word]
    name = "".join(word[0].upper() + word[1:] for word in words) or "Task"
    name = numbered = name[: LONGEST_NAME - 10]
    count = 1
    while numbered in taken:
        count += 1
        numbered = f"{name}{count}"
    return numbered


def _check_names(options: dict[str, Any]) -> None:
    names = [field.name for field in fields(Stage) if field.name != "tasks"]
    for name in options:
        if name not in names:
            meant = likely_meant(name, [*names, "retries", "retry_policy", "attempts"])
            given = f"add({name}={safe_repr(options[name])})"
            raise TypeError(f"{given}: there is no such option{meant}")


def _add_retries(
    options: dict[str, Any], refuse: Refuse, retries: int, policy: str, attempts: int | None
) -> None:
    """Translate the builder's retry options to those of a stage."""
    if attempts is not None and retries != DEFAULT_TRIES:
        raise refuse(f"retries={retries!r}, attempts={attempts!r}: {TWICE}")
    name, tries = ("retries", retries) if attempts is None else ("attempts", attempts)
    tries = check_count(refuse, name, tries, 1, "must be a whole number of tries >= 1")
    if "retry" in options and not (isinstance(policy, str) and policy == "per_task"):
        raise refuse(f"retry_policy={policy!r}, retry={safe_repr(options['retry'])}: {TWICE}")
    if isinstance(policy, Retry):  # would be right as retry=
        raise refuse(
            f"Invalid retry policy: retry_policy={safe_repr(policy)}: "
            "must be one of 'per_task', 'per_stage'; a Retry is given as retry=Retry(...)"
        )
    retry = options.setdefault("retry", policy)
    whole = isinstance(retry, str) and retry == "per_stage"
    own_name = "stage_attempts" if whole else "task_attempts"
    if isinstance(retry, Retry) or own_name in options:
        if attempts is not None or retries != DEFAULT_TRIES:
            place = "retry=Retry(...)" if isinstance(retry, Retry) else own_name
            raise refuse(f"{name}={tries}: say it in {place}, not in both")
    else:
        options[own_name] = tries
