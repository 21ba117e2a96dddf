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

SLOWEST = "SELECT item, max(duration) FROM events WHERE kind = 'completed' AND run = ?"
FAILED = """SELECT stage, error_type, count(*) FROM events WHERE kind = 'failed' AND run = ?
    GROUP BY stage, error_type"""


async def fetch(number: int) -> int:
    await asyncio.sleep(number / 10_000)
    return number


def invert(number: int) -> float:
    return 1 / (number % 10)


if __name__ == "__main__":
    stages = [Stage("Fetch", 5, [fetch]), Stage("Invert", 1, [invert], task_attempts=1)]
    sinks = [JsonlSink(LINES), SqliteSink(DATABASE)]
    pipeline = Pipeline(stages, observers=sinks)
    run_id = asyncio.run(pipeline.run(range(100), on_failures="ignore")).run_id
    for sink in sinks:
        print(type(sink).__name__, sink.counts)

    events = map(json.loads, LINES.read_text().splitlines())
    print(Counter(event["kind"] for event in events if event["run"] == run_id))
    with closing(sqlite3.connect(DATABASE)) as connection:
        print("failed:", *connection.execute(FAILED, [run_id]))
        print("slowest:", *connection.execute(SLOWEST, [run_id]))
