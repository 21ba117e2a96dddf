"""Writes a report when a run is over, and makes one of a log."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from antflow._core.foreign import is_a
from antflow._core.observers import RunEnd
from antflow._core.run_errors import TooManyFailures
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot
from antflow._core.text import cut, error_text, error_type_name
from antflow._core.version import __version__
from antflow.sinks.event_log import EventLog, RunRecord
from antflow.sinks.file_sink import FileSink
from antflow.sinks.records import LONGEST_ERROR, EventRecord, Redact, redacted
from antflow.sinks.report.figures import Report, RunFigures
from antflow.sinks.report.markdown import markdown
from antflow.sinks.report.page import page
from antflow.sinks.run_records import item_counts
from antflow.sinks.sink import SinkOptions

COUNTS: tuple[str, ...] = (
    "accepted",
    "children",
    "completed",
    "failed",
    "dropped",
    "expanded",
    "cancelled",
)
"""Fields of a `RunRecord`."""


class ReportSink(FileSink):
    """Writes a report about each run when it is over: ``observers=[ReportSink("report.html")]``.

    The report is one HTML page that needs nothing else; if the path ends in ``.md``, it is Markdown
    instead. It is written beside the file and then takes its place, however the run ended. If a
    pipeline runs several times, the file has the report of the run that ended last.

    Args:
        path: The file. Its folder must exist.
        options: See `SinkOptions`. With ``values=True`` the report shows the input of failed items
            as JSON. ``redact`` is asked about inputs, too, as ``"value"``.

    Raises:
        TypeError: ``path`` is not a path, or an option is of the wrong type.
        ValueError: An option is not allowed.
        OSError: There is no such folder, or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[SinkOptions]) -> None:
        super().__init__(path, **options)

    def begin_anew(self) -> None:
        """See `Sink.begin_anew`."""
        super().begin_anew()
        self._runs: dict[str, tuple[RunFacts, RunFigures]] = {}
        self._made: Report | None = None  # that is being written

    def write_opened(self, facts: RunFacts) -> None:
        """Begin to gather the figures of a run."""
        names = facts.stage_names
        figures = RunFigures(facts.run_id, facts.pipeline, names, facts.started_wall)
        self._runs[facts.run_id] = (facts, figures)

    def write(self, records: list[EventRecord]) -> None:
        """Take in a batch of events."""
        for record in records:
            if (run := self._runs.get(record.run)) is not None:
                run[1].told(record)

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Write the report of a run that is over."""
        if (run := self._runs.get(end.run_id)) is not None:
            facts, figures = run
            workers = [stage.workers for stage in end.stats.stage_stats.values()]
            error = self._error_of(end)
            counts = item_counts(end.stats) | {"in flight": end.stats.items_in_flight}
            report = figures.report(end.duration, end.how, counts, error, workers)
            _fill(report, facts, end, self._redact)
            report.lost = lost
            self._made = report
            del self._runs[end.run_id]
        if self._made is not None:  # perhaps once more, if it could not be written before
            write_report(self._path, self._made)
            self._made = None

    def close(self) -> None:
        """Write the report of a run that goes on while the program ends."""
        runs, self._runs, self._made = self._runs, {}, None
        for facts, figures in runs.values():
            report = unfinished(figures)
            _describe(report, facts)
            write_report(self._path, report)

    def _error_of(self, end: RunEnd) -> str:
        if end.error is None:
            return ""
        # What failed is said anyway.
        short = end.error.reason if is_a(end.error, TooManyFailures) else error_text(end.error)
        text = cut(short, LONGEST_ERROR)
        if self._redact is not None:
            text = redacted(self._redact, "error", text)
        return f"{error_type_name(end.error)}{': ' if text else ''}{text}"


def report_of(log: EventLog, run: RunRecord) -> Report:
    """The report about one run in a log."""
    figures = RunFigures(run.run, run.pipeline, run.stages, run.started)
    for record in log.events(run=run.run):
        figures.told(record)
    if run.ended is None or run.how is None:
        report = unfinished(figures)
    else:
        counts = {name: getattr(run, name) or 0 for name in COUNTS}
        duration = run.ended - run.started
        report = figures.report(duration, run.how, counts | {"in flight": 0}, error_of(run))
        report.lost = run.dropped_events or 0
    report.facts = {"run": run.run, "made by": f"antflow {__version__}, from a log of events"}
    return report


def error_of(run: RunRecord) -> str:
    """The error that a run raised, with its type; "" if it raised none."""
    return f"{run.error_type}: {run.error}" if run.error_type else ""


def text_of(report: Report, path: str | os.PathLike[str]) -> str:
    """The report in the form that a file of this name has."""
    return markdown(report) if os.fspath(path).lower().endswith(".md") else page(report)


def write_report(path: Path, report: Report) -> None:
    """Write a report beside its file, and let it take the file's place."""
    data = text_of(report, path).encode("utf-8", "backslashreplace")
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a device or a pipe stays what it is
        path.write_bytes(data)
        return
    aside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        with open(aside, "xb") as file:
            file.write(data)
        with suppress(OSError):  # there is none yet
            shutil.copymode(path, aside)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def unfinished(figures: RunFigures) -> Report:
    """The report about a run without an end, as far as events tell."""
    counts = dict.fromkeys((*COUNTS, "in flight"), 0)
    last = len(figures.stages) - 1
    for index, stage in enumerate(figures.stages):
        told = stage.counts
        counts["accepted"] += told.get("admitted", 0)
        counts["children"] += told.get("emitted", 0)
        for name in ("failed", "dropped", "expanded", "cancelled"):
            counts[name] += told.get(name, 0)
        if index == last:
            counts["completed"] += sum(
                told.get(name, 0) for name in ("completed", "skipped", "emitted")
            )
    settled = sum(counts[name] for name in COUNTS[2:])
    counts["in flight"] = max(counts["accepted"] + counts["children"] - settled, 0)
    return figures.report(figures.latest, "unfinished", counts)


def _fill(report: Report, facts: RunFacts, end: RunEnd, redact: Redact | None) -> None:
    """Add what the run knows and its events do not tell."""
    _describe(report, facts)
    report.has_all_times = True
    for stage, stats in zip(report.stages, end.stats.stage_stats.values(), strict=True):
        stage.counts |= {
            "completed": stats.completed_items,
            "expanded": stats.expanded_items,
            "failed": stats.failed_items,
            "dropped": stats.dropped_items,
            "retrying": stats.retried_items,
        }
        stage.tries = stats.run_times
        stage.waits = stats.queue_waits
        if stage.failed_seconds > 0:  # events have waits for limits in it
            stage.repeated_seconds *= min(stats.failed_seconds / stage.failed_seconds, 1.0)
        stage.holds, stage.held_seconds = stats.holds, stats.held_seconds
        stage.workers = stats.workers
        stage.seconds = {
            "busy": stats.busy_seconds,
            "limited": stats.limited_seconds,
            "blocked": stats.blocked_seconds,
            "retrying": stats.retry_waiting_seconds,
            "stalled": stats.stalled_seconds,
            "starved": stats.starved_seconds,
        }
    if end.snapshot is not None:
        _look_back(report, end.snapshot, redact)


def _look_back(report: Report, snapshot: DashboardSnapshot, redact: Redact | None) -> None:
    """Add what the last snapshot says: the advice, inputs of failed items, the event loop."""
    report.advice = snapshot.advice.sentence
    inputs: dict[tuple[str, str, str], str] = {}
    for group in snapshot.error_summary.groups:
        inputs[group.error_type, group.stage, group.location] = group.first.input
    for error in report.errors:
        given = inputs.get((error.type, error.stage, error.place), "")
        if given and redact is not None:
            given = redacted(redact, "value", given)
        error.input = given or error.input
    loop = snapshot.loop
    if snapshot.elapsed > 0 and loop.busy_seconds:
        report.facts["event loop at work"] = f"{min(loop.busy_seconds / snapshot.elapsed, 1):.0%}"
    if loop.stalls:
        report.facts["event loop blocked"] = f"{loop.stalls:,} × ({loop.stalled_seconds:.3g} s)"
    report.facts["processor time"] = f"{snapshot.cpu_seconds:.3g} s"
    for change in snapshot.workers_changes:
        when = f"workers of {change.stage} at {change.elapsed:.3g} s"
        report.facts[when] = f"{change.before:,} → {change.workers:,}"


def _describe(report: Report, facts: RunFacts) -> None:
    """Add the configuration, and the versions."""
    for stage, options in zip(report.stages, facts.stage_options, strict=False):
        stage.options = dict(options)
    system = f"{platform.system()} {platform.machine()}"
    report.facts = {
        "run": facts.run_id,
        "antflow": __version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": system,
    }


def latest_run(log: EventLog, run: str | None) -> RunRecord | None:
    """The run with this id, or the one that began last; ``None`` if there is none."""
    return next((each for each in reversed(log.runs()) if run in (None, each.run)), None)
