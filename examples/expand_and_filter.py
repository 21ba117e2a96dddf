"""From folders to files to lines: one item becomes many, and most of them are dropped.

python examples/expand_and_filter.py

It looks for the notes TODO and XXX in some packages of Python's standard library.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from antflow import Drop, Pipeline, Stage

LIBRARY = Path(json.__file__).parents[1]


class Line(NamedTuple):
    path: Path
    number: int
    text: str


def files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.py"))  # a generator: files go on as they are found


def lines(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            yield Line(path, number, text.strip())


def keep_marked(line: Line) -> Line | type[Drop]:
    return line if "TODO" in line.text or "XXX" in line.text else Drop


async def main() -> None:
    pipeline = Pipeline(
        [
            Stage("Find", workers=1, tasks=[files], expand=True),
            Stage("Read", workers=4, tasks=[lines], expand=True),
            # So little work that a thread would cost more: run it on the event loop.
            Stage("Filter", workers=1, tasks=[keep_marked], executor="inline"),
        ]
    )
    folders = [LIBRARY / name for name in ("asyncio", "email", "json", "logging")]
    async with aclosing(pipeline.stream(folders, ordered=True)) as results:
        async for result in results:  # in the order of folders, files and lines
            line = result.value
            print(f"{result.id}: {line.path.name}:{line.number} {line.text[:60]}")

    stats = pipeline.get_stats()
    print(f"{stats.items_expanded} folders and files, {stats.items_dropped} lines dropped")
    print(f"{stats.items_processed} lines left")


if __name__ == "__main__":
    asyncio.run(main())
