"""Trace files: valid, without overlaps, and true."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Limit, Pipeline, Stage
from antflow.observers import StepKind
from antflow.sinks import EventRecord, SqliteSink, TraceSink
from antflow.sinks.trace import RunTrace, trace_of
from antflow.testing import FailTimes, run_virtual
from tests.cli.running import antflow


async def soon(number: int) -> int:
    await asyncio.sleep(0.1 + number / 100)
    return number


async def no_fours(number: int) -> int:
    await asyncio.sleep(0.05)
    if number % 4 == 0:
        raise Drop
    if number == 5:
        raise ValueError("five")
    return number


def together(numbers: list[int]) -> list[int]:
    return numbers


def twice(number: int) -> list[int]:
    return [number, -number]


def stages() -> list[Stage[Any, Any]]:
    return [
        Stage("Get", 3, [soon, FailTimes(1)], task_attempts=3, task_wait_seconds=0.02),
        Stage("Check", 2, [no_fours], task_attempts=1),
        Stage("Store", 2, [together], batch=3),
        Stage("Split", 1, [twice], expand=True),
    ]


def run(*observers: Any, items: int = 12, **options: Any) -> Any:
    pipeline = Pipeline(stages(), observers=observers)

    async def main() -> Any:
        return await pipeline.run(range(items), on_failures="ignore", **options)

    return run_virtual(main), pipeline


def events_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    events: list[dict[str, Any]] = json.loads(
        gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    )
    return events


def slices_of(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    return tracks


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "TRACE.JSON.GZ"])
def test_slices_of_a_track_do_not_overlap(tmp_path: Path, name: str) -> None:
    """A worker's slices follow each other, batches too."""
    run(TraceSink(tmp_path / name))
    tracks = slices_of(events_of(tmp_path / name))
    assert len(tracks) == 7
    for track in tracks.values():
        ends = 0.0
        for event in track:
            assert event["ts"] >= ends - 0.002  # they are rounded
            ends = event["ts"] + event["dur"]


def test_slices_add_up_to_the_busy_time(tmp_path: Path) -> None:
    """The slices of a stage take as long as its workers were busy."""
    _, pipeline = run(TraceSink(tmp_path / "t"))
    busy: dict[int, float] = defaultdict(float)
    for (pid, _), track in slices_of(events_of(tmp_path / "t")).items():
        busy[pid] += sum(event["dur"] for event in track) / 1e6
    for number, stage in enumerate(
        pipeline.get_dashboard_snapshot().pipeline_stats.stage_stats.values(), 1
    ):
        assert busy[number] == pytest.approx(stage.busy_seconds, abs=0.001)


def test_counters_end_at_nothing(tmp_path: Path) -> None:
    """Nothing is in flight or waiting at the end, and never less than nothing."""
    run(TraceSink(tmp_path / "t"))
    counters = [event for event in events_of(tmp_path / "t") if event["ph"] == "C"]
    readings = [value for event in counters for value in event["args"].values()]
    assert min(readings) == 0 < max(readings)
    assert {value for event in counters[-2:] for value in event["args"].values()} == {0}


def test_tracks_are_named(tmp_path: Path) -> None:
    """Each stage and each worker has its name."""
    run(TraceSink(tmp_path / "t"))
    names = [event["args"].get("name") for event in events_of(tmp_path / "t") if event["ph"] == "M"]
    assert {"run", "1 Get", "2 Check", "3 Store", "4 Split", "Get-W2", "Split-W0"} <= set(names)


def test_a_slice_says_what_came_of_it(tmp_path: Path) -> None:
    """A slice has its outcome, its item, and the error with its line."""
    run(TraceSink(tmp_path / "t"))
    slices = [each for track in slices_of(events_of(tmp_path / "t")).values() for each in track]
    failed = [each for each in slices if each["args"]["outcome"] == "failed"]
    assert [each["name"] for each in failed] == ["5"]
    assert failed[0]["args"]["error"].startswith("ValueError: five at ")
    assert {each["cat"] for each in slices} == {
        *("completed", "retrying", "failed", "dropped", "expanded")
    }
    batches = [each for each in slices if each["name"].endswith(" items")]
    assert batches[0]["name"] == f"{len(batches[0]['args']['items'])} items"


def test_a_log_makes_the_same_trace(tmp_path: Path) -> None:
    """`antflow trace` of a log makes the slices that a sink would have made."""
    run(TraceSink(tmp_path / "t"), SqliteSink(tmp_path / "log"))
    result = antflow("trace", tmp_path / "log", "-o", tmp_path / "u.json.gz")
    assert result.exit_code == 0
    assert slices_of(events_of(tmp_path / "u.json.gz")) == slices_of(events_of(tmp_path / "t"))


LIMITED = """
import asyncio, resource, signal, sys
from antflow import Pipeline, Stage
from antflow.sinks import TraceSink, sink as sinks
sinks.RETRIES_AFTER = (0.001,)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Full(TraceSink):
    def gives_up_on(self, error):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        return super().gives_up_on(error)

resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 1_000_000))
sink = Full(sys.argv[1], batch=10)
asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[sink]).run(range(500)))
assert sink.counts.failures == 1, sink.counts
assert sink.counts.delivered == sink.counts.emitted, sink.counts
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_disk_that_was_full_leaves_a_whole_trace(tmp_path: Path, name: str) -> None:
    """Where there was no room in the middle, the trace goes on from there; each slice is once."""
    path = tmp_path / name
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = events_of(path)
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert names == list(map(str, range(500)))
    assert events[-2]["args"] == {"items": 0}


def test_two_sinks_do_not_mix_their_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that another sink is writing is left alone."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())
    path = tmp_path / "trace.json"
    first, second = TraceSink(path), TraceSink(path)

    async def inner(item: int) -> int:
        while not (path.exists() and path.stat().st_size):  # the first sink has taken it
            await asyncio.sleep(0.01)
        await Pipeline([Stage("Inner", 1, [soon])], observers=[second]).run([item])
        return item

    asyncio.run(Pipeline([Stage("Outer", 1, [inner])], observers=[first]).run([1]))
    names = {event["args"].get("name") for event in events_of(path)}
    assert "1 Outer" in names
    assert "1 Inner" not in names
    assert "another sink of this one, writes to it" in caplog.text
    assert second.counts.dropped == second.counts.emitted


def test_a_lost_event_costs_one_slice() -> None:
    """A worker whose item's end was lost has a slice for each item that it began."""
    trace = RunTrace(["A"], 100.0, 0)
    steps: list[tuple[StepKind, int]] = [
        ("started", 0),
        ("started", 1),
        ("completed", 1),
        ("started", 2),
        ("completed", 2),
    ]
    made: list[dict[str, Any]] = []
    for seq, (kind, item) in enumerate(steps):
        at = 100.0 + seq
        record = EventRecord("r", seq, at, kind, "A", str(item), item, "", "A-W0", 1, 0.0)
        made += trace.told(record)
    made += trace.closing(110.0)
    found = [each for each in made if each["ph"] == "X"]
    slices = [(each["name"], each["ts"] / 1e6, each["dur"] / 1e6) for each in found]
    assert slices == [("0", 0, 1), ("1", 1, 1), ("2", 3, 1)]


def test_a_log_of_a_run_without_events_makes_a_trace() -> None:
    """The trace of a run that was killed at once begins and ends with it."""
    events = trace_of([("r", ["A"], 100.0, None)], [])
    assert {each["ts"] for each in events if each["ph"] == "C"} == {0.0}


def test_an_unwritable_file_is_refused(tmp_path: Path) -> None:
    """`antflow trace` into a folder that does not exist says so."""
    run(SqliteSink(tmp_path / "log"))
    result = antflow("trace", tmp_path / "log", "-o", tmp_path / "none" / "t")
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_runs_have_tracks_of_their_own(tmp_path: Path) -> None:
    """Two runs in one log do not share a track."""
    sink = SqliteSink(tmp_path / "log")
    run(sink)
    run(sink)
    antflow("trace", tmp_path / "log", "-o", tmp_path / "t")
    assert len(slices_of(events_of(tmp_path / "t"))) == 14


def test_items_in_hand_at_the_end_have_a_slice(tmp_path: Path) -> None:
    """What was under way when a run was cancelled has a slice up to then."""
    with pytest.raises(TimeoutError):
        run(TraceSink(tmp_path / "t"), timeout=0.15)
    slices = [each for track in slices_of(events_of(tmp_path / "t")).values() for each in track]
    assert {"cancelled"} <= {each["args"]["outcome"] for each in slices}


KILLED = """
import asyncio, os, sys
from antflow import Pipeline, Stage
from antflow.sinks import TraceSink

async def stop(item):
    await asyncio.sleep(0.01)
    if item == 5:
        await asyncio.sleep(0.4)
        os.kill(os.getpid(), 9)
    return item

stages = [Stage("A", 1, [stop])]
asyncio.run(Pipeline(stages, observers=[TraceSink(sys.argv[1], every=0.05)]).run(range(10)))
"""


def test_a_killed_program_leaves_a_trace_that_lacks_its_end(tmp_path: Path) -> None:
    """All that is missing after a kill is the end of the array, which the viewers do without."""
    path = tmp_path / "t"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    text = path.read_text()
    assert not text.endswith("]\n")
    assert len([event for event in json.loads(text + "]") if event["ph"] == "X"]) == 5


def test_a_run_writes_its_trace(tmp_path: Path) -> None:
    """``run(trace=…)`` writes the same file as a `TraceSink`, for that run alone."""
    given, made = tmp_path / "given.json", tmp_path / "made.json"
    pipeline = Pipeline(stages(), observers=[TraceSink(made)])

    async def main() -> None:
        await pipeline.run(range(5), on_failures="ignore", trace=given)

    run_virtual(main)
    assert events_of(given) == events_of(made)


def test_a_trace_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """No item is taken in if the trace's folder does not exist."""
    pipeline = Pipeline(stages())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        pipeline.stream(range(5), trace=tmp_path / "none" / "trace.json")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run_virtual(lambda: pipeline.run(range(5), trace=tmp_path / "none" / "trace.json"))
    assert not pipeline.results.run_id


def test_waits_for_a_limit_are_apart_from_tries(tmp_path: Path) -> None:
    """The time a try waited for its limit is a slice of its own, before the try; none overlap."""
    path = tmp_path / "trace.json"
    limited = Stage("Ask", 4, [soon], limits=[Limit(rate=5, period=1)])
    pipeline = Pipeline([limited, *stages()[2:]], observers=[TraceSink(path)])
    results = run_virtual(lambda: pipeline.run(range(20), on_failures="ignore"))
    slices = [each for track in slices_of(events_of(path)).values() for each in track]
    waits = [each for each in slices if each["name"] == "waits"]
    tries = [each for each in slices if each["pid"] == 1 and each["name"] != "waits"]
    stats = results.stats.stage_stats["Ask"]
    assert stats.limited_seconds > 5
    assert sum(each["dur"] for each in waits) / 1e6 == pytest.approx(stats.limited_seconds)
    assert sum(each["dur"] for each in tries) / 1e6 == pytest.approx(stats.busy_seconds)
    for track in slices_of(events_of(path)).values():
        ends = 0.0
        for each in sorted(track, key=lambda each: each["ts"]):
            assert each["ts"] >= ends - 0.002  # they are rounded
            ends = each["ts"] + each["dur"]
