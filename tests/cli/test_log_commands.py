"""`antflow events` and `antflow errors`."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.cli import log_commands
from antflow.sinks import EventLog, EventRecord, JsonlSink, PostgresSink, Sink, SqliteSink
from tests.cli.running import antflow, command, environment
from tests.postgres_server import PostgresServer

SINKS: dict[str, Callable[[str], Sink]] = {
    "jsonl": JsonlSink,
    "sqlite": SqliteSink,
    "postgres": PostgresSink,
}


def divide(number: int) -> float:
    if number == 3:
        raise KeyError("a\x1b[2J\nb")
    return 1 / number


@pytest.fixture(params=["jsonl", "sqlite", pytest.param("postgres", marks=pytest.mark.process)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    source = str(tmp_path / "events.log")
    if request.param == "postgres":
        source = request.getfixturevalue("postgres").schema()
    stages = [Stage("Divide", 1, [divide], task_attempts=1), Stage("Keep", 1, [lambda x: x])]
    pipeline = Pipeline(stages, observers=[SINKS[request.param](source)])
    asyncio.run(pipeline.run(range(5), on_failures="ignore"))
    return source


def test_events_of_an_item(log: str) -> None:
    """The events of one item are told in lines, in order, without anything a terminal obeys."""
    result = antflow("events", log, "--item", 3)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split(" ", 3)[3] for line in lines[:2]] == [
        "admitted in Divide",
        "started in Divide",
    ]
    assert len(lines) == 3
    assert "failed in Divide (" in lines[2]
    assert "KeyError at " in lines[2]
    assert all(line.isprintable() for line in lines)


def test_task_without_a_line_is_named_as_the_place(tmp_path: Path) -> None:
    """A failure without a line of the user's own code is told with its task."""
    path = tmp_path / "events.log"
    pipeline = Pipeline([Stage("A", 1, [int], task_attempts=1)], observers=[JsonlSink(path)])
    asyncio.run(pipeline.run(["x"], on_failures="ignore"))
    assert "): ValueError in int: invalid literal" in antflow("events", path).stdout
    trace = tmp_path / "trace.json"
    assert antflow("trace", path, "--out", trace).exit_code == 0
    assert "with base 10: 'x' in int" in trace.read_text()


def test_events_as_json(log: str) -> None:
    """With ``--json`` each event is a line with the fields of the record."""
    records = [json.loads(line) for line in antflow("events", log, "--json").stdout.splitlines()]
    kinds = {record["kind"] for record in records}
    assert kinds == {"admitted", "started", "completed", "failed"}
    assert [record["seq"] for record in records] == list(range(len(records)))


def test_errors_summed_up(log: str) -> None:
    """The failures are summed up by type, stage and line of code."""
    result = antflow("errors", log)
    assert result.stdout.startswith("2 failed items\n")
    assert "  KeyError: 1\n" in result.stdout
    assert "  1 × ZeroDivisionError at " in result.stdout


def test_ids_of_one_type(log: str) -> None:
    """``--ids --type`` prints what a next run can take in."""
    assert antflow("errors", log, "--ids").stdout.split() == ["0", "3"]
    assert antflow("errors", log, "--ids", "--type", "KeyError").stdout.split() == ["3"]
    (line,) = antflow("errors", log, "--json", "--type", "KeyError").stdout.splitlines()
    assert json.loads(line)["item_id"] == "3"


@pytest.mark.parametrize("name", ["errors", "events"])
def test_run_that_the_log_does_not_have_is_refused(log: str, name: str) -> None:
    """A wrong id would find nothing, which would read as a run without failures."""
    result = antflow(name, log, "--run", "nothing")
    with EventLog.open(log) as opened:
        (run,) = opened.runs()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--run 'nothing': there is no such run; the last ones are " + run.run in result.stderr


@pytest.mark.parametrize("sink", [JsonlSink, SqliteSink])
def test_a_run_is_chosen(tmp_path: Path, sink: Callable[[str], Sink]) -> None:
    """``--run`` leaves out the others."""
    log = str(tmp_path / "events.log")
    stage = Stage("Divide", 1, [divide], task_attempts=1)
    good, bad = [
        asyncio.run(Pipeline([stage], observers=[sink(log)]).run(items, on_failures="ignore"))
        for items in ([1, 2], [0])
    ]
    assert len(antflow("events", log, "--run", good.run_id).stdout.splitlines()) == 6
    assert antflow("errors", log, "--run", good.run_id).stdout == "No errors occurred\n"
    assert antflow("errors", log, "--run", bad.run_id).stdout.startswith("1 failed item\n")


@pytest.mark.parametrize("name", ["events", "errors"])
def test_a_file_that_is_not_a_log_is_refused(tmp_path: Path, name: str) -> None:
    """A file that is not there, or is something else, is refused on one line, with exit code 2."""
    path = tmp_path / "text"
    for content, reason in ((None, "No such file"), ("hello\n", "line 1: not an event")):
        if content is not None:
            path.write_text(content)
        result = antflow(name, path)
        assert result.exit_code == 2
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.process
@pytest.mark.parametrize("name", ["events", "errors"])
def test_a_server_that_fails_is_told_without_its_password(
    postgres: PostgresServer, name: str
) -> None:
    """A database that cannot be read is refused on one line, which has no password."""
    postgres.run("CREATE SCHEMA IF NOT EXISTS nothing")
    addresses = {
        postgres.address(search_path="nothing"): "has no events",
        postgres.address(password="s3cr3t"): "password authentication failed",
        "postgresql://me:s3cr3t/x@host/name": "must be the address of a PostgreSQL database",
    }
    for address, reason in addresses.items():
        result = antflow(name, address)
        assert result.exit_code == 2
        assert reason in result.stderr
        assert "s3cr3t" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.process
def test_a_server_that_ends_while_it_is_read(postgres: PostgresServer) -> None:
    """If the server ends while its log is followed, one line says so."""
    source = postgres.schema()
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[PostgresSink(source)]).run([1]))
    postgres.run("UPDATE runs SET ended = NULL;", source)
    following = subprocess.Popen(
        command("events", source, "--follow", "--json"),
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with following:
        assert following.stdout is not None
        assert '"admitted"' in following.stdout.readline()
        postgres.stop()
        try:
            _, errors = following.communicate(timeout=60)
        finally:
            postgres.start()
    assert following.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("Error: 'postgresql://antflow@/postgres': ")


RUN = """
import asyncio, sys
from antflow import Pipeline, Stage
from antflow.sinks import PostgresSink, SqliteSink
stages = [Stage("Wait", 1, [asyncio.sleep])]
kind = PostgresSink if sys.argv[1].startswith("postgresql://") else SqliteSink
asyncio.run(Pipeline(stages, observers=[kind(sys.argv[1], every=0.01)]).run([0.2] * 5))
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_follow_ends_with_the_run(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """``--follow`` prints what comes, and ends when the run is over."""
    source = str(tmp_path / "events.sqlite")
    if kind == "postgres":
        source = request.getfixturevalue("postgres").schema()
    python = command()[0]
    with subprocess.Popen([python, "-c", RUN, source], env=environment()) as running:
        while not antflow("events", source).stdout:
            assert running.poll() is None
        followed = subprocess.run(
            command("events", source, "--follow"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    lines = followed.stdout.splitlines()
    assert len(lines) == len(set(lines)) == 15


def test_follow_prints_the_last_events_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a run ends between two looks at its log, ``--follow`` misses no event of it."""
    path = tmp_path / "events.sqlite"
    read = EventLog.events

    def run_ends_meanwhile(self: EventLog, **options: Any) -> Iterator[EventRecord]:
        found = list(read(self, **options))
        if not found:
            pipeline = Pipeline([Stage("Keep", 1, [abs])], observers=[SqliteSink(path)])
            asyncio.run(pipeline.run(range(3)))
        return iter(found)

    asyncio.run(Pipeline([Stage("Keep", 1, [abs])], observers=[SqliteSink(path)]).run([]))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM runs")
    monkeypatch.setattr(EventLog, "events", run_ends_meanwhile)
    monkeypatch.setattr(log_commands, "LOOKS_EVERY", 0)
    assert len(antflow("events", path, "--follow").stdout.splitlines()) == 9


@pytest.mark.parametrize("name", ["events", "errors", "report"])
def test_a_damaged_log_is_refused(tmp_path: Path, name: str) -> None:
    """A database that turns out to be damaged is a refusal, and no traceback."""
    path = tmp_path / "events.sqlite"
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[SqliteSink(path)]).run([1]))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")
    done = antflow(name, str(path))
    assert done.exit_code == 2
    assert "cannot be read: no such table: events" in done.stderr


def test_a_trace_needs_the_whole_run(tmp_path: Path) -> None:
    """The end of a file makes no trace, and the command says why."""
    path = tmp_path / "events.jsonl"
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[JsonlSink(path)]).run([1]))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    done = antflow("trace", str(path), "-o", str(tmp_path / "trace.json"))
    assert done.exit_code == 2
    assert "lacks its beginning" in done.stderr


@pytest.mark.parametrize("name", ["trace", "report"])
@pytest.mark.parametrize("sink", [JsonlSink, SqliteSink])
@pytest.mark.parametrize("out", ["log", "link", "./log"])
def test_log_is_not_written_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    sink: Callable[[str], Sink],
    out: str,
) -> None:
    """What is made of a log does not take its place, whatever its name."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[sink("log")]).run([1]))
    (tmp_path / "link").symlink_to("log")
    before = (tmp_path / "log").read_bytes()
    done = antflow(name, "log", "-o", out)
    assert done.stderr == f"Error: --out '{out}': is the log itself\n"
    assert (tmp_path / "log").read_bytes() == before


def test_trace_does_not_go_to_a_file_named_like_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere ``-`` is standard output: a file of that name is not what was meant."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[JsonlSink("log")]).run([1]))
    done = antflow("trace", "log", "-o", "-")
    assert done.stderr == "Error: --out '-': must be the name of a file\n"
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("name", ["events", "errors", "report"])
def test_log_from_a_pipe_is_refused(tmp_path: Path, name: str) -> None:
    """It would have to be read twice; without a word the command would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    done = antflow(name, tmp_path / "pipe")
    assert done.exit_code == 2
    assert "pipe': must be a file, not a pipe or a device: it is read more than once" in done.stderr
