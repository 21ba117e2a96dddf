"""Every event of a run in a file and in a database, and both read back.

python examples/events_to_files.py
"""

import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink, SqliteSink

LINES = Path("events.jsonl")
DATABASE = Path("events.sqlite")

SLOWEST = "SELECT item, max(duration) FROM events WHERE kind = 'completed'"
FAILED = "SELECT stage, error_type, count(*) FROM events WHERE kind = 'failed' GROUP BY 1, 2"


async def fetch(number: int) -> int:
    await asyncio.sleep(number / 10_000)
    return number


def invert(number: int) -> float:
    return 1 / (number % 10)


if __name__ == "__main__":
    stages = [Stage("Fetch", 5, [fetch]), Stage("Invert", 1, [invert], task_attempts=1)]
    sinks = [JsonlSink(LINES), SqliteSink(DATABASE)]
    asyncio.run(Pipeline(stages, observers=sinks).run(range(100), on_failures="ignore"))
    for sink in sinks:
        print(type(sink).__name__, sink.counts)

    events = map(json.loads, LINES.read_text().splitlines())
    print(Counter(event["kind"] for event in events))
    with closing(sqlite3.connect(DATABASE)) as connection:
        print("failed:", *connection.execute(FAILED))
        print("slowest:", *connection.execute(SLOWEST))
