"""The files of `antflow run` that sinks write.

`OPTIONS` has all of them: one more is a row there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from antflow.cli.output_file import NAMES_OF_STDOUT, NamedFiles
from antflow.cli.parameters import Command, complete_file
from antflow.cli.refusals import refuse

if TYPE_CHECKING:
    from antflow.sinks import Sink

LINES = (".jsonl", ".ndjson")
DATABASES = (".sqlite", ".sqlite3", ".db")
TRACES = (".json", ".json.gz")


class SinkOption(NamedTuple):
    """An option that names the file of a sink.

    Attributes:
        name: Its name, without the dashes.
        metavar: What it takes, for the help.
        help: What the file is for.
        make: Makes the sink; an `OSError` or a `ValueError` says why that cannot be.
    """

    name: str
    metavar: str
    help: str
    make: Callable[[str], Sink]


def _events(path: str) -> Sink:
    from antflow._core.addresses import SCHEMES
    from antflow.sinks import JsonlSink, PostgresSink, SqliteSink
    from antflow.sinks.jsonl import check_events
    from antflow.sinks.sqlite import check_database

    if path.startswith(SCHEMES):
        return PostgresSink(path)
    is_lines = path.lower().endswith(LINES)
    if not is_lines and not path.lower().endswith(DATABASES):
        raise ValueError(
            "name it .jsonl or .sqlite, which says the format; or give the address of a database, "
            "postgresql://…"
        )
    sink = JsonlSink(path) if is_lines else SqliteSink(path)
    if os.path.isfile(path) and os.path.getsize(path):
        (check_events if is_lines else check_database)(path)
    return sink


def _trace(path: str) -> Sink:
    from antflow.sinks import TraceSink

    if not path.lower().endswith(TRACES):
        # It is replaced: what is named by mistake should not be.
        raise ValueError("name it .json or .json.gz")
    return TraceSink(path)


def _report(path: str) -> Sink:
    from antflow.sinks import ReportSink

    if not path or path in NAMES_OF_STDOUT:
        raise ValueError("must be the name of a file")
    return ReportSink(path)


OPTIONS = (
    SinkOption(
        "events",
        "FILE|URL",
        "Where every event of the run goes, which antflow events, errors and trace read: a file, "
        ".jsonl or .sqlite, or postgresql://user@host/name. Events are added to those that are "
        "there.",
        _events,
    ),
    SinkOption(
        "trace",
        "FILE",
        "File for what each worker did when, for ui.perfetto.dev: .json or .json.gz. It is "
        "replaced.",
        _trace,
    ),
    SinkOption(
        "report",
        "FILE",
        "File for a report of the run, replaced if it is there: an HTML page, or Markdown with "
        "the suffix .md.",
        _report,
    ),
)


def takes_sinks(command: Command) -> Command:
    """Add the options of `OPTIONS`."""
    for name, metavar, text, _ in reversed(OPTIONS):
        option = click.option(f"--{name}", metavar=metavar, help=text, shell_complete=complete_file)
        command = option(command)
    return command


def sinks_for(given: Mapping[str, Any], named: NamedFiles) -> list[Sink]:
    """The sinks that were asked for.

    Args:
        given: The values of the options, by name.
        named: The files of other options; these are added.

    Raises:
        Refusal: A file cannot be written, has another suffix, or is that of another option.
    """
    sinks: list[Sink] = []
    for option in OPTIONS:
        path = given[option.name]
        if path is not None:
            sinks.append(_made(option, path))
            named.add(f"--{option.name}", path)
    return sinks


def _made(option: SinkOption, path: str) -> Sink:
    from antflow._core.addresses import without_password

    try:
        return option.make(path)
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        refuse(f"--{option.name} {without_password(path)!r}: {reason}", error)
