"""Settled items of which a run wants only the number: they are counted many at a time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, RunResults, Stage, StatusTracker
from antflow.exceptions import DuplicateItemError, JournalCorruptError, JournalInputMismatch
from antflow.journal import Journal
from antflow.journal.settled import Settled
from antflow.testing import run_virtual
from tests.journal.crashing import rows_of, write_to
from tests.journal.test_resuming import Calls

MANY = 300


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def stages(calls: Calls) -> list[Stage]:
    """Stages in which items end in all ways."""

    def put(number: int) -> Any:
        if number % 70 == 3:
            raise ValueError(number)
        return Drop if number % 50 == 5 else number

    return [
        Stage("Get", 8, [calls.task("Get", lambda item: item["n"])]),
        Stage(
            "Split",
            8,
            [calls.task("Split", lambda n: [n] * 2)],
            expand=True,
            skip_if=lambda n: n % 40 != 7,
        ),
        Stage("Put", 8, [calls.task("Put", put)], task_attempts=1),
    ]


def simple(calls: Calls) -> list[Stage]:
    """Stages which all items complete."""
    return [Stage("Get", 30, [calls.task("Get")]), Stage("Put", 30, [calls.task("Put")])]


def run(stages: Sequence[Stage], items: Any, journal: Any, **options: Any) -> RunResults[Any]:
    """A run that keeps no results."""
    options = {"collect_results": False, **options}
    key = options.pop("key", None)

    async def main() -> Any:
        pipeline = Pipeline[Any, Any](stages, **options)
        return await pipeline.run(items, journal=journal, key=key, on_failures="ignore")

    return run_virtual(main)


def told(results: RunResults[Any]) -> tuple[Any, ...]:
    """All that a run counts."""
    stats, errors = results.stats, results.summary.errors_by_type
    return (
        (stats.items_accepted, stats.items_processed, stats.items_failed, stats.items_dropped),
        (stats.items_expanded, stats.items_children, stats.items_in_flight, errors),
        (results.resumed, results.changed),
    )


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"i{number}", "n": number, **more}


ITEMS = [item(number) for number in range(MANY)]
ORDERS: dict[str, list[Any]] = {
    "the same": ITEMS,
    "reversed": ITEMS[::-1],
    "shuffled": random.Random(1).sample(ITEMS, MANY),
    "some left out": ITEMS[:50] + ITEMS[80:90] + ITEMS[200:],
    "new ones between": [each for n in range(MANY) for each in (item(n), item(n + 1000))],
    "new ones at the end": [*ITEMS, *map(item, range(1000, 1100))],
    "some changed": [item(n, more=1) if n % 9 == 4 else item(n) for n in range(MANY)],
    "other order of keys": [{"n": n, "id": f"i{n}"} for n in range(MANY)],
    "some without ids": [item(n) if n % 2 else {"id": None, "n": n} for n in range(MANY)],
    "given twice": [*ITEMS, *ITEMS[50:70], item(3)],
    "some ids of another class": [item(n) if n % 60 else {"id": (n,), "n": n} for n in range(MANY)],
}


@pytest.mark.parametrize("duplicates", ["number", "skip"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_is_counted_is_what_a_run_with_results_counts(
    order: str, duplicates: str, tmp_path: Path
) -> None:
    """The same items are run again, and all counts are equal, in whatever order items come."""
    seen: list[Any] = []
    for collects in (True, False):
        journal, calls = tmp_path / f"{collects}.db", Calls()
        options = {"collect_results": collects, "duplicates": duplicates}
        steps: list[Any] = []
        for items in (ITEMS, ORDERS[order], ORDERS[order]):
            results = run(stages(calls), items, journal, **options)
            steps.append((told(results), sorted(calls.new(), key=repr)))
        seen.append(steps)
        assert all(steps[0][0][0])  # items ended in each way
    assert seen[0] == seen[1]


@pytest.mark.parametrize("ids", ["ints", "strs", "none", "tagged", "not ascii"])
def test_settled_items_are_counted_whatever_their_ids(ids: str, journal: Path) -> None:
    """Ints, strs, and items that are known by their content; and it is really counting."""
    key: Any = {
        "ints": lambda n: n,
        "strs": str,
        "none": None,
        "tagged": '{{"$x":{}}}'.format,
        "not ascii": "Zürich {}".format,
    }[ids]
    calls = Calls()
    for new, resumed in ((2 * MANY, 0), (0, MANY)):
        results = run(simple(calls), range(MANY), journal, key=key)
        assert (len(calls.new()), results.resumed) == (new, resumed)
        assert results.stats.items_processed == MANY


def test_an_id_that_was_counted_is_taken(journal: Path) -> None:
    """A later item with it is renamed, left out or refused, also where a child has its name."""
    calls = Calls()
    items = [{"id": f"a/{n}", "value": n} for n in range(2 * MANY)]  # they do not come at once
    run(simple(calls), items, journal)
    calls.new()
    again = run(simple(calls), [*items, items[5], {"id": "a/7#2", "value": 1}, items[7]], journal)
    assert [value for stage, value in calls.new() if stage == "Put"] == [5, 1, 7]
    assert again.stats.items_processed == 2 * MANY + 3
    skipping = run(simple(calls), [*items, items[5]], journal, duplicates="skip")
    assert (skipping.stats.items_processed, skipping.stats.items_skipped_duplicates) == (
        2 * MANY,
        1,
    )
    with pytest.raises(DuplicateItemError):
        run(simple(calls), [*items, items[5]], journal, duplicates="error")
    assert calls.new() == []


def test_a_key_is_asked_once_for_each_item(journal: Path) -> None:
    """Whether its item is counted, goes on, is new, or makes it raise."""
    asked: list[int] = []

    def key(number: int) -> Any:
        asked.append(number)
        if number == 1005:
            raise ValueError("no key")
        return (number,) if number == 1500 else number

    items = [*range(MANY), *range(1000, 1010), *range(1400, 1600), *range(50)]
    calls = Calls()
    for count in (len(items) - 1, 0):
        results = run(simple(calls), items, journal, key=key)
        assert asked == items
        asked.clear()
        assert (len(calls.new()), results.stats.items_failed) == (2 * count, 1)
    mixed = [each for number in range(MANY) for each in (number, number + 5000)]
    assert run(simple(calls), mixed, journal, key=key).resumed == MANY
    assert asked == mixed
    assert sorted(value for stage, value in calls.new() if stage == "Put") == mixed[1::2]
    assert {(number,) for number in mixed} <= set(rows_of(journal, "SELECT key FROM items"))


def test_a_changed_bit_in_an_outcome_that_is_only_counted_is_noticed(journal: Path) -> None:
    """Also the one that makes it the outcome of an item that has none."""
    calls = Calls()
    run(simple(calls), range(MANY), journal)
    write_to(journal, "DELETE FROM outcomes WHERE item = 256")
    for change in ("item = 256 WHERE item = 255", "attempts = 9 WHERE item = 77"):
        write_to(journal, f"UPDATE outcomes SET {change}")
        with pytest.raises(JournalCorruptError, match="a row of the table outcomes is damaged"):
            run(simple(calls), range(MANY), journal)


def test_another_input_among_many_is_noticed(journal: Path) -> None:
    """It is run again, refused or ignored, as `Journal` says."""
    calls, other = Calls(), [*range(200), 1000, *range(201, MANY)]

    def key(number: int) -> int:
        return 200 if number == 1000 else number

    run(simple(calls), range(MANY), journal, key=key)
    calls.new()
    reused = run(simple(calls), other, Journal(journal, on_input_change="reuse"), key=key)
    assert (reused.resumed, calls.new()) == (MANY, [])
    with pytest.raises(JournalInputMismatch):
        run(simple(calls), other, Journal(journal, on_input_change="error"), key=key)
    assert run(simple(calls), other, journal, key=key).changed == 1
    assert calls.new() == [("Get", 1000), ("Put", 1000)]


def test_settled_items_do_not_come_one_by_one_where_listeners_may_hold_items(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has held them, so as many are taken at once as the stage has room for."""
    calls, taken = Calls(), list[int]()
    count = Settled.count

    def noted(settled: Settled, ids: Sequence[Any], raws: Sequence[Any], stage: int) -> Any:
        taken.append(len(raws))
        return count(settled, ids, raws, stage)

    run(simple(calls), range(MANY), journal, key=int)
    monkeypatch.setattr(Settled, "count", noted)
    tracker = StatusTracker(on_status_change=lambda _: None)
    results = run(simple(calls), range(MANY), journal, key=int, status_tracker=tracker)
    assert (results.resumed, len(calls.new())) == (MANY, 2 * MANY)
    assert max(taken) >= 64


@pytest.mark.parametrize("collects", [True, False])
def test_items_made_from_a_dropped_one_are_counted_too(collects: bool, journal: Path) -> None:
    """A generator that ends in `Drop` has made some before."""

    async def split(number: int) -> AsyncIterator[int]:
        yield number
        if number % 3 == 0:
            raise Drop

    parts = [Stage("Split", 4, [split], expand=True), Stage("Put", 4, [lambda n: n])]
    for resumed in (0, 2 * MANY):
        results = run(parts, range(MANY), journal, key=int, collect_results=collects)
        counts = results.stats.items_dropped, results.stats.items_children, results.resumed
        assert counts == (MANY / 3, MANY, resumed)


def test_items_that_are_not_counted_keep_their_places_in_the_input(journal: Path) -> None:
    """Those before them that are only counted have sequence numbers too."""
    places: dict[Any, int] = {}

    def note(item_id: Any, _: Any, payload: dict[str, Any]) -> None:
        places[item_id] = payload["_sequence_id"]

    run(simple(Calls()), range(0, MANY, 7), journal, key=int)
    get, put = simple(Calls())
    run([get, replace(put, on_success=note)], range(MANY), journal, key=int)
    assert places == {number: number for number in range(MANY) if number % 7}


@pytest.mark.parametrize("order", ["the same", "shuffled"])
def test_results_that_were_left_out_are_counted_as_such(order: str, tmp_path: Path) -> None:
    """Their number is told, whether a run keeps results or only counts them."""
    seen: list[tuple[int, int]] = []
    for collects in (True, False):
        calls, journal = Calls(), Journal(tmp_path / f"{collects}.db", max_result=20)
        parts = [Stage("Put", 8, [calls.task("Put", lambda item: "x" * (item["n"] % 40))])]
        run(parts, ITEMS, journal)
        assert calls.new()
        again = run(parts, ORDERS[order], journal, collect_results=collects)
        assert calls.new() == []
        seen.append((again.omitted, again.resumed))
    assert seen[0] == seen[1] == (sum(n % 40 > 18 for n in range(MANY)), MANY)
