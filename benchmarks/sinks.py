"""How many events each sink writes while a pipeline runs, and what it costs the event loop.

`python -m benchmarks.sinks` prints a table for docs/performance.md. PostgreSQL is a server of its
own, as the tests start it, with the settings that it comes with.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink, PostgresSink, Sink, SqliteSink
from benchmarks.page import PAGE, write
from benchmarks.report import machine
from benchmarks.sample import check
from benchmarks.tasks import STAGES, WORKERS, no_op
from tests.postgres_server import Missing, postgres_server

ITEMS, ROUNDS = 60_000, 5
EVENTS = 2 * STAGES + 1
"""Of one item: admitted; started and completed in each stage."""


HEAD = ["| sink | events per second | µs of the event loop per event |", "|---|---|---|"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        wall: Seconds, until everything is written.
        cpu: Seconds of processor time of the event loop's thread.
    """

    wall: float
    cpu: float


def measured(sink: Sink | None, items: int) -> Run:
    """Run a pipeline whose tasks do nothing. It waits for the sink, and nothing may be lost."""
    stages = [Stage(f"S{number}", WORKERS, [no_op]) for number in range(STAGES)]
    pipeline = Pipeline(stages, observers=[] if sink is None else [sink])
    gc.collect()
    cpu, wall = time.thread_time(), time.perf_counter()
    asyncio.run(pipeline.run(range(items)))
    run = Run(time.perf_counter() - wall, time.thread_time() - cpu)
    if sink is not None:
        check("events written", sink.counts.delivered, items * EVENTS)
    return run


def row(name: str, runs: Sequence[Run], bare: Sequence[Run], items: int) -> str:
    """A row of the table: the medians of the rounds."""
    events = items * EVENTS
    rate = median(events / run.wall for run in runs)
    cost = median((run.cpu - each.cpu) / events for run, each in zip(runs, bare, strict=True))
    return f"| {name} | {round(rate, -3):,.0f} | {1e6 * cost:.1f} |"


def table(items: int, rounds: int) -> list[str]:
    """Measure the sinks in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        places: dict[str, Callable[[int], Sink]] = {
            "`JsonlSink`": lambda n: JsonlSink(folder / f"{n}.jsonl", when_full="block"),
            "`SqliteSink`": lambda n: SqliteSink(folder / f"{n}.sqlite", when_full="block"),
        }
        try:
            server = stack.enter_context(postgres_server(settings=()))
            places["`PostgresSink`"] = lambda _: PostgresSink(server.schema(), when_full="block")
        except Missing as reason:
            print(f"PostgresSink was not measured: {reason}", file=sys.stderr)
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
