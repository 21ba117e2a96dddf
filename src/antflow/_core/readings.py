"""Reading the books: from a ledger to the values that people look at.

Everything here is O(stages + workers). It may be called from another thread while the run goes on:
then every counter is true, and sums may be one transition apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from antflow._core.ledger import Ledger, StageBook, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import PipelineStats, StageStats, WorkerMetrics, WorkerState


@dataclass(slots=True)
class StageGauge:
    """What the books of a stage do not know.

    Attributes:
        workers: How many workers it has.
        capacity: Room in its channel; ``None`` = unbounded.
        blocked: Items in it beyond the capacity, each with a sender that waits.
    """

    workers: int
    capacity: int | None
    blocked: int = 0


def pipeline_stats(ledger: Ledger, facts: RunFacts, gauges: Sequence[StageGauge]) -> PipelineStats:
    """The counts of the run and of each stage."""
    stages = {
        name: _stage_stats(name, book, gauge)
        for name, book, gauge in zip(facts.stage_names, ledger.stages, gauges, strict=True)
    }
    last = stages[facts.stage_names[-1]]
    return PipelineStats(
        items_processed=last.completed_items + last.skipped_items,
        items_failed=ledger.failed,
        items_in_flight=ledger.in_flight,
        queue_sizes={name: stats.pending_items for name, stats in stages.items()},
        stage_stats=stages,
        items_accepted=ledger.accepted,
        items_dropped=ledger.dropped,
        items_expanded=ledger.expanded,
        items_cancelled=ledger.cancelled,
    )


def _stage_stats(name: str, book: StageBook, gauge: StageGauge) -> StageStats:
    workers = tuple(book.workers.values())
    completed = sum([worker.completed for worker in workers])
    in_progress = sum([worker.item is not None for worker in workers])
    left = completed + book.failed + book.skipped + book.dropped + book.expanded + book.cancelled
    waiting = book.entered - left - in_progress - book.retrying
    blocked = min(gauge.blocked, max(waiting, 0))
    return StageStats(
        stage_name=name,
        # Read from another thread, two counters may be one transition apart.
        pending_items=max(waiting - blocked, 0),
        in_progress_items=in_progress,
        completed_items=completed,
        failed_items=book.failed,
        retried_items=book.retried,
        skipped_items=book.skipped,
        dropped_items=book.dropped,
        cancelled_items=book.cancelled,
        retrying_items=book.retrying,
        blocked_items=blocked,
        workers=gauge.workers,
        capacity=gauge.capacity,
        busy_seconds=sum([worker.busy for worker in workers]),
    )


def worker_names(facts: RunFacts, gauges: Sequence[StageGauge]) -> dict[str, list[str]]:
    """Stage name → names of its workers, by number."""
    return {
        name: [facts.worker_name(stage, index) for index in range(gauge.workers)]
        for stage, (name, gauge) in enumerate(zip(facts.stage_names, gauges, strict=True))
    }


def worker_states(
    ledger: Ledger, facts: RunFacts, gauges: Sequence[StageGauge]
) -> dict[str, WorkerState]:
    """Worker name → what it does now; workers that have not been needed yet are idle."""
    states: dict[str, WorkerState] = {}
    for name, stage, worker in _each_worker(ledger, facts, gauges):
        item = None if worker is None else worker.item
        if worker is None or item is None:
            states[name] = WorkerState(name, stage, "idle")
        else:
            since = facts.timestamp(worker.since)
            states[name] = WorkerState(name, stage, "busy", item.id, worker.task, since)
    return states


def worker_metrics(
    ledger: Ledger, facts: RunFacts, gauges: Sequence[StageGauge]
) -> dict[str, WorkerMetrics]:
    """Worker name → what it has done so far."""
    metrics: dict[str, WorkerMetrics] = {}
    for name, stage, worker in _each_worker(ledger, facts, gauges):
        if worker is None:
            metrics[name] = WorkerMetrics(name, stage)
        else:
            last_active = None if isnan(worker.since) else facts.timestamp(worker.since)
            metrics[name] = WorkerMetrics(
                name, stage, worker.completed, worker.failed, worker.busy, last_active
            )
    return metrics


def _each_worker(
    ledger: Ledger, facts: RunFacts, gauges: Sequence[StageGauge]
) -> list[tuple[str, str, WorkerBook | None]]:
    """``(worker name, stage name, book)``: the configured workers, and those yet to retire."""
    rows: list[tuple[str, str, WorkerBook | None]] = []
    for stage, (name, book, gauge) in enumerate(
        zip(facts.stage_names, ledger.stages, gauges, strict=True)
    ):
        books = dict(book.workers)
        most = gauge.workers
        if len(books) > most:
            busy = [index for index, worker in books.items() if worker.item is not None]
            most = max([most, *(index + 1 for index in busy)])
        rows += [(facts.worker_name(stage, index), name, books.get(index)) for index in range(most)]
    return rows
