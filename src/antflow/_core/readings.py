"""Reads the books: from a ledger to the values that people look at.

Everything here is O(stages + workers). It may be called from another thread while the run goes on:
then every counter is true, and sums may be one transition apart. A `Reading` only
copies the books; it makes values of them when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from antflow._core.counters import Counters, CounterStats, summed
from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT, Durations
from antflow._core.ledger import Ledger, StageBook
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
        nodes: Worker processes of a cluster that call its tasks; 0 if they run here.
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
    nodes: int = 0


class Reading:
    """The books of a run at one moment: copied now, made into counts when these are asked for.

    Args:
        ledger: The books.
        tallies: Those of each stage at this moment.
        facts: What is known of the run.
        gauges: What the books do not have, of each stage.
        now: The time.
        skipped_duplicates: Items left out because their id was taken.
        coming: How many items have yet to come; ``None`` if that is not known.
        is_over: Whether the run is over.
    """

    def __init__(
        self,
        ledger: Ledger,
        tallies: Sequence[Tally],
        facts: RunFacts,
        gauges: Sequence[StageGauge],
        now: float,
        skipped_duplicates: int = 0,
        coming: int | None = None,
        is_over: bool = False,
    ) -> None:
        self._tallies = tallies
        self._accepted = ledger.accepted
        self._in_flight = ledger.in_flight
        self._taken_up = ledger.taken_up
        self._recalled = ledger.recalled
        self._item_times = None if ledger.item_times is None else ledger.item_times.read()
        self._facts = facts
        self._gauges = gauges
        self._now = now
        self._skipped_duplicates = skipped_duplicates
        self._coming = coming
        elapsed = now - facts.started_mono
        self._counted = [
            {} if each.counters is None else each.counters.read(elapsed, is_over) for each in gauges
        ]
        self._stats: PipelineStats | None = None

    def stats(self) -> PipelineStats:
        """The counts of the run and of each stage."""
        if self._stats is None:
            self._stats = self._made_stats()
        return self._stats

    def _made_stats(self) -> PipelineStats:
        parts = zip(self._facts.stage_names, self._tallies, self._gauges, strict=True)
        stages = [_stage_stats(name, tally, gauge, self._now) for name, tally, gauge in parts]
        if has_counters := any(self._counted):
            _project(stages, self._counted, self._coming)
        last, known = stages[-1], self._recalled
        made_before = self._taken_up + known.all_ended - known.inputs
        completed = last.completed_items + last.skipped_items + last.made_items
        return PipelineStats(
            items_processed=completed + known.of("completed"),
            items_failed=sum([each.failed_items for each in stages]) + known.of("failed"),
            items_in_flight=self._in_flight,
            queue_sizes={each.stage_name: each.pending_items for each in stages},
            stage_stats={each.stage_name: each for each in stages},
            items_accepted=self._accepted + known.inputs,
            items_dropped=sum([each.dropped_items for each in stages]) + known.of("dropped"),
            items_expanded=sum([each.expanded_items for each in stages]) + known.of("expanded"),
            items_cancelled=sum([each.cancelled_items for each in stages]),
            items_children=sum([each.made_items for each in stages]) + made_before,
            items_skipped_duplicates=self._skipped_duplicates,
            items_resumed=known.all_ended,
            items_changed=known.changed,
            items_omitted=known.omitted,
            counters=summed(each.counters for each in stages) if has_counters else {},
            item_times=self._item_times,
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
    completed = sum(tally.completed_each)
    in_progress = len(tally.begun) + sum(tally.more.values())
    ended = completed + tally.failed + tally.dropped + tally.expanded
    inside = tally.entered - ended - tally.skipped - tally.cancelled
    # Read from another thread, two counters may be one transition apart.
    waiting = max(inside - tally.retrying - in_progress, 0)
    blocked = min(gauge.blocked, waiting)
    tries = ended + tally.retried
    time, standing = spent(tally, gauge, now), tally.standing()
    stats = object.__new__(StageStats)  # a call with this many keywords takes eight times as long
    stats.stage_name = name
    stats.pending_items = waiting - blocked
    stats.in_progress_items = in_progress
    stats.completed_items = completed
    stats.failed_items = tally.failed
    stats.retried_items = tally.retried
    stats.skipped_items = tally.skipped
    stats.dropped_items = tally.dropped
    stats.expanded_items = tally.expanded
    stats.cancelled_items = tally.cancelled
    stats.retrying_items = tally.retrying
    stats.blocked_items = blocked
    stats.limited_items = tally.limited
    stats.abandoned_threads = gauge.abandoned_threads
    stats.workers = gauge.workers
    stats.capacity = gauge.capacity
    stats.concurrency = gauge.concurrency
    stats.busy_seconds = time["busy"] + time["thread"]  # it works on after its time
    stats.limited_seconds = time["limited"]
    stats.blocked_seconds = time["blocked"]
    stats.retry_waiting_seconds = time["retrying"]
    stats.starved_seconds = time["starved"]
    stats.stalled_seconds = time["stalled"]
    stats.child_cpu_seconds = gauge.child_cpu_seconds
    stats.thread_cpu_seconds = gauge.thread_cpu_seconds
    stats.held_seconds = gauge.held_seconds
    stats.holds = gauge.holds
    stats.failed_seconds = tally.failed_seconds
    stats.first_tries = tally.first_tries
    stats.run_times = Durations(tries, SHORTEST_RUN, tally.run_times)
    stats.queue_waits = Durations(tries + in_progress, SHORTEST_WAIT, tally.queue_waits)
    stats.made_items = tally.emitted
    stats.nodes = gauge.nodes
    stats.batches = gauge.batches
    stats.batched_items = gauge.batched_items
    stats.running_workers = standing["busy"]
    stats.limited_workers = standing["limited"]
    stats.blocked_workers = standing["blocked"]
    stats.retrying_workers = standing["retrying"]
    stats.errors_by_type = tally.errors
    stats.retries_by_type = tally.retries
    stats.counters = {}
    return stats


def worker_names(
    facts: RunFacts, gauges: Sequence[StageGauge], books: Sequence[StageBook]
) -> dict[str, list[str]]:
    """Stage name → names of its workers, by number."""
    names: dict[str, list[str]] = {}
    for stage, (gauge, book) in enumerate(zip(gauges, books, strict=True)):
        nodes = {index: worker.node for index, worker in book.workers.copy().items()}
        names[facts.stage_names[stage]] = [
            facts.worker_name(stage, index, nodes.get(index, "")) for index in range(gauge.workers)
        ]
    return names
