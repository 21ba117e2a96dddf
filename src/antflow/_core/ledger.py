"""The books of a run: plain counters, kept in double entry.

Every item that is accepted is in exactly one place. A worker's book says what it holds and what it
has done; a stage's book says what entered it and how what did not come through left it. What waits
in a stage is never counted, it is what entered less everything else: if one entry is wrong, the
books do not balance, and `Ledger.discrepancy` says so.

The engine's recorder calls the methods of the books directly, because it knows which book it means.
`Ledger.apply` reads the same from a `Transition`; both end in the same methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import nan
from typing import Any

from antflow._core.transition import Kind, Transition


class WorkerBook:
    """What one worker holds and has done.

    Attributes:
        stage: Index of its stage.
        index: Its number within the stage.
        item: What it works on: an envelope (in a running pipeline) or a sequence number (in a
            ledger folded from transitions); ``None`` when it has nothing.
        since: When it last began or ended an item; NaN before the first.
        task: Name of the task that runs.
        completed: Items brought through.
        failed: Items failed for good.
        busy: Seconds spent on items.
    """

    __slots__ = ("busy", "completed", "failed", "index", "item", "since", "stage", "task")

    def __init__(self, stage: int, index: int) -> None:
        self.stage = stage
        self.index = index
        self.item: Any = None
        self.since = nan
        self.task: str | None = None
        self.completed = 0
        self.failed = 0
        self.busy = 0.0

    def release(self, now: float) -> None:
        """The worker gives its item away; its time with it is added up."""
        self.item = None
        self.busy += now - self.since
        self.since = now


class StageBook:
    """What entered one stage and how it left.

    A worker that retires keeps its book here: what it has done stays done.

    Attributes:
        index: The stage's index.
        following: The next stage's book, ``None`` for the last.
        workers: Worker index → book, of every worker there ever was.
        entered: Items announced to this stage.
        retrying: Items waiting for their next try.
        retried, failed, skipped, dropped, expanded, cancelled: What happened here, counted.
    """

    __slots__ = (
        "_ledger",
        "cancelled",
        "dropped",
        "entered",
        "expanded",
        "failed",
        "following",
        "index",
        "retried",
        "retrying",
        "skipped",
        "workers",
    )

    def __init__(self, ledger: Ledger, index: int, following: StageBook | None) -> None:
        self._ledger = ledger
        self.following = following
        self.index = index
        self.workers: dict[int, WorkerBook] = {}
        self.entered = 0
        self.retrying = 0
        self.retried = 0
        self.failed = 0
        self.skipped = 0
        self.dropped = 0
        self.expanded = 0
        self.cancelled = 0

    def worker(self, index: int) -> WorkerBook:
        """The book of worker ``index``, opened if there is none yet."""
        book = self.workers.get(index)
        if book is None:
            book = self.workers[index] = WorkerBook(self.index, index)
        return book

    @property
    def completed(self) -> int:
        """Items brought through this stage."""
        return sum([book.completed for book in tuple(self.workers.values())])

    @property
    def in_progress(self) -> int:
        """Items in the hands of workers."""
        return sum([book.item is not None for book in tuple(self.workers.values())])

    @property
    def waiting(self) -> int:
        """Items announced to this stage that no worker has taken yet."""
        left = self.completed + self.failed + self.skipped + self.dropped + self.expanded
        return self.entered - left - self.cancelled - self.in_progress - self.retrying

    # One method per kind of transition. Each is one double entry.

    def admitted(self, count: int) -> None:
        """``count`` items are taken in, at this stage."""
        self._ledger.accepted += count
        self._ledger.in_flight += count
        self.entered += count

    def started(self, worker: WorkerBook, item: Any, now: float, again: bool) -> None:
        """A worker begins with an item; ``again`` when the item waited for a next try."""
        worker.item = item
        worker.since = now
        if again:
            self.retrying -= 1

    def completed_by(self, worker: WorkerBook, now: float) -> None:
        """The item is through; it enters the next stage, or is settled after the last."""
        worker.completed += 1
        worker.release(now)
        if self.following is None:
            self._ledger.in_flight -= 1
        else:
            self.following.entered += 1

    def skipped_one(self) -> None:
        """An item passes by; it enters the next stage, or is settled after the last."""
        self.skipped += 1
        if self.following is None:
            self._ledger.in_flight -= 1
        else:
            self.following.entered += 1

    def retrying_from(self, worker: WorkerBook, now: float) -> None:
        """A try failed and another will follow."""
        worker.release(now)
        self.retried += 1
        self.retrying += 1

    def failed_by(self, worker: WorkerBook, now: float) -> None:
        """An item failed for good."""
        worker.failed += 1
        worker.release(now)
        self.failed += 1
        self._ledger.in_flight -= 1

    def cancelled_from(self, worker: WorkerBook | None, now: float, retrying: bool) -> None:
        """An item is given up: in a worker's hands, waiting for a next try, or waiting to start."""
        if worker is not None:
            worker.release(now)
        elif retrying:
            self.retrying -= 1
        self.cancelled += 1
        self._ledger.in_flight -= 1


class Ledger:
    """The books of all stages, and of the run.

    Attributes:
        stages: One book per stage.
        accepted: Items taken in.
        children: Items made from other items.
        in_flight: Accepted and not settled.
    """

    __slots__ = ("_applied", "accepted", "children", "in_flight", "stages")

    def __init__(self, stage_count: int) -> None:
        self.accepted = 0
        self.children = 0
        self.in_flight = 0
        self._applied: dict[int, int] = {}
        stages: list[StageBook] = []
        for index in reversed(range(stage_count)):
            stages.insert(0, StageBook(self, index, stages[0] if stages else None))
        self.stages: Sequence[StageBook] = stages

    # Outcomes, each counted from the books and never from `in_flight`.

    @property
    def completed(self) -> int:
        """Items that came out at the end."""
        last = self.stages[-1]
        return last.completed + last.skipped

    @property
    def failed(self) -> int:
        """Items that failed for good."""
        return sum([book.failed for book in self.stages])

    @property
    def dropped(self) -> int:
        """Items that ended well without a result."""
        return sum([book.dropped for book in self.stages])

    @property
    def expanded(self) -> int:
        """Items that became several."""
        return sum([book.expanded for book in self.stages])

    @property
    def cancelled(self) -> int:
        """Items stopped by a cancellation or shutdown."""
        return sum([book.cancelled for book in self.stages])

    def workers(self) -> Iterator[WorkerBook]:
        """The books of all workers, stage by stage."""
        for stage in self.stages:
            yield from tuple(stage.workers.values())

    def apply(self, transition: Transition) -> bool:
        """Enter one transition, once.

        Transitions of one node must come in the order of their ``n``; one that was entered before
        is recognised by it and left out.

        Returns:
            Whether it was new.
        """
        if transition.n <= self._applied.get(transition.node, 0):
            return False
        self._applied[transition.node] = transition.n
        stage = self.stages[transition.stage]
        worker = None if transition.worker < 0 else stage.worker(transition.worker)
        kind, now = transition.kind, transition.mono
        if kind is Kind.ADMITTED:
            stage.admitted(1)
        elif kind is Kind.SKIPPED:
            stage.skipped_one()
        elif kind is Kind.CANCELLED:
            stage.cancelled_from(worker, now, retrying=transition.attempt > 0)
        elif worker is None:
            raise ValueError(f"a {kind.name} transition names no worker: {transition}")
        elif kind is Kind.STARTED:
            stage.started(worker, transition.seq, now, again=transition.attempt > 1)
        elif kind is Kind.COMPLETED:
            stage.completed_by(worker, now)
        elif kind is Kind.RETRYING:
            stage.retrying_from(worker, now)
        elif kind is Kind.FAILED:
            stage.failed_by(worker, now)
        else:
            raise ValueError(f"no book is kept for {kind.name}: {transition}")
        return True

    def discrepancy(self) -> str | None:
        """Check the books.

        Returns:
            ``None`` when they balance, else a text with the numbers that do not.
        """
        outcomes = self.completed + self.failed + self.dropped + self.expanded + self.cancelled
        if self.accepted + self.children != outcomes + self.in_flight:
            return (
                f"accepted {self.accepted} + children {self.children} != completed {self.completed}"
                f" + failed {self.failed} + dropped {self.dropped} + expanded {self.expanded}"
                f" + cancelled {self.cancelled} + in flight {self.in_flight}"
            )
        inside = sum([book.waiting + book.in_progress + book.retrying for book in self.stages])
        if inside != self.in_flight:
            return f"{self.in_flight} items in flight, but {inside} in the stages"
        for book in self.stages:
            if book.waiting < 0 or book.retrying < 0:
                return f"stage {book.index}: {book.waiting} waiting, {book.retrying} retrying"
        return None


def fold(transitions: Iterable[Transition], stage_count: int) -> Ledger:
    """The ledger after ``transitions``."""
    ledger = Ledger(stage_count)
    for transition in transitions:
        ledger.apply(transition)
    return ledger
