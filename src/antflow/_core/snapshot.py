"""The state of a run now: the values a dashboard is given.

A snapshot is a true copy: it never changes afterwards, and its cost grows with the number of stages
and workers, never with the number of items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from antflow._core.counters import CounterStats
from antflow._core.deferred import Deferred
from antflow._core.durations import Durations
from antflow._core.estimates import Eta
from antflow._core.first_tries import FirstTries
from antflow._core.journal_state import JournalState
from antflow._core.ledger import Waiting
from antflow._core.levers import Advice
from antflow._core.portable import Portable
from antflow._core.recent import RecentStats
from antflow._core.sink_counts import SinkCounts
from antflow._core.text import clean, counted, cut, safe_repr
from antflow._core.workers_change import WorkersChange

LONGEST_ERROR = 1000
"""Characters of an error's text in the line about an item; the item's result has all of it."""

LONGEST_EXAMPLE = 200
"""The same for the example of a group."""

WorkerStatus = Literal["idle", "busy"]
"""Whether a worker has an item."""

RunState = Literal["idle", "running", "paused", "draining", "stopping", "cancelling", "finished"]
"""The state of a run.

Not begun · at work · paused · input ended · shutting down · being cancelled · over.
"""


@dataclass(slots=True, repr=False)
class WorkerState(Portable):
    """The state of one worker at this moment.

    Attributes:
        worker_name: ``"Fetch-W0"``.
        stage: Name of its stage.
        status: "busy" while it has an item, else "idle".
        current_item_id: Id of the item it has.
        current_task: Name of the task that runs.
        processing_since: When it began with the item, in Unix seconds.
        task_status: What the task says it is doing (`set_task_status`), "" if nothing.
        waits_for: ``None``; "blocked" (no room in the next stage; also a slow consumer of the
            results, the store, or a callback that is awaited at the end of a visit), "limited" (by
            a `Limit`, any other limit of its stage, or `RetryAfter`), "retrying" (too many items of
            its stage wait for their next try), or "thread" (its task ran into its timeout, and goes
            on). The seconds of the first three are counted in `StageStats`.
        batch_size: How many items it has.
        attempt: Which try of the item this is, from 1; 0 while it has none.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("current_item_id",)

    worker_name: str
    stage: str
    status: WorkerStatus
    current_item_id: Any = None
    current_task: str | None = None
    processing_since: float | None = None
    task_status: str = ""
    waits_for: Waiting | None = None
    batch_size: int = 0
    attempt: int = 0


@dataclass(slots=True)
class WorkerMetrics(Portable):
    """The work one worker has done so far.

    Attributes:
        worker_name: ``"Fetch-W0"``.
        stage: Name of its stage.
        items_processed: Items it has brought through its stage.
        items_failed: Items that failed for good in its hands.
        total_processing_time: Seconds it spent on items, failed tries included.
        last_active: When it last began or ended an item, in Unix seconds; ``None`` if never.
    """

    worker_name: str
    stage: str
    items_processed: int = 0
    items_failed: int = 0
    total_processing_time: float = 0.0
    last_active: float | None = None

    @property
    def avg_processing_time(self) -> float:
        """Seconds per item, over processed and failed ones; 0.0 before the first."""
        items = self.items_processed + self.items_failed
        return self.total_processing_time / items if items else 0.0


@dataclass(slots=True)
class StageStats(Portable):
    """Counts of one stage.

    Each item that came to it has left it in one of six ways, or is inside:

    ```
    entered = completed + expanded + skipped + failed + dropped + cancelled + inside
    inside  = pending + blocked + in progress + retrying
    ```

    In the event loop of the run this is exact; read from another thread, two counters may be one
    step apart.

    Attributes:
        stage_name: The stage.
        pending_items: Waiting in its channel.
        in_progress_items: In the hands of its workers.
        completed_items: Brought through it.
        failed_items: Failed for good in it.
        retried_items: Failed tries that were, or will be, followed by another, and those that were
            held (`RetryAfter`), which do not count as tries.
        skipped_items: Passed through unchanged (``skip_if``).
        dropped_items: Ended here without a result (`Drop`).
        expanded_items: Became several items here.
        made_items: Made here from others (``expand=True``); they go on to the next stage.
        cancelled_items: Stopped here by a cancellation or shutdown.
        retrying_items: Waiting for their next try.
        blocked_items: Announced to this stage and waiting for room, with the worker that sends
            them.
        batches: How often its tasks were called with a batch (``batch=``), tries included.
        batched_items: How many items those batches had, all together.
        workers: How many workers the stage has.
        running_workers: Those that are in a task now. Their seconds count as ``busy_seconds``.
        limited_workers, blocked_workers, retrying_workers: Those that wait: for a limit, for room
            in the next stage (or a callback), for retries. Their seconds count under the same
            names. The others have nothing to do.
        capacity: Room in its channel; ``None`` = unbounded.
        concurrency: How many tries, or calls in them, its tightest limit lets in at once: of
            ``limits``, ``task_concurrency_limits`` and ``call_concurrency``; ``None`` = all.
        limited_items: In the hands of workers that wait for a limit.
        abandoned_threads: Threads whose task ran into its timeout and that have not ended yet.
        run_times: How long its tries took: from a worker's start on an item to the end of the try,
            less the time for which it waited: for a limit, a pause, room in the next stage (while
            an item becomes others) or a callback at the end. Each item of a batch counts as a try
            that took as long as the batch.
        queue_waits: How long items waited in its channel for a worker, before each try.

    Every second of every worker is one of these, in seconds of all workers together:

    Attributes:
        busy_seconds: At work on items, and on what went on after its timeout. This includes
            callbacks awaited at the beginning of a visit, waits inside a task, and the turns of the
            event loop for which a worker gives way between two items.
        limited_seconds: Waiting for a `Limit`, or held by `RetryAfter`. Also waiting in the middle
            of a try for ``task_concurrency_limits``, ``concurrency_limit()`` or ``rate_limit()``:
            if a task makes several calls at once, the time while any of them waits, counted once.
        blocked_seconds: Waiting for room in the next stage, for a slow consumer, or at the end of a
            visit for the store or a callback.
        retry_waiting_seconds: Taking nothing new because too many items wait for their next try.
        starved_seconds: With nothing to do.
        stalled_seconds: Unable to go on, whatever they were doing, because something blocked the
            event loop; the time of the worker that blocked it is included. A thread or a server
            that they waited for may have gone on meanwhile.

    And, apart from these:

    Attributes:
        child_cpu_seconds: Processor time that its child processes took (``executor="process"``),
            including ended ones, in seconds. For a killed one it is its last report: from half a
            second before, or longer if its task did not release Python's lock. The time of programs
            it started is not known. 0.0 for a stage without child processes.
        thread_cpu_seconds: Processor time that its threads took (plain functions), in seconds. For
            tasks on the event loop it is 0.0: their share of its time cannot be told from others'.
        held_seconds: Seconds of the run for which a service's `RetryAfter` let no try begin. The
            time for which workers waited meanwhile is among ``limited_seconds``.
        holds: How often `RetryAfter` was raised.
        failed_seconds: Seconds of ``busy_seconds`` spent on tries that failed.
        first_tries: How long the first try of each worker took.
        counters: Name → what its tasks have counted (`antflow.count`).
        errors_by_type: Class name of an error → items that failed for good with it; together they
            are ``failed_items``.
        retries_by_type: The same of failed tries that another one follows, or that were held;
            together they are ``retried_items``.
        nodes: Worker processes of a cluster that call its tasks (``executor="dask://…"``), or that
            did so last; 0 for a stage whose tasks run here.
    """

    stage_name: str
    pending_items: int
    in_progress_items: int
    completed_items: int
    failed_items: int
    retried_items: int = 0
    skipped_items: int = 0
    dropped_items: int = 0
    expanded_items: int = 0
    cancelled_items: int = 0
    retrying_items: int = 0
    blocked_items: int = 0
    limited_items: int = 0
    abandoned_threads: int = 0
    workers: int = 0
    capacity: int | None = None
    concurrency: int | None = None
    busy_seconds: float = 0.0
    limited_seconds: float = 0.0
    blocked_seconds: float = 0.0
    retry_waiting_seconds: float = 0.0
    starved_seconds: float = 0.0
    stalled_seconds: float = 0.0
    child_cpu_seconds: float = 0.0
    thread_cpu_seconds: float = 0.0
    held_seconds: float = 0.0
    holds: int = 0
    failed_seconds: float = 0.0
    first_tries: FirstTries = field(default_factory=FirstTries)
    run_times: Durations = field(default_factory=Durations)
    queue_waits: Durations = field(default_factory=Durations)
    made_items: int = 0
    batches: int = 0
    batched_items: int = 0
    running_workers: int = 0
    limited_workers: int = 0
    blocked_workers: int = 0
    retrying_workers: int = 0
    counters: dict[str, CounterStats] = field(default_factory=dict[str, CounterStats])
    errors_by_type: dict[str, int] = field(default_factory=dict[str, int])
    retries_by_type: dict[str, int] = field(default_factory=dict[str, int])
    nodes: int = 0

    @property
    def through_items(self) -> int:
        """Items that came through it: completed, or became others. Displays call them done."""
        return self.completed_items + self.expanded_items

    @property
    def left_items(self) -> int:
        """Items that have left it, in whatever way."""
        passed = self.through_items + self.skipped_items
        return passed + self.failed_items + self.dropped_items + self.cancelled_items

    @property
    def inside_items(self) -> int:
        """Items that came to it and have not left it."""
        waiting = self.pending_items + self.blocked_items + self.retrying_items
        return waiting + self.in_progress_items

    @property
    def entered_items(self) -> int:
        """Items that came to it."""
        return self.left_items + self.inside_items


@dataclass(slots=True)
class PipelineStats(Portable):
    """Counts of a whole run.

    Accepted items and children are processed, failed, dropped, expanded, cancelled or in flight.

    Attributes:
        items_processed: Came out at the end successfully.
        items_failed: Failed for good.
        items_in_flight: Accepted and not settled.
        queue_sizes: Stage name → items waiting in its channel.
        stage_stats: Stage name → its counts, in pipeline order.
        items_accepted: Taken in.
        items_dropped: Ended successfully without a result.
        items_expanded: Became several items.
        items_cancelled: Stopped by a cancellation or shutdown.
        items_children: Made from other items (``expand=True``).
        items_skipped_duplicates: Not taken in, because their id was taken (``duplicates="skip"``).
        items_resumed: Of all these, how many had ended in an earlier run, as its journal says.
        items_changed: How many are run again, because their input or a stage has changed since.
        items_omitted: How many results are not in the journal: see `RunResults.omitted`.
        counters: Name → what the tasks of all stages have counted (`antflow.count`).
        item_times: How long items took, from their intake (or from when they were made) to their
            outcome, whatever that was. ``None`` unless `Pipeline.time_items` was called before the
            run.
    """

    items_processed: int
    items_failed: int
    items_in_flight: int
    queue_sizes: dict[str, int]
    stage_stats: dict[str, StageStats] = field(default_factory=dict[str, StageStats])
    items_accepted: int = 0
    items_dropped: int = 0
    items_expanded: int = 0
    items_cancelled: int = 0
    items_children: int = 0
    items_skipped_duplicates: int = 0
    items_resumed: int = 0
    items_changed: int = 0
    items_omitted: int = 0
    counters: dict[str, CounterStats] = field(default_factory=dict[str, CounterStats])
    item_times: Durations | None = None


@dataclass(slots=True, repr=False)
class FailedItem(Portable):
    """An item that failed for good.

    Attributes:
        item_id: The item's id.
        error: The error's text.
        error_type: The error's class name.
        stage: Name of the stage it failed in.
        attempts: How many tries the task (or stage) was given.
        timestamp: When, in Unix seconds.
        location: The line of your own code that the error comes from, ``"app.py:12 in parse"``:
            the innermost one that is neither in a package nor in the standard library. If there is
            none, as in a task that is not written in Python, it is the task: ``"in json.loads"``.
        input: The item as it was fed, in at most 80 characters. Objects of your own classes are
            shown by their class (``<Order>``), except in the first item of a `FailureGroup`: its
            input is shown by its ``repr()``.

    ``str()`` says all of this in one line.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("item_id",)

    item_id: Any
    error: str
    error_type: str
    stage: str
    attempts: int
    timestamp: float
    location: str = ""
    input: str = ""

    def __str__(self) -> str:
        given = f" (input {clean(self.input)})" if self.input else ""
        message = clean(cut(self.error, LONGEST_ERROR))
        return (
            f"item {clean(safe_repr(self.item_id))}{given} failed in stage {clean(self.stage)}"
            f"{at_text(self.location)} {_tries(self.attempts)}: {clean(self.error_type)}"
            f"{': ' if message else ''}{message}"
        )


@dataclass(slots=True)
class FailureGroup(Portable):
    """Failures of one type that come from one line of code. ``str()`` tells how many, and where.

    Attributes:
        count: How many items failed like this.
        first: The first of them.
    """

    count: int
    first: FailedItem

    @property
    def error_type(self) -> str:
        """The class name of their errors."""
        return self.first.error_type

    @property
    def location(self) -> str:
        """Where they come from: see `FailedItem.location`."""
        return self.first.location

    @property
    def stage(self) -> str:
        """Name of the stage they failed in."""
        return self.first.stage

    @property
    def example(self) -> str:
        """The first of them: ``input 'x' in stage Parse after 3 attempts: no such page``."""
        first = self.first
        text = f"input {first.input}" if first.input else f"item {safe_repr(first.item_id)}"
        stage = f" in stage {first.stage}" if first.location else ""
        message = cut(first.error, LONGEST_EXAMPLE)
        colon = ": " if message else ""
        return clean(f"{text}{stage} {_tries(first.attempts)}{colon}{message}")

    def __str__(self) -> str:
        where = at_text(self.location) or f" in stage {clean(self.stage)}"
        return f"{self.count:,} × {clean(self.error_type)}{where}"


def at_text(location: str) -> str:
    """`` at app.py:3 in f`` or `` in json.loads``; "" if nothing is known."""
    if not location:
        return ""
    return f" {clean(location)}" if location.startswith("in ") else f" at {clean(location)}"


def _tries(attempts: int) -> str:
    return f"after {counted(attempts, 'attempt')}" if attempts else "before its first attempt"


@dataclass(slots=True)
class ErrorSummary(Portable):
    """Failures summed up. ``str()`` gives a short text for people.

    Attributes:
        total_failed: How many items failed for good.
        errors_by_type: Error class name → count.
        errors_by_stage: Stage name → count.
        failed_items: The failed items, oldest first. In a snapshot, and where results are not
            collected, only the last ones.
        groups: The failures by type, stage and line of code, the largest group first. A run
            distinguishes at most 100 groups; failures in others have no `location` here. Two
            summaries may be equal with different groups.
    """

    total_failed: int
    errors_by_type: dict[str, int]
    errors_by_stage: dict[str, int]
    failed_items: list[FailedItem]
    groups: list[FailureGroup] = field(default_factory=list[FailureGroup], compare=False)

    def __str__(self) -> str:
        if not self.total_failed:
            return "No errors occurred"
        lines = [counted(self.total_failed, "failed item")]
        for heading, counts in (("type", self.errors_by_type), ("stage", self.errors_by_stage)):
            lines += ["", f"By {heading}:"]
            lines += [f"  {clean(name)}: {count:,}" for name, count in counts.items()]
        if self.groups:
            lines += ["", "By place:"]
            for group in self.groups:
                lines += [f"  {group}", f"    e.g. {group.example}"]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, repr=False)
class LoopStall(Portable):
    """Something blocked the event loop: nothing else could run meanwhile.

    Attributes:
        seconds: How long, at least; it may have been up to 0.1 s longer.
        timestamp: When it was noticed, in Unix seconds.
        stage: Name of the stage whose workers did it; "" if none of this run did.
        worker_name: The worker, ``"Fetch-W0"``; "" if none did, or many one after another, each for
            a short time.
        item_id: Id of the item that the worker had; of a batch, of the first one.
        location: Where: ``"app.py:41 in parse"``, the file relative to the current folder if it
            is in there; the name of a task that is not written in Python; "" if it could not be
            seen.
        line: The line of source there: ``"time.sleep(1)"``; "" if it could not be read.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("item_id",)

    seconds: float
    timestamp: float
    stage: str = ""
    worker_name: str = ""
    item_id: Any = None
    location: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A line of code at which the event loop was seen at work.

    Attributes:
        share: How many of the last looks at the loop that found it at work found it there, 0 to 1.
        stage: Name of the stage whose worker it was; "" if none of this run was.
        location: Where: ``"app.py:41 in parse"``; see `LoopStall`.
        line: The line of source there; "" if it could not be read.
    """

    share: float
    stage: str
    location: str
    line: str


@dataclass(frozen=True, slots=True)
class LoopHealth:
    """Whether the event loop of a run gets its turns.

    A loop with virtual time is not watched, nor is one where ``blocked_loop_after`` is ``None``.

    Attributes:
        lag: Seconds by which its last heartbeat was late; during a block, by which it is late now.
        stalls: How often it was blocked for ``blocked_loop_after`` or longer (by default a quarter
            of a second). Blocks up to 0.1 s shorter may be included.
        stalled_seconds: Seconds it has been late in total, without delays below 0.05 s.
        last_stall: The latest block, which may still go on.
        busy_seconds: Seconds of the run for which the loop was at work, or blocked; it waited for
            the rest. Where the loop is not one of asyncio's own (uvloop), the processor time of
            its thread.
        gil_share: The share of the last seconds for which a thread of this process held Python's
            lock (the GIL), 0 to 1, by samples: near 1, threads that run Python code wait for each
            other. Code that releases the lock, like compression, does not count. ``None`` if it is
            not known.
        hot_spot: Where the loop was mostly seen at work in the last seconds, if that was one place.
    """

    lag: float = 0.0
    stalls: int = 0
    stalled_seconds: float = 0.0
    last_stall: LoopStall | None = None
    busy_seconds: float = 0.0
    gil_share: float | None = None
    hot_spot: HotSpot | None = None


NO_ADVICE = Advice()
NOTHING_RECENT = RecentStats()


@dataclass(slots=True)
class DashboardSnapshot(Deferred):
    """Everything a dashboard shows, at one moment.

    The counts and the values of single workers are made when they are first read, from what was
    noted then.

    Attributes:
        worker_states: Worker name → what it does now, in pipeline order.
        worker_metrics: Worker name → what it has done, in pipeline order.
        pipeline_stats: Counts of the run and of each stage.
        error_summary: Exact counts by type and stage, and the last failures.
        timestamp: When it was taken, in Unix seconds.
        run_id: The run it shows; "" before the first one.
        total_items: How many items the run will have, ``None`` while that is not known. If
            ``len(items)`` may be slow (not a list, a range and the like), the first snapshot taken
            in the run's event loop, while the run is under way, calls it.
        state: The state of the run.
        elapsed: Seconds since the run began.
        loop: Whether something blocks the event loop.
        cpu_seconds: Seconds of processor time that the whole process took since the run began, in
            all its threads, including the child processes of its stages (``executor="process"``,
            `StageStats.child_cpu_seconds`). The time of processes of your own executor is not
            known.
        intake_seconds: Seconds for which items could come: ``elapsed`` while they still can.
        advice: What holds the run back, and what would help; at the end, over the whole run.
        eta: How much longer the run will take; ``None`` while that cannot be known: the total is
            not known and items still come, a stage has not done anything yet, or the run is not
            under way (paused, stopping, over).
        recent: Rates, durations and shares of time in the last minute, stage by stage, beside those
            of the whole run in ``pipeline_stats``; at the end, over the whole run.
        workers_changes: Changes of the numbers of workers during the run, oldest first: those made
            by `RunHandle.set_workers` and by probes. The latest hundred.
        sinks: Sink's name → how many events it has heard, written and lost, over all its runs:
            ``{"JsonlSink": …}``, a second one is "JsonlSink 2".
        journal: How far the run's journal has got; ``None`` if it keeps none, or is over.
    """

    worker_states: dict[str, WorkerState]
    worker_metrics: dict[str, WorkerMetrics]
    pipeline_stats: PipelineStats
    error_summary: ErrorSummary
    timestamp: float
    run_id: str = ""
    total_items: int | None = None
    state: RunState = "idle"
    elapsed: float = 0.0
    loop: LoopHealth = LoopHealth()
    cpu_seconds: float = 0.0
    intake_seconds: float = 0.0
    advice: Advice = NO_ADVICE
    eta: Eta | None = None
    recent: RecentStats = NOTHING_RECENT
    workers_changes: tuple[WorkersChange, ...] = ()
    sinks: Mapping[str, SinkCounts] = field(default_factory=dict[str, SinkCounts])
    journal: JournalState | None = None
