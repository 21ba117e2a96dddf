"""Events to other systems.

A sink is an observer that writes the events of a run somewhere: ``observers=[JsonlSink(path)]``.
A collector gives the metrics of pipelines to Prometheus when it is asked.
Each is loaded with its first use: it alone knows the library it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antflow._core.sink_counts import SinkCounts
    from antflow.sinks.callback_batches import CallbackSink
    from antflow.sinks.event_log import EventLog, RunRecord
    from antflow.sinks.jsonl import JsonlSink
    from antflow.sinks.log_records import LoggingSink
    from antflow.sinks.postgres import PostgresSink
    from antflow.sinks.prometheus import PipelineCollector
    from antflow.sinks.records import EventRecord
    from antflow.sinks.report.report_sink import ReportSink
    from antflow.sinks.sink import Sink, SinkOptions
    from antflow.sinks.sqlite import SqliteSink
    from antflow.sinks.trace import TraceSink
else:
    _HOMES = {
        "CallbackSink": "callback_batches",
        "EventLog": "event_log",
        "EventRecord": "records",
        "JsonlSink": "jsonl",
        "LoggingSink": "log_records",
        "PipelineCollector": "prometheus",
        "PostgresSink": "postgres",
        "ReportSink": "report.report_sink",
        "RunRecord": "event_log",
        "Sink": "sink",
        "SinkCounts": "sink",
        "SinkOptions": "sink",
        "SqliteSink": "sqlite",
        "TraceSink": "trace",
    }

    # Not for type checkers: they would believe that a misspelt name exists.
    def __getattr__(name: str) -> Any:
        if (home := _HOMES.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(f"antflow.sinks.{home}"), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "CallbackSink",
    "EventLog",
    "EventRecord",
    "JsonlSink",
    "LoggingSink",
    "PipelineCollector",
    "PostgresSink",
    "ReportSink",
    "RunRecord",
    "Sink",
    "SinkCounts",
    "SinkOptions",
    "SqliteSink",
    "TraceSink",
]
