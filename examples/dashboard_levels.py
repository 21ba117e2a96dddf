"""The built-in dashboards, one after the other, or only the one you name.

python examples/dashboard_levels.py
python examples/dashboard_levels.py full
"""

import asyncio
import random
import sys
from typing import Any

from antflow import Pipeline, Stage

LEVELS: dict[str, dict[str, Any]] = {
    "progress": {"progress": True},
    "compact": {"dashboard": "compact"},
    "detailed": {"dashboard": "detailed"},
    "full": {"dashboard": "full"},
}


async def download(number: int) -> int:
    await asyncio.sleep(random.uniform(0.02, 0.1))
    if random.random() < 0.05:
        raise ConnectionError("the server hung up")
    return number


async def shrink(number: int) -> int:
    await asyncio.sleep(random.uniform(0.01, 0.03))
    if number % 25 == 24:
        raise ValueError("not a picture")
    return number


async def upload(number: int) -> int:
    await asyncio.sleep(random.uniform(0.01, 0.02))
    return number


async def main() -> None:
    chosen = sys.argv[1:] or list(LEVELS)
    pipeline = Pipeline(
        [
            Stage("Download", workers=20, tasks=[download], task_wait_seconds=0.1),
            Stage("Shrink", workers=4, tasks=[shrink], task_attempts=1),
            Stage("Upload", workers=4, tasks=[upload]),
        ],
        name="pictures",
    )
    for level in chosen:
        print(f"\n{level}")
        await pipeline.run(range(100), **LEVELS[level], dashboard_update_interval=0.1)


if __name__ == "__main__":
    asyncio.run(main())
