"""Events as log records: a line of text for people, and a line of JSON for a log collector.

python examples/events_to_logging.py
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

from antflow import Pipeline, Stage
from antflow.sinks import LoggingSink

FILE = Path("events.log")


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname, "message": record.getMessage()}
        return json.dumps({**fields, **getattr(record, "antflow", {})})


async def fetch(number: int) -> int:
    await asyncio.sleep(0.01)
    if number == 7:
        raise TimeoutError("no answer")
    return number


if __name__ == "__main__":
    people = logging.StreamHandler(sys.stdout)
    people.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    people.setLevel(logging.WARNING)
    machines = logging.FileHandler(FILE, mode="w", encoding="utf-8")
    machines.setFormatter(Json())
    logging.basicConfig(level=logging.INFO, handlers=[people, machines])

    stages = [Stage("Fetch", 3, [fetch], task_attempts=2, task_wait_seconds=0.1)]
    asyncio.run(Pipeline(stages, observers=[LoggingSink()]).run(range(20), on_failures="ignore"))

    records = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    events = [each for each in records if "kind" in each]
    print(len(events), "events, the last one:", events[-1]["message"])
