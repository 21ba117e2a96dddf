"""Kills processes that keep a journal, at random moments, and checks what is left.

    python -m tests.journal.kills --kills 10000
    python -m tests.journal.kills --kills 1000 --journal postgres
    python -m tests.journal.kills --kills 100 --journal postgres --server

Each campaign is one pipeline over one input, run again and again with the same journal until a run
ends. A run is a forked child of this process, which has imported the library once, so that a kill
takes a few milliseconds. Tasks append a line to a file when they have done their work: what was
done survives any kill, as with a service that was paid. After each kill, the journal must have all
outcomes that it had before, as they were. In the end each item has the outcome that it has in an
unbroken run, once, and no more work was repeated than the workers had in hand.

With ``--journal postgres`` the journal is in a database of a server of its own. With ``--server``
that is killed, and started again, while a run goes on: then no work is repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antflow import Drop, Pipeline, Stage
from antflow.journal import Durability, Journal, remote, store, writer
from antflow.journal.file import JournalConnection, connect_again
from antflow.journal.json_codec import JsonCodec
from tests.postgres_server import PostgresServer, postgres_server, rows_of

ITEMS = 60
LONGEST = 20.0
"""Seconds that a child takes at most."""

POINTS = ("before BEGIN", "after BEGIN", "between rows", "before COMMIT", "after COMMIT")
"""Where the writer can be killed, besides anywhere."""

SHAPES = (
    "three stages",
    "batches",
    "children",
    "retries",
    "fed in the middle",
    "ordered stream",
)
Values = tuple[int, ...]


class Effects:
    """A file to which each task appends what it has done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, stage: str, value: Values) -> None:
        """Note that a stage has done its work for a value."""
        os.write(self._descriptor, f"{stage} {'/'.join(map(str, value))}\n".encode())

    def counted(self) -> Counter[str]:
        """What was done → how often."""
        return Counter(self.path.read_text().splitlines())


@dataclass
class Shape:
    """A pipeline, and what must come of its items.

    Args:
        name: One of `SHAPES`.
        effects: Where its tasks note what they have done.
        seconds: How long a task takes.
    """

    name: str
    effects: Effects
    seconds: float
    tries: Counter[Values] = field(default_factory=Counter[Values])

    def stages(self) -> list[Stage]:
        """The stages."""
        first = Stage("A", 3, [self._work("A")], skip_if=lambda value: value[0] % 9 == 8)
        middle = Stage("B", 3, [self._work("B", drops=5)], queue_capacity=2)
        last = Stage("C", 2, [self._work("C", fails=7)], task_attempts=2, task_wait_seconds=0.0)
        if self.name == "batches":
            middle = Stage("B", 2, [self._batch], batch=4, batch_wait=0.002)
        elif self.name in ("children", "ordered stream"):
            middle = Stage("B", 2, [self._split], expand=True)
        elif self.name == "retries":
            middle = Stage("B", 3, [self._sometimes], task_attempts=3, task_wait_seconds=0.001)
        return [first, middle, last]

    async def run(self, journal: Journal) -> None:
        """Run it."""
        pipeline = Pipeline(self.stages())
        items: list[Values] = [(number,) for number in range(ITEMS)]
        if self.name == "ordered stream":
            async with aclosing(pipeline.stream(items, ordered=True, journal=journal)) as results:
                places = [result.value async for result in results if result.error is None]
            assert places == sorted(places), "in order"
        elif self.name == "fed in the middle":
            async with pipeline.open(journal=journal) as run:
                for number, item in enumerate(items):
                    stage = "B" if number % 3 == 2 else "A"
                    await run.feed([item], target_stage=stage, priority=number % 4)
        else:
            await pipeline.run(items, journal=journal, on_failures="ignore")

    def outcomes(self) -> dict[Values, str]:
        """What must become of each item."""
        outcomes: dict[Values, str] = {}
        for number in range(ITEMS):
            value = (number,)
            made: list[Values] = [value]
            if self.name in ("children", "ordered stream"):
                made = [(number, child) for child in range(number % 4)]
                outcomes[value] = "expanded"
            elif number % 5 == 4 and self.name in ("three stages", "fed in the middle"):
                outcomes[value], made = "dropped", []
            for each in made:
                outcomes[each] = "failed" if sum(each) % 7 == 6 else "completed"
        return outcomes

    def most_in_hand(self) -> int:
        """How many items the workers have in hand at most."""
        return sum(stage.workers * (stage.batch or 1) for stage in self.stages())

    def _work(self, stage: str, drops: int = 0, fails: int = 0) -> Callable[[Values], Any]:
        if self.name not in ("three stages", "fed in the middle"):
            drops = 0

        async def work(value: Values) -> Any:
            await asyncio.sleep(self.seconds)
            if fails and sum(value) % fails == fails - 1:
                raise ValueError(f"no {value}")
            self.effects.note(stage, value)
            return Drop if drops and value[0] % drops == drops - 1 else value

        return work

    async def _batch(self, values: Sequence[Values]) -> list[Values]:
        await asyncio.sleep(self.seconds)
        for value in values:
            self.effects.note("B", value)
        return list(values)

    async def _split(self, value: Values) -> AsyncIterator[Values]:
        for number in range(value[0] % 4):
            await asyncio.sleep(self.seconds / 2)
            yield (*value, number)
        self.effects.note("B", value)

    async def _sometimes(self, value: Values) -> Values:
        await asyncio.sleep(self.seconds)
        self.tries[value] += 1
        if self.tries[value] <= value[0] % 3:
            raise ConnectionError("try again")
        self.effects.note("B", value)
        return value


# Killing


def kill_at(point: str, number: int) -> None:
    """Have this process killed when its writer comes to a point for the n-th time."""
    left = number

    def come_to(here: str) -> None:
        nonlocal left
        if here == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    class Deadly(JournalConnection):
        def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
            verb = statement.split()[0]
            come_to(f"before {verb}")
            cursor = super().execute(statement, *args)
            come_to(f"after {verb}")
            return cursor

        def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
            def each() -> Any:
                for index, row in enumerate(rows):
                    if index:
                        come_to("between rows")
                    yield row

            cursor = super().executemany(statement, each())
            come_to("between rows")
            return cursor

    def connect(*args: Any) -> JournalConnection:
        connection = connect_again(*args)
        connection.__class__ = Deadly
        return connection

    setattr(store, "connect_again", connect)  # noqa: B010


class Campaign:
    """One pipeline over one input, killed until a run of it ends.

    Args:
        seed: What it is drawn from.
        folder: Where its files are.
        journal: Where its journal is, if not in a file.
    """

    def __init__(self, seed: int, folder: Path, journal: str | None = None) -> None:
        choose = random.Random(seed)
        self.seed = seed
        self._random = choose
        self._path: Any = folder / "run.db" if journal is None else journal
        self._max_unflushed = choose.choice([0, 0, 0, 20])
        durabilities: list[Durability] = ["process", "process", "power"]
        self._durability = choose.choice(durabilities)
        self._effects = Effects(folder / "effects")
        self._shape = Shape(SHAPES[seed % len(SHAPES)], self._effects, choose.choice([0.0, 0.002]))
        self._outcomes: dict[Any, Any] = {}
        self.kills = 0
        self.redone = 0

    def run(self) -> None:
        """Kill it until it ends, and check what is left.

        Raises:
            AssertionError: Something was lost, or done too often.
        """
        while not self._survives():
            self.kills += 1
            self._check_outcomes()
        self._check_outcomes()
        self._judge()

    def _survives(self) -> bool:
        is_file = isinstance(self._path, Path)
        point = self._random.choice([*POINTS, *[None] * 5]) if is_file else None
        number = self._random.randint(1, 25)
        child = os.fork()
        if not child:
            self._be_the_child(point, number)
        if point is None:
            time.sleep(self._random.uniform(0.005, 0.05 if is_file else 0.15))
            if self._random.random() < 0.97:  # else it may end
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False
        assert os.waitstatus_to_exitcode(status) == 0, "the run failed"
        return True

    def _be_the_child(self, point: str | None, number: int) -> None:
        code = 1
        try:
            signal.alarm(int(LONGEST))
            logging.disable()
            if point is not None:
                kill_at(point, number)
            journal = Journal(
                self._path, max_unflushed=self._max_unflushed, durability=self._durability
            )
            asyncio.run(self._shape.run(journal))
            code = 0
        except BaseException:  # why: the child must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        if isinstance(self._path, str):
            return self._rows_of_server(query)
        if not self._path.exists() or Path(f"{self._path}-journal").exists():
            return []  # it was killed as it made the file
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                return []
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def _rows_of_server(self, query: str) -> list[tuple[Any, ...]]:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
        names = f"{tables} AND tablename = 'outcomes'"
        if rows_of(self._path, names) == [(0,)]:
            return []
        return rows_of(self._path, query)

    def _check_outcomes(self) -> None:
        """The outcomes that were there before are still there, as they were."""
        outcomes = {row[0]: row[1:] for row in self._rows("SELECT * FROM outcomes")}
        for item, row in self._outcomes.items():
            assert outcomes.get(item) == row, f"the outcome of item {item} was lost or made again"
        self._outcomes = outcomes

    def _judge(self) -> None:
        codec = JsonCodec()
        found: list[tuple[Values, str]] = []
        for given, branch, outcome in self._rows(
            "SELECT coalesce(root.input, items.input), items.branch, outcome FROM items "
            "LEFT JOIN outcomes USING (item) LEFT JOIN items AS root ON root.item = items.root"
        ):
            made = tuple(map(int, branch.split("/"))) if branch else ()
            found.append(((*codec.decode(given.encode()), *made), outcome))
        assert len(found) == len(dict(found)), "an item is there twice"
        assert dict(found) == self._shape.outcomes()
        assert len(self._outcomes) == len(found), "an outcome is of no item"
        self.redone = sum(count - 1 for count in self._effects.counted().values())
        most = self._shape.most_in_hand() + self._max_unflushed
        assert self.redone <= self.kills * most, f"{self.redone} redone after {self.kills} kills"


class ServerCampaign(Campaign):
    """One run, whose server is killed again and again until the run ends.

    Args:
        seed: What it is drawn from.
        folder: Where its files are.
        server: The server.
        most: How often it is killed at most.
    """

    def __init__(self, seed: int, folder: Path, server: PostgresServer, most: int) -> None:
        super().__init__(seed, folder, server.schema())
        self._server = server
        self._most = most
        self._shape.seconds = 0.01

    def run(self) -> None:
        """Kill the server until the run ends, and check what is left."""
        journal = Journal(
            self._path, max_unflushed=self._max_unflushed, durability=self._durability
        )
        done: list[Any] = []

        def main() -> None:
            done.append(asyncio.run(self._shape.run(journal)))

        running = threading.Thread(target=main, daemon=True)
        running.start()
        while not self._effects.path.stat().st_size:
            time.sleep(0.01)  # it must be there when the journal is opened
        while running.is_alive() and self.kills < self._most:
            time.sleep(self._random.uniform(0.0, 0.2))
            self._server.stop(self._random.choice([signal.SIGQUIT, signal.SIGKILL]))
            time.sleep(self._random.uniform(0.0, 0.05))
            self._server.start()
            self.kills += 1
            self._check_outcomes()
        running.join(LONGEST)
        assert done, "the run failed"
        self._check_outcomes()
        self._judge()
        assert self.redone == 0


def campaigns(
    kills: int, seed: int = 0, server: PostgresServer | None = None, *, kills_server: bool = False
) -> Counter[str]:
    """Run campaigns until there were this many kills; return what happened."""
    total: Counter[str] = Counter()
    while total["kills"] < kills:
        folder = Path(tempfile.mkdtemp(prefix="antflow-kills-"))
        if server is None:
            campaign = Campaign(seed, folder)
        elif kills_server:
            campaign = ServerCampaign(seed, folder, server, kills - total["kills"])
        else:
            campaign = Campaign(seed, folder, server.schema())
        try:
            campaign.run()
        except BaseException:
            sys.stderr.write(f"campaign {seed}, after {campaign.kills} kills: see {folder}\n")
            raise
        shutil.rmtree(folder)
        total += Counter(campaigns=1, kills=campaign.kills, redone=campaign.redone)
        seed += 1
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", choices=["file", "postgres"], default="file")
    parser.add_argument("--server", action="store_true", help="kill the server")
    options = parser.parse_args()
    began = time.monotonic()
    if options.journal == "file":
        total = campaigns(options.kills, options.seed)
    else:
        # A server that is killed must have its files in order: it writes them to the disk.
        with postgres_server(["fsync=on"] if options.server else ["fsync=off"]) as server:
            if options.server:
                logging.disable()
                for module in (writer, remote):
                    setattr(module, "FIRST_PAUSE", 0.05)  # noqa: B010
                    setattr(module, "LONGEST_PAUSE", 0.2)  # noqa: B010
            began = time.monotonic()
            total = campaigns(options.kills, options.seed, server, kills_server=options.server)
    per_second = total["kills"] / (time.monotonic() - began)
    counts = (f"{count:,} {what}, " for what, count in total.items())
    sys.stdout.write("".join(counts) + f"{per_second:.1f} kills/s\n")


if __name__ == "__main__":
    main()
