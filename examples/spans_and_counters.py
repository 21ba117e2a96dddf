"""Spans and counters of a run, through OpenTelemetry's SDK, printed instead of sent.

python examples/spans_and_counters.py

It needs `pip install 'antflow[otel]' opentelemetry-sdk`. To send them, put the exporters of
`opentelemetry-exporter-otlp` where this program has those that keep or print.
"""

import asyncio

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from antflow import Pipeline, Stage


def line_of(span: ReadableSpan) -> str:
    """A span as a line, instead of the twenty lines of JSON that the exporter would print."""
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    what = {key.removeprefix("antflow."): value for key, value in (span.attributes or {}).items()}
    outcome = what.get("stage.outcome", "")
    return f"{seconds:.3f} s  {span.name} {what.get('item.id', '')} {outcome}".rstrip() + "\n"


tracer = trace.get_tracer("orders")


async def fetch(number: int) -> int:
    with tracer.start_as_current_span("GET /orders"):  # a child of the task's span
        await asyncio.sleep(0.05)
    if number == 3:
        raise ConnectionError("no answer")
    return number


async def save(number: int) -> int:
    await asyncio.sleep(0.02)
    return number


async def main() -> None:
    spans = TracerProvider()
    spans.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=line_of)))
    trace.set_tracer_provider(spans)
    reader = InMemoryMetricReader()
    counters = MeterProvider([reader])
    metrics.set_meter_provider(counters)

    stages = [Stage("Fetch", 2, [fetch], task_attempts=2), Stage("Save", 1, [save])]
    await Pipeline(stages, name="orders").run(range(4), on_failures="ignore")
    spans.force_flush()  # prints what waits; `shutdown` at the end of a program does, too

    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = getattr(point, "value", None) or getattr(point, "count", 0)
                    print(metric.name, dict(point.attributes or {}), value)


if __name__ == "__main__":
    asyncio.run(main())
