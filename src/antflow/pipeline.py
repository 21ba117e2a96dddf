"""Pipelines: stages put together, and run.

A `Pipeline` is a description and can be run again, twice at once and in another event loop: each
run has its own state. This module puts the parts together: engine, tracker, displays.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

from antflow._core import readings
from antflow._core.checks import check_count, check_flag, check_seconds, refusal
from antflow._core.envelope import DEFAULT_PRIORITY
from antflow._core.errors import ItemCancelled, PipelineError
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger
from antflow._core.ports import AnyDashboard, Store
from antflow._core.result import PipelineResult, RunResults
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    WorkerMetrics,
    WorkerState,
)
from antflow._core.stage import (
    DEFAULT_CAPACITY_PER_WORKER,
    MOST_WORKERS,
    Stage,
    capacity,
    frozen_copy,
    retry_policy,
)
from antflow._core.text import safe_repr
from antflow._engine.channel import Channel
from antflow._engine.current import current_run
from antflow._engine.run import Deliver, Run, take_snapshot
from antflow._monitor.bus import CallbackGuard
from antflow._monitor.poller import Poller
from antflow._monitor.tracker import StatusTracker

__all__ = ["Pipeline", "RunHandle", "Stage"]

Items = Iterable[Any] | AsyncIterable[Any]
DashboardName = Literal["auto", "log", "compact", "detailed", "full"]
DASHBOARD_NAMES: tuple[str, ...] = ("auto", "log", "compact", "detailed", "full")
DISPLAY_METHODS = ("on_start", "on_update", "on_finish")
SHORTEST_INTERVAL = 0.01


class RunHandle:
    """One run that is under way: feed it, read it, end it.

    Made by `Pipeline.open`. Its methods belong to the event loop it was made in.
    """

    def __init__(self, run: Run, collected: list[PipelineResult[Any]]) -> None:
        self._run = run
        self._collected = collected
        self._final: RunResults[Any] | None = None

    @property
    def run_id(self) -> str:
        """Unique name of the run; on all its events, snapshots and results."""
        return self._run.facts.run_id

    @property
    def results(self) -> RunResults[Any]:
        """What has come out so far; final once the run is over."""
        if self._final is not None:
            return self._final
        results = RunResults(
            tuple(self._collected), self._run.failures.summary(), self._run.stats(), self.run_id
        )
        if self._run.is_over:
            self._final = results
            self._collected.clear()
        return results

    async def feed(
        self, items: Items, target_stage: str | None = None, priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Take in items, waiting for room as often as it takes. See `Pipeline.feed`."""
        stage = self._index_of(target_stage)
        check_items(items)
        if type(priority) is not int:
            raise refusal(TypeError, "priority", priority, "must be a whole number")
        if isinstance(items, AsyncIterable):
            await self._run.feed_async(items, stage, priority)
        else:
            await self._run.feed(items, stage, priority)

    async def join(self) -> None:
        """Take nothing more in, and wait until everything accepted is settled.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.
        """
        self._run.close_intake()
        if not self._run.contains_caller:
            await self._run.wait()

    async def shutdown(self) -> None:
        """Let running attempts end, and settle everything that waits as cancelled.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.
        """
        self._run.shut_down()
        if not self._run.contains_caller:
            await self._run.wait()

    def cancel(self) -> None:
        """Cancel running tasks and settle everything as cancelled. Does not wait: see `join`."""
        self._run.cancel()

    def set_workers(self, stage: str, count: int) -> None:
        """Have ``count`` workers in a stage from now on; those that leave end their item first.

        Raises:
            ValueError: There is no such stage, or ``count`` is not from 1 to 100 000.
        """
        allowed = f"must be a whole number from 1 to {MOST_WORKERS:,}"
        check_count(ValueError, "count", count, 1, allowed, MOST_WORKERS)
        self._run.set_workers(self._index_of(stage), count)

    def stats(self) -> PipelineStats:
        """The counts, at this moment."""
        return self._run.stats()

    def snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment; a true copy."""
        return self._run.snapshot()

    def _index_of(self, stage: str | None) -> int:
        if stage is None:
            return 0
        names = self._run.facts.stage_names
        if stage not in names:
            raise ValueError(
                f"stage {safe_repr(stage)} not found; the stages are {', '.join(map(repr, names))}"
            )
        return names.index(stage)


class Pipeline:
    """Stages, one after the other, each with its own workers.

    ``async with pipeline:`` begins a run that is fed by hand, and ends it with `shutdown`: what
    still waits then is cancelled, so `join` first where all is to finish. `open` joins by itself.

    Example:
        ```python
        async def double(number):
            return number * 2


        pipeline = Pipeline(stages=[Stage("Double", workers=5, tasks=[double])])
        results = await pipeline.run(range(100), dashboard="detailed")
        print(results.values())
        ```

    Args:
        stages: A list of `Stage`, at least one, with different names. It is copied.
        collect_results: Keep results for `run` and `results`. When false those lists are empty and
            the counts exact.
        status_tracker: Follows every run of this pipeline.
        name: Shown by displays.
        store: Keeps every transition, and may hold work back; see `antflow.testing.MemoryStore`.

    Raises:
        PipelineError: No stages, or two of the same name.
        StageValidationError: An option of a stage is not allowed.
        TypeError: ``stages`` is no list of stages, or ``status_tracker`` no tracker.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        collect_results: bool = True,
        status_tracker: StatusTracker | None = None,
        *,
        name: str = "pipeline",
        store: Store | None = None,
    ) -> None:
        self._stages = _checked_stages(stages)
        check_flag(TypeError, "collect_results", collect_results)
        if status_tracker is not None and not isinstance(status_tracker, StatusTracker):
            raise refusal(TypeError, "status_tracker", status_tracker, "must be a StatusTracker")
        if not isinstance(name, str):
            raise refusal(TypeError, "name", name, "must be a string")
        if store is not None:
            for method in ("admit", "record"):
                if not callable(getattr(store, method, None)):
                    allowed = "must be an object with the methods admit and record"
                    raise refusal(TypeError, "store", store, allowed)
        self.name = name
        self._collects = collect_results
        self._tracker = status_tracker
        self._store = store
        self._next_id = count().__next__
        self._guard = CallbackGuard()
        self._started: RunHandle | None = None
        self._latest: RunHandle | None = None

    # Running

    async def run(
        self,
        items: Items,
        progress: bool = False,
        dashboard: DashboardName | AnyDashboard | None = None,
        custom_dashboard: AnyDashboard | None = None,
        dashboard_update_interval: float = 0.5,
        *,
        total: int | None = None,
        max_failures: float | None = None,
    ) -> RunResults[Any]:
        """Run all items through all stages.

        Args:
            items: Any iterable or async iterable, endless ones too; taken as there is room for
                them. A dict with a key ``"id"`` brings its own id: its value is its ``"value"`` or
                the whole dict, its other keys become `PipelineResult.metadata`. All others get a
                running integer.
            progress: Show one line with a progress bar.
            dashboard: "compact", "detailed", "full", "log" (plain lines), "auto", or an object.
            custom_dashboard: An object of your own, see `DashboardProtocol`.
            dashboard_update_interval: Seconds between updates, 0.01 or more; 0.1 to 1.0 is
                sensible.
            total: How many items there will be, where ``len(items)`` cannot tell.
            max_failures: Stop taking items in when so many have failed (int, 1 or more), or such a
                share of those settled (float, above 0 and up to 1, from 20 settled items on).

        Returns:
            The successful results in input order, and everything else as attributes.

        Raises:
            TooManyFailures: ``max_failures`` was reached; ``error.results`` has the results.
            PipelineError: This pipeline's own task called it.
            ValueError: An option is not allowed, or two kinds of display were asked for.
            TypeError: ``items`` cannot be iterated, or is a string or a mapping.
            Exception: What ``items`` raised; ``error.results`` has the results of the items before.

        Cancellation:
            Running tasks are cancelled and awaited, everything else is settled as cancelled;
            nothing is left behind. `results` has what was settled.
        """
        display = _choose_display(progress, dashboard, custom_dashboard)
        check_seconds(
            ValueError, "dashboard_update_interval", dashboard_update_interval, SHORTEST_INTERVAL
        )
        check_items(items)
        check_total(total)
        _check_max_failures(max_failures)
        collected: list[PipelineResult[Any]] = []
        deliver = collected.append if self._collects else _forget
        handle = self._open(
            deliver, collected, total=_count_of(items, total), max_failures=max_failures
        )
        await self._drive(handle, items, display, dashboard_update_interval)
        return handle.results

    def stream(
        self,
        items: Items,
        progress: bool = False,
        buffer_size: int | None = None,
        *,
        total: int | None = None,
        max_failures: float | None = None,
    ) -> AsyncGenerator[PipelineResult[Any], None]:
        """Yield each result as soon as it is there, failed items included (with ``.error``).

        Items are taken in while results are taken out: a slow consumer slows the source.

        Leaving the loop early stops the run once the generator is closed; ``contextlib.aclosing``
        does that at once:

        ```python
        from contextlib import aclosing

        async with aclosing(pipeline.stream(urls)) as results:
            async for result in results:
                print(result.value)
                break
        ```

        Args:
            items: As in `run`.
            progress: Show one line with a progress bar.
            buffer_size: Results that may wait for the consumer; ``None`` = 10 per worker of the
                last stage, 0 = handed over one by one.
            total: As in `run`.
            max_failures: As in `run`; `TooManyFailures` comes out after the last result.

        Cancellation:
            As in `run`.
        """
        check_flag(TypeError, "progress", progress)
        check_items(items)
        check_total(total)
        _check_max_failures(max_failures)
        if buffer_size is not None:
            check_count(ValueError, "buffer_size", buffer_size, 0, "must be a whole number >= 0")
        else:
            buffer_size = self._stages[-1].workers * DEFAULT_CAPACITY_PER_WORKER
        display = _choose_display(progress, None, None)
        return self._stream(items, display, buffer_size, _count_of(items, total), max_failures)

    async def _stream(
        self,
        items: Items,
        display: Any,
        buffer_size: int,
        total: int | None,
        max_failures: float | None,
    ) -> AsyncGenerator[PipelineResult[Any], None]:
        results: Channel[PipelineResult[Any]] = Channel(buffer_size)

        def deliver(result: PipelineResult[Any]) -> Any:
            if isinstance(result.error, ItemCancelled):
                return None
            return results.room() if results.put(result) else None

        handle = self._open(deliver, [], total=total, max_failures=max_failures, keeps=False)
        driver = asyncio.ensure_future(self._drive(handle, items, display, 0.5))
        driver.add_done_callback(lambda _: results.close())
        try:
            while True:
                result = results.take()
                if result is not None:
                    yield result
                elif results.is_closed:
                    break
                else:
                    await results.wait()
        finally:
            driver.cancel()
            await _until_done(driver)
        driver.result()

    async def start(self) -> None:
        """Begin a run that is fed by hand. Does nothing if one is under way."""
        if self._started is None or self._started._run.is_over:
            collected: list[PipelineResult[Any]] = []
            self._started = self._open(collected.append if self._collects else _forget, collected)

    async def feed(
        self, items: Items, target_stage: str | None = None, priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Take in items, waiting for room as often as it takes.

        Inside a run (a task, a callback) the items go into that run; else into the one begun with
        `start`, which is begun if there was none yet.

        Args:
            items: As in `run`.
            target_stage: The stage to begin with; ``None`` = the first.
            priority: Lower goes first; items of one priority keep their order.

        Raises:
            PipelineError: The run was joined or shut down, perhaps while this was waiting for room.
            ValueError: There is no such stage.
        """
        handle = self._handle_under_way()
        if handle is None:
            await self.start()
            handle = self._started
        assert handle is not None
        await handle.feed(items, target_stage, priority)

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        """`feed` from an async iterable, each item as it comes."""
        await self.feed(items, target_stage, priority)

    async def join(self) -> None:
        """Take nothing more in, and wait until everything accepted is settled. May be called twice.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.

        Raises:
            Exception: What made the run end, if not the end of its input.

        Cancellation:
            Cancels the run, and waits until it is over.
        """
        handle = self._handle_under_way()
        if handle is not None:
            await handle.join()

    async def shutdown(self) -> None:
        """Let running attempts end, and settle everything that waits as cancelled.

        Also ends a ``run()`` or ``stream()`` when called from inside it, and returns at once then.
        """
        handle = self._handle_under_way()
        if handle is not None:
            await handle.shutdown()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RunHandle]:
        """Open a run and hand it out; on exit it is joined, or cancelled if the body raised.

        ```python
        async with pipeline.open() as run:
            await run.feed(range(10))
        print(run.results)
        ```
        """
        collected: list[PipelineResult[Any]] = []
        handle = self._open(collected.append if self._collects else _forget, collected)
        try:
            yield handle
        except BaseException:
            handle.cancel()
            raise
        finally:
            await handle.join()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    # Queries: inside a run for that run, else for the latest

    @property
    def stages(self) -> list[Stage]:
        """The stages, in order."""
        return list(self._stages)

    @property
    def results(self) -> RunResults[Any]:
        """What has come out so far; also after a run that raised or was cancelled."""
        handle = self._handle()
        if handle is None:
            return RunResults((), self.get_error_summary(), self.get_stats())
        return handle.results

    def get_stats(self) -> PipelineStats:
        """The counts of the run and of each stage."""
        handle = self._handle()
        return self._idle_snapshot().pipeline_stats if handle is None else handle.stats()

    def get_worker_names(self) -> dict[str, list[str]]:
        """Stage name → names of its workers, ``["Fetch-W0", …]``."""
        handle = self._handle()
        gauges = self._idle_gauges() if handle is None else handle._run.gauges()
        return readings.worker_names(self._idle_facts(), gauges)

    def get_worker_states(self) -> dict[str, WorkerState]:
        """Worker name → what it does now."""
        return self.get_dashboard_snapshot().worker_states

    def get_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Worker name → what it has done."""
        return self.get_dashboard_snapshot().worker_metrics

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment.

        A true copy; O(stages + workers); before, during and after a run, and from any thread.
        """
        handle = self._handle()
        return self._idle_snapshot() if handle is None else handle.snapshot()

    def get_error_summary(self) -> ErrorSummary:
        """Failures summed up; all failed items where results are collected, else the last ones."""
        handle = self._handle()
        return FailureBook().summary() if handle is None else handle._run.failures.summary()

    # Inside

    def _open(
        self,
        deliver: Deliver,
        collected: list[PipelineResult[Any]],
        *,
        total: int | None = None,
        max_failures: float | None = None,
        keeps: bool | None = None,
    ) -> RunHandle:
        here = self._handle_here()
        if here is not None and not here._run.is_over:
            raise PipelineError(
                "this pipeline cannot be run from inside its own run; feed() adds items to it"
            )
        tracker = self._tracker
        quiet = [n for n, stage in enumerate(self._stages) if not retry_policy(stage).whole_stage]
        run = Run(
            self._stages,
            deliver=deliver,
            guard=self._guard,
            next_id=self._next_id,
            store=self._store,
            observer=None if tracker is None else tracker.follow(quiet),
            max_failures=max_failures,
            total=total,
            keeps_results=self._collects if keeps is None else keeps,
            owner=self,
        )
        self._latest = run.handle = RunHandle(run, collected)
        return self._latest

    async def _drive(self, handle: RunHandle, items: Items, display: Any, interval: float) -> None:
        """Feed a run from ``items``, with its display, until both are over."""
        run = handle._run
        poller = None
        if display is not None:
            poller = Poller(display, self, run.total or 0, interval, lambda: handle.results)
        polling = None if poller is None else run.create_side_task(poller.poll(), "display")
        try:
            if poller is not None:
                await poller.begin()
            if isinstance(items, AsyncIterable):
                run.push_from(items)
            else:
                run.pull_from(items)
            await run.wait()
        except BaseException as error:
            run.cancel()
            await run.wait_until_over()
            _attach(error, handle.results)
            raise
        finally:
            if poller is not None and polling is not None:
                poller.end(at_once=run.is_cancelling)
                await _until_done(polling)

    def _handle_here(self) -> RunHandle | None:
        """The run of this pipeline that the calling code is part of."""
        run = current_run.get()
        while run is not None:
            if run.owner is self:
                handle: RunHandle = run.handle
                return handle
            run = run.parent
        return None

    def _handle_under_way(self) -> RunHandle | None:
        here = self._handle_here()
        return self._started if here is None or here._run.is_over else here

    def _handle(self) -> RunHandle | None:
        return self._handle_here() or self._latest

    def _idle_facts(self) -> RunFacts:
        return RunFacts("", tuple(stage.name for stage in self._stages), 0.0, 0.0)

    def _idle_gauges(self) -> list[readings.StageGauge]:
        return [readings.StageGauge(stage.workers, capacity(stage)) for stage in self._stages]

    def _idle_snapshot(self) -> DashboardSnapshot:
        return take_snapshot(
            Ledger(len(self._stages)),
            self._idle_facts(),
            self._idle_gauges(),
            FailureBook(),
            now=0.0,
        )


def check_items(items: object) -> None:
    """Refuse what is no collection of items, or most likely not the one that was meant."""
    if isinstance(items, (str, bytes, bytearray, Mapping)):
        what = "keys" if isinstance(items, Mapping) else "characters"
        raise refusal(
            TypeError, "items", items, f"would be taken apart into its {what}; wrap it in a list"
        )
    if not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__"):
        raise refusal(TypeError, "items", items, "must be an iterable or an async iterable")


def check_total(total: object) -> None:
    """Refuse a total that is no number of items."""
    if total is not None:
        check_count(ValueError, "total", total, 0, "must be a whole number >= 0, or None")


def _checked_stages(stages: object) -> tuple[Stage, ...]:
    if not isinstance(stages, Sequence) or isinstance(stages, str):
        raise refusal(TypeError, "stages", stages, "must be a list of Stage objects")
    if not stages:
        raise PipelineError("stages=[]: a pipeline must have at least one stage")
    copies: list[Stage] = []
    seen: dict[str, int] = {}
    for index, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            raise refusal(TypeError, f"stages[{index}]", stage, "must be a Stage")
        stage.validate()
        if stage.name in seen:
            raise PipelineError(
                f"Duplicate stage name {safe_repr(stage.name)}: "
                f"stages[{seen[stage.name]}] and stages[{index}]"
            )
        seen[stage.name] = index
        copies.append(frozen_copy(stage))
    return tuple(copies)


def _choose_display(progress: object, dashboard: Any, custom: Any) -> Any:
    check_flag(TypeError, "progress", progress)
    asked = [
        name
        for name, given in (
            ("progress", bool(progress)),
            ("dashboard", dashboard is not None),
            ("custom_dashboard", custom is not None),
        )
        if given
    ]
    if len(asked) > 1:
        raise ValueError(f"Cannot use both {' and '.join(asked)}: choose one")
    if custom is not None:
        if isinstance(custom, type) or not _is_display(custom):
            raise refusal(
                TypeError,
                "custom_dashboard",
                custom,
                f"must be an object with some of the methods {', '.join(DISPLAY_METHODS)}",
            )
        return custom
    if progress:
        return _create("progress")
    if dashboard is None:
        return None
    if isinstance(dashboard, str):
        if dashboard in DASHBOARD_NAMES:
            return _create(dashboard)
    elif not isinstance(dashboard, type) and _is_display(dashboard):
        return dashboard
    names = ", ".join(map(repr, DASHBOARD_NAMES))
    raise refusal(
        ValueError, "dashboard", dashboard, f"must be one of {names}, or a display object"
    )


def _create(name: str) -> Any:
    # Here and not above: drawing is imported only when something is drawn.
    from antflow.display import create

    return create(name)


def _is_display(display: Any) -> bool:
    return any(callable(getattr(display, method, None)) for method in DISPLAY_METHODS)


def _check_max_failures(limit: object) -> None:
    if limit is None:
        return
    count_fits = type(limit) is int and limit >= 1
    ratio_fits = type(limit) is float and 0 < limit <= 1
    if not (count_fits or ratio_fits):
        allowed = "must be a whole number >= 1, or a ratio above 0.0 and up to 1.0"
        raise refusal(ValueError, "max_failures", limit, allowed)


def _count_of(items: Items, total: int | None) -> int | None:
    if total is not None:
        return total
    length: Callable[[], int] | None = getattr(items, "__len__", None)
    try:
        return None if length is None else length()
    except Exception:
        return None


async def _until_done(task: asyncio.Task[None]) -> None:
    """Wait for a task, however often the wait is cancelled; what it raises is not raised here."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if not task.cancelled():
        task.exception()
    if cancelled is not None:
        raise cancelled


def _forget(_: PipelineResult[Any]) -> None:
    """Where results are not collected."""


def _attach(error: BaseException, results: RunResults[Any]) -> None:
    if isinstance(error, Exception):
        with suppress(AttributeError):  # a class with slots; `Pipeline.results` has them too
            setattr(error, "results", results)  # noqa: B010 - no attribute that its class knows of
