"""The options of sinks."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antflow import Pipeline
from antflow.sinks import (
    CallbackSink,
    EventLog,
    JsonlSink,
    LoggingSink,
    PipelineCollector,
    PostgresSink,
    ReportSink,
    Sink,
    SqliteSink,
    TraceSink,
)

from .rows_stage import COUNT, FLAG, a_stage
from .values import (
    INF,
    NAN,
    NO_CALLABLES,
    NO_COUNTS,
    NO_FLAGS,
    NO_TIMEOUTS,
    NO_WORDS,
    Hostile,
    Row,
    but,
)

FOLDER = Path(tempfile.gettempdir())
NO_PATHS: list[Any] = [None, 5, True, ["x"], {}, "", Hostile()]
PATH = Row(
    TypeError, "must be the path of a file", NO_PATHS, [FOLDER / "x", os.fspath(FOLDER / "x")]
)

OPTIONS: dict[str, Row] = {
    "batch": Row(ValueError, COUNT, NO_COUNTS, [1, 10**9]),
    "buffer": Row(ValueError, COUNT, NO_COUNTS, [1, 10**9]),
    "every": Row(
        ValueError,
        "must be a finite number",
        [0, -1, NAN, INF, "1", None, True, Hostile()],
        [0.001, 60],
    ),
    "kinds": Row(
        (TypeError, ValueError),
        "must be a list of kinds",
        [5, True, "failed", ["fail"], [5], [Hostile()], Hostile()],
        [None, [], ["failed"], {"failed", "retrying"}],
    ),
    "redact": Row(TypeError, "must be a function", NO_CALLABLES, [None, lambda _, value: value]),
    "values": Row(TypeError, FLAG, NO_FLAGS, [True, False]),
    "when_full": Row(
        ValueError, "must be one of 'drop_oldest', 'block'", [None, 5, "x", []], ["block"]
    ),
}
"""Of every sink."""


def take(events: Any) -> None:
    """Take a batch."""


def with_path(sink: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a sink whose path is right if it is not given."""
    return lambda **options: sink(**{"path": FOLDER / "x"} | options)


def a_callback_sink(**options: Any) -> None:
    CallbackSink(**{"function": take} | options)


def use_get_by_status(**options: Any) -> None:
    with EventLog.open(an_empty_log()) as log:
        log.get_by_status(**options)


def an_empty_log() -> str:
    path = FOLDER / "antflow-empty.jsonl"
    path.touch()
    return os.fspath(path)


def a_postgres_sink(**options: Any) -> None:
    PostgresSink(**{"dsn": "postgresql://host/name"} | options)


SINKS: dict[str, Callable[..., Any]] = {
    "CallbackSink": a_callback_sink,
    "JsonlSink": with_path(JsonlSink),
    "LoggingSink": LoggingSink,
    "PostgresSink": a_postgres_sink,
    "ReportSink": with_path(ReportSink),
    "Sink": Sink,
    "SqliteSink": with_path(SqliteSink),
    "TraceSink": with_path(TraceSink),
}
READS: dict[str, Callable[..., Any]] = {
    "EventLog.get_by_status": use_get_by_status,
    "EventLog.open": lambda source: EventLog.open(source).close(),
}

COLLECTS: dict[str, Callable[..., Any]] = {
    "PipelineCollector.add": lambda pipeline: PipelineCollector().add(pipeline),
}

USES = SINKS | READS | COLLECTS

ROWS: dict[str, Row] = {
    "CallbackSink.function": Row(TypeError, "must be a function", [None, *NO_CALLABLES], [take]),
    "CallbackSink.timeout": Row(
        ValueError, "number of seconds above 0 and at most 292 years", NO_TIMEOUTS, [0.5, None]
    ),
    "EventLog.get_by_status.status": Row(
        ValueError, "must be one of 'queued'", [*but(NO_WORDS, ""), "done"], ["failed"]
    ),
    "EventLog.open.source": Row(TypeError, "must be the path of a log", NO_PATHS, [an_empty_log()]),
    "JsonlSink.path": PATH,
    "LoggingSink.level": Row(
        TypeError, "must be a level", [None, 1.5, "INFO", True, Hostile()], [logging.DEBUG, 5]
    ),
    "LoggingSink.logger": Row(
        TypeError, "must be a logger", [None, 5, [], Hostile()], ["x", logging.getLogger("x")]
    ),
    "PipelineCollector.add.pipeline": Row(
        TypeError, "must be a Pipeline", [None, 5, "x", Hostile()], [Pipeline([a_stage()])]
    ),
    "PostgresSink.dsn": Row(
        TypeError,
        "must be the address of a PostgreSQL database",
        NO_PATHS,
        ["postgresql://host/name", "postgres://user:password@host:1/name?search_path=x"],
    ),
    "ReportSink.path": PATH,
    "SqliteSink.path": PATH,
    "TraceSink.path": PATH,
    **{f"{sink}.{option}": row for sink in SINKS for option, row in OPTIONS.items()},
}
