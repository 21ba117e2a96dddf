"""The report of a run: true, complete, bounded, safe, and written however the run ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink, ReportSink, SqliteSink
from antflow.sinks.records import EventRecord
from antflow.sinks.report.figures import RunFigures
from antflow.sinks.report.grid import MOST_BINS, Grid
from antflow.sinks.report.page import page
from antflow.sinks.report.timeline import MOST_FAILED, MOST_ROWS, MOST_SPANS, Span, Timeline
from antflow.testing import run_virtual
from tests.cli.running import antflow

from .reports import (
    Markup,
    a_pipeline,
    counts_of,
    data_of,
    hostile_run,
    run,
    tables_of,
)

MOST_BYTES = 1_000_000
STYLE = Path(__file__).parents[2] / "src/antflow/sinks/report/page.css"


# -- what it says -----------------------------------------------------------------------------


def test_totals_equal_the_result(tmp_path: Path) -> None:
    """The counts in the report are those of the results."""
    path = tmp_path / "report.html"
    results = run(a_pipeline(), report=path)
    stats = results.stats
    retried = sum(stage.retried_items for stage in stats.stage_stats.values())
    assert counts_of(path.read_text("utf-8")) == {
        "total": stats.items_accepted + stats.items_children,
        "completed": len(results),
        "failed": len(results.failed),
        "dropped": stats.items_dropped,
        "expanded": stats.items_expanded,
        "retries": retried,
    }


def test_failed_ids_are_those_of_the_results(tmp_path: Path) -> None:
    """The list to download has each failed item, once."""
    path = tmp_path / "report.html"
    results = run(a_pipeline(), report=path)
    failed = data_of(path.read_text("utf-8"))["failed"]
    assert sorted(failed) == sorted(str(result.id) for result in results.failed)


def test_sections_of_a_page(tmp_path: Path) -> None:
    """A page says what held the run back, what failed where and with what, and how it was set."""
    path = tmp_path / "report.html"
    run(a_pipeline(), report=path)
    text = Markup(path.read_text("utf-8")).text
    for part in (
        "Bottleneck: Check",  # the advice that a display gives
        "10 × TimeoutError at tests/sinks/reports.py:",
        "A service asked Check for patience 1 time, 2.00 s in all.",
        "Check repeated 21 tries, which took 1.05 s (19% of its work), and items waited 15.7 s",
        "number 5 is odd",
        "input 5",
        "task_attempts=2",
        "nothing to do",
        "CPython" if sys.implementation.name == "cpython" else "Python",
    ):
        assert part in text


def test_markdown_by_suffix(tmp_path: Path) -> None:
    """A path that ends in ``.md`` gets the same report as Markdown."""
    path = tmp_path / "report.MD"
    run(a_pipeline(), report=path)
    tables = tables_of(path.read_text("utf-8"))
    assert list(tables) == [
        "",
        *("Stages", "Latency", "Errors", "Slowest items", "Configuration"),
    ]
    assert "| `Check` | 3 | 70 | 10 | 21 | 10 |" in "\n".join(tables["Stages"])
    for lines in list(tables.values())[1:]:
        cells = {line.count("|") for line in lines if line.startswith("|")}
        assert len(cells) == 1


def test_a_report_is_written_at_a_later_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that could not be written at first is written soon after, and is the same."""
    attempts: list[object] = []
    replace = os.replace

    def full_twice(*paths: Any) -> None:
        attempts.append(paths)
        if len(attempts) < 3:
            raise OSError(28, "No space left on device")
        replace(*paths)

    run(a_pipeline(), report=tmp_path / "first.md")
    monkeypatch.setattr(os, "replace", full_twice)
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.0, 0.0))
    run(a_pipeline(), report=tmp_path / "second.md")
    first, second = (
        tables_of((tmp_path / name).read_text("utf-8")) for name in ("first.md", "second.md")
    )
    assert len(attempts) == 3
    assert first["Stages"] == second["Stages"]
    assert first[""][:4] == second[""][:4]


@pytest.mark.parametrize("sink", [JsonlSink, SqliteSink])
def test_a_log_makes_the_same_report(tmp_path: Path, sink: Any) -> None:
    """`antflow report` of a log tells the same of stages, errors and items as the run itself."""
    log, live = tmp_path / "log", tmp_path / "live.md"
    run(a_pipeline(sink(log)), report=live)
    result = antflow("report", log)
    assert result.exit_code == 0
    first, second = tables_of(live.read_text("utf-8")), tables_of(result.stdout)
    # The input of a failed item is not in a log, nor are the times of a try without its waits.
    assert second["Slowest items"] == first["Slowest items"]
    assert second["Errors"] == first["Errors"]
    rows = [
        [line.split("|")[1:7] for line in each["Stages"] if line.startswith("|")]
        for each in (first, second)
    ]
    assert rows[0] == rows[1]
    assert first[""][2] == second[""][2]


def test_timeline_has_a_row_for_each_worker(tmp_path: Path) -> None:
    """The rows of the timeline are the workers, idle ones too, and their work adds up."""
    path = tmp_path / "report.html"
    results = run(a_pipeline(), report=path)
    timeline = data_of(path.read_text("utf-8"))["timeline"]
    assert [row[:3] for row in timeline["rows"]] == [
        *([0, worker, 1] for worker in range(4)),
        *([1, worker, 1] for worker in range(3)),
        [2, 0, 1],
        *([3, worker, 1] for worker in range(2)),
    ]
    run(a_pipeline(), [1], report=tmp_path / "idle.html")
    idle = data_of((tmp_path / "idle.html").read_text("utf-8"))["timeline"]
    assert [row[:3] for row in idle["rows"]] == [row[:3] for row in timeline["rows"]]
    tries = sum(stage.run_times.count for stage in results.stats.stage_stats.values())
    batches = results.stats.stage_stats["Store"]
    assert timeline["seen"] == tries - batches.batched_items + batches.batches
    assert len(timeline["spans"]["at"]) == timeline["seen"]


def test_a_second_run_takes_the_files_place(tmp_path: Path) -> None:
    """The file has the report of the run that ended last."""
    path = tmp_path / "report.html"
    pipeline = a_pipeline(ReportSink(path))
    run(pipeline)
    assert counts_of(path.read_text("utf-8"))["total"] > 100
    run(pipeline, [1])
    text = path.read_text("utf-8")
    assert counts_of(text)["total"] == 3
    assert ">finished</span>" in text


def test_a_report_tells_of_lost_events(tmp_path: Path) -> None:
    """If the sink lost events, the report says how many, and its totals are still exact."""
    path = tmp_path / "report.html"
    sink = ReportSink(path, buffer=1)
    results = run(a_pipeline(sink))
    text = path.read_text("utf-8")
    assert sink.counts.dropped
    assert f"{sink.counts.dropped:,} events did not reach this report" in text
    assert counts_of(text)["completed"] == len(results)
    before = sink.counts.dropped
    run(a_pipeline(sink))
    lost = sink.counts.dropped - before
    assert f"{lost:,} events did not reach this report" in path.read_text("utf-8")


def test_redact_reaches_ids_errors_and_inputs(tmp_path: Path) -> None:
    """What ``redact`` hides is nowhere in the report."""
    path = tmp_path / "report.html"

    async def refuse(value: str) -> str:
        raise ValueError(f"cannot read {value}")

    sink = ReportSink(path, redact=lambda field, _: f"<{field}>")
    pipeline = Pipeline([Stage("Read", 1, [refuse], task_attempts=1)], observers=[sink])
    run(pipeline, [{"id": "secret-1", "value": "secret-2"}])
    text = path.read_text("utf-8")
    assert "secret" not in text
    assert "input <code>&lt;value&gt;</code>" in text


def test_values_show_the_input_of_a_failed_item(tmp_path: Path) -> None:
    """A log with values has the input of failed items, and so has its report."""
    log = tmp_path / "log"
    run(a_pipeline(SqliteSink(log, values=True)))
    antflow("report", log, "-o", tmp_path / "report.html")
    assert "input <code>5</code>" in (tmp_path / "report.html").read_text("utf-8")


# -- however the run ends ---------------------------------------------------------------------


def broken_source() -> Any:
    yield from range(20)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("options", "raised", "ending"),
    [
        ({"items": broken_source()}, OSError, "The run failed: OSError: the disk is gone."),
        ({"timeout": 0.5}, TimeoutError, "The run failed: TimeoutError"),
        ({"max_failures": 2}, Exception, "The run failed: TooManyFailures"),
    ],
)
def test_a_failed_run_has_a_report(
    tmp_path: Path, options: dict[str, Any], raised: type[Exception], ending: str
) -> None:
    """The report is written when the run fails, and says why."""
    path = tmp_path / "report.html"
    with pytest.raises(raised):
        run(a_pipeline(), report=path, **options)
    assert ending in Markup(path.read_text("utf-8")).text
    assert os.listdir(tmp_path) == ["report.html"]


PROGRAM = """
import asyncio, os, signal, sys, threading
from antflow import Pipeline, Stage

async def work(number):
    await asyncio.sleep(0.01)
    if number == 20:
        {deed}
    return number

pipeline = Pipeline([Stage("Work", 2, [work])])
over = threading.Event()

def main():
    asyncio.run(pipeline.run(range(1_000_000), report=sys.argv[1]))

{start}
"""
IN_A_THREAD = "threading.Thread(target=main, daemon=True).start(); over.wait()"


@pytest.mark.parametrize(
    ("deed", "start", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", "main()", "The run was cancelled."),
        ("over.set(); await asyncio.sleep(60)", f"{IN_A_THREAD}; sys.exit(1)", "has no end here"),
    ],
)
def test_an_interrupted_program_has_a_report(
    tmp_path: Path, deed: str, start: str, text: str
) -> None:
    """The report is written on Ctrl-C, and where the program ends in the middle of the run."""
    path = tmp_path / "report.html"
    program = PROGRAM.format(deed=deed, start=start)
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], timeout=60, check=False, capture_output=True
    )
    assert ended.returncode
    found = path.read_text("utf-8")
    assert text in Markup(found).text
    assert 15 <= counts_of(found)["completed"] <= 30


def test_a_killed_program_leaves_what_was_there(tmp_path: Path) -> None:
    """A report that is not complete never takes the file's place."""
    path = tmp_path / "report.html"
    path.write_text("the one before")
    program = PROGRAM.format(deed="os.kill(os.getpid(), signal.SIGKILL)", start="main()")
    ended = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "the one before"


def test_a_log_without_an_end_has_a_report(tmp_path: Path) -> None:
    """The log of a program that was killed makes a report of what is in it."""
    log = tmp_path / "log"
    run(a_pipeline(JsonlSink(log)))
    lines = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:60]), "utf-8")
    result = antflow("report", log)
    assert "The run has no end here" in result.stdout
    assert " in flight in " in result.stdout


def test_a_full_disk_fails_no_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the report cannot be written, one warning says so, and the file is as it was."""
    (tmp_path / "report.html").write_text("the one before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.0, 0.0))
    results = run(a_pipeline(), report=tmp_path / "report.html")
    assert len(results) == 140
    assert "No space left on device" in caplog.text
    assert os.listdir(tmp_path) == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "the one before"


def test_a_path_is_checked_at_the_call(tmp_path: Path) -> None:
    """A report that cannot be written is refused before anything begins."""

    async def main() -> None:
        pipeline = a_pipeline()
        with pytest.raises(FileNotFoundError, match="no such folder"):
            await pipeline.run([1], report=tmp_path / "none" / "report.html")
        with pytest.raises(IsADirectoryError):
            pipeline.stream([1], report=tmp_path)
        with pytest.raises(TypeError, match="report=5"):
            async with pipeline.open(report=5):  # type: ignore[arg-type]
                pass

    asyncio.run(main())


def test_streams_and_open_runs_have_a_report(tmp_path: Path) -> None:
    """``report`` is an option of `stream` and `open` too."""

    async def main() -> None:
        pipeline = a_pipeline()
        async with pipeline.stream([1, 2], report=tmp_path / "stream.md") as results:
            assert len([result async for result in results]) == 4
        async with pipeline.open(report=tmp_path / "open.md") as handle:
            await handle.feed([1, 2])

    run_virtual(main)
    for name in ("stream.md", "open.md"):
        assert "Of 6 items, 4 completed, 2 became others" in (tmp_path / name).read_text("utf-8")


# -- safe -------------------------------------------------------------------------------------


def test_hostile_text_is_no_markup(tmp_path: Path) -> None:
    """Ids, errors and names are text: a page of hostile ones has the elements of any other."""
    path = tmp_path / "report.html"
    hostile_run(path)
    text = path.read_text("utf-8")
    markup = Markup(text)
    tags = [tag for tag, _ in markup.elements]
    assert tags.count("script") == 2
    assert {"img", "b", "iframe", "link", "a", "form"}.isdisjoint(tags)
    attributes = {name for _, attrs in markup.elements for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert {"href", "src", "action"}.isdisjoint(attributes)
    assert not re.search("[\u2028\u2029\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f\ud800]", text)
    assert len(text) < 100_000  # a message of a million characters is cut


def test_the_policy_names_the_script_and_the_style(tmp_path: Path) -> None:
    """The page lets in nothing but its own script and style, by their hashes; it has no links."""
    path = tmp_path / "report.html"
    run(a_pipeline(), report=path)
    text = path.read_text("utf-8")
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        expected = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{expected}'" in policy[1]
    assert "http:" not in text
    assert "https:" not in text
    assert "innerHTML" not in text


def test_hostile_text_is_no_markdown(tmp_path: Path) -> None:
    """In Markdown, hostile texts stand in code spans of one line, and sentences are escaped."""
    path = tmp_path / "report.md"
    hostile_run(path)
    lines = path.read_text("utf-8").splitlines()
    without_code = [re.sub(r"(?<![`\\])(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", line) for line in lines]
    text = "\n".join(without_code)
    assert "<" not in text.replace("\\<", "").replace("<0.1", "")
    assert "@" not in text
    tables = tables_of("\n".join(lines))
    for rows in list(tables.values())[1:]:
        assert len({line.count("|") for line in rows if line.startswith("|")}) == 1


# -- colours ----------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_the_page() -> None:
    """In both schemes text has a contrast of 4.5 with what it stands on, and drawings one of 3."""
    schemes = STYLE.read_text("utf-8").split("@media (prefers-color-scheme: dark)")
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme.split("}")[0]))
        assert len(colours) > 20
        for name in ("text", "soft", "good", "bad", "off"):
            for ground in ("card", "page"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("again", "limited", "blocked", "retrying", *(f"c{n}" for n in range(8))):
            assert contrast(colours[name], colours["card"]) >= 3, name


# -- bounded ----------------------------------------------------------------------------------


def ended(number: int, stage: str = "A", kind: Any = "completed", item: str = "") -> EventRecord:
    error = ("ValueError", "no", "a.py:1 in f") if kind == "failed" else (None, None, None)
    name = item or f"order-{number:06}"
    worker = f"{stage}-W{number % 50}"
    at = 1e9 + number * 0.01
    return EventRecord(
        "r", number, at, kind, stage, name, number, "", worker, 1, 0.4 + number % 7 / 100, *error
    )


@pytest.mark.parametrize("item", ["", "x" * 200])
def test_a_large_run_makes_a_small_page(item: str) -> None:
    """The page of 30,000 items, a quarter of which failed, is small, however long their ids are."""
    figures = RunFigures("r", "many", ["A"], 1e9)
    for number in range(30_000):
        kind = "completed" if number % 4 else "failed"
        figures.told(ended(number, kind=kind, item=item and f"{item[:190]}-{number}"))
    counts = dict.fromkeys(
        ("accepted", "children", "completed", "failed", "dropped", "expanded", "cancelled"), 0
    )
    counts |= {"accepted": 30_000, "completed": 22_500, "failed": 7_500, "in flight": 0}
    report = figures.report(300.0, "finished", counts)
    text = page(report)
    assert len(text.encode()) < MOST_BYTES
    kept = len(report.timeline["spans"]["at"])
    assert 5_000 < kept <= MOST_FAILED + MOST_SPANS
    if item:
        assert 2_000 < report.timeline["spans"]["how"].count(1) < MOST_FAILED
        assert f"(the first {len(report.failed_ids):,} of 7,500)" in text
    else:
        assert report.timeline["spans"]["how"].count(1) == MOST_FAILED
        assert len(report.failed_ids) == 7_500


def test_many_workers_share_rows() -> None:
    """A thousand workers have at most 64 rows, which all have a part of them."""
    timeline = Timeline(3)
    for worker in range(1000):
        for stage, workers in enumerate((1000, 30, 2)):
            if worker < workers:
                timeline.add(Span(stage, worker, 0.0, 8.0, 0, ""))
    rows = timeline.drawn(8.0)["rows"]
    assert 32 <= len(rows) <= MOST_ROWS
    for stage, workers in enumerate((1000, 30, 2)):
        assert sum(row[2] for row in rows if row[0] == stage) == workers
    assert timeline.busy == [8000.0, 240.0, 16.0]
    # Each of them was busy from the beginning to the end.
    bins = {row[3].rstrip("0")[:-1] for row in rows}
    assert len(bins) == 1
    assert set(bins.pop()) == {"_"}


def test_a_grid_keeps_what_it_is_given() -> None:
    """However wide its bins become and however its rows are joined, the sum stays."""
    random, grid = Random(3), Grid(8)
    total = 0.0
    for _ in range(2_000):
        begin = random.random() * 10 ** random.uniform(-3, 3)
        seconds = random.random() * 20
        grid.spread(random.randrange(8), begin, begin + seconds)
        total += seconds
    assert max(map(len, grid.rows)) <= MOST_BINS
    assert sum(map(sum, grid.rows)) == pytest.approx(total)
    grid.join_rows()
    assert len(grid.rows) == 4
    assert sum(map(sum, grid.rows)) == pytest.approx(total)
    grid.add(0, 5e6, 3.0)
    assert max(map(len, grid.rows)) <= MOST_BINS
    assert sum(map(sum, grid.rows)) == pytest.approx(total + 3.0)


async def pass_on(number: int) -> int:
    await asyncio.sleep(0.01 + number % 13 / 1000)
    if number % 100 == 7:
        raise ValueError(f"number {number}")
    return number


@pytest.mark.slow
def test_a_hundred_thousand_items_fit_into_a_megabyte(tmp_path: Path) -> None:
    """The page of 100,000 items and 300 workers has at most 1 MB, and all its totals."""
    path = tmp_path / "report.html"
    stages: list[Stage[Any, Any]] = [
        Stage(name, 100, [pass_on], task_attempts=1) for name in ("One", "Two", "Three")
    ]
    sink = ReportSink(path, when_full="block")
    pipeline = Pipeline(stages, observers=[sink], collect_results=False)
    items = ({"id": f"order-{number:06}", "value": number} for number in range(100_000))
    results = run(pipeline, items)
    text = path.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert counts_of(text)["completed"] == results.stats.items_processed == 99_000
    assert len(data_of(text)["timeline"]["rows"]) <= MOST_ROWS
    assert len(data_of(text)["failed"]) == 1_000
    assert sink.counts.dropped == 0


# -- the commands -----------------------------------------------------------------------------


def test_report_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    """A run that is not in the log, or a file that cannot be written, is refused."""
    log = tmp_path / "log"
    run(a_pipeline(SqliteSink(log)), [1])
    result = antflow("report", log, "--run", "none")
    assert (result.exit_code, "has no run 'none'" in result.stderr) == (2, True)
    result = antflow("report", log, "-o", tmp_path / "none" / "r.html")
    assert (result.exit_code, "no such folder" in result.stderr) == (2, True)


def test_report_command_takes_the_latest_run(tmp_path: Path) -> None:
    """Without ``--run`` the report is about the run that began last; with it, about that one."""
    log = tmp_path / "log"
    sink = SqliteSink(log)
    first = run(a_pipeline(sink), [1])
    run(a_pipeline(sink), [1, 2])
    assert "Of 6 items" in antflow("report", log).stdout
    assert "Of 3 items" in antflow("report", log, "--run", first.run_id).stdout
