"""A report of a run as a page, and of the same run as Markdown, made from its log.

python examples/report.py
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from antflow import Pipeline, RetryAfter, Stage
from antflow.sinks import SqliteSink

REPORT = Path("report.html")
LOG = Path("events.sqlite")


class Shop:
    """A service that is slow at times, fails at times, and once asks for patience."""

    def __init__(self) -> None:
        self.is_tired = True

    async def fetch(self, number: int) -> int:
        await asyncio.sleep(0.02 if number % 20 else 0.1)
        if number == 150 and self.is_tired:
            self.is_tired = False
            raise RetryAfter(0.3)
        if number % 60 == 7:
            raise TimeoutError(f"no answer for {number}")
        return number


async def price(number: int) -> float:
    await asyncio.sleep(0.01)
    return 100 / (number % 50)


if __name__ == "__main__":
    stages = [
        Stage("Fetch", 8, [Shop().fetch], task_attempts=2, task_wait_seconds=0.1),
        Stage("Price", 3, [price], task_attempts=1),
    ]
    pipeline = Pipeline(stages, name="shop", observers=[SqliteSink(LOG)])
    results = asyncio.run(pipeline.run(range(300), report=REPORT, on_failures="ignore"))
    print(results)
    print(f"{REPORT}: {REPORT.stat().st_size / 1000:.0f} kB; open it in a browser")

    command = [sys.executable, "-m", "antflow", "report", str(LOG)]
    print(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
