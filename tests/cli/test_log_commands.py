"""`antflow events` and `antflow errors`."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink, Sink, SqliteSink
from tests.cli.running import antflow, command, environment

SINKS: dict[str, Callable[[Path], Sink]] = {"jsonl": JsonlSink, "sqlite": SqliteSink}


def divide(number: int) -> float:
    if number == 3:
        raise KeyError("a\x1b[2J\nb")
    return 1 / number


@pytest.fixture(params=SINKS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "events.log"
    stages = [Stage("Divide", 1, [divide], task_attempts=1), Stage("Keep", 1, [lambda x: x])]
    pipeline = Pipeline(stages, observers=[SINKS[request.param](path)])
    asyncio.run(pipeline.run(range(5), on_failures="ignore"))
    return path


def test_events_of_an_item(log: Path) -> None:
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


def test_events_as_json(log: Path) -> None:
    """With ``--json`` each event is a line with the fields of the record."""
    records = [json.loads(line) for line in antflow("events", log, "--json").stdout.splitlines()]
    kinds = {record["kind"] for record in records}
    assert kinds == {"admitted", "started", "completed", "failed"}
    assert [record["seq"] for record in records] == list(range(len(records)))


def test_errors_summed_up(log: Path) -> None:
    """The failures are summed up by type, stage and line of code."""
    result = antflow("errors", log)
    assert result.stdout.startswith("2 failed items\n")
    assert "  KeyError: 1\n" in result.stdout
    assert "  1 × ZeroDivisionError at " in result.stdout


def test_ids_of_one_type(log: Path) -> None:
    """``--ids --type`` prints what a next run can take in."""
    assert antflow("errors", log, "--ids").stdout.split() == ["0", "3"]
    assert antflow("errors", log, "--ids", "--type", "KeyError").stdout.split() == ["3"]
    (line,) = antflow("errors", log, "--json", "--type", "KeyError").stdout.splitlines()
    assert json.loads(line)["item_id"] == "3"


def test_a_run_is_chosen(log: Path) -> None:
    """``--run`` leaves out the others."""
    assert antflow("events", log, "--run", "other").stdout == ""
    assert antflow("errors", log, "--run", "other").stdout == "No errors occurred\n"


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


RUN = """
import asyncio, sys
from antflow import Pipeline, Stage
from antflow.sinks import SqliteSink
stages = [Stage("Wait", 1, [asyncio.sleep])]
asyncio.run(Pipeline(stages, observers=[SqliteSink(sys.argv[1], every=0.01)]).run([0.2] * 5))
"""


@pytest.mark.real_time
def test_follow_ends_with_the_run(tmp_path: Path) -> None:
    """``--follow`` prints what comes, and ends when the run is over."""
    path = tmp_path / "events.sqlite"
    python = command()[0]
    with subprocess.Popen([python, "-c", RUN, str(path)], env=environment()) as running:
        while not path.exists() or not antflow("events", path).stdout:
            assert running.poll() is None
        followed = subprocess.run(
            command("events", path, "--follow"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    lines = followed.stdout.splitlines()
    assert len(lines) == len(set(lines)) == 15
