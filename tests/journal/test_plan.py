"""`Pipeline.plan`: what a run with a journal would do, before it costs anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.exceptions import DuplicateItemError, JournalOpenError
from antflow.journal import Journal, Plan
from antflow.testing import run_virtual
from tests.journal.crashing import rows_of

broken: set[int] = set()


async def get(number: int) -> int:
    await asyncio.sleep(2)
    return number


async def put(number: int) -> int:
    await asyncio.sleep(6)
    if number in broken:
        raise ValueError(f"no {number}")
    return number * 10


def pipeline(version: Any = None, **options: Any) -> Pipeline[Any, Any]:
    stages = [
        Stage("Get", 2, [get], task_attempts=1),
        Stage("Put", 4, [put], task_attempts=1, version=version),
    ]
    return Pipeline(stages, **options)


def made(*numbers: int) -> list[dict[str, int]]:
    return [{"id": number, "value": number} for number in numbers]


@pytest.fixture
def journal(new_journal: Callable[[], Any]) -> Any:
    """Items 0 to 3 are completed, 4 has failed in Put."""
    path = new_journal()
    broken.clear()
    broken.add(4)

    async def main() -> None:
        await pipeline().run(made(0, 1, 2, 3, 4), journal=path, on_failures="ignore")

    run_virtual(main())
    return path


def plan(pipeline: Pipeline[Any, Any], items: Any, journal: Any, **options: Any) -> Plan:
    async def main() -> Plan:
        return await pipeline.plan(items, journal, **options)

    return asyncio.run(main())


def test_a_plan_says_what_is_settled_new_and_run_again(journal: Any) -> None:
    """And why, and how long it takes; nothing is run and nothing is written."""
    rows = "SELECT * FROM items LEFT JOIN outcomes USING (item) ORDER BY items.item"
    before = rows_of(journal, rows)
    items = [*made(0, 1), {"id": 2, "value": 7}, *made(4, 5, 6)]
    found = plan(pipeline(), items, journal)
    assert found == Plan(6, {"completed": 2, "failed": 1}, 2, {}, {"another input": 1}, 8.0)
    assert str(found).splitlines() == [
        "6 items: 3 settled (2 completed, 1 failed), 3 to run",
        "  2 new",
        "  1 again: another input",
        "about 8 s, by the durations in the journal",
    ]
    found = plan(pipeline(), items, journal, retry_failed="ValueError")
    assert found.again == {"another input": 1, "failed: ValueError": 1}
    assert found.settled == {"completed": 2}
    assert plan(pipeline(), items, Journal(journal, on_input_change="reuse")).again == {}
    assert rows_of(journal, rows) == before


def test_a_changed_stage_is_named(journal: Any) -> None:
    """Items go on where the pipeline differs; what is before that is not paid for again."""
    found = plan(pipeline(version=2), made(*range(5)), journal)
    assert (found.again, found.to_run) == ({"another version of Put": 5}, 5)
    assert found.seconds == pytest.approx(5 * 6 / 4)
    get_stage, put_stage = pipeline().stages
    other = Pipeline([Stage("Fetch", 1, [get]), put_stage])
    assert plan(other, made(0), journal).seconds is None
    assert "not known yet" in str(plan(other, made(0), journal))
    more = Pipeline([get_stage, put_stage, Stage("Last", 1, [get])])
    assert plan(more, made(0, 4), journal).again == {"more stages than before": 1}


def test_items_on_their_way_go_on(new_journal: Callable[[], Any]) -> None:
    """A run that was cancelled leaves items that go on in the stage that they had reached."""
    path = new_journal()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await pipeline().run(made(0, 1, 2), journal=path)

    run_virtual(main())
    found = plan(pipeline(), made(0, 1, 2, 3), path)
    assert found.goes_on == {"Put": 2, "Get": 1}
    assert (found.new, found.settled) == (1, {})


def test_a_plan_gives_items_the_ids_that_a_run_gives_them(tmp_path: Path) -> None:
    """By content, by key, and equal ones one by one; from any source."""
    path = tmp_path / "run.db"
    run_virtual(pipeline().run([7, 7, 8], journal=path))

    async def source() -> AsyncIterator[int]:
        for number in (8, 7, 7, 7):
            yield number

    assert plan(pipeline(), source(), path).new == 1
    assert plan(pipeline(), [7, 7, 8], path).to_run == 0
    keyed = tmp_path / "keyed.db"
    rows = [{"url": "a"}, {"url": "b"}]

    async def length(row: dict[str, str]) -> int:
        return len(row)

    by_url = Pipeline([Stage("Get", 1, [length])], duplicates="error", journal=keyed)
    run_virtual(by_url.run(rows, key="url"))
    assert plan(by_url, [*rows, {"url": "c"}], None, key="url").new == 1
    with pytest.raises(DuplicateItemError):
        plan(by_url, [*rows, *rows], None, key="url")


def test_a_plan_without_a_journal(tmp_path: Path) -> None:
    """One that does not exist knows nothing, and is not made; none at all is refused."""
    path = tmp_path / "none.db"
    assert plan(pipeline(), [1, 2], path) == Plan(2, {}, 2, {}, {}, None)
    assert not os.listdir(tmp_path)
    with pytest.raises(ValueError, match="must be a journal"):
        plan(pipeline(), [1], None)
    (tmp_path / "text").write_text("not a journal, whatever it is" * 99)
    with pytest.raises(JournalOpenError):
        plan(pipeline(), [1], tmp_path / "text")


def test_an_item_that_comes_late_is_not_taken_for_an_equal_one(tmp_path: Path) -> None:
    """Also in a stream, where equal ids are forgotten once their item has left."""
    calls: list[int] = []

    async def note(number: int) -> int:
        calls.append(number)
        return number

    async def main() -> list[Any]:
        numbers = Pipeline([Stage("Note", 1, [note], queue_capacity=1)])
        return [
            each.id
            async for each in numbers.stream([5, *range(90, 190), 5], journal=tmp_path / "j")
        ]

    ids = asyncio.run(main())
    assert len({*ids}) == 102 == len(calls)
    assert len({*asyncio.run(main())} & {*ids}) == 102 == len(calls)
