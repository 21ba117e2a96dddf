"""Runs that keep a journal go on where an earlier one ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, RunResults, Stage, current_item

Task = Callable[[Any], Any]


class Calls:
    """Tasks that note how often they were called.

    Attributes:
        made: ``(stage, value)`` of each call, in order.
        broken: ``(stage, value)`` of calls that fail.
    """

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.broken: set[tuple[str, Any]] = set()

    def task(self, stage: str, answer: Task = lambda value: value) -> Task:
        async def call(value: Any) -> Any:
            self.made.append((stage, value))
            if (stage, value) in self.broken:
                raise ValueError(f"no {value}")
            return answer(value)

        return call

    def new(self) -> list[tuple[str, Any]]:
        """The calls since the last time."""
        made, self.made = self.made, []
        return made


def run(stages: list[Stage], items: Iterable[Any], journal: Any, **options: Any) -> RunResults[Any]:
    async def main() -> RunResults[Any]:
        pipeline = Pipeline[Any, Any](stages)
        return await pipeline.run(items, journal=journal, on_failures="ignore", **options)

    return asyncio.run(main())


def two_stages(calls: Calls) -> list[Stage]:
    return [
        Stage("Get", 2, [calls.task("Get", lambda n: n + 1)]),
        Stage("Put", 2, [calls.task("Put", lambda n: n * 10)], task_attempts=1),
    ]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def test_settled_items_are_not_run_again(journal: Path) -> None:
    """The same run again calls nothing, and has the same results; new items are run."""
    calls = Calls()
    first = run(two_stages(calls), range(5), journal)
    assert (first.resumed, len(calls.new())) == (0, 10)
    second = run(two_stages(calls), range(6), journal)
    assert second.values() == [10, 20, 30, 40, 50, 60]
    assert calls.new() == [("Get", 5), ("Put", 6)]
    assert second.resumed == 5
    assert (second.stats.items_accepted, second.stats.items_processed) == (6, 6)


def test_failed_items_stay_failed_or_go_on_where_they_failed(journal: Path) -> None:
    """A failed item is run again only if that is asked for, and from the stage that failed."""
    calls = Calls()
    calls.broken = {("Put", 3)}
    run(two_stages(calls), range(5), journal)
    calls.new()
    again = run(two_stages(calls), range(5), journal)
    assert calls.new() == []
    [failed] = again.failed
    assert (str(failed.error), failed.stage, failed.value, failed.attempts) == ("no 3", "Put", 3, 1)
    assert "test_resuming.py:" in failed.location
    assert again.summary.errors_by_type == {"ValueError": 1}
    calls.broken.clear()
    assert run(two_stages(calls), range(5), journal, retry_failed=(OSError,)).failed
    assert calls.new() == []
    mended = run(two_stages(calls), range(5), journal, retry_failed=(ValueError,))
    assert calls.new() == [("Put", 3)]
    assert (mended.values(), mended.failed) == ([10, 20, 30, 40, 50], [])


def test_items_made_from_others_are_resumed_too(journal: Path) -> None:
    """Children are known with their parent: settled ones stay, the others go on."""
    calls = Calls()
    calls.broken = {("Put", 11)}

    def stages() -> list[Stage]:
        return [
            Stage(
                "Split",
                1,
                [calls.task("Split", lambda n: [n * 10 + i for i in range(3)])],
                expand=True,
            ),
            Stage(
                "Put", 1, [calls.task("Put", lambda n: Drop if n % 10 == 2 else n)], task_attempts=1
            ),
        ]

    run(stages(), [0, 1], journal)
    calls.new()
    calls.broken.clear()
    results = run(stages(), [0, 1], journal, retry_failed=True)
    assert calls.new() == [("Put", 11)]
    assert sorted(results.values()) == [0, 1, 10, 11]
    stats = results.stats
    assert (stats.items_accepted, stats.items_children, stats.items_expanded) == (2, 6, 2)
    assert (stats.items_dropped, stats.items_in_flight, results.resumed) == (2, 0, 7)


def test_another_input_under_a_known_key_is_run_again(journal: Path) -> None:
    """A stale result never comes back silently."""
    calls = Calls()
    run(two_stages(calls), [{"id": "a", "value": 1}, {"id": "b", "value": 2}], journal)
    calls.new()
    changed = [{"id": "a", "value": 1}, {"id": "b", "value": 7}]
    results = run(two_stages(calls), changed, journal)
    assert calls.new() == [("Get", 7), ("Put", 8)]
    assert (results.values(), results.changed, results.resumed) == ([20, 80], 1, 1)
    assert run(two_stages(calls), changed, journal).resumed == 2


def test_a_new_version_of_a_stage_uses_no_old_results_from_there_on(journal: Path) -> None:
    """Results of the stages before it are used, its own and later ones are made again."""
    calls = Calls()
    run(two_stages(calls), [1], journal)
    calls.new()
    get, put = two_stages(calls)
    newer = Stage("Put", 2, list(put.tasks), version="v2")
    assert run([get, newer], [1], journal).changed == 1
    assert calls.new() == [("Put", 2)]
    assert run([get, newer], [1], journal).resumed == 1


def test_the_idempotency_key_is_the_same_in_every_run_of_a_journal(journal: Path) -> None:
    """It depends on the journal, the item and the stage."""
    keys: list[str] = []

    async def ask(value: Any) -> Any:
        keys.append(current_item().idempotency_key)
        raise ValueError

    stages = [Stage("Ask", 1, [ask], task_attempts=2, task_wait_seconds=0.0)]
    run(stages, ["a"], journal)
    run(stages, ["a"], journal, retry_failed=True)
    run(stages, ["b", "a"], journal, retry_failed=True)
    assert len(set(keys)) == 2
    assert keys[:4] == [keys[0]] * 4
    run(stages, ["a"], journal.with_name("other.db"))
    assert keys[-1] not in keys[:-2]


def test_equal_items_stay_two(journal: Path) -> None:
    """Without ids, an item is known by its content, and the second of two equal ones as such."""
    calls = Calls()
    assert run(two_stages(calls), [1, 1, 2], journal).values() == [20, 20, 30]
    calls.new()
    assert run(two_stages(calls), [2, 1, 1], journal).resumed == 3
    assert calls.new() == []
