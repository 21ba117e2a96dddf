"""Store every event in a database: collect them, and write many at once, in a thread.

python examples/tracker_to_sqlite.py
"""

import asyncio
import sqlite3
from contextlib import closing

from antflow import Pipeline, Stage, StatusEvent, StatusTracker

FILE = "statuses.sqlite"

CREATE = "CREATE TABLE IF NOT EXISTS events (run, time, item, stage, status, worker, error)"
INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)"
COUNT = "SELECT status, count(*), max(error) FROM events WHERE run = ? GROUP BY status"


class EventTable:
    def __init__(self, path: str) -> None:
        self.path = path
        self.rows: list[tuple[object, ...]] = []

    async def __call__(self, event: StatusEvent) -> None:  # the tracker's callback
        where = (event.item_id, event.stage, event.status, event.worker)
        self.rows.append((event.run_id, event.timestamp, *where, event.metadata.get("error")))
        if len(self.rows) >= 100:
            await self.flush()

    async def flush(self) -> None:
        rows, self.rows = self.rows, []
        await asyncio.to_thread(self.write, rows)

    def write(self, rows: list[tuple[object, ...]]) -> None:
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute(CREATE)
            database.executemany(INSERT, rows)


async def divide(number: int) -> float:
    await asyncio.sleep(0.01)
    return 100 / (number % 50)


async def run(events: EventTable) -> str:
    stage = Stage("Divide", workers=10, tasks=[divide], task_attempts=1)
    pipeline = Pipeline([stage], status_tracker=StatusTracker(on_status_change=events))
    results = await pipeline.run(range(300))
    await events.flush()
    return results.run_id


def main() -> None:
    run_id = asyncio.run(run(EventTable(FILE)))
    with closing(sqlite3.connect(FILE)) as database:
        for status, count, error in database.execute(COUNT, [run_id]):
            print(f"{count:4} {status:12} {error or ''}")


if __name__ == "__main__":
    main()
