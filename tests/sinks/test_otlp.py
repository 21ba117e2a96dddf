"""Spans and metrics, exported over the wire to a collector of OpenTelemetry."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from antflow import Pipeline, Stage, configure_telemetry

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the OTLP exporter")

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

pytestmark = pytest.mark.real_time


class Collector:
    """A server that takes what exporters send, on loopback."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, data)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, data: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        else:
            for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics:
                self.metrics += [each for scope in resource.scope_metrics for each in scope.metrics]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    configure_telemetry()
    collector.server.shutdown()
    collector.server.server_close()


async def fetch(number: int) -> int:
    await asyncio.sleep(0.01)
    if number == 7:
        raise LookupError("no page 7")
    return number


def test_a_short_run_loses_nothing(collector: Collector) -> None:
    """A run of 0.2 s, a batch processor, and `shutdown()`: every span and count arrives."""
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    exporter = OTLPMetricExporter(f"{collector.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    meters = MeterProvider([reader], shutdown_on_exit=False)
    configure_telemetry(tracer_provider=tracers, meter_provider=meters)
    pipeline = Pipeline([Stage("Fetch", 5, [fetch], task_attempts=1)], name="pages")
    asyncio.run(pipeline.run(range(100), on_failures="ignore"))
    tracers.shutdown()
    meters.shutdown()
    assert Counter(span.name for span in collector.spans) == {
        "antflow.pipeline.run": 1,
        "antflow.stage.Fetch": 100,
        "antflow.task.fetch": 100,
    }
    assert len({span.trace_id for span in collector.spans}) == 1
    (run,) = [span for span in collector.spans if span.name == "antflow.pipeline.run"]
    visits = [span for span in collector.spans if span.name == "antflow.stage.Fetch"]
    assert {span.parent_span_id for span in visits} == {run.span_id}
    counts = {
        metric.name: sum(point.as_int for point in metric.sum.data_points)
        for metric in collector.metrics
        if metric.HasField("sum")
    }
    assert counts["antflow.pipeline.items.processed"] == 99
    assert counts["antflow.pipeline.items.failed"] == 1
