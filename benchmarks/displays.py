"""What does it cost to watch? A frame of each display, and a run with one against a run without.

    python benchmarks/displays.py [--rounds 7] [--frames 60] [--items 300000]

Frames go to a real pseudo-terminal that somebody reads; what is counted is the processor time of
the thread that draws: reading the snapshot, working out what is worth showing, drawing it. Beside
it stands what is most often written with rich: a table with a row per worker, in a `Live`.

The run is the one of `throughput.py` (3 stages of 10 workers whose task does nothing, so that
every microsecond counts); with and without a display take turns, each in a process of its own that
has loaded the drawing library before.
Figures are medians. Exit code 1 if a figure misses its target.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow.display import create

LEVELS = ("progress", "compact", "detailed", "full")
WORKERS = (10, 100, 1000)
SIZE = (40, 120)
TARGETS_MS = {("full", 100): 4.0, ("full", 1000): 10.0}
SPEED_TARGET = 0.97
INTERVAL = 0.1


def terminal() -> TextIO:
    """A pseudo-terminal of `SIZE` that is read to nowhere."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))

    def drain() -> None:
        with suppress(OSError):  # nobody has the other end open any more
            while os.read(master, 1 << 16):
                pass
        os.close(master)

    threading.Thread(target=drain, daemon=True).start()
    return os.fdopen(slave, "w", encoding="utf-8", newline="")


async def busy_pipeline(workers: int, frames: Callable[[Pipeline], None]) -> None:
    """A run of four stages in which all workers have something to do."""

    async def task(number: int) -> int:
        await asyncio.sleep(0.05 + number % 7 / 50)
        if number % 50 == 0:
            raise ValueError("one in fifty")
        return number

    names = ("Fetch", "Parse", "Enrich", "Save")
    stages = [Stage(name, max(workers // 4, 1), [task], task_attempts=1) for name in names]
    pipeline = Pipeline(stages)
    async with pipeline.open(total=10**9) as run:
        feeding = asyncio.ensure_future(run.feed(iter(int, 1)))
        await asyncio.sleep(0.3)
        frames(pipeline)
        feeding.cancel()
        run.cancel()


def frame_cost(level: str, workers: int, frames: int) -> float:
    """Milliseconds of processor time for one frame."""
    spent: list[float] = []

    def draw(pipeline: Pipeline) -> None:
        stdout, sys.stdout = sys.stdout, terminal()
        try:
            show = rich_table() if level == "rich" else display_of(level, pipeline)
            for _ in range(frames):
                began = time.thread_time()
                show(pipeline.get_dashboard_snapshot())
                spent.append(time.thread_time() - began)
        finally:
            sys.stdout = stdout

    asyncio.run(busy_pipeline(workers, draw))
    return median(spent) * 1000


def display_of(level: str, pipeline: Pipeline) -> Callable[[DashboardSnapshot], None]:
    """One of ours, opened."""
    display = create(level)
    display.on_start(pipeline, 10**9)
    return display.on_update


def rich_table() -> Callable[[DashboardSnapshot], None]:
    """A table with a row per worker."""
    live = Live(console=Console(file=sys.stdout, force_terminal=True), auto_refresh=False)
    live.start()

    def show(snapshot: DashboardSnapshot) -> None:
        table = Table("worker", "state", "item", "task")
        for name, state in snapshot.worker_states.items():
            table.add_row(name, state.status, str(state.current_item_id), state.current_task)
        live.update(table, refresh=True)

    return show


async def run_once(level: str, items: int) -> float:
    """Seconds that the run takes."""

    async def nothing(value: int) -> int:
        return value

    stages = [Stage(f"S{number}", 10, [nothing]) for number in range(3)]
    pipeline = Pipeline(stages)
    options: dict[str, Any] = {} if level == "none" else {"dashboard": level}
    if level == "progress":
        options = {"progress": True}
    began = time.perf_counter()
    await pipeline.run(list(range(items)), dashboard_update_interval=INTERVAL, **options)
    return time.perf_counter() - began


def measured(level: str, items: int) -> float:
    """Seconds of the run in a process of its own, on a terminal that this one reads."""
    command = [sys.executable, __file__, "--run", level, "--items", str(items)]
    with terminal() as screen:
        done = subprocess.run(command, check=True, stdout=screen, stderr=subprocess.PIPE, text=True)
    return float(done.stderr)


def main() -> int:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="What displays cost.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--run", metavar="LEVEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["TERM"] = "xterm-256color"
    os.environ.pop("CI", None)
    if options.run:
        print(asyncio.run(run_once(options.run, options.items)), file=sys.stderr)
        return 0

    missed = False
    print(f"processor time per frame in ms, {SIZE[1]} x {SIZE[0]} (medians of {options.frames})")
    print(f"{'workers':10}" + "".join(f"{workers:>8}" for workers in WORKERS))
    for level in (*LEVELS, "rich"):
        costs = {workers: frame_cost(level, workers, options.frames) for workers in WORKERS}
        print(f"{level:10}" + "".join(f"{cost:8.2f}" for cost in costs.values()))
        missed |= any(costs[n] > TARGETS_MS.get((level, n), 1e9) for n in WORKERS)
    seconds: dict[str, list[float]] = {level: [] for level in ("none", *LEVELS)}
    for _ in range(options.rounds):
        for level, figures in seconds.items():
            figures.append(measured(level, options.items))
    print(f"speed of a run that does nothing but hand on, drawn every {INTERVAL} s")
    for level in LEVELS:
        pairs = zip(seconds["none"], seconds[level], strict=True)
        share = median([without / watched for without, watched in pairs])
        print(f"{level:10} {share:.3f} of the run without a display")
        missed |= share < SPEED_TARGET
    print("a target was missed" if missed else "all targets met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
