"""One report of several logs: what each run says is in it once, and nothing is mixed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import EventLog, JsonlSink
from antflow.sinks.report.figures import Report
from antflow.sinks.report.page import page
from antflow.sinks.report.report_sink import latest_run, report_of
from antflow.sinks.report.shards import report_of_shards
from tests.cli.running import antflow

from .reports import a_pipeline, counts_of, run

SHARES = (range(40), range(25), range(60))
"""Their items have the same running numbers."""


def logs_of_shards(folder: Path) -> list[Path]:
    """The logs of three runs of one pipeline."""
    paths = [folder / f"{number}.jsonl" for number in range(len(SHARES))]
    first = None
    for path, share in zip(paths, SHARES, strict=True):
        run(a_pipeline(JsonlSink(path)), share)
        records = [json.loads(line) for line in path.read_text().splitlines()]
        first = records[0]["timestamp"] if first is None else first
        late = records[0]["timestamp"] - first  # as if all had begun at once
        lines = [json.dumps(each | {"timestamp": each["timestamp"] - late}) for each in records]
        path.write_text("\n".join(lines) + "\n")
    return paths


def reports_of(paths: list[Path]) -> tuple[list[Report], Report]:
    """The report of each log, and the one of all."""
    logs = [EventLog.open(path) for path in paths]
    parts = [(log, record) for log in logs if (record := latest_run(log, None)) is not None]
    reports = [report_of(*part) for part in parts], report_of_shards(parts)
    for log in logs:
        log.close()
    return reports


def test_the_counts_of_shards_are_added_up(tmp_path: Path) -> None:
    """Items, tries, errors and busy seconds, although ids and workers have the same names."""
    singles, whole = reports_of(logs_of_shards(tmp_path))
    for name, count in whole.counts.items():
        assert count == sum(each.counts[name] for each in singles)
    for index, stage in enumerate(whole.stages):
        parts = [each.stages[index] for each in singles]
        for name, count in stage.counts.items():
            assert count == sum(each.counts.get(name, 0) for each in parts)
        assert stage.workers >= max(each.workers for each in parts)
        assert stage.tries.count == sum(each.tries.count for each in parts)
        assert stage.waits.count == sum(each.waits.count for each in parts)
        busy = sum(each.seconds["busy"] for each in parts)
        assert stage.seconds["busy"] == pytest.approx(busy, rel=0.01)
    failed = {(each.type, each.stage, each.place): each.failed for each in whole.errors}
    for kind, count in failed.items():
        own = [
            e.failed for each in singles for e in each.errors if (e.type, e.stage, e.place) == kind
        ]
        assert count == sum(own)
    assert whole.started == min(each.started for each in singles)
    ends = [each.started + each.duration for each in singles]
    assert whole.started + whole.duration == pytest.approx(max(ends))
    slowest = max(item.seconds for each in singles for item in each.slowest)
    assert whole.slowest[0].seconds == pytest.approx(slowest)
    assert len(whole.failed_ids) == sum(len(each.failed_ids) for each in singles)


def test_a_report_of_shards_is_a_page_like_others(tmp_path: Path) -> None:
    """The command writes it."""
    paths = logs_of_shards(tmp_path)
    out = tmp_path / "all.html"
    result = antflow("report", *paths, "-o", out)
    assert result.exit_code == 0, result.output
    text = out.read_text("utf-8")
    _, whole = reports_of(paths)
    assert counts_of(text) == counts_of(page(whole))
    markdown = antflow("report", *paths)
    assert "from 3 logs of events" in markdown.stdout


def test_a_shard_that_was_killed_makes_the_report_unfinished(tmp_path: Path) -> None:
    """Its end is not known, so the counts are those of the events."""
    paths = logs_of_shards(tmp_path)
    lines = paths[1].read_text().splitlines(keepends=True)
    paths[1].write_text("".join(lines[:-1]))
    singles, whole = reports_of(paths)
    assert (singles[1].how, whole.how) == ("unfinished", "unfinished")
    assert whole.counts["completed"] == sum(each.counts["completed"] for each in singles)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("another pipeline", "is of the pipeline 'other'"),
        ("twice", "is given twice"),
        ("a run", "the last run of each is taken"),
        ("no run", "has no run"),
    ],
)
def test_logs_that_do_not_belong_together_are_refused(tmp_path: Path, how: str, told: str) -> None:
    """With the reason, and no report."""
    paths: list[Any] = logs_of_shards(tmp_path)[:2]
    more: tuple[Any, ...] = ()
    if how == "another pipeline":
        other = tmp_path / "other.jsonl"
        run(Pipeline([Stage("A", 1, [str])], name="other", observers=[JsonlSink(other)]), [1])
        paths.append(other)
    elif how == "twice":
        link = tmp_path / "link.jsonl"
        link.symlink_to(paths[0])
        paths.append(link)
    elif how == "a run":
        more = ("--run", "1f03")
    else:
        (tmp_path / "empty.jsonl").touch()
        paths.append(tmp_path / "empty.jsonl")
    out = tmp_path / "all.html"
    result = antflow("report", *paths, *more, "-o", out)
    assert (result.exit_code, out.exists()) == (2, False)
    assert told in result.stderr
