"""Items that a journal knows: by which key, and what is used of what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from antflow import Failures, Pipeline, Stage
from antflow.exceptions import (
    DuplicateItemError,
    JournalInputMismatch,
    JournalKeyError,
    NotSerialisable,
    TooManyFailures,
)
from antflow.journal import Journal
from antflow.testing import run_virtual
from tests.journal.crashing import Crashes, rows_of, watched
from tests.journal.test_resuming import Calls, run, two_stages


def run_as(options: dict[str, Any], calls: Calls, items: list[Any], journal: Any) -> Any:
    """Run two stages in a pipeline with these options; return what came of the items."""

    async def main() -> Any:
        pipeline = Pipeline[Any, Any](two_stages(calls), **options)
        return await pipeline.run(items, journal=journal, on_failures="ignore")

    return asyncio.run(main())


# Keys


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("duplicates", ["number", "skip", "error"])
def test_equal_items_without_ids_are_never_duplicates(
    duplicates: str, collects: bool, journal: Any
) -> None:
    """Each of them is run, even after an equal one has left; the next run knows them all."""
    calls, options = Calls(), {"duplicates": duplicates, "collect_results": collects}
    items = [1, 1, 2, *range(10, 200), 1]
    stats = run_as(options, calls, items, journal).stats
    assert (stats.items_processed, len(calls.new())) == (194, 2 * 194)
    stats = run_as(options, calls, [*items, 1], journal).stats
    assert (stats.items_processed, calls.new()) == (195, [("Get", 1), ("Put", 2)])


@pytest.mark.parametrize("collects", [True, False])
def test_duplicates_with_keys_are_treated_alike_in_every_run(collects: bool, journal: Any) -> None:
    """Numbered ones are known by their numbers; the others are left out or refused each time."""
    calls, repeated = Calls(), {"id": "a", "value": 1}
    items: list[Any] = [repeated, {"id": "b", "value": 2}, repeated]
    for count in (6, 0):
        results = run_as({"collect_results": collects}, calls, items, journal)
        assert (results.stats.items_processed, len(calls.new())) == (3, count)
    skipping = {"duplicates": "skip", "collect_results": collects}
    results = run_as(skipping, calls, items, journal)
    assert results.stats.items_processed == 2
    with pytest.raises(DuplicateItemError):
        run_as({"duplicates": "error", "collect_results": collects}, calls, items, journal)
    assert calls.new() == []


class Strange:
    """An object that no codec knows."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Strange({self.name!r})"


class Unreadable(dict[Any, Any]):
    """An item that raises when it is read."""

    def __contains__(self, _: object) -> bool:
        raise ValueError("unreadable")


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"id": "x" * 600, "value": 1}, "it has 600 bytes, and the limit is 512"),
        ({"id": Strange("a"), "value": 1}, r"item id Strange\('a'\): a Strange cannot be a key"),
        (Strange("a"), r"item Strange\('a'\) has no id.* give it a key with key="),
        (Unreadable(a=1), "unreadable"),
    ],
)
def test_items_that_can_have_no_key_fail_and_the_others_go_on(
    item: Any, told: str, journal: Any
) -> None:
    """They say why, in each run; what is known of an item with the same number is not theirs."""
    calls = Calls()
    for count in (4, 0):
        results = run(
            two_stages(calls), [item, {"id": 0, "value": 1}, {"id": 1, "value": 2}], journal
        )
        [failed] = results.failed
        with pytest.raises((JournalKeyError, ValueError), match=told):
            raise failed.error or AssertionError
        assert sorted(results.values()) == [20, 30]
        assert len(calls.new()) == count
    assert rows_of(journal, "SELECT count(*) FROM items") == [(2,)]


def test_a_child_is_not_taken_for_a_fed_item_of_its_name(journal: Any) -> None:
    """A child named ``a/0`` and an item ``a/0`` are two, whichever comes first."""
    calls = Calls()

    def stages() -> list[Stage]:
        split = calls.task("Split", lambda n: [n] if n == 1 else [])
        return [Stage("Split", 1, [split], expand=True), Stage("Put", 1, [calls.task("Put")])]

    parent, other = {"id": "a", "value": 1}, {"id": "a/0", "value": 2}
    run(stages(), [parent], journal)
    calls.new()
    for made in ([("Split", 2)], []):
        results = run(stages(), [other, parent], journal)
        assert calls.new() == made
        assert (results.values(), results.stats.items_expanded) == ([1], 2)


def test_results_that_cannot_be_kept_end_the_run_at_the_first(journal: Any) -> None:
    """The error says which stage returned what; no further items are begun."""
    calls = Calls()
    bad = Stage("Get", 1, [calls.task("Get", lambda n: {"rows": [1, Strange("x")]})])
    with pytest.raises(NotSerialisable, match=r"result of stage 'Get' at \['rows'\]\[1\]"):
        run([bad, *two_stages(calls)[1:]], range(100), journal)
    assert len(calls.new()) <= 2


def test_an_input_that_cannot_be_kept_is_told_of_once(
    journal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its results are known by its key; whether it has changed is not."""
    calls = Calls()
    stages = [Stage("Name", 1, [calls.task("Name", lambda item: item.name)])]
    for count in (2, 0):
        items = [Strange("a"), Strange("b")]
        results = run(stages, items, journal, key=lambda item: item.name)
        assert (results.values(), len(calls.new())) == (["a", "b"], count)
    told = "an item cannot be kept, so the journal does not notice if it changes"
    assert [told in record.getMessage() for record in caplog.records] == [True, True]


def test_children_that_cannot_be_kept_end_the_run(journal: Any) -> None:
    """They would not be there when the run goes on."""
    split = Stage("Split", 1, [lambda n: [Strange("x")]], expand=True)
    with pytest.raises(NotSerialisable, match="result of stage 'Split'"):
        run([split, Stage("Put", 1, [str])], [1], journal)


# The same key, another input


def test_another_input_can_be_an_error_or_be_ignored(journal: Any) -> None:
    """With "error" the run ends and names the item; with "reuse" the old result is used."""
    calls = Calls()
    run(two_stages(calls), [{"id": "a", "value": 1}], journal)
    calls.new()
    changed = [{"id": "a", "value": 7}]
    with pytest.raises(JournalInputMismatch, match="item 'a' has different input"):
        run(two_stages(calls), changed, Journal(journal, on_input_change="error"))
    results = run(two_stages(calls), changed, Journal(journal, on_input_change="reuse"))
    assert (results.values(), results.changed, calls.new()) == ([20], 0, [])


def test_an_item_with_another_input_is_made_into_others_again(journal: Any) -> None:
    """Nothing is left of those that were made from the old input."""
    calls = Calls()

    def stages() -> list[Stage]:
        split = calls.task("Split", lambda n: [n * 10 + i for i in range(n)])
        return [Stage("Split", 1, [split], expand=True), Stage("Put", 1, [calls.task("Put")])]

    run(stages(), [{"id": "a", "value": 3}], journal)
    calls.new()
    results = run(stages(), [{"id": "a", "value": 2}], journal)
    assert calls.new() == [("Split", 2), ("Put", 20), ("Put", 21)]
    assert results.values() == [20, 21]
    assert rows_of(journal, "SELECT count(*) FROM items") == [(3,)]
    assert rows_of(journal, "SELECT count(*) FROM outcomes") == [(3,)]
    assert run(stages(), [{"id": "a", "value": 2}], journal).resumed == 3


def test_an_item_that_is_fed_to_another_stage_is_run_again(journal: Any) -> None:
    """What it went through before is not what it goes through now."""
    calls = Calls()

    async def feed(stage: str) -> list[Any]:
        async with Pipeline(two_stages(calls)).open(journal=journal) as opened:
            await opened.feed([{"id": "a", "value": 1}], stage)
        return list(opened.results.values())

    assert asyncio.run(feed("Put")) == [10]
    assert asyncio.run(feed("Get")) == [20]
    assert asyncio.run(feed("Get")) == [20]
    assert calls.new() == [("Put", 1), ("Get", 1), ("Put", 2)]


# Stages that have changed


def three(calls: Calls, **versions: Any) -> list[Stage]:
    return [
        Stage(name, 1, [calls.task(name, lambda n: n + 1)], version=versions.get(name, ""))
        for name in "ABC"
    ]


@pytest.mark.parametrize(("stage", "made"), [("A", "ABC"), ("B", "BC"), ("C", "C")])
def test_stages_are_run_again_from_the_first_that_has_changed(
    stage: str, made: str, journal: Any
) -> None:
    """And back in the old version: what only the old one had made may be used or made again."""
    calls = Calls()
    run(three(calls), [0], journal)
    calls.new()
    results = run(three(calls, **{stage: {"model": 2}}), [0], journal)
    assert ("".join(name for name, _ in calls.new()), results.values()) == (made, [3])
    assert run(three(calls, **{stage: {"model": 2}}), [0], journal).resumed == 1
    assert calls.new() == []
    assert run(three(calls), [0], journal).values() == [3]


@pytest.mark.parametrize(
    ("names", "made"),
    [
        ("ABCD", "D"),  # added at the end
        ("AXBC", "XBC"),  # added
        ("AB", ""),  # the last one removed
        ("AC", "C"),  # removed
        ("ACB", "CB"),  # moved
        ("AXC", "XC"),  # renamed
    ],
)
def test_a_stage_that_was_added_or_removed_or_moved_counts_as_changed(
    names: str, made: str, journal: Any
) -> None:
    """What was made before it is used."""
    calls = Calls()
    run(three(calls), [0, 5], journal)
    calls.new()
    stages = [Stage(name, 1, [calls.task(name, lambda n: n + 1)]) for name in names]
    for expected in (made, ""):
        results = run(stages, [0, 5], journal)
        assert results.values() == [len(names), 5 + len(names)]
        assert sorted(name for name, _ in calls.new()) == sorted(expected * 2)


def test_a_new_version_of_an_expanding_stage_makes_its_items_again(journal: Any) -> None:
    """Those of the old version are gone, with all that was kept of them."""
    calls = Calls()

    def stages(count: int) -> list[Stage]:
        split = calls.task("Split", lambda n: [n * 10 + i for i in range(count)])
        return [
            Stage("A", 1, [calls.task("A")]),
            Stage("Split", 1, [split], expand=True, version=count),
            Stage("Put", 1, [calls.task("Put")]),
            Stage("End", 1, [calls.task("End")]),
        ]

    run(stages(3), [1], journal)
    calls.new()
    assert run(stages(2), [1], journal).values() == [10, 11]
    assert [name for name, _ in calls.new()] == ["Split", "Put", "Put", "End", "End"]
    assert rows_of(journal, "SELECT count(*) FROM items") == [(3,)]
    assert rows_of(journal, "SELECT count(*) FROM outcomes") == [(3,)]
    assert run(stages(3), [1], journal).values() == [10, 11, 12]


def test_items_made_after_a_skipped_stage_are_not_made_twice(journal: Any) -> None:
    """Nothing is kept of a stage that was skipped, but the item was in the next one."""
    calls = Calls()
    calls.broken = {("Split", 1)}

    async def split(value: int) -> AsyncIterator[int]:
        yield value * 10
        calls.made.append(("Split", value))
        if ("Split", value) in calls.broken:
            raise ValueError
        yield value * 10 + 1

    def stages() -> list[Stage]:
        return [
            Stage("A", 1, [calls.task("A")], skip_if=lambda value: True),
            Stage("Split", 1, [split], expand=True, task_attempts=1),
            Stage("Put", 1, [calls.task("Put")]),
        ]

    run(stages(), [1], journal)
    calls.broken.clear()
    calls.new()
    assert run(stages(), [1], journal, retry_failed=True).values() == [10, 11]
    assert calls.new() == [("Split", 1), ("Put", 11)]


# On their way


def interrupted(calls: Calls, items: int, journal: Any, stage: str, capacity: int) -> list[Stage]:
    """Stages, after a run of them in which no item got through this one."""

    async def hang(_: Any) -> None:
        await asyncio.sleep(1000)

    def stages(hanging: str) -> list[Stage]:
        return [
            Stage(name, 1, [hang if name == hanging else calls.task(name)], queue_capacity=capacity)
            for name in "AB"
        ]

    async def main() -> None:
        async with Pipeline(stages(stage)).open(journal=journal) as opened:
            feeding = asyncio.create_task(opened.feed(range(items)))
            await asyncio.sleep(100)
            feeding.cancel()
            opened.cancel()

    run_virtual(main, leftovers="cancel")
    calls.new()
    return stages("")


def test_a_worker_that_takes_in_known_items_does_not_wait_for_itself(journal: Any) -> None:
    """It is the one that has to make room in its stage."""
    stages = interrupted(Calls(), 3, journal, "A", 1)

    async def main() -> list[int]:
        return (await Pipeline[int, int](stages).run(range(3), journal=journal)).values()

    assert run_virtual(main) == [0, 1, 2]


def test_known_items_that_wait_for_room_are_settled_if_the_run_is_cancelled(journal: Any) -> None:
    """All that the run had taken from its source have a result."""
    interrupted(Calls(), 20, journal, "B", 30)
    taken: list[int] = []

    async def hang(_: Any) -> None:
        await asyncio.sleep(1000)

    def source() -> Any:
        for number in range(20):
            taken.append(number)
            yield number

    async def main() -> int:
        stages = [Stage("A", 1, [str]), Stage("B", 1, [hang], queue_capacity=1)]
        pipeline = Pipeline(stages, journal=journal)
        with suppress(TimeoutError):
            async with asyncio.timeout(100):
                await pipeline.run(source())
        return len(pipeline.results.outcomes)

    assert run_virtual(main) == len(taken) > 3


# Failed items


class Refused(ConnectionError):
    """The service refuses an item."""


async def refuse(_: Any) -> Any:
    raise Refused("no")


def test_failed_items_are_retried_by_the_bases_of_their_errors(journal: Any) -> None:
    """As ``except`` would catch them."""
    stages = [Stage("Ask", 1, [refuse], task_attempts=1)]
    run(stages, [1], journal)
    mended = [Stage("Ask", 1, [str])]
    assert run(mended, [1], journal, retry_failed=(KeyError, ValueError)).failed
    assert run(mended, [1], journal, retry_failed=OSError).values() == ["1"]


def test_an_item_that_took_too_long_stays_failed_or_has_all_its_time_again(journal: Any) -> None:
    """Its time begins anew in each run, for items made from it too."""

    def stages(seconds: float) -> list[Stage]:
        async def lasting(value: int) -> int:
            await asyncio.sleep(seconds)
            return value

        return [Stage("Split", 1, [lambda n: [n]], expand=True), Stage("Put", 1, [lasting])]

    for _ in range(2):
        results = run(stages(1.0), [1], journal, item_timeout=0.1)
        assert results.stats.items_failed == 1
    results = run(stages(1.0), [1], journal, item_timeout=0.1, retry_failed=True)
    assert results.stats.items_failed == 1
    assert run(stages(0.0), [1], journal, retry_failed=TimeoutError).values() == [1]


def test_a_retried_item_goes_on_although_the_run_that_retried_it_did_not_end(
    journal: Any,
) -> None:
    """After the stages that it completed since, and not from its old failure."""
    calls = Calls()
    calls.broken = {("B", 1)}
    stages = [Stage(each.name, 1, list(each.tasks), task_attempts=1) for each in three(calls)]
    run(stages, [0], journal)
    calls.broken.clear()

    async def cancelled_in_c() -> None:
        async def cancel(_: Any) -> None:
            opened.cancel()
            await asyncio.sleep(10)

        pipeline = Pipeline([*stages[:2], Stage("C", 1, [cancel])])
        async with pipeline.open(journal=Journal(journal, retry_failed=True)) as opened:
            await opened.feed([0])

    calls.new()
    asyncio.run(cancelled_in_c())
    assert run(stages, [0], journal).values() == [3]
    assert calls.new() == [("B", 1), ("C", 2)]


def test_a_result_that_is_passed_in_goes_on_although_that_run_did_not_end(journal: Any) -> None:
    """As with ``retry_failed=True``: it was asked to go on, so it is not a failed item any more."""
    calls = Calls()
    calls.broken = {("Put", 2)}
    stages = two_stages(calls)
    failed = run(stages, [1, 5], journal).failed
    calls.broken.clear()
    calls.new()

    async def main() -> None:
        async def hang(_: Any) -> None:
            await asyncio.sleep(1000)

        pipeline = Pipeline([stages[0], Stage("Put", 1, [hang])], journal=journal)
        async with asyncio.timeout(100):
            await pipeline.run([], retry_failed=failed)

    with pytest.raises(TimeoutError):
        run_virtual(main)
    assert run(stages, [1, 5], journal).values() == [20, 60]
    assert calls.new() == [("Put", 2)]


@pytest.mark.parametrize("limit", [3, Failures(count=3, of_last=10)])
def test_failures_of_a_run_that_was_stopped_by_max_failures_are_retried(
    limit: Any, journal: Any
) -> None:
    """By themselves, and once: those that then fail in a run that is not stopped stay failed."""
    calls = Calls()
    calls.broken = {("Put", n) for n in range(100)}
    with pytest.raises(TooManyFailures):
        run(two_stages(calls), range(50), journal, max_failures=limit)
    calls.broken = {("Put", 1)}
    calls.new()
    results = run(two_stages(calls), range(50), journal)
    assert [str(failed.error) for failed in results.failed] == ["no 1"]
    assert len(results) + len(results.failed) == 50
    calls.new()
    assert len(run(two_stages(calls), range(50), journal).failed) == 1
    assert calls.new() == []


def test_only_what_stopped_a_run_is_retried(journal: Any) -> None:
    """An item that had failed before for a reason of its own stays failed."""
    calls = Calls()

    async def ask(value: int) -> int:
        calls.made.append(("Ask", value))
        if value == 1:
            raise ValueError("its own fault")
        if value == 5 and is_refused:
            raise Refused("all are refused")
        return value

    def stages() -> list[Stage]:
        return [Stage("Ask", 1, [ask], task_attempts=1)]

    is_refused = True
    with pytest.raises(TooManyFailures):
        run(stages(), range(8), journal, stop_on=Refused)
    is_refused = False
    calls.new()
    results = run(stages(), range(8), journal)
    assert [str(failed.error) for failed in results.failed] == ["its own fault"]
    assert sorted(value for _, value in calls.new()) == [5, 6, 7]


@pytest.mark.parametrize(
    "limits",
    [{"max_failures": 3}, {"max_failures": Failures(count=3, of_last=9)}, {"stop_on": Refused}],
    ids=["max_failures", "of_last", "stop_on"],
)
def test_failures_of_a_run_that_was_killed_as_it_was_stopped_are_retried(
    limits: dict[str, Any], tmp_path: Path
) -> None:
    """After each commit from that with the failure that stops it on."""
    journal = tmp_path / "run.db"

    async def ask(value: int) -> int:
        await asyncio.sleep(1 + value / 10)
        raise Refused("all are refused")

    async def stop() -> None:
        await Pipeline([Stage("Ask", 4, [ask], task_attempts=1)]).run(
            range(40), journal=journal, **limits
        )

    crashes = Crashes(journal)
    with watched(crashes), pytest.raises(TooManyFailures):
        run_virtual(stop)
    stops_with = 1 if "stop_on" in limits else 3
    failed_at_last = rows_of(journal, "SELECT count(*) FROM outcomes")[0][0]
    assert failed_at_last > stops_with
    again = journal.with_name("again.db")
    seen: set[int] = set()
    for number in range(len(crashes.ends)):
        crashes.restore(number, again)
        tables = [name for (name,) in rows_of(again, "SELECT name FROM sqlite_master")]
        failed = rows_of(again, "SELECT count(*) FROM outcomes") if "outcomes" in tables else [(0,)]
        seen.add(failed[0][0])
        if failed[0][0] >= stops_with:
            calls = Calls()
            stage = Stage("Ask", 4, [calls.task("Ask")])
            assert sorted(run([stage], range(40), again).values()) == [*range(40)]
    assert seen >= {stops_with, failed_at_last}
