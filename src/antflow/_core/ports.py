"""The things the engine needs from outside or offers there, as protocols.

The engine imports nothing above `_core`; everything around it is passed in at construction and has
one of these shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from antflow._core.envelope import Envelope
from antflow._core.estimates import PastRun, WhatIf
from antflow._core.events import TaskEventType
from antflow._core.inside import StageInside
from antflow._core.journal_state import JournalState
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.observers import RunEnd
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Counted, Known
from antflow._core.result import PipelineResult
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot, ErrorSummary, LoopStall, PipelineStats
from antflow._core.stage import Stage
from antflow._core.step import Step
from antflow._core.transition import Transition
from antflow._core.waits import Wait


class Timer(Protocol):
    """A delayed call that can be cancelled."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Time, from outside: seconds of a monotonic clock, and delayed calls."""

    def now(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer: ...


class Store(Protocol):
    """Keeps the truth, and may hold work back. None by default; a journal is one.

    One store may serve several runs, even at once: each record names its run.
    """

    def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
        """A run begins.

        Raises:
            Exception: It cannot be kept: the run does not begin, and this is raised.
        """
        ...

    def admit(self, envelopes: Sequence[Envelope]) -> Wait:
        """Keep items before they enter. They enter when what is returned has been awaited.

        Raises:
            Exception: They cannot be kept: they do not enter, and the run takes in no more and ends
                with this exception. The same if the awaitable raises it.
        """
        ...

    def record(self, transition: Transition, value: Any) -> Wait:
        """Keep a transition.

        Args:
            transition: What happened.
            value: The stage's result for COMPLETED, the child's value for EMITTED, the number of
                children for EXPANDED; else ``None``.

        Returns:
            ``None``, or an awaitable when the backlog is full: the worker waits for it.

        Raises:
            Exception: It cannot be kept: the run takes in no more and ends with this exception.
        """
        ...

    def closed(self, how: RunEnd) -> Wait:
        """A run is over: no more of its records come. It ends when this has been awaited.

        Raises:
            Exception: It cannot be kept. The run raises this if it raises nothing else.
        """
        ...


class Memory(Store, Protocol):
    """A store that knows the items of earlier runs, by their ids.

    It is not told that items were admitted or started.

    Attributes:
        id: The scope of its items' idempotency keys, once it was opened.
        knows_items: Whether it knows any items, once it was opened.
        on_broken: Set by the engine. To be called in the event loop when it can keep nothing any
            more; the run then ends with this exception.
    """

    id: str
    knows_items: bool
    on_broken: Callable[[Exception], None]

    def opening(self) -> Wait:
        """Wait until it is open, if that takes time; no item is read from the source before.

        Raises:
            Exception: It cannot be opened, as in `opened`; the same if the awaitable raises it.
        """
        ...

    def look_up(self, envelopes: Sequence[Envelope]) -> Wait:
        """Read what `recall`, which follows at once, is going to ask of a database.

        Raises:
            Exception: As in `recall`; the same if the awaitable raises it.
        """
        ...

    def recall(
        self, envelopes: Sequence[Envelope], stage: int, counts: RecallCounts
    ) -> tuple[Sequence[Envelope], Sequence[Known]]:
        """Part items that are about to be admitted into new ones and known ones.

        Args:
            envelopes: The items.
            stage: Index of the stage that they are fed to.
            counts: Where to count those whose input or stages have changed.

        Returns:
            The new ones, for `admit`; and the known ones, which are not to be admitted, with all
            that were made from them.

        Raises:
            Exception: The store cannot be read: they do not enter, and the run takes in no more and
                ends with this exception.
        """
        ...

    def completed(self, envelope: Envelope, value: Any, began: float, now: float) -> Wait:
        """Keep that an item has completed a stage with this value, in a visit that began then.

        `record` with COMPLETED, without a `Transition`: nearly every visit ends so. The envelope is
        still as it was in the stage.
        """
        ...

    def count_settled(
        self, ids: Sequence[str | int], raws: Sequence[Any], stage: int
    ) -> Counted | None:
        """Count the items that had ended in an earlier run, of some that are taken in.

        Those that it counts are in no later call of `recall`. It leaves to that whatever takes
        more than counting: failed items, and those from which others were made.

        Args:
            ids: Their ids. They are all different.
            raws: The items.
            stage: Index of the stage that they are fed to.

        Returns:
            ``None``: it has counted nothing.

        Raises:
            Exception: The store cannot be read: the run takes in no more and ends with this
                exception.
        """
        ...

    def was_counted(self, item_id: Any) -> bool:
        """Whether `count_settled` has counted an item with an id that equals this one."""
        ...

    def state(self) -> JournalState | None:
        """How far it has got, in whatever thread; ``None`` if no run has it open."""
        ...

    def all_kept(self) -> Wait:
        """Wait until all that it was told is kept, as surely as the results of stages are.

        Raises:
            Exception: It can keep nothing any more.
        """
        ...

    def retry_later(self, keys: Iterable[tuple[int, tuple[int, ...]]] | None) -> None:
        """Items that failed are not to blame: run them again in a later run.

        It is told of an item that fails before the record of that, and kept with it or before it.

        Args:
            keys: These items, by their keys in the run; ``None``: all that have failed, or fail.
        """
        ...

    def checkpoint(self, envelope: Envelope, value: Any) -> Wait:
        """Keep a value for later tries of an item in its stage. It is kept when this is over.

        Raises:
            Exception: It cannot be kept.
        """
        ...

    def give_up(self) -> None:
        """The run is being cancelled: wait no more for what cannot be kept at the moment."""
        ...

    def id_of(self, raw: Any) -> Any:
        """The id of an item that brings none, made from what it is; ``None``: a running number."""
        ...


TellTask = Callable[[Envelope, WorkerBook, float, float | None, Exception | None], Wait]
"""Told of a try of a task: ``(item, worker, now, duration, error)``.

``worker.task`` is the task's name. ``duration``: seconds the try took, ``None`` for "start".
``error``: why, for "retry" and "fail". In a batch, it is called once for each item.
"""


class Listener(Protocol):
    """Hears of every step of one run, and has no power over it.

    What a method raises is contained: see `Guard.contain`. Each returns ``None``, or an awaitable
    that the worker waits for so that one item's events arrive in order. An awaitable that is not
    going to be awaited is closed (its ``close()`` is called).

    Attributes:
        name: Its name in the log.
    """

    name: str

    @property
    def hears_starts(self) -> bool:
        """Whether `started` is to be called."""
        ...

    @property
    def tasks(self) -> Mapping[TaskEventType, TellTask]:
        """What is to be called when a try of a task starts or ends; only kinds it wants to hear."""
        ...

    @property
    def may_hold(self) -> bool:
        """Whether an item may have to wait for the listener: then `entering` is called."""
        ...

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        """The run begins. ``rewire()`` is to be called when one of the properties changes.

        Called in the run's own context: a context variable that is set here is set in all of the
        run, like telemetry's current span. If it raises, the listener hears nothing more.
        """
        ...

    def admitted(self, envelopes: Sequence[Envelope], now: float, /) -> Wait:
        """Items were taken in and are about to be put into their stage's channel."""
        ...

    def entering(self, envelope: Envelope, /) -> Wait:
        """One of these items is about to be put; it is put before this is called for the next.

        Its ``not_before`` is still when it was taken in.
        """
        ...

    def started(self, envelope: Envelope, worker: WorkerBook, now: float, /) -> Wait:
        """A worker began with an item (again, when ``envelope.attempts`` is above 1)."""
        ...

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float, /
    ) -> Wait:
        """An item has completed a stage with this value, in a visit that began then.

        The envelope is still as it was in the stage. Nearly every visit ends so: no `Step` is made.
        """
        ...

    def ended(self, step: Step, /) -> Wait:
        """A visit ended in another way; or, EMITTED, an item was made from another and entered."""
        ...

    def closed(self, end: RunEnd) -> Wait:
        """The run is over; keep nothing of it alive. It ends when this has been awaited."""
        ...


Caller = Callable[[Any, Callable[[], int]], Wait]
"""Calls a user's function: see `Guard.caller`."""


class Guard(Protocol):
    """Keeps the user's functions and the listeners from changing an outcome."""

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Wait:
        """Call ``function(*args)``; what it raises is contained under ``name``.

        Returns:
            ``None``, or what must be awaited because ``function`` returned an awaitable.
        """
        ...

    def caller(self, name: str, function: Callable[[Any], Any]) -> Caller:
        """`call`, for a function with one argument that is called often.

        The first step of a coroutine is taken at once. What is returned must then be awaited by the
        same `asyncio.Task`, or the function stops halfway.

        Returns:
            A function of the argument and of another one, which says how many requests to cancel
            the running `asyncio.Task` counts.
        """
        ...

    def contain(self, name: str, error: BaseException) -> None:
        """Log the first failure of ``name``, and count the others.

        Raises:
            BaseException: The error itself, if it ends the program (`KeyboardInterrupt`).
        """
        ...


class Outlook(Protocol):
    """The memory of one run that its snapshots' advice and ETA are made from."""

    def see(
        self,
        snapshot: DashboardSnapshot,
        stats: Callable[[], PipelineStats],
        inside: Callable[[], Sequence[StageInside]],
        longest: Callable[[], tuple[str, Any, float] | None],
    ) -> Mapping[str, Callable[[], Any]]:
        """Take in the next snapshot, in whatever thread.

        Args:
            snapshot: The snapshot, but for its counts.
            stats: Makes its counts, or has made them.
            inside: Reads the stages, at the moment of the snapshot; called now, or not at all.
            longest: The item that has been under way longest: its stage's name, its id, and for how
                many seconds.

        Returns:
            Name of a field of the snapshot → makes it when it is first read.
        """
        ...

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run would take if it went on with these workers."""
        ...

    def past(
        self, stats: PipelineStats, inside: Sequence[StageInside], elapsed: float, intake: float
    ) -> PastRun:
        """The measurements of the run, which is over.

        Args:
            stats: Its counts.
            inside: Its stages.
            elapsed: Seconds that it took.
            intake: Seconds for which items could come.
        """
        ...


class Blockable(Protocol):
    """An event loop that something may block, as another thread sees it.

    Attributes:
        on_block: Called in another thread when something blocks the loop. It must return at once.
    """

    on_block: Callable[[], None] | None

    def block(self) -> LoopStall | None:
        """The block that goes on at this moment, in whatever thread; ``None`` if there is none."""
        ...


class SnapshotSource(Protocol):
    """The object a display is given in ``on_start``: mostly a `Pipeline`."""

    def get_dashboard_snapshot(self) -> DashboardSnapshot: ...


class Measured(SnapshotSource, Protocol):
    """A pipeline whose metrics are collected over all its runs: a `Pipeline`."""

    name: str

    def on_run_end(self, callback: Callable[[RunEnd], Any]) -> None: ...

    def time_items(self) -> None: ...


@runtime_checkable
class DashboardProtocol(Protocol):
    """A dashboard: an object with these methods, each sync or async; a missing one does nothing.

    Subclassing it is optional: only the names count. ``isinstance(x, DashboardProtocol)`` says
    whether an object has all three.
    """

    def on_start(self, pipeline: Any, total_items: int) -> Any:
        """The run begins.

        Args:
            pipeline: The pipeline; its ``get_…`` queries answer for this run, and its
                ``current_run`` is the handle of this run.
            total_items: How many items there will be; 0 when that is not known.
        """
        return None

    def on_update(self, snapshot: DashboardSnapshot) -> Any:
        """Called at once, then every ``dashboard_update_interval`` seconds, and at the end."""
        return None

    def on_finish(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> Any:
        """Called exactly once when the run is over, even after an error or a cancellation."""
        return None


class _Starts(Protocol):
    def on_start(self, pipeline: Any, total_items: int) -> Any: ...


class _Updates(Protocol):
    def on_update(self, snapshot: DashboardSnapshot) -> Any: ...


class _Finishes(Protocol):
    def on_finish(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> Any: ...


AnyDashboard = _Starts | _Updates | _Finishes
"""An object with at least one method of `DashboardProtocol`: what is missing does nothing."""
