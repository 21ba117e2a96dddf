"""The books of a run: plain counters, kept in double entry.

Every item that is accepted is in exactly one place. A worker's book says what it holds and what it
has done; a stage's book says what entered it and how what did not come through left it. What waits
in a stage is never counted, it is what entered less everything else: if one entry is wrong, the
books do not balance, and `Ledger.discrepancy` says so.

The engine's recorder calls the methods of the books directly, because it knows which book it means.
`Ledger.apply` reads the same from a `Transition`; both end in the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import nan
from typing import Any, Literal, get_args

from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT, DurationCounter, ItemTimes
from antflow._core.first_tries import FirstTriesCounter
from antflow._core.recall_counts import RecallCounts
from antflow._core.text import error_type_name
from antflow._core.transition import Kind, Transition

Waiting = Literal["limited", "blocked", "retrying", "thread"]
"""Why a worker waits.

A limit holds it, before a try or in the middle of one · the next stage is full, or it waits for a
slow consumer, the store or a callback at the end of a visit · too many retries wait · its thread
goes on although the task's time is over.
"""

WAITS: tuple[Waiting, ...] = get_args(Waiting)

Activity = Literal["busy", Waiting, "starved", "stalled"]
"""How a worker spends a second.

It works · it waits · it has nothing to do · the event loop is blocked, whatever the worker does.
"""

ACTIVITIES: tuple[Activity, ...] = get_args(Activity)

ItemKey = tuple[int, tuple[int, ...]]
"""``(sequence number, branch)``: an item's name in its run."""


def no_requests() -> int:
    """`WorkerBook.cancel_requests` of a worker that has no `asyncio.Task`."""
    return 0


class WorkerBook:
    """The items one worker holds, and what it has done.

    A worker waits for one thing at a time. Its task need not: it may make several calls at once,
    and each may wait for a limit. The item in hand is held by the limit as long as one of them
    waits, since it is not through before the last: so that is one wait of the worker, however many
    wait and whatever the others do. It ends with the try at the latest: a call that outlives that
    holds nothing up. While the worker waits for something itself, that is what it waits for.

    Attributes:
        stage: Index of its stage.
        index: Its number within the stage.
        name: ``"Fetch-W0"``, once it has begun.
        node: The machine of a cluster where its tasks run, ``"10.0.0.7"``; "" if they run here.
        item: What it works on: an envelope (in a running pipeline) or an item's key (in a ledger
            folded from transitions); ``None`` when it has nothing.
        more: The other items of its batch.
        given: In a batch, the items whose values the running task was called with.
        since: When it last began or ended an item; NaN before the first.
        task: Name of the task that runs.
        cancel_requests: Says how many requests to cancel the `asyncio.Task` counts in which it
            works; 0 where it has none.
        status: What a task said it does (`set_task_status`): ``(the item's key, text, when)``. It
            holds as long as the worker has that item.
        completed: Items brought through.
        failed: Items failed for good.
        busy: Seconds spent on items.
        own_wait: What it waits for itself although it has, or could have, an item; ``None``:
            nothing.
        limited_calls: The calls of the running try that wait for a limit, as keys.
        waits_for: Why the worker or its item in hand waits; ``None``: it does not.
        waits_since: When it last began to wait, or the reason last changed.
        waited: Where waits that are over are added up, for all workers of its stage: see
            `StageBook`.
        held_up: Seconds for which what it has in hand, or had last, has waited: for a limit, or for
            room.
    """

    __slots__ = (
        "busy",
        "cancel_requests",
        "completed",
        "failed",
        "given",
        "held_up",
        "index",
        "item",
        "limited_calls",
        "more",
        "name",
        "node",
        "own_wait",
        "since",
        "stage",
        "status",
        "task",
        "waited",
        "waits_for",
        "waits_since",
    )

    def __init__(self, stage: int, index: int, waited: dict[Activity, float]) -> None:
        self.stage: int = stage
        self.index: int = index
        self.name: str = ""
        self.node: str = ""
        self.item: Any = None
        self.more: list[Any] | tuple[()] = ()
        self.given: Sequence[Any] = ()
        self.since: float = nan
        self.task: str | None = None
        self.cancel_requests: Callable[[], int] = no_requests
        self.status: tuple[ItemKey, str, float] | None = None
        self.completed: int = 0
        self.failed: int = 0
        self.busy: float = 0.0
        self.own_wait: Waiting | None = None
        self.limited_calls: dict[object, None] = {}
        self.waits_for: Waiting | None = None
        self.waits_since: float = 0.0
        self.waited: dict[Activity, float] = waited
        self.held_up: float = 0.0

    @property
    def held(self) -> int:
        """How many items it has."""
        return len(self.more) + 1 if self.item is not None else 0

    def holds(self, item: Any) -> bool:
        """Whether it has this item."""
        return self.item is item or item in self.more

    def take(self, item: Any, now: float) -> None:
        """The worker begins with an item, or with another one of its batch."""
        if self.item is None:
            self.item = item
            self.since = now
            self.held_up = 0.0
        elif self.more:
            self.more.append(item)
        else:
            self.more = [item]

    def release(self, item: Any, now: float) -> None:
        """The worker gives an item away. Its time is added up once for all items of a batch."""
        if self.limited_calls:
            self.forget_calls(now)
        if self.more:
            # Mostly the first: a batch ends in its order.
            if item is not self.item and item in self.more:
                self.more.remove(item)
            else:
                self.item = self.more.pop(0)
            return
        self.item = None
        self.busy += now - self.since
        self.since = now

    def wait_begins(self, reason: Waiting, now: float) -> None:
        """From now on the worker waits, for ``reason`` and nothing else."""
        self._book_wait(now)
        self.own_wait = self.waits_for = reason

    def wait_ends(self, now: float) -> None:
        """The worker goes on."""
        self._book_wait(now)
        self.own_wait = None
        self.waits_for = "limited" if self.limited_calls else None

    def call_waits(self, call: object, now: float) -> None:
        """A call of the running try waits for a limit, perhaps one of several that do."""
        self._book_wait(now)
        self.limited_calls[call] = None
        self.waits_for = self.own_wait or "limited"

    def call_goes_on(self, call: object, now: float) -> None:
        """A call no longer waits; if it was forgotten, this does nothing."""
        if call in self.limited_calls:
            self._book_wait(now)
            del self.limited_calls[call]
            if not self.limited_calls:
                self.waits_for = self.own_wait

    def forget_calls(self, now: float) -> None:
        """The try is over: calls that still wait no longer hold the worker up."""
        self._book_wait(now)
        self.limited_calls.clear()
        self.waits_for = self.own_wait

    def _book_wait(self, now: float) -> None:
        """Add up what it has waited until now."""
        if (reason := self.waits_for) is not None:
            seconds = now - self.waits_since
            self.waited[reason] += seconds
            if self.item is not None:
                self.waited["busy"] -= seconds
                self.held_up += seconds
        self.waits_since = now


class StageBook:
    """The items that entered one stage, and how they left.

    A worker that retires keeps its book here: what it has done stays done.

    Attributes:
        index: The stage's index.
        following: The next stage's book, ``None`` for the last.
        workers: Worker index → book, for every worker there ever was.
        entered: Items announced to this stage.
        retrying: Items waiting for their next try.
        retried, failed, skipped, dropped, expanded, cancelled: What happened here, counted.
        emitted: Items made here from others.
        errors: Class name of an error → items that failed for good with it.
        retries: Class name of an error → failed tries that another one follows.
        run_times: How long its tries took, less the time for which they waited.
        first_tries: How long the first try of each worker took.
        failed_seconds: Worker-seconds of tries that failed.
        queue_waits: How long items waited for a worker, each time from when one might have begun.
        waited: Activity → worker-seconds of waits that are over. Under "busy", the seconds for
            which workers gave way between two items, less those of waits with an item in hand,
            which the workers' books count as busy.
        stalled: Activity → worker-seconds that the books count as such, and in which the event loop
            was blocked (see `worker_time`).
    """

    __slots__ = (
        "_ledger",
        "cancelled",
        "dropped",
        "emitted",
        "entered",
        "errors",
        "expanded",
        "failed",
        "failed_seconds",
        "first_tries",
        "following",
        "index",
        "queue_waits",
        "retried",
        "retries",
        "retrying",
        "run_times",
        "skipped",
        "stalled",
        "waited",
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
        self.emitted = 0
        self.cancelled = 0
        self.errors: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.run_times = DurationCounter(SHORTEST_RUN)
        self.first_tries = FirstTriesCounter()
        self.failed_seconds = 0.0
        self.queue_waits = DurationCounter(SHORTEST_WAIT)
        self.waited: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self.stalled: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)

    def worker(self, index: int) -> WorkerBook:
        """The book of worker ``index``, opened if there is none yet."""
        book = self.workers.get(index)
        if book is None:
            book = self.workers[index] = WorkerBook(self.index, index, self.waited)
        return book

    @property
    def completed(self) -> int:
        """Items brought through this stage."""
        return sum([book.completed for book in tuple(self.workers.values())])

    @property
    def in_progress(self) -> int:
        """Items in the hands of workers."""
        holding = [book for book in tuple(self.workers.values()) if book.item is not None]
        return len(holding) + sum([len(book.more) for book in holding if book.more])

    @property
    def waiting(self) -> int:
        """Items announced to this stage that no worker has taken yet."""
        return self.entered - self.left - self.retrying - self.in_progress

    @property
    def left(self) -> int:
        """Items that have left this stage, in whatever way."""
        otherwise = self.skipped + self.expanded + self.failed + self.dropped + self.cancelled
        return self.completed + otherwise

    # One method per kind of transition. Each is one double entry.

    def admitted(self, count: int) -> None:
        """``count`` items are taken in, at this stage."""
        self._ledger.accepted += count
        self._ledger.in_flight += count
        self.entered += count

    def started(self, worker: WorkerBook, item: Any, now: float, again: bool) -> None:
        """A worker begins with an item; ``again`` when the item waited for a next try."""
        worker.take(item, now)
        if again:
            self.retrying -= 1

    def completed_by(self, worker: WorkerBook, item: Any, now: float) -> None:
        """The item is through; it enters the next stage, or is settled after the last."""
        worker.completed += 1
        self._end_try(worker, item, now)
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

    def retrying_from(self, worker: WorkerBook, item: Any, now: float) -> None:
        """A try failed and another will follow."""
        self._fail_try(worker, now)
        self._end_try(worker, item, now)
        self.retried += 1
        self.retrying += 1

    def failed_by(self, worker: WorkerBook | None, item: Any, now: float) -> None:
        """An item failed for good: in a worker's hands, or as it was taken in."""
        if worker is not None:
            worker.failed += 1
            self._fail_try(worker, now)
            self._end_try(worker, item, now)
        self.failed += 1
        self._ledger.in_flight -= 1

    def failed_with(self, name: str, again: bool) -> None:
        """Enter the type of error a try failed with; ``again`` when another one follows."""
        kinds = self.retries if again else self.errors
        kinds[name] = kinds.get(name, 0) + 1

    def dropped_by(self, worker: WorkerBook, item: Any, now: float) -> None:
        """An item ends here successfully without a result."""
        self._end_try(worker, item, now)
        self.dropped += 1
        self._ledger.in_flight -= 1

    def emitted_some(self, count: int) -> None:
        """``count`` items were made from another; they enter the next stage, or are settled."""
        self.emitted += count
        if self.following is not None:
            self._ledger.in_flight += count
            self.following.entered += count

    def expanded_by(self, worker: WorkerBook, item: Any, now: float) -> None:
        """An item ends here, because it became others."""
        self._end_try(worker, item, now)
        self.expanded += 1
        self._ledger.in_flight -= 1

    def cancelled_from(
        self, worker: WorkerBook | None, item: Any, now: float, retrying: bool
    ) -> None:
        """An item is given up: in a worker's hands, waiting for a next try, or waiting to start."""
        if worker is not None:
            worker.release(item, now)
        elif retrying:
            self.retrying -= 1
        self.cancelled += 1
        self._ledger.in_flight -= 1

    def ran(self, worker: WorkerBook, seconds: float) -> None:
        """A try of at least `SHORTEST_RUN` is over; ``seconds`` include the time it waited."""
        self.run_times.add(seconds - worker.held_up)
        if not worker.busy and not worker.more:
            self.first_tries.add(worker.index, worker.since, seconds - worker.held_up)

    def _fail_try(self, worker: WorkerBook, now: float) -> None:
        """The time of a failed try was in vain; that of a batch counts once, with its last item."""
        if not worker.more:
            if worker.limited_calls:
                worker.forget_calls(now)
            self.failed_seconds += now - worker.since - worker.held_up

    def _end_try(self, worker: WorkerBook, item: Any, now: float) -> None:
        if worker.limited_calls:
            worker.forget_calls(now)
        if (seconds := now - worker.since) >= SHORTEST_RUN:
            self.ran(worker, seconds)
        worker.release(item, now)


class Ledger:
    """The books of all stages, and of the run.

    Attributes:
        stages: One book per stage.
        accepted: Items taken in.
        in_flight: Accepted and not settled.
        recalled: Items that the store knew; those that had ended are in no other book.
        taken_up: Items made from others in an earlier run that go on in this one.
        item_times: How long items took; ``None`` unless that was asked for.
    """

    __slots__ = (
        "_applied",
        "_retrying",
        "accepted",
        "in_flight",
        "item_times",
        "recalled",
        "stages",
        "taken_up",
    )

    def __init__(self, stage_count: int) -> None:
        self.accepted: int = 0
        self.in_flight: int = 0
        self.recalled: RecallCounts = RecallCounts()
        self.taken_up: int = 0
        self.item_times: ItemTimes | None = None
        self._applied: int = 0
        self._retrying: set[ItemKey] = set()
        stages: list[StageBook] = []
        for index in reversed(range(stage_count)):
            stages.insert(0, StageBook(self, index, stages[0] if stages else None))
        self.stages: Sequence[StageBook] = stages

    # Outcomes, each counted from the books and never from `in_flight`.

    @property
    def completed(self) -> int:
        """Items that came out at the end."""
        last = self.stages[-1]
        return last.completed + last.skipped + last.emitted

    @property
    def fed(self) -> int:
        """Items that came in, those included that had ended in an earlier run."""
        return self.accepted + self.recalled.inputs

    @property
    def children(self) -> int:
        """Items made from other items."""
        return sum([book.emitted for book in self.stages]) + self.taken_up

    @property
    def failed(self) -> int:
        """Items that failed for good."""
        return sum([book.failed for book in self.stages])

    @property
    def dropped(self) -> int:
        """Items that ended successfully without a result."""
        return sum([book.dropped for book in self.stages])

    @property
    def expanded(self) -> int:
        """Items that became several."""
        return sum([book.expanded for book in self.stages])

    @property
    def cancelled(self) -> int:
        """Items stopped by a cancellation or shutdown."""
        return sum([book.cancelled for book in self.stages])

    def count_as_made(self) -> None:
        """The item that is about to be admitted was made from another, in an earlier run."""
        self.accepted -= 1
        self.taken_up += 1

    def workers(self) -> Iterator[WorkerBook]:
        """The books of all workers, stage by stage."""
        for stage in self.stages:
            yield from tuple(stage.workers.values())

    def apply(self, transition: Transition) -> bool:
        """Enter one transition, once.

        Transitions must come in the order of their ``n``; one that was entered before is recognised
        by it and left out.

        Returns:
            Whether it was new.
        """
        if transition.n <= self._applied:
            return False
        self._applied = transition.n
        stage = self.stages[transition.stage]
        worker = None if transition.worker < 0 else stage.worker(transition.worker)
        kind, now = transition.kind, transition.mono
        item = transition.key
        if transition.error is not None and kind in (Kind.RETRYING, Kind.FAILED):
            stage.failed_with(error_type_name(transition.error), again=kind is Kind.RETRYING)
        if kind is Kind.ADMITTED:
            stage.admitted(1)
        elif kind is Kind.EMITTED:
            stage.emitted_some(1)
        elif kind is Kind.SKIPPED:
            stage.skipped_one()
        elif kind is Kind.CANCELLED:
            stage.cancelled_from(worker, item, now, retrying=self._stops_waiting(item))
        elif kind is Kind.FAILED:
            stage.failed_by(worker, item, now)
        elif worker is None:
            raise ValueError(f"a {kind.name} transition names no worker: {transition}")
        elif kind is Kind.STARTED:
            stage.started(worker, item, now, again=self._stops_waiting(item))
        else:
            if kind is Kind.RETRYING:
                self._retrying.add(item)
            _ENDS[kind](stage, worker, item, now)
        return True

    def _stops_waiting(self, item: ItemKey) -> bool:
        """Whether an item waited for its next try until now."""
        waited = item in self._retrying
        self._retrying.discard(item)
        return waited

    def let_go(self) -> None:
        """Items in hand, or waiting for another try, wait for their stage: as after a crash."""
        for stage in self.stages:
            stage.retrying = 0
            for worker in stage.workers.values():
                worker.item, worker.more, worker.since = None, (), nan
        self._retrying.clear()

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
            return f"items in flight: {self.in_flight:,}, in the stages: {inside:,}"
        for book in self.stages:
            if book.waiting < 0 or book.retrying < 0:
                return f"stage {book.index}: {book.waiting} waiting, {book.retrying} retrying"
        return None


_ENDS: dict[Kind, Callable[[StageBook, WorkerBook, Any, float], None]] = {
    Kind.COMPLETED: StageBook.completed_by,
    Kind.RETRYING: StageBook.retrying_from,
    Kind.DROPPED: StageBook.dropped_by,
    Kind.EXPANDED: StageBook.expanded_by,
}
"""Kinds that end a visit to a worker → the entry they make; FAILED may have no worker."""
