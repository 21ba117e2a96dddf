"""Events as lines of JSON in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Unpack

from antflow._core.file_lock import unlock
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow.sinks.file_sink import FileSink, take
from antflow.sinks.records import VERSION, EventRecord
from antflow.sinks.run_records import closed_record, json_line, opened_record
from antflow.sinks.sink import SinkOptions

LONGEST_LINE_END = 1 << 20
"""How far back from its end a file is searched for its last whole line, in bytes."""


LONGEST_BEGIN = 64
"""Bytes that are enough to know a line by."""

BEGINS = tuple(b'{"v":%d,"run":' % version for version in range(1, VERSION + 1))
"""How lines begin that this version knows, but for spaces."""

ITS_VERSION = re.compile(rb'\{"v":([0-9]{1,9})[,}]')
NOTHING_IS_ADDED = "so nothing is appended to it"

ENDS_OF_LINES = "\x85\u2028\u2029"
"""What JSON allows in a string, and Python and JavaScript take for the end of a line."""


text_of_time: Callable[[float], str] = lru_cache(maxsize=16)(repr)
"""A time with all its digits. The end of one item is often the start of the next."""


class JsonlSink(FileSink):
    """Writes each event as a line of JSON: ``observers=[JsonlSink("events.jsonl")]``.

    Lines are appended, but not to a file of something else, or of a newer version of antflow. If a
    program was killed while it wrote, the file may end in part of a line: that is cut off first.
    Each run has a line of kind "run_opened" and one of "run_closed". The fields of the others are
    those of `EventRecord`; those that are ``None`` are left out.

    What was written is safe when the process is killed, but for the last 0.25 s (``every``).

    Args:
        path: The file. Its folder must exist.
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
        self._descriptor = -1

    def open(self) -> None:
        """Open the file and cut off part of a line at its end."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            take(descriptor)
            end = _end_of_lines(descriptor)
            if end < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, end)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def write(self, records: list[EventRecord]) -> None:
        """Append a batch."""
        self._append("".join(map(line_of, records)))

    def write_opened(self, facts: RunFacts) -> None:
        """Append the line of a run that began."""
        self._append(json_line(opened_record(facts)))

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Append the line of a run that is over."""
        self._append(json_line(closed_record(end, lost)))

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            self._check_name(descriptor)
        finally:
            unlock(descriptor)
            os.close(descriptor)

    def _append(self, text: str) -> None:
        """Append all of a text, or nothing."""
        for end in ENDS_OF_LINES:
            text = text.replace(end, f"\\u{ord(end):04x}")
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        self._check_name(self._descriptor)
        size = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            with suppress(OSError):  # a pipe cannot be cut
                os.ftruncate(self._descriptor, size)
            raise


def line_of(record: EventRecord) -> str:
    """A record as a line of JSON. Written out, because `json.dumps` takes three times as long."""
    (run, seq, timestamp, kind, stage, item, sequence_id, branch) = record[:8]
    (worker, attempt, duration, waited, error_type, error, place, value) = record[8:]
    quoted = encode_basestring
    more = "" if worker is None else f',"worker":{quoted(worker)}'
    if branch:
        more += f',"branch":"{branch}"'
    if duration:
        more += f',"duration":{duration:.9f}'
    if waited:
        more += f',"waited":{waited:.9f}'
    if error_type is not None:
        more += f',"error_type":{quoted(error_type)},"error":{quoted(error or "")}'
        if place is not None:
            more += f',"place":{quoted(place)}'
    if value is not None:
        more += f',"value":{value}'
    return (
        f'{{"v":{VERSION},"run":{quoted(run)},"seq":{seq},"timestamp":{text_of_time(timestamp)},'
        f'"kind":"{kind}","stage":{quoted(stage)},"item":{quoted(item)},'
        f'"sequence_id":{sequence_id},"attempt":{attempt}{more}}}\n'
    )


def check_events(path: str | os.PathLike[str]) -> None:
    """Refuse a file to which a `JsonlSink` would append nothing.

    Raises:
        ValueError: It holds something else, or a newer version wrote it.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        _end_of_lines(file.fileno())


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line of a file ends.

    Raises:
        ValueError: It holds something else than events that this version knows, as far as its first
            line and its last ones tell.
    """
    size = os.fstat(descriptor).st_size
    if not size:
        return 0
    start = max(size - LONGEST_LINE_END, 0)
    _check_line(os.pread(descriptor, LONGEST_BEGIN, 0))
    tail = os.pread(descriptor, size - start, start)
    end = tail.rfind(b"\n") + 1
    before = tail.rfind(b"\n", 0, max(end - 1, 0)) + 1
    if not before and start:
        raise ValueError(f"it does not consist of lines, {NOTHING_IS_ADDED}")
    for line in (tail[before:end], tail[end:]):
        if line:
            _check_line(line)
    return start + end


def _check_line(line: bytes) -> None:
    """Check how a line begins, of which there may be no more."""
    begin = line[:LONGEST_BEGIN].replace(b'": ', b'":').replace(b', "', b',"')
    found = ITS_VERSION.match(begin)
    if found is not None and (version := int(found[1])) > VERSION:
        text = f"it was written by a newer version (its format is {version})"
        raise ValueError(f"{text}, {NOTHING_IS_ADDED}")
    if not any(begin.startswith(known) or known.startswith(begin) for known in BEGINS):
        raise ValueError(f"it holds something else than events, {NOTHING_IS_ADDED}")
