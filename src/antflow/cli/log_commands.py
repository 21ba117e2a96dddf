"""`antflow events`, `errors`, `report` and `trace`: read what a sink has written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from antflow._core.same_file import is_same_file
from antflow._core.snapshot import ErrorSummary, at_text
from antflow._core.text import clean, cut, safe_str
from antflow.cli.letters import json_text
from antflow.cli.parameters import complete_file
from antflow.cli.refusals import refuse

if TYPE_CHECKING:
    from antflow.sinks import EventLog, EventRecord, RunRecord

LOOKS_EVERY = 0.25
"""Seconds between two looks at a log that is followed."""

LONGEST_MESSAGE = 200

MOST_RUNS = 5
"""How many runs are named if the one that is asked for does not exist."""


@click.command("events", short_help="Print the events of a log.")
@click.option("--item", metavar="ID", help="Only those of this item.")
@click.option("--run", metavar="ID", help="Only those of this run.")
@click.option("--follow", is_flag=True, help="Go on, and print new ones as they come.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
@click.argument("source")
def events(source: str, item: str | None, run: str | None, follow: bool, as_json: bool) -> None:
    """Print the events of a log, in the order in which they happened.

    SOURCE is the file of a JsonlSink or a SqliteSink, or the address of a PostgresSink's database,
    postgresql://… It may be read while a run writes it.
    """
    with _opened(source) as log:
        if not follow:  # one that is followed may get it yet
            _check_run([each.run for each in log.runs()], run)
        seen: dict[str, int] = {}
        while True:
            # First: what a run writes before its end is then among the events.
            runs = log.runs()
            is_over = bool(runs) and all(each.ended is not None for each in runs)
            for event in log.events(run=run, item=item):
                if event.seq > seen.get(event.run, -1):
                    seen[event.run] = event.seq
                    click.echo(json.dumps(event.to_dict()) if as_json else told(event))
            if is_over or not follow:
                return
            time.sleep(LOOKS_EVERY)


@click.command("errors", short_help="Sum up the failures in a log.")
@click.option("--type", "kind", metavar="TYPE", help="Only those of this type: KeyError.")
@click.option("--run", metavar="ID", help="Only those of this run.")
@click.option("--ids", is_flag=True, help="Print only the ids of the failed items, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
@click.argument("source")
def errors(source: str, kind: str | None, run: str | None, ids: bool, as_json: bool) -> None:
    """Sum up the failures in a log or a journal: by type, stage and line of code, or one by one.

    SOURCE is a journal, the file of a JsonlSink or a SqliteSink, or the address of a database,
    postgresql://…, with a journal or the tables of a PostgresSink. It may be read while a run
    writes it.
    """
    summary = _error_summary(source, run)
    if not (ids or as_json or kind):
        for line in str(summary).splitlines():
            click.echo(clean(line))
        return
    for item in summary.failed_items:
        if kind is not None and item.error_type != kind:
            continue
        if as_json:
            fields = ("stage", "error_type", "error", "location", "attempts")
            item_id = json.loads(json_text(item.item_id))  # of a journal, it may be anything
            told = {"item_id": item_id} | {name: getattr(item, name) for name in fields}
            click.echo(json.dumps(told))
        else:
            click.echo(clean(safe_str(item.item_id) if ids else str(item)))


def _error_summary(source: str, run: str | None) -> ErrorSummary:
    from antflow.cli.journal_commands import opened, told_as_refusal
    from antflow.journal.databases import is_journal

    if told_as_refusal(lambda: is_journal(source)):
        with opened(source) as journal:
            _check_run([each.run_id for each in journal.runs()], run)
            return journal.error_summary(run=run)
    with _opened(source) as log:
        _check_run([each.run for each in log.runs()], run)
        return log.get_error_summary(run)


@click.command("trace", short_help="Make a trace file of a log.")
@click.option("-o", "--out", required=True, metavar="FILE", help="The file; .gz packs it.")
@click.argument("source")
def trace(source: str, out: str) -> None:
    """Make a trace file of a log, for ui.perfetto.dev, chrome://tracing and speedscope.

    SOURCE is the file of a JsonlSink or a SqliteSink, or the address of a PostgresSink's database,
    postgresql://… There is a track for each worker, and a slice for each try.
    """
    from antflow.sinks.trace import trace_of, write_trace

    if out == "-":
        refuse("--out '-': must be the name of a file")
    _refuse_log(out, source)
    with _opened(source) as log:
        runs = [(each.run, each.stages, each.started, each.ended) for each in log.runs()]
        try:
            write_trace(out, trace_of(runs, log.events()))
        except OSError as error:
            refuse(f"--out {out!r}: {error.strerror}", error)


@click.command("report", short_help="Make a report of a run in a log.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="The file: an HTML page, or Markdown with the suffix .md.  [default: Markdown, on "
    "standard output]",
    shell_complete=complete_file,
)
@click.option("--run", metavar="ID", help="Which run.  [default: the one that began last]")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
def report(sources: tuple[str, ...], out: str | None, run: str | None) -> None:
    """Make a report of a run in a log: a page that needs nothing else, or Markdown.

    SOURCE is the file of a JsonlSink or a SqliteSink, or the address of a PostgresSink's database,
    postgresql://… It may be read while a run writes it. Several make one report of their last
    runs, which must be of one pipeline: the shards of a job.
    """
    from antflow._core.addresses import without_password
    from antflow.sinks.file_sink import writable_path
    from antflow.sinks.report.markdown import markdown
    from antflow.sinks.report.report_sink import latest_run, report_of, write_report
    from antflow.sinks.report.shards import report_of_shards

    if run is not None and len(sources) > 1:
        refuse(f"--run {run!r}: of several logs, the last run of each is taken")
    for number, source in enumerate(sources):
        if out is not None:
            _refuse_log(out, source)
        if any(source == other or is_same_file(source, other) for other in sources[:number]):
            refuse(f"{without_password(source)!r}: is given twice")
    with ExitStack() as stack:
        parts: list[tuple[EventLog, RunRecord]] = []
        for source in sources:
            log = stack.enter_context(_opened(source))
            if (record := latest_run(log, run)) is None:
                shown = without_password(source)
                refuse(f"{shown!r}: has no run{'' if run is None else f' {run!r}'}")
            parts.append((log, record))
        try:
            made = report_of(*parts[0]) if len(parts) == 1 else report_of_shards(parts)
        except ValueError as error:
            refuse(str(error), error)
        if out in (None, "", "-"):
            click.echo(markdown(made), nl=False)
            return
        try:
            write_report(writable_path(out), made)
        except OSError as error:
            refuse(f"--out {out!r}: {error.strerror}", error)


def told(event: EventRecord) -> str:
    """``12:03:04.500 item 7 failed in Fetch, try 3 (1.2 s): KeyError at app.py:3 in f: 'x'``."""
    at = time.strftime("%H:%M:%S", time.localtime(event.timestamp))
    text = f"{at}.{int(event.timestamp % 1 * 1_000):03} item {event.item} {event.kind}"
    text += f" in {event.stage}"
    if event.attempt > 1:
        text += f", try {event.attempt:,}"
    if event.duration:
        text += f" ({event.duration:.3g} s)"
    if event.error_type is not None:
        place = at_text(event.place or "")
        message = cut(event.error or "", LONGEST_MESSAGE)
        text += f": {event.error_type}{place}{': ' if message else ''}{message}"
    return clean(text)


@contextmanager
def _opened(source: str) -> Iterator[EventLog]:
    from antflow._core.addresses import without_password
    from antflow.sinks import EventLog
    from antflow.sinks.event_log import UnreadableLog

    try:
        log = EventLog.open(source)
    except (OSError, ValueError, TypeError, ImportError) as error:
        refuse(f"{without_password(source)!r}: {_reason(error)}", error)
    with log:
        try:
            yield log
        except BrokenPipeError:
            raise
        except (ConnectionError, UnreadableLog) as error:  # the server is gone, or it is damaged
            refuse(f"{without_password(source)!r}: {_reason(error)}", error)


def _refuse_log(out: str, source: str) -> None:
    """Refuse to write over the log."""
    if is_same_file(out, source):
        refuse(f"--out {out!r}: is the log itself")


def _check_run(known: list[str], run: str | None) -> None:
    """Refuse a run that the log does not have: nothing found would read as no failures."""
    if run is not None and run not in known:
        runs = ", ".join(known[-MOST_RUNS:]) or "none"
        refuse(f"--run {run!r}: there is no such run; the last ones are {runs}")


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or safe_str(error)
