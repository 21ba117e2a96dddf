"""Names of files that users give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusTracker
from antflow.journal import Journal
from antflow.sinks import EventLog, JsonlSink, ReportSink, SqliteSink, TraceSink


def with_option(name: str) -> Callable[[Any], Any]:
    """A run with a path as this option."""

    def run(path: Any) -> None:
        options: Any = {name: path}
        asyncio.run(Pipeline([Stage("A", 1, [str])]).run([1], **options))

    return run


PLACES: dict[str, Callable[[Any], Any]] = {
    "JsonlSink": JsonlSink,
    "SqliteSink": SqliteSink,
    "TraceSink": TraceSink,
    "ReportSink": ReportSink,
    "EventLog.open": EventLog.open,
    "Journal": Journal,
    "Journal.open": Journal.open,
    "spill": lambda path: StatusTracker(spill=path),
    "Pipeline.journal": lambda path: Pipeline([Stage("A", 1, [str])], journal=path),
    **{name: with_option(name) for name in ("report", "trace", "journal")},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", ["~/file.db", Path("~/file.db"), "~root/file.db"])
@pytest.mark.parametrize("has_folder", [False, True])
def test_home_folder_is_not_made_in_the_current_one(
    place: str, path: Any, has_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path with ``~`` is refused wherever one is given, by an error that says what to write."""
    monkeypatch.chdir(tmp_path)
    if has_folder:
        (tmp_path / "~").mkdir()
    with pytest.raises(ValueError, match=r"begins with ~, .*expanduser\(\)"):
        PLACES[place](path)
    assert [each.name for each in tmp_path.rglob("*")] == ["~"] * has_folder


def test_name_that_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a name like any other where no user has it, and ``./~`` is the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    for path in ("~draft of mine.jsonl", "./~/events.jsonl"):
        assert JsonlSink(path).path == tmp_path / path
