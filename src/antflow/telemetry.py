"""Switching OpenTelemetry on and off. `antflow.sinks.opentelemetry` does the work."""

from antflow.sinks.opentelemetry import configure_telemetry, telemetry_enabled

__all__ = ["configure_telemetry", "telemetry_enabled"]
