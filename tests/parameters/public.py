"""What of the library can be called, and the parameters it has: read from the library itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import antflow
import antflow.builder
import antflow.display
import antflow.runners
import antflow.sinks
import antflow.testing

PACKAGES = (
    antflow,
    antflow.builder,
    antflow.display,
    antflow.runners,
    antflow.sinks,
    antflow.testing,
)

NO_ROW = {
    "Advice": "a value, received",
    "AsyncFuture": "made by AsyncExecutor.submit",
    "AsyncFuture.set_result.result": "anything can be a result",
    "AsyncExecutor.submit.args": "what the function is called with",
    "AsyncExecutor.submit.kwargs": "what the function is called with",
    "AsyncExecutor.map.iterables": "what Python's zip takes; what it raises comes out",
    "AsyncExecutor.map_iter.iterables": "what Python's zip takes; what it raises comes out",
    "CurrentItem.checkpoint.value": "anything; what a journal's codec refuses, it refuses",
    "NotSerialisable": "an error, received",
    "WorkerLostError": "an error, received",
    "DaskRunner.check": "called by the pipeline",
    "DaskRunner.runner": "called by the run",
    "RayRunner.check": "called by the pipeline",
    "RayRunner.runner": "called by the run",
    "RunnerKind.check": "called by the pipeline",
    "RunnerKind.runner": "called by the run",
    "BaseDashboard.on_finish": "called by the run",
    "BaseDashboard.on_start": "called by the run",
    "BaseDashboard.on_update": "called by the run",
    "BaseDashboard.refresh_rate": "not used",
    "BaseDashboard.render": "called by the run",
    "Call": "a value, received",
    "CompactDashboard.render": "called by the run",
    "CounterStats": "a value, received",
    "CurrentItem": "a value, received",
    "LogContextFilter.filter.record": "called by logging",
    "DashboardProtocol.on_finish": "called by the run",
    "DashboardProtocol.on_start": "called by the run",
    "DashboardProtocol.on_update": "called by the run",
    "DashboardSnapshot": "a value, received",
    "DetailedDashboard.render": "called by the run",
    "Durations": "a value, received",
    "ErrorSummary": "a value, received",
    "Eta": "a value, received",
    "EventLog": "made by EventLog.open",
    "EventLog.events": "filters: what is not there is not found",
    "EventLog.get_by_status.run": "the id of a run; one that is unknown has no events",
    "EventLog.get_error_summary.run": "the id of a run; one that is unknown has no events",
    "EventLog.get_failed_items.run": "the id of a run; one that is unknown has no events",
    "EventLog.get_history": "ids; what is unknown has no events",
    "EventLog.get_stats.run": "the id of a run; one that is unknown has no events",
    "EventLog.get_status": "ids; what is unknown has no events",
    "EventLog.get_tracked_ids.run": "the id of a run; one that is unknown has no events",
    "FailedItem": "a value, received",
    "FailureGroup": "a value, received",
    "FirstTries": "a value, received",
    "HotSpot": "a value, received",
    "FullDashboard.refresh_rate": "not used",
    "FullDashboard.render": "called by the run",
    "Iteration": "made by AsyncExecutor.map_iter and as_completed",
    "Limit.cost_of.value": "any value",
    "LimitStatistics": "a value, received",
    "LogDisplay.render": "called by the run",
    "ItemStep": "a value, received",
    "LoopHealth": "a value, received",
    "LoopStall": "a value, received",
    "MemoryStore.admit": "called by the run",
    "MemoryStore.closed": "called by the run",
    "MemoryStore.opened": "called by the run",
    "MemoryStore.record": "called by the run",
    "Observer.closed": "called by the run",
    "Observer.happened": "called by the run",
    "Observer.opened": "called by the run",
    "PipelineBuilder": "made by Pipeline.create",
    "PipelineBuilder.add.options": "the options of Stage",
    "PipelineBuilder.with_options.options": "the options of Pipeline",
    "PipelineResult": "a value, received",
    "PipelineStats": "a value, received",
    "ProgressDisplay.render": "called by the run",
    "RecentStageStats": "a value, received",
    "RecentStats": "a value, received",
    "RecordedEvents.of.item_id": "anything can be an id; one that is unknown has no events",
    "RunEnd": "a value, received",
    "RunFacts": "a value, received",
    "RunFacts.timestamp": "a reading of the run's clock",
    "RunFacts.worker_name": "the numbers of a stage and a worker",
    "RunHandle": "made by Pipeline.open",
    "RunHandle.submit.item": "anything can be an item",
    "RunResults": "a value, received",
    "Scripted.outcomes": "anything can be returned",
    "Sink.closed": "called by the run",
    "Sink.happened": "called by the run",
    "Sink.opened": "called by the run",
    "Sink.gives_up_on": "called by the sink",
    "Sink.write": "called by the sink",
    "Sink.write_closed": "called by the sink",
    "Sink.write_opened": "called by the sink",
    "SinkCounts": "a value, received",
    "CallbackSink.opened": "called by the run",
    "CallbackSink.write": "called by the sink",
    "CallbackSink.write_closed": "called by the sink",
    "JsonlSink.write": "called by the sink",
    "JsonlSink.write_closed": "called by the sink",
    "JsonlSink.write_opened": "called by the sink",
    "LoggingSink.write": "called by the sink",
    "PipelineCollector.pipelines": "each is what `add` takes",
    "PostgresSink.gives_up_on": "called by the sink",
    "PostgresSink.write": "called by the sink",
    "PostgresSink.write_closed": "called by the sink",
    "PostgresSink.write_opened": "called by the sink",
    "SqliteSink.gives_up_on": "called by the sink",
    "ReportSink.write": "called by the sink",
    "ReportSink.write_closed": "called by the sink",
    "ReportSink.write_opened": "called by the sink",
    "SqliteSink.write": "called by the sink",
    "SqliteSink.write_closed": "called by the sink",
    "SqliteSink.write_opened": "called by the sink",
    "StageStats": "a value, received",
    "StatusEvent": "a value, received",
    "StatusTracker.follow": "called by the pipeline",
    "TaskEvent": "a value, received",
    "TaskFailedError": "an error, received",
    "TooManyFailures": "an error, received",
    "TraceSink.write": "called by the sink",
    "TraceSink.write_closed": "called by the sink",
    "TraceSink.write_opened": "called by the sink",
    "VirtualLoop.call_at": "asyncio's own interface",
    "VirtualLoop.default_exception_handler": "asyncio's own interface",
    "VirtualLoop.run_in_executor": "asyncio's own interface",
    "VirtualLoop.shutdown_default_executor": "asyncio's own interface",
    "WhatIf": "a value, received",
    "WorkersChange": "a value, received",
    "WorkerMetrics": "a value, received",
    "WorkerState": "a value, received",
    "set_task_status.status": "anything that has a text; see test_catalogue.py",
}
"""What has no row in the tables, and why: a parameter, or all of a callable."""


def public_callables() -> dict[str, Callable[..., Any]]:
    """Dotted name → a function, a method, or a class that has an ``__init__`` of its own."""
    return {name: call for package in PACKAGES for name, call in _callables_of(package)}


def public_parameters() -> list[str]:
    """``Callable.parameter`` of everything public."""
    return [
        f"{name}.{parameter}"
        for name, call in public_callables().items()
        for parameter in parameters_of(call)
    ]


def parameters_of(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A callable's parameters, those that are bound or have no name left out.

    The ``**options`` of sinks are the options themselves.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if str(parameter.annotation) == "Unpack[SinkOptions]":
            names = antflow.sinks.SinkOptions.__annotations__
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters |= {each: inspect.Parameter(each, kind) for each in names}
        elif name != "self":
            parameters[name] = parameter
    return parameters


def has_no_row(name: str) -> bool:
    """Whether a parameter, or its callable, is one of the exceptions."""
    return name in NO_ROW or name.rpartition(".")[0] in NO_ROW.keys() & public_callables().keys()


def _callables_of(package: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in package.__all__:
        public = getattr(package, name)
        if not inspect.isclass(public):
            if inspect.isfunction(public):
                yield name, public
            continue
        names = {
            each: None for kind in public.__mro__ if _is_part(kind, public) for each in vars(kind)
        }
        own = {n: getattr(public, n) for n in names if not n.startswith("_")}
        if inspect.isfunction(vars(public).get("__init__")) and not _is_protocol(public):
            yield name, public
        for method, function in own.items():
            if inspect.isfunction(function) or inspect.ismethod(function):
                yield f"{name}.{method}", function


def _is_part(kind: type, public: type) -> bool:
    """Whether a class is this one, or a base of it that only splits it into two files."""
    is_split = kind.__module__ == f"antflow._{public.__module__.rpartition('.')[2]}_runs"
    return kind is public or is_split


def _is_protocol(kind: type) -> bool:
    return getattr(kind, "_is_protocol", False)
