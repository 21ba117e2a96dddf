"""A trace of a run, for Perfetto and speedscope, and its longest tries found by a program.

python examples/trace.py
"""

import asyncio
import gzip
import json
from pathlib import Path

from antflow import Pipeline, Stage

TRACE = Path("trace.json.gz")


async def fetch(number: int) -> int:
    await asyncio.sleep(0.3 if number == 17 else 0.01)
    return number


async def save(number: int) -> int:
    await asyncio.sleep(0.005)
    return number


if __name__ == "__main__":
    stages = [Stage("Fetch", 5, [fetch]), Stage("Save", 1, [save])]
    asyncio.run(Pipeline(stages).run(range(50), trace=TRACE))
    print(f"{TRACE}: {TRACE.stat().st_size:,} bytes; open it in ui.perfetto.dev")

    with gzip.open(TRACE) as file:
        events = json.load(file)
    workers = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    slices = sorted(
        (event for event in events if event["ph"] == "X"), key=lambda event: -event["dur"]
    )
    for event in slices[:3]:
        worker = workers[event["pid"], event["tid"]]
        print(f"{event['dur'] / 1e6:.2f} s  {worker:8} item {event['name']}")
