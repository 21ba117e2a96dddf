"""Reads the books: from a ledger to the values that people look at.

Everything here is O(stages + workers). It may be called from another thread while the run goes on:
then every counter is true, and sums may be one transition apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from antflow._core.counters import Counters, CounterStats, summed
from antflow._core.ledger import Ledger
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import PipelineStats, StageStats
from antflow._core.tally import Tally
from antflow._core.to_come import expected
from antflow._core.worker_time import spent


@dataclass(slots=True)
class StageGauge:
    """Figures that the books of a stage do not have.

    Attributes:
        workers: How many workers it has.
        capacity: Room in its channel; ``None`` = unbounded.
        blocked: Items in it beyond the capacity, each with a sender that waits.
        abandoned_threads: Threads whose task ran into its timeout and that have not ended yet.
        worker_seconds: Seconds the stage has had workers, all of them together.
        child_cpu_seconds: Seconds of processor time that its child processes have taken.
        concurrency: See `antflow._core.stage.lowest_concurrency`.
        thread_cpu_seconds: Seconds of processor time that its threads have taken.
        held_seconds: Seconds for which `RetryAfter` let no try begin.
        holds: How often `RetryAfter` was raised.
        batches: How often its tasks were called with a batch.
        batched_items: How many items those batches had.
        counters: What its tasks count.
    """

    workers: int
    capacity: int | None
    blocked: int = 0
    abandoned_threads: int = 0
    worker_seconds: float = 0.0
    child_cpu_seconds: float = 0.0
    concurrency: int | None = None
    thread_cpu_seconds: float = 0.0
    held_seconds: float = 0.0
    holds: int = 0
    batches: int = 0
    batched_items: int = 0
    counters: Counters | None = None


def pipeline_stats(
    ledger: Ledger,
    tallies: Sequence[Tally],
    facts: RunFacts,
    gauges: Sequence[StageGauge],
    now: float,
    skipped_duplicates: int = 0,
    coming: int | None = None,
    is_over: bool = False,
) -> PipelineStats:
    """The counts of the run and of each stage.

    Args:
        ledger: The books.
        tallies: The workers of each stage.
        facts: What is known of the run.
        gauges: What the books do not have, of each stage.
        now: The time.
        skipped_duplicates: Items left out because their id was taken.
        coming: How many items have yet to come; ``None`` if that is not known.
        is_over: Whether the run is over.
    """
    stages = {
        name: _stage_stats(name, tally, gauge, now)
        for name, tally, gauge in zip(facts.stage_names, tallies, gauges, strict=True)
    }
    counted = [
        {} if each.counters is None else each.counters.read(now - facts.started_mono, is_over)
        for each in gauges
    ]
    if has_counters := any(counted):
        _project(list(stages.values()), counted, coming)
    return PipelineStats(
        items_processed=ledger.came_out(tallies[-1].completed),
        items_failed=ledger.failed,
        items_in_flight=ledger.in_flight,
        queue_sizes={name: stats.pending_items for name, stats in stages.items()},
        stage_stats=stages,
        items_accepted=ledger.accepted,
        items_dropped=ledger.dropped,
        items_expanded=ledger.expanded,
        items_cancelled=ledger.cancelled,
        items_children=ledger.children,
        items_skipped_duplicates=skipped_duplicates,
        counters=summed(stage.counters for stage in stages.values()) if has_counters else {},
    )


def _project(
    stages: Sequence[StageStats], counted: Sequence[dict[str, CounterStats]], coming: int | None
) -> None:
    """Enter what each stage has counted, and how much that will be in the end."""
    to_come = expected(stages, coming or 0)
    for stage, counters, ahead in zip(stages, counted, to_come, strict=True):
        stage.counters = counters
        tried = stage.through_items + stage.failed_items + stage.dropped_items
        if coming is not None and tried:
            times = 1 + ahead.to_leave / stage.left_items
            stage.counters = {
                name: replace(each, projected=each.total * times) for name, each in counters.items()
            }


def _stage_stats(name: str, tally: Tally, gauge: StageGauge, now: float) -> StageStats:
    book, completed, in_progress = tally.book, tally.completed, tally.in_progress
    # Read from another thread, two counters may be one transition apart.
    waiting = max(book.waiting_besides(completed + in_progress), 0)
    blocked = min(gauge.blocked, waiting)
    tries = completed + book.failed + book.retried + book.dropped + book.expanded
    time, standing = spent(tally, gauge, now), tally.standing()
    return StageStats(
        stage_name=name,
        pending_items=waiting - blocked,
        in_progress_items=in_progress,
        completed_items=completed,
        failed_items=book.failed,
        retried_items=book.retried,
        skipped_items=book.skipped,
        dropped_items=book.dropped,
        expanded_items=book.expanded,
        cancelled_items=book.cancelled,
        retrying_items=book.retrying,
        blocked_items=blocked,
        limited_items=tally.limited,
        abandoned_threads=gauge.abandoned_threads,
        workers=gauge.workers,
        capacity=gauge.capacity,
        concurrency=gauge.concurrency,
        busy_seconds=time["busy"] + time["thread"],  # it works on after its time
        limited_seconds=time["limited"],
        blocked_seconds=time["blocked"],
        retry_waiting_seconds=time["retrying"],
        starved_seconds=time["starved"],
        stalled_seconds=time["stalled"],
        child_cpu_seconds=gauge.child_cpu_seconds,
        thread_cpu_seconds=gauge.thread_cpu_seconds,
        held_seconds=gauge.held_seconds,
        holds=gauge.holds,
        failed_seconds=book.failed_seconds,
        first_tries=book.first_tries.read(),
        run_times=book.run_times.read(tries),
        queue_waits=book.queue_waits.read(tries + in_progress),
        made_items=book.emitted,
        batches=gauge.batches,
        batched_items=gauge.batched_items,
        running_workers=standing["busy"],
        limited_workers=standing["limited"],
        blocked_workers=standing["blocked"],
        retrying_workers=standing["retrying"],
        errors_by_type=book.errors.copy(),
        retries_by_type=book.retries.copy(),
    )


def worker_names(facts: RunFacts, gauges: Sequence[StageGauge]) -> dict[str, list[str]]:
    """Stage name → names of its workers, by number."""
    return {
        name: [facts.worker_name(stage, index) for index in range(gauge.workers)]
        for stage, (name, gauge) in enumerate(zip(facts.stage_names, gauges, strict=True))
    }
