"""Where there is no terminal: lines now and then."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from io import BytesIO, StringIO, TextIOWrapper
from itertools import pairwise
from typing import Any

import pytest

from antflow import (
    Advice,
    ErrorSummary,
    FailedItem,
    FailureGroup,
    LoopHealth,
    LoopStall,
    Pipeline,
    RunResults,
    Stage,
)
from antflow._core.sink_counts import SinkCounts
from antflow._monitor.outlook import Outlook
from antflow._monitor.view import Viewer
from antflow.display import CompactDashboard, create
from antflow.display.plain import PlainLog
from tests.display.conftest import MakeTerminal, make_snapshot, untimed

NAMES = ["progress", "auto", "log", "compact", "detailed", "full"]


async def some_fail(number: int) -> int:
    await asyncio.sleep(0)
    if number % 10 == 0:
        raise ValueError(f"no [red]\x1b[31m{number}\r\nplease")
    return number


def run(name: str, items: Any = range(100), **options: Any) -> RunResults[Any]:
    stages = [Stage("Fetch [/x]", 3, [some_fail], task_attempts=1), Stage("Save", 2, [some_fail])]
    if name == "progress":
        options["progress"] = True
    else:
        options["dashboard"] = name
    return asyncio.run(Pipeline(stages).run(items, dashboard_update_interval=0.01, **options))


@pytest.mark.parametrize("name", NAMES)
def test_plain_lines_when_stderr_is_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any display writes lines, no escape codes, no carriage returns; the last says how it went."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    assert len(run(name)) == 90
    text = file.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    first, *_, last = lines_of(file)
    assert first.startswith("pipeline: 0% 0/100, ")
    assert last == "90 ok, 10 failed"
    assert re.search(
        r"failed: 10 × ValueError at \S+:\d+ in \w+, "
        r"e.g. input \d+ in stage Fetch \[/x\] after 1 attempt: no \[red\]\d+ ⏎ please\n",
        text,
    )
    assert sys.stderr is file


@pytest.mark.parametrize("name", NAMES)
def test_stages_in_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detailed and full say how each stage is doing, meanwhile and in the end; others do not."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    run(name)
    lines = lines_of(file)
    meanwhile = [
        line
        for line in lines
        if re.search(r"Fetch \[/x\] \d/3 running, .*; Save \d/2 running", line)
    ]
    in_the_end = [line for line in lines if line.startswith("pipeline: stage ")]
    if name not in ("detailed", "full"):
        assert meanwhile == in_the_end == []
        return
    assert len(meanwhile) == len([line for line in lines if re.search(r"\d% \d+/100", line)])
    assert re.search(
        r": Fetch .* 90 done, 10 failed; Save 0/2 running, 0 queued, 90 done$", meanwhile[-1]
    )
    figures = r"p50 \S+, p95 \S+, \d+% busy$"
    assert re.search(
        rf"^pipeline: stage Fetch \[/x\]: 90 done, 10 failed, {figures}", in_the_end[0]
    )
    assert re.search(rf"^pipeline: stage Save: 90 done, 0 failed, {figures}", in_the_end[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("CI", "true"), ("TERM", None)])
def test_plain_lines_when_the_terminal_is_none_to_draw_on(
    name: str,
    variable: str,
    value: str | None,
    terminal: MakeTerminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dumb terminal and that of a build server are written to as a file is."""
    screen = terminal()
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    run(name)
    assert b"\x1b" not in screen.raw
    assert screen.paper.splitlines()[-1] == "90 ok, 10 failed"


@pytest.mark.parametrize("name", NAMES)
def test_plain_lines_in_idle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams say that they are terminals, but know no escape sequences."""
    idle = pytest.importorskip("idlelib.run", reason="Python was installed without IDLE")
    written: list[str] = []

    class Window:
        def write(self, text: str, tags: object) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("CI", raising=False)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, idle.StdOutputFile(Window(), stream))
    run(name)
    assert "\x1b" not in "".join(written)
    assert "".join(written).splitlines()[-1] == "90 ok, 10 failed"


def test_log_writes_plain_lines_to_a_terminal_too(terminal: MakeTerminal) -> None:
    """``dashboard="log"`` draws nothing, anywhere."""
    screen = terminal()
    run("log")
    assert b"\x1b" not in screen.raw


def test_auto_is_compact_on_a_terminal(terminal: MakeTerminal) -> None:
    """And only there: see above."""
    screen = terminal()
    run("auto")
    assert "Fetch [/x] 0/3 running" in screen.paper
    assert isinstance(create("auto"), CompactDashboard)


def lines_of(file: StringIO) -> list[str]:
    return untimed(file.getvalue()).splitlines()


def test_lines_come_every_5_percent_or_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an hour: a line per 5 %, and one wherever 30 s would have gone by in silence."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create("compact")
    display.on_start(None, 1000)
    for second in range(3600):
        done = second * 1000 // 3600 if second < 1800 else 500
        snapshot = make_snapshot(4, total=1000, settled=done, failed=0, elapsed=float(second))
        display.on_update(snapshot)
    lines = lines_of(file)
    times = [
        int(minute) * 60 + int(second)
        for line in lines
        for minute, second in re.findall(r" (\d+):(\d\d),", line)
    ]
    assert times[0] == 0
    assert max(later - earlier for earlier, later in pairwise(times)) <= 30
    assert len(lines) <= 25 + 3600 // 30
    assert sum(" 50% " in line for line in lines) == 60
    display.on_finish([], ErrorSummary(0, {}, {}, []))
    assert lines_of(file)[-1] == "500 ok, 0 failed"


@pytest.mark.parametrize("name", NAMES)
def test_lines_carry_the_time_of_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines but the last begin with it, so that a build log can be held against others."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    strftime, then = time.strftime, time.gmtime(1_700_000_000)
    monkeypatch.setattr(time, "strftime", lambda form: strftime(form, then))
    run(name)
    *lines, last = file.getvalue().splitlines()
    assert lines
    assert all(line.startswith("22:13:20 pipeline: ") for line in lines)
    assert last == "90 ok, 10 failed"


@pytest.mark.parametrize("name", NAMES)
def test_lines_say_once_a_minute_what_holds_the_run_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence that other displays show all the time; not before a minute, or without one."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create(name)
    display.on_start(None, 1000)
    told: list[int] = []
    for second in range(0, 600, 3):
        snapshot = make_snapshot(4, total=1000, elapsed=float(second))
        snapshot.advice = Advice(sentence="" if 300 <= second < 400 else "Add 3.")
        display.on_update(snapshot)
        told += [second] * (lines_of(file).count("pipeline: Add 3.") - len(told))
    assert told == [60, 120, 180, 240, 402, 462, 522, 582]


def test_line_when_a_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at once says what is left to do; then one every 30 s, with the time it takes."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create("log")
    display.on_start(None, 1000)
    for second in range(0, 100, 2):
        stopping = second >= 10
        snapshot = make_snapshot(
            4, total=1000, elapsed=float(second), state="stopping" if stopping else "running"
        )
        snapshot.intake_seconds = float(min(second, 10))
        snapshot.pipeline_stats.items_in_flight = 3
        display.on_update(snapshot)
    told = [line.partition("draining")[2] for line in lines_of(file)]
    assert told == ["", *(f": 3 in flight, {time}" for time in ("0:00", "0:30", "1:00"))]


def test_lines_when_the_total_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count instead of a percent; at the end, too, the rate and the time are told."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    run("compact", (n for n in range(30)))
    assert lines_of(file)[0].startswith("pipeline: 0 done, ")
    ends = [line for line in lines_of(file) if line.startswith("pipeline: 30 done, ")]
    assert len(ends) == 1
    assert re.search(r"/s, \d:\d\d, 27 ok, 3 failed$", ends[0])
    assert "%" not in file.getvalue()
    assert lines_of(file)[-1] == "27 ok, 3 failed"


def test_lines_tell_of_a_blocked_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line more when something has blocked the event loop, and none until something else does."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create("log")
    display.on_start(None, 1000)
    for second in range(0, 100, 10):
        snapshot = make_snapshot(4, total=1000, settled=10 * second, failed=0, elapsed=second)
        stalls = (second >= 30) + (second >= 60)
        place = f"app.py:{41 + (second >= 80)} in parse"
        stall = LoopStall(stalls / 2, 0.0, location=place) if stalls else None
        snapshot.loop = LoopHealth(0.0, stalls, 0.5 * stalls, stall)
        display.on_update(snapshot)
    told = [line for line in lines_of(file) if "blocked" in line]
    assert told == [
        "pipeline: event loop blocked for 500ms at app.py:41 in parse",
        "pipeline: event loop blocked for 1s at app.py:42 in parse",
    ]


def test_lines_sum_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds of failures, the stages, what held the run back, and the counts."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create("log")
    display.on_start(None, 100)
    snapshot = make_snapshot(4, ("A", "B"), total=100, settled=100, failed=9, state="finished")
    stats = snapshot.pipeline_stats.stage_stats["A"]
    stats.busy_seconds, stats.blocked_seconds, stats.starved_seconds = 198.0, 2.0, 0.0
    snapshot.advice = Outlook().see(snapshot)["advice"]()
    display.on_update(snapshot)
    mute = FailedItem(7, "", "TimeoutError", "A", 1, 0.0)
    groups = [FailureGroup(9, mute)]
    summary = ErrorSummary(9, {"TimeoutError": 9}, {"B": 2, "A": 7}, [mute], groups)
    display.on_finish([], summary)
    assert lines_of(file)[-4:] == [
        "pipeline: failed: 9 × TimeoutError in stage A, e.g. item 7 after 1 attempt",
        "pipeline: failed by stage: A 7, B 2",
        "pipeline: Bottleneck: A. Its 2 workers were busy 99% of the time; "
        "1 more worker would have lifted the rate by up to 44%.",
        "91 ok, 9 failed",
    ]


@pytest.mark.parametrize(("encoding", "times"), [("utf-8", "×"), ("ascii", "x")])
def test_lines_about_failures_in_any_encoding(
    encoding: str, times: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no multiplication sign, an x stands for it."""
    raw = BytesIO()
    monkeypatch.setattr(sys, "stderr", TextIOWrapper(raw, encoding))
    display = create("log")
    display.on_start(None, 10)
    display.on_finish([], ErrorSummary(1_000, {"KeyError": 1_000}, {}, []))
    assert f" pipeline: failed: 1,000 {times} KeyError\n" in raw.getvalue().decode(encoding)


def test_lines_when_there_are_many_types_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is short, however many ways there were to fail."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create("log")
    display.on_start(None, 10)
    summary = ErrorSummary(30, {f"Error{n}": 1 for n in range(30)}, {}, [])
    display.on_finish([], summary)
    assert lines_of(file)[-2:] == ["pipeline: failed: 25 more kinds", "0 ok, 30 failed"]
    assert len(lines_of(file)) == 7


@pytest.mark.parametrize("name", NAMES)
def test_no_stream_at_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without standard output, or with a closed one, the run is as it would have been."""
    closed = StringIO()
    closed.close()
    for stream in (None, closed, object()):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            results = run(name)
        assert len(results) == 90


def test_lost_events_are_told() -> None:
    """A plain line says how many events a sink has lost, and that it is off."""
    snapshot = make_snapshot()
    snapshot.sinks = {
        "JsonlSink": SinkCounts(5_000, 3_766, 1_234, 0, None),
        "SqliteSink": SinkCounts(10, 9, 1, 0, "OSError: no space"),
        "TraceSink": SinkCounts(10, 10, 0, 0, None),
    }
    file = StringIO()
    log = PlainLog(file, "jobs")
    log.update(Viewer().see(snapshot))
    log.close()
    assert ", JsonlSink lost 1,234 events, SqliteSink is off and lost 1 event" in file.getvalue()
    assert "TraceSink" not in file.getvalue()
