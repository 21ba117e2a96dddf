"""How many events each sink writes while a pipeline runs, and what they cost.

The other ways to hear of each event are measured beside them: an observer, trackers, OpenTelemetry.

`python -m benchmarks.sinks` prints a table for docs/performance.md. PostgreSQL is a server of its
own, as the tests start it, with the settings that it comes with.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from antflow import ItemStep, Pipeline, Stage, StatusEvent, StatusTracker
from antflow.sinks import (
    CallbackSink,
    JsonlSink,
    LoggingSink,
    PostgresSink,
    ReportSink,
    Sink,
    SqliteSink,
    TraceSink,
)
from antflow.telemetry import configure_telemetry
from benchmarks.page import PAGE, write
from benchmarks.report import machine
from benchmarks.sample import check
from benchmarks.tasks import STAGES, WORKERS, no_op
from tests.postgres_server import Missing, postgres_server

ITEMS, ROUNDS = 60_000, 5
EVENTS = 2 * STAGES + 1
"""Of one item: admitted; started and completed in each stage."""


HEAD = [
    "| listener | events per second | µs of the event loop per event | µs of all threads |",
    "|---|---|---|---|",
]


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        wall: Seconds, until everything is written.
        cpu: Seconds of processor time of the event loop's thread.
        cpu_of_all: The same of all threads of this process.
    """

    wall: float
    cpu: float
    cpu_of_all: float


class Silent:
    """An observer that does nothing."""

    def happened(self, step: ItemStep) -> None:
        """An item took a step."""


def follow(event: StatusEvent) -> None:
    """A tracker's callback that does nothing."""


Listener = Sink | Silent | StatusTracker | TracerProvider | None


def measured(listener: Listener, items: int) -> Run:
    """Run a pipeline whose tasks do nothing. It waits for a sink, and nothing may be lost."""
    stages = [Stage(f"S{number}", WORKERS, [no_op]) for number in range(STAGES)]
    pipeline = Pipeline(
        stages,
        observers=[listener] if isinstance(listener, Sink | Silent) else [],
        status_tracker=listener if isinstance(listener, StatusTracker) else None,
    )
    if isinstance(listener, TracerProvider):
        configure_telemetry(tracer_provider=listener)
    gc.collect()
    cpu, wall, cpu_of_all = time.thread_time(), time.perf_counter(), time.process_time()
    asyncio.run(pipeline.run(range(items)))
    run = Run(
        time.perf_counter() - wall, time.thread_time() - cpu, time.process_time() - cpu_of_all
    )
    if isinstance(listener, TracerProvider):
        configure_telemetry()
        listener.shutdown()
    if isinstance(listener, Sink):
        check("events written", listener.counts.delivered, items * EVENTS)
    return run


class Nowhere(SpanExporter):
    """An exporter that does nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take a batch."""
        return SpanExportResult.SUCCESS


def traced() -> TracerProvider:
    """OpenTelemetry as a program sets it up, with room for spans that come fast."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=200_000))
    return provider


def row(name: str, runs: Sequence[Run], bare: Sequence[Run], items: int) -> str:
    """A row of the table: the medians of the rounds."""
    events = items * EVENTS
    rate = median(events / run.wall for run in runs)
    pairs = list(zip(runs, bare, strict=True))
    cost = median((run.cpu - each.cpu) / events for run, each in pairs)
    cost_of_all = median((run.cpu_of_all - each.cpu_of_all) / events for run, each in pairs)
    return f"| {name} | {round(rate, -3):,.0f} | {1e6 * cost:.1f} | {1e6 * cost_of_all:.1f} |"


def table(items: int, rounds: int) -> list[str]:
    """Measure the sinks in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        logger = logging.getLogger("benchmarks.sinks")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.NullHandler())
        places: dict[str, Callable[[int], Listener]] = {
            "`JsonlSink`": lambda n: JsonlSink(folder / f"{n}.jsonl", when_full="block"),
            "`SqliteSink`": lambda n: SqliteSink(folder / f"{n}.sqlite", when_full="block"),
        }
        try:
            server = stack.enter_context(postgres_server(settings=()))
            places["`PostgresSink`"] = lambda _: PostgresSink(server.schema(), when_full="block")
        except Missing as reason:
            print(f"PostgresSink was not measured: {reason}", file=sys.stderr)
        places |= {
            "`TraceSink`": lambda n: TraceSink(folder / f"{n}.json.gz", when_full="block"),
            "`ReportSink`": lambda n: ReportSink(folder / f"{n}.html", when_full="block"),
            "`LoggingSink`, to a handler that does nothing": lambda _: LoggingSink(
                logger, when_full="block"
            ),
            "`CallbackSink`, of a function that does nothing": lambda _: CallbackSink(
                lambda events: None, when_full="block"
            ),
            "`Observer` that does nothing": lambda _: Silent(),
            "`StatusTracker()`": lambda _: StatusTracker(),
            "`StatusTracker(on_status_change=…)`, of a function that does nothing": lambda _: (
                StatusTracker(on_status_change=follow)
            ),
            "`StatusTracker(spill=…)`": lambda n: StatusTracker(spill=folder / f"{n}.spill"),
            "`configure_telemetry()`, spans to a batch processor": lambda _: traced(),
        }
        measured(None, items // 100)
        bare: list[Run] = []
        runs: dict[str, list[Run]] = {name: [] for name in places}
        for number in range(rounds):
            bare.append(measured(None, items))
            for name, make in places.items():
                runs[name].append(measured(make(number), items))
    return [*HEAD, *(row(name, each, bare, items) for name, each in runs.items())]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sinks", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, help="of each run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often (%(default)s)")
    parser.add_argument("--page", action="store_true", help=f"write it into {PAGE.name}")
    given = parser.parse_args()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    about = f"{time.strftime('%Y-%m-%d')}: {machine()}; {python}; medians of {given.rounds} rounds."
    lines = [about, "", *table(given.items, given.rounds)]
    print("\n".join(lines))
    if given.page:
        write(PAGE, {"sinks": lines})


if __name__ == "__main__":
    main()
