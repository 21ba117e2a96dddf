"""Every event of a run in SQLite and in PostgreSQL, and both read back with the same questions.

Needs `pip install 'antflow[postgres]'`, and the address of a database in the variable DATABASE_URL:
postgresql://user@host/name

python examples/events_to_databases.py
"""

import asyncio
import os
import sys

from antflow import Pipeline, Stage
from antflow.sinks import EventLog, PostgresSink, SqliteSink

FILE = "events.sqlite"
ADDRESS = os.environ.get("DATABASE_URL", "")


async def fetch(number: int) -> int:
    await asyncio.sleep(number / 10_000)
    return number


def invert(number: int) -> float:
    return 1 / (number % 10)


def show(source: str) -> None:
    with EventLog.open(source) as log:
        run = log.runs()[-1]
        print(f"run {run.run}: {run.completed} completed, {run.failed} failed")
        for group in log.get_error_summary(run.run).groups:
            print(f"  {group.count} × {group.error_type} at {group.location}")
        for event in log.get_history(20, run.run):
            print(f"  item 20: {event.status} in {event.stage}")


if __name__ == "__main__":
    if not ADDRESS:
        sys.exit("DATABASE_URL: must be the address of a database, postgresql://user@host/name")
    stages = [Stage("Fetch", 5, [fetch]), Stage("Invert", 1, [invert], task_attempts=1)]
    sinks = [SqliteSink(FILE), PostgresSink(ADDRESS)]
    asyncio.run(Pipeline(stages, observers=sinks).run(range(100), on_failures="ignore"))
    for sink in sinks:
        print(type(sink).__name__, sink.counts)
    show(FILE)
    show(ADDRESS)
