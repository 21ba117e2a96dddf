"""The workers of a stage, counted together at one moment.

There may be thousands. So one figure of all of them is read at a time, into a list: that is faster
than to make a value for each worker, and gives the garbage collector nothing to follow.
"""

from __future__ import annotations

from itertools import compress
from typing import Any

from antflow._core.ledger import ACTIVITIES, Activity, StageBook, Waiting, WorkerBook

NO_WORKERS: dict[Activity, int] = dict.fromkeys(ACTIVITIES, 0)


class Tally:
    """The workers of a stage at one moment. It holds their items: drop it after the reading.

    Args:
        book: The stage's book.

    Attributes:
        book: The stage's book.
        workers: The workers' books.
        completed: Items brought through the stage.
        in_progress: Items in the hands of workers.
        waits: Number of a worker → why it waits, if it does.
        more: Number of a worker → how many items it has besides the one in hand, if any.

    Lists with an entry for each worker:

    Attributes:
        indexes: Its number.
        items: The item it has in hand.
        since: When it last began or ended an item.
        completed_each: How many items it has brought through.
        busy_each: Seconds it has spent on items that are over.
    """

    __slots__ = (
        "_begun",
        "book",
        "busy_each",
        "completed",
        "completed_each",
        "in_progress",
        "indexes",
        "items",
        "more",
        "since",
        "waits",
        "workers",
    )

    def __init__(self, book: StageBook) -> None:
        books = book.workers.copy()  # another thread may add some
        workers = list(books.values())
        self.book = book
        self.workers: list[WorkerBook] = workers
        self.indexes: list[int] = list(books)
        self.items: list[Any] = [each.item for each in workers]
        self.since: list[float] = [each.since for each in workers]
        self.completed_each: list[int] = [each.completed for each in workers]
        self.busy_each: list[float] = [each.busy for each in workers]
        self.more: dict[int, int] = {each.index: len(each.more) for each in workers if each.more}
        self.waits: dict[int, Waiting] = {
            each.index: reason for each in workers if (reason := each.waits_for)
        }
        self._begun = list(compress(self.since, self.items))
        self.completed: int = sum(self.completed_each)
        self.in_progress: int = len(self._begun) + sum(self.more.values())

    def standing(self) -> dict[Activity, int]:
        """Activity → how many workers are at it; one whose thread goes on is busy.

        Those that have nothing to do are not counted.
        """
        counts = NO_WORKERS.copy()
        counts["busy"] = len(self._begun)
        if not self.waits:
            return counts
        holding = set(compress(self.indexes, self.items))
        for index, reason in self.waits.items():
            counts["busy"] -= index in holding
            counts["busy" if reason == "thread" else reason] += 1
        return counts

    @property
    def limited(self) -> int:
        """Items in the hands of workers that wait for a limit."""
        if not self.waits:
            return 0
        books = self.book.workers
        return sum([books[each].held for each, reason in self.waits.items() if reason == "limited"])

    @property
    def begun(self) -> list[float]:
        """When workers began with what they have in hand, later by the time for which it waited.

        Those whose item waits now, for a limit or for room, are left out.
        """
        return [
            each.since + each.held_up
            for each in self.workers
            if each.item is not None and each.waits_for not in ("limited", "blocked")
        ]

    @property
    def blocked(self) -> int:
        """Workers whose item is done and waits: mostly one that becomes others, for their room."""
        if not self.waits:
            return 0
        books = self.book.workers
        waiting = [index for index, reason in self.waits.items() if reason == "blocked"]
        return sum([books[index].item is not None for index in waiting])

    def busy_seconds(self, now: float) -> float:
        """Seconds that workers have spent on items, waits included."""
        return sum(self.busy_each) + len(self._begun) * now - sum(self._begun)
