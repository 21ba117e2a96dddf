"""The tasks that the programs give to the systems; they are the same for all."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.sample import check

Task = Callable[[int], Awaitable[int]]

STAGES = 3
WORKERS = 10


async def no_op(value: int) -> int:
    """Do nothing: all that remains is the cost of the system."""
    return value


async def give_way(value: int) -> int:
    """Let the event loop turn once."""
    await asyncio.sleep(0)
    return value


class FailsOnce:
    """Tasks for the stages; on every tenth item, one of them fails the first time."""

    def __init__(self) -> None:
        self.failed: set[int] = set()

    def tasks(self) -> list[Task]:
        """One task for each stage; an item fails in one of them."""
        return [self._task(10 * stage) for stage in range(STAGES)]

    def _task(self, rest: int) -> Task:
        failed, cycle = self.failed, 10 * STAGES

        async def task(value: int) -> int:
            if value % cycle == rest and value not in failed:
                failed.add(value)
                raise ConnectionError("the first time")
            return value

        return task

    def check(self, items: int) -> None:
        """Reject a run unless every tenth item has failed."""
        check("items that failed once", len(self.failed), (items + 9) // 10)


class Sleeps:
    """Tasks that sleep, one for each stage; the durations are the same in every run.

    Attributes:
        durations: For each stage, the seconds for each item.
    """

    def __init__(self, durations: Sequence[Sequence[float]]) -> None:
        self.durations = durations

    @classmethod
    def even(cls, items: int, stages: int, mean: float, spread: float) -> Sleeps:
        """Durations evenly distributed around a mean."""
        draw = random.Random(7)
        low, high = mean * (1 - spread), mean * (1 + spread)
        return cls([[draw.uniform(low, high) for _ in range(items)] for _ in range(stages)])

    @classmethod
    def pareto(cls, items: int, stages: int, least: float, shape: float, most: float) -> Sleeps:
        """Durations mostly short, now and then very long, but never above ``most``."""
        draw = random.Random(7)
        return cls(
            [
                [min(least * draw.paretovariate(shape), most) for _ in range(items)]
                for _ in range(stages)
            ]
        )

    def tasks(self) -> list[Task]:
        """One task for each stage."""
        return [self._task(each) for each in self.durations]

    def _task(self, durations: Sequence[float]) -> Task:
        async def task(value: int) -> int:
            await asyncio.sleep(durations[value])
            return value

        return task

    def makespan(self, workers: int) -> float:
        """How many seconds the run takes if handing over takes no time.

        In each stage, a free worker takes the item that has waited longest, and any number of items
        may wait.
        """
        ready = [(0.0, item) for item in range(len(self.durations[0]))]
        for durations in self.durations:
            free = [0.0] * workers
            done: list[tuple[float, int]] = []
            for since, item in sorted(ready):
                end = max(heapq.heappop(free), since) + durations[item]
                heapq.heappush(free, end)
                done.append((end, item))
            ready = done
        return max(end for end, _ in ready)
