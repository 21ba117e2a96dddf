"""OpenTelemetry, and the faster event loop: both optional, and never in the way."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow.telemetry import configure_telemetry
from antflow.testing import FailTimes, run_virtual
from tests.support import double, odd_only, values

pytestmark = pytest.mark.contract


@pytest.fixture(autouse=True)
def telemetry_as_it_was() -> Iterator[None]:
    """Whatever a test sets up is undone."""
    yield
    configure_telemetry(enabled=True)


def test_configure_telemetry_by_keyword() -> None:
    """``configure_telemetry(enabled=True)``: on by default, given by keyword."""
    assert inspect.signature(configure_telemetry).parameters["enabled"].default is True
    configure_telemetry(enabled=True)


def test_telemetry_can_be_switched_off() -> None:
    """After ``configure_telemetry(enabled=False)``, ``telemetry_enabled()`` is false."""
    configure_telemetry(enabled=False)
    assert antflow.telemetry_enabled() is False


def test_telemetry_enabled_is_a_bool() -> None:
    """``telemetry_enabled()`` answers with a bool, whether anything is installed or not."""
    assert isinstance(antflow.telemetry_enabled(), bool)


@pytest.mark.parametrize("enabled", [True, False])
def test_runs_are_the_same_with_and_without(enabled: bool) -> None:
    """Telemetry changes no result."""
    configure_telemetry(enabled=enabled)
    pipeline = Pipeline([Stage("A", 2, [double]), Stage("B", 1, [double])])
    assert values(run_virtual(lambda: pipeline.run([1, 2]))) == [4, 8]


def test_install_fast_loop_is_there() -> None:
    """``install_fast_loop`` takes nothing."""
    assert callable(antflow.install_fast_loop)
    assert not inspect.signature(antflow.install_fast_loop).parameters


# New since 0.10.0


def test_install_fast_loop_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop, ``install_fast_loop()`` raises nothing and changes nothing."""
    monkeypatch.setitem(importlib.import_module("sys").modules, "uvloop", None)
    assert antflow.install_fast_loop() is False


class Told:
    """What OpenTelemetry was told of one run."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._reader])
        self.configure()

    def configure(self, **options: Any) -> None:
        """Have everything told from now on, with these options."""
        configure_telemetry(tracer_provider=self._tracers, meter_provider=self._meters, **options)

    @property
    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        data: Any = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def told_of(items: Any, *stages: Stage) -> Told:
    """Run items through stages and say what OpenTelemetry was told."""
    told = Told()
    run_virtual(lambda: Pipeline([*stages]).run(items))
    return told


def test_spans_are_nested() -> None:
    """Spans are ``antflow.pipeline.run`` > ``antflow.stage.X`` > ``antflow.task.Y``."""
    told = told_of([1], Stage("Fetch", 1, [double]))
    (run,) = told.named("antflow.pipeline.run")
    (stage,) = told.named("antflow.stage.Fetch")
    (task,) = told.named("antflow.task.double")
    assert run.parent is None
    assert stage.parent.span_id == run.context.span_id
    assert task.parent.span_id == stage.context.span_id


def test_every_item_and_every_try_has_its_span() -> None:
    """There is a span for each item in each stage, and one for each try of a task."""
    stages = [Stage("A", 1, [FailTimes(1)], task_wait_seconds=0), Stage("B", 1, [double])]
    told = told_of([7, 8], *stages)
    assert len(told.named("antflow.stage.B")) == 2
    tries = told.named("antflow.task.FailTimes")
    assert sorted(span.attributes["antflow.task.attempt"] for span in tries) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("span", "attributes"),
    [
        ("antflow.pipeline.run", {"antflow.pipeline.total_items", "antflow.pipeline.stages"}),
        ("antflow.stage.A", {"antflow.stage.name"}),
        ("antflow.task.double", {"antflow.task.name", "antflow.task.attempt"}),
    ],
)
def test_spans_have_their_attributes(span: str, attributes: set[str]) -> None:
    """Spans carry total and stages, the stage's name, the task's name and attempt."""
    (found,) = told_of([1], Stage("A", 1, [double])).named(span)
    assert attributes <= set(found.attributes)


def test_counters_and_histogram() -> None:
    """Items processed, failed and retried are counted, and tasks timed."""
    stages = [
        Stage("A", 1, [FailTimes(1)], task_wait_seconds=0),
        Stage("B", 1, [odd_only], task_attempts=1),
    ]
    metrics = told_of([1, 2, 3], *stages).metrics
    counts = {
        name: sum(point.value for point in metrics[f"antflow.pipeline.items.{name}"])
        for name in ("processed", "failed", "retried")
    }
    assert (counts["failed"], counts["retried"]) == (1, 3)
    assert counts["processed"] >= 2
    assert sum(point.count for point in metrics["antflow.task.duration"]) == 9


def test_executor_calls_have_spans() -> None:
    """A call of an executor is a span ``antflow.executor.task`` with worker and task id."""
    from antflow.executor import AsyncExecutor

    told = Told()

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            await executor.map(double, [1, 2])

    run_virtual(main)
    spans = told.named("antflow.executor.task")
    assert len(spans) == 2
    assert {"antflow.executor.worker_id", "antflow.executor.task_id"} <= set(spans[0].attributes)


def test_linked_traces_are_opt_in() -> None:
    """With ``spans="linked"`` each item has a trace of its own, linked to the run's span."""
    told = Told()
    told.configure(spans="linked")
    run_virtual(lambda: Pipeline([Stage("A", 1, [double])]).run([1, 2]))
    (run,) = told.named("antflow.pipeline.run")
    stages = told.named("antflow.stage.A")
    traces = {span.context.trace_id for span in stages}
    assert len(traces) == 2
    assert run.context.trace_id not in traces


def test_sampling_is_opt_in() -> None:
    """With ``sample_ratio=0`` no item has spans; the metrics count them all the same."""
    told = Told()
    told.configure(sample_ratio=0.0)
    run_virtual(lambda: Pipeline([Stage("A", 1, [double])]).run([1, 2]))
    assert told.named("antflow.stage.A") == []
    assert sum(point.count for point in told.metrics["antflow.task.duration"]) == 2
