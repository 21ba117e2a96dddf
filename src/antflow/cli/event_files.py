"""The files of `antflow run` that sinks write: ``--events``, ``--trace`` and ``--report``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from antflow._core.same_file import are_one, shared_file, status_of
from antflow.cli.lines import InputFile
from antflow.cli.output_file import NAMES_OF_STDOUT, STDOUT
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
    from antflow.sinks.postgres import SCHEMES, without_password

    name, shown = events.lower(), without_password(events)
    try:
        if events.startswith(SCHEMES):
            return PostgresSink(events)
        if not name.endswith((*LINES, *DATABASES)):
            refuse(
                f"--events {shown!r}: name it .jsonl or .sqlite, which says the format; or give "
                "the address of a database, postgresql://…"
            )
        return JsonlSink(events) if name.endswith(LINES) else SqliteSink(events)
    except OSError as error:
        _refuse_file("--events", events, error)
    except (ValueError, ImportError) as error:
        refuse(f"--events {shown!r}: {error}", error)


def refuse_same(
    file: InputFile,
    named: Mapping[str, str | None],
    sinks: Sequence[str],
    stdout: os.stat_result | None,
) -> None:
    """Refuse a file for a sink that has another use, too.

    Args:
        file: The items.
        named: The options that name files, and these; ``None`` = it is not given.
        sinks: Those of them that are for sinks.
        stdout: The status of standard output.

    Raises:
        Refusal: There is such a file.
    """
    for option in sinks:
        status = status_of(path) if (path := named[option]) is not None else None
        if status is not None and file.is_same(status):
            refuse(f"{option} {path!r}: is the file that --items reads")
        for stream, its_status in {"output": stdout, "error": status_of(sys.stderr)}.items():
            if are_one(status, its_status):
                refuse(f"{option} {path!r}: is the file that standard {stream} is written to")
    given = [(option, path) for option, path in named.items() if path not in (None, STDOUT)]
    if (both := shared_file(given)) is not None:
        refuse(f"{both[0]} {named[both[0]]!r}: is the file of {both[1]}")


def _refuse_file(option: str, path: str, error: OSError) -> NoReturn:
    refuse(f"{option} {path!r}: {error.strerror}", error)
