"""The part all sinks share: a bounded buffer, and a thread that writes batches of events.

The event loop only appends to the buffer. A thread of the sink takes batches from it, makes records
of them and writes them; so a slow disk or server never holds an item up, unless ``when_full`` is
"block". The thread lives while a run is open: it begins with the first one, and ends when
the last one is over and everything is written.

A child process after a fork has no such thread. What its sinks hear of the parent's run is lost,
and with the next run they begin anew.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict, Unpack, get_args
from weakref import WeakValueDictionary

from antflow._core import log
from antflow._core.brief import Brief
from antflow._core.checks import (
    check_callback,
    check_choice,
    check_count,
    check_flag,
    check_seconds,
    refusal,
)
from antflow._core.foreign import asked, is_a
from antflow._core.misspellings import did_you_mean
from antflow._core.observers import ItemStep, RunEnd, StepKind
from antflow._core.run_facts import RunFacts
from antflow._core.sink_counts import SinkCounts
from antflow._core.text import clean, counted, error_text, error_type_name
from antflow.sinks.records import EventRecord, Heard, Redact, heard, record_of

WhenFull = Literal["drop_oldest", "block"]
"""What a sink does with an event for which its buffer has no room."""

WHEN_FULL: tuple[str, ...] = get_args(WhenFull)
KINDS: tuple[str, ...] = get_args(StepKind)

RETRIES_AFTER = (0.1, 0.3, 1.0, 2.0)
"""Seconds before each further try to write a batch. In all they are well below the ten seconds that
a run waits for its observers."""

LONGEST_FLUSH = 5.0
"""Seconds for which a program that ends in the middle of a run waits for its sinks."""


@dataclass(frozen=True, slots=True)
class RunOpened:
    """A run began."""

    facts: RunFacts


@dataclass(frozen=True, slots=True)
class Flush:
    """Something waits for what is in the buffer.

    Attributes:
        written: Set when everything before it is written.
    """

    written: threading.Event


@dataclass(frozen=True, slots=True)
class RunClosed:
    """A run is over.

    Attributes:
        end: How it ended.
        pipeline: The pipeline's name.
        written: Set when it and everything before it is written, and the place is closed if no
            other run is open.
    """

    end: RunEnd
    written: Future[None]


Notice = RunOpened | RunClosed | Flush
"""Something in the buffer that is no event."""


class Promised(Executor):
    """Gives an event loop the future that the sink's thread will set.

    No thread waits for it, which Python would join when it ends, however long a place hangs; and a
    loop with virtual time takes note of it.
    """

    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future."""
        return self._future


class SinkOptions(TypedDict, total=False):
    """The options of every sink, by keyword.

    Attributes:
        kinds: The kinds of steps to record; ``None`` (the default) = all. See `ItemStep`.
        values: Whether to record the values of items too, as JSON. Default ``False``.
        redact: Called as ``redact(field, value)`` with ``"item"`` and the item's id as text,
            ``"error"`` and the error's message, or ``"value"`` and the item's value; what it
            returns is recorded instead. If it raises, ``"<redacted>"`` is. It is called on the
            event loop for values, else in the sink's thread.
        buffer: How many events may wait to be written, 1 or more. Default 65,536.
        batch: The most events written at a time, 1 or more. Default 1,000.
        every: The longest time an event waits for others, in seconds. Default 0.25.
        when_full: Decides about an event for which the buffer has no room. "drop_oldest" (the
            default): the oldest event in it is lost, counted, and logged. "block": the event loop
            waits until there is room, and all items with it.
    """

    kinds: Collection[StepKind] | None
    values: bool
    redact: Redact | None
    buffer: int
    batch: int
    every: float
    when_full: WhenFull


class Sink(Brief):
    """An observer that writes events to one place, in batches, from a thread of its own.

    A sink of your own has a method `write`, which is given a list of `EventRecord`, and perhaps
    `open` and `close`. They are called in the sink's thread. One that raises is called again, up to
    five times in about 3 s, unless `gives_up_on` the error; then the sink is off, one warning says
    so, and the run goes on.

    Args:
        options: See `SinkOptions`.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: An option is not allowed.
    """

    def __init__(self, **options: Unpack[SinkOptions]) -> None:
        kinds, redact = options.get("kinds"), options.get("redact")
        values = options.get("values", False)
        buffer, batch = options.get("buffer", 65_536), options.get("batch", 1_000)
        when_full = options.get("when_full", "drop_oldest")
        for name in options:
            if name not in SinkOptions.__annotations__:
                text = f"{type(self).__name__}() got an unexpected keyword argument {name!r}"
                raise TypeError(text + did_you_mean(name, SinkOptions.__annotations__))
        check_flag(TypeError, "values", values)
        if redact is not None:
            check_callback(TypeError, "redact", redact, "field", "value")
        self._most = check_count(ValueError, "buffer", buffer, 1, "must be a whole number >= 1")
        self._batch = check_count(ValueError, "batch", batch, 1, "must be a whole number >= 1")
        self._every = check_seconds(ValueError, "every", options.get("every", 0.25), 0.001)
        check_choice(ValueError, "when_full", when_full, WHEN_FULL)
        self.wants_values: bool = values
        self._kinds = None if kinds is None else _checked_kinds(kinds)
        self._redact = redact
        self._blocks = when_full == "block"
        self._thread: threading.Thread | None = None
        self.begin_anew()
        _sinks[id(self)] = self

    def begin_anew(self) -> None:
        """Nothing is open, and nothing waits: it is new, or in a new process after a fork.

        A place that is open then is the parent's. Nothing may be written to it, not even its end.
        """
        self._buffer: deque[Heard | Notice] = deque()
        self._notices = 0  # in the buffer
        self._numbered = 0  # events that have left the buffer
        self._delivered = self._dropped = self._reported = self._failures = 0
        self._error: str | None = None
        self._lost_of: Counter[str] = Counter()  # by the runs that are open
        self._open_runs = 0
        self._is_exiting = False
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._is_woken = False  # asking the event would take the loop longer
        self._is_late = threading.Event()
        if self._thread is not None:  # it is not in this process
            atexit.unregister(self._flush_at_exit)
            self._thread = None
            self._error = "the process was forked in the middle of a run"

    def _said(self) -> str:
        where = "" if type(self).target is Sink.target else f" {self.target}"
        return f"{where}: {self._delivered:,} written, {self._dropped:,} lost"

    @property
    def counts(self) -> SinkCounts:
        """How many events were heard, written and lost, over all runs so far."""
        with self._lock:
            emitted = self._numbered + len(self._buffer) - self._notices
            delivered, dropped = self._delivered, self._dropped
        waiting = emitted - delivered - dropped
        return SinkCounts(emitted, delivered, dropped, waiting, self._error, self._failures)

    def flush(self) -> None:
        """Wait until everything that was heard so far is written, or lost.

        It holds up the event loop, mostly for less than a millisecond for each hundred events.
        """
        written = threading.Event()
        with self._lock:
            thread = self._thread
            if thread is None or thread is threading.current_thread():  # it would wait for itself
                return
            self._put(Flush(written))
        while not written.wait(1.0) and thread.is_alive():
            pass

    # As an observer

    def opened(self, run: RunFacts) -> None:
        """A run begins."""
        with self._lock:
            self._open_runs += 1
            if self._thread is None:
                self._error = None
                self._is_late.clear()
                self._thread = threading.Thread(
                    target=self._work, name=f"antflow {type(self).__name__}", daemon=True
                )
                atexit.register(self._flush_at_exit)
                self._thread.start()
            self._put(RunOpened(run))

    def happened(self, step: ItemStep) -> None:
        """An item took a step."""
        if self._kinds is not None and step.kind not in self._kinds:
            return
        event = heard(step, self._redact)
        buffer = self._buffer
        if (len(buffer) >= self._most or self._error is not None) and not self._has_room(event):
            return
        buffer.append(event)  # without the lock: a deque needs none
        if len(buffer) >= self._batch and not self._is_woken:
            self._is_woken = True
            self._wake.set()

    def closed(self, end: RunEnd) -> Coroutine[Any, Any, None] | None:
        """A run is over; what it returns waits until everything of it is written."""
        if self._thread is None:  # it began in the parent of this process
            return None
        written: Future[None] = Future()
        written.set_running_or_notify_cancel()  # so that it cannot be cancelled any more
        with self._lock:
            self._put(RunClosed(end, written))
            self._open_runs -= 1
            thread = self._thread
        return self._closing(written, thread)

    # What a sink does, in its thread

    def open(self) -> None:
        """Open the place, for a first run or again."""

    def write_opened(self, facts: RunFacts) -> None:
        """Write that a run began."""

    def write(self, records: list[EventRecord]) -> None:
        """Write a batch. If it raises, it is called again with the same one."""
        raise NotImplementedError

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Write that a run is over, of which this many events were lost."""

    def close(self) -> None:
        """Close the place."""

    def gives_up_on(self, error: Exception) -> bool:
        """Whether no further try can help after this error; then the sink is off at once."""
        return False

    # Inside

    def _put(self, notice: Notice) -> None:
        """Put something in the buffer that is no event. The caller has the lock."""
        self._notices += 1
        self._buffer.append(notice)
        self._wake.set()

    def _has_room(self, event: Heard) -> bool:
        """Make room for an event, or count it as lost: the buffer is full, or the sink is off."""
        with self._lock:
            if self._error is None:
                self._wake.set()
                if self._blocks:
                    self._room.wait_for(lambda: len(self._buffer) < self._most or self._error)
            has_room = self._error is None
            if has_room and self._blocks:
                return True
            lost = _taken_oldest(self._buffer) if has_room else event
            if lost is not None:
                self._numbered += 1
                self._dropped += 1
                self._lost_of[lost[0]] += 1
            return has_room

    async def _closing(self, written: Future[None], thread: threading.Thread | None) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(Promised(written), written.result)
            if thread is not None and thread is not self._thread:
                thread.join()  # this was the last that it did
        except asyncio.CancelledError:
            if not self._open_runs:
                self._is_late.set()  # do not try again what fails
            raise
        finally:
            with self._lock:
                lost, self._reported = self._dropped - self._reported, self._dropped
            if lost:
                why = _why_lost(self._error is not None, self._most)
                log.alert("%s lost %s: %s", type(self).__name__, counted(lost, "event"), why)

    def _work(self) -> None:
        """Write batches until the last run is over."""
        while True:
            over = self._write_runs()
            with self._lock:
                is_last = self._is_exiting or not (self._open_runs or self._buffer)
                if is_last:
                    atexit.unregister(self._flush_at_exit)
                    self._thread = None
                else:  # a run began while the place was being closed
                    self._error = None
                    self._is_late.clear()
            for written in over:
                written.set_result(None)
            if is_last:
                return

    def _write_runs(self) -> list[Future[None]]:
        """Open the place, and close it when no run is open.

        Returns:
            What to set then: a run that ends last waits until the place is closed.
        """
        self._try(self.open)
        over: list[Future[None]] = []
        while True:
            self._wake.wait(self._every)
            self._wake.clear()
            self._is_woken = False  # before looking: what comes from now on wakes it again
            while self._buffer:
                over += self._write_some()
            with self._lock:
                if not self._open_runs and not self._buffer:
                    break
            while over:
                over.pop().set_result(None)
        if not self._try(self.close):
            with suppress(BaseException):  # why: what is open, if it was opened, is closed
                self.close()
        return over

    def _write_some(self) -> list[Future[None]]:
        """Write a batch: the events up to the next notice, then do what that says.

        Returns:
            What to set if the place stays open, and else when it is closed.
        """
        events: list[Heard] = []
        notice: Notice | None = None
        buffer = self._buffer
        with self._lock:
            first = self._numbered
            for _ in range(min(len(buffer), self._batch)):
                entry = buffer.popleft()
                if not isinstance(entry, tuple):
                    notice = entry
                    self._notices -= 1
                    break
                events.append(entry)
            self._numbered += len(events)
            self._room.notify_all()
        if events:
            self._write_events(first, events)
        if isinstance(notice, RunOpened):
            self._try(partial(self.write_opened, notice.facts))
        elif isinstance(notice, RunClosed):
            with self._lock:
                lost = self._lost_of.pop(notice.end.run_id, 0)
            self._try(partial(self.write_closed, notice.end, lost))
            return [notice.written]
        elif isinstance(notice, Flush):
            notice.written.set()
        return []

    def _write_events(self, first: int, events: list[Heard]) -> None:
        redact = self._redact
        records: list[EventRecord] = []

        def write() -> None:
            if not records:
                numbered = enumerate(events, first)
                records.extend([record_of(seq, event, redact) for seq, event in numbered])
            self.write(records)

        is_written = self._try(write)
        with self._lock:
            if is_written:
                self._delivered += len(events)
            else:
                self._dropped += len(events)
                self._lost_of.update(event[0] for event in events)

    def _try(self, action: Any) -> bool:
        """Do it, up to five times; then the sink is off."""
        if self._error is not None:
            return False
        for number, delay in enumerate((*RETRIES_AFTER, None), 1):
            try:
                action()
                return True
            except BaseException as error:  # why: `sys.exit()` in it would end this thread alone
                self._failures += 1
                gives_up = is_a(error, Exception) and asked(self.gives_up_on, error, instead=True)
                if delay is None or gives_up or self._is_late.wait(delay):
                    self._switch_off(error, number)
                    return False
        return False

    def _switch_off(self, error: BaseException, attempts: int) -> None:
        text = clean(error_text(error))
        self._error = f"{error_type_name(error)}{': ' if text else ''}{text}"
        log.alert(
            "%s is off, after %s at writing to %s: %s. The run goes on without it.",
            type(self).__name__,
            counted(attempts, "attempt"),
            self.target,
            self._error,
            error=error,
        )
        with self._room:
            self._room.notify_all()

    @property
    def target(self) -> str:
        """The place it writes to, for messages."""
        return "its target"

    def _flush_at_exit(self) -> None:
        """The program ends in the middle of a run: write what is waiting."""
        with self._lock:
            self._open_runs, thread = 0, self._thread
            self._is_exiting = True  # what goes on in a daemon thread is too late
        self._is_late.set()
        self._wake.set()
        if thread is not None:
            thread.join(LONGEST_FLUSH)


_sinks: WeakValueDictionary[int, Sink] = WeakValueDictionary()


def _begin_all_anew() -> None:
    for sink in list(_sinks.values()):
        sink.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_anew)


def _why_lost(is_off: bool, most: int) -> str:
    if is_off:
        return "it is off"
    text = f"its buffer of {most:,} was full; a larger buffer="
    return f'{text}, or when_full="block", keeps them'


def _taken_oldest(buffer: deque[Heard | Notice]) -> Heard | None:
    """Take the oldest event out of a buffer, if there is one; notices stay where they are."""
    kept: list[Notice] = []
    event: Heard | None = None
    while buffer and event is None:
        oldest = buffer.popleft()
        if isinstance(oldest, tuple):
            event = oldest
        else:
            kept.append(oldest)
    buffer.extendleft(reversed(kept))
    return event


def _checked_kinds(kinds: Collection[StepKind]) -> frozenset[str]:
    allowed = f"must be a list of kinds, of {', '.join(KINDS)}"
    if isinstance(kinds, str) or not isinstance(kinds, Collection):
        raise refusal(TypeError, "kinds", kinds, allowed)
    for kind in kinds:
        if type(kind) is not str or kind not in KINDS:
            raise refusal(ValueError, "kinds", kind, allowed)
    return frozenset(kinds)
