"""A stage at one moment: a copy of what its books say, from which values are made later.

There may be thousands of workers. So one figure of all of them is in one list: that is faster than
to make a value for each worker, and gives the garbage collector nothing to follow.
"""

from __future__ import annotations

from typing import Any

from antflow._core.first_tries import FirstTries
from antflow._core.ledger import ACTIVITIES, Activity, StageBook, Waiting

NO_WORKERS: dict[Activity, int] = dict.fromkeys(ACTIVITIES, 0)


class Tally:
    """The books of a stage at one moment. It has the ids of items, and not the items.

    Args:
        book: The stage's book.

    Attributes:
        begun: When each worker that has an item began with it.
        waits: Number of a worker → why it waits, since when, and with how many items, if it does.
        more: Number of a worker → how many items it has besides the one in hand, if any.
        nodes: Number of a worker → the machine of a cluster where its tasks run, if they do there.
        statuses: Number of a worker → what its task says of the item in hand, if it says anything.

    Lists with an entry for each worker:

    Attributes:
        indexes: Its number.
        ids: The id of the item it has in hand.
        attempts: Which try of that item this is; ``None``: it has none in hand.
        tasks: Name of the task that runs.
        since: When it last began or ended an item.
        completed_each: How many items it has brought through.
        failed_each: How many items failed for good in its hands.
        busy_each: Seconds it has spent on items that are over.

    See `StageBook` for the others; of ``run_times`` and ``queue_waits`` these are the buckets.
    """

    __slots__ = (
        "attempts",
        "begun",
        "busy_each",
        "cancelled",
        "completed_each",
        "dropped",
        "emitted",
        "entered",
        "errors",
        "expanded",
        "failed",
        "failed_each",
        "failed_seconds",
        "first_tries",
        "ids",
        "indexes",
        "more",
        "nodes",
        "queue_waits",
        "retried",
        "retries",
        "retrying",
        "run_times",
        "since",
        "skipped",
        "stalled",
        "statuses",
        "tasks",
        "waited",
        "waits",
    )

    def __init__(self, book: StageBook) -> None:
        workers = book.workers.copy()  # another thread may add some
        self.indexes: list[int] = list(workers)
        self.ids: list[Any] = []
        self.attempts: list[int | None] = []
        self.tasks: list[str | None] = []
        self.since: list[float] = []
        self.completed_each: list[int] = []
        self.failed_each: list[int] = []
        self.busy_each: list[float] = []
        self.begun: list[float] = []
        self.waits: dict[int, tuple[Waiting, float, int]] = {}
        self.more: dict[int, int] = {}
        self.statuses: dict[int, str] = {}
        self.nodes: dict[int, str] = {}
        for index, worker in workers.items():
            held, since = 0, worker.since
            if (item := worker.item) is None:
                self.ids.append(None)
                self.attempts.append(None)
            else:
                self.ids.append(item.id)
                self.attempts.append(item.attempts)
                self.begun.append(since)
                held = 1
                if worker.more:
                    self.more[index] = len(worker.more)
                    held += self.more[index]
                if (status := worker.status) and status[0] == item.key:
                    self.statuses[index] = status[1]
            self.tasks.append(worker.task)
            self.since.append(since)
            self.completed_each.append(worker.completed)
            self.failed_each.append(worker.failed)
            self.busy_each.append(worker.busy)
            if worker.node:
                self.nodes[index] = worker.node
            if (reason := worker.waits_for) is not None:
                self.waits[index] = (reason, worker.waits_since, held)
        self.entered: int = book.entered
        self.retrying: int = book.retrying
        self.retried: int = book.retried
        self.failed: int = book.failed
        self.skipped: int = book.skipped
        self.dropped: int = book.dropped
        self.expanded: int = book.expanded
        self.cancelled: int = book.cancelled
        self.emitted: int = book.emitted
        self.errors: dict[str, int] = book.errors.copy()
        self.retries: dict[str, int] = book.retries.copy()
        self.run_times: tuple[int, ...] = book.run_times.buckets()
        self.queue_waits: tuple[int, ...] = book.queue_waits.buckets()
        self.first_tries: FirstTries = book.first_tries.read()
        self.failed_seconds: float = book.failed_seconds
        self.waited: dict[Activity, float] = book.waited.copy()
        self.stalled: dict[Activity, float] = book.stalled.copy()

    @property
    def limited(self) -> int:
        """Items in the hands of workers that wait for a limit."""
        return sum([held for reason, _, held in self.waits.values() if reason == "limited"])

    def standing(self) -> dict[Activity, int]:
        """Activity → how many workers are at it; one whose thread goes on is busy.

        Those that have nothing to do are not counted.
        """
        counts = NO_WORKERS.copy()
        counts["busy"] = len(self.begun)
        for reason, _, held in self.waits.values():
            counts["busy"] -= held > 0
            counts["busy" if reason == "thread" else reason] += 1
        return counts

    def busy_seconds(self, now: float) -> float:
        """Seconds that workers have spent on items, waits included."""
        return sum(self.busy_each) + len(self.begun) * now - sum(self.begun)
