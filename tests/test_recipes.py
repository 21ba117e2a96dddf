"""The recipes that need another package run as they stand, with that package.

`tests/test_docs.py` runs the others. A recipe whose package is not installed is skipped.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from tests.stand_ins import HttpStandIn, Reply, serving
from tests.test_docs import ROOT, blocks_of

PAGE = (ROOT / "docs" / "guide" / "recipes.md").read_text("utf-8")


def part_of(heading: str) -> str:
    """The text below a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def program_of(heading: str) -> str:
    """What all recipes share, and the blocks below a heading, as a program."""
    shared = next(block.text for block in blocks_of(PAGE) if block.kind == "python")
    own = [block.text for block in blocks_of(part_of(heading)) if block.kind == "python"]
    body = indent("\n".join([shared, *own]), "    ")
    return f"import asyncio\n\n\nasync def main():\n{body}\n\nasyncio.run(main())\n"


def run(folder: Path, heading: str, changes: Mapping[str, str] = {}, **more: str) -> str:
    """Run a recipe, with some of its constants changed; return what it prints."""
    program = program_of(heading)
    for old, new in changes.items():
        assert old in program
        program = program.replace(old, new)
    (folder / "program.py").write_text(program, "utf-8")
    return printed(folder, [sys.executable, "program.py"], **more)


def printed(folder: Path, command: list[str], **more: str) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"} | more,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.process
def test_failed_item_is_an_issue_in_sentry(tmp_path: Path) -> None:
    """The failed item arrives with its error, its tags and its context, and only that one."""
    pytest.importorskip("sentry_sdk")
    server = HttpStandIn(lambda call: Reply(b"{}"))
    address = server.url.replace("://", "://key@")
    with serving(server):
        run(tmp_path, "Sentry", {"https://key@o0.ingest.sentry.io": address})

    lines = [
        json.loads(line)
        for call in server.calls
        for line in gzip.decompress(call.body).splitlines()
        if line.startswith(b"{")
    ]
    (event,) = [line for line in lines if "exception" in line]
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ZeroDivisionError", "division by zero")
    assert error["stacktrace"]["frames"][-1]["function"] == "price"
    assert {**event["tags"], "run": "…"} == {"run": "…", "stage": "Price", "item": "1"}
    assert event["contexts"]["antflow"]["attempt"] == 1


@pytest.mark.process
def test_spans_and_counts_arrive_over_otlp(tmp_path: Path) -> None:
    """Spans and counters arrive under the service's name, each export with counters of its own."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

    given = dict(re.findall(r"^export (\w+)=(.+)$", part_of("Datadog"), re.MULTILINE))
    server = HttpStandIn(lambda call: Reply())
    with serving(server):
        run(tmp_path, "Datadog", **{**given, "OTEL_EXPORTER_OTLP_ENDPOINT": server.url})

    bodies: dict[str, Any] = {call.path: call.body for call in server.calls}
    assert bodies.keys() == {"/v1/traces", "/v1/metrics"}
    (spans,) = ExportTraceServiceRequest.FromString(bodies["/v1/traces"]).resource_spans
    service = {each.key: each.value.string_value for each in spans.resource.attributes}
    assert service["service.name"] == "prices"
    names = {span.name for scope in spans.scope_spans for span in scope.spans}
    assert names == {"antflow.pipeline.run", "antflow.stage.Price", "antflow.task.price"}
    (counted,) = ExportMetricsServiceRequest.FromString(bodies["/v1/metrics"]).resource_metrics
    sums = {each.name: each.sum for each in counted.scope_metrics[0].metrics}
    processed = sums["antflow.pipeline.items.processed"]
    assert processed.data_points[0].as_int == 2
    assert processed.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA


@pytest.mark.process
@pytest.mark.parametrize("heading", ["DuckDB", "pandas", "polars"])
def test_rows_are_read(heading: str, tmp_path: Path) -> None:
    """The package reads what the recipe gives it, and prints what the recipe says."""
    pytest.importorskip(heading.lower())
    expected = re.findall(r"^print\(.*\)  # (.+)$", part_of(heading), re.MULTILINE)
    assert run(tmp_path, heading).splitlines()[-len(expected) :] == expected


@pytest.mark.process
def test_curves_in_weights_and_biases(tmp_path: Path) -> None:
    """The run that is kept on disk has the counts of the snapshots and the failures by type."""
    pytest.importorskip("wandb")
    run(tmp_path, "Weights & Biases", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    for text in (b"prices", b"done", b"failed by type", b"ZeroDivisionError"):
        assert text in content


@pytest.mark.process
def test_report_on_the_page_of_a_github_job(tmp_path: Path) -> None:
    """The commands of the job put the report on its page, and make the other one from the log."""
    block = next(each.text for each in blocks_of(part_of("The page of a GitHub job")))
    commands = re.findall(r"(?:antflow|cat) .+", block)
    assert [command.split()[0] for command in commands] == ["antflow", "cat", "antflow"]
    (tmp_path / "app.py").write_text(
        "from antflow import Pipeline, Stage\n\n"
        "pipeline = Pipeline([Stage('Length', 2, [len])], name='lengths')\n"
    )
    (tmp_path / "urls.txt").write_text("a\nbc\n")
    shell = 'antflow() { "$PYTHON" -m antflow "$@"; }\n' + "\n".join(commands)
    page = tmp_path / "step_summary"
    variables = {"PYTHON": sys.executable, "GITHUB_STEP_SUMMARY": str(page)}
    printed(tmp_path, ["bash", "-ec", shell], **variables)
    assert page.read_text("utf-8").startswith("## lengths: finished\n\nAll 2 items came through")
    assert "lengths" in (tmp_path / "report.html").read_text("utf-8")
