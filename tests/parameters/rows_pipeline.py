"""The options of a pipeline, of its runs, and of who follows and shows them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from antflow import (
    Durations,
    Failures,
    ItemStep,
    Pipeline,
    PipelineError,
    RunEnd,
    RunHandle,
    Stage,
    StatusTracker,
    configure_telemetry,
    in_thread,
)
from antflow.display import FullDashboard, ProgressDisplay, create
from antflow.journal import Journal
from antflow.testing import MemoryStore
from tests.support import Frame, Model

from .rows_sinks import FOLDER, NO_PATHS
from .rows_stage import (
    BOTH,
    COUNT,
    FLAG,
    KINDS,
    NO_KINDS,
    NO_RATIOS,
    SECONDS,
    SOME_KINDS,
    a_stage,
)
from .values import (
    INF,
    NAN,
    NO_CALLABLES,
    NO_COUNTS,
    NO_FLAGS,
    NO_SECONDS,
    NO_STRINGS,
    NO_TIMEOUTS,
    NO_WORDS,
    Hostile,
    Row,
    but,
)


class Display:
    """The least of a display."""

    def on_update(self, snapshot: Any) -> None:
        pass


class Items:
    """Some items, and whether they were read."""

    was_read = False

    def __iter__(self) -> Iterator[int]:
        self.was_read = True
        yield 1


async def some_numbers() -> AsyncIterator[int]:
    yield 1


def use_pipeline(**options: Any) -> None:
    Pipeline(**dict[str, Any](stages=[a_stage()]) | options)


async def use_run(**options: Any) -> None:
    pipeline = Pipeline([a_stage()])
    await begin(pipeline, pipeline.run, options)


async def use_stream(**options: Any) -> None:
    pipeline = Pipeline([a_stage()])

    async def stream(**options: Any) -> None:
        results = pipeline.stream(**options)  # refused here, not at the first result
        assert [result.sequence_id async for result in results] == [0]

    await begin(pipeline, stream, options)


async def begin(pipeline: Pipeline, run: Callable[..., Any], options: dict[str, Any]) -> None:
    """Run with these options; if that is refused, nothing began, and the pipeline still works."""
    items = Items()
    try:
        await run(**{"items": items} | options)
    except Exception:
        assert not items.was_read
        assert pipeline.get_dashboard_snapshot().state == "idle"
        assert (await pipeline.run(["again"])).values() == ["again"]
        raise


async def use_start(**options: Any) -> None:
    pipeline = Pipeline([a_stage()])
    await pipeline.start(**options)
    await pipeline.feed([1])
    await pipeline.join()


async def use_open(**options: Any) -> None:
    async with Pipeline([a_stage()]).open(**options) as run:
        await run.feed([1])


async def in_open_run(call: Callable[[RunHandle], Any]) -> None:
    """Await something about an open run; what was accepted before is not lost."""
    pipeline = Pipeline([a_stage()])
    async with pipeline.open() as run:
        await run.feed(["before"])
        try:
            await call(run)
        finally:
            await run.join()
            assert "before" in run.results.values()
            assert pipeline.get_worker_names().keys() == {"Work"}


async def use_feed_of_run(**options: Any) -> None:
    await in_open_run(lambda run: run.feed(**dict[str, Any](items=[1]) | options))


async def use_submit(**options: Any) -> None:
    await in_open_run(lambda run: run.submit(1, **options))


async def use_expect(**options: Any) -> None:
    async def expect(run: RunHandle) -> None:
        run.expect(**dict[str, Any](total=1) | options)

    await in_open_run(expect)


async def use_set_workers(**options: Any) -> None:
    async def set_workers(run: RunHandle) -> None:
        run.set_workers(**dict[str, Any](stage="Work", count=1) | options)

    await in_open_run(set_workers)


def use_with_workers(**options: Any) -> None:
    workers = options.pop("workers", None)
    Pipeline([a_stage()]).with_workers(workers, **options.pop("more", {}))


async def use_plan(**options: Any) -> None:
    given = {"items": [1], "journal": JOURNAL.good[1]} | options
    await Pipeline([a_stage()]).plan(**given)


def use_what_if(**options: Any) -> None:
    Pipeline([a_stage()]).what_if(**options)


def use_what_if_after(**options: Any) -> None:
    pipeline = Pipeline([a_stage()])
    pipeline.results.what_if(**options)


def fed_by_hand(method: str) -> Callable[..., Any]:
    async def use(**options: Any) -> None:
        pipeline = Pipeline([a_stage()])
        await pipeline.feed(["before"])
        try:
            await getattr(pipeline, method)(**{"items": some_numbers()} | options)
        finally:
            await pipeline.join()
            assert "before" in pipeline.results.values()

    return use


def asked(method: str, **defaults: Any) -> Callable[..., Any]:
    """A question to a tracker."""
    return lambda **options: getattr(StatusTracker(), method)(**defaults | options)


def use_telemetry(**options: Any) -> None:
    try:
        configure_telemetry(**options)
    finally:
        configure_telemetry()


NO_STAGES: list[Any] = [
    *[None, 5, "stages", a_stage(), {"Work": a_stage()}, [print], [a_stage(), None]],
    *[[[a_stage()]], [Stage], (a_stage() for _ in range(2)), Hostile()],
]
NO_ITEMS: list[Any] = [
    *(None, 5, print, list, range, "abc", b"abc", bytearray(b"abc"), {"a": 1}, True, Frame()),
    *(memoryview(b"abc"), Model()),
]
NO_TOTALS = [-1, 1.5, "5", True, NAN, INF, [1], Hostile()]

NO_ITERABLE = "must be an iterable|wrap it in a list|into its columns; pass its rows"
ITEMS = Row(TypeError, NO_ITERABLE, NO_ITEMS, [[1], (1,), range(1)])
TOTAL = Row(ValueError, f"{COUNT} >= 0", NO_TOTALS, [None, 0, 10**9])
MAX_FAILURES = Row(
    ValueError,
    "must be a whole number >= 1, a ratio above 0.0 and up to 1.0, or a Failures",
    [*NO_RATIOS, Failures],
    [None, 1, 0.5, Failures(count=5)],
)
STOP_ON = Row(ValueError, KINDS, NO_KINDS[1:], [None, *SOME_KINDS])
TIMEOUT = Row(ValueError, "seconds above 0 and at most 292 years", NO_TIMEOUTS, [None, 5, 9e9])
PROGRESS = Row(TypeError, FLAG, NO_FLAGS, [True, False])
KEY = Row(
    ValueError,
    "must be the name of a field, or a plain function",
    ["", 5, b"id", ["id"], lambda: 1, use_run, Hostile()],
    [None, "sku", lambda _: None],
)


class Watch:
    def closed(self, end: RunEnd) -> None: ...


class Waits:
    async def happened(self, step: ItemStep) -> None: ...


NO_OBSERVERS = (
    "must be a list of observers|must be an object with some of the methods opened, happened"
    "|must be a plain function"
)
LIMITS = {
    "total": TOTAL,
    "max_failures": MAX_FAILURES,
    "stop_on": STOP_ON,
    "timeout": TIMEOUT,
    "item_timeout": TIMEOUT,
    "key": KEY,
    "probe": Row(ValueError, FLAG, NO_FLAGS, [True, False]),
    "observers": Row(
        TypeError,
        NO_OBSERVERS,
        [5, "x", {}, Watch(), [5], [None], [Watch], [Hostile()], [Watch(), Waits()]],
        [None, [], (), [Watch()]],
    ),
    "trace": Row(
        TypeError,
        "must be the path of a file",
        but(NO_PATHS, None),
        [None, FOLDER / "trace.json", os.fspath(FOLDER / "trace.json.gz")],
    ),
    "report": Row(
        TypeError, "must be the path of a file", NO_PATHS[1:], [None, FOLDER / "antflow-report.md"]
    ),
}
OWN_FOLDER = tempfile.TemporaryDirectory()
JOURNAL = Row(
    TypeError,
    "must be the path of a file",
    but(NO_PATHS, None),
    [None, f"{OWN_FOLDER.name}/run.db", Journal(f"{OWN_FOLDER.name}/run.db")],
)
LIMITS["journal"] = JOURNAL
ON_FAILURES = Row(
    ValueError,
    "must be one of 'warn', 'raise', 'ignore'",
    [*NO_WORDS, "log"],
    ["warn", "raise", "ignore"],
)
RUN_ROWS = LIMITS | {
    "items": ITEMS,
    "progress": PROGRESS,
    "dashboard": Row(
        ValueError,
        "must be one of 'auto', 'log', 'compact', 'detailed', 'full', or a display",
        [Display, "compat", "", 5, True, object(), ["compact"], {}, Hostile()],
        [None, Display(), "log"],
    ),
    "custom_dashboard": Row(
        TypeError,
        "must be an object with some of the methods on_start, on_update, on_finish",
        [Display, "compact", "", 5, object(), [], print, Hostile()],
        [None, Display()],
    ),
    "dashboard_update_interval": Row(
        ValueError,
        "must be a finite number of seconds >= 0.01",
        [*NO_SECONDS, 0, 0.0, 1e-9, 0.009],
        [0.01, 1, 1e9],
    ),
    "keys": Row(BOTH, f"{FLAG}|keys=True needs a display", [*NO_FLAGS, True], [False]),
    "retry_failed": Row(
        BOTH,
        "must be results of an earlier run|must be a PipelineResult|needs a journal",
        [None, 5, [5], [None], ["x"], Hostile(), True, "KeyError", (KeyError,)],
        [[], (), False],
    ),
    "graceful_signals": Row(ValueError, SECONDS, but(NO_SECONDS, None), [None, 0, 5]),
    "on_failures": ON_FAILURES,
}
OF_DISPLAYS = ("progress", "dashboard", "custom_dashboard", "dashboard_update_interval", "keys")
STREAM_ROWS = {name: row for name, row in RUN_ROWS.items() if name != "on_failures"} | {
    "buffer_size": Row(
        ValueError, f"{COUNT} >= 0", [-1, 1.5, "5", True, NAN, [1], Hostile()], [None, 0, 5]
    ),
    "ordered": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
}
STAGE_NAME = Row(
    ValueError, "not found; the stages are 'Work'", ["work", "Wrk", "", 5, b"W", [], Hostile()], []
)
FEED_ROWS = {
    "key": KEY,
    "items": ITEMS,
    "target_stage": Row(ValueError, STAGE_NAME.allowed, STAGE_NAME.bad, [None, "Work"]),
    "priority": Row(
        TypeError,
        COUNT,
        [None, "high", 1.5, NAN, INF, True, [1], Hostile()],
        [0, -5, 10**400],
    ),
}


CALLBACK = Row(
    TypeError,
    r"must be a function or None|called as f\(event\)",
    [*NO_CALLABLES, lambda: None, lambda item_id, status: None],
    [None, print],
)
OF_RUN = Row(TypeError, "must be the id of a run", [5, b"x", [], True, Hostile()], [None, "x"])
ITEM_ID = Row(TypeError, "must be hashable", [[1], {}, ([],), Hostile()], [1, "x", None, NAN])

ROWS: dict[str, Row] = {
    "Pipeline.stages": Row(
        (TypeError, PipelineError),
        "must be a list of Stage|must be a Stage|at least one stage",
        [*NO_STAGES, [], ()],
        [[a_stage()], (a_stage(),)],
    ),
    "Pipeline.collect_results": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "Pipeline.status_tracker": Row(
        TypeError,
        "must be a StatusTracker",
        [5, "x", StatusTracker, True, {}, Hostile()],
        [None, StatusTracker()],
    ),
    "Pipeline.name": Row(TypeError, "must be a string", NO_STRINGS, ["", "\x1b[2J"]),
    "Pipeline.duplicates": Row(
        ValueError,
        "must be one of 'number', 'error', 'skip'",
        [*NO_WORDS, "numbers"],
        ["number", "error", "skip"],
    ),
    "Pipeline.store": Row(
        TypeError,
        "must be an object with the methods opened, admit, record and closed",
        [5, "x", object(), Hostile()],
        [None, MemoryStore()],
    ),
    "Pipeline.journal": JOURNAL,
    "Pipeline.observers": Row(
        TypeError,
        NO_OBSERVERS,
        [None, 5, "x", {}, Watch(), [5], [None], [Watch], [Hostile()], [Watch(), Waits()]],
        [[], (), [Watch()], [Watch(), Watch()]],
    ),
    "Durations.quantile.share": Row(
        ValueError,
        "must be a number from 0 to 1",
        [-0.1, 1.1, 95, NAN, INF, "0.5", None, True, Hostile()],
        [0, 1, 0.5],
    ),
    "Pipeline.blocked_loop_after": Row(
        ValueError,
        "must be a finite number of seconds >= 0.05",
        [0, 0.04, *but(NO_SECONDS, None)],
        [None, 0.05, 1, 1e300],
    ),
    "RunResults.what_if.workers": Row(
        (TypeError, ValueError),
        "must be a dict|not found; the stages are 'Work'|at most 100,000",
        [None, 5, "Work", ["Work"], Hostile(), {"work": 1}, {5: 1}, {"Work": 0}, {"Work": None}],
        [{}, {"Work": 3}],
        shown_as="(workers|stage)",
    ),
    "Pipeline.on_run_end.callback": Row(
        TypeError, "must be a (plain )?function", [None, *NO_CALLABLES], [lambda end: None]
    ),
    "Pipeline.what_if.workers": Row(
        (TypeError, ValueError),
        "must be a dict|not found; the stages are 'Work'|at most 100,000",
        [None, 5, "Work", ["Work"], Hostile(), {"work": 1}, {5: 1}, {"Work": 0}, {"Work": None}],
        [{}, {"Work": 3}],
        shown_as="(workers|stage)",
    ),
    "Pipeline.with_workers.workers": Row(
        (TypeError, ValueError),
        "must be a dict|not found; the stages are 'Work'|at most 100,000",
        [5, "Work", ["Work"], Hostile(), {"work": 1}, {5: 1}, {"Work": 0}, {"Work": None}],
        [None, {}, {"Work": 3}],
        shown_as="(workers|stage)",
    ),
    "Pipeline.with_workers.more": Row(
        (TypeError, ValueError),
        "not found; the stages are 'Work'|at most 100,000",
        [{"work": 1}, {"Work": 0}, {"Work": True}, {"Work": "3"}],
        [{}, {"Work": 3}],
        shown_as="(workers|stage)",
    ),
    "RunHandle.expect.total": TOTAL,
    "RunHandle.set_workers.stage": Row(
        ValueError, STAGE_NAME.allowed, [None, *STAGE_NAME.bad], ["Work"]
    ),
    "RunHandle.set_workers.count": Row(
        ValueError, f"{COUNT} from 1 to 100,000", [*NO_COUNTS, 100_001], [1, 5]
    ),
    "StatusTracker.callback_timeout": Row(
        TypeError, "must be a finite number of seconds >= 0.001", [0, *NO_SECONDS], [0.001, 60]
    ),
    "StatusTracker.history": Row(
        ValueError,
        'must be "full", "last", a whole number >= 1 of events, or None',
        [0, -1, 1.5, "none", "Last", "", True, NAN, [1], print, Hostile()],
        ["full", "last", 1, 1_000, None],
    ),
    "StatusTracker.keep_failed": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "StatusTracker.spill": Row(
        TypeError,
        "must be the path of a file, or None",
        [5, "", b"events.sqlite", True, ["events.sqlite"], print, Hostile()],
        [None],
    ),
    "StatusTracker.get_by_status.status": Row(
        ValueError, "must be one of 'queued', .*'failed'", [*NO_WORDS, "faild"], ["failed"]
    ),
    "FullDashboard.max_items_shown": Row(ValueError, f"{COUNT} >= 0", but(NO_COUNTS, 0), [0, 50]),
    "ProgressDisplay.total": Row(ValueError, f"{COUNT} >= 0", NO_TOTALS, [None, 0, 50]),
    "ProgressDisplay.width": Row(ValueError, f"{COUNT} >= 1", NO_COUNTS, [1, 50]),
    "create.name": Row(
        ValueError,
        "must be one of 'progress', 'auto', 'compact', 'detailed', 'full', 'log'",
        [*NO_WORDS, "compat"],
        ["progress", "auto", "log"],
    ),
    "in_thread.source": Row(
        TypeError,
        f"{NO_ITERABLE}|needs no thread",
        [*but(NO_ITEMS, print, list, range), some_numbers, some_numbers(), lambda needed: [needed]],
        [[1], range(1), list],
        shown_as="(source|items)",
    ),
    "configure_telemetry.enabled": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "configure_telemetry.spans": Row(
        ValueError, "must be one of 'children', 'linked'", [*NO_WORDS, "link"], ["linked"]
    ),
    "configure_telemetry.sample_ratio": Row(
        ValueError,
        "must be a number from 0.0 to 1.0",
        [-0.1, 1.1, 2, NAN, INF, "1", None, True, [], Hostile()],
        [0, 0.5, 1],
    ),
    "configure_telemetry.tracer_provider": Row(
        TypeError, r"must have a method get_tracer\(\)", [5, "x", object(), Hostile()], [None]
    ),
    "configure_telemetry.meter_provider": Row(
        TypeError, r"must have a method get_meter\(\)", [5, "x", object(), Hostile()], [None]
    ),
}
for name, row in RUN_ROWS.items():
    ROWS[f"Pipeline.run.{name}"] = row
for name, row in STREAM_ROWS.items():
    ROWS[f"Pipeline.stream.{name}"] = row
for name, row in LIMITS.items():
    ROWS[f"Pipeline.open.{name}"] = row
ROWS["Pipeline.open.on_failures"] = ON_FAILURES
ROWS["Pipeline.open.retry_failed"] = Row(
    BOTH,
    "must be True, False, or a tuple of exception classes or their names|needs a journal",
    [None, 5, "", (), (5,), int, "no name", Hostile(), True, "KeyError", (KeyError,)],
    [False],
)
for name in ("max_failures", "stop_on", "probe"):
    ROWS[f"Pipeline.start.{name}"] = LIMITS[name]
for name in OF_DISPLAYS:
    ROWS[f"Pipeline.open.{name}"] = ROWS[f"Pipeline.start.{name}"] = RUN_ROWS[name]
for name, row in FEED_ROWS.items():
    for call in ("Pipeline.feed", "Pipeline.feed_async", "RunHandle.feed"):
        ROWS[f"{call}.{name}"] = row
    if name != "items":
        ROWS[f"RunHandle.submit.{name}"] = row
ROWS |= {
    "Pipeline.plan.items": ITEMS,
    "Pipeline.plan.journal": Row(TypeError, JOURNAL.allowed, JOURNAL.bad, JOURNAL.good[1:]),
    "Pipeline.plan.key": KEY,
    "Pipeline.plan.retry_failed": Row(
        TypeError,
        "must be True, False, or a tuple of exception classes or their names",
        [5, "", (), (5,), int, "no name", Hostile()],
        [None, True, False, KeyError, "KeyError", (KeyError, "shop.AuthError")],
    ),
}
for name in ("status_change", "task_start", "task_complete", "task_retry", "task_fail"):
    ROWS[f"StatusTracker.on_{name}"] = CALLBACK
QUERIES = ("by_status", "error_summary", "failed_items", "history", "stats", "status")
for name in (*QUERIES, "tracked_ids"):
    ROWS[f"StatusTracker.get_{name}.run"] = OF_RUN
for name in ("status", "history"):
    ROWS[f"StatusTracker.get_{name}.item_id"] = ITEM_ID

USES: dict[str, Callable[..., Any]] = {
    "FullDashboard": FullDashboard,
    "Pipeline": use_pipeline,
    "Pipeline.feed": fed_by_hand("feed"),
    "Pipeline.feed_async": fed_by_hand("feed_async"),
    "Pipeline.open": use_open,
    "Pipeline.run": use_run,
    "Pipeline.plan": use_plan,
    "Pipeline.on_run_end": lambda **options: Pipeline([a_stage()]).on_run_end(**options),
    "Pipeline.start": use_start,
    "Pipeline.stream": use_stream,
    "Pipeline.what_if": use_what_if,
    "RunResults.what_if": use_what_if_after,
    "Pipeline.with_workers": use_with_workers,
    "ProgressDisplay": ProgressDisplay,
    "RunHandle.feed": use_feed_of_run,
    "RunHandle.submit": use_submit,
    "Durations.quantile": Durations(1).quantile,
    "RunHandle.expect": use_expect,
    "RunHandle.set_workers": use_set_workers,
    "StatusTracker": StatusTracker,
    "StatusTracker.get_by_status": asked("get_by_status", status="failed"),
    "StatusTracker.get_error_summary": asked("get_error_summary"),
    "StatusTracker.get_failed_items": asked("get_failed_items"),
    "StatusTracker.get_history": asked("get_history", item_id=1),
    "StatusTracker.get_stats": asked("get_stats"),
    "StatusTracker.get_status": asked("get_status", item_id=1),
    "StatusTracker.get_tracked_ids": asked("get_tracked_ids"),
    "configure_telemetry": use_telemetry,
    "create": create,
    "in_thread": in_thread,
}
