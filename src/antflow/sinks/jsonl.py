"""Events as lines of JSON in a file."""

from __future__ import annotations

import os
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


BEGIN = b'{"v":'
"""How each line begins."""

ENDS_OF_LINES = "\x85\u2028\u2029"
"""What JSON allows in a string, and Python and JavaScript take for the end of a line."""


text_of_time = lru_cache(maxsize=16)(repr)
"""A time with all its digits. The end of one item is often the start of the next."""


class JsonlSink(FileSink):
    """Writes each event as a line of JSON: ``observers=[JsonlSink("events.jsonl")]``.

    Lines are appended. If a program was killed while it wrote, the file may end in part of a line:
    that is cut off first. Each run has a line of kind "run_opened" and one of "run_closed". The
    fields of the others are those of `EventRecord`; those that are ``None`` are left out.

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
        self._descriptor = -1

    def open(self) -> None:
        """Open the file and cut off part of a line at its end."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            take(descriptor)
            _cut_part_of_line(descriptor)
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
        unlock(descriptor)
        os.close(descriptor)

    def _append(self, text: str) -> None:
        """Append all of a text, or nothing."""
        for end in ENDS_OF_LINES:
            text = text.replace(end, f"\\u{ord(end):04x}")
        data = memoryview(text.encode("utf-8", "backslashreplace"))
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


def _cut_part_of_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if not size:
        return
    if not BEGIN.startswith(os.pread(descriptor, len(BEGIN), 0)):  # which may be cut short
        raise ValueError("it holds something else than events, so nothing is appended to it")
    start = max(size - LONGEST_LINE_END, 0)
    tail = os.pread(descriptor, size - start, start)
    if tail and not tail.endswith(b"\n"):
        end = tail.rfind(b"\n") + 1
        if not end and start:
            raise ValueError("it does not consist of lines, so nothing is appended to it")
        os.ftruncate(descriptor, start + end)
