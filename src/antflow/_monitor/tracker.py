"""The tracker: it calls back on every event, and keeps the history of every item."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from antflow._core.checks import (
    check_callback,
    check_choice,
    check_flag,
    check_seconds,
    examine,
    refusal,
    whole,
)
from antflow._core.envelope import Envelope
from antflow._core.events import STATUSES, StatusEvent, StatusType, TaskEvent, TaskEventType
from antflow._core.failures import merged
from antflow._core.foreign import asked, is_a, is_hashable, key_of, type_name
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.misspellings import explained
from antflow._core.observers import RunEnd
from antflow._core.ports import Listener, TellTask
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import ErrorSummary, FailedItem
from antflow._core.step import Step
from antflow._core.text import clean, counted, safe_repr
from antflow._core.waits import Wait
from antflow._monitor.callbacks import CallbackGuard
from antflow._monitor.history import RunHistory
from antflow._monitor.public_steps import Observers
from antflow._monitor.short_history import Kept, ShortHistory, not_kept
from antflow._monitor.tellers import StatusTeller, task_teller

if TYPE_CHECKING:
    from antflow._monitor.spill import Spill

StatusCallback = Callable[[StatusEvent], Any]
TaskCallback = Callable[[TaskEvent], Any]

TASK_CALLBACKS: dict[str, TaskEventType] = {
    "on_task_start": "start",
    "on_task_complete": "complete",
    "on_task_retry": "retry",
    "on_task_fail": "fail",
}
CALLBACKS = ("on_status_change", *TASK_CALLBACKS)


class StatusTracker:
    """Calls you back on every event, and keeps the complete history of every item.

    Give it to a pipeline with ``Pipeline(..., status_tracker=tracker)``. One tracker may follow
    several runs and pipelines, one after the other or at once.

    A callback may be a function, a lambda, a method or any callable, sync or async. It is called in
    line, and awaited in line if it returns an awaitable: events of one item arrive in order, and a
    slow callback slows down the worker that calls it. A callback cannot change an outcome: its
    first error is logged, all are counted in `callback_errors`, and it is called again for the next
    event. It may query the tracker, feed the pipeline or shut it down.

    The order for one item in one stage is: queued, in_progress, then any number of (retrying,
    in_progress), then completed or failed; or queued, skipped. "completed" is per stage. Under
    ``retry="per_task"`` retries are task events only.

    Args:
        on_status_change: Called with a `StatusEvent` for every change of an item's status.
        on_task_start: Called with a `TaskEvent` before each try of a task.
        on_task_complete: Called after a try that succeeded.
        on_task_retry: Called after a failed try that will be followed by another.
        on_task_fail: Called after the last try has failed.
        callback_timeout: Seconds an async callback may take before it is cancelled and counted.
            Time in which a source blocks the event loop does not count.
        history: How much to keep of an item when it has ended. "full" (the default): every event.
            "last": its last event. A number: its last events, up to this many. ``None``: nothing,
            so memory does not grow with the number of items. An item in flight is always there.
            `get_stats`, and the counts of `get_error_summary`, are exact in any case.
        keep_failed: Whether to keep every event of items that failed, even so: of the last 10,000
            in each run. It changes nothing if all is kept.
        spill: Path of an SQLite file that every event is written to, as by a `SqliteSink`; other
            runs in it stay, but no sink may write the same run to it. Queries then read from it
            what is not in memory, so the history is complete whatever is kept there; with "full"
            it is on disk only.

    The callbacks are plain attributes, and may be set or removed later, even during a run.

    Raises:
        TypeError: A callback cannot be called with one argument, ``callback_timeout`` is not a
            number of seconds, or another argument is of the wrong type.
        ValueError: ``history`` is not one of these, or ``spill`` is a file of something else.
        OSError: ``spill`` cannot be written.
    """

    on_status_change: StatusCallback | None
    on_task_start: TaskCallback | None
    on_task_complete: TaskCallback | None
    on_task_retry: TaskCallback | None
    on_task_fail: TaskCallback | None

    @explained
    def __init__(
        self,
        on_status_change: StatusCallback | None = None,
        on_task_start: TaskCallback | None = None,
        on_task_complete: TaskCallback | None = None,
        on_task_retry: TaskCallback | None = None,
        on_task_fail: TaskCallback | None = None,
        *,
        callback_timeout: float = 30.0,
        history: Literal["full", "last"] | int | None = "full",
        keep_failed: bool = True,
        spill: str | os.PathLike[str] | None = None,
    ) -> None:
        callback_timeout = check_seconds(_refuse, "callback_timeout", callback_timeout, 0.001)
        self._most_kept = _checked_history(history)
        check_flag(_refuse, "keep_failed", keep_failed)
        self._keep_failed = keep_failed
        self._spill = None if spill is None else _opened_spill(spill)
        self._runs: dict[str, RunHistory] = {}
        self._followers: dict[str, Follower] = {}
        self._guard = CallbackGuard(callback_timeout)
        self.on_status_change = on_status_change
        self.on_task_start = on_task_start
        self.on_task_complete = on_task_complete
        self.on_task_retry = on_task_retry
        self.on_task_fail = on_task_fail

    def __repr__(self) -> str:
        return asked(self._told, instead=f"<{type_name(self)}>")

    def _told(self) -> str:
        counts = [f"{count:,} {status}" for status, count in self.get_stats().items() if count]
        text = f"<{type_name(self)}: {counted(len(self._runs), 'run')}"
        return f"{text}; {', '.join(counts)}>" if counts else f"{text}>"

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the runs that are over. A run in progress tells only the original.
        ended = {run: each for run, each in self._runs.items() if run not in self._followers}
        guard = copy(self._guard)
        return vars(self) | {"_runs": ended, "_followers": {}, "_guard": guard}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLBACKS:
            check_callback(_refuse, name, value, "event")
        super().__setattr__(name, value)
        if name in CALLBACKS:
            for follower in tuple(self._followers.values()):
                follower.rewire()

    @property
    def callback_timeout(self) -> float:
        """Seconds an async callback may take."""
        return self._guard.timeout

    @property
    def callback_errors(self) -> int:
        """How many times a callback raised or took too long."""
        return self._guard.errors

    # Queries. ``run=None``: the latest run that saw the id.

    def get_status(self, item_id: Any, run: str | None = None) -> StatusEvent | None:
        """The item's latest event; ``None`` for an unknown id.

        Args:
            item_id: The item's id.
            run: Id of the run to look in; ``None``: the latest that saw the item.

        Raises:
            HistoryNotKept: It may be an item that has ended, and was not kept.
        """
        history = self._find(item_id, run)
        return None if history is None else history.status(item_id)

    def get_history(self, item_id: Any, run: str | None = None) -> list[StatusEvent]:
        """All events of an item so far, oldest first; ``[]`` for an unknown id.

        The list is new, and equal to what ``on_status_change`` was called with. With "last", or a
        number, for `history`, it has the last events of these.

        Raises:
            HistoryNotKept: It may be an item that has ended, and was not kept.
        """
        history = self._find(item_id, run)
        return [] if history is None else history.history(item_id)

    def get_by_status(self, status: StatusType, run: str | None = None) -> list[StatusEvent]:
        """The latest events of all items that have this status now.

        Raises:
            ValueError: ``status`` is not one of the six.
            HistoryNotKept: Some of these items were not kept.
        """
        check_choice(ValueError, "status", status, STATUSES)
        return [event for history in self._chosen(run) for event in history.with_status(status)]

    def get_stats(self, run: str | None = None) -> dict[str, int]:
        """Status → how many items have it now, for all six; over all runs, or one."""
        totals: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        for history in self._chosen(run):
            totals.update(history.counts())
        return dict(totals)

    def get_tracked_ids(self, run: str | None = None) -> list[Any]:
        """Ids of all items seen, each once, in the order in which they were taken in.

        Raises:
            HistoryNotKept: Some items were not kept.
        """
        ids = (item_id for history in self._chosen(run) for item_id in history.ids())
        return list({key_of(item_id): item_id for item_id in ids}.values())

    def get_failed_items(self, run: str | None = None) -> list[FailedItem]:
        """All items that failed for good or were cancelled (``ItemCancelled``), oldest first.

        Raises:
            HistoryNotKept: Some of them were not kept.
        """
        return [item for history in self._chosen(run) for item in history.failed_items()]

    def get_error_summary(self, run: str | None = None) -> ErrorSummary:
        """A summary of the failed and cancelled items, over all runs or one.

        Its counts are exact. With ``history=None``, its `failed_items` are only the last ones.
        """
        return merged([history.error_summary() for history in self._chosen(run)])

    # For the pipeline

    def follow(self) -> Listener:
        """A listener for one run."""
        return Follower(self)

    def _begin(self, follower: Follower, history: RunHistory) -> None:
        self._runs[history.facts.run_id] = history
        self._followers[history.facts.run_id] = follower

    def _history_of(
        self, facts: RunFacts, ledger: Ledger, quiet_stages: frozenset[int]
    ) -> RunHistory:
        kept = Kept(self._most_kept or 0, self._keep_failed)
        if self._spill is not None:
            return self._spill.history(facts, ledger, quiet_stages, kept)
        if self._most_kept is None:
            return RunHistory(facts, ledger, quiet_stages)
        return ShortHistory(facts, ledger, quiet_stages, kept)

    def _end(self, run_id: str) -> None:
        self._followers.pop(run_id, None)

    def _chosen(self, run: str | None) -> Iterator[RunHistory]:
        if run is not None and not isinstance(run, str):
            raise refusal(TypeError, "run", run, "must be the id of a run (a string), or None")
        if run is None:
            yield from tuple(self._runs.values())
        elif run in self._runs:
            yield self._runs[run]

    def _find(self, item_id: Any, run: str | None) -> RunHistory | None:
        if not is_hashable(item_id):
            raise refusal(TypeError, "item_id", item_id, "must be hashable")
        for history in reversed(list(self._chosen(run))):
            if item_id in history:
                return history
            if not history.knows_all:
                raise not_kept(f"item {clean(safe_repr(item_id))} is unknown or not kept")
        return None


class Follower:
    """Follows one run for a tracker: tells first the history, then the callbacks."""

    name = "the tracker"

    def __init__(self, tracker: StatusTracker) -> None:
        self._tracker = tracker
        self.hears_starts = self.may_hold = False
        self.entering: Callable[[Envelope], Wait] = _nothing
        self.started: Callable[[Envelope, WorkerBook, float], Wait] = _nothing
        self.completed: Callable[[Envelope, WorkerBook, Any, float, float], Wait] = _nothing
        self.ended: Callable[[Step], Wait] = _nothing
        self.tasks: dict[TaskEventType, TellTask] = {}
        self.rewire_run: Callable[[], None] = _nothing
        self._sinks: Observers | None = None

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        self._facts = facts
        names = facts.stage_names
        self._quiet = frozenset(n for n, name in enumerate(names) if name in facts.per_task_stages)
        self._history = self._tracker._history_of(facts, ledger, self._quiet)
        self._tracker._begin(self, self._history)
        if (spill := self._tracker._spill) is not None:
            self._sinks = Observers([spill.sink], self._tracker._guard)
            self._sinks.opened(facts, ledger, rewire)
        self.rewire_run = rewire
        self._look_who_hears()

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        self._history.admitted(envelopes, now)

    def rewire(self) -> None:
        """Take note of a callback that was set or removed."""
        self._look_who_hears()
        self.rewire_run()

    def closed(self, end: RunEnd) -> Wait:
        self._history.close()
        self._tracker._end(self._facts.run_id)
        self.rewire_run = _nothing
        return None if self._sinks is None else self._sinks.closed(end)

    def _look_who_hears(self) -> None:
        """Make the tellers, once and not for each event."""
        history, guard = self._history, self._tracker._guard
        status = self._tracker.on_status_change
        self.may_hold = status is not None
        self.hears_starts = self.may_hold or history.started is not None
        if status is None:
            self.started = history.started or _nothing
            self.completed, self.ended = history.completed, history.ended
        else:
            name = "callback on_status_change"
            teller = StatusTeller(
                self._facts,
                history,
                self._quiet,
                guard.caller(name, status),
                partial(guard.call, name, status),
            )
            self.entering = teller.entering
            self.started = _both(history.started, teller.started)
            self.completed, self.ended = teller.completed, teller.ended
        self.tasks = {}
        for name, kind in TASK_CALLBACKS.items():
            if (callback := getattr(self._tracker, name)) is not None:
                call = guard.caller(f"callback {name}", callback)
                self.tasks[kind] = task_teller(self._facts, kind, call)


def _both(first: Callable[..., None] | None, then: Callable[..., Wait]) -> Callable[..., Wait]:
    """Both, one after the other."""
    if first is None:
        return then

    def started(*what: Any) -> Wait:
        first(*what)
        return then(*what)

    return started


def _nothing(*_: object) -> None:
    """Tell no callback: the run has not begun, or is over."""


def _checked_history(history: object) -> int | None:
    """How many events of each settled item to keep; ``None`` = all."""
    if history is None:
        return 0
    if is_a(history, str) and history in ("full", "last"):
        return None if history == "full" else 1
    count = whole(history)
    if count is None or count < 1:
        allowed = 'must be "full", "last", a whole number >= 1 of events, or None'
        raise refusal(_refuse_value, "history", history, allowed)
    return count


def _opened_spill(spill: object) -> Spill:
    is_path = examine(_refuse, "spill", isinstance, spill, (str, os.PathLike))
    path = examine(_refuse, "spill", os.fspath, spill) if is_path else ""
    if not path or not isinstance(path, str):
        raise refusal(_refuse, "spill", spill, "must be the path of a file, or None")
    from antflow._monitor.spill import Spill  # with SQLite, which most programs do not need

    return Spill(Path(path))


def _refuse_value(message: str) -> Exception:
    return ValueError(f"StatusTracker: {message}")


def _refuse(message: str) -> Exception:
    return TypeError(f"StatusTracker: {message}")
