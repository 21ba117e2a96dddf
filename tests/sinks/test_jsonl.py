"""Events as lines of a file, and what happens to the file."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antflow import Limit, Pipeline, Stage
from antflow.sinks import EventLog, EventRecord, JsonlSink
from antflow.testing import run_virtual

from .test_sink import run

OURS = b'{"v": 1, "run": "a"}\n'


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())


def test_writes_a_line_for_each_event(path: Path) -> None:
    """Each event is a line with the record's fields, between those of its run."""
    sink = JsonlSink(path)
    asyncio.run(run(sink))
    first, *events, last = lines_of(path)
    assert first["kind"] == "run_opened"
    assert first["stages"] == ["Halve", "Keep"]
    assert last["kind"] == "run_closed"
    assert (last["how"], last["completed"], last["failed"]) == ("finished", 4, 1)
    assert len(events) == sink.counts.delivered
    (failed,) = [event for event in events if event["kind"] == "failed"]
    assert (failed["error_type"], failed["error"], failed["item"]) == ("ValueError", "three", "3")
    assert {event["v"] for event in events} == {1}


def test_fields_are_those_of_the_record(path: Path) -> None:
    """No field of a line is unknown to `EventRecord`, and none of its own is missing."""
    asyncio.run(run(JsonlSink(path, values=True)))
    names = {name for event in lines_of(path)[1:-1] for name in event} - {"v"}
    assert names == set(EventRecord._fields) - {"branch", "waited"}


def test_waits_are_written(path: Path) -> None:
    """A try that waited for a limit says for how long."""
    stages = [Stage("A", 1, [abs], limits=[Limit(rate=1, period=1)])]
    pipeline = Pipeline(stages, observers=[JsonlSink(path, kinds=["completed"])])
    run_virtual(lambda: pipeline.run(range(3)))
    waited = [event.get("waited") for event in lines_of(path)[1:-1]]
    assert waited == [None, pytest.approx(1), pytest.approx(1)]
    with EventLog.open(path) as log:
        assert [event.waited for event in log.events()] == pytest.approx([0, 1, 1])


def test_branches_are_written(path: Path) -> None:
    """An item made from another says which one it is."""
    stages = [Stage("Split", 1, [lambda n: [n, n]], expand=True), Stage("A", 1, [lambda n: n])]
    asyncio.run(Pipeline(stages, observers=[JsonlSink(path, kinds=["completed"])]).run([1]))
    assert [event.get("branch") for event in lines_of(path)[1:-1]] == ["0", "1"]


def test_appends(path: Path) -> None:
    """A second run adds its lines to those that are there."""
    asyncio.run(run(JsonlSink(path)))
    before = path.read_text()
    asyncio.run(run(JsonlSink(path)))
    assert path.read_text().startswith(before)
    assert [line["kind"] for line in lines_of(path)].count("run_opened") == 2


@pytest.mark.parametrize("torn", [b'{"v":1,"ru', b'{"v": 1, "run": "a"}\n{"v":1,"ru'])
def test_cuts_off_part_of_a_line(path: Path, torn: bytes) -> None:
    """Part of a line at the end, of a program that was killed, is cut off before the first one."""
    path.write_bytes(torn)
    asyncio.run(run(JsonlSink(path)))
    whole = torn[: torn.rfind(b"\n") + 1]
    assert path.read_bytes().startswith(whole + b'{"v": 1, "run"')
    assert lines_of(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (OURS[:-1] + b"x" * (3 << 20), "it does not consist of lines"),
        (b"notes", "it holds something else than events"),
        (b"  ", "it holds something else than events"),
        (b'{"id": 1}\n', "it holds something else than events"),
        (b'{"v": 1, "count": 1}\n', "it holds something else than events"),
        (b'{"v": 1, "co', "it holds something else than events"),
        (OURS + b'{"id": 1}\n', "it holds something else than events"),
        (OURS + b"notes", "it holds something else than events"),
        (b'{"v": 2, "run": "a"}\n', "a newer version (its format is 2)"),
        (b'{"v":12,"run":"a"', "a newer version (its format is 12)"),
        (OURS + b'{"v": 2, "new": 1}\n', "a newer version (its format is 2)"),
        (OURS + b'{"v": 2, "ru', "a newer version (its format is 2)"),
        (b'{"v": 2}\n' + OURS, "a newer version (its format is 2)"),
    ],
)
def test_leaves_a_file_of_something_else(
    path: Path, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not touched, and not tried again: the sink is off at once."""
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(JsonlSink(path)))
    assert path.read_bytes() == content
    assert "JsonlSink is off, after 1 attempt at writing to" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize(
    "hostile",
    ['"', "\\", "\n", "\x1b[2J", "\ud800", "\u2028", "\x85", "é", "\x00", "😀", "x" * 9_999],
)
def test_any_text_is_a_line(path: Path, hostile: str) -> None:
    """Whatever an id, a message or a stage's name holds, each event is one line of JSON."""

    def fail(value: object) -> None:
        raise ValueError(hostile)

    name = hostile if hostile.isprintable() and len(hostile) < 50 else "A"
    stages = [Stage(name, 1, [fail], task_attempts=1)]
    pipeline = Pipeline(stages, observers=[JsonlSink(path, values=True)])
    asyncio.run(pipeline.run([{"id": hostile, "value": hostile}], on_failures="ignore"))
    kinds = [line["kind"] for line in lines_of(path)]
    assert kinds == ["run_opened", "admitted", "started", "failed", "run_closed"]
    assert path.read_bytes().count(b"\n") == 5


def test_a_second_writer_is_refused(
    path: Path, caplog: pytest.LogCaptureFixture, no_retries: None
) -> None:
    """A file that another sink writes to is left to it."""
    first, second = JsonlSink(path), JsonlSink(path)
    stages = [Stage("A", 1, [lambda n: n])]

    async def main() -> None:
        async with Pipeline(stages, observers=[first]).open() as run:
            await run.feed(range(3))
            first.flush()
            await Pipeline(stages, observers=[second]).run(range(3))

    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(main())
    assert first.counts.error is None
    assert second.counts.error is not None
    assert "another program, or another sink of this one, writes to it" in caplog.text
    assert len(lines_of(path)) == 3 * 3 + 2


def test_writes_where_files_have_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may have none: events are written all the same."""
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    sink = JsonlSink(path)
    asyncio.run(run(sink))
    assert sink.counts.error is None
    assert len(lines_of(path)) == sink.counts.emitted + 2


def test_a_process_forked_during_a_run_does_not_keep_the_file(path: Path) -> None:
    """The next run has the file, even if a child process still has its descriptor."""

    class Forked(JsonlSink):
        copies: tuple[int, ...] = ()

        def open(self) -> None:
            super().open()
            self.copies += (os.dup(self._descriptor),)  # as a child process has it

    sink = Forked(path)
    try:
        for _ in range(2):
            asyncio.run(run(sink))
            assert sink.counts.failures == 0
    finally:
        for copy in sink.copies:
            os.close(copy)
    assert len(lines_of(path)) == sink.counts.emitted + 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_costs_no_item(caplog: pytest.LogCaptureFixture, no_retries: None) -> None:
    """If the disk is full the sink goes off, and the run ends as ever."""
    sink = JsonlSink("/dev/full")
    with caplog.at_level(logging.WARNING, "antflow"):
        results = asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[sink]).run([1, 2]))
    assert results.values() == ["1", "2"]
    assert "No space left on device" in caplog.text
    counts = sink.counts
    assert counts.emitted == counts.dropped == 6


LIMITED = """
import asyncio, resource, signal, sys
from antflow import Limit, Pipeline, Stage
from antflow.sinks import JsonlSink, sink as sinks
sinks.RETRIES_AFTER = ()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
sink = JsonlSink(sys.argv[1], batch=5)
asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[sink]).run(range(100)))
counts = sink.counts
assert counts.emitted == counts.delivered + counts.dropped, counts
print(counts.delivered)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_leaves_whole_lines(path: Path) -> None:
    """Where the disk is full in the middle of a batch, the file ends with a whole line."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = lines_of(path)
    assert len(lines) == int(done.stdout) + 1
    assert "JsonlSink is off, after 1 attempt" in done.stderr


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", IsADirectoryError),
        ("none/events.jsonl", FileNotFoundError),
    ],
)
def test_refuses_a_wrong_path(tmp_path: Path, name: str, error: type[OSError]) -> None:
    """A path that cannot be written is refused when the sink is made."""
    with pytest.raises(error):
        JsonlSink(tmp_path / name)


@pytest.mark.parametrize("path", [None, 3, ""])
def test_refuses_no_path(path: Any) -> None:
    """Something that is not a path is refused."""
    with pytest.raises(TypeError, match="must be the path of a file"):
        JsonlSink(path)
