"""Write many rows at a time to a database, each batch in one transaction.

python examples/batches_into_sqlite.py

If the database refuses a row, the whole batch is rolled back and tried again, and for the last try
each row is alone. So a bad row does not take any other down with it. A row that is written again,
by a later try or when the program runs again, replaces itself.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

from antflow import Pipeline, Stage

Row = tuple[int, int]

FILE = "measured.sqlite"
CREATE = "CREATE TABLE IF NOT EXISTS measured (number PRIMARY KEY, degrees CHECK (degrees > -274))"
INSERT = "INSERT OR REPLACE INTO measured VALUES (?, ?)"

transactions = Counter[int]()


@contextmanager
def connection() -> Iterator[sqlite3.Connection]:
    """A connection for one worker: made, used and closed in one thread, as `sqlite3` demands."""
    with closing(sqlite3.connect(FILE)) as database:
        yield database
    print("connection closed")


async def read(number: int) -> Row:
    await asyncio.sleep(0.01)
    return number, -300 if number == 777 else number % 40


def write(rows: list[Row], database: sqlite3.Connection) -> list[int]:
    with database:  # a transaction
        database.executemany(INSERT, rows)
    transactions[len(rows)] += 1
    return [number for number, _ in rows]


async def main() -> None:
    with closing(sqlite3.connect(FILE)) as database:
        database.execute(CREATE)
        pipeline = Pipeline(
            [
                Stage("Read", workers=50, tasks=[read]),
                Stage(
                    "Write",
                    workers=1,
                    tasks=[write],
                    batch=100,  # rows at most: a batch begins when it is full, or ...
                    batch_wait=0.2,  # ... this many seconds after its first row
                    task_attempts=2,
                    task_wait_seconds=0.1,
                    resources={"database": connection},
                    resource_scope="worker",
                ),
            ]
        )
        results = await pipeline.run(range(1_000), on_failures="ignore")
        for failure in results.failed:
            print(f"row {failure.id}: {failure.error}")
        for rows, times in transactions.most_common():
            print(f"{times} transactions of {rows} rows")
        print(*database.execute("SELECT count(*) FROM measured").fetchone(), "rows are there")


if __name__ == "__main__":
    asyncio.run(main())
