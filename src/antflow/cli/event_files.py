"""The files of `antflow run` that sinks write: ``--events``, ``--trace`` and ``--report``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from antflow.cli.lines import InputFile
from antflow.cli.output_file import NAMES_OF_STDOUT, STDOUT, status_of
from antflow.cli.refusals import refuse

if TYPE_CHECKING:
    from antflow.sinks import Sink

LINES = (".jsonl", ".ndjson")
DATABASES = (".sqlite", ".sqlite3", ".db")
TRACES = (".json", ".json.gz")


def observers_for(events: str | None, trace: str | None, report: str | None) -> list[Sink]:
    """The sinks for these options.

    Args:
        events: A file for the events, in the format that its suffix says, or the address of a
            database; ``None`` = none.
        trace: A file for a trace; ``None`` = none.
        report: A file for a report; ``None`` = none.

    Raises:
        Refusal: A file cannot be written, or has another suffix.
    """
    from antflow.sinks import ReportSink, TraceSink  # most runs have none

    sinks: list[Sink] = []
    if events is not None:
        sinks.append(_sink_for(events))
    if trace is not None:
        if not trace.lower().endswith(TRACES):
            # It is replaced: what is named by mistake should not be.
            refuse(f"--trace {trace!r}: name it .json or .json.gz")
        try:
            sinks.append(TraceSink(trace))
        except OSError as error:
            _refuse_file("--trace", trace, error)
    if report is not None:
        if not report or report in NAMES_OF_STDOUT:
            refuse(f"--report {report!r}: must be the name of a file")
        try:
            sinks.append(ReportSink(report))
        except OSError as error:
            _refuse_file("--report", report, error)
    return sinks


def _sink_for(events: str) -> Sink:
    from antflow.sinks import JsonlSink, PostgresSink, SqliteSink
    from antflow.sinks.jsonl import check_events
    from antflow.sinks.postgres import SCHEMES, without_password
    from antflow.sinks.sqlite import check_database

    name, shown = events.lower(), without_password(events)
    try:
        if events.startswith(SCHEMES):
            return PostgresSink(events)
        if not name.endswith((*LINES, *DATABASES)):
            refuse(
                f"--events {shown!r}: name it .jsonl or .sqlite, which says the format; or give "
                "the address of a database, postgresql://…"
            )
        sink = JsonlSink(events) if name.endswith(LINES) else SqliteSink(events)
        if os.path.isfile(events) and os.path.getsize(events):
            (check_events if name.endswith(LINES) else check_database)(events)
        return sink
    except OSError as error:
        _refuse_file("--events", events, error)
    except (ValueError, ImportError) as error:
        refuse(f"--events {shown!r}: {error}", error)


def refuse_same(
    file: InputFile, others: Mapping[str, str | None], option: str, path: str | None
) -> None:
    """Refuse a file that the items come from, or another option names, whatever its name.

    Args:
        file: The items.
        others: The other options that name files, and these.
        option: The option.
        path: Its file; ``None`` = it is not given.

    Raises:
        Refusal: It is one of them.
    """
    if path is None:
        return
    status = status_of(path)
    if status is not None and file.is_same(status):
        refuse(f"{option} {path!r}: is the file that --items reads")
    for other, its_path in others.items():
        if its_path not in (None, STDOUT) and _is_same(path, its_path):
            refuse(f"{option} {path!r}: is the file of {other}")


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def _refuse_file(option: str, path: str, error: OSError) -> NoReturn:
    refuse(f"{option} {path!r}: {error.strerror}", error)
