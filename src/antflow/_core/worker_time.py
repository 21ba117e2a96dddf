"""How the workers of a stage spend their time, by the books.

Every second of every worker is one `Activity`. The books know nothing of event loops: they count a
second in which the loop was blocked under what the worker was doing. So each stage notes, beside
its books, how much of each activity was lost in this way, and readings take it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from antflow._core.ledger import ACTIVITIES, Activity, StageBook
from antflow._core.tally import Tally


class WorkerGauge(Protocol):
    """How many workers a stage has, and for how many seconds it has had them, all together."""

    @property
    def workers(self) -> int: ...
    @property
    def worker_seconds(self) -> float: ...


def spent(tally: Tally, gauge: WorkerGauge, now: float) -> dict[Activity, float]:
    """Activity → worker-seconds up to now."""
    time = _booked(tally, gauge, now)
    if not any(tally.stalled.values()):  # the loop is seldom blocked
        return time
    for activity, seconds in tally.stalled.items():
        lost = min(seconds, time[activity])
        time[activity] -= lost
        time["stalled"] += lost
    return time


def _booked(tally: Tally, gauge: WorkerGauge, now: float) -> dict[Activity, float]:
    """The same with nothing under "stalled": blocked seconds count as what they were booked as."""
    time = tally.waited.copy()
    time["busy"] += tally.busy_seconds(now)
    for reason, since, held in tally.waits.values():
        waits = max(now - since, 0.0)
        time[reason] += waits
        if held:
            time["busy"] -= waits
    time["starved"] = max(gauge.worker_seconds - sum(time.values()), 0.0)
    time["busy"] = max(time["busy"], 0.0)
    return time


def standing(book: StageBook, workers: int) -> dict[Activity, int]:
    """Activity → how many of the stage's ``workers`` spend their time on it right now."""
    counts: dict[Activity, int] = dict.fromkeys(ACTIVITIES, 0)
    for worker in tuple(book.workers.values()):
        if (reason := worker.waits_for) is not None:
            counts[reason] += 1
        elif worker.item is not None:
            counts["busy"] += 1
    counts["starved"] = max(workers - sum(counts.values()), 0)
    return counts


def begun(book: StageBook) -> list[float]:
    """When workers began with what they have in hand, later by the time for which it waited.

    Those whose item waits now, for a limit or for room, are left out.
    """
    return [
        each.since + each.held_up
        for each in tuple(book.workers.values())
        if each.item is not None and each.waits_for not in ("limited", "blocked")
    ]


def blocked(book: StageBook) -> int:
    """Workers whose item is done and waits: mostly one that becomes others, for their room."""
    workers = tuple(book.workers.values())
    return sum([each.item is not None and each.waits_for == "blocked" for each in workers])


def book_stall(
    book: StageBook,
    gauge: WorkerGauge,
    now: float,
    seconds: float,
    workers: Mapping[Activity, int],
) -> None:
    """Note that the event loop was blocked until now.

    Args:
        book: The stage's book.
        gauge: Its workers.
        now: When the event loop went on.
        seconds: How long it had been blocked.
        workers: What its workers were doing meanwhile, as `standing` has it. The look at them may
            have come late: no activity loses more time than was spent on it.
    """
    time = _booked(Tally(book), gauge, now)
    for activity, count in workers.items():
        left = max(time[activity] - book.stalled[activity], 0.0)
        book.stalled[activity] += min(count * seconds, left)
