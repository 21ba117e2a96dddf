"""Other kinds of tasks and items, each compared with a careful version written by hand: W12."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import hand
from benchmarks.sample import Sample, Stopwatch, check, check_values
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Round, Workload, times_faster

PROCESSES = 2
ROWS = 50
CHILDREN = 10
LATE = 60.0
"""A timeout in seconds that nothing reaches."""

Run = Callable[[int], Awaitable[list[int]]]


def measuring(run: Run, expected: Callable[[int], list[int]] = lambda n: list(range(n))) -> Measure:
    """Measure a run of the numbers below ``items``; its results may have any order."""

    async def measure(items: int) -> Sample:
        await run(min(items, 300))
        with Stopwatch() as watch:
            values = await run(items)
        check("results", sorted(values), expected(items))
        return watch.sample(items)

    return measure


# -- plain functions --------------------------------------------------------------------------


def plain(value: int) -> int:
    """Do nothing; for threads."""
    return value


def burn(value: int) -> int:
    """Work for a millisecond of processor time."""
    until = time.thread_time() + 0.001
    while time.thread_time() < until:
        pass
    return value


async def threads(items: int) -> list[int]:
    """A stage with a plain function."""
    from antflow import Pipeline, Stage

    return (await Pipeline([Stage("Call", WORKERS, [plain])]).run(range(items))).values()


async def processes(items: int) -> list[int]:
    """A stage with a plain function, in child processes."""
    from antflow import Pipeline, Stage

    stage = Stage("Call", PROCESSES, [burn], executor="process")
    return (await Pipeline([stage]).run(range(items))).values()


async def threads_by_hand(items: int) -> list[int]:
    """Workers that share an iterator, and a pool with one thread per worker."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return await _in_pool(pool, plain, items, WORKERS)


async def processes_by_hand(items: int) -> list[int]:
    """The same with processes. As in ours, they are not forked: threads and forks do not mix."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        return await _in_pool(pool, burn, items, PROCESSES)


async def _in_pool(
    pool: Executor, function: Callable[[int], int], items: int, workers: int
) -> list[int]:
    loop = asyncio.get_running_loop()

    async def call(value: int) -> int:
        return await loop.run_in_executor(pool, function, value)

    return await hand.iterator_map(call, range(items), workers)


# -- batches into SQLite ----------------------------------------------------------------------


class Table:
    """A table on disk, written by one thread at a time."""

    def __init__(self, folder: str) -> None:
        self.connection = sqlite3.connect(Path(folder) / "rows.db", check_same_thread=False)
        self.connection.execute("CREATE TABLE rows (number INTEGER)")

    def insert(self, rows: list[int]) -> list[int]:
        """Insert rows in one transaction, and return them."""
        with self.connection:
            self.connection.executemany("INSERT INTO rows VALUES (?)", [(row,) for row in rows])
        return rows

    def close(self, items: int) -> None:
        """Close the table; reject it unless it has each row once."""
        check_values((row for (row,) in self.connection.execute("SELECT number FROM rows")), items)
        self.connection.close()


async def batches(items: int) -> list[int]:
    """A stage with ``batch``."""
    from antflow import Pipeline, Stage

    with TemporaryDirectory() as folder:
        table = Table(folder)
        stages = [
            Stage("Read", WORKERS, [no_op]),
            Stage("Write", 1, [table.insert], batch=ROWS, batch_wait=1.0),
        ]
        values = (await Pipeline(stages).run(range(items))).values()
        table.close(items)
    return values


async def batches_by_hand(items: int) -> list[int]:
    """A queue whose items are passed to a thread, fifty at a time."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        table = Table(folder)
        loop = asyncio.get_running_loop()
        rows: asyncio.Queue[int | None] = asyncio.Queue(WORKERS * hand.CAPACITY)
        written: list[int] = []

        async def write() -> None:
            batch: list[int] = []
            while (row := await rows.get()) is not None:
                batch.append(row)
                if len(batch) == ROWS:
                    written.extend(await loop.run_in_executor(thread, table.insert, batch))
                    batch = []
            if batch:
                written.extend(await loop.run_in_executor(thread, table.insert, batch))

        async def read(value: int) -> int:
            value = await no_op(value)
            await rows.put(value)
            return value

        writing = asyncio.create_task(write())
        await hand.queue_pool(range(items), [read], WORKERS)
        await rows.put(None)
        await writing
        table.close(items)
    return written


# -- ids, expansion, timeouts -----------------------------------------------------------------


async def ids(items: int) -> list[int]:
    """Items that bring their ids, through three stages."""
    from antflow import Pipeline, Stage

    pipeline = Pipeline([Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
    results = await pipeline.run({"id": f"item-{n}", "value": n} for n in range(items))
    check("last id", results[-1].id, f"item-{items - 1}")
    return results.values()


async def ids_by_hand(items: int) -> list[int]:
    """Pairs of id and value in the queues; repeated ids are refused."""
    seen: set[str] = set()
    results: dict[str, int] = {}

    async def keyed(pair: tuple[str, int]) -> tuple[str, int]:
        return pair[0], await no_op(pair[1])

    async def last(pair: tuple[str, int]) -> tuple[str, int]:
        item_id, value = await keyed(pair)
        results[item_id] = value
        return item_id, value

    def source() -> Iterator[Any]:
        for number in range(items):
            item = {"id": f"item-{number}", "value": number}
            item_id = str(item["id"])
            if item_id in seen:
                raise ValueError(item_id)
            seen.add(item_id)
            yield item_id, item["value"]

    tasks: list[Any] = [*[keyed] * (STAGES - 1), last]
    await hand.queue_pool(source(), tasks, WORKERS)
    return [results[f"item-{number}"] for number in range(items)]


async def expand(items: int) -> list[int]:
    """Each item becomes ten, which go through another stage."""
    from antflow import Pipeline, Stage

    async def ten(value: int) -> list[int]:
        return [value * CHILDREN + n for n in range(CHILDREN)]

    stages = [Stage("Split", WORKERS, [ten], expand=True), Stage("Use", WORKERS, [no_op])]
    return (await Pipeline(stages).run(range(items))).values()


async def expand_by_hand(items: int) -> list[int]:
    """Workers that put ten items into the next queue."""
    results: list[int] = []
    children: asyncio.Queue[int] = asyncio.Queue(WORKERS * hand.CAPACITY)

    async def ten(value: int) -> int:
        for child in [value * CHILDREN + n for n in range(CHILDREN)]:
            await children.put(child)
        return value

    async def use() -> None:
        while True:
            results.append(await no_op(await children.get()))
            children.task_done()

    async with hand.at_work(lambda _: use(), 1, WORKERS):
        await hand.queue_pool(range(items), [ten], WORKERS)
        await children.join()
    return results


def all_children(items: int) -> list[int]:
    """The results of `expand`."""
    return list(range(items * CHILDREN))


async def timeout(items: int) -> list[int]:
    """A timeout for each try of each task."""
    from antflow import Pipeline, Stage

    stages = [Stage(f"S{n}", WORKERS, [no_op], timeout=LATE) for n in range(STAGES)]
    return (await Pipeline(stages).run(range(items))).values()


async def timeout_by_hand(items: int) -> list[int]:
    """`asyncio.timeout` around each task."""

    async def limited(value: int) -> int:
        async with asyncio.timeout(LATE):
            return await no_op(value)

    return await hand.queue_pool(range(items), [limited] * STAGES, WORKERS)


async def item_timeout(items: int) -> list[int]:
    """A timeout for each item, over all stages."""
    from antflow import Pipeline, Stage

    pipeline = Pipeline([Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
    return (await pipeline.run(range(items), item_timeout=LATE)).values()


async def item_timeout_by_hand(items: int) -> list[int]:
    """Pairs of deadline and value in the queues, and `asyncio.timeout_at` around each task."""
    clock = asyncio.get_running_loop().time

    async def limited(pair: tuple[float, int]) -> tuple[float, int]:
        async with asyncio.timeout_at(pair[0]):
            return pair[0], await no_op(pair[1])

    source: Any = ((clock() + LATE, number) for number in range(items))
    tasks: list[Any] = [limited] * STAGES
    results: list[Any] = await hand.queue_pool(source, tasks, WORKERS)
    return [value for _, value in results]


def pair(
    name: str, ours: Run, by_hand: Run, share: float, **expected: Callable[[int], list[int]]
) -> dict[str, Program]:
    """Two programs that do the same work: ours, and one written by hand."""
    return {
        name: Program(measuring(ours, **expected), "ours", share),
        f"{name} by hand": Program(measuring(by_hand, **expected), "pool", share),
    }


def wall_over(name: str) -> Callable[[Round], float]:
    """How many times as long as ours the version written by hand takes."""
    return lambda samples: samples[f"{name} by hand"].wall_us / samples[name].wall_us


PAIRS = {
    **pair("threads", threads, threads_by_hand, 0.1),
    **pair("processes", processes, processes_by_hand, 0.04),
    **pair("batches", batches, batches_by_hand, 0.2),
    **pair("ids", ids, ids_by_hand, 1.0),
    **pair("expand", expand, expand_by_hand, 0.05, expected=all_children),
    **pair("timeout", timeout, timeout_by_hand, 0.5),
    **pair("item_timeout", item_timeout, item_timeout_by_hand, 0.5),
}

WORKLOADS = [
    Workload(
        "W12",
        "tasks and items of other kinds, beside careful versions by hand",
        100_000,
        20_000,
        PAIRS,
        [
            Figure(
                f"{name}: times the version by hand",
                times_faster(name, f"{name} by hand"),
                1.0,
                None,
            )
            for name in PAIRS
            if not name.endswith(" by hand")
        ]
        # This process's processor time does not include its children's work.
        + [Figure("processes: times the wall of that", wall_over("processes"), 0.95)],
    ),
]
