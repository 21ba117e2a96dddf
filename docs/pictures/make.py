"""Draw the pictures of the documentation, from a real run on a virtual clock.

python docs/pictures/make.py
"""

import asyncio
import random
from pathlib import Path
from unittest.mock import patch

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow.display.picture import svg
from antflow.testing import run_virtual

FOLDER = Path(__file__).parent
ITEMS = 400
MOMENT = 150.0
"""The second of the run at which the picture is taken."""


def shop(dice: random.Random) -> Pipeline:
    """Pictures on their way into a shop: the second stage is the slow one."""

    async def download(number: int) -> int:
        await asyncio.sleep(dice.uniform(2, 10))
        if dice.random() < 0.04:
            raise ConnectionError("connection reset by peer")
        return number

    async def resize(number: int) -> int:
        await asyncio.sleep(dice.uniform(4, 8))
        if dice.random() < 0.02:
            raise ValueError("not a picture")
        return number

    async def describe(number: int) -> int:
        await asyncio.sleep(dice.uniform(1, 25))
        if dice.random() < 0.015:
            raise TimeoutError("no answer after 30 s")
        return number

    async def publish(number: int) -> int:
        await asyncio.sleep(dice.uniform(0.5, 3))
        return number

    return Pipeline(
        [
            Stage("Download", workers=16, tasks=[download], task_attempts=2, task_wait_seconds=5),
            Stage("Resize", workers=12, tasks=[resize], task_attempts=1, queue_capacity=40),
            Stage("Describe", workers=24, tasks=[describe], task_attempts=1),
            Stage("Publish", workers=4, tasks=[publish]),
        ]
    )


async def snapshot_at(moment: float) -> DashboardSnapshot:
    """The snapshot of the run after so many seconds."""
    pipeline = shop(random.Random(1))
    running = asyncio.create_task(pipeline.run(range(ITEMS)))
    await asyncio.sleep(moment)
    snapshot = pipeline.get_dashboard_snapshot()
    await running
    return snapshot


def pictures() -> dict[str, bytes]:
    """File name → SVG. The wall clock stands still too, so every run gives the same."""
    with patch("time.time", return_value=0.0):
        snapshot = run_virtual(lambda: snapshot_at(MOMENT), seed=1)
    return {
        f"{level}.svg": svg(snapshot, level, 100, 26, title="antflow").encode()
        for level in ("compact", "detailed", "full")
    }


if __name__ == "__main__":
    for name, picture in pictures().items():
        (FOLDER / name).write_bytes(picture)
        print("drawn:", FOLDER / name)
