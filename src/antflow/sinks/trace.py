"""A run as a trace file, for Perfetto, chrome://tracing and speedscope.

The format is Chrome's trace event format, in its form of a JSON array: each stage is a process,
each worker a thread, each try a slice. The array may lack its end, so that the file of a program
that was killed can be opened, too.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Unpack

from antflow._core.file_lock import unlock
from antflow._core.forked import leave_to_parent
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import at_text
from antflow.sinks.event_log import KnownRuns
from antflow.sinks.file_sink import FileSink, take, writable_path
from antflow.sinks.records import EventRecord
from antflow.sinks.sink import SinkOptions

MICROSECONDS = 1e6

STAGES_OF_A_RUN = 1_000
"""Numbers that each run has for its processes: that many stages, and one for the run."""

GZIP = 31
"""Says to `zlib` that it is to write gzip, with the largest window."""

ENDINGS = ("completed", "retrying", "failed", "dropped", "expanded", "cancelled")
"""Kinds of events that end a try."""

ENTERS = ("admitted", "emitted")

COUNTS_EVERY = 0.05
"""Seconds between two readings of the counters, so that they do not make up most of the file."""


class _Slice:
    """What a worker has in hand: an item, or a batch of them."""

    def __init__(self, began: float, attempt: int) -> None:
        self.began = began
        self.attempt = attempt
        self.items: set[tuple[int, str]] = set()
        self.names: list[str] = []
        self.endings: dict[str, int] = {}
        self.error = ""


class RunTrace:
    """Makes trace events of the events of one run.

    Args:
        stages: Names of the run's stages, in order.
        started: When it began, in Unix seconds.
        number: The run's number in the file, from 0.
        label: Goes before the names of its stages.
    """

    def __init__(self, stages: Sequence[str], started: float, number: int, label: str = "") -> None:
        self._stages = list(stages)
        self.started: float = started
        self._first = number * STAGES_OF_A_RUN
        self._label = label
        self._slices: dict[str, _Slice] = {}
        self._waiting = [0] * len(stages)
        self._in_flight = 0
        self._counted = -1.0
        self._named: set[str] = set()

    def opening(self) -> Iterator[dict[str, Any]]:
        """The events that name the stages."""
        names = ["run", *(f"{n} {name}" for n, name in enumerate(self._stages, 1))]
        for index, name in enumerate(names):
            pid = self._first + index
            yield _meta("process_name", pid, 0, {"name": f"{self._label}{name}"})
            yield _meta("process_sort_index", pid, 0, {"sort_index": pid})

    def told(self, record: EventRecord) -> Iterator[dict[str, Any]]:
        """The trace events that become known by one event."""
        stage = self._stages.index(record.stage)
        self._count(record, stage)
        if record.worker is not None:
            if record.worker not in self._named:
                self._named.add(record.worker)
                thread = _number_of(record.worker)
                pid = self._first + stage + 1
                yield _meta("thread_name", pid, thread, {"name": record.worker})
            if record.kind == "started":
                yield from self._begins(record, stage)
            elif record.kind in ENDINGS:
                yield from self._ends(record, stage)
        if record.timestamp >= self._counted + COUNTS_EVERY:
            yield from self.counters(record.timestamp)

    def counters(self, timestamp: float) -> Iterator[dict[str, Any]]:
        """The numbers of items in flight, and waiting for each stage."""
        self._counted = timestamp
        waiting = dict(zip(self._stages, self._waiting, strict=True))
        for name, values in (("in flight", {"items": self._in_flight}), ("waiting", waiting)):
            yield self._event("C", name, timestamp, self._first, 0, values)

    def closing(self, end: float) -> Iterator[dict[str, Any]]:
        """The slices that had no end, up to the end of the run."""
        for worker, held in self._slices.items():
            stage = self._stages.index(worker.rpartition("-W")[0])
            yield self._slice(worker, held, stage, end)
        self._slices.clear()
        yield from self.counters(end)

    def _begins(self, record: EventRecord, stage: int) -> Iterator[dict[str, Any]]:
        held = self._slices.get(worker := record.worker or "")
        if held is not None and held.began != record.timestamp:
            # The sink has lost the end of what the worker had: items of a batch begin together.
            yield self._slice(worker, held, stage, record.timestamp)
            held = None
        if held is None:
            held = self._slices[worker] = _Slice(record.timestamp, record.attempt)
        held.items.add((record.sequence_id, record.branch))
        held.names.append(record.item)

    def _ends(self, record: EventRecord, stage: int) -> Iterator[dict[str, Any]]:
        held = self._slices.get(worker := record.worker or "")
        if held is None:  # it was dropped by the sink, or the log begins later
            return
        held.items.discard((record.sequence_id, record.branch))
        held.endings[record.kind] = held.endings.get(record.kind, 0) + 1
        if record.error_type is not None:
            held.error = f"{record.error_type}: {record.error}{at_text(record.place or '')}"
        if not held.items:
            del self._slices[worker]
            if record.waited:
                yield self._wait(worker, held, stage, record.waited)
            yield self._slice(worker, held, stage, record.timestamp)

    def _wait(self, worker: str, held: _Slice, stage: int, seconds: float) -> dict[str, Any]:
        """The time for which a try waited, mostly for a limit, drawn in one piece before it."""
        pid, tid = self._first + stage + 1, _number_of(worker)
        event = self._event("X", "waits", held.began, pid, tid, {"items": held.names[:20]})
        began = held.began + seconds
        seconds = began - held.began  # as rounded: it must not overlap with the try
        held.began = began
        return event | {"dur": round(seconds * MICROSECONDS, 3), "cat": "waits"}

    def _slice(self, worker: str, held: _Slice, stage: int, end: float) -> dict[str, Any]:
        count = len(held.names)
        name = held.names[0] if count == 1 else f"{count:,} items"
        kinds = sorted(held.endings) or ["in progress"]
        arguments: dict[str, Any] = {"items": held.names[:20], "attempt": held.attempt}
        arguments |= {"outcome": ", ".join(kinds)}
        if held.error:
            arguments["error"] = held.error
        pid, tid = self._first + stage + 1, _number_of(worker)
        event = self._event("X", name, held.began, pid, tid, arguments)
        seconds = max(end - held.began, 0.0)
        return event | {"dur": round(seconds * MICROSECONDS, 3), "cat": kinds[0]}

    def _event(
        self, phase: str, name: str, timestamp: float, pid: int, tid: int, arguments: Any
    ) -> dict[str, Any]:
        at = round((timestamp - self.started) * MICROSECONDS, 3)
        return {"ph": phase, "name": name, "ts": at, "pid": pid, "tid": tid, "args": arguments}

    def _count(self, record: EventRecord, stage: int) -> None:
        """Keep the counters: how many items wait for each stage, and how many are in flight."""
        kind, is_last = record.kind, stage + 1 == len(self._stages)
        if kind in ENTERS:
            self._in_flight += 1
        if kind == "admitted":
            self._waiting[stage] += 1
        elif kind in ("started", "skipped") or (kind == "cancelled" and record.worker is None):
            self._waiting[stage] -= 1
        elif kind == "retrying":
            self._waiting[stage] += 1
        if kind in ("completed", "skipped", "emitted") and not is_last:
            self._waiting[stage + 1] += 1
        elif kind in ("completed", "skipped", "emitted", *ENDINGS[2:]):
            self._in_flight -= 1


class TraceSink(FileSink):
    """Writes a trace file: ``observers=[TraceSink("trace.json.gz")]``.

    Open it in ui.perfetto.dev, chrome://tracing or speedscope. There is a track for each worker and
    a slice for each try, named after the item; and counters of the items in flight and waiting. A
    file that is there already is replaced when the first run begins.

    Args:
        path: The file; packed if it ends in ``.gz``. Its folder must exist.
        options: See `SinkOptions`.

    Raises:
        TypeError: ``path`` is not a path, or an option is of the wrong type.
        ValueError: An option is not allowed.
        OSError: There is no such folder, or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[SinkOptions]) -> None:
        super().__init__(path, **options)

    def begin_anew(self) -> None:
        """See `Sink.begin_anew`."""
        super().begin_anew()
        leave_to_parent(vars(self).get("_file"))
        self._file: BinaryIO | None = None
        self._pack: Any = None
        self._unwritten = memoryview(b"")
        self._traces: dict[str, RunTrace] = {}
        self._runs = 0
        self._is_empty = True

    def open(self) -> None:
        """Begin the file. If that has failed half way, go on."""
        if self._file is None:
            self._take_file()
        self._write_out("[")

    def _take_file(self) -> None:
        file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        try:
            take(file.fileno())
            with suppress(OSError):  # a pipe cannot be cut
                file.truncate(0)
        except BaseException:
            file.close()
            raise
        is_packed = self._path.name.lower().endswith(".gz")
        self._file = file
        self._pack = zlib.compressobj(wbits=GZIP) if is_packed else None
        self._unwritten = memoryview(b"")
        self._is_empty = True
        self._runs = 0

    def write_opened(self, facts: RunFacts) -> None:
        """Name the stages of a run that began."""
        if (trace := self._traces.get(facts.run_id)) is None:
            label = f"run {self._runs + 1}: " if self._runs else ""
            trace = RunTrace(facts.stage_names, facts.started_wall, self._runs, label)
            self._traces[facts.run_id] = trace
            self._runs += 1
        self._append(trace.opening())

    def write(self, records: list[EventRecord]) -> None:
        """Append what a batch of events tells."""
        self._append(
            event
            for record in records
            if (trace := self._traces.get(record.run)) is not None
            for event in trace.told(record)
        )

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Append what is left of a run that is over."""
        trace = self._traces.pop(end.run_id, None)
        self._append(() if trace is None else trace.closing(end.timestamp))

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            try:
                self._write_out("\n]\n", is_end=True)
            except OSError:
                if self._error is None:  # it is tried again
                    raise
            file, self._file = self._file, None
            try:
                self._check_name(file.fileno())
            finally:
                unlock(file.fileno())
                file.close()

    def _append(self, events: Iterable[Mapping[str, Any]]) -> None:
        if self._unwritten:  # it is told again, and is among that
            self._write_out("")
            return
        if lines := [json.dumps(event, ensure_ascii=False) for event in events]:
            text = ("\n" if self._is_empty else ",\n") + ",\n".join(lines)
            self._is_empty = False
            self._write_out(text)

    def _write_out(self, text: str, is_end: bool = False) -> None:
        """Write a text, or the rest of the last one, whose writing has failed."""
        assert self._file is not None
        if not self._unwritten and text:
            data = text.encode("utf-8", "backslashreplace")
            if self._pack is not None:
                mode = zlib.Z_FINISH if is_end else zlib.Z_SYNC_FLUSH
                data = self._pack.compress(data) + self._pack.flush(mode)
            self._unwritten = memoryview(data)
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


def trace_of(
    runs: Iterable[tuple[str, Sequence[str], float, float | None]], events: Iterable[EventRecord]
) -> Iterator[dict[str, Any]]:
    """The trace events of a log.

    Args:
        runs: Of each run its id, its stages, when it began, and when it ended.
        events: The events, in the order in which they happened.
    """
    traces: dict[str, tuple[RunTrace, float | None]] = KnownRuns()
    for number, (run, stages, started, ended) in enumerate(runs):
        label = f"run {number + 1}: " if number else ""
        trace = RunTrace(stages, started, number, label)
        traces[run] = (trace, ended)
        yield from trace.opening()
    latest: dict[str, float] = {}
    for record in events:
        latest[record.run] = record.timestamp
        yield from traces[record.run][0].told(record)
    for run, (trace, ended) in traces.items():
        yield from trace.closing(ended if ended is not None else latest.get(run, trace.started))


def write_trace(path: str | os.PathLike[str], events: Iterable[Mapping[str, Any]]) -> None:
    """Write a trace file, packed if its name ends in ``.gz``."""
    with _opened(writable_path(path)) as file:
        separator = b"[\n"
        for event in events:
            text = json.dumps(event, ensure_ascii=False)
            file.write(separator + text.encode("utf-8", "backslashreplace"))
            separator = b",\n"
        file.write(b"\n]\n" if separator == b",\n" else b"[]\n")


def _opened(path: os.PathLike[str]) -> BinaryIO:
    is_packed = os.fspath(path).lower().endswith(".gz")
    file: Any = gzip.open(path, "wb") if is_packed else open(path, "wb")  # noqa: SIM115
    opened: BinaryIO = file
    return opened


def _meta(name: str, pid: int, tid: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": arguments}


def _number_of(worker: str) -> int:
    return int(worker.rpartition("-W")[2])
