"""A provider's batch job: submitted once, although the run that polls it is cut off.

python examples/provider_batch.py

The id of the job is kept as a checkpoint before it is polled. The next try of the item, and the
next run with the same journal, poll the job that is there.
"""

import asyncio
import tempfile
from pathlib import Path

from antflow import Pipeline, Stage, current_item


class Provider:
    """Jobs that take half a second. It remembers them by their idempotency key."""

    def __init__(self) -> None:
        self.jobs: dict[str, float] = {}

    async def submit(self, texts: list[str], key: str) -> str:
        await asyncio.sleep(0.01)
        self.jobs.setdefault(key, asyncio.get_running_loop().time())
        print(f"submitted {len(texts)} texts")
        return key

    async def is_done(self, job: str) -> bool:
        return asyncio.get_running_loop().time() - self.jobs[job] > 0.5


provider = Provider()


async def ask(texts: list[str]) -> str:
    item = current_item()
    job = item.checkpointed
    if job is None:
        job = await provider.submit(texts, item.idempotency_key)
        await item.checkpoint(job)
    else:
        print("polls the job that was submitted before")
    while not await provider.is_done(job):
        await asyncio.sleep(0.05)
    return f"answers to {len(texts)} texts"


async def main() -> None:
    pipeline = Pipeline([Stage("Ask", 2, [ask])])
    items = [{"id": "monday", "value": ["a", "b"]}, {"id": "tuesday", "value": ["c"]}]
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "run.db")
        try:
            await pipeline.run(items, journal=journal, timeout=0.2)
        except TimeoutError as error:
            print(f"cut off: {error}")
        results = await pipeline.run(items, journal=journal)
    print(f"{results.values()}, {len(provider.jobs)} jobs")


if __name__ == "__main__":
    asyncio.run(main())
