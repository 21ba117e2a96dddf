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
ROOM = WORKERS * hand.CAPACITY
"""How many rows may wait to be written."""

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

    return hand.values_of(await hand.outcome_map(call, range(items), workers))


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
            Stage("Write", 1, [table.insert], batch=ROWS, batch_wait=1.0, queue_capacity=ROOM),
        ]
        values = (await Pipeline(stages).run(range(items))).values()
        table.close(items)
    return values


async def batches_by_hand(items: int) -> list[int]:
    """A queue whose items are passed to a thread, fifty at a time."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        table = Table(folder)
        loop = asyncio.get_running_loop()
        rows: asyncio.Queue[hand.Outcome | None] = asyncio.Queue(ROOM)

        async def insert(batch: list[hand.Outcome]) -> None:
            values = [row.value for row in batch]
            try:
                answers = await loop.run_in_executor(thread, table.insert, values)
                for row, answer in zip(batch, answers, strict=True):
                    row.value = answer
            except Exception as error:
                for row in batch:
                    row.error = error

        async def write() -> None:
            batch: list[hand.Outcome] = []
            while (row := await rows.get()) is not None:
                batch.append(row)
                if len(batch) == ROWS:
                    await insert(batch)
                    batch = []
            if batch:
                await insert(batch)

        async def read(value: int) -> hand.Outcome:
            row = hand.Outcome(value, await no_op(value))
            await rows.put(row)
            return row

        writing = asyncio.create_task(write())
        read_rows = await hand.outcome_map(read, range(items), WORKERS)
        await rows.put(None)
        await writing
        table.close(items)
    return hand.values_of(hand.values_of(read_rows))


# -- ids, expansion, timeouts -----------------------------------------------------------------


async def ids(items: int) -> list[int]:
    """Items that bring their ids, through three stages."""
    from antflow import Pipeline, Stage

    pipeline = Pipeline([Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
    results = await pipeline.run({"id": f"item-{n}", "value": n} for n in range(items))
    check("last id", results[-1].id, f"item-{items - 1}")
    return results.values()


async def ids_by_hand(items: int) -> list[int]:
    """A pool with ids; repeated ones are refused."""
    seen: set[str] = set()

    def source() -> Iterator[Any]:
        for number in range(items):
            item = {"id": f"item-{number}", "value": number}
            item_id = str(item["id"])
            if item_id in seen:
                raise ValueError(item_id)
            seen.add(item_id)
            yield item_id, item["value"]

    outcomes = await hand.outcome_pool(source(), [no_op] * STAGES, WORKERS)
    check("last id", outcomes[-1].id, f"item-{items - 1}")
    return hand.values_of(outcomes)


async def expand(items: int) -> list[int]:
    """Each item becomes ten, which go through another stage."""
    from antflow import Pipeline, Stage

    async def ten(value: int) -> list[int]:
        return [value * CHILDREN + n for n in range(CHILDREN)]

    stages = [Stage("Split", WORKERS, [ten], expand=True), Stage("Use", WORKERS, [no_op])]
    return (await Pipeline(stages).run(range(items))).values()


async def expand_by_hand(items: int) -> list[int]:
    """Workers that put ten items into the next queue."""
    results: list[hand.Outcome] = []
    children: asyncio.Queue[hand.Outcome] = asyncio.Queue(WORKERS * hand.CAPACITY)

    async def ten(value: int) -> int:
        for number, child in enumerate([value * CHILDREN + n for n in range(CHILDREN)]):
            await children.put(hand.Outcome((value, number), child))
        return CHILDREN

    async def use() -> None:
        while True:
            outcome = await children.get()
            try:
                outcome.value = await no_op(outcome.value)
            except Exception as error:
                outcome.error = error
            results.append(outcome)
            children.task_done()

    async with hand.at_work(lambda _: use(), 1, WORKERS):
        await hand.outcome_map(ten, range(items), WORKERS)
        await children.join()
    results.sort(key=lambda outcome: outcome.id)
    return hand.values_of(results)


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

    source = ((number, number) for number in range(items))
    return hand.values_of(await hand.outcome_pool(source, [limited] * STAGES, WORKERS))


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

    source = ((number, (clock() + LATE, number)) for number in range(items))
    results = hand.values_of(await hand.outcome_pool(source, [limited] * STAGES, WORKERS))
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
