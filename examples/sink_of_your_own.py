"""A sink of your own: each item that failed as a row of a CSV file, for a spreadsheet.

python examples/sink_of_your_own.py
"""

import asyncio
import csv
from pathlib import Path

from antflow import Pipeline, Stage
from antflow.sinks import EventRecord, Sink

FILE = Path("failures.csv")


class CsvSink(Sink):
    """Its methods are called in the sink's thread: they may block."""

    def open(self) -> None:
        self.file = FILE.open("a", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)

    def write(self, records: list[EventRecord]) -> None:
        """If this raises, it is called again with the same records."""
        self.writer.writerows(
            (each.item, each.stage, each.error_type, each.error, each.place) for each in records
        )
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def invert(number: int) -> float:
    return 1 / (number % 10)


if __name__ == "__main__":
    stages = [Stage("Invert", 2, [invert], task_attempts=1)]
    sink = CsvSink(kinds=["failed"])
    asyncio.run(Pipeline(stages, observers=[sink]).run(range(100), on_failures="ignore"))
    print(sink.counts)
    print(FILE.read_text("utf-8").splitlines()[1])
