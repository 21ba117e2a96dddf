"""Journals that earlier versions wrote can be read, and runs go on with them.

One for each format is kept in the folder ``old``: the journal of `run`, after its first run.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, RunResults, Stage
from antflow.journal import Journal

FOLDER = Path(__file__).parent / "old"
ITEMS = [{"id": f"order-{n}", "value": n} for n in range(6)]


async def split(number: int) -> list[int]:
    if number == 3:
        raise ValueError("no 3")
    return [10 * number, 10 * number + 1]


async def keep(number: int) -> Any:
    return Drop if number == 21 else {"number": number}


def run(path: Path, **options: Any) -> RunResults[Any]:
    stages = [Stage("Split", 2, [split], expand=True, task_attempts=1), Stage("Keep", 2, [keep])]
    pipeline = Pipeline[Any, Any](stages)
    return asyncio.run(pipeline.run(ITEMS, journal=path, on_failures="ignore", **options))


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.db")))
def test_journal_of_an_earlier_version_is_read_and_goes_on(name: str, tmp_path: Path) -> None:
    """Its results and failures are there, and nothing that was done is done again."""
    path = Path(shutil.copy(FOLDER / name, tmp_path))
    with Journal.open(path) as kept:
        assert len(list(kept.results())) == 9
        assert [failed.id for failed in kept.failed()] == ["order-3"]
    results = run(path)
    assert results.resumed == results.stats.items_accepted + results.stats.items_children
    numbers = [result["number"] for result in results.values()]
    assert sorted(numbers) == [0, 1, 10, 11, 20, 40, 41, 50, 51]
    assert (results.stats.items_dropped, len(results.failed)) == (1, 1)


def test_there_is_a_journal_of_each_format() -> None:
    """A new format needs a file of its own, and the old ones stay."""
    from antflow.journal.file import FORMAT

    assert {path.name for path in FOLDER.glob("*.db")} == {
        f"format-{number}.db" for number in range(1, FORMAT + 1)
    }
