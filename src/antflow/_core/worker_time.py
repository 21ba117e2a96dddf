"""How the workers of a stage spend their time, according to the books.

Every second of every worker is of one kind. A second in which something blocked the event loop was
counted under what the worker was at, since a book knows nothing of event loops; so it is noted
beside the books how much of each kind was lost in this way, and taken out where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from antflow._core.ledger import TIME_KINDS, StageBook, TimeKind, WaitReason, WorkerBook

_KINDS: dict[WaitReason, TimeKind] = {
    "room": "room",
    "limit": "limit",
    "retries": "retries",
    "thread": "busy",  # it goes on working after its time
}
"""Reason for waiting → kind of time."""


class WorkerGauge(Protocol):
    """How many workers a stage has, and for how many seconds it has had them, all together."""

    @property
    def workers(self) -> int: ...
    @property
    def worker_seconds(self) -> float: ...


def spent(book: StageBook, gauge: WorkerGauge, now: float) -> dict[TimeKind, float]:
    """Kind → worker-seconds up to now, those in which the event loop was blocked included."""
    time: dict[TimeKind, float] = dict.fromkeys(TIME_KINDS, 0.0)
    for worker in tuple(book.workers.values()):
        time["busy"] += worker.busy + worker.gave_way - worker.waited_in_hand
        if worker.item is not None:
            time["busy"] += max(now - worker.since, 0.0)
        for reason, seconds in worker.waited.items():
            time[_KINDS[reason]] += seconds
        if (waits_for := worker.waits_for) is not None:
            waits = max(now - worker.waits_since, 0.0)
            time[_KINDS[waits_for]] += waits
            if worker.item is not None:
                time["busy"] -= waits
    time["starved"] = max(gauge.worker_seconds - sum(time.values()), 0.0)
    time["busy"] = max(time["busy"], 0.0)
    return time


def standing(book: StageBook, workers: int) -> dict[TimeKind, int]:
    """Kind → how many of the stage's ``workers`` spend their time on it right now."""
    kinds: dict[TimeKind, int] = dict.fromkeys(TIME_KINDS, 0)
    for worker in tuple(book.workers.values()):
        if (kind := _kind_of(worker)) is not None:
            kinds[kind] += 1
    kinds["starved"] = max(workers - sum(kinds.values()), 0)
    return kinds


def _kind_of(worker: WorkerBook) -> TimeKind | None:
    if (waits_for := worker.waits_for) is not None:
        return _KINDS[waits_for]
    return "busy" if worker.item is not None else None


def book_stall(
    book: StageBook,
    gauge: WorkerGauge,
    now: float,
    seconds: float,
    workers: Mapping[TimeKind, int],
) -> None:
    """Note that the event loop was blocked for this many seconds up to now.

    Args:
        book: The stage's book.
        gauge: Its workers.
        now: When the event loop went on.
        seconds: How long it had been blocked.
        workers: What its workers were doing meanwhile, from `standing`. If they have not spent that
            much time on it, because the look at them came late, all of it is taken.
    """
    time = spent(book, gauge, now)
    for kind, count in workers.items():
        left = max(time[kind] - book.stalled[kind], 0.0)
        book.stalled[kind] += min(count * seconds, left)


def stalled(book: StageBook, time: Mapping[TimeKind, float]) -> dict[TimeKind, float]:
    """Kind → how much of the time spent on it (see `spent`) the event loop was blocked."""
    return {kind: min(book.stalled[kind], seconds) for kind, seconds in time.items()}
