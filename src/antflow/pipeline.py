"""Pipelines: stages assembled, and run.

A `Pipeline` is a description and can be run again, several times at once and in other event loops:
each run has its own state. This module puts the parts together: engine, tracker, displays.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import nullcontext
from copy import copy
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Self,
    TypeVar,
    Unpack,
    get_args,
    overload,
)
from weakref import ref

from antflow._core.checks import (
    check_choice,
    check_count,
    check_flag,
    check_seconds,
    class_hint,
    examine,
    refusal,
)
from antflow._core.envelope import DEFAULT_PRIORITY
from antflow._core.error_kinds import ErrorKinds
from antflow._core.errors import PipelineError
from antflow._core.failure_limit import FailureLimit, Failures
from antflow._core.failures import stay_failed
from antflow._core.foreign import attribute, is_a
from antflow._core.items import Items, Key, check_items, expected_count
from antflow._core.limit import Limit, LimitStatistics
from antflow._core.log import alert
from antflow._core.misspellings import explained
from antflow._core.observers import AnyObserver
from antflow._core.ports import AnyDashboard, Memory, Store
from antflow._core.result import PipelineResult, RunResults
from antflow._core.retry import Retry, backoff
from antflow._core.run_errors import TooManyFailures
from antflow._core.shared_options import check_options, shares
from antflow._core.sink_counts import counts_of
from antflow._core.snapshot import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    WorkerMetrics,
    WorkerState,
)
from antflow._core.stage import (
    DEFAULT_CAPACITY_PER_WORKER,
    Stage,
    capacity,
    changed,
)
from antflow._core.stage_checks import stage_index
from antflow._core.type_variables import Out, Taken
from antflow._engine.clock import has_own_time
from antflow._engine.contexts import around
from antflow._engine.engine import Engine
from antflow._engine.identity import Duplicates
from antflow._engine.reorder import Deliver
from antflow._engine.result_stream import Outcomes, ResultStream
from antflow._engine.run import Run
from antflow._engine.run_handle import RunHandle, attach_results
from antflow._engine.signals import check_main_thread, graceful, interrupts_apart
from antflow._monitor.outlook import Outlook
from antflow._monitor.poller import Poller
from antflow._monitor.prober import Prober
from antflow._monitor.public_steps import Observers
from antflow._monitor.tracker import StatusTracker
from antflow._pipeline_options import (
    DashboardName,
    JournalFile,
    OnFailures,
    OtherOptions,
    PipelineOptions,
    Retried,
    RunOptions,
    check_files,
    check_journal,
    check_on_failures,
    checked_observers,
    checked_stages,
    choose_display,
    journal_retrying,
    parted,
    parted_retries,
)
from antflow._pipeline_runs import HasRuns, PipelineRuns, pipeline_repr
from antflow.journal.journal import Journal, checked_retried
from antflow.sinks.opentelemetry import follow_run

if TYPE_CHECKING:
    from antflow._core import task_types as of
    from antflow._core.stage_lists import FirstToLast, SameStages, UnknownStages
    from antflow._core.type_variables import A, B
    from antflow.builder import EmptyBuilder

__all__ = [
    "Failures",
    "Limit",
    "LimitStatistics",
    "Pipeline",
    "ResultStream",
    "Retry",
    "RunHandle",
    "RunOptions",
    "Stage",
    "backoff",
]


def __getattr__(name: str) -> Any:
    if name == "PipelineBuilder":  # it used to live here; it imports this module
        from antflow.builder import PipelineBuilder

        return PipelineBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


SHORTEST_BLOCK = 0.05
RESULTS_IN_ORDER = 1000


class Pipeline(HasRuns[Out], Generic[Taken, Out]):
    """Stages, one after another, each with its own workers.

    ``async with pipeline:`` begins a run that is fed by hand. At the end of the block it is joined:
    everything accepted is finished. If the block raises, it is shut down instead (`open` cancels).

    Example:
        ```python
        async def double(number):
            return number * 2


        pipeline = Pipeline(stages=[Stage("Double", workers=5, tasks=[double])])
        results = await pipeline.run(range(100), dashboard="detailed")
        print(results.values())
        ```

    Args:
        stages: A list of `Stage`, at least one, with different names: "Fetch" and "fetch" are, two
            Unicode spellings of one text (NFC) are not. It is copied.
        collect_results: Keep results for `run` and `results`. If false, the lists are empty and the
            counts exact.
        status_tracker: Follows every run of this pipeline.
        name: Shown by displays.
        duplicates: What to do with an item whose id an earlier one of the run has: "number": it is
            renamed ``"a#2"``, ``"a#3"`` …, with one warning per run; "error": no more is taken in,
            as with a source that raises; "skip": it is left out and counted. An id that only equals
            the running number of an item without one is renamed in each case.
        store: Keeps every transition, and may hold work back; see `antflow.testing.MemoryStore`.
        journal: The journal of its runs, unless they are given one: see `RunOptions`.
        blocked_loop_after: Seconds, at least 0.05, after which an event loop that something blocks
            is reported: in the snapshot (``loop``), with worker, item and line, and once for each
            function as a warning in the log. ``None`` = not watched. A loop with virtual time is
            never watched.
        observers: Objects that hear of every step of every run, see `antflow.observers.Observer`.

    Attributes:
        name: As given.
        collect_results: As given; read when a run begins.

    Raises:
        PipelineError: No stages.
        StageValidationError: An option of a stage is not allowed, or two have the same name.
        ValueError: ``duplicates`` or ``blocked_loop_after`` is not allowed.
        TypeError: Another argument is not what it must be; or an unknown option.
    """

    @overload
    def __init__(
        self: Pipeline[Any, Any],
        stages: UnknownStages,  # pyright: ignore[reportInvalidTypeVarUse]
        **options: Unpack[PipelineOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[A, B],
        stages: SameStages[A, B] | tuple[Stage[A, B]] | FirstToLast[A, B],
        **options: Unpack[PipelineOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[Any, Any],
        stages: Sequence[Stage],
        collect_results: bool = True,
        status_tracker: StatusTracker | None = None,
        **options: Unpack[OtherOptions],
    ) -> None: ...

    @explained  # type: ignore[misc]  # a Sequence that is not a list has no append
    def __init__(
        self,
        stages: Sequence[Stage],
        collect_results: bool = True,
        status_tracker: StatusTracker | None = None,
        *,
        name: str = "pipeline",
        duplicates: Duplicates = "number",
        store: Store | None = None,
        journal: JournalFile | None = None,
        blocked_loop_after: float | None = 0.25,
        observers: Sequence[AnyObserver] = (),
    ) -> None:
        self._stages = checked_stages(stages)
        check_choice(ValueError, "duplicates", duplicates, get_args(Duplicates))
        self._duplicates: Duplicates = duplicates
        check_flag(TypeError, "collect_results", collect_results)
        given = status_tracker
        if given is not None and not examine(
            TypeError, "status_tracker", isinstance, given, StatusTracker
        ):
            hint = class_hint(given, lambda kind: issubclass(kind, StatusTracker))
            raise refusal(TypeError, "status_tracker", given, f"must be a StatusTracker{hint}")
        if not is_a(name, str):
            raise refusal(TypeError, "name", name, "must be a string")
        if store is not None:
            methods = ("opened", "admit", "record", "closed")
            has_all = all(callable(attribute(store, method)) for method in methods)
            if is_a(store, type) or not has_all:
                allowed = "must be an object with the methods opened, admit, record and closed"
                raise refusal(
                    TypeError, "store", store, allowed + class_hint(store, lambda _: has_all)
                )
        if blocked_loop_after is not None:
            blocked_loop_after = check_seconds(
                ValueError, "blocked_loop_after", blocked_loop_after, SHORTEST_BLOCK
            )
        self.name = name
        self._blocked_loop_after = blocked_loop_after
        self.collect_results = collect_results
        self._tracker = status_tracker
        self._store = store
        self._journal: Journal | None = check_journal(ValueError, "journal", journal)
        if store is not None and journal is not None:
            raise ValueError("Cannot use both store and journal: a journal is a store")
        self._observers = checked_observers(observers)
        check_files(status_tracker, self._observers, self._journal)
        self._runs = PipelineRuns()
        self._started: RunHandle[Any] | None = None

    # A copy has the description. The runs and their results belong to the original.

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_runs": None, "_started": None, "_stages": list(self._stages)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._runs = PipelineRuns()

    __repr__ = pipeline_repr

    @staticmethod
    def create() -> EmptyBuilder:
        """Begin a pipeline in the fluent form: a `PipelineBuilder` without stages.

        ```python
        pipeline = Pipeline.create().add("Double", double, workers=10).build()
        ```
        """
        # Here and not above: the builder imports this module.
        from antflow.builder import begin

        return begin()

    @overload
    @staticmethod
    async def quick(
        items: of.ItemsOf[A],
        tasks: of.AsyncTask[A, B],
        workers: int = 5,
        retries: int = 3,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        *,
        attempts: int | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResults[B]: ...

    @overload
    @staticmethod
    async def quick(
        items: of.ItemsOf[A],
        tasks: of.PlainTask[A, B],
        workers: int = 5,
        retries: int = 3,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        *,
        attempts: int | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResults[B]: ...

    @overload
    @staticmethod
    async def quick(
        items: Items,
        tasks: Sequence[Callable[..., Any]],
        workers: int = 5,
        retries: int = 3,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        *,
        attempts: int | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResults[Any]: ...

    @staticmethod
    @shares(RunOptions)
    async def quick(
        items: Items,
        tasks: Callable[..., Any] | Sequence[Callable[..., Any]],
        workers: int = 5,
        retries: int = 3,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        *,
        attempts: int | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResults[Any]:
        """Run items through one stage per task, and return the results.

        The stages are named after the tasks: ``fetch_page`` becomes "FetchPage". Repeated names are
        numbered: "Fetch", "Fetch2".

        Args:
            items: As in `run`.
            tasks: A task, or a list of them: one stage for each, in that order.
            workers: Workers of each stage.
            retries: Tries per task, the first one included, 1 or more.
            progress: As in `run`.
            dashboard: As in `run`.
            attempts: Another name for ``retries``, which says what it counts.
            **options: Those that `run`, `stream` and `open` have too; see `RunOptions`.

        Raises:
            StageValidationError: A task is not a function, or an option is not allowed.
            Exception: As in `run`.

        Cancellation:
            As in `run`.
        """
        from antflow.builder import one_stage_each

        check_options(Pipeline.quick, RunOptions, options)
        builder = one_stage_each(tasks, workers=workers, retries=retries, attempts=attempts)
        return await builder.run(items, progress, dashboard, **options)

    def with_workers(self, workers: Mapping[str, int] | None = None, /, **more: int) -> Self:
        """Make a pipeline like this one, with other numbers of workers.

        ```python
        wider = pipeline.with_workers(Fetch=50)
        wider = pipeline.with_workers({"Fetch pages": 50})
        ```

        Inside its runs, calls of this pipeline's methods by a task or a callback are about that
        run: ``feed`` feeds it, for example. `RunHandle.set_workers` changes the workers of a run
        under way.

        Args:
            workers: Stage name → number of workers.
            **more: The same, by keyword.

        Raises:
            ValueError: There is no such stage.
            StageValidationError: A number is not allowed.
            TypeError: ``workers`` is not a dict.
        """
        if workers is not None and not isinstance(workers, Mapping):
            raise refusal(TypeError, "workers", workers, "must be a dict: stage name → workers")
        wanted = {**(workers or {}), **more}
        return with_options(self, {name: {"workers": count} for name, count in wanted.items()})

    # Running

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
        """Run all items through all stages.

        Args:
            items: Any iterable or async iterable, even an endless one; taken in as there is room. A
                dict with a key ``"id"`` brings its own id: its value is its ``"value"`` or the
                whole dict, its other keys become `PipelineResult.metadata`; with ``key`` it is
                passed on whole. All others get a running integer. Wrap a blocking source in
                `antflow.in_thread`.
            progress: Show one line with a progress bar.
            dashboard: "compact", "detailed", "full", "log" (plain lines), "auto", or an object.
                "auto" is what the environment variable ``ANTFLOW_DISPLAY`` says, else compact.
            custom_dashboard: Your own object, see `DashboardProtocol`.
            dashboard_update_interval: Seconds between updates, 0.01 or more; 0.1 to 1.0 is
                sensible.
            retry_failed: Results of an earlier run, its ``results.failed`` or ``.cancelled``: these
                items go on at the stage they ended in, before ``items``, and with the value that
                entered it. If the run is stopped before it has room for them, they are cancelled.
                With a ``journal``, ``True`` or classes of errors: those items that failed in an
                earlier run, and that ``items`` has again, go on in the stage in which they failed.
                If some stay failed, a warning at the end says how many, unless ``on_failures`` is
                "ignore".
            keys: Read keys while a built-in display, or a `BaseDashboard`, is on the terminal:
                pause, more or fewer workers, drain, cancel; "?" lists them. Nothing is read if
                standard input is not a terminal (a record at level INFO says so), or the program is
                in the background.
            graceful_signals: The first SIGINT or SIGTERM stops the intake and gives items in flight
                this many seconds, then `run` returns, and ``results.stopped_by`` says why. A second
                one, or the end of that time, cancels. For the main thread.
            on_failures: If items failed, at the end of the run: "warn" logs one line that says how
                many, which errors and where, unless a display showed them, or a tracker called
                ``on_status_change`` for each. It is printed to standard error if the program has
                not set up logging. "raise" raises what `RunResults.raise_for_failures` raises, in
                every case. "ignore" does nothing.
            **options: Those that `stream` and `open` have too; see `RunOptions`.

        Returns:
            The successful results in input order, and everything else as attributes.

        Raises:
            TooManyFailures: ``max_failures`` was reached, or an item failed with an error of
                ``stop_on``; ``error.results`` has the results.
            ExceptionGroup: Items failed, with ``on_failures="raise"``; likewise.
            DuplicateItemError: A duplicate id, with ``duplicates="error"``; likewise.
            TimeoutError: ``timeout`` has passed; likewise.
            Exception: What ``items`` or the store raised, once everything taken in before is
                finished; likewise.
            KeyboardInterrupt: With ``graceful_signals``, after SIGINT: a second signal came, or
                time ran out. Also if a task or a callback raised it.
            SystemExit: The same after SIGTERM, with 128 and the signal's number as its code.
            InternalError: The books do not add up, or the library broke: please report it.
            PipelineError: This pipeline's own task called it; one of its limits is in use by
                another event loop; or ``items`` raised `CancelledError`.
            RuntimeError: ``graceful_signals`` outside the main thread.
            ValueError: An option is not allowed, two kinds of display were asked for, or a result
                in ``retry_failed`` succeeded, or is of a stage that this pipeline does not have.
            TypeError: ``items`` cannot be iterated, or is one value that would be taken apart (a
                string, a mapping, a model of pydantic); another argument is not what it must be;
                or an unknown option.

        Cancellation:
            Running tasks are cancelled and awaited, everything else is settled as cancelled;
            nothing is left behind. `results` has what was settled.
        """
        display = choose_display(
            progress, dashboard, custom_dashboard, dashboard_update_interval, keys
        )
        check_items(items)
        check_on_failures(on_failures)
        again, retried = parted_retries(retry_failed, self._stages)
        if graceful_signals is not None:
            graceful_signals = check_seconds(ValueError, "graceful_signals", graceful_signals)
            check_main_thread()
        check_options(Pipeline.run, RunOptions, options)
        options["total"], length = expected_count(items, options.get("total"), len(again))
        handle = self._open(
            options=options,
            length=length,
            on_failures=on_failures,
            is_shown=display is not None,
            retried=retried,
        )
        handle.takes_keys = keys
        engine = handle._engine
        engine.intake.again.extend(again)
        with nullcontext() if graceful_signals is None else graceful(engine, graceful_signals):
            await _drive(self, handle, items, display, dashboard_update_interval)
        results = handle.results
        if on_failures == "raise":
            results.raise_for_failures()
        return results

    @shares(RunOptions)
    def stream(
        self,
        items: of.ItemsOf[Taken],
        progress: bool = False,
        buffer_size: int | None = None,
        *,
        ordered: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        custom_dashboard: AnyDashboard | None = None,
        dashboard_update_interval: float = 0.5,
        retry_failed: Iterable[PipelineResult[Any]] | Retried = (),
        keys: bool = False,
        graceful_signals: float | None = None,
        **options: Unpack[RunOptions],
    ) -> ResultStream[Out]:
        """Yield each result as soon as it is ready, failed items included (with ``.error``).

        So there is no warning at the end if items failed, or stay failed from earlier runs, and no
        ``on_failures``.

        Items are taken in as results are taken out: a slow consumer slows the source. The run
        begins when the first result is asked for, or with ``async with``.

        Leaving the loop early stops the run: at once with ``async with``, otherwise soon after the
        stream is dropped. Results that were not yielded by then are in `results`, and so are
        cancelled items.

        ```python
        async with pipeline.stream(urls) as results:
            async for result in results:
                print(result.value)
                break
        ```

        Args:
            items: As in `run`.
            progress: As in `run`.
            buffer_size: Results that may wait for the consumer; ``None`` = 10 per worker of the
                last stage, 0 = handed over one by one.
            ordered: Yield in the order of the input. A result waits for all those before it, its
                worker does not; to bound the waiting results, at most 1000 (or ``buffer_size``)
                more items than the stages hold are taken in beyond the first unfinished one.
            dashboard: As in `run`.
            custom_dashboard: As in `run`.
            dashboard_update_interval: As in `run`.
            retry_failed: As in `run`.
            keys: As in `run`.
            graceful_signals: As in `run`; the loop ends after the last result, and
                ``pipeline.results.stopped_by`` says why. Handled while the loop is under way: a
                second signal is raised after the last result, even if the run was over.
            **options: Those that `run` and `open` have too; see `RunOptions`.

        Raises:
            ValueError: At the call, as in `run`.
            TypeError: At the call, as in `run`.
            RuntimeError: At the call, as in `run`.
            Exception: From the loop, after the last result: everything else that `run` raises.

        Cancellation:
            Of ``anext``: nothing is lost and the run goes on, so
            ``asyncio.wait_for(anext(results), 1.0)`` can be repeated. Of the ``async with`` block:
            as in `run`.
        """
        display = choose_display(
            progress, dashboard, custom_dashboard, dashboard_update_interval, keys
        )
        check_items(items)
        if graceful_signals is not None:
            graceful_signals = check_seconds(ValueError, "graceful_signals", graceful_signals)
            check_main_thread()
        check_flag(TypeError, "ordered", ordered)
        again, retried = parted_retries(retry_failed, self._stages)
        check_options(Pipeline.stream, RunOptions, options)
        used: Any = options.get("journal") or self._journal
        journal_retrying(used, retried)
        options["total"], length = expected_count(items, options.get("total"), len(again))
        if buffer_size is not None:
            allowed = "must be a whole number >= 0"
            buffer_size = check_count(ValueError, "buffer_size", buffer_size, 0, allowed)
        window = None
        if ordered:
            results_waiting = RESULTS_IN_ORDER if buffer_size is None else buffer_size
            window = _held_at_most(self._stages) + results_waiting
        if buffer_size is None:
            buffer_size = self._stages[-1].workers * DEFAULT_CAPACITY_PER_WORKER

        def drive(handle: RunHandle[Any]) -> Coroutine[Any, Any, None]:
            handle.takes_keys = keys
            handle._engine.intake.again.extend(again)
            return _drive(self, handle, items, display, dashboard_update_interval)

        open_run = partial(
            self._open, options=options, length=length, window=window, retried=retried
        )
        return ResultStream(Outcomes(open_run, drive, buffer_size, graceful_signals))

    @explained
    async def start(
        self,
        *,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        custom_dashboard: AnyDashboard | None = None,
        dashboard_update_interval: float = 0.5,
        keys: bool = False,
        max_failures: FailureLimit | None = None,
        stop_on: ErrorKinds | None = None,
        probe: bool = False,
    ) -> None:
        """Begin a run that is fed by hand. Does nothing if one is under way.

        If items fail, it ends with a warning, as `run` does by default. End it with `join` or
        `shutdown`. It is cancelled soon after the pipeline is dropped; if its own tasks refer to
        the pipeline, or it has a display, it lasts until its event loop ends.

        Args:
            progress: As in `run`.
            dashboard: As in `run`.
            custom_dashboard: As in `run`.
            dashboard_update_interval: As in `run`.
            keys: As in `run`.
            max_failures: See `RunOptions`.
            stop_on: See `RunOptions`.
            probe: See `RunOptions`.

        Raises:
            PipelineError: As from `open`.
            ValueError: An option is not allowed, or two kinds of display were asked for.
            TypeError: An option is not what it must be.
        """
        display = choose_display(
            progress, dashboard, custom_dashboard, dashboard_update_interval, keys
        )
        options: RunOptions = {"max_failures": max_failures, "stop_on": stop_on, "probe": probe}
        check_options(Pipeline.start, RunOptions, options)
        if self._started is None or not self._started._run.is_under_way:
            self._started = handle = self._open(options=options, is_shown=display is not None)
            handle.takes_keys = keys
            await _show(self, handle, display, dashboard_update_interval)

    async def feed(
        self,
        items: Items,
        target_stage: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        *,
        key: Key | None = None,
    ) -> None:
        """Take in items, waiting for room as often as it takes; see `RunHandle.feed`.

        Inside a run (a task, a callback) the items go into that run; else into the one begun with
        `start`, which is begun if there was none yet. Code that was started inside a run and
        outlives it (an `asyncio.Task` of a task) cannot begin one here, and feeds only runs it has
        begun itself.

        Args:
            items: As in `run`.
            target_stage: The stage to begin with; ``None`` = the first.
            priority: Lower goes first; items of one priority keep their order.
            key: What gives these items' ids, see `RunOptions`; ``None`` = the run's ``key``.

        Raises:
            PipelineError: The run was joined or shut down, perhaps while this was waiting for room;
                or its event loop was closed.
            ValueError: There is no such stage, or ``key`` is not allowed.
        """
        handle = self._runs.under_way(self._started)
        if handle is None:
            await self.start()
            handle = self._started
        assert handle is not None
        await handle.feed(items, target_stage, priority, key=key)

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        *,
        key: Key | None = None,
    ) -> None:
        """`feed` from an async iterable, each item as it comes."""
        await self.feed(items, target_stage, priority, key=key)

    async def join(self) -> None:
        """Take in nothing more, and wait until everything accepted is settled. May be called twice.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.

        Raises:
            Exception: What ended the run, if not the end of its input; later calls raise a copy.

        Cancellation:
            Cancels the run, and waits until it is over.
        """
        handle = self._runs.under_way(self._started)
        if handle is not None:
            await handle.join()

    async def shutdown(self) -> None:
        """Finish running attempts, and settle everything that waits as cancelled.

        Also ends a ``run()`` or ``stream()`` when called from inside it, and returns at once then.
        """
        handle = self._runs.under_way(self._started)
        if handle is not None:
            await handle.shutdown()

    @shares(RunOptions)
    @around
    async def open(
        self,
        *,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        custom_dashboard: AnyDashboard | None = None,
        dashboard_update_interval: float = 0.5,
        retry_failed: Retried = False,
        keys: bool = False,
        on_failures: OnFailures = "warn",
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[RunHandle[Out], None]:
        """Open a run and hand it out; on exit it is joined, or cancelled if the body raised.

        A paused run is resumed then. There is no ``graceful_signals``: the body decides when the
        run ends, so let a signal end the body, for example by an `asyncio.Event` it waits for.

        ```python
        async with pipeline.open() as run:
            await run.feed(range(10))
        print(run.results)
        ```

        Args:
            progress: As in `run`.
            dashboard: As in `run`.
            custom_dashboard: As in `run`.
            dashboard_update_interval: As in `run`.
            retry_failed: With a ``journal``, as in `run`: ``True`` or classes of errors.
            keys: As in `run`.
            on_failures: As in `run`; "raise" raises on leaving, and from `RunHandle.join` and
                `RunHandle.shutdown`. If the body raises, its own error is raised, and failures
                are logged.
            **options: Those that `run` and `stream` have too; see `RunOptions`.

        Raises:
            PipelineError: On entering: from inside a run of this pipeline, or one of its limits is
                in use by another event loop.
            ValueError: On entering: an option is not allowed, or two kinds of display were asked
                for.
            TypeError: On entering: an option is not what it must be, or does not exist.
            Exception: On leaving: what ended the run, if not the end of its input, with the results
                as ``error.results``; else, or if `join` raised that before, what the body raised.

        Cancellation:
            In the body or while it is joined: the run is cancelled, and over when this is left.
        """
        display = choose_display(
            progress, dashboard, custom_dashboard, dashboard_update_interval, keys
        )
        check_on_failures(on_failures)
        retried = checked_retried(retry_failed)
        check_options(Pipeline.open, RunOptions, options)
        handle = self._open(
            options=options,
            on_failures=on_failures,
            is_shown=display is not None,
            retried=retried,
        )
        handle.takes_keys = keys
        with interrupts_apart():
            try:
                await _show(self, handle, display, dashboard_update_interval)
                yield handle
            except BaseException:
                if not handle._run.is_left_behind:
                    handle.cancel()
                    if not handle._run.has_told_error:  # else the body has it
                        # Failures do not hide the body's own error, and no cancellation.
                        await handle._end(raises_failures=False)
                    handle._tell_failures()
                raise
            handle.resume()
            try:
                await handle.join()
            except BaseException:
                handle._tell_failures()
                raise

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await (self.join() if exc_type is None else self.shutdown())

    # Queries: inside a run for that run, else for the latest

    @property
    def stages(self) -> list[Stage]:
        """The stages, in order."""
        return list(self._stages)

    @property
    def results(self) -> RunResults[Out]:
        """The results so far; also after a run that raised or was cancelled."""
        handle = self._runs.asked_about()
        if handle is None:
            return RunResults((), self.get_error_summary(), self.get_stats())
        return handle.results

    def get_stats(self) -> PipelineStats:
        """The counts of the run and of each stage."""
        return self._runs.reading(self._stages).stats()

    def get_worker_names(self) -> dict[str, list[str]]:
        """Stage name → names of its workers, ``["Fetch-W0", …]``."""
        return self._runs.reading(self._stages).worker_names()

    def get_worker_states(self) -> dict[str, WorkerState]:
        """Worker name → what it does now."""
        return self._runs.reading(self._stages).snapshot().worker_states

    def get_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Worker name → what it has done."""
        return self._runs.reading(self._stages).snapshot().worker_metrics

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment.

        A true copy; O(stages + workers); before, during and after a run, and from any thread.
        """
        snapshot = self._runs.reading(self._stages).snapshot()
        if not snapshot.run_id:
            snapshot.sinks = counts_of(self._observers)
        return snapshot

    def get_error_summary(self) -> ErrorSummary:
        """Failures summed up; all failed items if results are collected, else the last ones."""
        return self._runs.reading(self._stages).failures.summary()

    # Inside

    def _open(
        self,
        deliver: Deliver | None = None,
        collected: list[PipelineResult[Any]] | None = None,
        *,
        options: RunOptions,
        length: Callable[[], int] | None = None,
        window: int | None = None,
        on_failures: OnFailures = "warn",
        is_shown: bool = False,
        retried: Retried = False,
    ) -> RunHandle[Any]:
        """Open a run; its results are collected unless there is a function that takes them."""
        keeps_results = self.collect_results and deliver is None
        reads_results = self.collect_results or deliver is not None
        is_stream = deliver is not None
        # A stream hands failed items to its reader; a display, or a tracker's callback, tells them.
        # A tracker without one only answers questions.
        is_told = self._tracker is not None and self._tracker.on_status_change is not None
        is_silent = not is_stream and not is_told
        keeps_silent = is_silent and not is_shown
        collected = [] if collected is None else collected
        if deliver is None:
            deliver = collected.append if self.collect_results else _forget
        here = self._runs.here()
        if here is not None and here._run.is_under_way:
            raise PipelineError(
                "this pipeline cannot be run from inside its own run; feed() adds items to it"
            )
        tracker = self._tracker
        engine_options, more, journal = parted(options, self._journal)
        check_files(tracker, self._observers, journal, options)
        journal = journal_retrying(journal, retried)
        observers = [*self._observers, *more]
        listeners = [
            None if tracker is None else tracker.follow(),
            follow_run(self.name),
            Observers(observers, self._runs.guard) if observers else None,
        ]
        engine = Engine(
            self._stages,
            deliver=deliver,
            guard=self._runs.guard,
            store=self._store,
            memory=None if journal is None else _memory(journal),
            listeners=[each for each in listeners if each is not None],
            length=length,
            keeps_results=keeps_results,
            reads_results=reads_results,
            duplicates=self._duplicates,
            window=window,
            owner=self._runs.owner,
            blocked_loop_after=self._blocked_loop_after,
            name=self.name,
            times_items=self._runs.times_items,
            **engine_options,
        )
        engine.run.outlook = outlook = Outlook(self._stages, observers)
        if engine.may_probe:
            prober = Prober(engine.run, self._stages, outlook, engine.try_workers)
            engine.before_control = prober.interrupt
            engine.supervisor.on_over.append(prober.close)
            prober.begin()
        raises = on_failures == "raise"
        if keeps_silent and on_failures != "ignore":
            engine.supervisor.on_over.append(partial(_alert, engine.run, raises))
        if journal is not None and not is_stream and on_failures != "ignore":
            engine.supervisor.on_over.append(partial(_tell_stayed, engine.run))
        engine.supervisor.on_over.append(self._runs.teller_of(engine.run))
        self._runs.latest = handle = RunHandle(engine, collected, raises)
        if keeps_silent and raises:
            handle._tell_failures = partial(_alert, engine.run, raises=False)
        if is_silent and on_failures != "ignore":
            handle._tell_unshown = partial(_alert, engine.run, raises)
        # Code that outlives the run keeps it, but not its results.
        kept = ref(handle)
        engine.run.handle = lambda: kept() or RunHandle(engine, [])
        return handle


def _memory(journal: Journal) -> Memory:
    from antflow.journal.store import JournalStore  # SQLite only where a run keeps a journal

    # In virtual time rows are written at once: a run in a test repeats exactly.
    return JournalStore(journal, in_thread=not has_own_time(asyncio.get_running_loop()))


async def _drive(
    pipeline: Pipeline[Any, Any],
    handle: RunHandle[Any],
    items: Items,
    display: Any,
    interval: float,
) -> None:
    """Feed a run from ``items``, with its display, until both are over."""
    run, poller = handle._run, _poller(pipeline, handle, display, interval)
    with interrupts_apart():
        try:
            await handle._engine.drive(items, poller)
        except BaseException as error:
            if not run.is_left_behind:
                attach_results(error, handle.results)
                handle._tell_failures()
                run.forget_error()
            raise
        if run.error is not None:
            handle._tell_failures()
        run.raise_late_error()


async def _show(
    pipeline: Pipeline[Any, Any], handle: RunHandle[Any], display: Any, interval: float
) -> None:
    """Begin to show a run that is fed by hand, if there is a display."""
    if (poller := _poller(pipeline, handle, display, interval)) is not None:
        await handle._engine.show(poller)


def _poller(
    pipeline: Pipeline[Any, Any], handle: RunHandle[Any], display: Any, interval: float
) -> Poller | None:
    if display is None:
        return None
    run = handle._run
    return Poller(
        display,
        pipeline,
        run.total or 0,
        float(interval),
        lambda: handle.results,
        run.loop_watch,
        handle._tell_unshown,
    )


def _alert(run: Run, raises: bool) -> None:
    """Log that items failed in a run that is over, unless an error that comes out of it says so."""
    if not run.ledger.failed or run.is_left_behind or is_a(run.error, TooManyFailures):
        return
    if run.has_told_failures:
        return
    if raises and run.error is None and not run.is_cancelling:
        return
    run.has_told_failures = True
    ledger = run.ledger
    alert("%s", run.failures.told(ledger.accepted + ledger.children + ledger.recalled.all_ended))


def _tell_stayed(run: Run) -> None:
    """Log that items which had failed in earlier runs stay failed."""
    if (counts := run.ledger.recalled.failed) and not run.is_left_behind:
        alert("%s", stay_failed(counts, "retry_failed=True"))


def _held_at_most(stages: Sequence[Stage]) -> int:
    """How many items the stages hold when all are full."""
    return sum(
        stage.workers * (stage.batch or 1)
        + (capacity(stage) or stage.workers * DEFAULT_CAPACITY_PER_WORKER)
        for stage in stages
    )


def _forget(_: PipelineResult[Any]) -> None:
    """Takes results that are not collected."""


P = TypeVar("P", bound=Pipeline[Any, Any])


def with_options(pipeline: P, options: Mapping[str, Mapping[str, Any]]) -> P:
    """A pipeline like this one, with other options of some stages, by their names.

    Raises:
        ValueError: There is no such stage.
        StageValidationError: A value is not allowed.
    """
    stages = list(pipeline._stages)
    names = [stage.name for stage in stages]
    for name, given in options.items():
        index = stage_index("stage", name, names)
        stages[index] = changed(stages[index], **given)
    other = copy(pipeline)
    other._runs = PipelineRuns(pipeline._runs.owner)
    other._stages = checked_stages(stages)
    return other
