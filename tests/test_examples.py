"""The examples run as they stand, and print what they promise."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunEnd, RunFacts, Stage
from tests.postgres_server import PostgresServer
from tests.support import same, virtual

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
LONGEST = 80
"""Lines; a longer example is two."""

LONGER = {"llm_batch": 220, "resume_after_kill": 90}
"""A whole job, half of which is the service that it is tried with."""

# Example → what its output must match, in this order.
PRINTS = {
    "batches_into_sqlite": [
        "connection closed",
        "row 777: CHECK constraint failed",
        "99 transactions of 1 rows",
        r"[5-9] transactions of 100 rows",  # fewer where the machine is busy
        "999 rows are there",
    ],
    "cpu_in_processes": [
        r"\w+ +\d+ functions +\d+ branches",
        r"this\.py: task 'measure' ended its process again and again",
        r"(\d\d) of (?!\1)\d\d modules were measured",
    ],
    "custom_dashboard": [
        "80 items through Bake and Pack",
        r"\d\.\d s  Bake █+░+  Pack",
        "79 ok, 1 failed",
    ],
    "dashboard_and_tracker": [
        "195 ok, 5 failed",
        "195 pages",
        r"page 17: queued → in_progress → failed: .* \(2 tries\)",
    ],
    "dashboard_levels": [
        rf"\n{level}\n(.*\n)*?\d+ ok, \d+ failed\n"
        for level in ("progress", "compact", "detailed", "full")
    ],
    "events_to_databases": [
        r"SqliteSink SinkCounts\(emitted=500, delivered=500, dropped=0, waiting=0, .*\)",
        r"PostgresSink SinkCounts\(emitted=500, delivered=500, dropped=0, waiting=0, .*\)",
        r"run (\w+): 90 completed, 10 failed",
        r"  10 × ZeroDivisionError at events_to_databases\.py:\d+ in invert",
        "  item 20: failed in Invert",
        r"run (\w+): 90 completed, 10 failed",
        r"  10 × ZeroDivisionError at events_to_databases\.py:\d+ in invert",
        "  item 20: failed in Invert",
    ],
    "events_to_files": [
        r"JsonlSink SinkCounts\(emitted=500, delivered=500, dropped=0, waiting=0, .*\)",
        r"SqliteSink SinkCounts\(emitted=500, delivered=500, dropped=0, waiting=0, .*\)",
        "'completed': 190",
        r"failed: \('Invert', 'ZeroDivisionError', 10\)",
        "slowest: ",
    ],
    "events_to_logging": [
        r"WARNING item 7 retrying in Fetch: TimeoutError: no answer at events_to_logging\.py:\d+",
        r"ERROR item 7 failed in Fetch, try 2: TimeoutError: no answer",
        r"62 events, the last one: item \d+ ",
    ],
    "events_to_webhook": [
        "the service answers 503",
        r"\d+ events posted",
        "<RunResults: 480 ok, 20 failed>",
        r"SinkCounts\(emitted=20, delivered=20, dropped=0, waiting=0, error=None, failures=1\)",
        "the service knows of items 0 25 50 75 100 (.*) 475\n",
    ],
    "expand_and_filter": [
        r"\A(0/\d+/\d+: \w+\.py:\d+ .*\n)+(1/.*\n)+(2/.*\n)*(3/.*\n)*\d+ folders and files",
        r"\d{5} lines dropped",
        r"\d\d lines left",
    ],
    "llm_batch": [
        r"Stopped: \d+ of \d+ items failed \(max_failures=0\.05\): \d+ × \w+ at ",
        r"<RunResults: \d+ ok, [1-9]\d* failed.*>; 1\d\d of 220 texts were begun",
        r"<RunResults: \d+ ok, 0 failed>; [3-9] times it was too fast, and [3-9] texts waited",
        "\n220 answers stored",
    ],
    "many_machines": [
        "200 items are through",
        "the longest way has 124 steps",
        "0 retries",
        r"workers like End@127\.0\.0\.1-W0",
    ],
    "metrics_for_prometheus": [
        r'antflow_pipeline_items_total{outcome="completed",pipeline="pages"} 380\.0',
        r'antflow_pipeline_items_total{outcome="failed",pipeline="pages"} 20\.0',
        r'{error_type="ZeroDivisionError",pipeline="pages",stage="Parse"} 20\.0',
        r'antflow_pipeline_items_total{outcome="completed",pipeline="pages"} 760\.0',
    ],
    "report": [
        "<RunResults: 289 ok, 11 failed>",
        r"report\.html: \d\d kB",
        r"Of 300 items, 289 completed, 11 failed in \d",
        r"`ZeroDivisionError` \| `Price` \| `report\.py:\d+ in price` \| 6 \| 0",
    ],
    "resources": [
        "client opened",
        "connection closed after",
        "client closed after 40 calls",
        "<RunResults: 19 ok, 1 failed>",
        "cancelled",
        "client opened",
        "connection closed after",
        "client closed after",
        "the run was not over after",
    ],
    "provider_batch": [
        "submitted 2 texts",
        "submitted 1 texts",
        "cut off: the run was not over",
        "polls the job that was submitted before\npolls the job that was submitted before",
        r"\['answers to 2 texts', 'answers to 1 texts'\], 2 jobs",
    ],
    "resume_after_kill": [
        r"killed after 3,[6-9]\d\d paid calls",
        r"<RunResults: 3,000 ok, 0 failed>, 1,[78]\d\d resumed",
        r"6,000 calls were needed; \d+ of them were paid for twice",
    ],
    "revoked_key": [
        r"stopped by AuthError \(stop_on\): \d+ of 3,\d\d\d items failed in stage 'Ask': AuthE",
        r"<RunResults: [23],\d\d\d ok, [4-6]\d failed, \d+ cancelled>; 3,0\d\d calls",
        r"<RunResults: [12],\d\d\d ok, \d+ failed>, 4,950 answers in all",
        r"25 of the last 50 items failed \(max_failures=Failures\(share=0\.5, of_last=50\)\): 2\d ",
        r"<RunResults: [23],\d\d\d ok, \d+ failed, \d+ cancelled>; 3,\d\d\d calls",
        r"<RunResults: [12],\d\d\d ok, \d+ failed>, 4,950 answers in all",
    ],
    "sink_of_your_own": [
        r"SinkCounts\(emitted=10, delivered=10, dropped=0, .*\)",
        r"\d*0,Invert,ZeroDivisionError,division by zero,sink_of_your_own\.py:\d+ in invert",
    ],
    "spans_and_counters": [
        r"GET /orders\n.* antflow\.task\.fetch\n.* antflow\.stage\.Fetch 0 completed",
        "antflow.stage.Fetch 3 retrying",
        "antflow.stage.Fetch 3 failed",
        r"\d s  antflow\.pipeline\.run",
        r"antflow\.task\.duration {.*'fetch'} 5\n",
        r"antflow\.pipeline\.items\.processed {'antflow\.pipeline\.name': 'orders'} 3\n",
    ],
    "status_callbacks": [
        "/slow +Fetch +try 1 failed: no answer",
        "/missing +Fetch +failed +404",
        "'completed': 2, 'failed': 1",
        r"What failed: \['/missing'\]",
        r"0\.00 s  queued in Fetch(.*\n)+.*completed in Save",
    ],
    "steps_to_jsonl": [
        r"'admitted': 100, 'started': 100, 'completed': 99, 'failed': 1",
    ],
    "trace": [
        r"trace\.json\.gz: [\d,]+ bytes",
        r"0\.\d\d s  Fetch-W\d item 17\n",
    ],
    "tracker_on_disk": [
        r"'completed': 19996, 'failed': 4,",
        r"\{'ValueError': 4\}",
        "12345 queued Check\n12345 in_progress Check\n12345 completed Check\n12345 queued Double",
        r"\d+ MB on disk",
        r"failed: 1 5001 10001 15001\n",
    ],
    "tracker_to_sqlite": [
        "294 completed",
        "6 failed +division by zero",
        "300 in_progress",
        "300 queued",
    ],
    "worker_monitoring": [
        "Publish-W1 +idle",
        r"Resize-W0 +item \d+ +for 0\.\d\d s",
        r"Publish-W1 .* s +\d+%",
    ],
}

NEEDS_SERVER = {"events_to_databases"}


def run_example(name: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run an example in a folder, as a reader would; warnings are errors."""
    return subprocess.run(
        [sys.executable, "-u", "-W", "error", str(FOLDER / f"{name}.py")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"} | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # for the order of what displays and the example print
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def missing_from(output: str, patterns: list[str]) -> list[str]:
    """The patterns that an output does not match after what the ones before matched."""
    missing, position = [], 0
    for pattern in patterns:
        found = re.compile(pattern).search(output, position)
        if found is None:
            missing.append(pattern)
        else:
            position = found.end()
    return missing


KEEP_THEIR_FILES = ["batches_into_sqlite", "events_to_files", "tracker_on_disk"]

Done = subprocess.CompletedProcess[str]
Started = dict[str, "Future[list[Done]]"]


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    """The examples that are asked for, three at a time: mostly they wait.

    All run in one folder, as a reader's do: the files of one must not disturb another. Those that
    keep their files run twice.
    """
    folder = tmp_path_factory.mktemp("examples")
    asked = " ".join(item.name for item in request.session.items)

    def run(name: str) -> list[Done]:
        return [run_example(name, folder) for _ in range(1 + (name in KEEP_THEIR_FILES))]

    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(run, name) for name in PRINTS if f"[{name}]" in asked}


@pytest.mark.parametrize("name", [name for name in PRINTS if name not in NEEDS_SERVER])
def test_example_runs(name: str, started: Started) -> None:
    """The example ends well, prints what it promises, and has no warnings and no tracebacks."""
    done = started[name].result()[0]
    assert done.returncode == 0, done.stdout
    assert not re.search(r"Traceback|\w+Warning:", done.stdout), done.stdout
    assert missing_from(done.stdout, PRINTS[name]) == [], done.stdout


@pytest.mark.parametrize("name", KEEP_THEIR_FILES)
def test_example_that_keeps_its_files_runs_twice(name: str, started: Started) -> None:
    """The files that the first run left change nothing of what the second one prints."""
    first, second = started[name].result()
    assert first.returncode == second.returncode == 0, second.stdout
    assert missing_from(second.stdout, PRINTS[name]) == [], second.stdout


def test_example_with_a_server_runs(tmp_path: Path, postgres: PostgresServer) -> None:
    """The example that needs PostgreSQL says so without it, and runs with it."""
    (name,) = NEEDS_SERVER
    without = run_example(name, tmp_path)
    assert without.returncode == 1
    assert without.stdout.startswith("DATABASE_URL: must be")
    done = run_example(name, tmp_path, DATABASE_URL=postgres.schema())
    assert done.returncode == 0, done.stdout
    assert not re.search(r"Traceback|\w+Warning:", done.stdout), done.stdout
    assert missing_from(done.stdout, PRINTS[name]) == [], done.stdout


def test_sink_whose_disk_is_slow_keeps_few_steps() -> None:
    """Steps that the example's writer does not get round to are dropped; items do not notice."""
    sink = runpy.run_path(str(FOLDER / "steps_to_jsonl.py"))["StepsToFile"]
    written: list[Any] = []

    class SlowSink(sink):  # type: ignore[misc, valid-type]
        def opened(self, run: RunFacts) -> None:
            self.may_write = asyncio.Event()
            super().opened(run)

        async def write(self) -> None:
            await self.may_write.wait()
            while (step := await self.steps.get()) is not None:
                written.append(step)

        async def closed(self, end: RunEnd) -> None:
            self.may_write.set()
            await super().closed(end)

    pipeline = Pipeline([Stage("Work", 2, [same])], observers=[SlowSink()])
    assert len(virtual(lambda: pipeline.run(range(5_000)))) == 5_000
    assert len(written) == 10_000


def test_examples_are_all_tested() -> None:
    """Every file in the folder has its expected output here."""
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_example_is_short_and_says_how_to_run_it(name: str) -> None:
    """An example is read at one go, and its first lines give the command."""
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) < LONGER.get(name, LONGEST)
    assert f"\npython examples/{name}.py\n" in text.split('"""')[1]


def test_examples_are_named_in_the_docs() -> None:
    """A reader of the guide is told of each example."""
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert [name for name in PRINTS if not re.search(rf"`(examples/)?{name}\.py`", pages)] == []


def test_missing_from_when_the_output_is_wrong() -> None:
    """What is not there, or comes too early, is found."""
    assert missing_from("a b c", ["a", "c"]) == []
    assert missing_from("a b c", ["a", "x", "c"]) == ["x"]
    assert missing_from("a b c", ["c", "a"]) == ["a"]
