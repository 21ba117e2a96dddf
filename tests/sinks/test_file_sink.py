"""The files of sinks, and what other programs do to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import EventLog, JsonlSink, SqliteSink, TraceSink
from antflow.sinks.file_sink import FileSink


@pytest.mark.parametrize("name", ["events.jsonl", "events.sqlite", "trace.json", "trace.json.gz"])
@pytest.mark.parametrize("when", ["early", "late"])
def test_file_that_another_program_removes(
    tmp_path: Path, name: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes on being written would be lost without a word: the sink says so, and is off."""
    path = tmp_path / name
    kinds: dict[str, Callable[[Path], FileSink]] = {
        ".jsonl": JsonlSink,
        ".sqlite": SqliteSink,
        ".json": TraceSink,
        ".gz": TraceSink,
    }
    sink = kinds[path.suffix](path)

    def work(number: int) -> int:
        if number == (0 if when == "early" else 2):
            sink.flush()
            path.unlink()
        return number

    stage = Stage("A", 1, [work])
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(Pipeline([stage], observers=[sink]).run(range(3)))
    off = f"{type(sink).__name__} is off, after 1 attempt at writing to {str(path)!r}"
    assert off in caplog.text
    assert "it was removed meanwhile, and what was written with it" in caplog.text


def test_file_that_another_program_renames_is_written_on(tmp_path: Path) -> None:
    """As a rotation of logs does it."""
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path)

    def work(number: int) -> int:
        if number == 1:
            sink.flush()
            path.rename(tmp_path / "old.jsonl")
        return number

    asyncio.run(Pipeline([Stage("A", 1, [work])], observers=[sink]).run(range(3)))
    with EventLog.open(tmp_path / "old.jsonl") as log:
        assert len(list(log.events())) == sink.counts.emitted
    assert sink.counts.error is None
