"""A sink of your own: every step of every item as a line of a file, written by its own task.

python examples/steps_to_jsonl.py
"""

import asyncio
import json
from collections import Counter
from pathlib import Path

from antflow import ItemStep, Observer, Pipeline, RunEnd, RunFacts, Stage


class StepsToFile(Observer):
    path = Path("steps.jsonl")

    def opened(self, run: RunFacts) -> None:
        self.steps: asyncio.Queue[ItemStep | None] = asyncio.Queue(10_000)
        self.writer = asyncio.get_running_loop().create_task(self.write())

    def happened(self, step: ItemStep) -> None:
        self.steps.put_nowait(step)  # if full: logged once, and the step is dropped

    async def closed(self, end: RunEnd) -> None:
        await self.steps.put(None)
        await self.writer

    async def write(self) -> None:
        with self.path.open("w") as file:
            while (step := await self.steps.get()) is not None:
                line = {"kind": step.kind, "item": step.item_id, "at": step.timestamp}
                print(json.dumps(line), file=file)


if __name__ == "__main__":
    divide = Stage("Divide", 2, [lambda n: 1 / n], task_attempts=1)
    pipeline = Pipeline([divide], observers=[StepsToFile()])
    asyncio.run(pipeline.run(range(100), on_failures="ignore"))
    lines = StepsToFile.path.read_text().splitlines()
    print(Counter(json.loads(line)["kind"] for line in lines))
